//! The kinds of fields in a request, found in one pass over its field names.

use http::{HeaderMap, HeaderName, header};

/// Hints at the fields of a request that a cache has to read.
///
/// Most requests have none of them. A hit then needs no look-up in the request's fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    /// The request may have Cache-Control, Pragma, a precondition, a range, content or an upgrade.
    pub(crate) control: bool,
    /// The request may have Authorization or Cookie.
    pub(crate) credentials: bool,
    /// The request may have Host.
    pub(crate) host: bool,
}

impl Interest {
    /// Looks at the names of a request's fields (RFC 9111 §5, RFC 9110 §7.2, §7.8, §8.6, §11.6.2, §13 and §14).
    pub(crate) fn of(request: &HeaderMap) -> Self {
        let mut hints = Self::default();
        for name in request.keys() {
            hints.control |= Self::is_control(name);
            hints.host |= *name == header::HOST;
            hints.credentials |= *name == header::AUTHORIZATION || *name == header::COOKIE;
        }
        hints
    }

    /// Returns whether a field directs the cache or the transfer, and does not describe the wanted response.
    ///
    /// These are the control fields of RFC 9111 §5.2 and §5.4, and of RFC 9110 §7.8, §8.6, §13.1 and §14.2.
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
