//! Invalidation: writing a tombstone over the head of an entry, or a new value over that of a group.
//!
//! An invalidation is *settled* when the storage has acknowledged the tombstone. Until then it is pending: it is kept in
//! [`PendingInvalidations`](super::pending_invalidations::PendingInvalidations) and tried again.
//!
//! # Invariants
//!
//! - After an invalidation is settled, no process serves a response whose fetch began before it.
//! - While an invalidation is pending, this process serves and stores nothing for the entry, and goes on trying.
//! - A tombstone is always new, and is written without comparing, whatever is stored there: a write that was compared with
//!   what stood there before fails, in every process.
//! - An invalidation that has begun goes on if its caller is cancelled.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use http::{Uri, request};

use super::Records;
use crate::entry::{self, Slot, TOMBSTONE, decode};
use crate::error::{Error, ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::service::tasks::Driven;
use crate::service::telemetry;
use crate::storage::{Key, Kind, Stamp, Storage};

/// The first pause before pending invalidations are tried again, and the least after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause, which is that of the breaker: while it is open, it would only refuse earlier attempts.
const LAST_PAUSE: Duration = super::breaker::PAUSE;
/// The pause after a success. It yields to requests: many invalidations may be pending when a storage comes back.
const PAUSE_BETWEEN: Duration = Duration::from_millis(1);

/// Tells how far an invalidation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidationOutcome {
    /// This call has written the tombstone with the stamp.
    Written(Stamp),
    /// Another task has written a tombstone since the invalidation was added.
    Settled,
    /// The storage has not acknowledged the tombstone.
    Pending,
}

impl InvalidationOutcome {
    /// Returns the result for a caller that invalidates by hand.
    pub(crate) fn into_result(self) -> Result<()> {
        match self {
            Self::Written(_) | Self::Settled => Ok(()),
            Self::Pending => Err(Error::new(
                ErrorKind::Unavailable,
                "the storage has not taken the invalidation yet: this process treats it as done, and tries again",
            )),
        }
    }
}

impl<S: Storage> Records<S> {
    /// Invalidates an entry or a group.
    ///
    /// `of` is the URI or key text of what it invalidates; `None` if that may be of any origin.
    pub(crate) async fn invalidate(self: &Arc<Self>, head: Key, of: Option<&str>) -> InvalidationOutcome {
        // Before the first attempt: from here on this process treats the entry as invalidated, whatever the storage does.
        self.pending.add(head, of, self.config.clock.now());
        let records = Arc::clone(self);
        // In a task if it has to wait, so that a caller that is cancelled does not cancel it.
        let outcome = match self.tasks.drive(async move { records.settle(head).await }) {
            Driven::Done(outcome) => outcome,
            // The task panicked, or its runtime shuts down.
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
        // Read only to learn which chunks may expire: whatever is there is overwritten. A storage that fails to answer is
        // not asked to write as well, since requests wait for this and each operation may take its whole deadline.
        let Ok(existing) = self.store.read(head).await else { return InvalidationOutcome::Pending };
        let now = self.config.clock.now();
        let until = now + TOMBSTONE;
        let tombstone = match head.kind {
            Kind::Group => self.group_ended(existing.as_ref(), now),
            _ => entry::record(Slot::Fence { until, placeholder: false }, until),
        };
        let stamp = tombstone.stamp();
        // Also where a newer invalidation has replaced this one: its caller waits for its own tombstone, and this caller must
        // not be told that all is done before one is written.
        let is_due = || self.pending.get(head).is_some();
        // Only this invalidation: one that was added meanwhile is still to be written.
        let done = || self.pending.remove(head, id);
        let mut written = self.store.overwrite(head, tombstone.clone(), is_due, done).await;
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::Full) {
            // Deleting the entry makes room for the tombstone. Another process that stores in between is overwritten by it.
            // One retry: if the room is taken by then, the invalidation stays pending.
            let _ = self.store.delete_many(&[head]).await;
            written = self.store.overwrite(head, tombstone, is_due, done).await;
        }
        match written {
            Ok(true) => {}
            // Another task has written a tombstone since this invalidation was added.
            Ok(false) => return InvalidationOutcome::Settled,
            Err(_) => return InvalidationOutcome::Pending,
        }
        if let Some(variant) = existing.as_ref().and_then(decode).and_then(Slot::variant) {
            self.release_chunks(variant.response.body.chunks(head)).await;
        }
        InvalidationOutcome::Written(stamp)
    }

    /// Spawns the task that writes pending invalidations once the storage is back.
    ///
    /// There is one task for all of them. It is not counted among the tasks that `idle` waits for, since a storage may be
    /// away for hours. It ends with its runtime, after which a request in another runtime spawns it again.
    pub(crate) fn settle_later(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(mut settler) = self.pending.begin_settling() else { return };
        // Weak, so that the task does not keep a cache alive that was dropped. The root, since a partition may be dropped while
        // others go on.
        let records = Arc::downgrade(self.root());
        runtime.spawn(async move {
            let mut pause = FIRST_PAUSE;
            // The invalidations that are left of this round. In rounds, so that an entry that the storage fails for is tried
            // once for each time that all others are, and holds up none of them.
            let mut round: Vec<Key> = Vec::new();
            // Without a bound on the attempts: an invalidation is given up only at the bound of their number.
            loop {
                tokio::time::sleep(pause).await;
                let Some(records) = records.upgrade() else { return };
                if round.is_empty() {
                    round = records.pending.keys();
                }
                let Some(head) = round.pop() else {
                    // Another task may have added an invalidation after `keys`, and have left it to this task. So the mark
                    // is given back first, and the count is read afterwards.
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

    /// Invalidates the URI of a successful unsafe request, and the URIs that its response names (RFC 9111 §4.4).
    ///
    /// Returns the stamp of the tombstone that was written for the request's own URI. Its response may be stored behind it.
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
            let (key, text) = (self.keyer.head(&other), other.to_text());
            Some((key, text, uri)).filter(|_| key != head)
        });
        let others = others.map(|(key, text, uri)| {
            telemetry::invalidated(&self.observer, "method", EffectiveUri::of_uri(uri).as_ref());
            (key, text)
        });
        let others: Vec<(Key, String)> = others.collect();
        // All at the same time, so that a storage that hangs costs the request one deadline.
        let others = join_all(others.iter().map(|(key, text)| self.invalidate(*key, Some(text))));
        let (own, _) = join(self.invalidate(head, Some(&uri.to_text())), others).await;
        match own {
            InvalidationOutcome::Written(stamp) => Some(stamp),
            InvalidationOutcome::Settled | InvalidationOutcome::Pending => None,
        }
    }
}
