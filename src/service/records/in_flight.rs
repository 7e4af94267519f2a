//! The in-flight writes of this process, which its lookups take into account.
//!
//! The writes to one key form a chain. Its base is the stamp that the first write is compared with, and each further write is
//! compared with the one before it. The storage holds the base or one of the elements, depending on how many it has written,
//! and will hold the last element. So a lookup that reads any of these stamps answers with the last element. Any other stamp
//! was written by another process or by an invalidation. It wins, and ends the chain.
//!
//! # Invariants
//!
//! - A record is in its chain before the caller has the last byte of the response, and until the storage has answered.
//! - The elements of a chain are written one after another, in order.
//! - An element that is not written takes its successors with it, also when its writer is dropped or panics.
//! - A chain leaves the map when it has no element left to write, and no part of its response is being fetched. A part is
//!   added to what is there when it has come, which the chain knows.
//!
//! # Locks
//!
//! There is one lock for the map, and one for each chain. If both are held, the lock of the map is taken first. All are std
//! `Mutex`es: they are held for operations on maps and queues, never across an await, and they are taken in `drop`, where
//! nothing can be awaited.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use crate::storage::{Key, Record, Stamp};

/// How many written stamps a chain remembers. A lookup may read a stamp, and resolve it after further writes. A lookup that is
/// more than 32 writes late takes the stamp for that of another process, which ends the chain and costs a fetch.
const MAX_WRITTEN: usize = 32;

/// The in-flight writes of one cache.
#[derive(Debug, Default)]
pub(crate) struct InFlightWrites {
    /// The number of keys that are being written.
    ///
    /// It lets the usual lookup take no lock. It is stored under the lock of the map.
    ///
    /// SeqCst orders it with the state of the storage. A write is counted before it is given to the storage, and until the
    /// storage has acknowledged it. So a task that reads zero, and reads the storage afterwards, finds the record there. And a
    /// request that was started by the end of a response sees that the record of that response is counted.
    len: AtomicUsize,
    /// Guards both maps. Taken before the lock of a chain.
    writes: Mutex<Writes>,
}

/// The records that are being written, by key.
#[derive(Debug, Default)]
struct Writes {
    // Keys are hashes already, so that the quick hasher is enough. It is seeded at random, as that of std.
    chains: HashMap<Key, Arc<Chain>, RandomState>,
    /// The number of parts that are being fetched for the response at a key.
    awaited: HashMap<Key, usize, RandomState>,
    /// The chunks of bodies. Each is written once and compared with nothing, so that they need no chain.
    chunks: HashMap<Key, Record, RandomState>,
}

/// The writes to one key, in order.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Guards the elements. Taken after the lock of the map.
    state: Mutex<ChainState>,
    /// Notified after an element has been written, and after the chain has lost elements.
    progress: Notify,
}

/// The state of a chain under its lock.
#[derive(Debug)]
struct ChainState {
    /// The stamps of the base, and of the elements that the storage has acknowledged. A lookup may have read any of them.
    written: VecDeque<Option<Stamp>>,
    /// The elements that the storage has not acknowledged yet.
    elements: VecDeque<Record>,
    /// The newest element, which stays after it has been written. `None` if the chain was ended, or all of it was cut.
    last: Option<Record>,
    /// A lookup has answered with the newest element, so that a request may be reading its body.
    is_asked: bool,
}

/// An element of a chain that is being written.
///
/// If it is dropped before [`written`](Write::written) is called, the chain is cut at this element.
#[derive(Debug)]
pub(crate) struct Write {
    in_flight: Arc<InFlightWrites>,
    chain: Arc<Chain>,
    key: Key,
    record: Record,
    seen: Option<Stamp>,
    is_done: bool,
}

/// Keeps the chain of a key in the map, for a part that will be added to its response.
#[derive(Debug)]
pub(crate) struct AwaitedPart {
    in_flight: Arc<InFlightWrites>,
    key: Key,
}

/// A chunk that is being written. Readers find it until this is dropped.
#[derive(Debug)]
pub(crate) struct ChunkWrite {
    in_flight: Arc<InFlightWrites>,
    key: Key,
    record: Record,
}

/// Tells how a record that was read from the storage relates to a chain.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// It belongs to the chain, and the storage will hold this record instead.
    Last(Record),
    /// It is the newest element, which the storage has acknowledged. Its retention may have moved since.
    Current,
    /// It was written by another process or by an invalidation.
    Foreign,
    /// The chain has ended since it was read, so that it may be outdated. It has to be read again.
    Outdated,
}

impl InFlightWrites {
    /// Returns whether nothing is being written.
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Returns the chain of a key.
    ///
    /// Call it before the storage is read. A write that ends between the two is then found in the storage. In the other order
    /// it could be found in neither.
    pub(crate) fn chain(&self, key: Key) -> Option<Arc<Chain>> {
        if self.is_empty() { None } else { self.lock().chains.get(&key).cloned() }
    }

    /// Returns the newest element of the chain of a key.
    pub(crate) fn last(&self, key: Key) -> Option<Record> {
        self.chain(key)?.lock().last.clone()
    }

    /// Keeps the chain of a key for a part that is being fetched, until the returned guard is dropped.
    pub(crate) fn await_part(self: &Arc<Self>, key: Key) -> AwaitedPart {
        *self.lock().awaited.entry(key).or_default() += 1;
        AwaitedPart { in_flight: Arc::clone(self), key }
    }

    /// Returns how a stamp that was read after [`chain`](Self::chain) relates to the chain.
    ///
    /// A foreign stamp ends the chain.
    pub(crate) fn resolve(&self, key: Key, chain: &Arc<Chain>, existing: Option<Stamp>) -> Resolved {
        // Takes only the lock of the chain, for which no lookup of another key waits. Ending the chain needs the lock of the
        // map, which has to be taken first. So this lock is released, and the chain is looked up again.
        let seen = chain.lock().resolve(existing);
        if matches!(seen, Resolved::Foreign) {
            let mut writes = self.lock();
            match writes.chains.get(&key) {
                Some(current) if Arc::ptr_eq(current, chain) => {
                    writes.chains.remove(&key);
                    self.count(&writes);
                    drop(writes);
                    chain.end();
                }
                // The chain ended between the two locks, so that the storage may hold a newer record than was read.
                _ => return Resolved::Outdated,
            }
        }
        seen
    }

    /// Adds a write that is compared with `seen`.
    ///
    /// Returns `None` if another write is compared with the same stamp, so that this one would lose.
    pub(crate) fn write(self: &Arc<Self>, key: Key, seen: Option<Stamp>, record: Record) -> Option<Write> {
        let mut writes = self.lock();
        // The lock of the map is held until the element is in its chain, so that the chain cannot leave the map in between.
        let existing = writes.chains.get(&key).cloned();
        let added = existing.and_then(|chain| {
            let is_added = chain.lock().push(seen, &record)?;
            Some((chain, is_added))
        });
        let chain = match added {
            Some((_, false)) => return None,
            Some((chain, true)) => chain,
            None => {
                let chain = Arc::new(Chain::new(seen, &record));
                writes.chains.insert(key, Arc::clone(&chain));
                chain
            }
        };
        self.count(&writes);
        drop(writes);
        Some(Write { in_flight: Arc::clone(self), chain, key, record, seen, is_done: false })
    }

    /// Adds a chunk that is about to be written.
    pub(crate) fn write_chunk(self: &Arc<Self>, key: Key, record: Record) -> ChunkWrite {
        let mut writes = self.lock();
        writes.chunks.insert(key, record.clone());
        self.count(&writes);
        ChunkWrite { in_flight: Arc::clone(self), key, record }
    }

    /// Returns a chunk that is being written.
    pub(crate) fn chunk(&self, key: Key) -> Option<Record> {
        if self.is_empty() { None } else { self.lock().chunks.get(&key).cloned() }
    }

    /// Returns the newest heads and variants that are being written, with their keys.
    pub(crate) fn listed(&self) -> Vec<(Key, Record)> {
        // Copied first, so that the lock of the map is not held while each chain is locked.
        let chains: Vec<(Key, Arc<Chain>)> =
            self.lock().chains.iter().map(|(key, chain)| (*key, Arc::clone(chain))).collect();
        let last = |(key, chain): (Key, Arc<Chain>)| Some((key, chain.lock().elements.back().cloned()?));
        chains.into_iter().filter_map(last).collect()
    }

    /// Removes a chain from the map if it has no element left to write, and no part is awaited that could follow it.
    fn leave(&self, key: Key, chain: &Arc<Chain>) {
        let mut writes = self.lock();
        // The key may have a newer chain by now. Elements are added under this lock too, so that none is added in between.
        let is_own = writes.chains.get(&key).is_some_and(|existing| Arc::ptr_eq(existing, chain));
        if is_own && chain.lock().is_over(writes.awaited.contains_key(&key)) {
            writes.chains.remove(&key);
            self.count(&writes);
        }
    }

    /// Stores the number of keys. The caller holds the lock of the map.
    fn count(&self, writes: &Writes) {
        self.len.store(writes.chains.len() + writes.chunks.len(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Writes> {
        // Poison is ignored here and below: each change under a lock is complete before anything that may panic.
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chain {
    /// Returns a chain with one element.
    fn new(base: Option<Stamp>, record: &Record) -> Self {
        // With room for the stamp of the element, which is all that most chains have.
        let mut written = VecDeque::with_capacity(2);
        written.push_back(base);
        let state = ChainState {
            written,
            elements: VecDeque::from([record.clone()]),
            last: Some(record.clone()),
            is_asked: false,
        };
        Self { state: Mutex::new(state), progress: Notify::new() }
    }

    /// Returns whether the storage may have held a stamp since the chain began.
    pub(crate) fn begins_with(&self, stamp: Option<Stamp>) -> bool {
        let state = self.lock();
        state.written.contains(&stamp) || state.index_of(stamp).is_some()
    }

    /// Waits until the chain has no element left to write.
    pub(crate) async fn over(&self) {
        loop {
            let mut progress = std::pin::pin!(self.progress.notified());
            // Registers before the chain is looked at, so that progress between the two is not missed.
            progress.as_mut().enable();
            if self.lock().elements.is_empty() {
                return;
            }
            progress.await;
        }
    }

    /// Ends the chain, so that none of its elements is written any more.
    fn end(&self) {
        {
            let mut state = self.lock();
            state.elements.clear();
            state.last = None;
        }
        // After the lock is released, so that the woken tasks do not wait for it.
        self.progress.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, ChainState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChainState {
    /// Adds an element if it is compared with the newest one.
    ///
    /// Returns whether it was added, or `None` if the chain is over.
    fn push(&mut self, seen: Option<Stamp>, record: &Record) -> Option<bool> {
        let follows = self.last.as_ref().is_some_and(|last| seen == Some(last.stamp()));
        if follows {
            self.elements.push_back(record.clone());
            self.last = Some(record.clone());
            self.is_asked = false;
        }
        // A part that was awaited meanwhile is compared with what another one has replaced.
        let loses = !self.elements.is_empty() || (self.last.is_some() && self.written.contains(&seen));
        if follows || loses { Some(follows) } else { None }
    }

    /// Returns whether the chain has no element left to write, nor one that a part `is_awaited` to follow.
    fn is_over(&self, is_awaited: bool) -> bool {
        self.elements.is_empty() && (self.last.is_none() || !is_awaited)
    }

    /// Returns how a stamp relates to the chain, and marks the newest element as returned.
    fn resolve(&mut self, existing: Option<Stamp>) -> Resolved {
        let Some(last) = self.last.clone() else { return Resolved::Outdated };
        let is_own = self.written.contains(&existing) || self.index_of(existing).is_some();
        if !is_own {
            return Resolved::Foreign;
        }
        if self.elements.is_empty() {
            // If the storage holds an earlier element, it has lost the newest one, or the read was late.
            let is_current = existing == Some(last.stamp());
            return if is_current { Resolved::Current } else { Resolved::Outdated };
        }
        self.is_asked = true;
        Resolved::Last(last)
    }

    /// Returns the index of an element among those that are not written yet.
    fn index_of(&self, stamp: Option<Stamp>) -> Option<usize> {
        self.elements.iter().position(|element| Some(element.stamp()) == stamp)
    }

    /// Moves the first element to the written ones.
    fn advance(&mut self) {
        let Some(first) = self.elements.pop_front() else { return };
        if self.written.len() >= MAX_WRITTEN {
            self.written.pop_front();
        }
        self.written.push_back(Some(first.stamp()));
    }

    /// Removes an element that was not written, and all elements after it.
    ///
    /// Each of them is compared with the one before, so that the storage would refuse all of them.
    fn cut(&mut self, stamp: Stamp) {
        if let Some(index) = self.index_of(Some(stamp)) {
            self.elements.truncate(index);
            self.last = self.elements.back().cloned();
        }
    }
}

impl Write {
    /// Returns the key that is written to.
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// Returns the record that is written.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Returns the stamp that the write is compared with.
    pub(crate) fn seen(&self) -> Option<Stamp> {
        self.seen
    }

    /// Waits until the storage has acknowledged all elements before this one.
    ///
    /// Returns `false` if one of them was not written, so that this one would lose.
    pub(crate) async fn turn(&self) -> bool {
        // One round for each element before this one. Each of those is written within its deadline, or dropped.
        loop {
            let mut progress = std::pin::pin!(self.chain.progress.notified());
            // Registers before the chain is looked at, so that progress between the two is not missed.
            progress.as_mut().enable();
            {
                // In a block, so that the guard is dropped before the await.
                match self.chain.lock().index_of(Some(self.record.stamp())) {
                    Some(0) => return true,
                    Some(_) => {}
                    None => return false,
                }
            }
            progress.await;
        }
    }

    /// Marks the element as acknowledged by the storage.
    pub(crate) fn written(mut self) {
        self.is_done = true;
        {
            let mut state = self.chain.lock();
            // The element was removed if a lookup has seen a foreign record since. That record is newer than this one.
            if state.index_of(Some(self.record.stamp())) == Some(0) {
                state.advance();
            }
        }
        self.chain.progress.notify_waiters();
        self.in_flight.leave(self.key, &self.chain);
    }

    /// Cuts the chain at this element, which the storage refused.
    ///
    /// Returns whether a lookup may have answered with the element.
    pub(crate) fn failed(self) -> bool {
        let state = self.chain.lock();
        // An element with a successor was returned by a lookup, since the successor is compared with it. The chain is cut when
        // `self` is dropped, which is after the guard.
        let is_last = state.last.as_ref().is_some_and(|last| last.stamp() == self.record.stamp());
        !is_last || state.is_asked
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if !self.is_done {
            self.chain.lock().cut(self.record.stamp());
            self.chain.progress.notify_waiters();
            self.in_flight.leave(self.key, &self.chain);
        }
    }
}

impl Drop for AwaitedPart {
    fn drop(&mut self) {
        let mut writes = self.in_flight.lock();
        if let Some(awaited) = writes.awaited.get_mut(&self.key) {
            *awaited -= 1;
            if *awaited > 0 {
                return;
            }
        }
        writes.awaited.remove(&self.key);
        // Its elements leave the map by themselves. Dropped after the guard.
        let chain = writes.chains.get(&self.key).cloned();
        drop(writes);
        if let Some(chain) = chain {
            self.in_flight.leave(self.key, &chain);
        }
    }
}

impl ChunkWrite {
    /// Returns the key of the chunk.
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// Returns the record of the chunk.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }
}

impl Drop for ChunkWrite {
    fn drop(&mut self) {
        let mut writes = self.in_flight.lock();
        // Compared by its stamp, so that a later announcement of the same key is not removed.
        if writes.chunks.get(&self.key).is_some_and(|existing| existing.stamp() == self.record.stamp()) {
            writes.chunks.remove(&self.key);
            self.in_flight.count(&writes);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::time::Timestamp;

    const KEY: Key = Key::head([1; 16]);

    fn record() -> Record {
        Record::new("x", Timestamp::NEVER)
    }

    fn last(in_flight: &InFlightWrites, existing: Option<Stamp>) -> Option<Stamp> {
        match in_flight.resolve(KEY, &in_flight.chain(KEY)?, existing) {
            Resolved::Last(record) => Some(record.stamp()),
            Resolved::Current => existing,
            Resolved::Foreign | Resolved::Outdated => None,
        }
    }

    #[test]
    fn lookup_at_any_element_returns_the_last() {
        for written in 0..4 {
            let in_flight = Arc::new(InFlightWrites::default());
            let mut stamps = vec![None];
            let mut writes = Vec::new();
            for _ in 0..4 {
                let write = in_flight.write(KEY, stamps[stamps.len() - 1], record()).expect("it follows");
                stamps.push(Some(write.record().stamp()));
                writes.push(write);
            }
            assert!(in_flight.write(KEY, stamps[1], record()).is_none(), "it lost already");
            for write in writes.drain(..written) {
                assert_eq!(write.turn().now_or_never(), Some(true));
                write.written();
            }
            assert!(stamps.iter().all(|existing| last(&in_flight, *existing) == stamps[4]));
            assert!(writes[1..].iter().all(|write| write.turn().now_or_never().is_none()), "not in turn");
            for write in writes {
                write.written();
            }
            assert!(in_flight.is_empty());
        }
    }

    #[test]
    fn failed_element_removes_its_successors() {
        let in_flight = Arc::new(InFlightWrites::default());
        let first = in_flight.write(KEY, None, record()).expect("no other write");
        let second = in_flight.write(KEY, Some(first.record().stamp()), record()).expect("it follows");
        let third = in_flight.write(KEY, Some(second.record().stamp()), record()).expect("it follows");
        drop(second);
        assert_eq!(third.turn().now_or_never(), Some(false));
        assert_eq!(last(&in_flight, None), Some(first.record().stamp()));
        drop(third);
        first.written();
        assert!(in_flight.is_empty());
    }

    #[test]
    fn awaited_part_follows_what_was_written_meanwhile() {
        let in_flight = Arc::new(InFlightWrites::default());
        let (first, second) = (in_flight.await_part(KEY), in_flight.await_part(KEY));
        let write = in_flight.write(KEY, None, record()).expect("no other write");
        let stamp = Some(write.record().stamp());
        write.written();
        assert!(in_flight.write(KEY, None, record()).is_none(), "another write has replaced what it saw");
        assert!(in_flight.listed().is_empty(), "the storage has it");
        let chain = in_flight.chain(KEY).expect("it is awaited");
        assert!(matches!(in_flight.resolve(KEY, &chain, stamp), Resolved::Current));
        // The chain does not answer for a record that the storage has lost.
        assert!(matches!(in_flight.resolve(KEY, &chain, None), Resolved::Outdated));
        drop(first);
        let next = in_flight.write(KEY, stamp, record()).expect("it follows");
        drop(second);
        assert_eq!(last(&in_flight, stamp), Some(next.record().stamp()));
        next.written();
        assert!(in_flight.is_empty());
        let third = in_flight.await_part(KEY);
        let write = in_flight.write(KEY, stamp, record()).expect("a new chain begins");
        write.written();
        assert!(!in_flight.is_empty());
        let chain = in_flight.chain(KEY).expect("it is awaited");
        assert!(matches!(in_flight.resolve(KEY, &chain, Some(record().stamp())), Resolved::Foreign));
        assert!(in_flight.is_empty(), "a foreign record ends it");
        drop(third);
        assert!(in_flight.lock().awaited.is_empty());
    }

    #[test]
    fn foreign_record_ends_the_chain() {
        let in_flight = Arc::new(InFlightWrites::default());
        let write = in_flight.write(KEY, None, record()).expect("no other write");
        let foreign = Some(record().stamp());
        let chain = in_flight.chain(KEY).expect("the chain exists");
        assert!(matches!(in_flight.resolve(KEY, &chain, foreign), Resolved::Foreign));
        assert!(in_flight.is_empty());
        assert_eq!(write.turn().now_or_never(), Some(false));
        let next = in_flight.write(KEY, foreign, record()).expect("a new chain begins");
        drop(write); // must not touch the new chain
        assert_eq!(last(&in_flight, foreign), Some(next.record().stamp()));
    }
}
