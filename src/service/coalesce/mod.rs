//! Flights: fetches that several requests share.
//!
//! [`flight`] is the mechanism, which knows nothing of HTTP. [`FlightOutcome`] is the outcome that a flight of this cache
//! publishes to its followers. How a request joins a flight, and whether an outcome answers it, is decided in `request`.
//!
//! # Neighbours
//!
//! Uses the types of `body` and `records` in an outcome, and calls neither of them.

mod flight;

use std::sync::Arc;

pub(super) use self::flight::{Flight, Joined, SeenStamp};
use super::body::Download;
use crate::policy::NotStored;
use crate::storage::{Key, Record, Storage};

/// Tells the followers of a flight how its fetch has ended.
#[derive(Default)]
pub(crate) enum FlightOutcome<S: Storage> {
    /// A response is being stored. Followers may read it while it is downloaded.
    Streaming(Arc<Download<S>>),
    /// The stored response was freshened. Its key and its new record.
    Freshened(Key, Record),
    /// A response was stored meanwhile, which a follower finds by another lookup.
    LookAgain,
    /// The origin could not be reached, or answered with an error that has this status.
    Failed(Option<u16>),
    /// The response is only for the leader, for a reason that is not in its request.
    Private,
    /// The response is only for the leader, for this reason in its request.
    RequestSpecific(NotStored),
    /// The fetch has ended without an outcome. For example, the leader was cancelled, or the storage is busy.
    #[default]
    Abandoned,
}

/// The flights of a cache.
pub(crate) type Flights<S> = flight::Flights<FlightOutcome<S>>;
/// The ticket of a flight of a cache.
pub(super) type Ticket<S> = flight::Ticket<FlightOutcome<S>>;

impl<S: Storage> FlightOutcome<S> {
    /// Returns whether a request that arrives now can still read the response from its beginning.
    pub(super) fn is_joinable(&self) -> bool {
        matches!(self, Self::Streaming(download) if download.may_be_open())
    }
}

impl<S: Storage> Clone for FlightOutcome<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Streaming(download) => Self::Streaming(Arc::clone(download)),
            Self::Freshened(key, record) => Self::Freshened(*key, record.clone()),
            Self::LookAgain => Self::LookAgain,
            Self::Failed(status) => Self::Failed(*status),
            Self::Private => Self::Private,
            Self::RequestSpecific(reason) => Self::RequestSpecific(*reason),
            Self::Abandoned => Self::Abandoned,
        }
    }
}
