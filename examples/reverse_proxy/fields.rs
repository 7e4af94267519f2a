//! Removes the fields that concern one connection only, and adds Via.
//!
//! # Invariants
//! - Fields that Connection names, and those that are hop-by-hop by definition, are not forwarded (RFC 9110 §7.6.1).
//! - Of TE only `trailers` is forwarded.
//! - Every forwarded message names this proxy in Via (RFC 9110 §7.6.3).

use http::Version;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

/// The name of this proxy in Via and Cache-Status.
pub const NAME: &str = "tower-response-cache";

const VIA_1_0: HeaderValue = HeaderValue::from_static("1.0 tower-response-cache");
const VIA_1_1: HeaderValue = HeaderValue::from_static("1.1 tower-response-cache");
const VIA_2: HeaderValue = HeaderValue::from_static("2 tower-response-cache");
const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// The hop-by-hop fields, except TE, for which see [`keep_trailers`].
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
];

/// Request fields that frameworks take for the target or the method.
///
/// No cache key contains them, so one client could choose the response that all others are served (cache poisoning).
/// X-Forwarded-For names no target and stays.
const TARGET: [HeaderName; 14] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-scheme"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-host"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-host"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];

/// Removes Connection and the fields that it names.
///
/// Host stays, because no request may go without it, and TE stays for [`keep_trailers`].
pub fn strip_named(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().cloned().collect();
    for name in lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
        if let Ok(name) = HeaderName::from_bytes(name.trim_ascii())
            && name != header::HOST
            && name != header::TE
        {
            headers.remove(name);
        }
    }
    headers.remove(header::CONNECTION);
}

/// Removes from a request all that is hop-by-hop, and all that the origin could take for another target.
pub fn strip_request(headers: &mut HeaderMap) {
    strip_named(headers);
    for name in HOP_BY_HOP.into_iter().chain(TARGET) {
        headers.remove(name);
    }
    keep_trailers(headers);
}

/// Removes from a response all that is hop-by-hop.
///
/// That includes a Content-Length that Transfer-Encoding overrides (RFC 9112 §6.3).
pub fn strip_response(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    strip_named(headers);
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::TE);
}

/// Reduces TE to `trailers`, which the origin has to know because trailers are forwarded.
fn keep_trailers(headers: &mut HeaderMap) {
    let Entry::Occupied(entry) = headers.entry(header::TE) else { return };
    let wanted = entry.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let wanted = wanted.into_iter().any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    entry.remove_entry_mult();
    if wanted {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("TE")); // required with TE (RFC 9110 §10.1.4)
    }
}

/// Appends this proxy to Via, with the version of the received message.
pub fn append_via(headers: &mut HeaderMap, version: Version) {
    let via = match version {
        Version::HTTP_10 => VIA_1_0,
        Version::HTTP_2 => VIA_2,
        _ => VIA_1_1,
    };
    headers.append(header::VIA, via);
}

/// Joins the lines of Cookie, which an HTTP/2 client may send apart and HTTP/1 may not have (RFC 9113 §8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// Sets the fields that delimit a request's content.
///
/// Content of unknown length is chunked: hyper would drop it from a GET or a HEAD otherwise. A Content-Length other than 0
/// stays only on a request that has content.
pub fn frame(headers: &mut HeaderMap, empty: bool, len: Option<u64>) {
    if empty {
        if headers.get(header::CONTENT_LENGTH).is_some_and(|len| len != "0") {
            headers.remove(header::CONTENT_LENGTH);
        }
    } else if len.is_none() {
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::TRANSFER_ENCODING, CHUNKED);
    }
}
