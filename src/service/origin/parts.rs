//! Stores partial responses, and asks the origin for the bytes that are missing.
//!
//! # Invariants
//!
//! - Bytes are combined only if they belong to the same representation, by a strong validator and its complete length
//!   (RFC 9110 §15.3.7.3, RFC 9111 §3.4).
//! - The origin is asked for missing bytes only on condition that the representation is still the same (If-Range). A response
//!   that has begun ends with an error if it is not.
//! - Only bytes that are missing are asked for.

use std::ops::Range;
use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request, response,
};
use http_body::Body;

use super::conditional::{ends_stored_response, outdate_behind_range};
use super::fetcher::{Fetcher, send};
use super::filler::{Fetched, Filler, piece_of, store_piece};
use super::response::{Begun, filter_and_join, store, store_and_respond};
use super::resume::resumable;
use super::{ConditionalOutcome, FetchContext, FetchResult, Need, Times};
use crate::body::{BodyError, BodyErrorKind, CacheBody, Source};
use crate::control::{MissReason, Outcome, Stored};
use crate::entry::{Parts, StoredResponse};
use crate::error::Error;
use crate::policy::{self, NotStored};
use crate::service::body::{self, ChunkReader, Piece, Pieces, RecordRef};
use crate::service::coalesce::FlightOutcome;
use crate::service::records::{Part, Snapshot, is_by_content, variant_in};
use crate::service::respond::{self, RequestView, stored_status};
use crate::service::shared::Shared;
use crate::storage::{Key, Kind, Record, Storage};

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
pub(super) fn key_of_slice(head: Key, number: u64) -> Key {
    head.sibling(Kind::Chunk, [0; 16], number as u32)
}

/// Returns the missing bytes that are asked for in one request, the first of which is at an offset.
///
/// They are those before the next stored part and within the wanted range, or within the slice.
pub(super) fn asked(slices: Option<u64>, parts: &Parts, offset: u64, wanted_end: u64) -> Range<u64> {
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
pub(super) enum Sent<B> {
    /// The bytes of the same representation, from the first missing one on.
    Bytes(Response<B>, Times),
    /// Another response.
    Other(Response<B>, Times),
    /// The stored parts belong to a representation that the origin does not have any more, or its answer is not one.
    Unusable,
}

/// Asks the origin for a range of a stored response.
pub(super) async fn ask<S: Storage, F: Fetcher>(
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
pub(super) fn request_for(
    request: &request::Parts,
    stored: &StoredResponse,
    range: Range<u64>,
) -> request::Parts {
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
            let (is_success, code) = (response.status().is_success(), Some(response.status().as_u16()));
            let fetched =
                store_and_respond(shared, request, Some(snapshot.clone()), response, times, outcome, context);
            if is_success && ends_stored_response(&fetched.response) {
                shared.records.put_out_of_use(key, record.stamp(), reads_only);
            }
            outdate_behind_range(shared, key, stored, times, code, &fetched.response);
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
    status.partial = stored.body().partial();
    let pieces =
        Filler::new(shared, background, request, snapshot, key, stored, Arc::clone(parts), wanted.end);
    let source = pieces.reader(wanted, Some((offset, piece)));
    let (view, len) = (RequestView::of(request), stored.body().len());
    let response = respond::from_source(shared, view, &confirmed, len, Some(source), status);
    Ok(ConditionalOutcome::Done(FetchResult::new(response, flight_outcome)))
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
    status.set_age(stored.freshness(shared.records.number, &shared.config.policy).age(now));
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
            let (key, none) = (download.writer.target_key(), Arc::new(Parts::none(complete)));
            let pieces =
                Filler::new(shared, Some(background), request, snapshot, key, &stored, none, wanted.end);
            Some(pieces.reader(wanted, first))
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
    status.partial = stored.body().partial();
    let (len, parts) = (parts.len, parts.into_owned());
    let pieces = Filler::new(shared, Some(fetcher), request, snapshot, key, stored, parts, wanted.end);
    let source = pieces.reader(wanted, Some(first));
    Some(respond::from_source(shared, RequestView::of(request), stored, len, Some(source), status))
}

/// Answers a request for several ranges, of which some bytes are stored, and fetches the others.
///
/// The first byte is read before the response begins. Returns `None` if that fails, so that the origin has to be asked for all.
pub(crate) async fn ranges_from_stored<S: Storage, F: Fetcher + 'static>(
    shared: &Arc<Shared<S>>,
    fetcher: F,
    request: &request::Parts,
    snapshot: &Snapshot,
    (key, record, ranges): (Key, &Record, &[Range<u64>]),
) -> Option<Response<CacheBody<F::Body>>> {
    let stored = &variant_in(record)?.response;
    let (parts, first) = (stored.body().parts()?, ranges.first()?.clone());
    let mut all =
        Filler::new(shared, Some(fetcher), request, snapshot, key, stored, Arc::clone(parts), parts.len);
    let mut of_first = all.for_range(first.end)?;
    let piece = of_first.open(first.start, false).await.ok()?;
    let mut reader = Some(of_first.reader(first.clone(), Some((first.start, piece))));
    let open = move |range: Range<u64>| match reader.take() {
        Some(reader) => Ok(body::Part::Source(reader)),
        None => {
            let of_range = all.for_range(range.end);
            let of_range = of_range.ok_or_else(|| BodyError::new(BodyErrorKind::Storage, None::<Error>))?;
            Ok(body::Part::Source(of_range.reader(range, None)))
        }
    };
    let now = shared.config.clock.now();
    let freshness = stored.freshness(shared.records.number, &shared.config.policy);
    let outcome = Outcome::Miss(MissReason::Partial);
    let mut status = stored_status(outcome, Stored::Unchanged, &freshness, now);
    status.partial = stored.body().partial();
    respond::from_ranges(shared, RequestView::of(request), stored, open, status)
}
