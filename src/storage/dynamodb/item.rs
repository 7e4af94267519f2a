//! A record as an item in DynamoDB.
//!
//! Promises: the time can be moved without touching the bytes; an item that is not a record, or is damaged, is read as
//! none; the time that DynamoDB drops an item at is never before the record's.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::naming::{Item, Naming, STAMP, UNTIL, VALUE};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::key::Key;
use crate::storage::record::{Record, Stamp};
use crate::time::Timestamp;

/// DynamoDB takes 400 KiB with the names; the rest is room for them.
pub(super) const LONGEST: usize = 390 << 10;

/// The end of the year 9999: what is kept for longer has no expiry.
const FURTHEST: u64 = 253_402_300_799;

pub(super) fn stamp(stamp: Stamp) -> AttributeValue {
    AttributeValue::B(Blob::new(stamp.to_bytes()))
}

pub(super) fn until(time: Timestamp) -> AttributeValue {
    AttributeValue::N(time.as_millis().to_string())
}

/// In seconds, rounded up; none for never, and for what is too far away.
pub(super) fn expires(time: Timestamp) -> Option<AttributeValue> {
    let seconds = time.as_millis().div_ceil(1000);
    (seconds <= FURTHEST).then(|| AttributeValue::N(seconds.to_string()))
}

pub(super) fn encode(naming: &Naming, key: Key, record: &Record) -> Result<Item> {
    let value = record.to_bytes();
    if value.len() > LONGEST {
        return Err(Error::new(ErrorKind::TooLarge, "the record is longer than this store takes"));
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

/// The record in an item; `None` for what is none.
pub(super) fn decode(mut item: Item) -> Option<Record> {
    let record = match (item.remove(VALUE), item.get(UNTIL)) {
        (Some(AttributeValue::B(value)), Some(AttributeValue::N(until))) => {
            let until = until.parse().ok().map(Timestamp::from_millis);
            let record = Record::from_bytes(value.into_inner()).ok();
            until.zip(record).map(|(until, record)| record.with_retain_until(until))
        }
        _ => None,
    };
    let record = record.filter(|record| item.get(STAMP) == Some(&stamp(record.stamp())));
    if record.is_none() {
        tracing::debug!("an item in dynamodb is not a record: it counts as absent");
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming() -> Naming {
        Naming::new("app".into(), "entry".into(), "record".into(), "expires".into()).unwrap()
    }

    #[test]
    fn a_record_comes_back_with_the_time_beside_its_bytes() {
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
    fn an_item_that_lacks_an_attribute_or_has_another_in_its_place_is_no_record() {
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
    fn expiries_are_rounded_up_and_those_far_away_are_none() {
        let of = |millis| expires(Timestamp::from_millis(millis)).map(|value| value.as_n().unwrap().clone());
        assert_eq!(of(0).unwrap(), "0");
        assert_eq!(of(1).unwrap(), "1");
        assert_eq!(of(1000).unwrap(), "1");
        assert_eq!(of(1001).unwrap(), "2");
        assert_eq!(of(FURTHEST * 1000).unwrap(), FURTHEST.to_string());
        assert_eq!(of(FURTHEST * 1000 + 1), None);
        assert_eq!(of(u64::MAX), None);
    }
}
