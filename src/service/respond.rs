//! Makes responses from records and from downloads, and the cache's own responses.
//!
//! # Invariants
//!
//! - Stored fields are returned as they were received, with one Age field.
//! - Preconditions and ranges are evaluated here, on the stored response (RFC 9110 §13, §14).
//! - The head of a response is returned only after the first bytes of its body have been read.
//! - Every response of the cache gets its status here, and is counted once.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request};

use super::age::age_value;
use super::body::{
    ChunkReader, ChunkedBody, Download, Layout, Multipart, Part, Pieces, Reader, RecordRef, Stitched,
    StoredParts, StoredPieces, Token, content_range,
};
use super::config::{Config, Recording};
use super::records::variant_in;
use super::shared::Shared;
use super::telemetry;
use crate::body::{BodyError, CacheBody, Source};
use crate::control::{CacheStatus, Outcome, Stored};
use crate::entry::{StoredBody, StoredResponse};
use crate::observe::ByteCounter;
use crate::policy::{self, Answer, Freshness, HeaderHints, MadeTag};
use crate::storage::{Key, Record, Storage};
use crate::time::Timestamp;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// A request, and which kinds of header fields it has.
#[derive(Clone, Copy)]
pub(crate) struct RequestView<'a> {
    pub(crate) parts: &'a request::Parts,
    pub(crate) interest: HeaderHints,
}

impl<'a> RequestView<'a> {
    /// Reads the names of a request's header fields, once for all later uses.
    pub(crate) fn of(parts: &'a request::Parts) -> Self {
        Self::with_hints(parts, HeaderHints::of(&parts.headers))
    }

    /// Returns the view of a request whose names were read already.
    pub(crate) fn with_hints(parts: &'a request::Parts, interest: HeaderHints) -> Self {
        Self { parts, interest }
    }
}

/// Tells which bytes of the body are sent.
enum Extent {
    Nothing,
    Bytes {
        start: u64,
        count: u64,
    },
    /// Several ranges, with what is around them.
    Parts(Arc<Layout>),
    /// The whole body, whose length is not known yet.
    Whole,
}

impl Extent {
    /// Returns the offset of the first byte and the number of bytes, in a body of a length.
    ///
    /// Returns `None` for several ranges.
    fn within(&self, len: u64) -> Option<(u64, u64)> {
        match *self {
            Self::Nothing => Some((0, 0)),
            Self::Bytes { start, count } => Some((start, count)),
            Self::Whole => Some((0, len)),
            Self::Parts(_) => None,
        }
    }

    /// Returns the ranges that are sent, in a body of a length.
    fn ranges(&self, len: u64) -> Vec<Range<u64>> {
        match self {
            Self::Parts(layout) => layout.ranges().to_vec(),
            one => {
                let bytes = one.within(len).filter(|(_, count)| *count > 0);
                bytes.map(|(start, count)| start..start + count).into_iter().collect()
            }
        }
    }
}

/// Makes the response from a record whose body needs no waiting.
///
/// So a hit in memory is answered without a boxed future. Returns `None` if the body is in chunks that the storage does not
/// return at once.
pub(super) fn from_record_now<S: Storage, B>(
    shared: &Shared<S>,
    view: RequestView<'_>,
    key: Key,
    record: &Record,
    stored: &StoredResponse,
    status: CacheStatus,
) -> Option<Response<CacheBody<B>>> {
    let plan = plan(&shared.config, view, stored, Some(stored.body().len()), Several::Parts);
    let body = body_now(shared, RecordRef { key, stamp: record.stamp() }, stored, &plan.extent)?;
    let mut response =
        head(&shared.config.policy, view, stored, &plan, status.age().unwrap_or_default()).map(|()| body);
    mark(shared, &mut response, status, Some(view.parts));
    Some(response)
}

/// Makes the response from a record.
///
/// Returns `None` if its body is gone.
pub(crate) async fn from_record<S: Storage, B>(
    shared: &Shared<S>,
    view: RequestView<'_>,
    key: Key,
    record: &Record,
    status: CacheStatus,
) -> Option<Response<CacheBody<B>>> {
    let stored = &variant_in(record)?.response;
    let plan = plan(&shared.config, view, stored, Some(stored.body().len()), Several::Parts);
    let source = RecordRef { key, stamp: record.stamp() };
    let body = match body_now(shared, source, stored, &plan.extent) {
        Some(body) => body,
        // Boxed, since few bodies are stored in parts.
        None if stored.body().parts().is_some() => {
            Box::pin(body_of_parts(shared, source, stored, &plan.extent)).await?
        }
        None => {
            let body = ChunkedBody::of(stored.body())?;
            match &plan.extent {
                Extent::Parts(layout) => {
                    let parts = StoredParts::open(&shared.records, source, body, layout.ranges());
                    // Boxed, since it would enlarge the future of every lookup, and few requests ask for several ranges.
                    stored_parts(layout, Box::pin(parts).await?)
                }
                extent => {
                    let (part, trailers) = (extent.within(body.len)?, stored.trailers());
                    let reader = ChunkReader::open(&shared.records, source, body, part, &[], trailers);
                    CacheBody::from_source(reader.await?)
                }
            }
        }
    };
    let response = head(&shared.config.policy, view, stored, &plan, status.age().unwrap_or_default());
    Some(finish_for(shared, view.parts, response.map(|()| body), status))
}

/// Returns the sent part of a body of which all sent bytes are stored in parts.
///
/// Returns `None` if some are not there.
async fn body_of_parts<S: Storage, B>(
    shared: &Shared<S>,
    source: RecordRef,
    stored: &StoredResponse,
    extent: &Extent,
) -> Option<CacheBody<B>> {
    let parts = stored.body().parts()?;
    let ranges = extent.ranges(parts.len);
    if ranges.iter().any(|range| parts.first_gap(range.clone()).is_some()) {
        return None;
    }
    // The first bytes are read before the head is returned.
    let first = ranges.first()?.clone();
    let mut pieces = StoredPieces::new(&shared.records, source, parts, first.end);
    let opened = pieces.open(first.start, false).await.ok()?;
    let reader = Stitched::new(pieces, first.clone(), Some((first.start, opened)));
    let Extent::Parts(layout) = extent else { return Some(CacheBody::from_source(Box::new(reader))) };
    let (records, parts, mut reader) = (Arc::clone(&shared.records), Arc::clone(parts), Some(reader));
    Some(multipart(layout, move |range| {
        let of_range = || {
            let pieces = StoredPieces::new(&records, source, &parts, range.end);
            Stitched::new(pieces, range.clone(), None)
        };
        Ok(Part::Source(Box::new(reader.take().unwrap_or_else(of_range))))
    }))
}

/// Returns whether bytes of a stored body are fetched again that the storage loses while it is read.
///
/// A body that is read in one operation has none to lose.
pub(super) fn continues(config: &Config, stored: &StoredResponse) -> bool {
    if !config.store_parts {
        return false;
    }
    let is_long = match ChunkedBody::of(stored.body()) {
        Some(body) => stored.status == StatusCode::OK && stored.trailers().is_none() && !body.is_one_batch(),
        None => stored.body().parts().is_some(),
    };
    is_long && policy::strong_validator(&stored.headers).is_some()
}

/// Returns the ranges of a stored body that answer a request.
pub(super) fn wanted<S: Storage>(
    shared: &Shared<S>,
    view: RequestView<'_>,
    stored: &StoredResponse,
    len: u64,
) -> Vec<Range<u64>> {
    plan(&shared.config, view, stored, Some(len), Several::Parts).extent.ranges(len)
}

/// Returns the one range of a stored body that answers a request, or the whole if it asks for several ranges.
pub(super) fn wanted_at_once<S: Storage>(
    shared: &Shared<S>,
    view: RequestView<'_>,
    stored: &StoredResponse,
    len: u64,
) -> Option<Range<u64>> {
    plan(&shared.config, view, stored, Some(len), Several::Whole).extent.ranges(len).pop()
}

/// Makes the response from a stored head, and from a reader of the [wanted] bytes of its body.
pub(super) fn from_source<S: Storage, B>(
    shared: &Shared<S>,
    view: RequestView<'_>,
    stored: &StoredResponse,
    len: u64,
    source: Option<Box<dyn Source>>,
    status: CacheStatus,
) -> Response<CacheBody<B>> {
    let plan = plan(&shared.config, view, stored, Some(len), Several::Whole);
    let response = head(&shared.config.policy, view, stored, &plan, status.age().unwrap_or_default());
    let body = source.map_or_else(CacheBody::empty, CacheBody::from_source);
    finish_counted(shared, view, response.map(|()| body), status)
}

/// Makes the response to a request for several ranges from a stored head, and from a function that opens each of them.
///
/// Returns `None` if it is not answered by several parts.
pub(super) fn from_ranges<S: Storage, B>(
    shared: &Shared<S>,
    view: RequestView<'_>,
    stored: &StoredResponse,
    open: impl FnMut(Range<u64>) -> Result<Part, BodyError> + Send + Sync + 'static,
    status: CacheStatus,
) -> Option<Response<CacheBody<B>>> {
    let plan = plan(&shared.config, view, stored, Some(stored.body().len()), Several::Parts);
    let Extent::Parts(layout) = &plan.extent else { return None };
    let response = head(&shared.config.policy, view, stored, &plan, status.age().unwrap_or_default());
    Some(finish_counted(shared, view, response.map(|()| multipart(layout, open)), status))
}

/// Adds the status to a response whose body counts its bytes itself.
fn finish_counted<S: Storage, B>(
    shared: &Shared<S>,
    view: RequestView<'_>,
    response: Response<CacheBody<B>>,
    status: CacheStatus,
) -> Response<CacheBody<B>> {
    let mut response = finish_for(shared, view.parts, response, status);
    response.body_mut().set_byte_counter(ByteCounter::none());
    response
}

/// Returns the sent part of a body, if that needs no waiting.
fn body_now<S: Storage, B>(
    shared: &Shared<S>,
    source: RecordRef,
    stored: &StoredResponse,
    extent: &Extent,
) -> Option<CacheBody<B>> {
    match (stored.body(), extent) {
        (_, Extent::Nothing) => Some(CacheBody::empty()),
        (StoredBody::Inline(bytes), Extent::Parts(layout)) => {
            let bytes = bytes.clone();
            Some(multipart(layout, move |range| {
                Ok(Part::Data(bytes.slice(range.start as usize..range.end as usize)))
            }))
        }
        (StoredBody::Inline(bytes), extent) => {
            Some(inline(bytes, extent.within(bytes.len() as u64)?, stored))
        }
        (chunked, Extent::Parts(layout)) => {
            let body = ChunkedBody::of(chunked)?;
            let parts = StoredParts::open_now(&shared.records, source, body, layout.ranges())?;
            Some(stored_parts(layout, parts))
        }
        (chunked, extent) => {
            let (body, part) = (ChunkedBody::of(chunked)?, extent.within(chunked.len())?);
            let reader = ChunkReader::open_now(&shared.records, source, body, part, stored.trailers())?;
            Some(CacheBody::from_source(reader))
        }
    }
}

/// Returns the sent part of a body that is in its record.
fn inline<B>(bytes: &Bytes, (start, count): (u64, u64), stored: &StoredResponse) -> CacheBody<B> {
    if count == bytes.len() as u64 {
        return CacheBody::whole(bytes.clone(), stored.trailers().cloned());
    }
    CacheBody::whole(bytes.slice(start as usize..(start + count) as usize), None)
}

/// Returns the ranges of a body in chunks as parts.
fn stored_parts<S: Storage, B>(layout: &Arc<Layout>, mut parts: StoredParts<S>) -> CacheBody<B> {
    multipart(layout, move |range| parts.part(&range))
}

/// Returns parts that a function opens.
fn multipart<B>(
    layout: &Arc<Layout>,
    open: impl FnMut(Range<u64>) -> Result<Part, BodyError> + Send + Sync + 'static,
) -> CacheBody<B> {
    CacheBody::from_source(Box::new(Multipart::new(Arc::clone(layout), open)))
}

/// Makes the response from a download.
///
/// Returns `None` if the download accepts no more readers.
pub(super) fn from_download<S: Storage, B>(
    shared: &Shared<S>,
    view: RequestView<'_>,
    download: Arc<Download<S>>,
    token: Token,
    status: CacheStatus,
) -> Option<Response<CacheBody<B>>> {
    let (stored, len) = (download.writer.response(), download.expected);
    // The readers of a download go through it side by side, and not one after another as the parts would.
    let plan = plan(&shared.config, view, stored, len, Several::Whole);
    let response = head(&shared.config.policy, view, stored, &plan, status.age().unwrap_or_default());
    let (start, until) = match plan.extent {
        Extent::Nothing => {
            return Some(finish_for(shared, view.parts, response.map(|()| CacheBody::empty()), status));
        }
        Extent::Whole | Extent::Parts(_) => (0, None),
        Extent::Bytes { start: 0, count } if Some(count) == len => (0, None),
        Extent::Bytes { start, count } => (start, Some(start + count)),
    };
    let reader = Reader::follower(download, token, start, until)?;
    Some(finish_for(shared, view.parts, response.map(|()| CacheBody::from_source(Box::new(reader))), status))
}

/// Makes a response of the cache itself, without a body.
pub(super) fn refuse<S: Storage, B>(
    shared: &Shared<S>,
    parts: &request::Parts,
    code: StatusCode,
    outcome: Outcome,
) -> Response<CacheBody<B>> {
    let mut response = Response::new(CacheBody::empty());
    *response.status_mut() = code;
    finish_for(shared, parts, response, CacheStatus::new(outcome, Stored::Unchanged))
}

/// Makes the response of the user's function to a request for which the origin is too slow.
pub(super) fn fallback<S: Storage, B>(
    shared: &Shared<S>,
    parts: &request::Parts,
    response: Response<Bytes>,
) -> Response<CacheBody<B>> {
    let response = response.map(|body| match parts.method {
        Method::HEAD => CacheBody::empty(),
        _ => CacheBody::whole(body, None),
    });
    finish_for(shared, parts, response, CacheStatus::new(Outcome::Fallback, Stored::Unchanged))
}

/// Makes the response to a request that accepts only stored responses.
///
/// A replay names the request in the body, so that the output of a failing test says what was not recorded.
pub(super) fn refuse_request<S: Storage, B>(
    shared: &Shared<S>,
    parts: &request::Parts,
) -> Response<CacheBody<B>> {
    let mut response = refuse(shared, parts, StatusCode::GATEWAY_TIMEOUT, Outcome::Refused);
    if shared.config.recording() == Some(Recording::Replay) {
        let uri =
            shared.config.identify(parts).map_or_else(|| parts.uri.path().to_owned(), |uri| uri.to_text());
        let text = format!("{} {uri} is not among the recorded responses\n", parts.method);
        tracing::warn!(
            method = %parts.method, path = parts.uri.path(),
            "not among the recorded responses: the answer names it"
        );
        // The new body needs the status of the one that it replaces.
        let status = response.body().status().copied();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        *response.body_mut() = CacheBody::whole(text.into(), None);
        if let Some(status) = status {
            response.body_mut().set_status(status);
        }
    }
    response
}

/// Adds the status to a response, within the span of its request.
pub(super) fn finish<S: Storage, B>(
    shared: &Shared<S>,
    mut response: Response<CacheBody<B>>,
    status: CacheStatus,
) -> Response<CacheBody<B>> {
    mark(shared, &mut response, status, None);
    response
}

/// Adds the status to a response whose request may have no span.
fn finish_for<S: Storage, B>(
    shared: &Shared<S>,
    parts: &request::Parts,
    mut response: Response<CacheBody<B>>,
    status: CacheStatus,
) -> Response<CacheBody<B>> {
    mark(shared, &mut response, status, Some(parts));
    response
}

/// Adds the status to a response, and counts the response.
///
/// The status goes into the body, and by settings into the extensions and the Cache-Status field.
fn mark<S: Storage, B>(
    shared: &Shared<S>,
    response: &mut Response<CacheBody<B>>,
    status: CacheStatus,
    parts: Option<&request::Parts>,
) {
    telemetry::answered(&shared.observer, &status, parts, &shared.config.defaults);
    response.body_mut().set_status(status);
    response.body_mut().set_byte_counter(shared.observer.byte_counter(&status));
    if shared.config.recording() == Some(Recording::Replay) {
        // The age would differ from one replay to the next.
        response.headers_mut().remove(header::AGE);
    }
    if shared.config.removes_tag_fields {
        for name in &shared.config.policy.tag_fields {
            response.headers_mut().remove(name);
        }
    }
    if shared.config.extensions {
        response.extensions_mut().insert(status);
    }
    if let Some(name) = &shared.config.status_field
        && let Ok(value) = status_value(name, status)
    {
        // A response that has the maximum number of fields is sent without it.
        let _ = response.headers_mut().try_append(CACHE_STATUS, value);
    }
}

/// Returns this cache's member of Cache-Status (RFC 9211).
fn status_value(name: &str, status: CacheStatus) -> Result<HeaderValue, InvalidHeaderValue> {
    let Some(ttl) = status.plain_hit_ttl() else {
        return HeaderValue::try_from(format!("{name}; {status}"));
    };
    // Written without the machinery of `format!`, and of the exact length: each hit has this field, and `Bytes` would allocate
    // once more for a vector that has room left.
    let (middle, mut digits) = ("; hit; ttl=", itoa::Buffer::new());
    let digits = digits.format(ttl);
    let mut text = Vec::with_capacity(name.len() + middle.len() + digits.len());
    for part in [name, middle, digits] {
        text.extend_from_slice(part.as_bytes());
    }
    HeaderValue::from_maybe_shared(Bytes::from(text))
}

/// Returns the status of a response from the storage.
pub(crate) fn stored_status(
    outcome: Outcome,
    stored: Stored,
    freshness: &Freshness,
    now: Timestamp,
) -> CacheStatus {
    let age = freshness.age(now);
    let mut status = CacheStatus::new(outcome, stored);
    status.is_expired = freshness.is_expired(now);
    status.set_age(age);
    status.set_ttl(freshness.ttl_at(age, now));
    status
}

/// Tells how a request is answered with a stored response, before anything is made or read for that.
struct Plan {
    answer: Answer,
    /// The length of the body. Zero if it is not known.
    len: u64,
    /// Which bytes of the body are sent.
    extent: Extent,
    /// The entity tag that the cache made, if it uses such tags.
    made_tag: Option<MadeTag>,
    /// The number of bytes that are sent, or that a HEAD leaves out. `None` if that is not known.
    count: Option<u64>,
}

/// Tells how several ranges at once are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Several {
    /// As parts.
    Parts,
    /// With the whole body.
    Whole,
}

/// Evaluates the conditions and the ranges of a request.
///
/// `len` is the length of the body. `None` if it is not known yet, so that no range can be answered.
#[inline]
fn plan(
    config: &Config,
    view: RequestView<'_>,
    stored: &StoredResponse,
    len: Option<u64>,
    several: Several,
) -> Plan {
    let made_tag = if config.make_etags { stored.made_tag() } else { None };
    let answer = |headers, len| {
        let (method, received) = (&view.parts.method, stored.response_time);
        policy::answer(method, headers, stored.status, &stored.headers, made_tag, len, received)
    };
    let answer = match len {
        // Most requests have neither conditions nor a range, and need no evaluation.
        _ if !view.interest.control => Answer::Full,
        Some(len) => answer(&view.parts.headers, len),
        None => {
            let mut headers = view.parts.headers.clone();
            headers.remove(header::RANGE);
            answer(&headers, 0)
        }
    };
    let answer = match answer {
        Answer::Ranges(_) if several == Several::Whole => Answer::Full,
        answer => answer,
    };
    let extent = match &answer {
        Answer::NotModified | Answer::Unsatisfiable => Extent::Nothing,
        Answer::Range(range) => Extent::Bytes { start: range.start, count: range.end - range.start },
        Answer::Ranges(ranges) => {
            Extent::Parts(Arc::new(Layout::new(ranges.clone(), len.unwrap_or(0), &stored.headers)))
        }
        Answer::Full => len.map_or(Extent::Whole, |count| Extent::Bytes { start: 0, count }),
    };
    let count = match &extent {
        Extent::Bytes { count, .. } => Some(*count),
        Extent::Parts(layout) => Some(layout.len()),
        Extent::Nothing | Extent::Whole => None,
    };
    let extent = if view.parts.method == Method::HEAD { Extent::Nothing } else { extent };
    Plan { answer, len: len.unwrap_or(0), extent, made_tag, count }
}

/// Makes the head of the response.
#[inline]
fn head(
    options: &policy::Options,
    view: RequestView<'_>,
    stored: &StoredResponse,
    plan: &Plan,
    age: Duration,
) -> Response<()> {
    let mut response = Response::new(());
    let len = plan.len;
    match &plan.answer {
        Answer::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.headers_mut() = policy::not_modified_headers(&stored.headers, options);
        }
        Answer::Range(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            *response.headers_mut() = partial_headers(stored, range.end - range.start);
            set(response.headers_mut(), header::CONTENT_RANGE, content_range(range, len));
        }
        Answer::Ranges(_) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            *response.headers_mut() = partial_headers(stored, plan.count.unwrap_or(0));
            if let Extent::Parts(layout) = &plan.extent {
                set(response.headers_mut(), header::CONTENT_TYPE, layout.content_type());
            }
        }
        Answer::Unsatisfiable => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
            set(response.headers_mut(), header::CONTENT_RANGE, format!("bytes */{len}"));
        }
        Answer::Full => {
            *response.status_mut() = stored.status;
            *response.headers_mut() = stored.headers.clone();
        }
    }
    if let Some(made_tag) = plan.made_tag
        && plan.answer != Answer::Unsatisfiable
    {
        // A response that has the maximum number of fields is sent without it.
        let _ = response.headers_mut().try_insert(header::ETAG, made_tag.to_value());
    }
    // Stored fields contain an Age field already, which is overwritten: `insert` would reserve room for another field first,
    // and a full map would have to grow for that.
    let age = age_value(age.as_secs());
    match response.headers_mut().get_mut(header::AGE) {
        Some(value) => *value = age,
        None => {
            response.headers_mut().insert(header::AGE, age);
        }
    }
    // The response to a HEAD has no body, from which a server could determine the length.
    if view.parts.method == Method::HEAD
        && let Some(count) = plan.count
        && !response.headers().contains_key(header::CONTENT_LENGTH)
    {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    }
    response
}

/// Returns the fields of a 206 with content of this length (RFC 9110 §15.3.7).
///
/// Content-Range is left to the caller, since a 206 with several parts has none.
fn partial_headers(stored: &StoredResponse, count: u64) -> HeaderMap {
    let mut headers = stored.headers.clone();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    headers.remove(header::CONTENT_RANGE);
    // It is the digest of the content of one message, here of the whole body (RFC 9530 §2).
    headers.remove(CONTENT_DIGEST);
    headers
}

/// Sets a field.
fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
