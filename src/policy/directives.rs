//! The directives of Cache-Control, and of the fields in its place (RFC 9111 §5.2 and §5.4, RFC 9213).
//!
//! A targeted field counts instead of Cache-Control and Expires, where it is a valid Structured Field (RFC 9651) and is
//! not empty. In a shared cache this is CDN-Cache-Control, unless the settings name other fields.
//!
//! # Invariants
//! - Directives are read in any letter case, over any number of lines.
//! - Of several values of one directive, the most restrictive counts. In a targeted field the last one counts, as RFC
//!   9651 §3.2 says of a dictionary.
//! - A malformed value counts as the most restrictive one.
//! - A response whose line has a quote that is not closed has to be validated before each use.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::list::{Argument, MAX_DELTA_SECONDS, delta_seconds, directives, is_balanced, split_list};
use super::options::Options;

/// The fields that a shared cache obeys by default (RFC 9213 §3.1).
static DEFAULT_TARGETS: [HeaderName; 1] = [HeaderName::from_static("cdn-cache-control")];

impl Options {
    /// Returns the targeted fields that the cache obeys, the most important one first (RFC 9213 §2.2).
    pub(super) fn targets(&self) -> &[HeaderName] {
        match &self.targeted_fields {
            Some(fields) => fields,
            None if self.shared => &DEFAULT_TARGETS,
            None => &[],
        }
    }
}

/// The demands of a request on a cache (RFC 9111 §5.2.1).
///
/// The request's fields make some of them, its options and the settings of the cache the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestDirectives {
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<Duration>,
    /// For how long a response may have been stale. `Duration::MAX` means any time.
    pub(crate) max_stale: Option<Duration>,
    pub(crate) min_fresh: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    /// Fetches from the origin, whatever is stored. No field says so, only options and settings.
    pub(crate) reload: bool,
    /// Accepts a stored response of any age. No field says so, only options and settings.
    pub(crate) force: bool,
    /// For how long a response may have been stale if it is refreshed meanwhile. No field says so, only options.
    pub(crate) stale_while_revalidate: Option<Duration>,
    /// Does not store the response. No field says so, only scopes and settings.
    pub(crate) read_only: bool,
}

impl RequestDirectives {
    /// Reads the directives of a request (RFC 9111 §5.2.1 and §5.4).
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut parsed = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            // Pragma counts only in a request without Cache-Control (RFC 9111 §5.4).
            let pragma = headers.get_all(header::PRAGMA).iter();
            parsed.no_cache =
                pragma.flat_map(|line| directives(line.as_bytes())).any(|(name, _)| is(name, "no-cache"));
            return parsed;
        }
        for line in headers.get_all(header::CACHE_CONTROL) {
            // An open quote may have swallowed any directive. `no-cache` is the safe reading.
            parsed.no_cache |= !is_balanced(line.as_bytes());
            for (name, argument) in directives(line.as_bytes()) {
                parsed.apply(name, &argument);
            }
        }
        parsed
    }

    /// Adds one directive, and ignores an unknown one (RFC 9111 §5.2.1 and §5.2.3, RFC 5861 §4).
    fn apply(&mut self, name: &[u8], argument: &Argument<'_>) {
        if is(name, "no-store") {
            self.no_store = true;
        } else if is(name, "no-cache") {
            self.no_cache = true;
        } else if is(name, "only-if-cached") {
            self.only_if_cached = true;
        } else if is(name, "max-age") {
            lower(&mut self.max_age, seconds(argument).unwrap_or_default());
        } else if is(name, "max-stale") {
            // Without a value the request accepts any staleness (RFC 9111 §5.2.1.2). A malformed value accepts none.
            let longest = match argument {
                Argument::Absent => Duration::MAX,
                _ => seconds(argument).unwrap_or_default(),
            };
            lower(&mut self.max_stale, longest);
        } else if is(name, "min-fresh") {
            // Here the largest value is the most restrictive.
            let shortest = seconds(argument).unwrap_or(Duration::from_secs(MAX_DELTA_SECONDS));
            self.min_fresh = Some(self.min_fresh.unwrap_or_default().max(shortest));
        } else if is(name, "stale-if-error") {
            lower(&mut self.stale_if_error, seconds(argument).unwrap_or_default());
        }
    }
}

/// Returns whether a request asks that its content is not transformed (RFC 9111 §5.2.1.6).
#[cfg(feature = "content-keys")]
pub(crate) fn forbids_transforming(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CACHE_CONTROL).iter();
    lines.flat_map(|line| directives(line.as_bytes())).any(|(name, _)| is(name, "no-transform"))
}

/// The directives of a response to caches (RFC 9111 §5.2.2, RFC 5861, RFC 8246).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseDirectives {
    pub(crate) no_store: bool,
    /// Overrides `no-store` for a status that the cache understands (RFC 9111 §5.2.2.3).
    pub(crate) must_understand: bool,
    pub(crate) no_cache: bool,
    /// The fields that must not be used without validation, where `no-cache` names some (RFC 9111 §5.2.2.4).
    pub(crate) no_cache_fields: Vec<HeaderName>,
    pub(crate) private: bool,
    /// The fields that are for one user, where `private` names some (RFC 9111 §5.2.2.7).
    pub(crate) private_fields: Vec<HeaderName>,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    /// The response does not change while it is fresh (RFC 8246).
    pub(crate) immutable: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    /// The directives come from a targeted field, so that Cache-Control and Expires do not count (RFC 9213 §2.2).
    pub(crate) targeted: bool,
}

impl ResponseDirectives {
    /// Reads the directives of a response (RFC 9111 §5.2.2).
    ///
    /// Those of the first targeted field that is valid and not empty replace them (RFC 9213 §2.2).
    pub(crate) fn of(headers: &HeaderMap, options: &Options) -> Self {
        let mut parsed = Self::default();
        for field in options.targets() {
            if targeted_directives(headers, field, |name, argument| parsed.apply(name, &argument)) {
                parsed.targeted = true;
                return parsed;
            }
        }
        for line in headers.get_all(header::CACHE_CONTROL) {
            // An open quote may have swallowed any directive. `no-cache` is the safe reading.
            parsed.no_cache |= !is_balanced(line.as_bytes());
            for (name, argument) in directives(line.as_bytes()) {
                parsed.apply(name, &argument);
            }
        }
        parsed
    }

    /// Adds one directive, and ignores an unknown one (RFC 9111 §5.2.2 and §5.2.3, RFC 5861, RFC 8246).
    fn apply(&mut self, name: &[u8], argument: &Argument<'_>) {
        if is(name, "no-store") {
            self.no_store = true;
        } else if is(name, "must-understand") {
            // This directive and `public` permit more, so that a value which is not in their grammar cancels them.
            self.must_understand |= *argument == Argument::Absent;
        } else if is(name, "no-cache") {
            match field_names(argument) {
                Some(fields) if !fields.iter().any(is_essential) => self.no_cache_fields.extend(fields),
                _ => self.no_cache = true,
            }
        } else if is(name, "private") {
            match field_names(argument) {
                Some(fields) if !fields.iter().any(is_essential) => self.private_fields.extend(fields),
                _ => self.private = true,
            }
        } else if is(name, "public") {
            self.public |= *argument == Argument::Absent;
        } else if is(name, "must-revalidate") {
            self.must_revalidate = true;
        } else if is(name, "proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is(name, "immutable") {
            self.immutable = true;
        } else if is(name, "max-age") {
            // RFC 9111 §4.2.1 asks for stale where a value is invalid, and permits the most restrictive of several.
            lower(&mut self.max_age, seconds(argument).unwrap_or_default());
        } else if is(name, "s-maxage") {
            lower(&mut self.s_maxage, seconds(argument).unwrap_or_default());
        } else if is(name, "stale-while-revalidate") {
            lower(&mut self.stale_while_revalidate, seconds(argument).unwrap_or_default());
        } else if is(name, "stale-if-error") {
            lower(&mut self.stale_if_error, seconds(argument).unwrap_or_default());
        }
    }
}

/// Passes each directive of a targeted field to `apply` (RFC 9213 §2.1).
///
/// Returns `false`, without a call, if the field is absent, empty or no valid dictionary. Then it does not count
/// (§2.1).
fn targeted_directives(
    headers: &HeaderMap,
    field: &HeaderName,
    mut apply: impl FnMut(&[u8], Argument<'_>),
) -> bool {
    let mut lines = headers.get_all(field).iter().peekable();
    if lines.peek().is_none() {
        return false;
    }
    let whole = lines.map(|line| line.as_bytes()).collect::<Vec<_>>().join(&b", "[..]);
    let Ok(dictionary) = Parser::new(&whole).parse::<Dictionary>() else { return false };
    for (name, entry) in &dictionary {
        let name = name.as_str().as_bytes();
        match entry {
            ListEntry::Item(item) => match &item.bare_item {
                BareItem::Boolean(false) => {}
                BareItem::Boolean(true) => apply(name, Argument::Absent),
                BareItem::Integer(number) => {
                    apply(name, Argument::Value(number.to_string().into_bytes().into()));
                }
                // Only lists of field names come as strings. A number in a string has the wrong type (RFC 9213 §2.1),
                // and would be taken for seconds below.
                BareItem::String(text)
                    if !text.as_str().starts_with(|first: char| first.is_ascii_digit()) =>
                {
                    apply(name, Argument::Value(text.as_str().as_bytes().into()));
                }
                _ => apply(name, Argument::Malformed),
            },
            ListEntry::InnerList(_) => apply(name, Argument::Malformed),
        }
    }
    !dictionary.is_empty()
}

/// Compares the name of a directive in any letter case (RFC 9111 §5.2).
fn is(name: &[u8], directive: &str) -> bool {
    name.eq_ignore_ascii_case(directive.as_bytes())
}

/// Lowers a limit to `value` if that is the smaller one (RFC 9111 §4.2.1).
fn lower(limit: &mut Option<Duration>, value: Duration) {
    *limit = Some(limit.map_or(value, |before| before.min(value)));
}

/// Parses delta-seconds, bare or quoted, since both forms mean the same (RFC 9111 §1.2.2 and §5.2).
fn seconds(argument: &Argument<'_>) -> Option<Duration> {
    match argument {
        Argument::Value(digits) => delta_seconds(digits).map(Duration::from_secs),
        _ => None,
    }
}

/// Returns the field names of a qualified directive (RFC 9111 §5.2.2.4 and §5.2.2.7).
///
/// `None` if there is no name, or if a member is not a field name. The directive then counts without a qualification,
/// which is the stricter reading.
fn field_names(argument: &Argument<'_>) -> Option<Vec<HeaderName>> {
    let Argument::Value(list) = argument else { return None };
    let names: Option<Vec<_>> = split_list(list).map(|name| HeaderName::from_bytes(name).ok()).collect();
    names.filter(|names| !names.is_empty())
}

/// Returns whether a response without this field would mean something else, or could not be judged.
///
/// A qualified `no-cache` or `private` (RFC 9111 §5.2.2.4 and §5.2.2.7) that names such a field counts as unqualified.
fn is_essential(name: &HeaderName) -> bool {
    [
        header::AGE,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::DATE,
        header::EXPIRES,
        header::LOCATION,
        header::VARY,
    ]
    .contains(name)
}
