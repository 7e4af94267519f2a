//! Targeted Cache-Control fields (RFC 9213): a shared cache obeys CDN-Cache-Control in place of Cache-Control and
//! Expires, where it is a valid Structured Field (RFC 9651) that is not empty.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::list::Argument;

pub(super) const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Gives each directive of the field to `apply`; false, and none, where the field is absent, empty or invalid.
pub(super) fn directives(headers: &HeaderMap, mut apply: impl FnMut(&[u8], Argument<'_>)) -> bool {
    let mut lines = headers.get_all(CDN_CACHE_CONTROL).iter().peekable();
    if lines.peek().is_none() {
        return false;
    }
    let whole = lines.map(|line| line.as_bytes()).collect::<Vec<_>>().join(&b", "[..]);
    let Ok(said) = Parser::new(&whole).parse::<Dictionary>() else { return false };
    for (name, entry) in &said {
        let name = name.as_str().as_bytes();
        match entry {
            ListEntry::Item(item) => match &item.bare_item {
                BareItem::Boolean(false) => {}
                BareItem::Boolean(true) => apply(name, Argument::Absent),
                BareItem::Integer(number) => {
                    apply(name, Argument::Value(number.to_string().into_bytes().into()));
                }
                // Only field names come as strings, and a number in one is none (§2.1): it is of the wrong type.
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
    !said.is_empty()
}
