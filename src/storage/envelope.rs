//! What stands before a record's payload in its bytes, for stores that read and move times without the payload.
//!
//! Promises: with the time moved, the bytes are those of the same record kept until then, checksum included; bytes that
//! were damaged before are damaged afterwards.

use super::record::{HEADER, Stamp, VERSION};
use crate::time::Timestamp;

/// Version, checksum, stamp, time.
pub(crate) struct Envelope([u8; HEADER]);

/// Where the time is.
const TIME: usize = HEADER - 8;
/// How many bytes the checksum counts, up to the payload.
const COUNTED: usize = Stamp::LEN + 8;

impl Envelope {
    pub(crate) const LEN: usize = HEADER;

    /// `None`: of another version.
    pub(crate) fn from_bytes(bytes: [u8; HEADER]) -> Option<Self> {
        (bytes[0] == VERSION).then_some(Self(bytes))
    }

    pub(crate) fn to_bytes(&self) -> [u8; HEADER] {
        self.0
    }

    pub(crate) fn retain_until(&self) -> Timestamp {
        Timestamp::from_millis(u64::from_be_bytes(std::array::from_fn(|i| self.0[TIME + i])))
    }

    /// The same with another time, before a payload of this length.
    ///
    /// The payload is not needed: what a checksum changes by depends on which bits change and on how much follows them,
    /// not on the bits themselves.
    pub(crate) fn with_retain_until(mut self, time: Timestamp, payload_len: u64) -> Self {
        let (before, after) = (self.retain_until().as_millis(), time.as_millis());
        let mut change = [0; COUNTED];
        change[COUNTED - 8..].copy_from_slice(&(before ^ after).to_be_bytes());
        let change = crc32fast::hash(&change) ^ crc32fast::hash(&[0; COUNTED]);
        let mut moved = crc32fast::Hasher::new_with_initial_len(change, COUNTED as u64);
        moved.combine(&crc32fast::Hasher::new_with_initial_len(0, payload_len));
        for (byte, change) in self.0[1..5].iter_mut().zip(moved.finalize().to_be_bytes()) {
            *byte ^= change;
        }
        self.0[TIME..].copy_from_slice(&after.to_be_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Record;

    const TIMES: [u64; 6] = [0, 1, 999, 1 << 40, u64::MAX - 1, u64::MAX];

    fn moved(bytes: &[u8], time: Timestamp) -> Vec<u8> {
        let (header, payload) = bytes.split_first_chunk().unwrap();
        let envelope = Envelope::from_bytes(*header).unwrap();
        let mut moved = envelope.with_retain_until(time, payload.len() as u64).to_bytes().to_vec();
        moved.extend(payload);
        moved
    }

    #[test]
    fn a_moved_time_gives_the_bytes_of_the_record_kept_until_then() {
        for len in [0, 1, 2, 7, 8, 100, 4096, 131_072, 1_000_003] {
            let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            for (before, after) in TIMES.into_iter().flat_map(|time| TIMES.map(|other| (time, other))) {
                let record = Record::new(payload.clone(), Timestamp::from_millis(before));
                let after = Timestamp::from_millis(after);
                let bytes = moved(&record.to_bytes(), after);
                assert!(
                    bytes == record.with_retain_until(after).to_bytes(),
                    "{len} bytes, {before} to {after:?}"
                );
            }
        }
    }

    #[test]
    fn what_was_damaged_stays_damaged_and_other_versions_are_not_touched() {
        let mut bytes = Record::new("payload", Timestamp::from_millis(7)).to_bytes().to_vec();
        bytes[33] ^= 1;
        assert!(Record::from_bytes(moved(&bytes, Timestamp::NEVER)).is_err());
        bytes[0] = VERSION + 1;
        assert!(Envelope::from_bytes(*bytes.first_chunk().unwrap()).is_none());
    }
}
