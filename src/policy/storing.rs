//! Whether a response may be stored (RFC 9111 §3), and which of its fields are (§3.1).

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::dates;
use super::directives::{RequestDirectives, ResponseDirectives};
use super::freshness::{Freshness, RuleTtl, explicit_lifetime, is_heuristic};
use super::list::split_list;
use super::not_stored::NotStored;
use super::options::Options;
use super::rule_decision::RuleDecision;
use crate::time::Timestamp;

/// How many fields a stored response may have.
///
/// An `http::HeaderMap` panics beyond 24,576 fields. A stored response has to stay far below that, since a 304 may add
/// as many fields again.
pub(crate) const MAX_FIELDS: usize = 4096;

/// Returns whether the cache understands a final status (RFC 9111 §3 and §5.2.2.3).
///
/// It understands the statuses that RFC 9110 §15 defines, except 206 and 304, which are never stored.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 305..=308 | 400..=417 | 421 | 422 | 426 | 500..=505
    )
}

/// Returns whether fields or trailers are those of a failed gRPC call.
///
/// gRPC answers with 200 in any case, and tells the result by `grpc-status`, which stands in the trailers or, if there is
/// no content, among the fields (gRPC over HTTP/2, "Responses").
pub(crate) fn is_failed_call(fields: &HeaderMap) -> bool {
    fields.get_all("grpc-status").iter().any(|status| status != "0")
}

/// Returns whether a status is about one request, its client or its connection (RFC 9110 §15).
///
/// Such a response depends on something that no cache key contains. Stored, it would hide the page from every other
/// request. A rule may still name such a status.
fn is_request_specific(status: StatusCode) -> bool {
    // The RFC is 9110 §15, unless another one is named. Each comment says what the status depends on.
    match status.as_u16() {
        401 => true, // the credentials, and the next user of a shared cache may have better ones
        406 => true, // Accept and the like, which Vary often does not name in such a response
        407 => true, // the credentials for a proxy, which are in no key
        408 => true, // how fast the request arrived
        411 => true, // the framing of its content
        412 => true, // its preconditions, which are in no key and which the cache answers itself
        413 => true, // the length of its content
        415 => true, // the type or coding of its content
        416 => true, // its Range
        417 => true, // its Expect
        421 => true, // the connection on which it arrived
        425 => true, // its arrival in early data (RFC 8470 §5.2)
        426 => true, // the protocol that the client speaks
        428 => true, // its lack of a precondition; "MUST NOT be stored by a cache" (RFC 6585 §3)
        429 => true, // the client's rate; likewise (RFC 6585 §4)
        431 => true, // the size of its fields; likewise (RFC 6585 §5)
        505 => true, // the version that the client speaks
        511 => true, // the client's network; likewise (RFC 6585 §6)
        // Every other status is about the resource (409, 423), its state or URI (414, 422), or the server. 402, 403 and
        // 451 count among them: where they are for one client, the origin has to say so as it does for a 200. 400 most
        // often says that the URI is wrong, so that it is stored if it states a lifetime, as RFC 9111 §3 permits.
        _ => false,
    }
}

/// A response with the request that it answers.
#[derive(Clone, Copy)]
pub(crate) struct HttpExchange<'a> {
    pub(crate) method: &'a Method,
    /// The user made the method cacheable, with the request's content as a part of the key.
    pub(crate) by_content: bool,
    pub(crate) request: &'a HeaderMap,
    pub(crate) status: StatusCode,
    pub(crate) response: &'a HeaderMap,
}

/// Decides whether a response may be stored (RFC 9111 §3), and whether that would be of any use.
///
/// # Errors
/// Returns the first reason against storing the response.
pub(crate) fn storable(
    exchanged: HttpExchange<'_>,
    request_directives: &RequestDirectives,
    directives: &ResponseDirectives,
    freshness: &Freshness,
    rule_ttl: Option<RuleTtl>,
    decision: &RuleDecision,
    options: &Options,
) -> Result<(), NotStored> {
    let HttpExchange { method, by_content, request, status, response } = exchanged;
    if method != Method::GET && !by_content {
        return Err(NotStored::MethodNotCacheable);
    }
    if request_directives.no_store {
        return Err(NotStored::RequestNoStore);
    }
    if decision.stores_status == Some(false) {
        return Err(NotStored::StatusNotCacheable);
    }
    match status.as_u16() {
        206 => return Err(NotStored::PartialContent),
        ..200 | 304 | 600.. => return Err(NotStored::StatusNotCacheable),
        _ if is_request_specific(status) && decision.stores_status != Some(true) => {
            return Err(NotStored::StatusOfRequest);
        }
        _ => {}
    }
    if by_content && is_failed_call(response) {
        return Err(NotStored::GrpcStatus);
    }
    if response.len() > MAX_FIELDS {
        return Err(NotStored::TooManyFields);
    }
    if directives.must_understand {
        // `must-understand` overrides `no-store` for an understood status, and forbids to store any other (RFC 9111
        // §5.2.2.3).
        if !is_understood(status) {
            return Err(NotStored::StatusNotUnderstood);
        }
    } else if directives.no_store && !decision.despite.no_store {
        return Err(NotStored::ResponseNoStore);
    }
    // A lifetime that `min_ttl` or `max_ttl` has limited may still be a heuristic one.
    let is_ruled = rule_ttl.is_some() && (decision.override_ttl.is_some() || decision.default_ttl.is_some());
    let has_lifetime =
        is_ruled || explicit_lifetime(response, directives, freshness.response_time, options).is_some();
    let is_usable = freshness.lifetime > freshness.initial_age && !freshness.no_cache;
    if options.shared {
        if directives.private && !decision.despite.private {
            return Err(NotStored::Private);
        }
        if request.contains_key(header::AUTHORIZATION)
            && !allows_authorization(directives)
            && !decision.despite.authorization
        {
            return Err(NotStored::Authorization);
        }
        // The pages of a framework with sessions often set a cookie and say nothing about caches, or ask for validation
        // before each use. Only an explicit lifetime says that other users may receive the cookie.
        let is_for_others = options.store_set_cookie && has_lifetime && is_usable;
        if response.contains_key(header::SET_COOKIE) && !is_for_others {
            return Err(NotStored::SetCookie);
        }
    }
    // The response to POST is cacheable only with an explicit lifetime (RFC 9110 §9.3.3), and so is that to any other
    // method that does more than read.
    if by_content && !is_reading(method) && !has_lifetime {
        return Err(NotStored::NoFreshness);
    }
    let is_marked_cacheable = directives.public || (directives.private && !options.shared);
    if !has_lifetime && !is_marked_cacheable && !is_heuristic(status) {
        return Err(NotStored::StatusNotCacheable);
    }
    // A response that cannot be used now may still be worth storing, for its validator or for the time after it is
    // stale.
    if is_usable || freshness.has_validator || freshness.retain_until(options) > freshness.response_time {
        return Ok(());
    }
    Err(if has_lifetime { NotStored::Stale } else { NotStored::NoFreshness })
}

/// Returns whether a method only reads, with or without content (RFC 9110 §9.2.1).
pub(crate) fn is_reading(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "QUERY" | "SEARCH" | "REPORT" | "PROPFIND")
}

/// Returns whether a method is QUERY, whose conditions and ranges are about the result of the query (RFC 10008 §2.6, §2.8).
pub(crate) fn is_query(method: &Method) -> bool {
    method.as_str() == "QUERY"
}

/// Returns whether the response to a request with Authorization may be stored for other users (RFC 9111 §3.5).
pub(super) fn allows_authorization(directives: &ResponseDirectives) -> bool {
    directives.public || directives.must_revalidate || directives.s_maxage.is_some()
}

/// Returns whether a field is about one connection, and not about the response (RFC 9111 §3.1, RFC 9110 §7.6.1).
pub(crate) fn is_connection_field(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// The names of the fields that are not stored (RFC 9111 §3.1).
///
/// Each name is there once, in order, so that a search is fast although a response may list thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnstoredFields(Vec<HeaderName>);

impl UnstoredFields {
    /// Sorts the names of fields that are not stored (RFC 9111 §3.1).
    fn new(mut names: Vec<HeaderName>) -> Self {
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        Self(names)
    }

    /// Returns the fields of a response that are not stored (RFC 9111 §3.1).
    ///
    /// These are the fields that its Connection fields list, the [restricted](Self::restricted) ones, and a
    /// Content-Length that Transfer-Encoding overrides, since that is not the length of the body (RFC 9112 §6.3).
    pub(crate) fn by(response: &HeaderMap, directives: &ResponseDirectives, options: &Options) -> Self {
        let mut names = connection_list(response);
        names.append(&mut restricted_list(directives, options));
        if response.contains_key(header::TRANSFER_ENCODING) {
            names.push(header::CONTENT_LENGTH);
        }
        Self::new(names)
    }

    /// Returns the fields that the Connection fields list (RFC 9110 §7.6.1).
    pub(super) fn by_connection(headers: &HeaderMap) -> Self {
        Self::new(connection_list(headers))
    }

    /// Returns the fields that directives of the response restrict (RFC 9111 §3.1, §5.2.2.4 and §5.2.2.7).
    ///
    /// These are the fields that must not be used without validation, and in a shared cache those that are for one
    /// user.
    pub(crate) fn restricted(headers: &HeaderMap, options: &Options) -> Self {
        Self::new(restricted_list(&ResponseDirectives::of(headers, options), options))
    }

    /// Returns whether all fields are stored, except those about the connection (RFC 9111 §3.1).
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a field is stored (RFC 9111 §3.1).
    ///
    /// It is if it is not withheld and not about the connection.
    pub(super) fn passes(&self, name: &HeaderName) -> bool {
        !is_connection_field(name)
            && (self.0.is_empty()
                || self.0.binary_search_by(|named| named.as_str().cmp(name.as_str())).is_err())
    }

    /// Returns the trailers that are stored, and sent to every request but the first (RFC 9110 §6.5).
    ///
    /// A trailer is left out if the same field would be left out of the head, or if it counts only before the content.
    /// `None` if no trailer is left.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) -> Option<HeaderMap> {
        let mut passed = HeaderMap::new();
        for (name, value) in trailers {
            if self.passes(name) && !is_head_field(name) {
                // An `Err` says that the map is full. The rest is left out, since a panic would lose the body as well.
                let _ = passed.try_append(name.clone(), value.clone());
            }
        }
        (!passed.is_empty()).then_some(passed)
    }
}

impl<'a> IntoIterator for &'a UnstoredFields {
    type Item = &'a HeaderName;
    type IntoIter = std::slice::Iter<'a, HeaderName>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Returns the fields that the Connection fields list (RFC 9110 §7.6.1).
fn connection_list(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION).iter();
    lines
        .flat_map(|line| split_list(line.as_bytes()))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}

/// Returns the fields that directives of the response restrict (RFC 9111 §5.2.2.4 and §5.2.2.7).
fn restricted_list(directives: &ResponseDirectives, options: &Options) -> Vec<HeaderName> {
    let mut names = directives.no_cache_fields.clone();
    if options.shared {
        names.extend(directives.private_fields.iter().cloned());
    }
    names
}

/// Returns whether a field counts only before the content (RFC 9110 §6.5.1).
///
/// These are fields of framing, routing, authentication, control, and the content's format. Set-Cookie is among them,
/// since whether and for which requests a response is stored is decided by its head.
fn is_head_field(name: &HeaderName) -> bool {
    // Cache-Control, CDN-Cache-Control, and the other targeted fields by the convention of RFC 9213 §2.
    name.as_str().ends_with("cache-control")
        || matches!(
            name.as_str(),
            "age"
                | "authorization"
                | "content-encoding"
                | "content-length"
                | "content-range"
                | "content-type"
                | "cookie"
                | "date"
                | "expires"
                | "host"
                | "location"
                | "pragma"
                | "retry-after"
                | "set-cookie"
                | "trailer"
                | "vary"
                | "www-authenticate"
        )
}

/// Returns the fields of a response that are stored, as they came (RFC 9111 §3.1).
///
/// Repeated lines are kept, in their order. The values are copied into one buffer: they are slices of the one that the
/// client has read its connection into, and would keep it alive.
///
/// There is room for `added` further fields.
pub(crate) fn stored_headers(response: &HeaderMap, unstored: &UnstoredFields, added: usize) -> HeaderMap {
    // Each name is looked at once where all of them pass, as they mostly do.
    let all_pass = response.keys().all(|name| unstored.passes(name));
    let passing = || response.iter().filter(|(name, _)| all_pass || unstored.passes(name));
    let mut bytes = BytesMut::with_capacity(passing().map(|(_, value)| value.len()).sum());
    passing().for_each(|(_, value)| bytes.extend_from_slice(value.as_bytes()));
    let mut bytes = bytes.freeze();
    let mut stored = HeaderMap::with_capacity(response.len() + added);
    for (name, value) in passing() {
        // Cannot fail, since the bytes are those of a value.
        if let Ok(mut copy) = HeaderValue::from_maybe_shared(bytes.split_to(value.len())) {
            copy.set_sensitive(value.is_sensitive());
            stored.append(name.clone(), copy);
        }
    }
    stored
}

/// Adds the time of receipt as the Date of a response that has none (RFC 9110 §6.6.1).
pub(crate) fn ensure_date(headers: &mut HeaderMap, response_time: Timestamp) {
    if !headers.contains_key(header::DATE)
        && let Some(date) = dates::format(response_time)
    {
        headers.insert(header::DATE, date);
    }
}
