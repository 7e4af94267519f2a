//! Clauses 5, 6, 13, 15 and 17, about deleting, clearing, limits and names.

use futures_util::{StreamExt, stream};

use super::*;
use crate::error::ErrorKind;

const DELETE: &str = "`delete` is idempotent, and returns whether there was a record";
const DELETE_MANY: &str = "`delete_many` returns how many records there were";
const PARTS: &str = "`contains_all` returns true if all of the keys have a record";
const CLEAR: &str = "`clear` removes the records of this cache, and leaves it usable";
const OTHER_CACHE: &str =
    "`clear` removes the records of this cache and of no other, whatever their names are";
const PREFIX: &str = "records are found by a prefix that the other name begins with: end it with a character that no name contains";
const NAMES: &str =
    "a name with special characters is accepted literally, or refused when the storage is built";
const UNQUOTED: &str =
    "the name gets into a pattern, a query or a path unquoted: escape it, or refuse the name with an error";

/// Checks that `delete` is idempotent, and returns whether there was a record (clause 5).
pub async fn delete_is_idempotent<H: Harness>(harness: &H) {
    let storage = open(harness, &[5]).await;
    demand!([5]; !storage.delete(head(1)).await, DELETE; "true where there is no record");
    storage.write(head(1), record("x")).await;
    demand!([5]; storage.delete(head(1)).await, DELETE; "false for a record");
    demand!([5]; !storage.delete(head(1)).await, DELETE; "true for a deleted record");
    demand!([5]; storage.text(head(1)).await => None, "`delete` removes the record");
}

/// Checks that `delete_many` counts the records that it removes (clause 5).
pub async fn delete_many_counts_removed_records<H: Harness>(harness: &H) {
    let storage = open(harness, &[5]).await;
    for part in 0..5 {
        storage.write(chunk(1, part), record("x")).await;
    }
    let keys: Vec<Key> = (1..8).map(|part| chunk(1, part)).collect();
    demand!([5]; storage.delete_many(&keys).await => 4, DELETE_MANY; cause "the keys are counted instead of the records");
    demand!([5]; storage.delete_many(&keys).await => 0, DELETE_MANY);
    demand!([5]; storage.delete_many(&[]).await => 0, DELETE_MANY);
    demand!([5]; storage.contains(chunk(1, 0)).await, "`delete_many` removes the records of its keys only";
        "the record of another key is gone");
}

/// Writes the first chunks of an entry.
///
/// Some at a time: a driver may refuse a burst of a thousand commands, which no case is about.
async fn write_chunks<S: Storage>(storage: &Tested<S>, count: u32) {
    let writes = stream::iter(0..count).map(|part| storage.write(chunk(1, part), record("x")));
    writes.buffer_unordered(16).collect::<()>().await;
}

/// Checks that `retain` and `delete_many` take more than a thousand keys (clauses 5 and 9).
///
/// These are more than drivers send in one command. One key appears twice, and some have no record.
pub async fn thousand_keys_at_once<H: Harness>(harness: &H) {
    let storage = open(harness, &[5, 9]).await;
    let count = 1100;
    write_chunks(&storage, count).await;
    let keys: Vec<Key> = (0..count + 100).map(|part| chunk(1, part)).collect();
    let until = LATER + Duration::from_secs(5);
    demand!([9]; storage.retain(&keys, Retain::AtLeast(until)).await => u64::from(count),
        "`retain` returns how many records there were, of any number of keys");
    for part in [0, count - 1] {
        demand!([9]; storage.existing(chunk(1, part)).await.retain_until() => until,
            "`retain` changes the retention time of every record");
    }
    let doubled: Vec<Key> = keys.iter().copied().chain([chunk(1, 0)]).collect();
    demand!([5]; storage.delete_many(&doubled).await => u64::from(count), DELETE_MANY);
    demand!([5]; storage.keys().await => [], "`delete_many` removes the record of every key");
}

/// Checks that `contains_all` returns true if all records exist (clause 17).
///
/// It may or may not notice that one is missing, but it must always answer alike.
pub async fn contains_all_of_existing_records<H: Harness>(harness: &H) {
    let storage = open(harness, &[17]).await;
    let keys: Vec<Key> = (0..600).map(|part| chunk(1, part)).collect();
    write_chunks(&storage, 600).await;
    for keys in [&keys[..], &[keys[7], keys[7]], &[]] {
        demand!([17]; storage.contains_all(keys).await, PARTS; "false for {} keys with a record", keys.len());
    }
    storage.delete(keys[300]).await;
    let answer = storage.contains_all(&keys).await;
    demand!([17]; storage.contains_all(&[keys[300]]).await => answer,
        "`contains_all` always notices a missing record, or never: it answers alike for one key and for 600";
        cause "only the first or the last of the keys is looked up");
}

/// Checks that `clear` removes every record, and leaves the storage usable (clause 6).
pub async fn clear_removes_all_records<H: Harness>(harness: &H) {
    let storage = open(harness, &[6]).await;
    for number in 0..20 {
        storage.write(head(number), record("x")).await;
        storage.write(chunk(number, 0), record("y")).await;
    }
    storage.clear().await;
    demand!([6]; storage.size().await => 0, CLEAR);
    for key in [head(3), chunk(3, 0)] {
        demand!([6]; storage.text(key).await => None, CLEAR);
    }
    storage.write(head(1), record("again")).await;
    demand!([6]; storage.text(head(1)).await.as_deref() => Some("again"), CLEAR);
}

/// Checks that `clear` spares a cache whose name begins with the same letters (clause 6).
pub async fn clear_spares_other_caches<H: Harness>(harness: &H) {
    let own = open_named(harness, "neighbour", &[6]).await;
    let neighbour = open_named(harness, "neighbour2", &[6]).await;
    neighbour.write(head(1), record("neighbour")).await;
    own.write(head(1), record("own")).await;
    own.clear().await;
    demand!([6]; neighbour.text(head(1)).await.as_deref() => Some("neighbour"), OTHER_CACHE; cause PREFIX);
    demand!([6]; own.text(head(1)).await => None, CLEAR);
    neighbour.clear().await;
}

/// Checks that names with special characters are kept apart, or refused (clause 15).
///
/// The characters have a meaning in shells, globs, quotes or paths.
pub async fn hostile_names_are_separate_or_refused<H: Harness>(harness: &H) {
    if !harness.shares() {
        return;
    }
    let victim = open_named(harness, "plain", &[15]).await;
    let written = record("neighbour");
    victim.write(head(1), written.clone()).await;
    let long = "n".repeat(5000);
    for name in [
        "*",
        "plai?",
        "plain*",
        "[a-z]lain",
        "{plain}",
        "%",
        "plai_",
        "%70lain",
        "plain:",
        "plain\n",
        "plain ",
        "'; DROP TABLE records; --",
        "\"",
        "`plain`",
        "plain\0",
        "a\0b",
        "naïve-имя-名前",
        "\u{202e}nialp",
        "",
        ".",
        "..",
        "$PLAIN",
        &long,
    ] {
        let Ok(hostile) = harness.open(name).await else { continue };
        let hostile = Tested::new(hostile, &[15]);
        demand!([15]; hostile.read(head(1)).await.is_none(), NAMES;
            "the name {name:?} has records of the name \"plain\""; cause UNQUOTED);
        demand!([15]; hostile.write_if(head(1), None, record("own")).await, NAMES; "{name:?} takes no new record");
        demand!([15]; hostile.text(head(1)).await.as_deref() => Some("own"), NAMES);
        demand!([15]; hostile.keys().await == [head(1)] && hostile.size().await == 1, NAMES;
            "{name:?} lists or counts records of the name \"plain\""; cause UNQUOTED);
        hostile.retain(&[head(1)], Retain::AtMost(Timestamp::from_secs(3_000_000_000))).await;
        demand!([15]; hostile.delete_expired(Timestamp::from_secs(5_000_000_000)).await => 1, NAMES);
        hostile.write(head(1), record("again")).await;
        hostile.clear().await;
        let read = victim.read(head(1)).await;
        demand!([15]; read.as_ref().is_some_and(|read| read.stamp() == written.stamp() && read.retain_until() == LATER), NAMES;
            "a change under the name {name:?} left {} under the name \"plain\"", described(read.as_ref());
            cause UNQUOTED);
        demand!([15]; victim.size().await => 1, NAMES);
    }
    victim.clear().await;
}

/// Up to which limit the cases try it. A higher limit is as good as none, and trying it would only fill the memory.
const MAX_TRIED: usize = 64 * 1024 * 1024;

/// Checks that records up to `max_record_len` are accepted (clauses 1 and 13).
///
/// A storage that accepts less than it announces could lose the new record and the old one.
pub async fn longest_record_is_accepted<H: Harness>(harness: &H) {
    let storage = open(harness, &[1, 13]).await;
    let longest = storage.storage.max_record_len();
    if longest > MAX_TRIED {
        return;
    }
    for len in [longest / 2, longest / 100 * 95, longest / 100 * 98, longest - 1, longest] {
        let Some(len) = len.checked_sub(Record::OVERHEAD) else { continue };
        storage.write(head(1), record("short")).await;
        storage.write(head(1), record(vec![7; len])).await;
        let read = storage.payload(head(1)).await;
        demand!([1, 13]; read.map(|payload| payload.len()) => Some(len),
            "a record of any length up to `max_record_len` is accepted and read again";
            cause "`max_record_len` leaves no room for what the storage adds to a record");
    }
}

/// Checks that a longer record is refused, and the current one stays (clause 13).
pub async fn too_long_record_is_refused<H: Harness>(harness: &H) {
    let rule = "a record longer than `max_record_len` is refused with `ErrorKind::TooLarge`";
    let storage = open(harness, &[13]).await;
    let longest = storage.storage.max_record_len();
    if longest > MAX_TRIED {
        return;
    }
    let old = record("old");
    storage.write(head(1), old.clone()).await;
    let long = || record(vec![7; longest + 1 - Record::OVERHEAD.min(longest)]);
    let refused = [
        ("write", storage.storage.write(head(1), long()).await.err()),
        ("write_if", storage.storage.write_if(head(1), Some(old.stamp()), long()).await.err()),
    ];
    for (operation, error) in refused {
        demand!([13]; error.as_ref().is_some_and(|error| error.kind() == ErrorKind::TooLarge), rule;
            "`{operation}` of a record one byte longer returns {}",
            error.map_or("no error".to_owned(), |error| format!("the error {error:?}")));
    }
    demand!([13]; storage.text(head(1)).await.as_deref() => Some("old"),
        "when a record is refused, the one that was at the key remains");
}
