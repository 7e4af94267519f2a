//! Records that this process is still writing: a lookup sees the storage through them.
//!
//! The writes to one key are a chain. Its base is the stamp that the first of them is compared with, and each further one is
//! compared with the one before. The storage is at the base or at any of the elements, depending on how far it has come, and
//! is about to hold the last one: so that is what a lookup answers with. A stamp that is none of these was put there by
//! another process, or by an invalidation, and ends the chain.
//!
//! Promises: an element is here from before the caller has its last byte until the storage has answered; the elements of a
//! chain are written one after another; one that is not written takes its successors with it, however its writer ends.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::storage::{Key, Record, Stamp};

/// So many stamps of one chain are remembered: a read that began so many writes ago is not under way any more.
const MOST_WRITTEN: usize = 32;

/// The writes under way of one cache.
#[derive(Debug, Default)]
pub(crate) struct InFlightWrites {
    /// How many keys are written to, so that the usual lookup takes no lock.
    len: AtomicUsize,
    writes: Mutex<Writes>,
}

#[derive(Debug, Default)]
struct Writes {
    chains: HashMap<Key, Arc<Chain>>,
    /// The chunks of bodies: each is written once, and compared with nothing.
    chunks: HashMap<Key, Record>,
}

/// The writes to one key, in order.
#[derive(Debug)]
pub(crate) struct Chain {
    state: Mutex<State>,
    /// Notified when an element has been written, or none will be any more.
    progress: Notify,
}

#[derive(Debug)]
struct State {
    /// The stamps that the storage may be at: the base, and the elements that it has taken.
    written: VecDeque<Option<Stamp>>,
    /// Those that it has not taken yet.
    elements: VecDeque<Record>,
    /// The newest element, also when it has been written; `None`: the chain has come to nothing.
    last: Option<Record>,
    /// A lookup has answered with the newest element.
    is_asked: bool,
}

/// An element that is to be written. Dropped before it is [`written`](Write::written), it ends its chain there.
#[derive(Debug)]
pub(crate) struct Write {
    in_flight: Arc<InFlightWrites>,
    chain: Arc<Chain>,
    key: Key,
    record: Record,
    seen: Option<Stamp>,
    is_done: bool,
}

/// A chunk that is being written. Others find it until this is dropped.
#[derive(Debug)]
pub(crate) struct ChunkWrite {
    in_flight: Arc<InFlightWrites>,
    key: Key,
    record: Record,
}

/// Tells how a record in the storage stands to a chain.
#[derive(Debug)]
pub(crate) enum Seen {
    /// The storage is about to hold this one.
    Last(Record),
    /// Another process has put it there.
    Foreign,
    /// The chain has come to an end meanwhile, and what was read may be older than that.
    Outdated,
}

impl InFlightWrites {
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Returns the chain of a key. Ask before the storage is read: a write that ends in between is then found there.
    pub(crate) fn chain(&self, key: Key) -> Option<Arc<Chain>> {
        if self.is_empty() { None } else { self.lock().chains.get(&key).cloned() }
    }

    /// What was read from the storage after this chain was found, as the chain sees it. A foreign record ends the chain.
    pub(crate) fn resolve(&self, key: Key, chain: &Arc<Chain>, there: Option<Stamp>) -> Seen {
        let seen = chain.lock().resolve(there);
        if matches!(seen, Seen::Foreign) {
            let mut writes = self.lock();
            match writes.chains.get(&key) {
                Some(current) if Arc::ptr_eq(current, chain) => {
                    writes.chains.remove(&key);
                    self.count(&writes);
                    drop(writes);
                    chain.end();
                }
                _ => return Seen::Outdated,
            }
        }
        seen
    }

    /// Adds a write that is compared with `seen`; `None`: something else is being written against that already, so that this
    /// one would lose.
    pub(crate) fn write(self: &Arc<Self>, key: Key, seen: Option<Stamp>, record: Record) -> Option<Write> {
        let mut writes = self.lock();
        let there = writes.chains.get(&key).cloned();
        let added = there.and_then(|chain| {
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

    /// Adds a chunk of a body.
    pub(crate) fn write_chunk(self: &Arc<Self>, key: Key, record: Record) -> ChunkWrite {
        let mut writes = self.lock();
        writes.chunks.insert(key, record.clone());
        self.count(&writes);
        ChunkWrite { in_flight: Arc::clone(self), key, record }
    }

    /// A chunk that is being written.
    pub(crate) fn chunk(&self, key: Key) -> Option<Record> {
        if self.is_empty() { None } else { self.lock().chunks.get(&key).cloned() }
    }

    /// The newest heads and variants that are being written, with their keys.
    pub(crate) fn listed(&self) -> Vec<(Key, Record)> {
        let chains: Vec<(Key, Arc<Chain>)> =
            self.lock().chains.iter().map(|(key, chain)| (*key, Arc::clone(chain))).collect();
        let last = |(key, chain): (Key, Arc<Chain>)| Some((key, chain.lock().last.clone()?));
        chains.into_iter().filter_map(last).collect()
    }

    /// Takes a chain out once nothing of it is under way.
    fn leave(&self, key: Key, chain: &Arc<Chain>) {
        let mut writes = self.lock();
        let is_own = writes.chains.get(&key).is_some_and(|there| Arc::ptr_eq(there, chain));
        if is_own && chain.lock().elements.is_empty() {
            writes.chains.remove(&key);
            self.count(&writes);
        }
    }

    fn count(&self, writes: &Writes) {
        self.len.store(writes.chains.len() + writes.chunks.len(), Ordering::SeqCst);
    }

    /// Taken before the lock of a chain.
    fn lock(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chain {
    fn new(base: Option<Stamp>, record: &Record) -> Self {
        let state = State {
            written: VecDeque::from([base]),
            elements: VecDeque::from([record.clone()]),
            last: Some(record.clone()),
            is_asked: false,
        };
        Self { state: Mutex::new(state), progress: Notify::new() }
    }

    /// Whether the storage may have been at this stamp since the chain began.
    pub(crate) fn begins_with(&self, stamp: Option<Stamp>) -> bool {
        let state = self.lock();
        state.written.contains(&stamp) || state.place(stamp).is_some()
    }

    /// None of its elements will be in the storage any more.
    fn end(&self) {
        {
            let mut state = self.lock();
            state.elements.clear();
            state.last = None;
        }
        self.progress.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds an element if it is written against the newest one; false: it is not. `None`: the chain is over.
    fn push(&mut self, seen: Option<Stamp>, record: &Record) -> Option<bool> {
        let follows = self.last.as_ref().is_some_and(|last| seen == Some(last.stamp()));
        if follows {
            self.elements.push_back(record.clone());
            self.last = Some(record.clone());
            self.is_asked = false;
        }
        if follows || !self.elements.is_empty() { Some(follows) } else { None }
    }

    fn resolve(&mut self, there: Option<Stamp>) -> Seen {
        let Some(last) = self.last.clone() else { return Seen::Outdated };
        let is_own = self.written.contains(&there) || self.place(there).is_some();
        if !is_own {
            return if self.elements.is_empty() { Seen::Outdated } else { Seen::Foreign };
        }
        self.is_asked = true;
        Seen::Last(last)
    }

    /// Where an element is.
    fn place(&self, stamp: Option<Stamp>) -> Option<usize> {
        self.elements.iter().position(|element| Some(element.stamp()) == stamp)
    }

    /// The first element has been written.
    fn advance(&mut self) {
        let Some(first) = self.elements.pop_front() else { return };
        if self.written.len() >= MOST_WRITTEN {
            self.written.pop_front();
        }
        self.written.push_back(Some(first.stamp()));
    }

    /// An element will not be written, and neither will those after it.
    fn cut(&mut self, stamp: Stamp) {
        if let Some(place) = self.place(Some(stamp)) {
            self.elements.truncate(place);
            self.last = self.elements.back().cloned();
        }
    }
}

impl Write {
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// The stamp that it is compared with.
    pub(crate) fn seen(&self) -> Option<Stamp> {
        self.seen
    }

    /// Waits until the storage has taken all elements before this one; false: it has not, so that this one would lose.
    pub(crate) async fn turn(&self) -> bool {
        loop {
            let mut progress = std::pin::pin!(self.chain.progress.notified());
            progress.as_mut().enable();
            {
                match self.chain.lock().place(Some(self.record.stamp())) {
                    Some(0) => return true,
                    Some(_) => {}
                    None => return false,
                }
            }
            progress.await;
        }
    }

    /// The storage has taken it.
    pub(crate) fn written(mut self) {
        self.is_done = true;
        {
            let mut state = self.chain.lock();
            // It is no more where a foreign record was seen meanwhile.
            if state.place(Some(self.record.stamp())) == Some(0) {
                state.advance();
            }
        }
        self.chain.progress.notify_waiters();
        self.in_flight.leave(self.key, &self.chain);
    }

    /// The storage has not taken it. Whether a lookup may have answered with it.
    pub(crate) fn failed(self) -> bool {
        let state = self.chain.lock();
        // One that others were written against was asked for.
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

impl ChunkWrite {
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }
}

impl Drop for ChunkWrite {
    fn drop(&mut self) {
        let mut writes = self.in_flight.lock();
        // Another may have taken its place.
        if writes.chunks.get(&self.key).is_some_and(|there| there.stamp() == self.record.stamp()) {
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

    fn last(in_flight: &InFlightWrites, there: Option<Stamp>) -> Option<Stamp> {
        match in_flight.resolve(KEY, &in_flight.chain(KEY)?, there) {
            Seen::Last(record) => Some(record.stamp()),
            Seen::Foreign | Seen::Outdated => None,
        }
    }

    #[test]
    fn storage_at_any_element_shows_the_last_one() {
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
            assert!(stamps.iter().all(|there| last(&in_flight, *there) == stamps[4]));
            assert!(writes[1..].iter().all(|write| write.turn().now_or_never().is_none()), "not in turn");
            for write in writes {
                write.written();
            }
            assert!(in_flight.is_empty());
        }
    }

    #[test]
    fn element_that_fails_takes_its_successors_with_it() {
        let in_flight = Arc::new(InFlightWrites::default());
        let first = in_flight.write(KEY, None, record()).expect("it is alone");
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
    fn foreign_record_ends_the_chain() {
        let in_flight = Arc::new(InFlightWrites::default());
        let write = in_flight.write(KEY, None, record()).expect("it is alone");
        let foreign = Some(record().stamp());
        let chain = in_flight.chain(KEY).expect("it is under way");
        assert!(matches!(in_flight.resolve(KEY, &chain, foreign), Seen::Foreign));
        assert!(in_flight.is_empty());
        assert_eq!(write.turn().now_or_never(), Some(false));
        let next = in_flight.write(KEY, foreign, record()).expect("a new chain begins");
        drop(write); // which does not touch the new one
        assert_eq!(last(&in_flight, foreign), Some(next.record().stamp()));
    }
}
