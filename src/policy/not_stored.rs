//! Why a response was not stored.

use std::fmt;

/// Why a response was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotStored {
    /// Responses to this method are not stored; only those to GET are.
    MethodNotCacheable,
    /// The request passed the cache by: a filter, a scope or an option of the user's says so, or it asks for what a cache
    /// cannot answer (Upgrade, If-Match, content in a GET).
    Bypassed,
    /// The request says `no-store`.
    RequestNoStore,
    /// The response says `no-store`.
    ResponseNoStore,
    /// The response is `private`, and the cache is shared.
    Private,
    /// The request had Authorization, the cache is shared, and the response does not allow it (RFC 9111 §3.5).
    Authorization,
    /// `Vary: *`, or a Vary field that cannot be read: no other request is known to match.
    VaryAny,
    /// The response sets a cookie, and the cache is shared.
    SetCookie,
    /// A status that is stored only with a lifetime of its own, and that has none.
    StatusNotCacheable,
    /// The status says something of this one request, its client or its connection, and not of what others get: 416, 429 and
    /// their like.
    StatusOfRequest,
    /// The response says `must-understand`, and its status is none that the cache knows (RFC 9111 §5.2.2.3).
    StatusNotUnderstood,
    /// A 206 is not stored.
    PartialContent,
    /// Nothing tells how long it is fresh, and it could not be validated.
    NoFreshness,
    /// It is stale already, and could not be validated.
    Stale,
    /// A rule of the user says so: [`Ttl::DoNotStore`](crate::Ttl::DoNotStore).
    Rule,
    /// A filter of the user says so.
    Filtered,
    /// The body is shorter than the user wants stored.
    TooSmall,
    /// The cache only reads.
    ReadOnly,
    /// It has more fields than a response can sensibly have.
    TooManyFields,
    /// It has more than 128 of the user's tags. Of the origin's groups (RFC 9875) the first 128 count.
    TooManyGroups,
    /// One of its groups or tags was invalidated while it was fetched.
    GroupInvalidated,
}

impl NotStored {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::MethodNotCacheable => "method",
            Self::Bypassed => "bypassed",
            Self::RequestNoStore => "request-no-store",
            Self::ResponseNoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::VaryAny => "vary-any",
            Self::SetCookie => "set-cookie",
            Self::StatusNotCacheable => "status",
            Self::StatusOfRequest => "status-of-request",
            Self::StatusNotUnderstood => "must-understand",
            Self::PartialContent => "partial-content",
            Self::NoFreshness => "no-freshness",
            Self::Stale => "stale",
            Self::Rule => "rule",
            Self::Filtered => "filtered",
            Self::TooSmall => "too-small",
            Self::ReadOnly => "read-only",
            Self::TooManyFields => "too-many-fields",
            Self::TooManyGroups => "too-many-groups",
            Self::GroupInvalidated => "group-invalidated",
        }
    }
}

impl fmt::Display for NotStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
