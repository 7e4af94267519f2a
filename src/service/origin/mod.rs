//! Sends requests to the origin, and decides whether their responses are stored.
//!
//! [`exchange`] sends one request for what a lookup said is needed, and returns an [`Obtained`]: the response for the
//! caller, and the outcome for the followers of its flight. It decides nothing about other requests and never starts
//! another round.
//!
//! # Invariants
//!
//! - The inner service is called in one place, [`fetcher::send`]; its error reaches the caller untouched.
//! - Whether a response may be stored is decided in one place, `response::assess`, for a new response as for one that a
//!   304 freshens.
//! - A response is stored only where the snapshot of its own request looked.
//!
//! # Neighbours
//!
//! Calls `coalesce` for the type of an outcome, `body`, `records` and `respond`. Called by `request`.

mod conditional;
mod fetcher;
mod filler;
mod parts;
mod response;
mod resume;
mod unsafe_request;

use std::ops::Range;
use std::sync::{Arc, Weak};

use http::{Request, Response, request};

pub(super) use self::conditional::stale_on_error;
pub(crate) use self::fetcher::Fetcher;
#[cfg(feature = "reqwest")]
pub(crate) use self::fetcher::Unstorable;
pub(super) use self::fetcher::{Answered, ServiceFetcher, send};
pub(super) use self::parts::{from_stored, ranges_from_stored, slice_key};
pub(super) use self::response::may_store_for;
pub(crate) use self::unsafe_request::forward_unsafe;
pub(super) use self::unsafe_request::respond_unstored;
use super::coalesce::{FlightOutcome, Ticket};
use super::records::{Lease, Snapshot};
use super::shared::Shared;
use crate::body::CacheBody;
use crate::control::{MissReason, Outcome};
use crate::policy::{self, ValidateReason};
use crate::storage::{Key, Record, Stamp, Storage};
use crate::time::Timestamp;

/// Tells what a request needs from the origin.
#[derive(Clone, Debug)]
pub(super) enum Need {
    /// A response, since no stored one can be used.
    Fetch(MissReason),
    /// A response, or a 304 that names one of the entry's stored responses.
    Select,
    /// The bytes of a stored response that are missing in this range. The response is in this record.
    Complete(Key, Record, Range<u64>),
    /// A response, or a 304 that confirms the stored response in this record.
    Validate(Key, Record, ValidateReason),
}

/// Tells for which requests the origin is asked.
pub(super) struct FetchContext<S: Storage> {
    /// The request leads a flight. Its own conditions must not reach the origin, since the response answers other requests.
    pub(super) is_led: bool,
    /// The conditions and the range are not sent, but evaluated on the whole response.
    pub(super) strips_conditions: bool,
    /// The response is only for the storage. No caller waits for it.
    pub(super) is_background: bool,
    /// Keeps other processes from fetching for the same key until it is dropped.
    pub(super) lease: Option<Box<Lease<S>>>,
    /// The flight, which each follower holds. Weak, since the flight holds the future that holds this: a strong reference
    /// would be a cycle, so that neither would be dropped.
    pub(super) flight: Weak<dyn Send + Sync>,
}

impl<S: Storage> FetchContext<S> {
    /// Returns the context of a request without followers.
    pub(super) fn unshared() -> Self {
        let flight: Weak<()> = Weak::new();
        Self { is_led: false, strips_conditions: false, is_background: false, lease: None, flight }
    }

    /// Returns whether another request than the leader waits for the response.
    fn is_followed(&self) -> bool {
        // One reference is the leader's. A follower that joins after this still gets the same response.
        self.flight.strong_count() > 1
    }
}

/// The result of an exchange with the origin.
pub(super) struct FetchResult<S: Storage, B> {
    pub(super) response: Response<CacheBody<B>>,
    /// The outcome for the followers of the request.
    pub(super) flight_outcome: FlightOutcome<S>,
    /// The stamp of the placeholder that will be written, if one is needed.
    ///
    /// It is written at the key of the lookup while a body is being stored.
    pub(super) placeholder: Option<Stamp>,
}

impl<S: Storage, B> FetchResult<S, B> {
    /// Returns the result of an exchange that needs no placeholder.
    fn new(response: Response<CacheBody<B>>, flight_outcome: FlightOutcome<S>) -> Self {
        Self { response, flight_outcome, placeholder: None }
    }
}

/// The times at which a request was sent and the head of its response arrived.
#[derive(Clone, Copy, Debug)]
struct Times {
    requested: Timestamp,
    responded: Timestamp,
}

/// Tells how a conditional request has ended.
#[allow(clippy::large_enum_variant)] // moved once; a box would cost each response an allocation
enum ConditionalOutcome<S: Storage, B> {
    /// The request is answered.
    Done(FetchResult<S, B>),
    /// The 304 is about a response that is not stored, or is no longer stored. The response itself has to be fetched.
    Fetch(MissReason),
}

/// Sends a request to the origin, and stores the response if it may be stored.
///
/// `body` is the request's own, unless the cache sends the request. `snapshot` says where it may be stored, and is taken when it is; `None` if the storage failed, so that it is not known
/// what is there.
pub(super) async fn exchange<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    request: &request::Parts,
    mut body: Option<F::RequestBody>,
    mut snapshot: Option<&mut Snapshot>,
    need: &Need,
    context: &mut FetchContext<S>,
) -> Result<FetchResult<S, F::Body>, F::Error> {
    // Whatever the need is, the response may turn out to be for its own query alone. If the reservation fails, so does the
    // write that is compared with it.
    if shared.config.reserve_on_miss
        && let Some(own) = snapshot.as_deref_mut().and_then(Snapshot::own_mut)
        && !shared.config.directives(request).read_only
    {
        Box::pin(shared.records.reserve(own, |_| ())).await;
    }
    // The conditional requests are boxed, so that the future of a plain fetch has no room for them. Nor has it for their
    // outcome, which ends with this block.
    let reason = {
        let conditional = match (need, snapshot.as_deref()) {
            (Need::Validate(key, record, reason), Some(snapshot)) => {
                let about = (*key, record, *reason);
                Box::pin(conditional::validate(shared, fetcher, request, &mut body, snapshot, about, context))
                    .await?
            }
            (Need::Complete(key, record, wanted), Some(snapshot)) => {
                let about = (*key, record, wanted.clone());
                Box::pin(parts::complete(shared, fetcher, request, &mut body, snapshot, about, context))
                    .await?
            }
            (Need::Select, Some(snapshot)) => {
                Box::pin(conditional::select(shared, fetcher, request, &mut body, snapshot, context)).await?
            }
            (Need::Fetch(reason), Some(snapshot)) if shared.config.slices.is_some() => {
                match parts::first_slice(shared, request, &snapshot.head, need) {
                    Some(slice) => {
                        let about = (slice, *reason);
                        let fetching =
                            parts::fetch_slice(shared, fetcher, request, &mut body, snapshot, about, context);
                        Box::pin(fetching).await?
                    }
                    None => ConditionalOutcome::Fetch(*reason),
                }
            }
            (Need::Fetch(reason), _) => ConditionalOutcome::Fetch(*reason),
            (_, None) => ConditionalOutcome::Fetch(MissReason::StorageFailed),
        };
        match conditional {
            ConditionalOutcome::Done(fetched) => return Ok(fetched),
            ConditionalOutcome::Fetch(reason) => reason,
        }
    };
    let requested = shared.config.clock.now();
    // A conditional request has taken the body.
    let body = body.unwrap_or_else(|| fetcher.repeated_body());
    let sending = {
        let mut parts = request.clone();
        if context.strips_conditions {
            // They are evaluated on the whole response afterwards, separately for the caller and for each follower.
            policy::strip_conditions(&mut parts.headers);
        }
        send(shared, fetcher, Request::from_parts(parts, body))
    };
    let response = sending.await?;
    let times = Times { requested, responded: shared.config.clock.now() };
    let response = match response::needs_filter_or_join(shared, request, response.headers()) {
        true => {
            let joining =
                response::filter_and_join(shared, request, snapshot.as_deref(), requested, response);
            Box::pin(joining).await
        }
        false => response,
    };
    let response = match response::waits_for_room(shared, snapshot.as_deref()) {
        true => Box::pin(response::wait_for_room(shared, request, requested, response, context)).await,
        false => response,
    };
    let (snapshot, outcome) = (snapshot.map(Snapshot::take), Outcome::Miss(reason));
    let response = resume::resumable(shared, fetcher, request, response);
    Ok(response::store_and_respond(shared, request, snapshot, response, times, outcome, context))
}

/// Publishes the result of an exchange, and returns the response for the caller.
pub(super) fn publish<S: Storage, B, E>(
    ticket: &mut Ticket<S>,
    result: Result<FetchResult<S, B>, E>,
) -> Result<Response<CacheBody<B>>, E> {
    match result {
        Ok(FetchResult { response, flight_outcome, placeholder }) => {
            if let Some(stamp) = placeholder {
                ticket.add_seen(stamp);
            }
            let stays = matches!(flight_outcome, FlightOutcome::Streaming(_));
            ticket.publish(flight_outcome, stays);
            Ok(response)
        }
        Err(error) => {
            ticket.publish(FlightOutcome::Failed(None), false);
            Err(error)
        }
    }
}
