//! The fields of a form (`application/x-www-form-urlencoded`).

use super::{IgnoredFields, push_count, push_piece};
use crate::hex;

/// Returns the fields of a form, without the ignored ones.
///
/// Returns `None` if parsers may disagree on what the form contains.
///
/// The order of fields is kept, because it has a meaning to many parsers: in Rack, `a[][x]` begins a new item
/// if the last item already has an `x`. Values are compared as bytes, because decoding as UTF-8 would turn
/// all malformed sequences into the same replacement character.
pub(super) fn canonical(content: &[u8], ignored: &IgnoredFields) -> Option<Vec<u8>> {
    // Some parsers split at semicolons as well, so that a field could hide in the value of an ignored one.
    if content.contains(&b';') {
        return None;
    }
    let mut fields = Vec::new();
    for pair in content.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair.get(..at)?, Some(decoded(pair.get(at + 1..)?)?)),
            // Some parsers tell a missing value from an empty one.
            None => (pair, None),
        };
        let name = decoded(name)?;
        if !ignored.contains(&name) {
            fields.push((name, value));
        }
    }

    let mut canonical = Vec::with_capacity(content.len() + 16 * fields.len() + 8);
    push_count(&mut canonical, fields.len());
    for (name, value) in fields {
        push_piece(&mut canonical, &name);
        canonical.push(u8::from(value.is_some()));
        push_piece(&mut canonical, &value.unwrap_or_default());
    }
    Some(canonical)
}

/// Decodes a name or a value.
///
/// Returns `None` if a percent sign is not followed by two hexadecimal digits.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let [high, low, after @ ..] = after else { return None };
                rest = after;
                hex::octet(*high, *low)?
            }
            plain => *plain,
        });
    }
    Some(bytes)
}
