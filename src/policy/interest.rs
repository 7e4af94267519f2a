//! A first look at a request, in one pass over its field names.

use http::{HeaderMap, HeaderName, header};

/// What kinds of fields a request has that a cache has to look at. Most have none, and are then answered without a
/// look-up in their fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    /// Cache-Control, Pragma, preconditions, a range, content, an upgrade.
    pub(crate) control: bool,
    /// Authorization or Cookie.
    pub(crate) credentials: bool,
    /// Host.
    pub(crate) host: bool,
}

impl Interest {
    pub(crate) fn of(request: &HeaderMap) -> Self {
        let mut interest = Self::default();
        for name in request.keys() {
            interest.control |= Self::is_control(name);
            interest.host |= *name == header::HOST;
            interest.credentials |= *name == header::AUTHORIZATION || *name == header::COOKIE;
        }
        interest
    }

    /// Whether a field is about the cache's work and not about what is asked for.
    pub(crate) fn is_control(name: &HeaderName) -> bool {
        matches!(
            name.as_str(),
            "cache-control"
                | "pragma"
                | "if-none-match"
                | "if-modified-since"
                | "if-match"
                | "if-unmodified-since"
                | "if-range"
                | "range"
                | "content-length"
                | "transfer-encoding"
                | "upgrade"
        )
    }
}
