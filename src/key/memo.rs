//! Guesses at the keys of the URIs that this thread was asked for last, since hashing is a good part of what a hit costs.
//!
//! Promises: a guess is what was computed for a URI whose cheap hash is the same, hence nearly always the right key; who
//! reads by it compares the URI with what was found, as after any look-up, and computes the key before doing anything
//! else with it. Memory is bounded and small; nothing is allocated. URIs that were chosen so that their cheap hashes agree
//! cost no more than the computing that a guess saves: each takes the one place of the other, and nothing is searched.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use super::EffectiveUri;
use crate::storage::Key;

/// How many keys a thread remembers.
const PLACES: usize = 128;

#[derive(Clone, Copy)]
struct Recent {
    keyer: u64,
    cheap: u64,
    entry: [u8; 16],
}

thread_local! {
    /// One place for each remainder of the cheap hash: the last URI that came there.
    static RECENT: RefCell<[Option<Recent>; PLACES]> = const { RefCell::new([None; PLACES]) };
}

/// What is remembered for such a URI, or else what `compute` makes, which is then remembered.
pub(super) fn guess(keyer: u64, uri: &EffectiveUri<'_>, compute: impl FnOnce() -> Key) -> Key {
    let mut hash = FixedState::default().build_hasher();
    hash.write(uri.path_and_query.as_bytes());
    hash.write(uri.host.as_bytes());
    hash.write_u16(uri.port.unwrap_or_default());
    hash.write_u8(uri.scheme.len() as u8);
    let cheap = hash.finish();
    RECENT.with_borrow_mut(|recent| match &mut recent[cheap as usize % PLACES] {
        Some(known) if known.keyer == keyer && known.cheap == cheap => Key::head(known.entry),
        place => {
            let key = compute();
            *place = Some(Recent { keyer, cheap, entry: key.entry });
            key
        }
    })
}
