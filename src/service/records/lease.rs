//! Leases, which let one process fetch for all processes that share a storage.
//!
//! A lease is a record of its own kind, whose key belongs to the head or variant that is fetched. It is only an optimization:
//! a process that cannot acquire it in time fetches anyway, and `write_if` decides which response is stored.
//!
//! # Invariants
//!
//! - At most one process holds the lease of a key at a time, as long as its storage compares and writes atomically.
//! - A lease is released when the response is stored, or when it is certain that it will not be stored.
//! - The lease of a process that dies expires after the time of the lease.
//! - A request waits for a lease no longer than its caller's deadline, and no longer than the time of the lease.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Records;
use crate::service::tasks::{Driven, after};
use crate::storage::{Key, Kind, Record, Stamp, Storage};

/// The first pause before a waiting process reads again. A fast origin has answered by then.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between two attempts. Each attempt costs two or three reads, and a response is found at most this much
/// later than it was stored.
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// How much later than expected a lease may end, because clocks differ. A lease that ends even later was written by a process
/// whose clock is wrong, and is overwritten, or it would block all others for that time.
const LEASE_SKEW: Duration = Duration::from_secs(60);

/// Keeps other processes from fetching for the same key until it is dropped.
///
/// It is passed in a box, since every fetch has room for one, and few caches have leases.
pub(crate) struct Lease<S: Storage> {
    records: Arc<Records<S>>,
    key: Key,
    stamp: Stamp,
}

/// Tells a request what to do after it has tried to acquire a lease.
pub(crate) enum Leased<S: Storage> {
    /// Fetch. There is no lease if leases are disabled, if it could not be acquired in time, or if the storage failed.
    Fetch(Option<Box<Lease<S>>>),
    /// Look in the storage again, since another process has written there. With the lease, no other process fetches now.
    Look(Option<Box<Lease<S>>>),
}

impl<S: Storage> Records<S> {
    /// Acquires the lease of a key, and waits while another process holds it.
    ///
    /// The wait ends when the lease is released, when the record at the key is no longer the one that was seen, or at the
    /// deadline.
    pub(crate) async fn lease(self: &Arc<Self>, at: Key, seen: Option<Stamp>, until: Instant) -> Leased<S> {
        match self.config.lease {
            None => Leased::Fetch(None),
            // Boxed, since it would enlarge the future of every leader, and few caches have leases.
            Some(time) => Box::pin(self.wait_for_lease(at, seen, time, until.min(after(time)))).await,
        }
    }

    /// Acquires the lease of a key for a time, as [`lease`](Self::lease) does.
    async fn wait_for_lease(
        self: &Arc<Self>,
        at: Key,
        seen: Option<Stamp>,
        time: Duration,
        until: Instant,
    ) -> Leased<S> {
        let mut pause = FIRST_PAUSE;
        // Polls the storage, since most storages cannot notify. The loop ends at `until`.
        loop {
            let lease = match self.take_lease(at, time).await {
                Ok(lease) if lease.is_some() || Instant::now() < until => lease,
                Ok(_) | Err(()) => return Leased::Fetch(None),
            };
            if lease.is_none() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
            // Read even if the lease was acquired: its former holder may have stored a response after this request looked in
            // the storage, and before it released the lease.
            match self.is_still(at, seen).await {
                Ok(false) => return Leased::Look(lease),
                Ok(true) if lease.is_none() => {}
                Ok(true) | Err(()) => return Leased::Fetch(lease),
            }
        }
    }

    /// Returns whether a key still has the stamp that was seen there.
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
    ) -> Result<Option<Box<Lease<S>>>, ()> {
        let records = Arc::clone(self);
        // In a task if it has to wait: if the caller is cancelled while the storage writes the lease, the lease must not block
        // other processes for its whole time. The task then drops the lease, which releases it.
        match self.tasks.drive(async move { records.write_lease(at, time).await }) {
            Driven::Done(lease) => lease,
            Driven::Spawned(task) => task.await.unwrap_or(Err(())),
            Driven::NoRuntime => Err(()),
        }
    }

    /// Writes the record of a lease, unless another process holds it.
    async fn write_lease(self: &Arc<Self>, at: Key, time: Duration) -> Result<Option<Box<Lease<S>>>, ()> {
        let key = at.sibling(Kind::Lease, at.slot, u32::from(at.kind as u8));
        let existing = self.storage.read(key).await.map_err(drop)?;
        let now = self.config.clock.now();
        // Twice the time of this process, since another process may be set to a longer time.
        if existing.as_ref().is_some_and(|existing| {
            existing.retain_until() > now
                && existing.retain_until() <= now + time.saturating_mul(2) + LEASE_SKEW
        }) {
            return Ok(None);
        }
        let record = Record::new(Bytes::new(), now + time);
        let stamp = record.stamp();
        let seen = existing.as_ref().map(Record::stamp);
        // If several processes find no lease, only one of their writes succeeds.
        let taken = self.storage.write_if(key, seen, record).await.map_err(drop)?;
        Ok(taken.then(|| Box::new(Lease { records: Arc::clone(self), key, stamp })))
    }
}

impl<S: Storage> Drop for Lease<S> {
    fn drop(&mut self) {
        let (records, key, stamp) = (Arc::clone(&self.records), self.key, self.stamp);
        // In a task, since a storage cannot be awaited in `drop`. Without a runtime the lease expires after its time.
        self.records.tasks.spawn(async move {
            // Compared with its own stamp: the lease may have expired, and another process may hold it now.
            let ended = Record::new(Bytes::new(), records.config.clock.now());
            let _ = records.storage.write_if(key, Some(stamp), ended).await;
        });
    }
}
