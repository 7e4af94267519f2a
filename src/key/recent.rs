//! The keys of the URIs that this thread was asked for last, since hashing is a good part of what a hit costs.
//!
//! Promises: a key is found only for the very URI and keyer that it was made for (texts are compared, not hashes of
//! them); memory is bounded, whatever is asked.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use super::EffectiveUri;
use crate::storage::Key;

/// How many keys a thread remembers.
const PLACES: usize = 128;
/// Longer URIs are hashed each time.
const LONGEST: usize = 512;

struct Recent {
    keyer: u64,
    text: Box<str>,
    key: Key,
}

thread_local! {
    /// One place for each value of a cheap hash: the last URI that came there.
    static RECENT: RefCell<Vec<Option<Recent>>> = const { RefCell::new(Vec::new()) };
}

/// The key of a URI: the one remembered, or the one that `hash` makes, which is then remembered.
pub(super) fn key(keyer: u64, uri: &EffectiveUri<'_>, hash: impl FnOnce() -> Key) -> Key {
    if uri.path_and_query.len() + uri.host.len() > LONGEST {
        return hash();
    }
    let mut cheap = FixedState::default().build_hasher();
    cheap.write(uri.path_and_query.as_bytes());
    cheap.write(uri.host.as_bytes());
    let place = cheap.finish() as usize % PLACES;
    RECENT.with_borrow_mut(|recent| {
        if let Some(Some(known)) = recent.get(place)
            && known.keyer == keyer
            && uri.is_text(&known.text)
        {
            return known.key;
        }
        let key = hash();
        if recent.is_empty() {
            recent.resize_with(PLACES, || None);
        }
        recent[place] = Some(Recent { keyer, text: uri.to_text().into(), key });
        key
    })
}
