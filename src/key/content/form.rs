//! The fields of a form (`application/x-www-form-urlencoded`).

use super::{Ignored, put, put_count};
use crate::hex;

/// Fields in their order, which means something to many readers: `a[][x]` begins a new item where the last one has an `x`.
/// Values are compared as octets: read as UTF-8, all that is malformed would become the same replacement character. `None`: readers may disagree on
/// what it says.
pub(super) fn canonical(content: &[u8], ignored: &Ignored) -> Option<Vec<u8>> {
    // Some readers split at semicolons as well, so that a field could hide in the value of an ignored one.
    if content.contains(&b';') {
        return None;
    }
    let mut fields = Vec::new();
    for pair in content.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair.get(..at)?, Some(decoded(pair.get(at + 1..)?)?)),
            None => (pair, None), // not the same as an empty value to everyone
        };
        let name = decoded(name)?;
        if !ignored.names(&name) {
            fields.push((name, value));
        }
    }

    let mut canonical = Vec::with_capacity(content.len() + 16 * fields.len() + 8);
    put_count(&mut canonical, fields.len());
    for (name, value) in fields {
        put(&mut canonical, &name);
        canonical.push(u8::from(value.is_some()));
        put(&mut canonical, &value.unwrap_or_default());
    }
    Some(canonical)
}

/// The octets that a name or a value stands for; `None` if a percent sign escapes nothing.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        octets.push(match first {
            b'+' => b' ',
            b'%' => {
                let [high, low, after @ ..] = after else { return None };
                rest = after;
                hex::octet(*high, *low)?
            }
            plain => *plain,
        });
    }
    Some(octets)
}
