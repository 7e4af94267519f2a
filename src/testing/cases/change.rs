//! Clauses 5, 6, 12, 13 and 15: deleting, clearing, cancelling, refusing.

use std::pin::pin;
use std::task::{Context, Waker};

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
    victim.write(head(1), record("theirs")).await.unwrap();
    let long = "n".repeat(5000);
    for name in [
        "*",
        "plai?",
        "[a-z]lain",
        "'; DROP TABLE records; --",
        "\"",
        "a\0b",
        "naïve-имя-名前",
        "%70lain",
        "plain*",
        "{plain}",
        &long,
    ] {
        let Ok(hostile) = harness.open(name).await else { continue };
        assert_ne!(
            payload(&hostile, head(1)).await.as_deref(),
            Some(&b"theirs"[..]),
            "{name:?} is somebody else"
        );
        hostile.write(head(1), record("ours")).await.unwrap();
        assert_eq!(payload(&hostile, head(1)).await.unwrap(), "ours");
        hostile.clear().await.unwrap();
        assert_eq!(payload(&victim, head(1)).await.unwrap(), "theirs", "{name:?} cleared a neighbour");
    }
    victim.clear().await.unwrap();
}

/// 12. Each operation, dropped after each number of polls, has happened or not; the storage goes on.
pub async fn dropped_futures_leave_old_or_new<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let own = record("old");
    for polls in 0..6 {
        for operation in 0..6 {
            storage.write(head(1), own.clone()).await.unwrap();
            {
                let new = record("new");
                match operation {
                    0 => poll_and_drop(polls, storage.write(head(1), new)).await,
                    1 => poll_and_drop(polls, storage.write_if(head(1), Some(own.stamp()), new)).await,
                    2 => poll_and_drop(polls, storage.delete(head(1))).await,
                    3 => poll_and_drop(polls, storage.read(head(1))).await,
                    4 => poll_and_drop(polls, storage.retain(&[head(1)], Retain::AtLeast(LATER))).await,
                    _ => poll_and_drop(polls, storage.delete_expired(Timestamp::from_secs(5))).await,
                }
            }
            let there = payload(&storage, head(1)).await;
            let text = there.as_deref().unwrap_or(b"none");
            assert!([&b"old"[..], b"new", b"none"].contains(&text), "neither old nor new");
            assert!(text != b"none" || operation == 2);
        }
    }
    let seen = storage.read(head(1)).await.unwrap().map(|record| record.stamp());
    assert!(storage.write_if(head(1), seen, record("works")).await.unwrap());
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "works");
}

async fn poll_and_drop<T>(polls: usize, operation: impl Future<Output = T>) {
    let mut operation = pin!(operation);
    for _ in 0..polls {
        if operation.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// 13. A record that is too long is refused as such, and what was there stays.
pub async fn too_long_is_refused_and_the_old_one_stays<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let longest = storage.max_record_len();
    if longest > 64 * 1024 * 1024 {
        return; // nobody writes that much at once
    }
    let old = record("old");
    storage.write(head(1), old.clone()).await.unwrap();
    let long = || record(vec![7; longest + 1]);
    let refused = [
        storage.write(head(1), long()).await.err(),
        storage.write_if(head(1), Some(old.stamp()), long()).await.err(),
    ];
    for error in refused {
        assert_eq!(error.expect("a record above the limit is refused").kind(), ErrorKind::TooLarge);
    }
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "old");
}
