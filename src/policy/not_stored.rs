//! The reasons why a response is not stored.

use std::fmt;

/// The reason why a response is not stored.
///
/// [`Stored::No`](crate::Stored::No) has it; its text is a word such as `no-store`. The questions page says
/// [what to do about each](crate::_documentation::questions#why-is-my-response-not-cached).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotStored {
    /// The request's method is not one whose responses are stored.
    MethodNotCacheable,
    /// The request bypassed the cache ([`BypassReason`](crate::BypassReason) says why).
    Bypassed,
    /// The request says `no-store`.
    RequestNoStore,
    /// The response says `no-store`.
    ResponseNoStore,
    /// The response is `private`, and the cache is shared.
    Private,
    /// The request has Authorization, the cache is shared, and the response does not permit it (RFC 9111 §3.5).
    Authorization,
    /// The response says `Vary: *`, or its Vary field cannot be parsed, so that it matches no other request.
    VaryAny,
    /// The response sets a cookie, and the cache is shared.
    SetCookie,
    /// The status is stored only with an explicit lifetime, and the response has none.
    StatusNotCacheable,
    /// The status is about this one request, its client or its connection, such as 416 or 429.
    StatusOfRequest,
    /// The response says `must-understand`, and the cache does not know its status (RFC 9111 §5.2.2.3).
    StatusNotUnderstood,
    /// The response is that of a failed gRPC call: its `grpc-status` is not 0.
    ///
    /// If it comes in the trailers only, the caller has got the head before, with another
    /// [`Stored`](crate::Stored).
    GrpcStatus,
    /// The response is partial (206), and parts are not [stored](crate::CacheLayerBuilder::store_parts).
    PartialContent,
    /// The response is partial (206), and its Content-Range is malformed, lacks the complete length, or names other bytes than
    /// were asked for or are sent.
    ContentRange,
    /// The response is partial (206), and all of it is stored already.
    AlreadyStored,
    /// The response is partial (206), and there are too many parts of its URL to store another one.
    TooManyParts,
    /// The response has no lifetime and no validator.
    NoFreshness,
    /// The response is stale already and has no validator.
    Stale,
    /// A rule says so by [`Ttl::DoNotStore`](crate::Ttl::DoNotStore).
    Rule,
    /// A [filter](crate::Rules::filter_response) returned `false` for the response.
    Filtered,
    /// The body is shorter than [`min_body_bytes`](crate::CacheLayerBuilder::min_body_bytes).
    TooSmall,
    /// The body is longer than [`max_body_bytes`](crate::CacheLayerBuilder::max_body_bytes), or than the storage takes.
    TooLarge,
    /// The body is not as long as the response announces.
    LengthMismatch,
    /// The cache is [read-only](crate::CacheLayerBuilder::read_only) for this request.
    ReadOnly,
    /// The response has more fields than can be stored.
    TooManyFields,
    /// The response has more than 128 tags.
    ///
    /// The origin's own groups (RFC 9875) do not count here: those after the first 128 are ignored.
    TooManyGroups,
    /// One of the response's tags is longer than 1,024 bytes, or is not UTF-8.
    UnusableTag,
    /// One of the response's groups or tags was invalidated while it was fetched.
    GroupInvalidated,
    /// The response came from another URI, since a layer below the cache followed redirects.
    Redirected,
    /// The response is not `public`, or varies on Cookie or Authorization, and the cache does not know the client's
    /// default fields (`reqwest::CacheMiddleware::client_headers`).
    ClientHeaders,
    /// The storage could not be read or written.
    StorageFailed,
    /// More responses are waiting to be written than the storage keeps up with.
    StorageBusy,
    /// There is no tokio runtime in which to wait for the storage.
    NoRuntime,
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
            Self::GrpcStatus => "grpc-status",
            Self::PartialContent => "partial-content",
            Self::ContentRange => "content-range",
            Self::AlreadyStored => "already-stored",
            Self::TooManyParts => "too-many-parts",
            Self::NoFreshness => "no-freshness",
            Self::Stale => "stale",
            Self::Rule => "rule",
            Self::Filtered => "filtered",
            Self::TooSmall => "too-small",
            Self::TooLarge => "too-large",
            Self::LengthMismatch => "length",
            Self::ReadOnly => "read-only",
            Self::TooManyFields => "too-many-fields",
            Self::TooManyGroups => "too-many-groups",
            Self::UnusableTag => "unusable-tag",
            Self::GroupInvalidated => "group-invalidated",
            Self::Redirected => "redirected",
            Self::ClientHeaders => "client-headers",
            Self::StorageFailed => "storage-failed",
            Self::StorageBusy => "storage-busy",
            Self::NoRuntime => "no-runtime",
        }
    }

    /// Returns whether the reason may not apply to the response to another request.
    ///
    /// `code` is the status code of the response.
    pub(crate) fn is_request_specific(self, code: Option<u16>) -> bool {
        match self {
            Self::Authorization | Self::RequestNoStore | Self::ReadOnly | Self::GroupInvalidated => true,
            // These statuses are about the fields and the content of one request. A login (401), a rate limit (429) or
            // another protocol (426) would be demanded of every request.
            Self::StatusOfRequest => matches!(code, Some(406 | 408 | 411..=413 | 415..=417 | 431)),
            _ => false,
        }
    }

    /// Returns whether the response that this one would have replaced must not be used any more.
    ///
    /// A caller that has seen the newer response must not get the older one again. But some reasons say nothing about the
    /// older one: the newer response is for the credentials of one caller, comes from another URI, or is not stored because
    /// of the settings or the state of this cache.
    pub(crate) fn ends_stored_response(self) -> bool {
        !matches!(
            self,
            Self::ReadOnly
                | Self::Authorization
                | Self::Redirected
                | Self::LengthMismatch
                | Self::StorageFailed
                | Self::StorageBusy
                | Self::NoRuntime
                | Self::ClientHeaders
                | Self::AlreadyStored
                | Self::TooManyParts
        )
    }
}

impl fmt::Display for NotStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
