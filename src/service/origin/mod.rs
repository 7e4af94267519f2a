//! Sends requests to the origin, and decides what their responses mean for the storage and the caller.
//!
//! [`exchange`] sends one request for what a lookup said is needed, and returns an [`Obtained`]: the response for the
//! caller, and the outcome for the followers of its flight. It decides nothing about other requests and never starts
//! another round.
//!
//! # Invariants
//!
//! - The inner service is called in one place, [`fetcher::send`]; its error reaches the caller untouched.
//! - Whether a response may be stored is decided in one place, `response::judge`, for a new response as for one that a
//!   304 freshens.
//! - A response is stored only where the snapshot of its own request looked.
//!
//! # Neighbours
//!
//! Calls `coalesce` for the type of an outcome, `body`, `records` and `respond`. Called by `request`.

mod change;
mod conditional;
mod fetcher;
mod response;

use std::sync::{Arc, Weak};

use http::{Request, Response, request};

pub(crate) use self::change::change;
pub(super) use self::change::pass_on;
pub(super) use self::conditional::stale_on_error;
pub(crate) use self::fetcher::Fetcher;
#[cfg(feature = "reqwest")]
pub(crate) use self::fetcher::Unstorable;
pub(super) use self::fetcher::{Answered, ServiceFetcher, send};
pub(super) use self::response::may_store_for;
use super::coalesce::{Landed, Ticket};
use super::records::{Lease, Snapshot};
use super::shared::Shared;
use crate::body::CacheBody;
use crate::control::{MissReason, Outcome};
use crate::policy::{self, ValidateReason};
use crate::storage::{Key, Record, Stamp, Storage};
use crate::time::Timestamp;

/// Says what a request needs from the origin.
#[derive(Clone, Debug)]
pub(super) enum Need {
    /// A response, since nothing stored can be used.
    Fetch(MissReason),
    /// A response, or a 304 that names one of the entry's stored responses.
    Select,
    /// A response, or a 304 that confirms the stored response in this record.
    Validate(Key, Record, ValidateReason),
}

/// Says on whose behalf a request is sent.
pub(super) struct Errand<S: Storage> {
    /// The caller leads a flight. Its own conditions must not reach the origin, since the response answers others too.
    pub(super) is_led: bool,
    /// The caller's conditions and range are not sent, but evaluated on the whole response.
    pub(super) narrows: bool,
    /// The response is for the storage alone: no caller waits for it.
    pub(super) is_background: bool,
    /// Keeps other processes from fetching the same, until it is dropped.
    pub(super) lease: Option<Lease<S>>,
    /// The flight, which each follower holds. Weak, since the flight holds the future that holds this: a strong reference
    /// would keep both for ever.
    pub(super) flight: Weak<dyn Send + Sync>,
}

impl<S: Storage> Errand<S> {
    /// Returns the errand of a request without followers.
    pub(super) fn alone() -> Self {
        let flight: Weak<()> = Weak::new();
        Self { is_led: false, narrows: false, is_background: false, lease: None, flight }
    }

    /// Returns whether other requests than the leader's wait for the response.
    fn is_followed(&self) -> bool {
        // The leader holds the flight as well. One that joins a moment later gets the same response all the same.
        self.flight.strong_count() > 1
    }
}

/// Holds what an exchange has brought.
pub(super) struct Obtained<S: Storage, B> {
    pub(super) response: Response<CacheBody<B>>,
    /// The outcome for the followers.
    pub(super) landed: Landed<S>,
    /// The stamp of the placeholder that is about to be at the key of the lookup, if one is needed. `None` if no body is
    /// being stored.
    pub(super) puts: Option<Stamp>,
}

impl<S: Storage, B> Obtained<S, B> {
    fn new(response: Response<CacheBody<B>>, landed: Landed<S>) -> Self {
        Self { response, landed, puts: None }
    }
}

/// Holds when a request was sent and when the head of its response came.
#[derive(Clone, Copy, Debug)]
struct Times {
    requested: Timestamp,
    responded: Timestamp,
}

/// Says how a conditional request has ended.
#[allow(clippy::large_enum_variant)] // moved once; a box would cost each response an allocation
enum ConditionalOutcome<S: Storage, B> {
    Done(Obtained<S, B>),
    /// Its 304 is about a response that is not stored (any more): the response itself is needed.
    Fetch(MissReason),
}

/// Sends a request for what is needed, and stores the response if it may be stored.
///
/// `snapshot` says where it may be stored; `None` if the storage failed, so that it is not known what is there.
pub(super) async fn exchange<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    mut fetcher: F,
    parts: request::Parts,
    body: F::RequestBody,
    snapshot: Option<Snapshot>,
    need: Need,
    mut errand: Errand<S>,
) -> Result<Obtained<S, F::Body>, F::Error> {
    let mut body = Some(body);
    let reason = match (need, &snapshot) {
        (Need::Validate(key, record, reason), Some(snapshot)) => {
            let about = (key, &record, reason);
            match conditional::validate(shared, &mut fetcher, &parts, &mut body, snapshot, about, &mut errand)
                .await?
            {
                ConditionalOutcome::Done(obtained) => return Ok(obtained),
                ConditionalOutcome::Fetch(reason) => reason,
            }
        }
        (Need::Select, Some(snapshot)) => {
            match conditional::select(shared, &mut fetcher, &parts, &mut body, snapshot, &mut errand).await? {
                ConditionalOutcome::Done(obtained) => return Ok(obtained),
                ConditionalOutcome::Fetch(reason) => reason,
            }
        }
        (Need::Fetch(reason), _) => reason,
        (_, None) => MissReason::StorageFailed,
    };
    let asked = parts.clone();
    let mut parts = parts;
    if errand.narrows {
        // They are evaluated on the whole response afterwards, for the caller and for each follower.
        policy::strip_conditions(&mut parts.headers);
    }
    // A conditional request has taken the body.
    let body = body.unwrap_or_else(|| fetcher.again());
    let requested = shared.config.clock.now();
    let response = send(shared, &mut fetcher, Request::from_parts(parts, body)).await?;
    let times = Times { requested, responded: shared.config.clock.now() };
    let response = response::admit(shared, &asked, snapshot.as_ref(), requested, response).await;
    Ok(response::accept(shared, &asked, snapshot, response, times, Outcome::Miss(reason), &mut errand))
}

/// Publishes what came of an exchange to those who follow, and returns what is its caller's.
pub(super) fn publish<S: Storage, B, E>(
    ticket: Ticket<S>,
    result: Result<Obtained<S, B>, E>,
) -> Result<Response<CacheBody<B>>, E> {
    match result {
        Ok(Obtained { response, landed, puts }) => {
            if let Some(stamp) = puts {
                ticket.add_seen(stamp);
            }
            let stays = matches!(landed, Landed::Streaming(_));
            ticket.publish(landed, stays);
            Ok(response)
        }
        Err(error) => {
            ticket.publish(Landed::Failed(None), false);
            Err(error)
        }
    }
}
