//! Stores partial responses, and asks the origin for the bytes that are missing.
//!
//! # Invariants
//!
//! - Bytes are combined only if they belong to the same representation, by a strong validator and its complete length
//!   (RFC 9110 §15.3.7.3, RFC 9111 §3.4).
//! - The origin is asked for missing bytes only on condition that the representation is still the same (If-Range). A response
//!   that has begun ends with an error if it is not.
//! - Only bytes that are missing are asked for.

use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request, response,
};
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout_at;

use super::conditional::ends_stored_response;
use super::fetcher::{Fetcher, send};
use super::response::{Begun, filter_and_join, store, store_and_respond};
use super::resume::resumable;
use super::{ConditionalOutcome, FetchContext, FetchResult, Need, Times};
use crate::body::{BodyError, BodyErrorKind, CacheBody, Exclusive, Source};
use crate::control::{MissReason, Outcome, Stored};
use crate::entry::{Parts, StoredResponse};
use crate::error::{Error, ErrorKind};
use crate::policy::{self, NotStored};
use crate::service::body::{ChunkReader, Download, Piece, Pieces, Reader, RecordRef, Stitched};
use crate::service::coalesce::{FlightOutcome, Joined};
use crate::service::records::{Found, Part, Snapshot, is_by_content, variant_in};
use crate::service::respond::{self, RequestView, stored_status};
use crate::service::shared::Shared;
use crate::service::tasks::after;
use crate::storage::{Key, Kind, Record, Stamp, Storage};

/// A partial response, as it is stored.
pub(super) struct PartialResponse {
    /// The head of the complete response.
    pub(super) head: response::Parts,
    pub(super) part: Part,
    /// The length of the part.
    pub(super) len: u64,
}

/// Returns how a 206 is stored.
///
/// `announced` is the length of its content, if it is known.
///
/// # Errors
///
/// Returns why it is not stored.
pub(super) fn part<S: Storage>(
    shared: &Shared<S>,
    request: &request::Parts,
    snapshot: &Snapshot,
    head: &response::Parts,
    announced: Option<u64>,
) -> Result<PartialResponse, NotStored> {
    if is_by_content(request) {
        return Err(NotStored::PartialContent);
    }
    let (range, complete) =
        policy::partial_range(&request.headers, &head.headers, announced).ok_or(NotStored::ContentRange)?;
    let len = range.end - range.start;
    let mut head = head.clone();
    head.status = StatusCode::OK;
    head.headers = policy::complete_fields(&head.headers, complete);
    let stored = replaced(shared, request, snapshot)
        .filter(|stored| policy::is_same_representation(&stored.headers, &head.headers))
        .filter(|stored| stored.body().len() == complete);
    let parts = match stored {
        // The origin leaves out fields that the client of If-Range has, and this cache has not (RFC 9110 §15.3.7).
        None if request.headers.contains_key(header::IF_RANGE)
            && !head.headers.contains_key(header::CONTENT_TYPE) =>
        {
            return Err(NotStored::PartialContent);
        }
        None => None,
        Some(stored) => {
            let parts = stored.body().parts().ok_or(NotStored::AlreadyStored)?;
            if parts.runs().len() + 2 > Parts::MAX_RUNS {
                return Err(NotStored::TooManyParts);
            }
            if parts.stored_len().saturating_add(len) > shared.config.max_body_bytes {
                return Err(NotStored::TooLarge);
            }
            // The fields of the newer response replace those of the older ones (RFC 9110 §15.3.7.3).
            let mut headers = stored.headers.clone();
            policy::freshen(&mut headers, &head.headers, &shared.config.policy);
            head.headers = headers;
            Some(Arc::clone(parts))
        }
    };
    Ok(PartialResponse { head, part: Part { start: range.start, complete, stored: parts }, len })
}

/// Returns the stored response that the response to a request would replace, if the lookup has seen one.
fn replaced<'a, S: Storage>(
    shared: &Shared<S>,
    request: &request::Parts,
    snapshot: &'a Snapshot,
) -> Option<&'a StoredResponse> {
    let head = variant_in(snapshot.usable.as_ref()?)?;
    let of_request = match shared.records.selection(snapshot.names(), request) == head.selection {
        true => Some(head),
        false => variant_in(snapshot.variant.as_ref()?.1.as_ref()?),
    };
    of_request.map(|variant| &variant.response)
}

/// Returns the slice that a request for a response of which nothing is stored is fetched by.
///
/// Returns `None` if it is not fetched in slices.
pub(super) fn first_slice<S: Storage>(
    shared: &Shared<S>,
    request: &request::Parts,
    head: &Key,
    need: &Need,
) -> Option<Range<u64>> {
    let slice = shared.config.slices?;
    let has = |name: HeaderName| request.headers.contains_key(name);
    if matches!(need, Need::Fetch(MissReason::StorageFailed))
        || request.method != Method::GET
        || is_by_content(request)
        || has(header::IF_NONE_MATCH)
        || has(header::IF_MODIFIED_SINCE)
        || shared.config.directives(request).read_only
        || shared.records.unsliced.since(*head).is_some()
    {
        return None;
    }
    let start = policy::first_wanted(&request.headers)? / slice * slice;
    Some(start..start.checked_add(slice)?)
}

/// Returns the key of the flight of the slice that a request needs, if it is fetched in slices.
pub(crate) fn slice_key<S: Storage>(
    shared: &Shared<S>,
    request: &request::Parts,
    head: &Key,
    need: &Need,
) -> Option<Key> {
    let slice = shared.config.slices?;
    match need {
        Need::Fetch(_) => Some(key_of_slice(*head, first_slice(shared, request, head, need)?.start / slice)),
        Need::Complete(_, record, wanted) => {
            let parts = variant_in(record)?.response.body().parts()?;
            let gap = parts.first_gap(wanted.clone())?;
            Some(key_of_slice(*head, gap.start / slice))
        }
        Need::Select | Need::Validate(..) => None,
    }
}

/// Returns a key by which the flight of a slice is found. No record has it.
///
/// It is the same before and after the first part is stored. A follower is never answered by the flight: it looks again, so that
/// it matters to no request of which parts, variant or other slice with the same lower bits the flight is.
fn key_of_slice(head: Key, number: u64) -> Key {
    head.sibling(Kind::Chunk, [0; 16], number as u32)
}

/// Returns the missing bytes that are asked for in one request, the first of which is at an offset.
///
/// They are those before the next stored part and within the wanted range, or within the slice.
fn asked(slices: Option<u64>, parts: &Parts, offset: u64, wanted_end: u64) -> Range<u64> {
    let Some(slice) = slices else {
        return parts.first_gap(offset..wanted_end).unwrap_or(offset..wanted_end);
    };
    let begin = offset / slice * slice;
    let end = begin.saturating_add(slice).min(parts.len);
    let before = parts.runs().iter().map(|run| run.range.end).filter(|end| *end <= offset).max();
    let gap = parts.first_gap(offset..end).unwrap_or(offset..end);
    begin.max(before.unwrap_or(0))..gap.end
}

/// The answer of the origin to a request for a missing range.
enum Sent<B> {
    /// The bytes of the same representation, from the first missing one on.
    Bytes(Response<B>, Times),
    /// Another response.
    Other(Response<B>, Times),
    /// The stored parts belong to a representation that the origin does not have any more, or its answer is not one.
    Unusable,
}

/// Asks the origin for a range of a stored response.
async fn ask<S: Storage, F: Fetcher>(
    shared: &Shared<S>,
    fetcher: &mut F,
    request: &request::Parts,
    body: F::RequestBody,
    stored: &StoredResponse,
    complete: u64,
    range: Range<u64>,
) -> Result<Sent<F::Body>, F::Error> {
    let parts = request_for(request, stored, range.clone());
    let sent_headers = parts.headers.clone();
    let requested = shared.config.clock.now();
    let response = send(shared, fetcher, Request::from_parts(parts, body)).await?;
    let times = Times { requested, responded: shared.config.clock.now() };
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let (mut head, body) = response.into_parts();
            let len = body.size_hint().exact();
            let sent = policy::partial_range(&sent_headers, &head.headers, len);
            let continues = sent.is_some_and(|(_, of)| of == complete)
                && policy::is_continued_by(&stored.headers, &head.headers);
            if !continues {
                return Ok(Sent::Unusable);
            }
            complete_from(&mut head.headers, &stored.headers);
            Ok(Sent::Bytes(Response::from_parts(head, body), times))
        }
        StatusCode::RANGE_NOT_SATISFIABLE => Ok(Sent::Unusable),
        _ => Ok(Sent::Other(response, times)),
    }
}

/// Returns the request for a range of a stored response.
fn request_for(request: &request::Parts, stored: &StoredResponse, range: Range<u64>) -> request::Parts {
    let mut parts = request.clone();
    policy::strip_conditions(&mut parts.headers);
    if let Ok(value) = HeaderValue::try_from(format!("bytes={}-{}", range.start, range.end - 1)) {
        parts.headers.insert(header::RANGE, value);
    }
    if let Some(validator) = policy::strong_validator(&stored.headers) {
        parts.headers.insert(header::IF_RANGE, validator.clone());
    }
    parts
}

/// Adds the type of the content, which a 206 to a request with If-Range may leave out (RFC 9110 §15.3.7).
fn complete_from(headers: &mut HeaderMap, stored: &HeaderMap) {
    if let (false, Some(value)) =
        (headers.contains_key(header::CONTENT_TYPE), stored.get(header::CONTENT_TYPE))
    {
        headers.insert(header::CONTENT_TYPE, value.clone());
    }
}

/// Fetches the bytes of a stored response that are missing, and answers a request with those and the stored ones.
///
/// The response is in the record at the key, and the request wants this range of it.
pub(super) async fn complete<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    request: &request::Parts,
    body: &mut Option<F::RequestBody>,
    snapshot: &Snapshot,
    (key, record, wanted): (Key, &Record, Range<u64>),
    context: &mut FetchContext<S>,
) -> Result<ConditionalOutcome<S, F::Body>, F::Error> {
    let again = |reason| Ok(ConditionalOutcome::Fetch(reason));
    let Some(stored) = variant_in(record).map(|variant| &variant.response) else {
        return again(MissReason::Absent);
    };
    let Some(parts) = stored.body().parts() else { return again(MissReason::Absent) };
    let Some(first) = parts.first_gap(wanted.clone()) else { return again(MissReason::BodyGone) };
    let reads_only = shared.config.directives(request).read_only;
    let mut gap = asked(shared.config.slices, parts, first.start, wanted.end);
    let background = fetcher.background();
    // Further gaps could not be asked for, so that this request asks for all that follows.
    if background.is_none() {
        gap.end = wanted.end;
    }
    let body = body.take().unwrap_or_else(|| fetcher.repeated_body());
    let (response, times) = match ask(shared, fetcher, request, body, stored, parts.len, gap.clone()).await? {
        Sent::Bytes(response, times) => (response, times),
        Sent::Other(response, times) => {
            let outcome = Outcome::Miss(MissReason::Partial);
            // A whole response answers the caller's range where that can be done. An error is not about its range.
            context.strips_conditions = response.status() == StatusCode::OK;
            let response = filter_and_join(shared, request, Some(snapshot), times.requested, response).await;
            let response = resumable(shared, fetcher, request, response);
            let is_success = response.status().is_success();
            let fetched =
                store_and_respond(shared, request, Some(snapshot.clone()), response, times, outcome, context);
            if is_success && ends_stored_response(&fetched.response) {
                shared.records.put_out_of_use(key, record.stamp(), reads_only);
            }
            return Ok(ConditionalOutcome::Done(fetched));
        }
        Sent::Unusable => {
            shared.records.put_out_of_use(key, record.stamp(), reads_only);
            return again(MissReason::BodyGone);
        }
    };
    let of_gap = request_for(request, stored, gap.clone());
    let code = response.status().as_u16();
    let fetched =
        store_piece(shared, fetcher, &of_gap, snapshot, stored, &wanted, gap.start, response, times, context)
            .await;
    let Fetched { piece, offset, confirmed, stores, flight_outcome } = fetched;
    // The newest response about this representation forbids to store it any longer.
    if matches!(stores, Stored::No(reason) if reason.ends_stored_response()) {
        shared.records.put_out_of_use(key, record.stamp(), reads_only);
    }
    let freshness = confirmed.freshness(shared.records.number, &shared.config.policy);
    let mut status = stored_status(Outcome::Miss(MissReason::Partial), stores, &freshness, times.responded);
    status.origin_status = Some(code);
    let pieces = Filler {
        shared: Arc::clone(shared),
        fetcher: Exclusive::new(background),
        request: request.clone(),
        snapshot: snapshot.clone(),
        key,
        stored: stored.clone(),
        parts: Arc::clone(parts),
        end: wanted.end,
    };
    let source = Box::new(Stitched::new(pieces, wanted, Some((offset, piece))));
    let (view, len) = (RequestView::of(request), stored.body().len());
    let response = respond::from_source(shared, view, &confirmed, len, Some(source), status);
    Ok(ConditionalOutcome::Done(FetchResult::new(response, flight_outcome)))
}

/// A piece from the origin.
struct Fetched<S: Storage> {
    piece: Piece,
    /// Where it begins.
    offset: u64,
    /// The head of the representation, as its newest response describes it.
    confirmed: StoredResponse,
    stores: Stored,
    flight_outcome: FlightOutcome<S>,
}

/// Begins to store the bytes of a missing range, and returns a reader of those among them that are wanted.
///
/// The range begins at an offset.
#[allow(clippy::too_many_arguments)]
async fn store_piece<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    request: &request::Parts,
    snapshot: &Snapshot,
    stored: &StoredResponse,
    wanted: &Range<u64>,
    start: u64,
    response: Response<F::Body>,
    times: Times,
    context: &mut FetchContext<S>,
) -> Fetched<S> {
    // Checked before: it begins where it was asked for.
    let range = policy::partial_range(&request.headers, response.headers(), None);
    let sent = range.map_or(start, |(range, _)| range.end);
    let response = filter_and_join(shared, request, Some(snapshot), times.requested, response).await;
    let response = resumable(shared, fetcher, request, response);
    let outcome = Outcome::Miss(MissReason::Partial);
    match store(shared, request, Some(snapshot.clone()), response, times, outcome, context) {
        Begun::Unstored { response, status, flight_outcome } => {
            let body = Passed::new(response.into_body(), wanted.start.saturating_sub(start));
            let piece = Piece { source: Box::new(body), is_stored: false, end: sent };
            let (offset, confirmed, stores) = (start.max(wanted.start), stored.clone(), status.stored());
            Fetched { piece, offset, confirmed, stores, flight_outcome }
        }
        Begun::Storing { reader, download, status, .. } => {
            let (confirmed, stores) = (download.writer.response().clone(), status.stored());
            let (piece, offset) = piece_of(reader, &download, wanted, start, context);
            Fetched { piece, offset, confirmed, stores, flight_outcome: FlightOutcome::Streaming(download) }
        }
    }
}

/// Returns a reader of the wanted bytes of a part that is being stored, and where it begins.
///
/// The rest of the part is read in the background.
fn piece_of<S: Storage>(
    reader: Reader<S>,
    download: &Arc<Download<S>>,
    wanted: &Range<u64>,
    start: u64,
    context: &FetchContext<S>,
) -> (Piece, u64) {
    let offset = start.max(wanted.start);
    let len = download.expected.unwrap_or(u64::MAX);
    let end = (wanted.end - start).min(len);
    let token = || context.flight.upgrade().unwrap_or_else(|| Arc::new(()));
    if (offset > start || end < len)
        && offset - start < end
        && let Some(part) = Reader::follower(Arc::clone(download), token(), offset - start, Some(end))
    {
        reader.leave_to_others();
        return (Piece { source: Box::new(part), is_stored: false, end: start + end }, offset);
    }
    (Piece { source: Box::new(reader), is_stored: false, end: start.saturating_add(len) }, start)
}

/// Fetches the slice with the first byte that a request wants, and answers the request with it and the following ones.
pub(super) async fn fetch_slice<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    request: &request::Parts,
    body: &mut Option<F::RequestBody>,
    snapshot: &Snapshot,
    (slice, reason): (Range<u64>, MissReason),
    context: &mut FetchContext<S>,
) -> Result<ConditionalOutcome<S, F::Body>, F::Error> {
    let again = || Ok(ConditionalOutcome::Fetch(reason));
    // Without it, the slices after the first could not be asked for.
    let Some(background) = fetcher.background() else { return again() };
    let mut of_slice = request.clone();
    policy::strip_conditions(&mut of_slice.headers);
    if let Ok(value) = HeaderValue::try_from(format!("bytes={}-{}", slice.start, slice.end - 1)) {
        of_slice.headers.insert(header::RANGE, value);
    }
    let first_body = body.take().unwrap_or_else(|| fetcher.repeated_body());
    let requested = shared.config.clock.now();
    let response = send(shared, fetcher, Request::from_parts(of_slice.clone(), first_body)).await?;
    let times = Times { requested, responded: shared.config.clock.now() };
    let outcome = Outcome::Miss(reason);
    let now = times.responded;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {}
        // The body is empty, or shorter than the wanted range. The request itself is answered in any case.
        StatusCode::RANGE_NOT_SATISFIABLE => return again(),
        code => {
            context.strips_conditions = code == StatusCode::OK;
            let response = filter_and_join(shared, request, Some(snapshot), requested, response).await;
            let response = resumable(shared, fetcher, request, response);
            let fetched =
                store_and_respond(shared, request, Some(snapshot.clone()), response, times, outcome, context);
            return Ok(ConditionalOutcome::Done(fetched));
        }
    }
    let len = response.body().size_hint().exact();
    let range = policy::partial_range(&of_slice.headers, response.headers(), len);
    let (Some((range, complete)), Some(_)) = (range, policy::strong_validator(response.headers())) else {
        shared.records.unsliced.add(snapshot.head, now, None);
        return again();
    };
    let response = filter_and_join(shared, &of_slice, Some(snapshot), requested, response).await;
    let response = resumable(shared, fetcher, &of_slice, response);
    let begun = store(shared, &of_slice, Some(snapshot.clone()), response, times, outcome, context);
    let Begun::Storing { reader, download, mut status, .. } = begun else {
        shared.records.unsliced.add(snapshot.head, now, None);
        return again();
    };
    let view = RequestView::of(request);
    let stored = download.writer.response().clone();
    // The age that the origin's response has, since the fields are those of the stored one.
    status.age = Some(stored.freshness(shared.records.number, &shared.config.policy).age(now));
    let wanted = respond::wanted_at_once(shared, view, &stored, complete);
    let flight_outcome = FlightOutcome::Streaming(Arc::clone(&download));
    let source: Option<Box<dyn Source>> = match wanted {
        // A 304, a 416, or a part that begins elsewhere.
        None => {
            reader.leave_to_others();
            None
        }
        Some(wanted) => {
            // A piece that the caller does not come to soon is left to be read in the background.
            let first = match range.contains(&wanted.start) {
                true => {
                    let (piece, offset) = piece_of(reader, &download, &wanted, range.start, context);
                    Some((offset, piece))
                }
                false => {
                    reader.leave_to_others();
                    None
                }
            };
            let pieces = Filler {
                shared: Arc::clone(shared),
                fetcher: Exclusive::new(Some(background)),
                request: request.clone(),
                snapshot: snapshot.clone(),
                key: download.writer.target_key(),
                stored: stored.clone(),
                parts: Arc::new(Parts::none(complete)),
                end: wanted.end,
            };
            Some(Box::new(Stitched::new(pieces, wanted, first)))
        }
    };
    let response = respond::from_source(shared, view, &stored, complete, source, status);
    Ok(ConditionalOutcome::Done(FetchResult::new(response, flight_outcome)))
}

/// How many stored bytes before the first missing one are sent at once, while the origin is not asked yet.
///
/// With fewer, the origin is asked before the response begins, so that a changed representation is noticed in time.
const STORED_FIRST: u64 = 256 * 1024;

/// Answers a request with stored bytes, and fetches the others when the caller has come to them.
///
/// If all of them are stored, only those are fetched that the storage loses meanwhile. Returns `None` if the origin has to be
/// asked first, or the first bytes cannot be read.
pub(crate) async fn from_stored<S: Storage, F: Fetcher + 'static>(
    shared: &Arc<Shared<S>>,
    fetcher: F,
    request: &request::Parts,
    snapshot: &Snapshot,
    (key, record, wanted): (Key, &Record, Range<u64>),
    outcome: Outcome,
) -> Option<Response<CacheBody<F::Body>>> {
    let stored = &variant_in(record)?.response;
    let parts = stored.body().as_parts()?;
    let least = if shared.config.slices.is_some() { 1 } else { STORED_FIRST };
    if parts.first_gap(wanted.clone()).is_some_and(|gap| gap.start - wanted.start < least) {
        return None;
    }
    let run = parts.run_at(wanted.start)?;
    let at = RecordRef { key, stamp: record.stamp() };
    let of_run = wanted.start..run.range.end.min(wanted.end);
    let source = ChunkReader::open_part(&shared.records, at, &run.extent, of_run).await?;
    let first = (wanted.start, Piece { source, is_stored: true, end: run.range.end });
    let now = shared.config.clock.now();
    let freshness = stored.freshness(shared.records.number, &shared.config.policy);
    let mut status = stored_status(outcome, Stored::Unchanged, &freshness, now);
    status.level = record.level();
    let pieces = Filler {
        shared: Arc::clone(shared),
        fetcher: Exclusive::new(Some(fetcher)),
        request: request.clone(),
        snapshot: snapshot.clone(),
        key,
        stored: stored.clone(),
        parts: Arc::clone(&parts),
        end: wanted.end,
    };
    let source = Box::new(Stitched::new(pieces, wanted, Some(first)));
    let len = parts.len;
    Some(respond::from_source(shared, RequestView::of(request), stored, len, Some(source), status))
}

/// A body that is not stored, without its first bytes.
struct Passed<B> {
    body: Exclusive<Pin<Box<CacheBody<B>>>>,
    /// The number of bytes that are left out.
    skip: u64,
}

impl<B> Passed<B> {
    fn new(body: CacheBody<B>, skip: u64) -> Self {
        Self { body: Exclusive::new(Box::pin(body)), skip }
    }
}

impl<B> Source for Passed<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let frame = ready!(self.body.get_mut().as_mut().poll_frame(cx));
            let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
            let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
            let skipped = self.skip.min(data.len() as u64);
            self.skip -= skipped;
            data.advance(skipped as usize);
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// How many bytes are fetched again where the storage has lost some.
const REFETCHED: u64 = 1024 * 1024;

/// The pieces of a response of which parts are stored. The others are fetched when they are wanted.
struct Filler<S: Storage, F: Fetcher> {
    shared: Arc<Shared<S>>,
    /// `None` if no further request can be sent.
    ///
    /// A fetcher need not be `Sync`, and a body has to be.
    fetcher: Exclusive<Option<F>>,
    request: request::Parts,
    snapshot: Snapshot,
    /// The key of the record that names the parts.
    key: Key,
    stored: StoredResponse,
    /// The parts that were stored when the response began.
    parts: Arc<Parts>,
    /// The end of the wanted bytes.
    end: u64,
}

/// How often a slice that another request fetches is waited for, before it is fetched again.
const MAX_FLIGHTS: usize = 4;

impl<S: Storage, F: Fetcher + 'static> Filler<S, F> {
    /// Fetches the slices after the one with an offset, as many as are set, in the background.
    ///
    /// It fetches none that is stored, being fetched, or not wanted.
    /// `ended_flights` is the number of ended flights before the parts were read.
    fn prefetch(&mut self, offset: u64, parts: &Arc<Parts>, ended_flights: u64) {
        let (Some(slice), Ok(_)) = (self.shared.config.slices, Handle::try_current()) else { return };
        for ahead in 1..=self.shared.config.prefetch {
            let start = (offset / slice).saturating_add(ahead).saturating_mul(slice);
            if start >= self.end.min(parts.len) {
                return;
            }
            if parts.run_at(start).is_some() {
                continue;
            }
            let Some(fetcher) = self.fetcher.get_mut().as_ref().and_then(Fetcher::background) else { return };
            let key = key_of_slice(self.snapshot.head, start / slice);
            let flights = &self.shared.flights;
            let joined = flights.join((key, key), None, ended_flights, true, FlightOutcome::is_joinable);
            let Joined::Lead(flight, mut ticket) = joined else { continue };
            // It may have been stored since the parts were read.
            if ticket.looks_again {
                continue;
            }
            let gap = asked(Some(slice), parts, start, parts.len);
            let mut filler = Filler {
                shared: Arc::clone(&self.shared),
                fetcher: Exclusive::new(Some(fetcher)),
                request: self.request.clone(),
                snapshot: self.snapshot.clone(),
                key: self.key,
                stored: self.stored.clone(),
                parts: Arc::clone(parts),
                end: gap.end,
            };
            // Boxed, since the task of a slice would contain the one of the next otherwise.
            let fetching: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                let _flight = flight;
                let flight = ticket.token();
                let mut context = FetchContext { is_led: true, flight, ..FetchContext::unshared() };
                let Ok((mut piece, outcome)) = filler.fetch(gap, start, None, &mut context).await else {
                    return;
                };
                ticket.publish(outcome, true);
                while let Some(Ok(_)) = poll_fn(|cx| piece.source.poll_frame(cx)).await {}
            });
            self.shared.records.tasks.spawn(fetching);
        }
    }

    /// Returns the stored parts, to which others may have been added since the response began, and the stamp of their record.
    ///
    /// What is fetched from now on is added to them.
    async fn current_parts(&mut self) -> (Arc<Parts>, Option<Stamp>) {
        let Self { shared, request, snapshot, key, stored, parts, .. } = self;
        if let Some(uri) = shared.config.identify(request) {
            // Boxed, since the body of a response would have room for all of a lookup.
            let looking = Box::pin(shared.records.find(snapshot.own().head, &uri, request));
            if let (current, Found::Candidate(at, record)) = looking.await
                && let Some(variant) = variant_in(&record)
                && let Some(found) = variant.response.body().as_parts()
                && found.len == parts.len
                && policy::is_same_representation(&variant.response.headers, &stored.headers)
            {
                (*snapshot, *key) = (current, at);
                return (found.into_owned(), Some(record.stamp()));
            }
        }
        (Arc::clone(parts), None)
    }

    /// Asks the origin for missing bytes, of which those from an offset on are wanted.
    async fn fetch(
        &mut self,
        gap: Range<u64>,
        offset: u64,
        stamp: Option<Stamp>,
        context: &mut FetchContext<S>,
    ) -> Result<(Piece, FlightOutcome<S>), BodyError> {
        let Self { shared, fetcher, request, snapshot, key, stored, end, .. } = self;
        let Some(fetcher) = fetcher.get_mut() else {
            return Err(BodyError::new(BodyErrorKind::Storage, None::<Error>));
        };
        let body = fetcher.repeated_body();
        match ask(shared, fetcher, request, body, stored, self.parts.len, gap.clone()).await {
            Ok(Sent::Bytes(response, times)) => {
                let (of_gap, wanted) = (request_for(request, stored, gap.clone()), offset..*end);
                let storing = store_piece(
                    shared, fetcher, &of_gap, snapshot, stored, &wanted, gap.start, response, times, context,
                );
                let fetched = storing.await;
                Ok((fetched.piece, fetched.flight_outcome))
            }
            Ok(Sent::Other(response, _)) if response.status() != StatusCode::OK => {
                let message = format!("the origin answered with {}", response.status());
                Err(BodyError::new(BodyErrorKind::Changed, Some(Error::new(ErrorKind::Other, message))))
            }
            Ok(Sent::Other(..) | Sent::Unusable) => {
                if let Some(stamp) = stamp {
                    let reads_only = shared.config.directives(request).read_only;
                    shared.records.put_out_of_use(*key, stamp, reads_only);
                }
                Err(BodyError::new(BodyErrorKind::Changed, None::<Error>))
            }
            // The error of the inner service need not be one that can be shared.
            Err(_) => {
                let message = "the origin could not be asked for the rest of the body";
                Err(BodyError::new(BodyErrorKind::Inner, Some(Error::new(ErrorKind::Other, message))))
            }
        }
    }
}

impl<S: Storage, F: Fetcher + 'static> Pieces for Filler<S, F> {
    async fn open(&mut self, offset: u64, avoids_storage: bool) -> Result<Piece, BodyError> {
        let slices = self.shared.config.slices;
        for _ in 0..MAX_FLIGHTS {
            // Before the storage is read, as in every lookup: a part that is stored after it ends a flight.
            let ended_flights = self.shared.flights.ended_flights();
            let (parts, stamp) = self.current_parts().await;
            if self.shared.config.prefetch > 0 && !parts.runs().is_empty() {
                self.prefetch(offset, &parts, ended_flights);
            }
            let gap = match parts.run_at(offset) {
                Some(run) => {
                    let wanted = offset..run.range.end.min(self.end);
                    let records = &self.shared.records;
                    // The reader does not put the record out of use, so that its stamp does not matter.
                    let at = RecordRef { key: self.key, stamp: stamp.unwrap_or_else(Stamp::random) };
                    if !avoids_storage
                        && let Some(source) =
                            ChunkReader::open_part(records, at, &run.extent, wanted.clone()).await
                    {
                        return Ok(Piece { source, is_stored: true, end: wanted.end });
                    }
                    // The storage has lost bytes here, and may have the ones after them.
                    let lost = offset..wanted.end.min(offset.saturating_add(REFETCHED));
                    return Ok(self.fetch(lost, offset, stamp, &mut FetchContext::unshared()).await?.0);
                }
                None => asked(slices, &parts, offset, self.end),
            };
            let Some(slice) = slices.filter(|_| Handle::try_current().is_ok()) else {
                return Ok(self.fetch(gap, offset, stamp, &mut FetchContext::unshared()).await?.0);
            };
            let key = key_of_slice(self.snapshot.head, offset / slice);
            let joined =
                self.shared.flights.join((key, key), None, ended_flights, true, FlightOutcome::is_joinable);
            match joined {
                Joined::Lead(_flight, mut ticket) => {
                    // A part may have been stored since the read. Nothing else fetches the slice meanwhile, so that this look
                    // is the last one, however many flights of the entry end.
                    if ticket.looks_again && self.current_parts().await.0.run_at(offset).is_some() {
                        continue;
                    }
                    let (is_led, flight) = (true, ticket.token());
                    let mut context = FetchContext { is_led, flight, ..FetchContext::unshared() };
                    let (piece, flight_outcome) = self.fetch(gap, offset, stamp, &mut context).await?;
                    ticket.publish(flight_outcome, true);
                    return Ok(piece);
                }
                Joined::Follow(flight) => {
                    let until = after(self.shared.config.coalesce_timeout);
                    let following = async {
                        if let FlightOutcome::Streaming(download) = flight.outcome().await {
                            let token = Arc::clone(&flight);
                            if let Some(reader) = Reader::follower(download, token, 0, None) {
                                reader.drain().await;
                            }
                        }
                    };
                    let _ = timeout_at(until, following).await;
                    flight.retire();
                }
                Joined::Independent => {}
            }
        }
        let (parts, stamp) = self.current_parts().await;
        let gap = asked(slices, &parts, offset, self.end);
        Ok(self.fetch(gap, offset, stamp, &mut FetchContext::unshared()).await?.0)
    }
}
