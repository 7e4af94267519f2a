//! Cache-Control of requests and responses (RFC 9111 §5.2), in any letter case, over any number of lines.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

/// The greatest delta-seconds (RFC 9111 §1.2.2): larger ones count as this.
const MOST: u64 = 1 << 31;

/// What a request asks of a cache (RFC 9111 §5.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestDirectives {
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<Duration>,
    /// How stale a response may be; `Duration::MAX` for any.
    pub(crate) max_stale: Option<Duration>,
    pub(crate) min_fresh: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut asked = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            // Pragma counts only where there is no Cache-Control (RFC 9111 §5.4).
            let pragma = headers.get_all(header::PRAGMA).iter();
            asked.no_cache =
                pragma.flat_map(|line| members(line.as_bytes())).any(|(name, _)| is(name, "no-cache"));
            return asked;
        }
        each(headers, &header::CACHE_CONTROL, |name, value| {
            if is(name, "no-store") {
                asked.no_store = true;
            } else if is(name, "no-cache") {
                asked.no_cache = true;
            } else if is(name, "only-if-cached") {
                asked.only_if_cached = true;
            } else if is(name, "max-age") {
                lower(&mut asked.max_age, seconds(value).unwrap_or_default());
            } else if is(name, "max-stale") {
                // Without a value: any staleness. Malformed: none.
                lower(
                    &mut asked.max_stale,
                    match value {
                        None => Duration::MAX,
                        Some(_) => seconds(value).unwrap_or_default(),
                    },
                );
            } else if is(name, "min-fresh") {
                let least = seconds(value).unwrap_or(Duration::from_secs(MOST));
                asked.min_fresh = Some(asked.min_fresh.unwrap_or_default().max(least));
            } else if is(name, "stale-if-error") {
                lower(&mut asked.stale_if_error, seconds(value).unwrap_or_default());
            }
        });
        asked
    }
}

/// What a response says to caches (RFC 9111 §5.2.2, RFC 5861, RFC 8246).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseDirectives {
    pub(crate) no_store: bool,
    /// With or without field names: with them, the fields need validation, and so the whole does here.
    pub(crate) no_cache: bool,
    /// With or without field names.
    pub(crate) private: bool,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    pub(crate) immutable: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        each(headers, &header::CACHE_CONTROL, |name, value| {
            if is(name, "no-store") {
                said.no_store = true;
            } else if is(name, "no-cache") {
                said.no_cache = true;
            } else if is(name, "private") {
                said.private = true;
            } else if is(name, "public") {
                said.public = true;
            } else if is(name, "must-revalidate") {
                said.must_revalidate = true;
            } else if is(name, "proxy-revalidate") {
                said.proxy_revalidate = true;
            } else if is(name, "immutable") {
                said.immutable = true;
            } else if is(name, "max-age") {
                // Malformed counts as stale (RFC 9111 §4.2.1); of several, the least.
                lower(&mut said.max_age, seconds(value).unwrap_or_default());
            } else if is(name, "s-maxage") {
                lower(&mut said.s_maxage, seconds(value).unwrap_or_default());
            } else if is(name, "stale-while-revalidate") {
                lower(&mut said.stale_while_revalidate, seconds(value).unwrap_or_default());
            } else if is(name, "stale-if-error") {
                lower(&mut said.stale_if_error, seconds(value).unwrap_or_default());
            }
        });
        said
    }
}

fn is(name: &[u8], directive: &str) -> bool {
    name.eq_ignore_ascii_case(directive.as_bytes())
}

fn lower(least: &mut Option<Duration>, value: Duration) {
    *least = Some(least.map_or(value, |before| before.min(value)));
}

fn each(headers: &HeaderMap, field: &HeaderName, mut directive: impl FnMut(&[u8], Option<&[u8]>)) {
    for line in headers.get_all(field) {
        members(line.as_bytes()).for_each(|(name, value)| directive(name, value));
    }
}

/// Digits, bare or quoted; `None` for anything else.
fn seconds(value: Option<&[u8]>) -> Option<Duration> {
    delta_seconds(value?).map(Duration::from_secs)
}

/// A whole number of seconds (RFC 9111 §1.2.2): saturates; `None` for anything but digits.
pub(crate) fn delta_seconds(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(value.min(MOST))
}

/// The members of a list of `name [= value]`, values without their quotes. A comma in quotes separates nothing; what
/// follows a quote that is not closed belongs to it.
fn members(line: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    split_list(line).map(|member| {
        let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return (member, None) };
        let (name, value) = member.split_at(equals);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        (name.trim_ascii(), Some(unquoted))
    })
}

/// The members of a comma-separated list (RFC 9110 §5.6.1), trimmed, empty ones left out.
pub(crate) fn split_list(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let from = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let comma = from.iter().position(|byte| {
            match (quoted, escaped, byte) {
                (true, true, _) => escaped = false,
                (true, false, b'\\') => escaped = true,
                (_, _, b'"') => quoted = !quoted,
                (false, _, b',') => return true,
                _ => {}
            }
            false
        });
        let member = match comma {
            Some(comma) => {
                rest = from.get(comma + 1..);
                from.get(..comma).unwrap_or_default()
            }
            None => {
                rest = None;
                from
            }
        };
        Some(member.trim_ascii())
    })
    .filter(|member| !member.is_empty())
}
