//! The keys of the URIs that a thread has used recently.
//!
//! Computing SHA-256 is a considerable part of the cost of a hit from memory. So the keys are found by a
//! cheap hash of the URI, which is not collision resistant. A key from here is a guess: use it only to read a
//! record, compare the URI in the record with that of the request, and compute the key before doing anything
//! else with it.
//!
//! # Invariants
//! - A guess is the key of a URI that has the same cheap hash.
//! - Memory is bounded, and nothing is allocated.
//! - URIs that are chosen so that their cheap hashes collide cost only the computation that a guess would
//!   have saved. One replaces the other, and nothing is searched.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use super::EffectiveUri;
use crate::storage::Key;

/// The number of keys that a thread remembers.
///
/// Enough for the URIs that are requested most at one time, in 5 KiB per thread.
const CAPACITY: usize = 128;

#[derive(Clone, Copy)]
struct MemoizedKey {
    keyer: u64,
    cheap_hash: u64,
    entry: [u8; 16],
}

thread_local! {
    /// For each remainder of the cheap hash the key that was computed last.
    static MEMO: RefCell<[Option<MemoizedKey>; CAPACITY]> = const { RefCell::new([None; CAPACITY]) };
}

/// Returns the key that is remembered for a URI, or computes and remembers it.
///
/// Returns also whether it was computed.
pub(super) fn guess(keyer: u64, uri: &EffectiveUri<'_>, compute: impl FnOnce() -> Key) -> (Key, bool) {
    let mut hash = FixedState::default().build_hasher();
    hash.write(uri.path_and_query.as_bytes());
    hash.write(uri.host.as_bytes());
    hash.write_u16(uri.port.unwrap_or_default());
    hash.write_u8(uri.scheme.len() as u8);
    let cheap_hash = hash.finish();
    MEMO.with_borrow_mut(|memo| match &mut memo[cheap_hash as usize % CAPACITY] {
        Some(known) if known.keyer == keyer && known.cheap_hash == cheap_hash => {
            (Key::head(known.entry), false)
        }
        slot => {
            let key = compute();
            *slot = Some(MemoizedKey { keyer, cheap_hash, entry: key.entry });
            (key, true)
        }
    })
}
