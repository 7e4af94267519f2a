//! Encodes a record as a string in Redis.
//!
//! # Invariants
//!
//! - The time can be moved without touching the bytes.
//! - A value that is damaged, or is not a record, is decoded as `None`.
//! - The server's expiry is never before the record's time.

use std::io::Write;

use bytes::Bytes;
use deadpool_redis::redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};

use crate::storage::key::Key;
use crate::storage::recent_records::RecentRecords;
use crate::storage::record::{HEADER, Record, Stamp};
use crate::time::Timestamp;

/// The length of the time at the beginning of a value.
///
/// The time is in milliseconds since the Unix epoch, as decimal digits. The largest `u64` has as many, and with leading zeros
/// the scripts can compare times as strings.
pub(super) const TIME_LEN: usize = 20;

/// Where the stamp begins and ends in a value: after the time, one byte of version and four of checksum.
const STAMP_START: usize = TIME_LEN + 5;
pub(super) const STAMP_END: usize = STAMP_START + Stamp::LEN;

/// The furthest expiry, in milliseconds. Dragonfly refuses one of more than 8.5 years. A record that is kept for longer never
/// expires in Redis.
const MAX_EXPIRY: u64 = 8 * 365 * 24 * 3600 * 1000;

/// A time as digits.
pub(super) type TimeDigits = [u8; TIME_LEN];

/// Encodes a time as digits.
pub(super) fn encode_time(time: Timestamp) -> TimeDigits {
    let mut digits = [b'0'; TIME_LEN];
    let mut rest = time.as_millis();
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

/// Decodes the time at the beginning of a value. Returns `None` for anything but digits.
pub(super) fn decode_time(value: &[u8]) -> Option<Timestamp> {
    let (last, digits) = value.first_chunk::<TIME_LEN>()?.split_last()?;
    // `parse` would also accept a sign.
    if !last.is_ascii_digit() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Only the last of the digits can exceed a `u64`.
    let millis = digits.iter().fold(0_u64, |millis, digit| millis * 10 + u64::from(digit - b'0'));
    millis.checked_mul(10)?.checked_add(u64::from(last - b'0')).map(Timestamp::from_millis)
}

/// The value of a record, in the pieces of which it consists.
///
/// As an argument it is written into the command at once, so that a long payload is not joined with the rest before.
pub(super) struct EncodedValue {
    time: TimeDigits,
    header: [u8; HEADER],
    payload: Bytes,
}

impl EncodedValue {
    pub(super) fn of(record: &Record) -> Self {
        let (header, payload) = record.to_parts();
        Self { time: encode_time(record.retain_until()), header, payload }
    }

    pub(super) fn len(&self) -> usize {
        TIME_LEN + self.record_len()
    }

    /// Returns the length without the digits of the time.
    pub(super) fn record_len(&self) -> usize {
        HEADER + self.payload.len()
    }
}

impl ToRedisArgs for EncodedValue {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut argument = out.writer_for_next_arg();
        for piece in [&self.time[..], &self.header, &self.payload] {
            // Writing to a command never fails.
            let _ = argument.write_all(piece);
        }
    }
}

impl ToSingleRedisArg for EncodedValue {}

/// Decodes the record at a key. Returns `None` for a value that is damaged or not a record.
///
/// With `recent` the record is remembered, so that it is decoded once while it is read often.
pub(super) fn decode(key: Key, value: Vec<u8>, recent: Option<&RecentRecords>) -> Option<Record> {
    let time = decode_time(&value)?;
    let record = match recent {
        Some(recent) => recent.read(key, value, TIME_LEN),
        None => Record::from_bytes(Bytes::from(value).slice(TIME_LEN..)),
    };
    match record {
        Ok(record) => Some(record.with_retain_until(time)),
        Err(error) => {
            tracing::debug!(%error, "a value in redis is damaged or not a record, and counts as absent");
            None
        }
    }
}

/// Returns the stamp that the scripts find in a value, even if it is damaged.
pub(super) fn raw_stamp(value: &[u8]) -> Option<Stamp> {
    let stamp = value.get(STAMP_START..STAMP_END)?;
    (value[TIME_LEN] == 1).then(|| stamp.try_into().ok().map(Stamp::from_bytes))?
}

/// When the server removes a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Now, since its time is over.
    Past,
    /// In this many milliseconds.
    In(u64),
    Never,
}

impl Expiry {
    /// Returns the expiry of a record that is kept until a time.
    pub(super) fn of(until: Timestamp, now: Timestamp) -> Self {
        match until.as_millis().saturating_sub(now.as_millis()) {
            0 => Self::Past,
            far if far > MAX_EXPIRY => Self::Never,
            millis => Self::In(millis),
        }
    }

    /// Returns the expiry as an argument of the scripts.
    ///
    /// That is a number of milliseconds, `0` for now, or nothing for never.
    pub(super) fn to_argument(self) -> String {
        match self {
            Self::Past => "0".to_owned(),
            Self::In(millis) => millis.to_string(),
            Self::Never => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use deadpool_redis::redis::{Arg, Cmd};

    use super::*;

    fn encode(record: &Record) -> Vec<u8> {
        let mut command = Cmd::new();
        command.arg(EncodedValue::of(record));
        let Some(Arg::Simple(value)) = command.args_iter().next() else { panic!("no argument") };
        value.to_vec()
    }

    fn decode(value: Vec<u8>) -> Option<Record> {
        super::decode(Key::head([1; 16]), value, None)
    }

    #[test]
    fn record_roundtrips_with_moved_time() {
        for time in [Timestamp::EPOCH, Timestamp::from_millis(1_795_000_000_123), Timestamp::NEVER] {
            let record = Record::new("payload", time);
            let mut value = encode(&record);
            assert_eq!(value.len(), EncodedValue::of(&record).len());
            assert_eq!(value[TIME_LEN..], record.to_bytes());
            let read = decode(value.clone()).unwrap();
            assert_eq!(
                (read.payload(), read.stamp(), read.retain_until()),
                ("payload".into(), record.stamp(), time)
            );
            value[..TIME_LEN].copy_from_slice(&encode_time(Timestamp::from_millis(7)));
            assert_eq!(decode(value).unwrap().retain_until(), Timestamp::from_millis(7));
        }
    }

    #[test]
    fn damaged_value_is_not_a_record() {
        let good = encode(&Record::new("payload", Timestamp::NEVER));
        for len in 0..good.len() {
            assert!(decode(good[..len].to_vec()).is_none());
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x80;
            assert!(decode(bad).is_none(), "byte {at}");
        }
        let mut above = good;
        above[..TIME_LEN].fill(b'9');
        assert!(decode(above).is_none(), "a time that no timestamp has");
    }

    #[test]
    fn expiry_is_relative_and_never_if_far_away() {
        let now = Timestamp::from_secs(1_000_000_000);
        let after = |millis| Timestamp::from_millis(now.as_millis() + millis);
        assert_eq!(Expiry::of(Timestamp::EPOCH, now), Expiry::Past);
        assert_eq!(Expiry::of(now, now), Expiry::Past);
        assert_eq!(Expiry::of(after(1), now), Expiry::In(1));
        assert_eq!(Expiry::of(after(MAX_EXPIRY), now), Expiry::In(MAX_EXPIRY));
        assert_eq!(Expiry::of(after(MAX_EXPIRY + 1), now), Expiry::Never);
        assert_eq!(Expiry::of(Timestamp::NEVER, now), Expiry::Never);
    }
}
