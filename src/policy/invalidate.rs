//! The stored responses that an unsafe request invalidates (RFC 9111 §4.4).

use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::directives::ResponseDirectives;
use super::freshness::explicit_lifetime;
use super::options::Options;
use super::storing::is_reading;
use crate::time::Timestamp;

/// Returns whether the response to a request invalidates what is stored for its URI (RFC 9111 §4.4).
///
/// It does if the method is unsafe or unknown, and the request did not fail.
pub(crate) fn invalidates(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// Returns whether a method is known to be safe (RFC 9110 §9.2.1).
pub(crate) fn is_safe(method: &Method) -> bool {
    is_reading(method) || matches!(*method, Method::OPTIONS | Method::TRACE)
}

/// Returns the other URIs of the same origin that a response names (RFC 9111 §4.4).
///
/// Location and Content-Location name them. A URI of another origin must not be invalidated, so it is left out.
pub(crate) fn invalidated(effective: &Uri, response: &HeaderMap) -> Vec<Uri> {
    [header::LOCATION, header::CONTENT_LOCATION]
        .iter()
        .flat_map(|name| response.get_all(name))
        .filter_map(|value| resolve(effective, value.to_str().ok()?.trim()))
        .filter(|uri| is_same_origin(uri, effective))
        .collect()
}

/// Returns whether the response to a POST also answers later GETs of its URI (RFC 9110 §9.3.3).
///
/// It does if its one Content-Location is the effective URI, and if it states how long it is fresh.
pub(crate) fn answers_get(method: &Method, effective: &Uri, response: &HeaderMap, options: &Options) -> bool {
    let mut locations = response.get_all(header::CONTENT_LOCATION).iter();
    let (Some(location), None) = (locations.next(), locations.next()) else { return false };
    let directives = ResponseDirectives::of(response, options);
    let represented = location.to_str().ok().and_then(|location| resolve(effective, location.trim()));
    let is_same = represented.is_some_and(|uri| {
        is_same_origin(&uri, effective) && uri.path_and_query() == effective.path_and_query()
    });
    // Only whether there is a lifetime matters here, so that any date will do.
    method == Method::POST
        && is_same
        && explicit_lifetime(response, &directives, Timestamp::EPOCH, options).is_some()
}

/// Returns whether two URIs have the same scheme, host and port.
pub(crate) fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    origin(one).is_some() && origin(one) == origin(other)
}

/// Returns the scheme, host and port of a URI (RFC 9110 §4.3.1).
fn origin(uri: &Uri) -> Option<(&str, String, u16)> {
    let scheme = uri.scheme_str()?;
    let port = uri.port_u16().or(match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    })?;
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// Resolves a reference against a base URI (RFC 3986 §5.2.2).
pub(crate) fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    if has_scheme(reference) {
        return reference.parse().ok();
    }
    let (scheme, authority) = (base.scheme_str()?, base.authority()?.as_str());
    if let Some(rest) = reference.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let (path, query) = if path.is_empty() {
        (base.path().to_owned(), query.or(base.query()))
    } else if path.starts_with('/') {
        (remove_dot_segments(path), query)
    } else {
        let folder = base.path().rfind('/').map_or("/", |slash| base.path().get(..=slash).unwrap_or("/"));
        (remove_dot_segments(&format!("{folder}{path}")), query)
    };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}{path}{query}").parse().ok()
}

/// Returns whether a reference begins with a scheme (RFC 3986 §3.1).
fn has_scheme(reference: &str) -> bool {
    let scheme = reference.split(['/', '?', ':']).next().unwrap_or_default();
    let is_letter_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    reference[scheme.len()..].starts_with(':')
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(is_letter_of_scheme)
}

/// Removes `.` and `..` from a path that begins with a slash (RFC 3986 §5.2.4).
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            ".." => {
                kept.pop();
            }
            "." => {}
            _ => kept.push(segment),
        }
        // `/a/..` names the folder `/`, and not a file without a name: its slash stays.
        if is_last && matches!(segment, "." | "..") {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}
