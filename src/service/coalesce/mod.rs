//! One fetch that several requests share.
//!
//! [`flight`] is the mechanism, which knows nothing of HTTP. [`Landed`] is what a flight of this cache brings to its
//! followers. How a request joins one, and whether an outcome answers it, is decided in `request`.
//!
//! # Neighbours
//!
//! Calls `body` and `records`, for the types of an outcome alone.

mod flight;

use std::sync::Arc;

pub(super) use self::flight::{Flight, Joined, Seen};
use super::body::Download;
use crate::policy::NotStored;
use crate::storage::{Key, Record, Storage};

/// The outcome of a fetch, for its followers.
#[derive(Default)]
pub(crate) enum Landed<S: Storage> {
    /// A response that is being stored; it may answer other requests, which read it while it comes.
    Streaming(Arc<Download<S>>),
    /// The stored response was freshened.
    Freshened(Key, Record),
    /// A response was stored meanwhile: a follower finds it by another lookup.
    Look,
    /// The origin could not be reached, or answered with an error (of this status).
    Failed(Option<u16>),
    /// The response is for its caller alone, by its own word.
    Private,
    /// The response is for its caller alone, for this reason, which is its request's fault.
    OfRequest(NotStored),
    /// The leader went away.
    #[default]
    Abandoned,
}

pub(crate) type Flights<S> = flight::Flights<Landed<S>>;
pub(super) type Ticket<S> = flight::Ticket<Landed<S>>;

impl<S: Storage> Landed<S> {
    /// Returns whether a request that comes now can still read this from its beginning.
    pub(super) fn is_joinable(&self) -> bool {
        matches!(self, Self::Streaming(download) if download.may_be_open())
    }
}

impl<S: Storage> Clone for Landed<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Streaming(download) => Self::Streaming(Arc::clone(download)),
            Self::Freshened(key, record) => Self::Freshened(*key, record.clone()),
            Self::Look => Self::Look,
            Self::Failed(status) => Self::Failed(*status),
            Self::Private => Self::Private,
            Self::OfRequest(reason) => Self::OfRequest(*reason),
            Self::Abandoned => Self::Abandoned,
        }
    }
}
