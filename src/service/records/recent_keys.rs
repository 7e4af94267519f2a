//! A bounded memory of keys: those whose callers need not wait for each other, and those whose origin failed lately.
//!
//! Promises: nothing but speed depends on it; the oldest are forgotten first.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::storage::Key;
use crate::time::Timestamp;

/// So many keys are remembered.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// How many there are, so that the usual case takes no lock.
    len: AtomicUsize,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    since: HashMap<Key, (Timestamp, Option<u16>)>,
    /// In the order in which they were noted; some may be forgotten since.
    order: VecDeque<Key>,
}

impl Noted {
    /// With the status that the origin answered with, if that matters.
    pub(crate) fn add(&self, key: Key, now: Timestamp, code: Option<u16>) {
        let mut keys = self.lock();
        if keys.since.insert(key, (now, code)).is_none() {
            keys.order.push_back(key);
        }
        while keys.order.len() > MOST
            && let Some(oldest) = keys.order.pop_front()
        {
            keys.since.remove(&oldest);
        }
        self.len.store(keys.since.len(), Ordering::SeqCst);
    }

    pub(crate) fn forget(&self, key: Key) {
        if self.len.load(Ordering::SeqCst) > 0 {
            let mut keys = self.lock();
            if keys.since.remove(&key).is_some() {
                keys.order.retain(|noted| *noted != key);
            }
            self.len.store(keys.since.len(), Ordering::SeqCst);
        }
    }

    /// Since when the key is noted, and with which status.
    pub(crate) fn since(&self, key: Key) -> Option<(Timestamp, Option<u16>)> {
        if self.len.load(Ordering::SeqCst) == 0 { None } else { self.lock().since.get(&key).copied() }
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
