//! The form of a record as a document.
//!
//! # Invariants
//! - The retention time can be moved by `$max` and `$min` alone, without touching the bytes of the record.
//! - `$max` and `$min` never shorten a record that never expires by mistake: its `expires` sorts after every
//!   date.
//! - A document that is damaged or is not a record is read as absent.
//! - No retention time overflows a date.

use ::mongodb::bson::raw::RawBinaryRef;
use ::mongodb::bson::spec::BinarySubtype;
use ::mongodb::bson::{Binary, Bson, DateTime, Document, RawBsonRef, RawDocument, RawDocumentBuf, cstr, doc};

use crate::error::Result;
use crate::storage::contract::Retain;
use crate::storage::key::{Key, Kind};
use crate::storage::record::{Record, Stamp};
use crate::time::Timestamp;

/// The last time that is stored as a date.
///
/// It is the end of the year 9999, in milliseconds since the Unix epoch.
///
/// MongoDB itself stores later dates, but tools do not show them.
pub(super) const MAX_DATE_MS: u64 = 253_402_300_799_999;

/// The kinds of records that count as stored responses.
pub(super) const LISTED_KINDS: [&str; 2] = [Kind::Head.name(), Kind::Variant.name()];

fn binary(bytes: &[u8]) -> RawBinaryRef<'_> {
    RawBinaryRef { subtype: BinarySubtype::Generic, bytes }
}

/// Returns a stamp as the value of the field `stamp`.
pub(super) fn stamp(stamp: Stamp) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: stamp.to_bytes().to_vec() })
}

/// Returns a time as the value of the field `until`.
///
/// A string, because BSON has no unsigned 64-bit integer. Its width is fixed, so that strings sort as the
/// times do.
fn padded_millis(time: Timestamp) -> String {
    format!("{:020}", time.as_millis())
}

/// Returns a time as the value of the field `expires`.
///
/// `MaxKey` stands for times that no date can hold. It sorts after every date, so it takes part in `$max` and
/// `$min`, and the TTL monitor ignores it.
fn expiry_date(time: Timestamp) -> Bson {
    match i64::try_from(time.as_millis()) {
        Ok(millis) if time.as_millis() <= MAX_DATE_MS => DateTime::from_millis(millis).into(),
        _ => Bson::MaxKey,
    }
}

/// Returns the document of a record, whose bytes the caller has made already.
///
/// In the form in which it is sent, since the driver would copy every field of a [`Document`] once more.
pub(super) fn encode(key: Key, record: &Record, bytes: &[u8]) -> RawDocumentBuf {
    let until = record.retain_until();
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), key.to_string());
    document.append(cstr!("kind"), key.kind.name());
    document.append(cstr!("stamp"), binary(&record.stamp().to_bytes()));
    document.append(cstr!("until"), padded_millis(until));
    match expiry_date(until) {
        Bson::DateTime(date) => document.append(cstr!("expires"), date),
        _ => document.append(cstr!("expires"), RawBsonRef::MaxKey),
    }
    document.append(cstr!("value"), binary(bytes));
    document
}

/// Returns the key of a document, or `None` if its `_id` is not a key.
pub(super) fn key(document: &RawDocument) -> Option<Key> {
    document.get_str("_id").ok()?.parse().ok()
}

/// Returns the bytes of a field, or `None` if it has none.
fn bytes<'a>(document: &'a RawDocument, field: &str) -> Option<&'a [u8]> {
    let binary = document.get_binary(field).ok()?;
    (binary.subtype == BinarySubtype::Generic).then_some(binary.bytes)
}

/// Returns the stamp and the retention time in a document, or `None` if it lacks one.
pub(super) fn stamp_of(document: &RawDocument) -> Option<(Stamp, Timestamp)> {
    let stamp = bytes(document, "stamp")?.try_into().ok()?;
    Some((Stamp::from_bytes(stamp), until(document)?))
}

/// Returns the retention time in a document.
fn until(document: &RawDocument) -> Option<Timestamp> {
    let until = document.get_str("until").ok()?;
    // `parse` would accept a sign and fewer digits, which do not sort as times do.
    if until.len() != 20 || !until.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(Timestamp::from_millis(until.parse().ok()?))
}

/// Returns the record in a document, or `None` if the document is not a record.
///
/// `read` reads it from its bytes.
pub(super) fn decode(document: &RawDocument, read: impl FnOnce(&[u8]) -> Result<Record>) -> Option<Record> {
    let (own_stamp, until) = stamp_of(document)?;
    match read(bytes(document, "value")?) {
        // `write_if` compares the field `stamp`, and the cache the stamp within the bytes. Where they differ,
        // the document was put together from two records.
        Ok(record) if record.stamp() == own_stamp => Some(record.with_retain_until(until)),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "a document in mongodb is not a record and is treated as absent");
            None
        }
    }
}

/// Returns the record in a document like [`decode`], with its own copy of the bytes.
pub(super) fn decode_copy(document: &RawDocument) -> Option<Record> {
    decode(document, |bytes| Record::from_bytes(bytes.to_vec()))
}

/// Returns a filter that matches this document while it is unchanged.
///
/// The document need not be a record.
pub(super) fn unchanged_filter(document: &RawDocument) -> Document {
    let mut filter = Document::new();
    for field in ["_id", "stamp", "until", "value"] {
        let value = document.get(field).ok().flatten().and_then(|value| Bson::try_from(value).ok());
        filter.insert(field, value.unwrap_or_else(|| doc! { "$exists": false }.into()));
    }
    filter
}

/// Returns the update that moves the retention time.
pub(super) fn retention_update(retain: Retain) -> Document {
    let (operator, time) = match retain {
        Retain::AtLeast(time) => ("$max", time),
        Retain::AtMost(time) => ("$min", time),
    };
    doc! { operator: { "until": padded_millis(time), "expires": expiry_date(time) } }
}

/// Returns a filter that matches the records that have expired at `now`.
///
/// It uses the index on `expires`. Times later than any date differ in `until` alone, which has no index.
pub(super) fn expired_filter(now: Timestamp) -> Document {
    match expiry_date(now) {
        Bson::MaxKey => doc! { "until": { "$lte": padded_millis(now) } },
        date => doc! { "expires": { "$lte": date } },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(document: &Document) -> Option<Record> {
        decode_copy(&RawDocumentBuf::try_from(document).unwrap())
    }

    fn encoded(record: &Record) -> Document {
        encode(Key::head([7; 16]), record, &record.to_bytes()).try_into().unwrap()
    }

    #[test]
    fn record_is_read_with_the_time_beside_its_bytes() {
        let ends = [0, 1_795_000_000_123, MAX_DATE_MS, MAX_DATE_MS + 1, u64::MAX - 1, u64::MAX];
        for time in ends.map(Timestamp::from_millis) {
            let record = Record::new("payload", time);
            let mut document = encoded(&record);
            let id = RawDocumentBuf::try_from(&document).unwrap();
            assert_eq!(key(&id), Some(Key::head([7; 16])));
            let read = decode(&document).unwrap();
            assert_eq!(
                (read.payload(), read.stamp(), read.retain_until()),
                ("payload".into(), record.stamp(), time)
            );
            document.insert("until", padded_millis(Timestamp::from_millis(7)));
            assert_eq!(decode(&document).unwrap().retain_until(), Timestamp::from_millis(7));
        }
    }

    #[test]
    fn times_beyond_every_date_are_max_key() {
        let date = |millis| expiry_date(Timestamp::from_millis(millis));
        assert_eq!(date(MAX_DATE_MS), Bson::DateTime(DateTime::from_millis(253_402_300_799_999)));
        assert_eq!(date(MAX_DATE_MS + 1), Bson::MaxKey);
        assert_eq!(date(u64::MAX), Bson::MaxKey);
    }

    #[test]
    fn damaged_document_is_not_a_record() {
        let good = encoded(&Record::new("payload", Timestamp::NEVER));
        for field in ["stamp", "until", "value"] {
            let mut bad = good.clone();
            bad.remove(field);
            assert!(decode(&bad).is_none(), "{field}");
            bad.insert(field, "text");
            assert!(decode(&bad).is_none(), "{field}");
        }
        let mut other = good;
        other.insert("stamp", stamp(Stamp::random()));
        assert!(decode(&other).is_none(), "the stamp of another record");
    }
}
