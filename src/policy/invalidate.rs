//! What an unsafe request makes doubtful (RFC 9111 §4.4).

use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::directives::ResponseDirectives;
use super::freshness::explicit;
use super::options::Options;
use super::store::is_reading;
use crate::time::Timestamp;

/// Whether the response to this method invalidates what is stored: an unsafe (or unknown) one that did not fail.
pub(crate) fn invalidates(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// The methods that are known to be safe (RFC 9110 §9.2.1).
pub(crate) fn is_safe(method: &Method) -> bool {
    is_reading(method) || matches!(*method, Method::OPTIONS | Method::TRACE)
}

/// The other URIs that a response names (Location, Content-Location), if they are of the same origin.
pub(crate) fn invalidated(effective: &Uri, response: &HeaderMap) -> Vec<Uri> {
    [header::LOCATION, header::CONTENT_LOCATION]
        .iter()
        .flat_map(|name| response.get_all(name))
        .filter_map(|value| resolve(effective, value.to_str().ok()?.trim()))
        .filter(|uri| origin(uri).is_some() && origin(uri) == origin(effective))
        .collect()
}

/// Whether the answer to a POST answers later GETs of its URI too: it says that it is that resource's representation,
/// and how long it is fresh (RFC 9110 §9.3.3).
pub(crate) fn answers_get(method: &Method, effective: &Uri, response: &HeaderMap, options: &Options) -> bool {
    let mut locations = response.get_all(header::CONTENT_LOCATION).iter();
    let (Some(location), None) = (locations.next(), locations.next()) else { return false };
    let said = ResponseDirectives::of(response, options);
    let own = location.to_str().ok().and_then(|location| resolve(effective, location.trim()));
    let same = own.is_some_and(|own| {
        origin(&own).is_some()
            && origin(&own) == origin(effective)
            && own.path_and_query() == effective.path_and_query()
    });
    // The date from which a lifetime counts does not matter here.
    method == Method::POST && same && explicit(response, &said, Timestamp::EPOCH, options).is_some()
}

fn origin(uri: &Uri) -> Option<(&str, String, u16)> {
    let scheme = uri.scheme_str()?;
    let port = uri.port_u16().or(match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    })?;
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// Resolves a reference against a base (RFC 3986 §5.2).
fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    if let Ok(uri) = reference.parse::<Uri>()
        && uri.scheme().is_some()
    {
        return Some(uri);
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
        (without_dots(path), query)
    } else {
        let folder = base.path().rfind('/').map_or("/", |slash| base.path().get(..=slash).unwrap_or("/"));
        (without_dots(&format!("{folder}{path}")), query)
    };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}{path}{query}").parse().ok()
}

/// Removes `.` and `..` from a path that begins with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            ".." => {
                kept.pop();
            }
            "." => {}
            _ => kept.push(segment),
        }
        if last && matches!(segment, "." | "..") {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}
