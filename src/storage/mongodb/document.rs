//! A record as a document.
//!
//! Promises: the time can be moved by `$max` and `$min` alone, without touching the bytes, and never has no date to be
//! shortened by mistake; a document that is not a record, or is damaged, is read as none; no time overflows a date.

use ::mongodb::bson::spec::BinarySubtype;
use ::mongodb::bson::{Binary, Bson, DateTime, Document, doc};

use crate::storage::contract::Retain;
use crate::storage::key::{Key, Kind};
use crate::storage::record::{Record, Stamp};
use crate::time::Timestamp;

/// The end of the year 9999: tools show no later dates.
pub(super) const LAST_DATE: u64 = 253_402_300_799_999;

pub(super) const LISTED: [&str; 2] = [Kind::Head.name(), Kind::Variant.name()];

pub(super) fn binary(bytes: Vec<u8>) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes })
}

pub(super) fn stamp(stamp: Stamp) -> Bson {
    binary(stamp.to_bytes().to_vec())
}

/// Of fixed width, so that texts are in the order of times.
pub(super) fn digits(time: Timestamp) -> String {
    format!("{:020}", time.as_millis())
}

/// What sorts after every date takes part in `$max` and `$min`, and the TTL monitor passes it by.
fn expires(time: Timestamp) -> Bson {
    match i64::try_from(time.as_millis()) {
        Ok(millis) if time.as_millis() <= LAST_DATE => DateTime::from_millis(millis).into(),
        _ => Bson::MaxKey,
    }
}

pub(super) fn encode(key: Key, record: &Record, bytes: Vec<u8>) -> Document {
    let until = record.retain_until();
    doc! {
        "_id": key.to_string(),
        "kind": key.kind.name(),
        "stamp": stamp(record.stamp()),
        "until": digits(until),
        "expires": expires(until),
        "value": binary(bytes),
    }
}

pub(super) fn key(document: &Document) -> Option<Key> {
    document.get_str("_id").ok()?.parse().ok()
}

/// The record in a document; `None` for what is none.
pub(super) fn decode(mut document: Document) -> Option<Record> {
    let until = document.get_str("until").ok()?;
    if until.len() != 20 || !until.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let until = Timestamp::from_millis(until.parse().ok()?);
    let own = match document.remove("stamp")? {
        Bson::Binary(binary) => binary.bytes,
        _ => return None,
    };
    let Bson::Binary(value) = document.remove("value")? else { return None };
    match Record::from_bytes(value.bytes) {
        Ok(record) if record.stamp().to_bytes()[..] == own[..] => Some(record.with_retain_until(until)),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "a document in mongodb is not a record: it counts as absent");
            None
        }
    }
}

/// Exactly this document, whatever it holds.
pub(super) fn same(there: &Document) -> Document {
    let mut filter = Document::new();
    for field in ["_id", "stamp", "until", "value"] {
        let value = there.get(field).cloned().unwrap_or_else(|| doc! { "$exists": false }.into());
        filter.insert(field, value);
    }
    filter
}

pub(super) fn moved(retain: Retain) -> Document {
    let (operator, time) = match retain {
        Retain::AtLeast(time) => ("$max", time),
        Retain::AtMost(time) => ("$min", time),
    };
    doc! { operator: { "until": digits(time), "expires": expires(time) } }
}

/// What is due. Times later than any date are told apart by their digits alone.
pub(super) fn due(now: Timestamp) -> Document {
    match expires(now) {
        Bson::MaxKey => doc! { "until": { "$lte": digits(now) } },
        date => doc! { "expires": { "$lte": date } },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(record: &Record) -> Document {
        encode(Key::head([7; 16]), record, record.to_bytes().to_vec())
    }

    #[test]
    fn a_record_comes_back_with_the_time_beside_its_bytes() {
        let ends = [0, 1_795_000_000_123, LAST_DATE, LAST_DATE + 1, u64::MAX - 1, u64::MAX];
        for time in ends.map(Timestamp::from_millis) {
            let record = Record::new("payload", time);
            let mut document = encoded(&record);
            assert_eq!(key(&document), Some(Key::head([7; 16])));
            let read = decode(document.clone()).unwrap();
            assert_eq!(
                (read.payload(), read.stamp(), read.retain_until()),
                ("payload".into(), record.stamp(), time)
            );
            document.insert("until", digits(Timestamp::from_millis(7)));
            assert_eq!(decode(document).unwrap().retain_until(), Timestamp::from_millis(7));
        }
    }

    #[test]
    fn only_times_that_a_date_can_hold_have_one() {
        let date = |millis| expires(Timestamp::from_millis(millis));
        assert_eq!(date(LAST_DATE), Bson::DateTime(DateTime::from_millis(253_402_300_799_999)));
        assert_eq!(date(LAST_DATE + 1), Bson::MaxKey);
        assert_eq!(date(u64::MAX), Bson::MaxKey);
    }

    #[test]
    fn a_document_that_lacks_something_or_is_damaged_is_no_record() {
        let good = encoded(&Record::new("payload", Timestamp::NEVER));
        for field in ["stamp", "until", "value"] {
            let mut bad = good.clone();
            bad.remove(field);
            assert!(decode(bad.clone()).is_none(), "{field}");
            bad.insert(field, "text");
            assert!(decode(bad).is_none(), "{field}");
        }
        let mut other = good;
        other.insert("stamp", stamp(Stamp::random()));
        assert!(decode(other).is_none(), "the stamp of another record");
    }
}
