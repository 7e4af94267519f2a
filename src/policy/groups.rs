//! Groups of responses, and what invalidates them (RFC 9875).
//!
//! Promises: a field that is no list of strings, or is cut short, names no group; names are compared as they are; of one
//! field no more than [`MOST_GROUPS`] names are heard, the first ones, so that no response makes work without a bound.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, Method};
use sfv::{BareItem, List, ListEntry, Parser};

const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// So many groups of one field are heard, and so many tags of one response are kept. RFC 9875 §2 and §3 demand 32.
pub(crate) const MOST_GROUPS: usize = 128;

/// The groups that a field names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NamedGroups {
    /// Each once, in the field's order.
    pub(crate) names: Vec<String>,
    /// How many members follow that are not heard.
    pub(crate) ignored: usize,
}

/// The groups that a response says that it belongs to.
pub(crate) fn groups(response: &HeaderMap) -> NamedGroups {
    names(response, &CACHE_GROUPS)
}

/// The groups that the response to an unsafe request invalidates. That of a safe one invalidates none (RFC 9875 §3).
pub(crate) fn invalidated_groups(method: &Method, response: &HeaderMap) -> NamedGroups {
    if super::invalidate::is_safe(method) { NamedGroups::default() } else { names(response, &INVALIDATION) }
}

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
        if named.names.len() == MOST_GROUPS {
            named.ignored += 1;
        } else if seen.insert(name.clone()) {
            named.names.push(name);
        }
    }
    named
}
