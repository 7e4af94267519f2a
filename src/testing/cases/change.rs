//! Clauses 5, 6, 13, 15 and 17, about deleting, clearing, limits and names.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::*;
use crate::error::ErrorKind;
use crate::storage::Retain;

/// Checks that `delete` is idempotent, and returns whether there was a record (clause 5).
pub async fn delete_is_idempotent<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    assert!(!storage.delete(head(1)).await.unwrap());
    storage.write(head(1), record("x")).await.unwrap();
    assert!(storage.delete(head(1)).await.unwrap());
    assert!(!storage.delete(head(1)).await.unwrap());
    assert!(storage.read(head(1)).await.unwrap().is_none());
}

/// Checks that `delete_many` counts the records that it removes (clause 5).
pub async fn delete_many_counts_removed_records<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    for part in 0..5 {
        storage.write(chunk(1, part), record("x")).await.unwrap();
    }
    let keys: Vec<Key> = (1..8).map(|part| chunk(1, part)).collect();
    assert_eq!(storage.delete_many(&keys).await.unwrap(), 4);
    assert_eq!(storage.delete_many(&keys).await.unwrap(), 0);
    assert_eq!(storage.delete_many(&[]).await.unwrap(), 0);
    assert!(storage.contains(chunk(1, 0)).await.unwrap());
}

/// Writes the first chunks of an entry.
///
/// Some at a time: a driver may refuse a burst of a thousand commands, which no case is about.
async fn write_chunks(storage: &impl Storage, count: u32) {
    let writes = stream::iter(0..count).map(|part| storage.write(chunk(1, part), record("x")));
    writes.buffer_unordered(16).try_collect::<()>().await.unwrap();
}

/// Checks that `retain` and `delete_many` take more than a thousand keys (clauses 5 and 9).
///
/// These are more than drivers send in one command. One key appears twice, and some have no record.
pub async fn thousand_keys_at_once<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let count = 1100;
    write_chunks(&storage, count).await;
    let keys: Vec<Key> = (0..count + 100).map(|part| chunk(1, part)).collect();
    let until = LATER + Duration::from_secs(5);
    assert_eq!(storage.retain(&keys, Retain::AtLeast(until)).await.unwrap(), u64::from(count));
    for part in [0, count - 1] {
        assert_eq!(storage.read(chunk(1, part)).await.unwrap().unwrap().retain_until(), until);
    }
    let doubled: Vec<Key> = keys.iter().copied().chain([chunk(1, 0)]).collect();
    assert_eq!(storage.delete_many(&doubled).await.unwrap(), u64::from(count));
    assert_eq!(storage.keys().try_collect::<Vec<_>>().await.unwrap(), []);
}

/// Checks that `contains_all` returns true if all records exist (clause 17).
///
/// It may or may not notice that one is missing, but it must always answer alike.
pub async fn contains_all_of_existing_records<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let keys: Vec<Key> = (0..600).map(|part| chunk(1, part)).collect();
    write_chunks(&storage, 600).await;
    assert!(storage.contains_all(&keys).await.unwrap());
    assert!(storage.contains_all(&[keys[7], keys[7]]).await.unwrap());
    assert!(storage.contains_all(&[]).await.unwrap());
    storage.delete(keys[300]).await.unwrap();
    let answer = storage.contains_all(&keys).await.unwrap();
    assert_eq!(answer, storage.contains_all(&[keys[300]]).await.unwrap());
}

/// Checks that `clear` removes every record, and leaves the storage usable (clause 6).
pub async fn clear_removes_all_records<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    for number in 0..20 {
        storage.write(head(number), record("x")).await.unwrap();
        storage.write(chunk(number, 0), record("y")).await.unwrap();
    }
    storage.clear().await.unwrap();
    assert_eq!(storage.size().await.unwrap(), 0);
    assert!(storage.read(chunk(3, 0)).await.unwrap().is_none());
    storage.write(head(1), record("again")).await.unwrap();
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "again");
}

/// Checks that `clear` spares a cache whose name begins with the same letters (clause 6).
pub async fn clear_spares_other_caches<H: Harness>(harness: &H) {
    let own = harness.open("neighbour").await.unwrap();
    let neighbour = harness.open("neighbour2").await.unwrap();
    neighbour.write(head(1), record("neighbour")).await.unwrap();
    own.write(head(1), record("own")).await.unwrap();
    own.clear().await.unwrap();
    assert_eq!(payload(&neighbour, head(1)).await.unwrap(), "neighbour");
    assert!(own.read(head(1)).await.unwrap().is_none());
    neighbour.clear().await.unwrap();
}

/// Checks that names with special characters are kept apart, or refused (clause 15).
///
/// The characters have a meaning in shells, globs, quotes or paths.
pub async fn hostile_names_are_separate_or_refused<H: Harness>(harness: &H) {
    if !harness.shares() {
        return;
    }
    let victim = harness.open("plain").await.unwrap();
    let written = record("neighbour");
    victim.write(head(1), written.clone()).await.unwrap();
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
        assert!(hostile.read(head(1)).await.unwrap().is_none(), "{name:?} has records of another name");
        assert!(hostile.write_if(head(1), None, record("own")).await.unwrap());
        assert_eq!(payload(&hostile, head(1)).await.unwrap(), "own");
        assert_eq!(hostile.size().await.unwrap(), 1, "{name:?} counts records of another name");
        assert_eq!(hostile.keys().try_collect::<Vec<_>>().await.unwrap(), [head(1)]);
        hostile.retain(&[head(1)], Retain::AtMost(Timestamp::from_secs(3_000_000_000))).await.unwrap();
        assert_eq!(hostile.delete_expired(Timestamp::from_secs(5_000_000_000)).await.unwrap(), 1);
        hostile.write(head(1), record("again")).await.unwrap();
        hostile.clear().await.unwrap();
        let read = victim.read(head(1)).await.unwrap().expect("the other name keeps its record");
        assert_eq!(
            (read.stamp(), read.retain_until()),
            (written.stamp(), LATER),
            "{name:?} changed a record of another name"
        );
        assert_eq!(victim.size().await.unwrap(), 1);
    }
    victim.clear().await.unwrap();
}

/// Up to which limit the cases try it. A higher limit is as good as none, and trying it would only fill the memory.
const MAX_TRIED: usize = 64 * 1024 * 1024;

/// Checks that records up to `max_record_len` are accepted (clauses 1 and 13).
///
/// A storage that accepts less than it announces could lose the new record and the old one.
pub async fn longest_record_is_accepted<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let longest = storage.max_record_len();
    if longest > MAX_TRIED {
        return;
    }
    for len in [longest / 2, longest / 100 * 95, longest / 100 * 98, longest - 1, longest] {
        let Some(len) = len.checked_sub(Record::OVERHEAD) else { continue };
        storage.write(head(1), record("short")).await.unwrap();
        storage.write(head(1), record(vec![7; len])).await.unwrap();
        let read = payload(&storage, head(1)).await;
        assert_eq!(read.map(|payload| payload.len()), Some(len), "the limit is {longest}");
    }
}

/// Checks that a longer record is refused, and the current one stays (clause 13).
pub async fn too_long_record_is_refused<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let longest = storage.max_record_len();
    if longest > MAX_TRIED {
        return;
    }
    let old = record("old");
    storage.write(head(1), old.clone()).await.unwrap();
    let long = || record(vec![7; longest + 1 - Record::OVERHEAD.min(longest)]);
    let refused = [
        storage.write(head(1), long()).await.err(),
        storage.write_if(head(1), Some(old.stamp()), long()).await.err(),
    ];
    for error in refused {
        assert_eq!(error.expect("a record above the limit is refused").kind(), ErrorKind::TooLarge);
    }
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "old");
}
