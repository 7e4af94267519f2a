//! Groups of responses, and what invalidates them (RFC 9875).
//!
//! Promises: a field that is no list of strings, or is cut short, names no group; names are compared as they are.

use http::{HeaderMap, HeaderName, Method};
use sfv::{BareItem, List, ListEntry, Parser};

const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// So many groups and tags of one response are kept. RFC 9875 §2 demands 32.
pub(crate) const MOST_GROUPS: usize = 128;

/// The groups that a response says that it belongs to, each once.
pub(crate) fn groups(response: &HeaderMap) -> Vec<String> {
    names(response, &CACHE_GROUPS)
}

/// The groups that the response to an unsafe request invalidates. That of a safe one invalidates none (RFC 9875 §3).
pub(crate) fn invalidated_groups(method: &Method, response: &HeaderMap) -> Vec<String> {
    if super::invalidate::is_safe(method) { Vec::new() } else { names(response, &INVALIDATION) }
}

fn names(headers: &HeaderMap, field: &HeaderName) -> Vec<String> {
    let mut lines = headers.get_all(field).iter().peekable();
    if lines.peek().is_none() {
        return Vec::new();
    }
    let whole = lines.map(|line| line.as_bytes()).collect::<Vec<_>>().join(&b", "[..]);
    let Ok(members) = Parser::new(&whole).parse::<List>() else { return Vec::new() };
    let name = |member: ListEntry| match member {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(name) => Some(String::from(name)),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    };
    // A member of another type makes the whole field invalid (RFC 9651 §1.1).
    let mut names = members.into_iter().map(name).collect::<Option<Vec<_>>>().unwrap_or_default();
    names.sort_unstable();
    names.dedup();
    names
}
