//! Which queries a response answers (No-Vary-Search).
//!
//! The field and the comparison are those of draft-ietf-httpbis-no-vary-search, whose sections are named below. Two points
//! differ from its text:
//!
//! - `key-order` counts alone, without `params` and `except`. Its examples and the introduction say so; a step of the
//!   algorithm in "Parse a URL variation config" does not.
//! - `params` may also be a boolean, beside which `except` names the parameters that count. This is the older form, which
//!   browsers have implemented.
//!
//! # Invariants
//! - A field that is malformed, or longer than [`MAX_LEN`], has no effect.
//! - Queries that a value treats as equivalent are equivalent by the draft. The reverse does not hold for a query with a
//!   semicolon, and for names that servers may confuse with one of `except`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sfv::{BareItem, Dictionary, InnerList, ListEntry, Parser};

use super::loose_name;

pub(crate) const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// The longest field that is read, in bytes. Each response of a path is stored and compared with its value.
const MAX_LEN: usize = 1024;
/// The most parameters that a field may name. Each parameter of a query is compared with all of them.
const MAX_NAMES: usize = 64;

/// The bytes that are encoded in a query in normal form.
///
/// The semicolon is among them, since some servers split at semicolons.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>');

/// A value of the field that is not the default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoVarySearch {
    /// The order of parameters does not count, except among those of one name.
    pub(crate) ignores_order: bool,
    /// The named parameters are the only ones that count. Otherwise, they are the ones that do not.
    pub(crate) is_except: bool,
    /// The decoded names, sorted and each once.
    pub(crate) names: Vec<String>,
}

impl NoVarySearch {
    /// Returns the value in the fields of a response ("Obtain a URL variation config").
    ///
    /// Returns `None` for the default value, by which only the same query is equivalent.
    pub(crate) fn of(response: &HeaderMap) -> Option<Self> {
        let mut lines = response.get_all(&NO_VARY_SEARCH).iter().peekable();
        // Most responses have none.
        lines.peek()?;
        let whole = lines.map(|line| line.as_bytes()).collect::<Vec<_>>().join(&b", "[..]);
        if whole.len() > MAX_LEN {
            return None;
        }
        Self::parse(&Parser::new(&whole).parse::<Dictionary>().ok()?)
    }

    /// Reads a value ("Parse a URL variation config").
    fn parse(dictionary: &Dictionary) -> Option<Self> {
        let ignores_order = match dictionary.get("key-order") {
            None => false,
            Some(entry) => boolean(entry)?,
        };
        let (is_except, names) = match (dictionary.get("params"), dictionary.get("except")) {
            (None, None) => (false, Vec::new()),
            (Some(ListEntry::InnerList(ignored)), None) => (false, names_in(ignored)?),
            (None, Some(ListEntry::InnerList(only))) => (true, names_in(only)?),
            // The older form.
            (Some(params), None) => (boolean(params)?, Vec::new()),
            (Some(params), Some(ListEntry::InnerList(only))) if boolean(params)? => (true, names_in(only)?),
            _ => return None,
        };
        // These are the default value.
        let is_default = !ignores_order && !is_except && names.is_empty();
        (!is_default && names.len() <= MAX_NAMES).then_some(Self { ignores_order, is_except, names })
    }

    /// Returns a query in the form that all equivalent queries share ("Comparing").
    ///
    /// The form is equivalent to the query. Returns `None` if the query is equivalent to no other: it has a semicolon, at
    /// which some servers split. A client could hide a parameter in the value of an ignored one, and so store a response for
    /// queries that the server takes for others.
    pub(crate) fn normalized(&self, query: &str) -> Option<String> {
        let encoded = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
        let pairs = self.counting(query)?.into_iter().map(|(name, pair)| {
            let value = pair.split_once('=').map_or("", |(_, value)| value);
            format!("{}={}", encoded(&name), encoded(&decoded(value)))
        });
        Some(pairs.collect::<Vec<_>>().join("&"))
    }

    /// Returns a query without what does not count, spelled as it was.
    ///
    /// Returns `None` if all of it counts, because it has a semicolon.
    pub(crate) fn reduced(&self, query: &str) -> Option<String> {
        let pairs: Vec<&str> = self.counting(query)?.into_iter().map(|(_, pair)| pair).collect();
        Some(pairs.join("&"))
    }

    /// Returns the parameters that count, each with its decoded name.
    ///
    /// They are in order if their order does not count.
    fn counting<'q>(&self, query: &'q str) -> Option<Vec<(Cow<'q, str>, &'q str)>> {
        if query.contains(';') {
            return None;
        }
        // Names that servers may read as one that counts are kept.
        let only = || self.names.iter().map(|name| loose(name));
        let only: Vec<_> = if self.is_except { only().collect() } else { Vec::new() };
        let counts = |name: &str| {
            let is_named = self.names.binary_search_by(|known| (**known).cmp(name)).is_ok();
            match self.is_except {
                false => !is_named,
                true if is_named => true,
                // Servers read a name that is not UTF-8, or for which there is no loose name, in ways that are not known.
                true if name.contains(char::REPLACEMENT_CHARACTER) => true,
                true => loose(name).is_none_or(|name| only.iter().any(|only| only.as_ref() == Some(&name))),
            }
        };
        let mut pairs: Vec<(Cow<'_, str>, &str)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let raw = pair.split_once('=').map_or(pair, |(name, _)| name);
            let name = decoded(raw);
            if counts(&name) {
                pairs.push((name, pair));
            }
        }
        if self.ignores_order {
            // A stable sort: the order of the values of one name counts.
            pairs.sort_by(|one, other| one.0.cmp(&other.0));
        }
        Some(pairs)
    }
}

/// Returns the loose form of a decoded name.
fn loose(name: &str) -> Option<String> {
    // Encoded first, since it is decoded there.
    loose_name(utf8_percent_encode(name, NON_ALPHANUMERIC).to_string().as_bytes())
}

/// Returns the value of a boolean member.
fn boolean(entry: &ListEntry) -> Option<bool> {
    match entry {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::Boolean(value) => Some(value),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    }
}

/// Returns the decoded names in a list of strings ("Parse a key").
fn names_in(list: &InnerList) -> Option<Vec<String>> {
    let name = |item: &sfv::Item| match &item.bare_item {
        BareItem::String(name) => Some(decoded(name.as_str()).into_owned()),
        _ => None,
    };
    let mut names = list.items.iter().map(name).collect::<Option<Vec<_>>>()?;
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// Decodes a name or a value as the `application/x-www-form-urlencoded` parser of the URL Standard does.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned())
}
