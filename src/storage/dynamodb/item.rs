//! The form of a record as an item.
//!
//! # Invariants
//! - The retention time can be moved without touching the bytes of the record.
//! - An item that is damaged or is not a record is read as absent.
//! - DynamoDB's time to live never ends before the retention time of the record.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::naming::{Item, Naming, STAMP, UNTIL, VALUE};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::key::Key;
use crate::storage::record::{Record, Stamp};
use crate::time::Timestamp;

/// The longest record, in bytes.
///
/// DynamoDB limits an item to 400 KB, with the names and values of all attributes. The rest is room for these.
pub(super) const MAX_RECORD_LEN: usize = 390 << 10;

/// The last time that is stored as a time to live.
///
/// It is the end of the year 9999, in seconds since the Unix epoch.
///
/// A record that is retained for longer gets no time to live, as if it were retained forever.
const MAX_EXPIRY_SECS: u64 = 253_402_300_799;

/// Returns a stamp as the value of the attribute `stamp`.
pub(super) fn stamp(stamp: Stamp) -> AttributeValue {
    AttributeValue::B(Blob::new(stamp.to_bytes()))
}

/// Returns a time as the value of the attribute `until`.
pub(super) fn until(time: Timestamp) -> AttributeValue {
    AttributeValue::N(time.as_millis().to_string())
}

/// Returns a time as the value of the time to live.
///
/// Returns `None` for an item that DynamoDB must not delete.
pub(super) fn expires(time: Timestamp) -> Option<AttributeValue> {
    // Rounded up: a time to live that is rounded down would end before the retention time.
    let seconds = time.as_millis().div_ceil(1000);
    (seconds <= MAX_EXPIRY_SECS).then(|| AttributeValue::N(seconds.to_string()))
}

/// Returns the item of a record.
///
/// # Errors
/// Returns [`TooLarge`](ErrorKind::TooLarge) if the record is longer than [`MAX_RECORD_LEN`].
pub(super) fn encode(naming: &Naming, key: Key, record: &Record) -> Result<Item> {
    let value = record.to_bytes();
    if value.len() > MAX_RECORD_LEN {
        return Err(Error::new(ErrorKind::TooLarge, "the record is longer than the storage accepts"));
    }
    let mut item = naming.key(key);
    item.insert(STAMP.to_owned(), stamp(record.stamp()));
    item.insert(UNTIL.to_owned(), until(record.retain_until()));
    item.insert(VALUE.to_owned(), AttributeValue::B(Blob::new(value)));
    if let Some(expires) = expires(record.retain_until()) {
        item.insert(naming.expires.clone(), expires);
    }
    Ok(item)
}

/// Returns the stamp and the retention time in an item, or `None` if it lacks one.
pub(super) fn stamp_of(item: &Item) -> Option<(Stamp, Timestamp)> {
    let (Some(AttributeValue::B(stamp)), Some(AttributeValue::N(until))) = (item.get(STAMP), item.get(UNTIL))
    else {
        return None;
    };
    let stamp = stamp.as_ref().try_into().ok().map(Stamp::from_bytes)?;
    Some((stamp, until.parse().ok().map(Timestamp::from_millis)?))
}

/// Returns the record in an item, or `None` if the item is not a record.
///
/// `read` reads it from its bytes.
pub(super) fn decode(mut item: Item, read: impl FnOnce(Vec<u8>) -> Result<Record>) -> Option<Record> {
    let record = match (item.remove(VALUE), item.get(UNTIL)) {
        (Some(AttributeValue::B(value)), Some(AttributeValue::N(until))) => {
            let until = until.parse().ok().map(Timestamp::from_millis);
            let record = read(value.into_inner()).ok();
            until.zip(record).map(|(until, record)| record.with_retain_until(until))
        }
        _ => None,
    };
    // `write_if` compares the attribute, and the cache the stamp within the bytes: where they differ, the
    // item was put together from two records.
    let record = record.filter(|record| item.get(STAMP) == Some(&stamp(record.stamp())));
    if record.is_none() {
        tracing::debug!("an item in dynamodb is not a record and is treated as absent");
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(item: Item) -> Option<Record> {
        super::decode(item, Record::from_bytes)
    }

    fn naming() -> Naming {
        Naming::new("app".into(), "entry".into(), "record".into(), "expires".into()).unwrap()
    }

    #[test]
    fn record_is_read_with_the_time_beside_its_bytes() {
        for time in [Timestamp::EPOCH, Timestamp::from_millis(1_795_000_000_123), Timestamp::NEVER] {
            let record = Record::new("payload", time);
            let mut item = encode(&naming(), Key::head([1; 16]), &record).unwrap();
            let read = decode(item.clone()).unwrap();
            assert_eq!(
                (read.payload(), read.stamp(), read.retain_until()),
                ("payload".into(), record.stamp(), time)
            );
            item.insert(UNTIL.into(), until(Timestamp::from_millis(7)));
            assert_eq!(decode(item).unwrap().retain_until(), Timestamp::from_millis(7));
        }
    }

    #[test]
    fn item_with_a_missing_or_foreign_attribute_is_not_a_record() {
        let good = encode(&naming(), Key::head([1; 16]), &Record::new("payload", Timestamp::NEVER)).unwrap();
        for name in [STAMP, UNTIL, VALUE] {
            let mut bad = good.clone();
            bad.remove(name);
            assert!(decode(bad.clone()).is_none(), "{name}");
            let others = [
                AttributeValue::S("text".into()),
                AttributeValue::B(Blob::new([1])),
                AttributeValue::N("-1".into()),
            ];
            for other in others {
                bad.insert(name.into(), other);
                assert!(decode(bad.clone()).is_none(), "{name}");
            }
        }
    }

    #[test]
    fn expiries_are_rounded_up_and_bounded() {
        let of = |millis| expires(Timestamp::from_millis(millis)).map(|value| value.as_n().unwrap().clone());
        assert_eq!(of(0).unwrap(), "0");
        assert_eq!(of(1).unwrap(), "1");
        assert_eq!(of(1000).unwrap(), "1");
        assert_eq!(of(1001).unwrap(), "2");
        assert_eq!(of(MAX_EXPIRY_SECS * 1000).unwrap(), MAX_EXPIRY_SECS.to_string());
        assert_eq!(of(MAX_EXPIRY_SECS * 1000 + 1), None);
        assert_eq!(of(u64::MAX), None);
    }
}
