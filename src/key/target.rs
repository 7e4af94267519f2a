//! What a request says of its target beside the effective URI. It is sent on and so may decide the response: it is among
//! the values that select one, and an invalidation of the URI ends the responses to all of them.

use http::{HeaderName, Uri, header, request};

use super::EffectiveUri;

/// Stands among the names for a Host field that is not, letter case aside, the effective URI's authority.
pub(crate) const HOST_BESIDE: HeaderName = HeaderName::from_static("*host");
/// Stands among the names for a URI that is not the one that the client asked for.
pub(crate) const REWRITTEN: HeaderName = HeaderName::from_static("*uri");

impl EffectiveUri<'_> {
    /// Whether the Host field selects the response. A port is compared as it is written: the origin may make links of
    /// it, though the key has no default port.
    pub(crate) fn host_selects(&self, parts: &request::Parts) -> bool {
        if self.exact {
            return false;
        }
        let mut lines = parts.headers.get_all(header::HOST).iter();
        let Some(host) = lines.next() else { return false };
        lines.next().is_some() || !self.is_authority(host.as_bytes())
    }

    /// Whether the Host field is one that a server has to refuse (RFC 9112 §3.2).
    pub(crate) fn is_host_malformed(&self, parts: &request::Parts) -> bool {
        !self.exact && parts.headers.contains_key(header::HOST) && host_field(parts).is_none()
    }

    pub(super) fn is_authority(&self, text: &[u8]) -> bool {
        let Some((host, port)) = text.split_at_checked(self.host.len()) else { return false };
        host.eq_ignore_ascii_case(self.host.as_bytes()) && port == self.port_text(&mut [0; 6])
    }
}

/// The one valid Host field of a request.
pub(super) fn host_field(parts: &request::Parts) -> Option<&str> {
    let mut lines = parts.headers.get_all(header::HOST).iter();
    let host = lines.next()?.to_str().ok()?;
    let valid = lines.next().is_none() && !host.contains(['@', '/', '?', '#', ' ']);
    let (name, _) = split_authority(host)?;
    (valid && !name.is_empty()).then_some(host)
}

/// Host and port; `None`: the port is none (RFC 3986 §3.2.3).
pub(super) fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    // An IPv6 address has colons of its own, inside brackets.
    match authority.rsplit_once(':') {
        Some((host, "")) => Some((host, None)),
        Some((host, port)) if !port.ends_with(']') => {
            // A sign is none of it, though `parse` takes one.
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            Some((host, Some(port.parse().ok().filter(|_| digits)?)))
        }
        _ => Some((authority, None)),
    }
}

/// Names the part for want of which a request has no effective URI.
pub(crate) enum Lacks {
    /// Its target names no resource of an origin (`*`, or an authority alone).
    Resource,
    /// It names no host, in its URI or a Host field.
    Host,
    /// The host that it names is none.
    GoodHost,
}

/// Says what a request lacks that has no effective URI.
#[cold]
pub(crate) fn lacks(parts: &request::Parts) -> Lacks {
    let uri = asked_uri(parts);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    match uri.authority().or(parts.uri.authority()) {
        _ if !path.starts_with(['/', '?']) => Lacks::Resource,
        None if !parts.headers.contains_key(header::HOST) => Lacks::Host,
        _ => Lacks::GoodHost,
    }
}

/// What the client asked for.
#[cfg(feature = "axum")]
pub(super) fn asked_uri(parts: &request::Parts) -> &Uri {
    // Nested routers strip the prefix that they matched from the URI.
    parts.extensions.get::<axum::extract::OriginalUri>().map_or(&parts.uri, |original| &original.0)
}

/// What the client asked for.
#[cfg(not(feature = "axum"))]
pub(super) fn asked_uri(parts: &request::Parts) -> &Uri {
    &parts.uri
}

/// Whether the scheme of a request's effective URI is its own.
pub(crate) fn has_scheme(parts: &request::Parts) -> bool {
    asked_uri(parts).scheme().or(parts.uri.scheme()).is_some()
}

/// The URI that is sent on, where that is not the one that the client asked for.
pub(crate) fn rewritten(parts: &request::Parts) -> Option<&Uri> {
    // Mostly it is the very same: then there is nothing to compare.
    let asked = asked_uri(parts);
    (!std::ptr::eq(asked, &parts.uri) && *asked != parts.uri).then_some(&parts.uri)
}
