//! A lock on a key, among the tasks of one process.
//!
//! # Invariants
//! - While a task holds the guard of a key, every other call of [`lock_key`] for that key waits.
//! - Dropping the guard releases the key, also when a cancelled future drops it.
//! - No task holds two guards: keys share the locks, so a second guard may be one that the task holds already.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::{Mutex, MutexGuard};

use super::Key;

/// Enough that two keys which are used at once seldom share a lock, and few enough for a static array.
const LOCKS_LEN: usize = 64;

// Global, not a field of a storage: the provided methods of `Storage` have no place for state. Two storages that use them
// share the locks, which costs time but not correctness.
static LOCKS: [Mutex<()>; LOCKS_LEN] = [const { Mutex::const_new(()) }; LOCKS_LEN];

/// Waits until no other task of this process holds the key.
///
/// The provided `write_if`, `retain` and `delete_expired` hold the guard from their read to their write. A write that does
/// not compare, to a key that others compare, must hold it as well: it could otherwise fall between the two and be lost.
pub(crate) async fn lock_key(key: Key) -> MutexGuard<'static, ()> {
    // Always the same keys, unlike `RandomState`: every caller must find the same lock.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    LOCKS[(hasher.finish() % LOCKS_LEN as u64) as usize].lock().await
}
