//! The groups of responses, and the groups that a response invalidates (RFC 9875).
//!
//! # Invariants
//! - A field that is not a list of strings, or that is cut short, names no group.
//! - Names are compared octet by octet.
//! - At most the first [`MAX_GROUPS`] names of a field are used, so that no response causes unbounded work.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, Method};
use sfv::{BareItem, List, ListEntry, Parser};

const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// How many groups of one field are used, and how many tags a response may have.
///
/// RFC 9875 §2 and §3 demand at least 32. Four times as many leave room for tags, and each still costs a read.
pub(crate) const MAX_GROUPS: usize = 128;

/// The groups that a field names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NamedGroups {
    /// The names, each once, in the order of the field.
    pub(crate) names: Vec<String>,
    /// How many members follow that are ignored.
    pub(crate) ignored: usize,
}

/// Returns whether a response has fields about groups (RFC 9875 §2 and §3).
pub(crate) fn names_groups(response: &HeaderMap) -> bool {
    response.contains_key(&CACHE_GROUPS) || response.contains_key(&CACHE_GROUP_INVALIDATION)
}

/// Returns the groups of a response (RFC 9875 §2).
pub(crate) fn groups(response: &HeaderMap) -> NamedGroups {
    names(response, &CACHE_GROUPS)
}

/// Returns the groups that the response to an unsafe request invalidates (RFC 9875 §3).
///
/// The response to a safe request invalidates none.
pub(crate) fn invalidated_groups(method: &Method, response: &HeaderMap) -> NamedGroups {
    if super::invalidate::is_safe(method) {
        NamedGroups::default()
    } else {
        names(response, &CACHE_GROUP_INVALIDATION)
    }
}

/// Parses a field as a list of strings (RFC 9875 §2 and §3).
fn names(headers: &HeaderMap, field: &HeaderName) -> NamedGroups {
    let mut lines = headers.get_all(field).iter().peekable();
    if lines.peek().is_none() {
        return NamedGroups::default();
    }
    let whole = lines.map(|line| line.as_bytes()).collect::<Vec<_>>().join(&b", "[..]);
    let Ok(members) = Parser::new(&whole).parse::<List>() else { return NamedGroups::default() };
    let name = |member: ListEntry| match member {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(name) => Some(String::from(name)),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    };
    // A member of another type makes the whole field invalid (RFC 9651 §1.1).
    let all = members.into_iter().map(name).collect::<Option<Vec<_>>>().unwrap_or_default();
    let (mut seen, mut named) = (HashSet::new(), NamedGroups::default());
    for name in all {
        if named.names.len() == MAX_GROUPS {
            named.ignored += 1;
        } else if seen.insert(name.clone()) {
            named.names.push(name);
        }
    }
    named
}
