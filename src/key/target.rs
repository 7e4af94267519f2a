//! The parts of a request's target besides the effective URI.
//!
//! These are its Host field, and a URI that was rewritten on its way to the cache. Both are sent on, so the
//! response may depend on them. They are among the values that select a stored response, and an invalidation
//! of the URI ends the responses for all of their values.

use http::{HeaderName, Uri, header, request};

use super::EffectiveUri;

/// The selecting name of a Host field.
///
/// Used if the Host field differs from the authority of the effective URI, apart from letter case. The
/// asterisk keeps the name apart from every field that a response could name in Vary.
pub(crate) const HOST_BESIDE: HeaderName = HeaderName::from_static("*host");
/// The selecting name of a URI that was rewritten after the client had sent it.
pub(crate) const REWRITTEN: HeaderName = HeaderName::from_static("*uri");

impl EffectiveUri<'_> {
    /// Returns whether the Host field selects the response.
    ///
    /// It does if it differs from the authority of this URI.
    ///
    /// A port is compared as it is written: the key leaves out a default port, but the origin may build links
    /// from it.
    pub(crate) fn host_selects(&self, parts: &request::Parts) -> bool {
        if self.is_host_field {
            return false;
        }
        let mut lines = parts.headers.get_all(header::HOST).iter();
        let Some(host) = lines.next() else { return false };
        lines.next().is_some() || !self.is_authority(host.as_bytes())
    }

    /// Returns whether the Host field is one that a server must refuse (RFC 9112 §3.2).
    pub(crate) fn is_host_malformed(&self, parts: &request::Parts) -> bool {
        !self.is_host_field && matches!(host_field(parts), HostField::Malformed)
    }

    /// Returns whether `text` is the host and port of this URI, apart from letter case.
    fn is_authority(&self, text: &[u8]) -> bool {
        let Some((host, port)) = text.split_at_checked(self.host.len()) else { return false };
        host.eq_ignore_ascii_case(self.host.as_bytes()) && port == self.port_text(&mut [0; 6])
    }
}

/// The Host field of a request.
pub(super) enum HostField<'a> {
    Absent,
    /// There are several, or it is one that a server must refuse.
    Malformed,
    /// Its text, and the host and port in it.
    Valid(&'a str, (&'a str, Option<u16>)),
}

/// Returns the Host field of a request.
///
/// It is searched and split once, since every request that names its host there passes here.
#[inline]
pub(super) fn host_field(parts: &request::Parts) -> HostField<'_> {
    let mut lines = parts.headers.get_all(header::HOST).iter();
    let Some(host) = lines.next() else { return HostField::Absent };
    let Some(host) = host.to_str().ok().filter(|_| lines.next().is_none()) else {
        return HostField::Malformed;
    };
    let is_valid = !host.bytes().any(|byte| matches!(byte, b'@' | b'/' | b'?' | b'#' | b' '));
    match split_authority(host) {
        Some((name, port)) if is_valid && !name.is_empty() => HostField::Valid(host, (name, port)),
        _ => HostField::Malformed,
    }
}

/// Splits an authority into host and port.
///
/// Returns `None` if the port is invalid (RFC 3986 §3.2.3).
#[inline]
pub(super) fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    // A loop over the few bytes of a port costs less than the search for a character.
    let Some(colon) = authority.bytes().rposition(|byte| byte == b':') else {
        return Some((authority, None));
    };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    // An IPv6 address has colons of its own, inside brackets.
    if port.ends_with(']') {
        return Some((authority, None));
    }
    if port.is_empty() {
        return Some((host, None));
    }
    // `parse` alone would accept a sign.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    Some((host, Some(port.parse().ok().filter(|_| digits)?)))
}

/// Why a request has no effective URI.
pub(crate) enum NoUriReason {
    /// Its target names no resource of an origin (`*`, or an authority alone).
    NoResource,
    /// Neither its URI nor a Host field names a host.
    NoHost,
    /// The host that it names is malformed.
    MalformedHost,
}

/// Returns why a request has no effective URI. The request must not have one.
#[cold]
pub(crate) fn no_uri_reason(parts: &request::Parts) -> NoUriReason {
    let uri = asked_uri(parts);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    match uri.authority().or(parts.uri.authority()) {
        _ if !path.starts_with(['/', '?']) => NoUriReason::NoResource,
        None if !parts.headers.contains_key(header::HOST) => NoUriReason::NoHost,
        _ => NoUriReason::MalformedHost,
    }
}

/// Returns the URI that the client asked for.
#[cfg(feature = "axum")]
pub(super) fn asked_uri(parts: &request::Parts) -> &Uri {
    // Nested routers of axum strip the prefix that they matched from the URI, which different resources then
    // share.
    parts.extensions.get::<axum::extract::OriginalUri>().map_or(&parts.uri, |original| &original.0)
}

/// Returns the URI that the client asked for.
#[cfg(not(feature = "axum"))]
pub(super) fn asked_uri(parts: &request::Parts) -> &Uri {
    &parts.uri
}

/// Returns whether a request itself names the scheme of its effective URI.
pub(crate) fn has_scheme(parts: &request::Parts) -> bool {
    asked_uri(parts).scheme().or(parts.uri.scheme()).is_some()
}

/// Returns the URI that is sent on, if it was rewritten.
///
/// A URI was rewritten if it is not the one that the client asked for.
pub(crate) fn rewritten(parts: &request::Parts) -> Option<&Uri> {
    // Usually both are the same object, which spares the comparison.
    let asked = asked_uri(parts);
    (!std::ptr::eq(asked, &parts.uri) && *asked != parts.uri).then_some(&parts.uri)
}

/// Returns whether the URI that is sent on has another query than the one that the client asked for.
pub(crate) fn has_other_query(parts: &request::Parts) -> bool {
    rewritten(parts).is_some_and(|uri| uri.query() != asked_uri(parts).query())
}
