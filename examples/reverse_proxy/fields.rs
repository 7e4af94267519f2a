//! The fields that concern one connection only, and Via.
//!
//! Promises: what Connection names, and what is hop-by-hop by itself, goes no further (RFC 9110 §7.6.1); of TE only
//! `trailers` does; every forwarded message names this proxy in Via (RFC 9110 §7.6.3).

use http::Version;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

/// The name of this proxy in Via and Cache-Status.
pub const NAME: &str = "tower-response-cache";

const VIA_1_0: HeaderValue = HeaderValue::from_static("1.0 tower-response-cache");
const VIA_1_1: HeaderValue = HeaderValue::from_static("1.1 tower-response-cache");
const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// TE is no part of this: see [`keep_trailers`].
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

/// Frameworks take these for the target or the method, and they are in no key: one client would choose what others are
/// served. X-Forwarded-For stays, which names no target.
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

/// Removes the fields that Connection names, and Connection. Host stays, which no message may go without, and so does
/// TE, for [`keep_trailers`].
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

/// Removes all that is hop-by-hop, or that the origin would take for another target, from a request that goes to it.
pub fn strip_request(headers: &mut HeaderMap) {
    strip_named(headers);
    for name in HOP_BY_HOP.into_iter().chain(TARGET) {
        headers.remove(name);
    }
    keep_trailers(headers);
}

/// Removes all that is hop-by-hop from a response, and a Content-Length that Transfer-Encoding overrides (RFC 9112 §6.3).
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

/// Leaves `trailers` of TE: the client's wish reaches the origin, since trailers are forwarded.
fn keep_trailers(headers: &mut HeaderMap) {
    let Entry::Occupied(entry) = headers.entry(header::TE) else { return };
    let wanted = entry.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let wanted = wanted.into_iter().any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    entry.remove_entry_mult();
    if wanted {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("TE"));
    }
}

/// Appends this proxy to Via, with the version in which the message came.
pub fn append_via(headers: &mut HeaderMap, version: Version) {
    headers.append(header::VIA, if version == Version::HTTP_10 { VIA_1_0 } else { VIA_1_1 });
}

/// Frames a request's content: what is of unknown length is chunked, whatever the method; and a Content-Length stays
/// only on a request that has content.
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
