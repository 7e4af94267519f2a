//! Determines the host of a request.
//!
//! # Invariants
//! - A request is forwarded with exactly one valid Host field, or is answered 400 (RFC 9112 §3.2).
//! - An authority in the request's target overrides Host.
//! - An HTTP/1.0 request without a host is for the origin's own.
//! - An HTTP/2 request names its host in the target (RFC 9113 §8.3.1).

use http::header::{HOST, HeaderMap, HeaderValue};
use http::{Uri, Version};

/// Checks the host, and sets Host where another host counts.
///
/// # Errors
/// Returns the reason for a 400.
pub fn settle(
    uri: &Uri,
    version: Version,
    headers: &mut HeaderMap,
    origin_host: &HeaderValue,
) -> Result<(), &'static str> {
    let mut lines = headers.get_all(HOST).iter();
    let (first, more) = (lines.next(), lines.next().is_some());
    match first {
        _ if more => return Err("the request has more than one Host field"),
        Some(host) if !is_host(host.as_bytes()) => return Err("the request's Host field is malformed"),
        None if version == Version::HTTP_11 => return Err("the request has no Host field"),
        _ => {}
    }
    let named = first.is_some();
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => {
            if !named {
                headers.insert(HOST, origin_host.clone());
            }
            Ok(())
        }
        (Some("http" | "https"), Some(authority)) if is_host(authority.as_str().as_bytes()) => {
            let host = HeaderValue::from_str(authority.as_str());
            headers.insert(HOST, host.map_err(|_| "the request's target names no host")?);
            Ok(())
        }
        _ => Err("the request's target is malformed"),
    }
}

/// Returns whether the text is `uri-host [ ":" port ]` (RFC 9110 §7.2) with a host that is not empty.
fn is_host(text: &[u8]) -> bool {
    // The last colon begins a port only after the bracket that closes an IPv6 address.
    let (host, port) = match text.iter().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(at) if text[at] == b':' => (&text[..at], &text[at + 1..]),
        _ => (text, &[][..]),
    };
    let in_brackets = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    let well_formed = match in_brackets {
        Some(literal) => {
            !literal.is_empty()
                && literal
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'-'))
        }
        None => !host.is_empty() && host.iter().all(|byte| IN_NAME[usize::from(*byte)]),
    };
    well_formed && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// The bytes that a registered name may contain: unreserved, a percent sign or a sub-delimiter (RFC 3986 §3.2.2).
///
/// A table, since every byte of every request's host is looked up.
const IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~%!$&'()*+,;=";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};
