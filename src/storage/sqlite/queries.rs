//! Queries of the tables, and the columns of keys and records.
//!
//! # Invariants
//!
//! - A row whose bytes, stamp or key are damaged counts as absent. It is never an error.
//! - Each function is one statement, so it sees one state of the database.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::tables::ROW_OVERHEAD;
use crate::error::Result;
use crate::storage::key::{Key, Kind};
use crate::storage::recent_records::RecentRecords;
use crate::storage::record::{Record, Stamp};
use crate::time::Timestamp;

/// The value of a record above the size is not read, since only the branch that applies is evaluated.
const READ: &str = "SELECT r.stamp, r.until, CASE WHEN r.size <= ?5 THEN c.value END, r.size
    FROM records r JOIN contents c ON c.id = r.content
    WHERE r.entry = ?1 AND r.kind = ?2 AND r.slot = ?3 AND r.part = ?4";

const STAMP: &str =
    "SELECT stamp, until FROM records WHERE entry = ?1 AND kind = ?2 AND slot = ?3 AND part = ?4";

const KEYS: &str = "SELECT entry, kind, slot, part FROM records
    WHERE (entry, kind, slot, part) > (?1, ?2, ?3, ?4) ORDER BY entry, kind, slot, part LIMIT ?5";

const LISTED: &str = "SELECT r.stamp, r.until, c.value, r.entry, r.kind, r.slot, r.part
    FROM records r JOIN contents c ON c.id = r.content
    WHERE (r.entry, r.kind, r.slot, r.part) > (?1, ?2, ?3, ?4) AND r.kind <= 1
    ORDER BY r.entry, r.kind, r.slot, r.part LIMIT ?5";

/// The kinds 0 and 1 are heads and variants, which are the listed ones.
const COUNT_LISTED: &str = "SELECT count(*) FROM records WHERE kind <= 1";

/// Some rows, and the key after which the next page begins. `None`: this page is the last.
pub(super) type Page<T> = (Vec<T>, Option<Key>);

/// A blob that sorts before every entry, since it is empty.
const BEFORE_ALL: &[u8] = &[];

/// Returns the record at a key, unless it is absent or damaged.
pub(super) fn read(connection: &Connection, key: Key) -> rusqlite::Result<Option<Record>> {
    Ok(read_up_to(connection, None, key, usize::MAX)?.flatten())
}

/// Returns the record at a key as [`read`] does, or `None` if its bytes are longer than `max_len`.
///
/// With `recent` the record is remembered, so that it is decoded once while it is read often.
pub(super) fn read_up_to(
    connection: &Connection,
    recent: Option<&RecentRecords>,
    key: Key,
    max_len: usize,
) -> rusqlite::Result<Option<Option<Record>>> {
    let max_size = i64::try_from((max_len as u64).saturating_add(ROW_OVERHEAD)).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(READ)?;
    let found =
        statement.query_row(params![key.entry, key.kind as u8, key.slot, key.part, max_size], |row| {
            let is_longer = row.get_ref(3)?.as_i64().is_ok_and(|size| size > max_size);
            let read = |bytes: &[u8]| match recent {
                Some(recent) => recent.read_slice(key, bytes),
                None => Record::from_bytes(Bytes::copy_from_slice(bytes)),
            };
            Ok(if is_longer { None } else { Some(record(row, read)) })
        });
    Ok(found.optional()?.unwrap_or(Some(None)))
}

/// Returns the stamp and the retention time of the record at a key, without its bytes, which may be damaged.
pub(super) fn stamp(connection: &Connection, key: Key) -> rusqlite::Result<Option<(Stamp, Timestamp)>> {
    let mut statement = connection.prepare_cached(STAMP)?;
    let found = statement.query_row(params![key.entry, key.kind as u8, key.slot, key.part], |row| {
        Ok(row.get(0).ok().map(Stamp::from_bytes).zip(row.get(1).ok().map(decode_time)))
    });
    Ok(found.optional()?.flatten())
}

/// Returns the keys after this one, in order, at most `limit` of them.
pub(super) fn keys_after(
    connection: &Connection,
    after: Option<Key>,
    limit: u32,
) -> rusqlite::Result<Page<Key>> {
    page(connection, KEYS, after, limit, |row| Ok(key(row, 0)))
}

/// Returns the heads and variants after this key, in order, with their records.
pub(super) fn values_after(
    connection: &Connection,
    after: Option<Key>,
    limit: u32,
) -> rusqlite::Result<Page<(Key, Record)>> {
    let (rows, last) = page(connection, LISTED, after, limit, |row| {
        let copy = |bytes: &[u8]| Record::from_bytes(Bytes::copy_from_slice(bytes));
        Ok(key(row, 3).map(|key| (key, record(row, copy))))
    })?;
    Ok((rows.into_iter().filter_map(|(key, record)| Some((key, record?))).collect(), last))
}

/// Counts the heads and variants.
pub(super) fn count_listed(connection: &Connection) -> rusqlite::Result<u64> {
    let count: i64 = connection.prepare_cached(COUNT_LISTED)?.query_row([], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Returns the sum of the sizes of all records.
pub(super) fn total_bytes(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT bytes FROM totals")?.query_row([], |row| row.get(0))
}

/// A row of a page, with the key that tells where the page ends.
trait Keyed {
    fn key(&self) -> Key;
}

impl Keyed for Key {
    fn key(&self) -> Key {
        *self
    }
}

impl<T> Keyed for (Key, T) {
    fn key(&self) -> Key {
        self.0
    }
}

fn page<T: Keyed>(
    connection: &Connection,
    sql: &str,
    after: Option<Key>,
    limit: u32,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<Option<T>>,
) -> rusqlite::Result<Page<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = match after {
        Some(key) => statement.query(params![key.entry, key.kind as u8, key.slot, key.part, limit])?,
        None => statement.query(params![BEFORE_ALL, 0, BEFORE_ALL, 0, limit])?,
    };
    let (mut found, mut seen) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        seen += 1;
        // `None` for a key that this version does not know.
        found.extend(read(row)?);
    }
    let last = if seen == limit { found.last().map(Keyed::key) } else { None };
    Ok((found, last))
}

/// Reads a record from the columns `stamp`, `until` and `value`.
fn record(row: &Row<'_>, read: impl FnOnce(&[u8]) -> Result<Record>) -> Option<Record> {
    let record = read(row.get_ref(2).ok()?.as_blob().ok()?).ok()?;
    // The bytes have a stamp, too. Different ones mean that the row has the contents of another record.
    let stamp = Stamp::from_bytes(row.get(0).ok()?);
    (record.stamp() == stamp).then_some(())?;
    Some(record.with_retain_until(decode_time(row.get(1).ok()?)))
}

/// Reads a key from four columns, beginning at `from`.
///
/// They are `entry`, `kind`, `slot` and `part`.
fn key(row: &Row<'_>, from: usize) -> Option<Key> {
    Some(Key {
        entry: row.get(from).ok()?,
        kind: Kind::from_u8(row.get(from + 1).ok()?)?,
        slot: row.get(from + 2).ok()?,
        part: row.get(from + 3).ok()?,
    })
}

/// Encodes a time for the column `until`. Times beyond SQLite's integers (292 million years) become never.
pub(super) fn encode_time(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Decodes a time from the column `until`.
pub(super) fn decode_time(until: i64) -> Timestamp {
    match until {
        i64::MAX => Timestamp::NEVER,
        until => Timestamp::from_millis(u64::try_from(until).unwrap_or(0)),
    }
}
