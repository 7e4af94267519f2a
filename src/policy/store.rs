//! What may be stored (RFC 9111 §3), and which of its fields (§3.1).

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::dates;
use super::directives::{RequestDirectives, ResponseDirectives};
use super::freshness::{Freshness, Given, explicit, is_heuristic};
use super::list::split_list;
use super::not_stored::NotStored;
use super::options::Options;
use super::terms::Terms;
use crate::time::Timestamp;

/// A map of fields has a limit of its own, beyond which it panics; this is far below it.
pub(crate) const MOST_FIELDS: usize = 4096;

/// The final statuses that RFC 9110 §15 defines, whose rules for caches are kept here: all but 206 and 304, which are
/// not stored.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 305..=308 | 400..=417 | 421 | 422 | 426 | 500..=505
    )
}

/// The final statuses that say something of one request, its client or its connection, by what no key holds: stored, one
/// request would take the page away from all others. A rule that names one of them is the user's word.
fn is_of_one_request(status: StatusCode) -> bool {
    // RFC 9110 §15, unless another is named.
    match status.as_u16() {
        401 => true, // the credentials: those of a shared cache's next user may be good
        406 => true, // the preferences (Accept and its kin), which Vary often leaves out here
        407 => true, // the credentials for a proxy, which are in no key
        408 => true, // how fast the request came
        411 => true, // the framing of its content
        412 => true, // its preconditions, which are answered from what is stored, and in no key
        413 => true, // the length of its content
        415 => true, // the type or coding of its content
        416 => true, // its Range
        417 => true, // its Expect
        421 => true, // the connection on which it came
        425 => true, // it came in early data (RFC 8470 §5.2)
        426 => true, // the protocol that the client speaks
        428 => true, // it has no precondition: "MUST NOT be stored by a cache" (RFC 6585 §3)
        429 => true, // the client's rate: likewise (RFC 6585 §4)
        431 => true, // the size of its fields: likewise (RFC 6585 §5)
        505 => true, // the version that the client speaks
        511 => true, // the client's network: likewise (RFC 6585 §6)
        // About the resource (409, 423), its state or the URI (414, 422), or about the server. 402, 403 and 451 too: where
        // they are for one client, the origin says so as for a 200. 400 most often says that a URI means nothing: with a
        // lifetime of its own it is stored, as RFC 9111 §3 lets a cache do.
        _ => false,
    }
}

/// A response and the request that it answers.
#[derive(Clone, Copy)]
pub(crate) struct Exchanged<'a> {
    pub(crate) method: &'a Method,
    /// The user made the method cacheable, by the request's content.
    pub(crate) by_content: bool,
    pub(crate) request: &'a HeaderMap,
    pub(crate) status: StatusCode,
    pub(crate) response: &'a HeaderMap,
}

/// Whether a response may be stored (RFC 9111 §3), and is of any use then.
pub(crate) fn storable(
    exchanged: Exchanged<'_>,
    asked: &RequestDirectives,
    freshness: &Freshness,
    given: Option<Given>,
    terms: &Terms,
    options: &Options,
) -> Result<(), NotStored> {
    let Exchanged { method, by_content, request, status, response } = exchanged;
    if method != Method::GET && !by_content {
        return Err(NotStored::MethodNotCacheable);
    }
    if asked.no_store {
        return Err(NotStored::RequestNoStore);
    }
    if terms.status == Some(false) {
        return Err(NotStored::StatusNotCacheable);
    }
    match status.as_u16() {
        206 => return Err(NotStored::PartialContent),
        ..200 | 304 | 600.. => return Err(NotStored::StatusNotCacheable),
        _ if is_of_one_request(status) && terms.status != Some(true) => {
            return Err(NotStored::StatusOfRequest);
        }
        _ => {}
    }
    if response.len() > MOST_FIELDS {
        return Err(NotStored::TooManyFields);
    }
    let said = ResponseDirectives::of(response, options);
    if said.must_understand {
        // It overrides no-store where the status is understood, and forbids storing where it is not (§5.2.2.3).
        if !is_understood(status) {
            return Err(NotStored::StatusNotUnderstood);
        }
    } else if said.no_store && !terms.despite.no_store {
        return Err(NotStored::ResponseNoStore);
    }
    // A lifetime that is guessed stays one, also where the user limits it.
    let by_rule = given.is_some() && (terms.over.is_some() || terms.default.is_some());
    let has_lifetime = by_rule || explicit(response, &said, freshness.response_time, options).is_some();
    let usable = freshness.lifetime > freshness.initial_age && !freshness.no_cache;
    if options.shared {
        if said.private && !terms.despite.private {
            return Err(NotStored::Private);
        }
        if request.contains_key(header::AUTHORIZATION)
            && !allows_authorization(&said)
            && !terms.despite.authorization
        {
            return Err(NotStored::Authorization);
        }
        // The usual page of a framework with sessions says nothing about caches, or that each use is to be validated; only
        // a lifetime says that others may get the cookie.
        let for_others = options.store_set_cookie && has_lifetime && usable;
        if response.contains_key(header::SET_COOKIE) && !for_others {
            return Err(NotStored::SetCookie);
        }
    }
    // No lifetime is guessed for what is no plain reading (RFC 9110 §9.3.3).
    if by_content && !is_reading(method) && !has_lifetime {
        return Err(NotStored::NoFreshness);
    }
    let marked = said.public || (said.private && !options.shared);
    if !has_lifetime && !marked && !is_heuristic(status) {
        return Err(NotStored::StatusNotCacheable);
    }
    if usable || freshness.has_validator || freshness.retain_until(options) > freshness.response_time {
        return Ok(());
    }
    Err(if has_lifetime { NotStored::Stale } else { NotStored::NoFreshness })
}

/// Whether a method only reads, with content or without: GET, QUERY and their kin.
pub(crate) fn is_reading(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "QUERY" | "SEARCH" | "REPORT" | "PROPFIND")
}

/// Whether a response to a request with Authorization may be stored for others (RFC 9111 §3.5).
pub(super) fn allows_authorization(said: &ResponseDirectives) -> bool {
    said.public || said.must_revalidate || said.s_maxage.is_some()
}

/// Fields that are about one connection and not about the response (RFC 9111 §3.1, RFC 9110 §7.6.1).
pub(crate) fn is_of_connection(name: &HeaderName) -> bool {
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

/// Names of fields that are left out of what is stored, each once and in order: a response may name thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Withheld(Vec<HeaderName>);

impl Withheld {
    fn new(mut names: Vec<HeaderName>) -> Self {
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        Self(names)
    }

    /// What a response leaves out of itself: what its Connection fields list, what is restricted, and a Content-Length that
    /// Transfer-Encoding overrides, since it is not the length of what is stored (RFC 9112 §6.3).
    pub(crate) fn by(response: &HeaderMap, options: &Options) -> Self {
        let mut names = connection_list(response);
        names.append(&mut restricted_list(response, options));
        if response.contains_key(header::TRANSFER_ENCODING) {
            names.push(header::CONTENT_LENGTH);
        }
        Self::new(names)
    }

    /// The names that the Connection fields list.
    pub(super) fn by_connection(headers: &HeaderMap) -> Self {
        Self::new(connection_list(headers))
    }

    /// The fields that must not be used without validation, and in a shared cache those that are for one user
    /// (RFC 9111 §3.1, §5.2.2.4, §5.2.2.7).
    pub(crate) fn restricted(headers: &HeaderMap, options: &Options) -> Self {
        Self::new(restricted_list(headers, options))
    }

    /// Whether a field is passed on: it is not among these, and not about the connection.
    pub(super) fn passes(&self, name: &HeaderName) -> bool {
        !is_of_connection(name)
            && (self.0.is_empty()
                || self.0.binary_search_by(|named| named.as_str().cmp(name.as_str())).is_err())
    }

    /// The trailers that are stored, and given to others than the first; `None`: there are none left. They pass all that
    /// the fields of the head pass, and those are left out that have no place among trailers.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) -> Option<HeaderMap> {
        let mut passed = HeaderMap::new();
        for (name, value) in trailers {
            if self.passes(name) && !is_of_head(name) {
                let _ = passed.try_append(name.clone(), value.clone());
            }
        }
        (!passed.is_empty()).then_some(passed)
    }
}

impl<'a> IntoIterator for &'a Withheld {
    type Item = &'a HeaderName;
    type IntoIter = std::slice::Iter<'a, HeaderName>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

fn connection_list(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION).iter();
    lines
        .flat_map(|line| split_list(line.as_bytes()))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}

fn restricted_list(headers: &HeaderMap, options: &Options) -> Vec<HeaderName> {
    let mut said = ResponseDirectives::of(headers, options);
    if options.shared {
        said.no_cache_fields.append(&mut said.private_fields);
    }
    said.no_cache_fields
}

/// The fields that count only before the content: framing, routing, authentication, control, and the content's format
/// (RFC 9110 §6.5.1). Set-Cookie among them: what a response is stored and selected by is settled with its head.
fn is_of_head(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "age"
            | "authorization"
            | "cache-control"
            | "cdn-cache-control"
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

/// The fields of a response that are stored, as they came: with repetitions, and in order within a name.
pub(crate) fn stored_headers(response: &HeaderMap, withheld: &Withheld) -> HeaderMap {
    let mut stored = HeaderMap::with_capacity(response.len() + 2);
    for (name, value) in response {
        if withheld.passes(name) {
            stored.append(name.clone(), value.clone());
        }
    }
    stored
}

/// Adds the time of receipt where a response has no Date (RFC 9110 §6.6.1).
pub(crate) fn ensure_date(headers: &mut HeaderMap, response_time: Timestamp) {
    if !headers.contains_key(header::DATE)
        && let Some(date) = dates::format(response_time)
    {
        headers.insert(header::DATE, date);
    }
}
