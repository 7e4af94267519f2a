//! Clause 7, about listings.

use std::collections::BTreeSet;
use std::pin::pin;

use futures_util::TryStreamExt;

use super::*;

async fn keys<S: Storage>(storage: &S) -> Vec<Key> {
    storage.keys().try_collect().await.unwrap()
}

/// Checks that `keys` lists records of every kind, each once (clause 7).
pub async fn keys_lists_every_kind_once<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let mut written = BTreeSet::new();
    for number in 0..40 {
        for key in
            [head(number), chunk(number, 0), chunk(number, 1), head(number).sibling(Kind::Group, [0; 16], 0)]
        {
            storage.write(key, record("x")).await.unwrap();
            written.insert(key);
        }
    }
    let listed = keys(&storage).await;
    assert_eq!(listed.len(), written.len(), "a key was listed twice or not at all");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), written);
}

/// Checks that `values` and `size` include heads and variants, but not chunks (clause 7).
pub async fn values_lists_heads_and_variants<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let variant = head(1).sibling(Kind::Variant, [1; 16], 0);
    for (key, text) in [(head(1), "head"), (variant, "variant"), (chunk(1, 0), "chunk"), (head(2), "other")] {
        storage.write(key, record(text)).await.unwrap();
    }
    let values: Vec<(Key, Record)> = storage.values().try_collect().await.unwrap();
    let mut listed: Vec<_> = values.iter().map(|(key, record)| (*key, record.payload())).collect();
    listed.sort_by_key(|(key, _)| *key);
    assert_eq!(listed, [(head(1), "head".into()), (variant, "variant".into()), (head(2), "other".into())]);
    assert_eq!(storage.size().await.unwrap(), 3);
}

/// Checks that a listing is complete during concurrent changes (clause 7).
///
/// A record that exists from its beginning to its end is listed once.
pub async fn listings_are_complete_during_changes<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    for number in 0..100 {
        storage.write(head(number), record("stays")).await.unwrap();
    }
    let (other, stop) = (storage.clone(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let stopped = std::sync::Arc::clone(&stop);
    let changes = tokio::spawn(async move {
        let mut number = 100;
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            other.write(head(number), record("comes")).await.unwrap();
            other.write(head(number % 100), record("replaced")).await.unwrap();
            other.delete(head(number)).await.unwrap();
            number = if number == 255 { 100 } else { number + 1 };
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..5 {
        let listed: Vec<Key> = keys(&storage).await;
        let distinct: BTreeSet<Key> = listed.iter().copied().collect();
        assert_eq!(distinct.len(), listed.len(), "a key was listed twice");
        assert!(
            (0..100).all(|number| distinct.contains(&head(number))),
            "a key that existed all the time was not listed"
        );
        let values: Vec<(Key, Record)> = storage.values().try_collect().await.unwrap();
        assert!(values.iter().filter(|(key, _)| *key < head(100)).count() == 100);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    changes.await.unwrap();
}

/// Checks that an unfinished listing blocks no other operation (clauses 7 and 12).
pub async fn unfinished_listing_blocks_nothing<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    for number in 0..50 {
        storage.write(head(number), record("x")).await.unwrap();
    }
    {
        let (mut keys, mut values) = (pin!(storage.keys()), pin!(storage.values()));
        assert!(keys.try_next().await.unwrap().is_some());
        assert!(values.try_next().await.unwrap().is_some());
        in_time("while a listing is read", assert_usable(&storage, head(200))).await;
    }
    in_time("after a listing was dropped", assert_usable(&storage, head(201))).await;
    assert_eq!(keys(&storage).await.len(), 50);
    storage.clear().await.unwrap();
    assert_eq!(keys(&storage).await, []);
}
