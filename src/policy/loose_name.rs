//! Names of query parameters and cookies, as servers may read them.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Returns the name under which any usual server may look up a parameter or a cookie.
///
/// `None` if servers may read the name in ways that are not covered here, so that it may be any name.
///
/// Servers differ: ASP.NET ignores letter case, and PHP reads `a.b` and `a b` as `a_b`, `a[x]` as the array `a`, and a name
/// up to a NUL. Names that any of them may take for the same are equal here, so that a cache which ignores the names it was
/// not told of never ignores one that the server reads as one of those.
pub(crate) fn loose_name(raw: &[u8]) -> Option<String> {
    let spaced: Cow<'_, [u8]> = match raw.contains(&b'+') {
        true => raw.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect(),
        false => Cow::Borrowed(raw),
    };
    let decoded = String::from_utf8(percent_decode(&spaced).collect()).ok()?;
    // A percent sign may be decoded once more (`%u0061` is a letter to ASP.NET), and an opening bracket without a closing
    // one is an underscore to PHP.
    let is_array = |(name, index): (&str, &str)| !name.is_empty() && index.contains(']');
    let has_open_bracket = decoded.split_once('[').is_some_and(|parts| !is_array(parts));
    if decoded.contains('%') || decoded.contains(char::is_control) || has_open_bracket {
        return None;
    }
    let name = decoded.split_once('[').map_or(&*decoded, |(name, _)| name);
    Some(name.trim_start().to_lowercase().replace(['.', ' '], "_"))
}
