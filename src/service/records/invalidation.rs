//! The invalidation of entries and groups.
//!
//! The head of an entry is overwritten with a tombstone, and the value of a group with a new one.
//!
//! An invalidation is *settled* when the storage has acknowledged the tombstone. Until then it is pending: it is kept in
//! [`PendingInvalidations`](super::pending_invalidations::PendingInvalidations), and tried again.
//!
//! # Invariants
//!
//! - After an invalidation is settled, no process serves a response whose fetch began before it.
//! - While an invalidation is pending, this process neither serves nor stores a response of the entry, and goes on trying.
//! - A tombstone has a new stamp, and is written without comparing, whatever is stored at the key. Every write that is
//!   compared with an earlier record then fails, in every process.
//! - An invalidation that has begun goes on if its caller is cancelled.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use http::{Uri, request};

use super::Records;
use crate::entry::{self, DecodedRecord, TOMBSTONE, decode};
use crate::error::{Error, ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::service::tasks::Driven;
use crate::service::telemetry;
use crate::storage::{Key, Kind, Stamp, Storage};

/// The pause before the first attempt, and the shortest pause after a failure. A brief failure of the storage may be over by
/// then.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause. It is the pause of the breaker, which would refuse earlier attempts while it is open.
const LAST_PAUSE: Duration = super::breaker::PAUSE;
/// The pause after a success. It leaves room for requests: many invalidations may be pending when a storage recovers.
const PAUSE_BETWEEN: Duration = Duration::from_millis(1);

/// Tells whether an invalidation is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidationOutcome {
    /// This call has written the tombstone, which has this stamp.
    Written(Stamp),
    /// Another task has written a tombstone since the invalidation was added.
    Settled,
    /// The storage has not acknowledged the tombstone.
    Pending,
}

impl InvalidationOutcome {
    /// Returns the result for a user who invalidates an entry or a group.
    ///
    /// # Errors
    ///
    /// Returns `Unavailable` if the invalidation is pending.
    pub(crate) fn into_result(self) -> Result<()> {
        match self {
            Self::Written(_) | Self::Settled => Ok(()),
            Self::Pending => Err(Error::new(
                ErrorKind::Unavailable,
                "the storage has not confirmed the invalidation: this process treats it as done, and tries again",
            )),
        }
    }
}

impl<S: Storage> Records<S> {
    /// Invalidates an entry or a group.
    ///
    /// `of` is the URI or key text of what is invalidated. `None` if that may belong to any origin.
    pub(crate) async fn invalidate(self: &Arc<Self>, head: Key, of: Option<&str>) -> InvalidationOutcome {
        // Added before the first attempt: from here on, this process treats the entry as invalidated, whatever the storage
        // does.
        self.pending.add(head, of, self.config.clock.now());
        let records = Arc::clone(self);
        // In a task if it has to wait, so that cancelling the caller does not cancel it.
        let outcome = match self.tasks.drive(async move { records.settle(head).await }) {
            Driven::Done(outcome) => outcome,
            // The task panicked, or its runtime has shut down.
            Driven::Spawned(task) => task.await.unwrap_or(InvalidationOutcome::Pending),
            Driven::NoRuntime => InvalidationOutcome::Pending,
        };
        if outcome == InvalidationOutcome::Pending {
            self.settle_later();
        }
        outcome
    }

    /// Writes the tombstone of a pending invalidation, or the new value of a group.
    pub(crate) async fn settle(&self, head: Key) -> InvalidationOutcome {
        let Some(id) = self.pending.get(head) else { return InvalidationOutcome::Settled };
        // Read only to learn which chunks may expire: any record at the key is overwritten. If the read fails, no write is
        // tried, since requests wait for this, and each operation may take its whole deadline.
        let Ok(existing) = self.storage.read(head).await else { return InvalidationOutcome::Pending };
        let now = self.config.clock.now();
        let until = now + TOMBSTONE;
        let tombstone = match head.kind {
            Kind::Group => self.group_ended(existing.as_ref(), now),
            _ => entry::record(DecodedRecord::Fence { until, placeholder: false }, until),
        };
        let stamp = tombstone.stamp();
        // It is also due if a newer invalidation has replaced this one: this caller must not return before a tombstone is
        // written, and the newer one writes its own.
        let is_due = || self.pending.get(head).is_some();
        // Removes only this invalidation, since one that was added meanwhile is still to be written.
        let done = || self.pending.remove(head, id);
        let mut written = self.storage.overwrite(head, tombstone.clone(), is_due, done).await;
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::Full) {
            // Deleting the entry makes room for the tombstone, which also overwrites what another process stores in between.
            // One retry: if the room has been used by then, the invalidation stays pending.
            let _ = self.storage.delete_many(&[head]).await;
            written = self.storage.overwrite(head, tombstone, is_due, done).await;
        }
        match written {
            Ok(true) => {}
            // Another task has written a tombstone since this invalidation was added.
            Ok(false) => return InvalidationOutcome::Settled,
            Err(_) => return InvalidationOutcome::Pending,
        }
        if let Some(variant) = existing.as_ref().and_then(decode).and_then(DecodedRecord::variant) {
            self.release_chunks(variant.response.body().chunks(head)).await;
        }
        InvalidationOutcome::Written(stamp)
    }

    /// Spawns the task that writes the pending invalidations when the storage has recovered.
    ///
    /// There is one task for all of them. It is not counted among the tasks that `idle` waits for, since a storage may fail
    /// for hours. It ends with its runtime. A request in another runtime then spawns it again.
    pub(crate) fn settle_later(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(mut settler) = self.pending.begin_settling() else { return };
        // Weak, so that the task does not keep a cache alive after it was dropped. The root, since a partition may be dropped
        // while the others go on.
        let records = Arc::downgrade(self.root());
        runtime.spawn(async move {
            let mut pause = FIRST_PAUSE;
            // The invalidations that are left in this round. In rounds, so that an entry for which the storage always fails
            // does not hold up the others.
            let mut round: Vec<Key> = Vec::new();
            // The number of attempts has no bound, since an invalidation must not be lost. The number of invalidations has one.
            loop {
                tokio::time::sleep(pause).await;
                let Some(records) = records.upgrade() else { return };
                if round.is_empty() {
                    round = records.pending.keys();
                }
                let Some(head) = round.pop() else {
                    // Another task may have added an invalidation after `keys`, and have left it to this task. So the mark
                    // is dropped first, and the count is read afterwards.
                    drop(settler);
                    if records.pending.is_empty() {
                        return;
                    }
                    let Some(again) = records.pending.begin_settling() else { return };
                    settler = again;
                    continue;
                };
                pause = match records.settle(head).await {
                    InvalidationOutcome::Pending => (pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE),
                    InvalidationOutcome::Written(_) | InvalidationOutcome::Settled => PAUSE_BETWEEN,
                };
            }
        });
    }

    /// Invalidates what a successful unsafe request may have changed (RFC 9111 §4.4).
    ///
    /// This is the URI of the request, and the URIs that its response names.
    ///
    /// Returns the stamp of the tombstone of the request's own URI, with which the write of its response can be compared.
    pub(crate) async fn invalidate_all(
        self: &Arc<Self>,
        uri: &EffectiveUri<'_>,
        named: &[Uri],
        request: &request::Parts,
    ) -> Option<Stamp> {
        let head = self.keyer.head(uri);
        telemetry::invalidated(
            &self.observer,
            "method",
            EffectiveUri::of(request, &self.config.defaults).as_ref(),
        );
        let others = named.iter().filter_map(|uri| {
            let other = self.config.identity.of_uri(uri, request)?;
            Some((uri, other)).filter(|(_, other)| self.keyer.head(other) != head)
        });
        let others = others.map(|(uri, other)| {
            telemetry::invalidated(&self.observer, "method", EffectiveUri::of_uri(uri).as_ref());
            other
        });
        let others: Vec<EffectiveUri<'_>> = others.collect();
        // All at the same time, so that a storage that hangs costs the request only one deadline.
        let others = join_all(others.iter().map(|other| self.invalidate_uri(other)));
        let ((own, _), _) = join(self.invalidate_uri(uri), others).await;
        match own {
            InvalidationOutcome::Written(stamp) => Some(stamp),
            InvalidationOutcome::Settled | InvalidationOutcome::Pending => None,
        }
    }
}
