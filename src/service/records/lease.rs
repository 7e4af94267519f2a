//! Leases, by which one process fetches for all that share a storage.
//!
//! A lease is a record of its own kind beside the head or variant that is fetched. It is only an optimization: a process
//! that cannot acquire it in time fetches anyway, and `write_if` decides which response is kept.
//!
//! # Invariants
//!
//! - At most one process holds the lease of a key at a time, as long as its storage compares and writes atomically.
//! - A lease is released when the response is stored, or when it is certain that it will not be.
//! - The lease of a process that dies expires with its time.
//! - A request waits for a lease no longer than its caller's deadline and the time of the lease.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Records;
use crate::service::tasks::{Driven, after};
use crate::storage::{Key, Kind, Record, Stamp, Storage};

/// The first pause before a waiting process looks again: a fast origin has answered by then.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause. Each look costs two or three reads, and a response is found this much later at most.
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// How much later than expected a lease may end, because clocks differ. One that ends later still was written by a process
/// whose clock is wrong, or is no lease, and is overwritten.
const LEASE_SKEW: Duration = Duration::from_secs(60);

/// Keeps other processes from fetching the same. Released when it is dropped.
pub(crate) struct Lease<S: Storage> {
    records: Arc<Records<S>>,
    key: Key,
    stamp: Stamp,
}

/// Tells a request what to do after it asked for a lease.
pub(crate) enum Leased<S: Storage> {
    /// Fetch. There is no lease if leases are off, if it could not be acquired in time, or if the storage failed.
    Fetch(Option<Lease<S>>),
    /// Look in the storage again, since another process has written there. With the lease, no other process fetches now.
    Look(Option<Lease<S>>),
}

impl<S: Storage> Records<S> {
    /// Acquires the lease of a key, and waits while another process holds it.
    ///
    /// The wait ends when the lease is released, when the record at the key is no longer the one that was seen, or when the
    /// time is over.
    pub(crate) async fn lease(self: &Arc<Self>, at: Key, seen: Option<Stamp>, until: Instant) -> Leased<S> {
        let Some(time) = self.config.lease else { return Leased::Fetch(None) };
        let until = until.min(after(time));
        let mut pause = FIRST_PAUSE;
        // Polls, since most storages cannot notify. Ends at `until`.
        loop {
            let lease = match self.take_lease(at, time).await {
                Ok(lease) if lease.is_some() || Instant::now() < until => lease,
                Ok(_) | Err(()) => return Leased::Fetch(None),
            };
            if lease.is_none() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
            // Looked at also with the lease in hand: its former holder may have stored a response after this request looked
            // in the storage, and before it released the lease.
            match self.is_still(at, seen).await {
                Ok(false) => return Leased::Look(lease),
                Ok(true) if lease.is_none() => {}
                Ok(true) | Err(()) => return Leased::Fetch(lease),
            }
        }
    }

    /// Returns whether nothing was written to a key since a stamp was seen there.
    ///
    /// # Errors
    ///
    /// Returns `()` if the storage failed.
    pub(crate) async fn is_still(&self, at: Key, seen: Option<Stamp>) -> Result<bool, ()> {
        let existing = self.read_slot(at, None).await.map_err(drop)?;
        Ok(existing.as_ref().map(Record::stamp) == seen)
    }

    /// Acquires the lease of a key if no process holds it.
    ///
    /// # Errors
    ///
    /// Returns `()` if the storage failed.
    pub(crate) async fn take_lease(
        self: &Arc<Self>,
        at: Key,
        time: Duration,
    ) -> Result<Option<Lease<S>>, ()> {
        let records = Arc::clone(self);
        // In a task where it has to wait: a caller that goes away while the storage writes the lease must not leave it there
        // for its whole time. The task then drops the lease, which gives it back.
        match self.tasks.drive(async move { records.write_lease(at, time).await }) {
            Driven::Done(lease) => lease,
            Driven::Spawned(task) => task.await.unwrap_or(Err(())),
            Driven::NoRuntime => Err(()),
        }
    }

    async fn write_lease(self: &Arc<Self>, at: Key, time: Duration) -> Result<Option<Lease<S>>, ()> {
        let key = at.sibling(Kind::Lease, at.slot, u32::from(at.kind as u8));
        let existing = self.store.read(key).await.map_err(drop)?;
        let now = self.config.clock.now();
        // Twice this process's own time, since another process may be set to a longer one.
        if existing.as_ref().is_some_and(|existing| {
            existing.retain_until() > now
                && existing.retain_until() <= now + time.saturating_mul(2) + LEASE_SKEW
        }) {
            return Ok(None);
        }
        let record = Record::new(Bytes::new(), now + time);
        let stamp = record.stamp();
        let seen = existing.as_ref().map(Record::stamp);
        // Of several processes that find no lease, the storage lets one write.
        let taken = self.store.write_if(key, seen, record).await.map_err(drop)?;
        Ok(taken.then(|| Lease { records: Arc::clone(self), key, stamp }))
    }
}

impl<S: Storage> Drop for Lease<S> {
    fn drop(&mut self) {
        let (records, key, stamp) = (Arc::clone(&self.records), self.key, self.stamp);
        // In a task, since a storage cannot be awaited in `drop`. Without a runtime the lease expires with its time.
        self.records.tasks.spawn(async move {
            // Compared with its own stamp: the lease may have expired and belong to another process now.
            let ended = Record::new(Bytes::new(), records.config.clock.now());
            let _ = records.store.write_if(key, Some(stamp), ended).await;
        });
    }
}
