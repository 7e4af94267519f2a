//! The header of a record's bytes.
//!
//! With it, a storage can change the retention time of a record without reading the payload.
//!
//! # Invariants
//! - A header with a changed time, followed by the same payload, is the bytes of the same record with that time.
//! - Bytes that were damaged before the change are damaged afterwards: their checksum does not match.

use super::record::{HEADER, Stamp, VERSION};
use crate::time::Timestamp;

/// The version, checksum, stamp and retention time before a record's payload.
pub(crate) struct RecordHeader([u8; HEADER]);

/// Where the checksum is.
const CHECKSUM: std::ops::Range<usize> = 1..5;
/// Where the retention time begins. It is the last field of the header.
const TIME: usize = HEADER - 8;
/// How many bytes of the header the checksum covers. These are the stamp and the time; it also covers the payload.
const COVERED: usize = Stamp::LEN + 8;

impl RecordHeader {
    pub(crate) const LEN: usize = HEADER;

    /// Reads a header. Returns `None` if another version wrote it.
    pub(crate) fn from_bytes(bytes: [u8; HEADER]) -> Option<Self> {
        (bytes[0] == VERSION).then_some(Self(bytes))
    }

    pub(crate) fn to_bytes(&self) -> [u8; HEADER] {
        self.0
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::from_bytes(std::array::from_fn(|i| self.0[CHECKSUM.end + i]))
    }

    pub(crate) fn retain_until(&self) -> Timestamp {
        Timestamp::from_millis(u64::from_be_bytes(std::array::from_fn(|i| self.0[TIME + i])))
    }

    /// Returns the header with another retention time, for a payload of this length.
    ///
    /// The payload itself is not needed. A CRC is linear: the checksum changes by an amount that depends on which bits change
    /// and on how many bytes follow them, but not on the value of any bit.
    pub(crate) fn with_retain_until(mut self, time: Timestamp, payload_len: u64) -> Self {
        let (before, after) = (self.retain_until().as_millis(), time.as_millis());
        let mut difference = [0; COVERED];
        difference[COVERED - 8..].copy_from_slice(&(before ^ after).to_be_bytes());
        // The checksum of zeros is not zero, because a CRC-32 starts and ends with an inversion. Both have it, so it cancels.
        let change = crc32fast::hash(&difference) ^ crc32fast::hash(&[0; COVERED]);
        let mut shifted = crc32fast::Hasher::new_with_initial_len(change, COVERED as u64);
        shifted.combine(&crc32fast::Hasher::new_with_initial_len(0, payload_len));
        for (byte, change) in self.0[CHECKSUM].iter_mut().zip(shifted.finalize().to_be_bytes()) {
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

    fn with_time(bytes: &[u8], time: Timestamp) -> Vec<u8> {
        let (bytes, payload) = bytes.split_first_chunk().unwrap();
        let header = RecordHeader::from_bytes(*bytes).unwrap();
        let mut changed = header.with_retain_until(time, payload.len() as u64).to_bytes().to_vec();
        changed.extend(payload);
        changed
    }

    #[test]
    fn changed_time_gives_bytes_of_changed_record() {
        for len in [0, 1, 2, 7, 8, 100, 4096, 131_072, 1_000_003] {
            let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            for (before, after) in TIMES.into_iter().flat_map(|time| TIMES.map(|other| (time, other))) {
                let record = Record::new(payload.clone(), Timestamp::from_millis(before));
                let after = Timestamp::from_millis(after);
                let bytes = with_time(&record.to_bytes(), after);
                assert!(
                    bytes == record.with_retain_until(after).to_bytes(),
                    "{len} bytes, {before} to {after:?}"
                );
            }
        }
    }

    #[test]
    fn damaged_bytes_stay_damaged_and_other_versions_are_refused() {
        let mut bytes = Record::new("payload", Timestamp::from_millis(7)).to_bytes().to_vec();
        bytes[33] ^= 1;
        assert!(Record::from_bytes(with_time(&bytes, Timestamp::NEVER)).is_err());
        bytes[0] = VERSION + 1;
        assert!(RecordHeader::from_bytes(*bytes.first_chunk().unwrap()).is_none());
    }
}
