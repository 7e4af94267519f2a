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
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request, response};
use http_body::{Body, Frame, SizeHint};

use super::fetcher::{Fetcher, send};
use super::response::{Begun, filter_and_join, store, store_and_respond};
use super::{ConditionalOutcome, FetchContext, FetchResult, Times};
use crate::body::{BodyError, BodyErrorKind, CacheBody, Exclusive, Source};
use crate::control::{MissReason, Outcome, Stored};
use crate::entry::{Parts, StoredResponse};
use crate::error::{Error, ErrorKind};
use crate::policy::{self, NotStored};
use crate::service::body::{ChunkReader, Piece, Pieces, RecordRef, Stitched};
use crate::service::coalesce::FlightOutcome;
use crate::service::records::{Part, Snapshot, is_by_content, variant_in};
use crate::service::respond::{self, RequestView, stored_status};
use crate::service::shared::Shared;
use crate::storage::{Key, Record, Storage};

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
            Some(parts.clone())
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

/// What the origin has sent for a missing range.
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
            let continues = sent.is_some_and(|(_, complete)| complete == stored.body().len())
                && policy::continues(&stored.headers, &head.headers);
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

/// Adds the fields that a 206 to a request with If-Range leaves out, since its client has them (RFC 9110 §15.3.7).
fn complete_from(headers: &mut HeaderMap, stored: &HeaderMap) {
    for name in [header::ETAG, header::LAST_MODIFIED, header::CONTENT_ENCODING, header::CONTENT_TYPE] {
        if let (false, Some(value)) = (headers.contains_key(&name), stored.get(&name)) {
            headers.insert(name, value.clone());
        }
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
    let Some(mut gap) = parts.first_gap(wanted.clone()) else { return again(MissReason::BodyGone) };
    let background = fetcher.background();
    // Further gaps could not be asked for, so that this request asks for all that follows.
    if background.is_none() {
        gap.end = wanted.end;
    }
    let body = body.take().unwrap_or_else(|| fetcher.repeated_body());
    let (response, times) = match ask(shared, fetcher, request, body, stored, gap.clone()).await? {
        Sent::Bytes(response, times) => (response, times),
        Sent::Other(response, times) => {
            let outcome = Outcome::Miss(MissReason::Partial);
            // A whole response answers the caller's range where that can be done. An error is not about its range.
            context.strips_conditions = response.status() == StatusCode::OK;
            let response = filter_and_join(shared, request, Some(snapshot), times.requested, response).await;
            let fetched =
                store_and_respond(shared, request, Some(snapshot.clone()), response, times, outcome, context);
            return Ok(ConditionalOutcome::Done(fetched));
        }
        Sent::Unusable => {
            shared.records.put_out_of_use(key, record.stamp(), shared.config.directives(request).read_only);
            return again(MissReason::BodyGone);
        }
    };
    let of_gap = request_for(request, stored, gap.clone());
    let code = response.status().as_u16();
    let Fetched { piece, confirmed, stores } =
        store_piece(shared, &of_gap, snapshot, stored, response, times, context).await;
    let freshness = confirmed.freshness(shared.records.number, &shared.config.policy);
    let mut status = stored_status(Outcome::Miss(MissReason::Partial), stores, &freshness, times.responded);
    status.origin_status = Some(code);
    let pieces = Filler {
        shared: Arc::clone(shared),
        fetcher: Exclusive::new(background),
        request: request.clone(),
        snapshot: snapshot.clone(),
        source: RecordRef { key, stamp: record.stamp() },
        stored: stored.clone(),
        parts: Arc::clone(parts),
        end: wanted.end,
    };
    let source = Stitched::new(pieces, wanted, Some((gap.start, piece)));
    let view = RequestView::of(request);
    let response =
        respond::from_source(shared, view, &confirmed, stored.body().len(), Box::new(source), status);
    Ok(ConditionalOutcome::Done(FetchResult::new(response, FlightOutcome::LookAgain)))
}

/// A piece from the origin.
struct Fetched {
    piece: Piece,
    /// The head of the representation, as its newest response describes it.
    confirmed: StoredResponse,
    stores: Stored,
}

/// Begins to store the bytes of a missing range, and returns a reader of them.
async fn store_piece<S: Storage, B>(
    shared: &Arc<Shared<S>>,
    request: &request::Parts,
    snapshot: &Snapshot,
    stored: &StoredResponse,
    response: Response<B>,
    times: Times,
    context: &mut FetchContext<S>,
) -> Fetched
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let response = filter_and_join(shared, request, Some(snapshot), times.requested, response).await;
    let outcome = Outcome::Miss(MissReason::Partial);
    let begun = store(shared, request, Some(snapshot.clone()), response, times, outcome, context);
    let (source, confirmed, stores): (Box<dyn Source>, _, _) = match begun {
        Begun::Unstored { response, status, .. } => {
            let body = Passed(Exclusive::new(Box::pin(CacheBody::inner(response.into_body()))));
            (Box::new(body), stored.clone(), status.stored())
        }
        Begun::Storing { reader, download, status, .. } => {
            (Box::new(reader), download.writer.response().clone(), status.stored())
        }
    };
    Fetched { piece: Piece { source, is_stored: false }, confirmed, stores }
}

/// A body that is not stored.
struct Passed<B>(Exclusive<Pin<Box<CacheBody<B>>>>);

impl<B> Source for Passed<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.get_mut().as_mut().poll_frame(cx)
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
    source: RecordRef,
    stored: StoredResponse,
    /// The parts that were stored when the response began.
    parts: Arc<Parts>,
    /// The end of the wanted bytes.
    end: u64,
}

impl<S: Storage, F: Fetcher> Filler<S, F> {
    /// Returns the stored parts, to which others may have been added since the response began.
    async fn current_parts(&self) -> Arc<Parts> {
        let read = self.shared.records.read_slot(self.source.key, None).await.ok().flatten();
        let current = read.as_ref().and_then(variant_in).and_then(|variant| {
            let parts = variant.response.body().parts()?;
            let is_same = policy::is_same_representation(&variant.response.headers, &self.stored.headers);
            (is_same && parts.len == self.parts.len).then(|| Arc::clone(parts))
        });
        current.unwrap_or_else(|| Arc::clone(&self.parts))
    }
}

impl<S: Storage, F: Fetcher + 'static> Pieces for Filler<S, F> {
    async fn open(&mut self, offset: u64, avoids_storage: bool) -> Result<Piece, BodyError> {
        let parts = self.current_parts().await;
        let wanted = match parts.run_at(offset) {
            Some(run) => {
                let wanted = offset..run.range.end.min(self.end);
                let records = &self.shared.records;
                if !avoids_storage
                    && let Some(source) =
                        ChunkReader::open_part(records, self.source, &run.extent, wanted.clone()).await
                {
                    return Ok(Piece { source, is_stored: true });
                }
                // The storage has lost bytes here, and may have the ones after them.
                offset..wanted.end.min(offset.saturating_add(REFETCHED))
            }
            None => parts.first_gap(offset..self.end).unwrap_or(offset..self.end),
        };
        let Self { shared, fetcher, request, snapshot, source, stored, .. } = self;
        let Some(fetcher) = fetcher.get_mut() else {
            return Err(BodyError::new(BodyErrorKind::Storage, None::<Error>));
        };
        let body = fetcher.repeated_body();
        match ask(shared, fetcher, request, body, stored, wanted.clone()).await {
            Ok(Sent::Bytes(response, times)) => {
                let of_gap = request_for(request, stored, wanted);
                let mut context = FetchContext::unshared();
                let fetched =
                    store_piece(shared, &of_gap, snapshot, stored, response, times, &mut context).await;
                Ok(fetched.piece)
            }
            Ok(Sent::Other(response, _)) if response.status() != StatusCode::OK => {
                let message = format!("the origin answered with {}", response.status());
                Err(BodyError::new(BodyErrorKind::Changed, Some(Error::new(ErrorKind::Other, message))))
            }
            Ok(Sent::Other(..) | Sent::Unusable) => {
                let reads_only = shared.config.directives(request).read_only;
                shared.records.put_out_of_use(source.key, source.stamp, reads_only);
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
