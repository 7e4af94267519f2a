//! A record as a string in Redis: its time, and its bytes.
//!
//! Promises: the time can be moved without touching the bytes; a value that is not a record, or is damaged, is read as
//! none; an expiry never comes before the record's time.

use bytes::{BufMut, Bytes, BytesMut};

use crate::storage::record::{Record, Stamp};
use crate::time::Timestamp;

/// The time comes first, in so many decimal digits of milliseconds since the epoch.
pub(super) const TIME: usize = 20;

/// Expiries further away than this are not set (Dragonfly takes none above 8.5 years): the record stays.
const FURTHEST: u64 = 8 * 365 * 24 * 3600 * 1000;

pub(super) fn digits(time: Timestamp) -> String {
    format!("{:0TIME$}", time.as_millis())
}

pub(super) fn encode(record: &Record) -> Bytes {
    let bytes = record.to_bytes();
    let mut value = BytesMut::with_capacity(TIME + bytes.len());
    value.put_slice(digits(record.retain_until()).as_bytes());
    value.put_slice(&bytes);
    value.freeze()
}

pub(super) fn time(digits: &[u8]) -> Option<Timestamp> {
    let digits = digits.get(..TIME)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().map(Timestamp::from_millis)
}

/// The record in a value; `None` for what is none.
pub(super) fn decode(value: Vec<u8>) -> Option<Record> {
    let value = Bytes::from(value);
    let time = time(&value)?;
    match Record::from_bytes(value.slice(TIME..)) {
        Ok(record) => Some(record.with_retain_until(time)),
        Err(error) => {
            tracing::debug!(%error, "a value in redis is not a record: it counts as absent");
            None
        }
    }
}

/// The stamp that the scripts find in a value, which may be damaged.
pub(super) fn stamp_in(value: &[u8]) -> Option<Stamp> {
    let stamp = value.get(TIME + 5..TIME + 5 + Stamp::LEN)?;
    (value[TIME] == 1).then(|| stamp.try_into().ok().map(Stamp::from_bytes))?
}

/// When the server may drop a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Its time is over.
    Past,
    /// In so many milliseconds.
    In(u64),
    Never,
}

impl Expiry {
    pub(super) fn of(until: Timestamp, now: Timestamp) -> Self {
        match until.as_millis().saturating_sub(now.as_millis()) {
            0 => Self::Past,
            far if far > FURTHEST => Self::Never,
            millis => Self::In(millis),
        }
    }

    /// As the scripts take it: milliseconds, `0` for what is over, nothing for never.
    pub(super) fn argument(self) -> String {
        match self {
            Self::Past => "0".to_owned(),
            Self::In(millis) => millis.to_string(),
            Self::Never => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_with_the_time_before_its_bytes() {
        for time in [Timestamp::EPOCH, Timestamp::from_millis(1_795_000_000_123), Timestamp::NEVER] {
            let record = Record::new("payload", time);
            let mut value = encode(&record).to_vec();
            let read = decode(value.clone()).unwrap();
            assert_eq!(
                (read.payload(), read.stamp(), read.retain_until()),
                ("payload".into(), record.stamp(), time)
            );
            value[..TIME].copy_from_slice(digits(Timestamp::from_millis(7)).as_bytes());
            assert_eq!(decode(value).unwrap().retain_until(), Timestamp::from_millis(7));
        }
    }

    #[test]
    fn anything_else_is_no_record() {
        let good = encode(&Record::new("payload", Timestamp::NEVER)).to_vec();
        for len in 0..good.len() {
            assert!(decode(good[..len].to_vec()).is_none());
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x80;
            assert!(decode(bad).is_none(), "byte {at}");
        }
        let mut above = good;
        above[..TIME].fill(b'9');
        assert!(decode(above).is_none(), "a time that no timestamp has");
    }

    #[test]
    fn expiries_are_relative_and_those_far_away_are_none() {
        let now = Timestamp::from_secs(1_000_000_000);
        let after = |millis| Timestamp::from_millis(now.as_millis() + millis);
        assert_eq!(Expiry::of(Timestamp::EPOCH, now), Expiry::Past);
        assert_eq!(Expiry::of(now, now), Expiry::Past);
        assert_eq!(Expiry::of(after(1), now), Expiry::In(1));
        assert_eq!(Expiry::of(after(FURTHEST), now), Expiry::In(FURTHEST));
        assert_eq!(Expiry::of(after(FURTHEST + 1), now), Expiry::Never);
        assert_eq!(Expiry::of(Timestamp::NEVER, now), Expiry::Never);
    }
}
