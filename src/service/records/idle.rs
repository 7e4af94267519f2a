//! Drops the responses that no request has used for a while.
//!
//! The retention time of a head or variant record is the time at which its response becomes idle. It is set when the record is
//! written, and moved by uses, so that every storage drops idle records by itself, and no storage has to note uses.
//!
//! # Invariants
//!
//! - An idle response is not served, even if the storage still has it.
//! - A response that was used is not idle before `default_tti` has passed, and is idle after a quarter more.
//! - No request waits for a retention time to be moved. At most [`MAX_MOVES`] of them are moved at once, and one for a record.
//! - No record is retained longer than the chunks that it names, and no variant longer than its head.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Records;
use super::lookup::variant_in;
use crate::entry::{GRACE, Head};
use crate::error::Result;
use crate::storage::{Key, Record, Retain, Storage};
use crate::time::Timestamp;

/// Bounds the work that a burst of uses causes. A use beyond it is not lost as long as the next one comes in time.
const MAX_MOVES: usize = 256;

/// The records whose retention times are being moved.
#[derive(Debug, Default)]
pub(super) struct Moves(Mutex<HashSet<Key>>);

/// Marks a record as being moved until it is dropped.
struct Moving<S: Storage> {
    records: Arc<Records<S>>,
    key: Key,
}

impl<S: Storage> Moving<S> {
    fn begin(records: &Arc<Records<S>>, key: Key) -> Option<Self> {
        // A std `Mutex`, held for one operation on the set. The bound is checked under it, so that it holds exactly.
        let mut moving = records.moves.0.lock().unwrap_or_else(PoisonError::into_inner);
        (moving.len() < MAX_MOVES && moving.insert(key)).then(|| Self { records: Arc::clone(records), key })
    }
}

impl<S: Storage> Drop for Moving<S> {
    fn drop(&mut self) {
        self.records.moves.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Returns a use's time to idle with a margin, so that not every use moves a retention time.
fn with_margin(idle: Duration) -> Duration {
    idle.saturating_add(idle / 4)
}

impl<S: Storage> Records<S> {
    /// Returns until when a record is retained that is written now, and could be used until a time.
    pub(crate) fn limited_by_idleness(&self, until: Timestamp) -> Timestamp {
        match self.config.default_tti {
            Some(idle) => until.min(self.config.clock.now() + with_margin(idle)),
            None => until,
        }
    }

    /// Returns whether the response of a head is idle although its record is retained.
    ///
    /// After an invalidation the record is retained for the fence, so that uses within this time are not known. It is idle
    /// then by the time at which it was received.
    pub(crate) fn is_idle_behind_fence(&self, record: &Record, head: &Head, now: Timestamp) -> bool {
        self.config.default_tti.is_some_and(|idle| {
            record.retain_until() <= head.fence
                && head.inline.response.response_time + with_margin(idle) <= now
        })
    }

    /// Retains a head at least until a time, since a variant needs it.
    ///
    /// Its own body is kept as long, since it can be served as long as its record.
    pub(crate) async fn retain_head(&self, key: Key, head: &Record, until: Timestamp) -> Result<()> {
        if let Some(variant) = variant_in(head).filter(|_| self.config.default_tti.is_some()) {
            let needed = Retain::AtLeast(until.min(variant.until) + GRACE);
            self.retain_chunks(variant.response.body().chunks(key), needed).await?;
        }
        self.storage.retain(&[key], Retain::AtLeast(until)).await.map(drop)
    }

    /// Notes that a response is used, and moves its retention time in the background where that is due.
    ///
    /// `head` is the record of the head by which it was found.
    #[inline]
    pub(crate) fn note_use(
        self: &Arc<Self>,
        (key, record): (Key, &Record),
        head: Option<&Record>,
        until: Timestamp,
        now: Timestamp,
    ) {
        let Some(idle) = self.config.default_tti else { return };
        let needed = until.min(now + idle);
        let is_due = |record: &Record| record.retain_until() < needed;
        if is_due(record) || head.is_some_and(is_due) {
            self.move_retention((key, record), head, until.min(now + with_margin(idle)));
        }
    }

    /// Moves the retention time of a response, its body and its head.
    #[cold]
    fn move_retention(
        self: &Arc<Self>,
        (key, record): (Key, &Record),
        head: Option<&Record>,
        until: Timestamp,
    ) {
        let Some(moving) = Moving::begin(self, key).filter(|_| !self.config.read_only) else { return };
        let (head_key, record) = (Key::head(key.entry), record.clone());
        let head = head.filter(|_| head_key != key).cloned();
        // Polled once here, since a storage in memory needs no task, and no runtime. Without a runtime, another storage is
        // asked again by the next use.
        self.tasks.drive(async move {
            let records = &moving.records;
            // A record that is being written would bring the time along that it had before this use.
            for key in [head_key, key] {
                if let Some(chain) = records.in_flight.chain(key) {
                    chain.over().await;
                }
            }
            // The head first, which must outlive its variants. If the storage fails, all stays as it is.
            if let Some(head) = &head
                && records.retain_head(head_key, head, until).await.is_err()
            {
                return;
            }
            let Some(variant) = variant_in(&record) else { return };
            // The body before the record that names it.
            let chunks = variant.response.body().chunks(head_key);
            if let Ok(true) = records.retain_chunks(chunks, Retain::AtLeast(until + GRACE)).await {
                let _ = records.storage.retain(&[key], Retain::AtLeast(until)).await;
            }
        });
    }
}
