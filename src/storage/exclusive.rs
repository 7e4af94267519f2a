//! A lock on a key among the tasks of this process.
//!
//! Promises: who holds the guard of a key is alone among those who ask for it; a guard that is dropped, by a cancelled
//! future too, sets the key free. Keys share a fixed number of locks, so nobody may hold two.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::{Mutex, MutexGuard};

use super::Key;

const STRIPES: usize = 64;

static LOCKS: [Mutex<()>; STRIPES] = [const { Mutex::const_new(()) }; STRIPES];

/// Waits until this task is the only one that holds the key. The provided `write_if`, `retain` and `delete_expired`
/// hold it between their reading and their writing; a blind write to a key that others compare must hold it as well,
/// or it could fall in between.
pub(crate) async fn exclusive(key: Key) -> MutexGuard<'static, ()> {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    LOCKS[(hasher.finish() % STRIPES as u64) as usize].lock().await
}
