//! Opens the pieces of a response one after another: those that are stored, and those that the origin is asked for.
//!
//! # Invariants
//!
//! - A piece is asked for when its reader has come to it, or as one of the slices that are fetched before that.
//! - Of the requests that want a slice at the same time, one fetches it, and the others read what it stores.
//! - What is fetched is added to the parts that are stored by then.

use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{Response, StatusCode, request};
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout_at;

use super::fetcher::Fetcher;
use super::parts::{Sent, ask, asked, key_of_slice, request_for};
use super::response::{Begun, filter_and_join, store};
use super::resume::resumable;
use super::{FetchContext, Times};
use crate::body::{BodyError, BodyErrorKind, CacheBody, Exclusive, Source};
use crate::control::{CacheStatus, MissReason, Outcome, Stored};
use crate::entry::{Parts, StoredResponse};
use crate::error::{Error, ErrorKind};
use crate::policy;
use crate::service::body::{ChunkReader, Download, Piece, Pieces, Reader, RecordRef, Stitched};
use crate::service::coalesce::{FlightOutcome, Joined};
use crate::service::records::{Found, Snapshot, variant_in};
use crate::service::shared::Shared;
use crate::service::tasks::after;
use crate::storage::{Key, Stamp, Storage};

/// A piece from the origin.
pub(super) struct Fetched<S: Storage> {
    pub(super) piece: Piece,
    /// Where it begins.
    pub(super) offset: u64,
    /// The head of the representation, as its newest response describes it.
    pub(super) confirmed: StoredResponse,
    pub(super) stores: Stored,
    pub(super) flight_outcome: FlightOutcome<S>,
}

/// Begins to store the bytes of a missing range, and returns a reader of those among them that are wanted.
///
/// The range begins at an offset.
#[allow(clippy::too_many_arguments)]
pub(super) async fn store_piece<S: Storage, F: Fetcher>(
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
pub(super) fn piece_of<S: Storage>(
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
pub(super) struct Filler<S: Storage, F: Fetcher> {
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
    /// Returns the pieces of the response in the record at a key, up to the end of the wanted bytes.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        shared: &Arc<Shared<S>>,
        fetcher: Option<F>,
        request: &request::Parts,
        snapshot: &Snapshot,
        key: Key,
        stored: &StoredResponse,
        parts: Arc<Parts>,
        end: u64,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            fetcher: Exclusive::new(fetcher),
            request: request.clone(),
            snapshot: snapshot.clone(),
            key,
            stored: stored.clone(),
            parts,
            end,
        }
    }

    /// Returns the pieces of another range of the same response.
    ///
    /// Returns `None` if no further request can be sent.
    pub(super) fn for_range(&mut self, end: u64) -> Option<Filler<S, F::Background>> {
        let background = self.fetcher.get_mut().as_ref()?.background()?;
        let Self { shared, request, snapshot, key, stored, parts, .. } = self;
        Some(Filler::new(shared, Some(background), request, snapshot, *key, stored, Arc::clone(parts), end))
    }

    /// Returns a reader of a range, and of a piece that was opened already with the offset where it begins.
    ///
    /// It counts its bytes itself, by where they come from.
    pub(super) fn reader(self, wanted: Range<u64>, first: Option<(u64, Piece)>) -> Box<dyn Source> {
        let observer = &self.shared.observer;
        let counter = |outcome| observer.byte_counter(&CacheStatus::new(outcome, Stored::Unchanged));
        let (stored, fetched) = (counter(Outcome::Hit), counter(Outcome::Miss(MissReason::Partial)));
        Box::new(Stitched::new(self, wanted, first).counting(stored, fetched))
    }

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
            let key = key_of_slice(self.snapshot.head, start / slice);
            let flights = &self.shared.flights;
            let joined = flights.join((key, key), None, ended_flights, true, FlightOutcome::is_joinable);
            let Joined::Lead(flight, mut ticket) = joined else { continue };
            // It may have been stored since the parts were read.
            if ticket.looks_again {
                continue;
            }
            let gap = asked(Some(slice), parts, start, parts.len);
            let Some(mut filler) = self.for_range(gap.end) else { return };
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
    /// Later fetches add to them.
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
