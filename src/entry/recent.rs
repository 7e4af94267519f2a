//! The decoded forms of the records that a thread has decoded recently.
//!
//! A storage that keeps bytes returns a new record for each read, and decoding it again would be a quarter of the processor
//! time of a hit. A storage in memory returns the same record, which keeps its form.
//!
//! # Invariants
//! - A form is returned only for the payload that it was decoded from, byte for byte.
//! - Memory is bounded: [`CAPACITY`] forms for each thread, of payloads up to [`MAX_LEN`].

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;

use super::head::DecodedRecord;
use crate::storage::Stamp;

/// The number of forms that a thread keeps. Enough for the entries that are requested most at one time.
const CAPACITY: usize = 64;
/// The maximum length of a payload whose form is kept.
///
/// A head with a body of the default [`inline_len`](crate::storage::Storage::inline_len) is shorter, so that a thread keeps at
/// most 1.3 MB of payloads.
const MAX_LEN: usize = 20 * 1024;

thread_local! {
    /// For each remainder of a stamp, the payload that was decoded last, and its form.
    static RECENT: RefCell<[Option<(Bytes, Arc<DecodedRecord>)>; CAPACITY]> =
        const { RefCell::new([const { None }; CAPACITY]) };
}

/// Returns the form of a payload, from the recent ones or by decoding it.
///
/// The stamp only tells where to look.
pub(super) fn form(
    stamp: Stamp,
    payload: &Bytes,
    decode: impl FnOnce(&Bytes) -> Option<DecodedRecord>,
) -> Option<Arc<DecodedRecord>> {
    if payload.len() > MAX_LEN {
        return decode(payload).map(Arc::new);
    }
    let [low, ..] = stamp.to_bytes();
    RECENT.with_borrow_mut(|recent| {
        let slot = &mut recent[usize::from(low) % CAPACITY];
        match slot {
            Some((known, form)) if known == payload => Some(Arc::clone(form)),
            _ => {
                let form = Arc::new(decode(payload)?);
                *slot = Some((payload.clone(), Arc::clone(&form)));
                Some(form)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn form_is_kept_for_equal_payload_only() {
        let fence =
            |secs| Some(DecodedRecord::Fence { until: Timestamp::from_secs(secs), placeholder: false });
        let stamp = Stamp::random();
        let of = |payload: &'static [u8], secs| form(stamp, &Bytes::from_static(payload), |_| fence(secs));
        let (first, again, other) = (of(b"one", 1).unwrap(), of(b"one", 2).unwrap(), of(b"two", 3).unwrap());
        assert!(Arc::ptr_eq(&first, &again) && !Arc::ptr_eq(&first, &other));
        let long = Bytes::from(vec![0; MAX_LEN + 1]);
        let of_long = || form(stamp, &long, |_| fence(4)).unwrap();
        assert!(!Arc::ptr_eq(&of_long(), &of_long()));
        assert!(form(Stamp::random(), &Bytes::from_static(b"x"), |_| None).is_none());
    }
}
