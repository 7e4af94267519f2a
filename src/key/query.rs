//! Which query parameters identify a request.
//!
//! # Invariants
//! - Without settings a query is kept as it is, and nothing is allocated for it.
//! - A query in normal form is kept as it is, so that the URL of a stored entry finds that entry.
//! - Which settings apply to a URL does not depend on its query.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::policy::loose_name;
use crate::rules::UrlPattern;

/// The settings on query parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuerySettings {
    list: Vec<QuerySetting>,
    sorted: bool,
    /// The first mistake in a pattern.
    error: Option<Error>,
}

/// Tells how a list of names applies to the parameters that match it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// They do not identify a request.
    Ignored,
    /// They alone identify a request.
    Only,
}

/// Names for the URLs that match a pattern.
#[derive(Clone, Debug)]
struct QuerySetting {
    /// `None` for all URLs.
    pattern: Option<UrlPattern>,
    named: Named,
    names: Vec<String>,
    /// The part of the names in the fingerprint.
    fingerprint: u64,
}

impl QuerySettings {
    /// Adds names, for the URLs that match a pattern or for all.
    pub(crate) fn add(&mut self, pattern: Option<Result<UrlPattern>>, named: Named, names: Vec<String>) {
        let pattern = match pattern.transpose() {
            Ok(pattern) if pattern.as_ref().is_some_and(UrlPattern::has_query) => {
                self.error.get_or_insert_with(|| {
                    Error::new(
                        ErrorKind::Config,
                        "URL pattern: settings of query parameters apply to a URL with any query; remove the query from \
                         the pattern",
                    )
                });
                return;
            }
            Ok(pattern) => pattern,
            Err(error) => {
                self.error.get_or_insert(error);
                return;
            }
        };
        if named == Named::Ignored && names.is_empty() {
            return;
        }
        let kind = if named == Named::Only { "only" } else { "ignored" };
        let fingerprint = names.iter().fold(0_u64, |sum, name| sum.wrapping_add(number_of(kind, name)));
        self.list.push(QuerySetting { pattern, named, names, fingerprint });
    }

    /// Sets whether the order of parameters does not identify a request.
    pub(crate) fn sort(&mut self, sorted: bool) {
        self.sorted = sorted;
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`ErrorKind::Config`] if a pattern is malformed or a name is empty.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let is_empty = |setting: &&QuerySetting| setting.names.iter().any(String::is_empty);
        match self.list.iter().find(is_empty).map(|setting| setting.named) {
            None => Ok(()),
            Some(Named::Ignored) => Err(Error::new(
                ErrorKind::Config,
                "ignore_query_params names an empty parameter: remove the empty name",
            )),
            Some(Named::Only) => Err(Error::new(
                ErrorKind::Config,
                "only_query_params names an empty parameter: remove the empty name",
            )),
        }
    }

    /// Returns whether these settings keep every URI as it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.list.is_empty() && !self.sorted
    }

    /// Returns whether a setting is limited to some URLs.
    pub(crate) fn has_patterns(&self) -> bool {
        self.list.iter().any(|setting| setting.pattern.is_some())
    }

    /// Returns the settings for a URL, which is given without its query.
    fn of<'s>(&'s self, url: &'s str) -> impl Iterator<Item = &'s QuerySetting> {
        self.list.iter().filter(|setting| setting.pattern.as_ref().is_none_or(|pattern| pattern.matches(url)))
    }

    /// Returns a number that stands for the settings for a URL, or 0 if there are none.
    ///
    /// It is the same in every process with the same settings, in whatever order they were made.
    pub(crate) fn fingerprint(&self, url: &str) -> u64 {
        if self.is_plain() {
            return 0;
        }
        let url = url.split_once('?').map_or(url, |(url, _)| url);
        let (mut sum, mut has_only, mut is_any) = (0_u64, false, self.sorted);
        for setting in self.of(url) {
            is_any = true;
            has_only |= setting.named == Named::Only;
            sum = sum.wrapping_add(setting.fingerprint);
        }
        // Two bits of their own say what no name does, since a list may be empty.
        sum = sum.wrapping_mul(4).wrapping_add(2 * u64::from(has_only)).wrapping_add(u64::from(self.sorted));
        if is_any { sum.max(1) } else { 0 }
    }

    /// Returns a path and query in the form that requests of one identity share.
    ///
    /// `url` is the effective URI without its query; it is needed only if [some settings have a
    /// pattern](Self::has_patterns). Returns `None` if path and query are in that form already.
    pub(crate) fn normalized(&self, url: &str, path_and_query: &str) -> Option<String> {
        if self.is_plain() {
            return None;
        }
        let (path, query) = path_and_query.split_once('?')?;
        // Some servers split at semicolons as well. A client could hide a parameter in the value of an
        // ignored one, or make another one the last of its name, and so store a response under the wrong
        // identity.
        if query.contains(';') {
            return None;
        }
        let (mut ignored, mut only) = (Vec::new(), None::<Vec<Option<String>>>);
        for setting in self.of(url) {
            match setting.named {
                Named::Ignored => ignored.extend(&setting.names),
                Named::Only => only
                    .get_or_insert_default()
                    .extend(setting.names.iter().map(|name| loose_name(name.as_bytes()))),
            }
        }
        let identifies = |raw: &str, name: &str| {
            let is_only = || match (&only, loose_name(raw.as_bytes())) {
                (None, _) | (_, None) => true,
                (Some(only), Some(name)) => {
                    only.iter().any(|only| only.as_ref().is_none_or(|only| matches(only, &name)))
                }
            };
            !ignored.iter().any(|ignored| matches(ignored, name)) && is_only()
        };
        let mut pairs: Vec<(Cow<'_, str>, &str)> = Vec::new();
        let mut has_all = true;
        for pair in query.split('&') {
            let raw = pair.split_once('=').map_or(pair, |(name, _)| name);
            let name = decoded(raw);
            if identifies(raw, &name) {
                pairs.push((name, pair));
            } else {
                has_all = false;
            }
        }
        if has_all && (!self.sorted || pairs.is_sorted_by(|one, other| one.0 <= other.0)) {
            return None;
        }
        if self.sorted {
            // A stable sort: the order of the values of one name may have a meaning.
            pairs.sort_by(|one, other| one.0.cmp(&other.0));
        }
        let pairs: Vec<&str> = pairs.into_iter().map(|(_, pair)| pair).collect();
        let question_mark = if pairs.is_empty() { "" } else { "?" };
        Some(format!("{path}{question_mark}{}", pairs.join("&")))
    }
}

/// Decodes the name of a parameter, in which a plus is a space.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains(['%', '+']) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(percent_decode_str(&name.replace('+', " ")).decode_utf8_lossy().into_owned())
}

/// Returns whether a glob, in which a star is any text, matches a whole name.
fn matches(glob: &str, name: &str) -> bool {
    let Some((start, rest)) = glob.split_once('*') else { return glob == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    // The first place of each piece leaves the longest rest to the others.
    for piece in pieces {
        match left.split_once(piece) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(end)
}

/// Returns a number that stands for a name in a setting.
pub(crate) fn number_of(kind: &str, name: &str) -> u64 {
    let mut hash = Sha256::new();
    super::update_with_length(&mut hash, kind.as_bytes());
    hash.update(name.as_bytes());
    let digest = hash.finalize();
    u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://a/x";

    fn settings(ignored: &[&str], only: Option<&[&str]>, sorted: bool) -> QuerySettings {
        let mut settings = QuerySettings::default();
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        settings.add(None, Named::Ignored, owned(ignored));
        if let Some(only) = only {
            settings.add(None, Named::Only, owned(only));
        }
        settings.sort(sorted);
        settings
    }

    #[test]
    fn ignored_parameters_are_removed_and_others_sorted() {
        for (ignored, sorted, uri, expected) in [
            (&[][..], false, "/?b=1&a=2", "/?b=1&a=2"),
            (&[], true, "/?b=1&a=2", "/?a=2&b=1"),
            (&[], true, "/?a=2&a=1&a=3", "/?a=2&a=1&a=3"),
            (&[], true, "/?b&a=1", "/?a=1&b"),
            (&["b"], false, "/x?b=1&a=2&b", "/x?a=2"),
            (&["b"], false, "/x?b=1", "/x"),
            (&["b"], false, "/x", "/x"),
            (&["b"], false, "/x?", "/x?"),
            (&["a b"], false, "/?a+b=1&a%20b=2&ab=3", "/?ab=3"),
            (&["b"], false, "/?B=1&%62=2", "/?B=1"),
            (&["b"], true, "/?c=1&b=2;c=3", "/?c=1&b=2;c=3"),
            (&["b"], true, "/;x?c=1&b=2", "/;x?c=1"),
            (&["b"], false, "/?b=1%3bc&c", "/?c"),
            (&["utm_*"], false, "/?utm_a=1&utm=2&utm_=3&UTM_a=4&xutm_a", "/?utm=2&UTM_a=4&xutm_a"),
            (&["*_id", "a*b*c"], false, "/?g_id=1&id=2&abc=3&axbxbxc&acb", "/?id=2&acb"),
            (&["*"], false, "/?a=1&b", "/"),
            (&["aa*aa"], false, "/?aaa=1&aaaa=2", "/?aaa=1"),
        ] {
            let settings = settings(ignored, None, sorted);
            assert_eq!(settings.normalized(URL, uri).as_deref().unwrap_or(uri), expected);
        }
    }

    /// Whatever a server may read as a named parameter is kept.
    #[test]
    fn only_named_parameters_remain_in_any_spelling() {
        for (ignored, only, uri, expected) in [
            (&[][..], &["page"][..], "/?a=1&page=2&b", "/?page=2"),
            (&[], &["page"], "/?b=1", "/"),
            (&[], &["page"], "/?page", "/?page"),
            (
                &[],
                &["page"],
                "/?PAGE=1&%70age=2&page[]=3&page%5Bx%5D=4&pages=5",
                "/?PAGE=1&%70age=2&page[]=3&page%5Bx%5D=4",
            ),
            (&[], &["a_b"], "/?a.b=1&a+b=2&a%20b=3&ab=4&a[b=5", "/?a.b=1&a+b=2&a%20b=3&a[b=5"),
            (&[], &["a.B"], "/?a_b=1&c=2", "/?a_b=1"),
            (
                &[],
                &["page"],
                "/?%20page=1&page%00x=2&%25u0070age=3&%ff=4&x=5",
                "/?%20page=1&page%00x=2&%25u0070age=3&%ff=4",
            ),
            (&[], &["filter_*"], "/?filter_a=1&filter=2&filter.b=3", "/?filter_a=1&filter.b=3"),
            (&[], &[], "/?a=1", "/"),
            (&["page"], &["page", "size"], "/?page=1&size=2&x=3", "/?size=2"),
            (&[], &["page"], "/?a=1;page=2", "/?a=1;page=2"),
        ] {
            let settings = settings(ignored, Some(only), false);
            let normalized = settings.normalized(URL, uri);
            assert_eq!(normalized.as_deref().unwrap_or(uri), expected, "{uri}");
            assert_eq!(settings.normalized(URL, expected), None, "{expected}: normal forms are kept");
        }
    }

    #[test]
    fn patterns_limit_settings_to_urls() {
        let mut settings = settings(&["t"], None, false);
        let pattern = |text| Some(UrlPattern::glob(text));
        settings.add(pattern("a/list"), Named::Only, vec!["page".to_owned()]);
        settings.add(pattern("a/list"), Named::Only, vec!["size".to_owned()]);
        settings.add(pattern("a/img/**"), Named::Ignored, vec!["v".to_owned()]);
        let of = |url, path| settings.normalized(url, path);
        assert_eq!(of("http://a/list", "/list?x=1&page=2&size=3&t=4").unwrap(), "/list?page=2&size=3");
        assert_eq!(of("http://a/img/x", "/img/x?v=1&w=2&t").unwrap(), "/img/x?w=2");
        assert_eq!(of("http://b/list", "/list?x=1&v=2"), None);
        let fingerprints =
            ["http://a/list?x", "http://a/img/x", "http://a/"].map(|url| settings.fingerprint(url));
        assert!(fingerprints[0] != fingerprints[1] && fingerprints[1] != fingerprints[2]);
        assert_eq!(settings.fingerprint("http://a/list"), fingerprints[0]);
    }

    #[test]
    fn fingerprint_follows_settings_not_their_order() {
        let of = |ignored: &[&str], only, sorted| settings(ignored, only, sorted).fingerprint(URL);
        assert_eq!(of(&["a", "b"], None, false), of(&["b", "a"], None, false));
        assert_eq!(of(&[], None, false), 0);
        let mut all = vec![
            of(&["a"], None, false),
            of(&["a", "b"], None, false),
            of(&["a"], None, true),
            of(&[], None, true),
            of(&[], Some(&[]), false),
            of(&[], Some(&[]), true),
            of(&[], Some(&["a"]), false),
            0,
        ];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8);
    }
}
