//! One fetch among many processes: a record that says who fetches.
//!
//! Promises: among those that share a store, one holds the lease of a place at a time; it is given back when what was
//! fetched is stored, or will not be; who dies keeps it no longer than its time. Nothing but work is saved by it: whoever
//! gets none in time, or cannot ask the store, fetches all the same, and what is stored is decided by comparing, as ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::tasks::after;
use super::Records;
use crate::storage::{Key, Kind, Record, Stamp, Storage};

/// How often a process that waits looks whether the other has stored something: at first, and at last.
const SOON: Duration = Duration::from_millis(5);
const LATE: Duration = Duration::from_millis(100);

/// By so much clocks may differ. What is further away was written by one that is wrong, or is none of ours.
const SKEW: Duration = Duration::from_secs(60);

/// Held while this process fetches.
pub(crate) struct Lease<S: Storage> {
    records: Arc<Records<S>>,
    key: Key,
    stamp: Stamp,
}

/// What came of asking for a lease.
pub(crate) enum Leased<S: Storage> {
    /// This process fetches; without a lease, where nobody needs one.
    Fetch(Option<Lease<S>>),
    /// Another one has, or may have, stored something. With the lease, nobody else stores now.
    Look(Option<Lease<S>>),
}

impl<S: Storage> Records<S> {
    /// Takes the lease of a place; waits for who has it until it gives it back, changes what was seen there, or the time
    /// is over.
    pub(crate) async fn lease(self: &Arc<Self>, at: Key, seen: Option<Stamp>, until: Instant) -> Leased<S> {
        let Some(time) = self.config.lease else { return Leased::Fetch(None) };
        let until = until.min(after(time));
        let mut pause = SOON;
        loop {
            let lease = match self.take_lease(at, time).await {
                Ok(lease) if lease.is_some() || Instant::now() < until => lease,
                Ok(_) | Err(()) => return Leased::Fetch(None),
            };
            if lease.is_none() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LATE);
            }
            // Whoever had the lease until just now may have stored something after this request had looked.
            match self.is_still(at, seen).await {
                Ok(false) => return Leased::Look(lease),
                Ok(true) if lease.is_none() => {}
                Ok(true) | Err(()) => return Leased::Fetch(lease),
            }
        }
    }

    /// Whether nothing was written to a place since it was seen.
    pub(crate) async fn is_still(&self, at: Key, seen: Option<Stamp>) -> Result<bool, ()> {
        let there = self.read_slot(at, None).await.map_err(drop)?;
        Ok(there.as_ref().map(Record::stamp) == seen)
    }

    /// Takes the lease of a place if nobody has it. An error: the store cannot tell.
    pub(crate) async fn take_lease(
        self: &Arc<Self>,
        at: Key,
        time: Duration,
    ) -> Result<Option<Lease<S>>, ()> {
        let key = at.sibling(Kind::Lease, at.slot, u32::from(at.kind as u8));
        let there = self.store.read(key).await.map_err(drop)?;
        let now = self.config.clock.now();
        if there.as_ref().is_some_and(|there| {
            there.retain_until() > now && there.retain_until() <= now + time.saturating_mul(2) + SKEW
        }) {
            return Ok(None);
        }
        let record = Record::new(Bytes::new(), now + time);
        let stamp = record.stamp();
        let seen = there.as_ref().map(Record::stamp);
        let taken = self.store.write_if(key, seen, record).await.map_err(drop)?;
        Ok(taken.then(|| Lease { records: Arc::clone(self), key, stamp }))
    }
}

impl<S: Storage> Drop for Lease<S> {
    fn drop(&mut self) {
        let (records, key, stamp) = (Arc::clone(&self.records), self.key, self.stamp);
        // Without a runtime it ends with its time.
        self.records.tasks.spawn(async move {
            let ended = Record::new(Bytes::new(), records.config.clock.now());
            let _ = records.store.write_if(key, Some(stamp), ended).await;
        });
    }
}
