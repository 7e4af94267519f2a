//! Clauses 5, 6, 13 and 15: deleting, clearing, refusing.

use futures_util::TryStreamExt;
use futures_util::future::join_all;

use super::*;
use crate::error::ErrorKind;
use crate::storage::Retain;

/// 5. Deleting twice is as good as once, and says whether something was there.
pub async fn delete_is_idempotent<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    assert!(!storage.delete(head(1)).await.unwrap());
    storage.write(head(1), record("x")).await.unwrap();
    assert!(storage.delete(head(1)).await.unwrap());
    assert!(!storage.delete(head(1)).await.unwrap());
    assert!(storage.read(head(1)).await.unwrap().is_none());
}

/// 5. Deleting many counts those that were there, and leaves the rest.
pub async fn delete_many_counts_what_was_there<H: Harness>(harness: &H) {
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

/// 5, 9. More keys at once than a driver takes in one command, one of them twice, some absent.
pub async fn many_keys_at_once_are_all_counted<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let there = 1500;
    let written = join_all((0..there).map(|part| storage.write(chunk(1, part), record("x")))).await;
    written.into_iter().for_each(|written| written.unwrap());
    let keys: Vec<Key> = (0..there + 500).map(|part| chunk(1, part)).collect();
    let until = LATER + Duration::from_secs(5);
    assert_eq!(storage.retain(&keys, Retain::AtLeast(until)).await.unwrap(), u64::from(there));
    for part in [0, there - 1] {
        assert_eq!(storage.read(chunk(1, part)).await.unwrap().unwrap().retain_until(), until);
    }
    let doubled: Vec<Key> = keys.iter().copied().chain([chunk(1, 0)]).collect();
    assert_eq!(storage.delete_many(&doubled).await.unwrap(), u64::from(there));
    assert_eq!(storage.keys().try_collect::<Vec<_>>().await.unwrap(), []);
}

/// 17. All there is true, none asked for too; what is missing may be told, and never fails.
pub async fn contains_all_is_true_of_what_is_there<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let keys: Vec<Key> = (0..600).map(|part| chunk(1, part)).collect();
    let written = join_all(keys.iter().map(|key| storage.write(*key, record("x")))).await;
    written.into_iter().for_each(|written| written.unwrap());
    assert!(storage.contains_all(&keys).await.unwrap());
    assert!(storage.contains_all(&[keys[7], keys[7]]).await.unwrap());
    assert!(storage.contains_all(&[]).await.unwrap());
    storage.delete(keys[300]).await.unwrap();
    let told = storage.contains_all(&keys).await.unwrap();
    assert_eq!(told, storage.contains_all(&[keys[300]]).await.unwrap());
}

/// 6. Clearing removes every record, and the storage goes on.
pub async fn clear_removes_everything<H: Harness>(harness: &H) {
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

/// 6. A neighbour in the same store, whose name begins alike, keeps its records.
pub async fn clear_spares_the_neighbours<H: Harness>(harness: &H) {
    let own = harness.open("neighbour").await.unwrap();
    let neighbour = harness.open("neighbour2").await.unwrap();
    neighbour.write(head(1), record("theirs")).await.unwrap();
    own.write(head(1), record("ours")).await.unwrap();
    own.clear().await.unwrap();
    assert_eq!(payload(&neighbour, head(1)).await.unwrap(), "theirs");
    assert!(own.read(head(1)).await.unwrap().is_none());
    neighbour.clear().await.unwrap();
}

/// 15. Names with a meaning to shells, globs, quotes and paths are kept apart, or refused when the store is opened.
pub async fn hostile_names_are_kept_apart_or_refused<H: Harness>(harness: &H) {
    if !harness.shares() {
        return;
    }
    let victim = harness.open("plain").await.unwrap();
    let theirs = record("theirs");
    victim.write(head(1), theirs.clone()).await.unwrap();
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
        assert!(hostile.read(head(1)).await.unwrap().is_none(), "{name:?} is somebody else");
        assert!(hostile.write_if(head(1), None, record("ours")).await.unwrap());
        assert_eq!(payload(&hostile, head(1)).await.unwrap(), "ours");
        assert_eq!(hostile.size().await.unwrap(), 1, "{name:?} counts a neighbour's");
        assert_eq!(hostile.keys().try_collect::<Vec<_>>().await.unwrap(), [head(1)]);
        hostile.retain(&[head(1)], Retain::AtMost(Timestamp::from_secs(3_000_000_000))).await.unwrap();
        assert_eq!(hostile.delete_expired(Timestamp::from_secs(5_000_000_000)).await.unwrap(), 1);
        hostile.write(head(1), record("again")).await.unwrap();
        hostile.clear().await.unwrap();
        let there = victim.read(head(1)).await.unwrap().expect("a neighbour keeps its record");
        assert_eq!((there.stamp(), there.retain_until()), (theirs.stamp(), LATER), "{name:?} touched it");
        assert_eq!(victim.size().await.unwrap(), 1);
    }
    victim.clear().await.unwrap();
}

/// Above that, nobody writes a record at once, and a case would only fill the memory.
const TRIED: usize = 64 * 1024 * 1024;

/// 1, 13. Whatever is not longer than the limit is taken and comes back: a store that admits less than it says loses
/// the new record and the old one.
pub async fn the_longest_record_is_taken<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let longest = storage.max_record_len();
    if longest > TRIED {
        return;
    }
    for len in [longest / 2, longest / 100 * 95, longest / 100 * 98, longest - 1, longest] {
        let Some(len) = len.checked_sub(Record::OVERHEAD) else { continue };
        storage.write(head(1), record("short")).await.unwrap();
        storage.write(head(1), record(vec![7; len])).await.unwrap();
        let there = payload(&storage, head(1)).await;
        assert_eq!(there.map(|payload| payload.len()), Some(len), "the limit is {longest}");
    }
}

/// 13. A record that is too long is refused as such, and what was there stays.
pub async fn too_long_is_refused_and_the_old_one_stays<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let longest = storage.max_record_len();
    if longest > TRIED {
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
