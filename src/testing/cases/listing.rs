//! Clause 7, about listings.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures_util::TryStreamExt;

use super::*;

const EVERY_KEY: &str = "`keys` yields every key that exists from the beginning to the end of the listing";
const ONCE: &str = "`keys` yields no key twice";
const LISTED: &str = "`values` yields the heads and variants with their keys, and nothing else";
const SIZE: &str = "`size` is the number of heads and variants";

/// Fails the case unless a listing has each of these keys once. It may have others.
fn demand_complete(listed: &[Key], expected: &BTreeSet<Key>, clauses: &[usize]) {
    let mut seen = BTreeSet::new();
    let twice: Vec<Key> = listed.iter().copied().filter(|key| !seen.insert(*key)).collect();
    demand!(clauses; twice.is_empty(), ONCE; "{} of {} keys twice, such as {}", twice.len(), listed.len(), some(&twice);
        cause "a page of the listing begins where the last one ended, or several tables or servers have the key");
    let missing: Vec<Key> = expected.difference(&seen).copied().collect();
    demand!(clauses; missing.is_empty(), EVERY_KEY;
        "{} of {} keys are missing, such as {}", missing.len(), expected.len(), some(&missing);
        cause "the listing ends after its first page, or moves on by position while records are added and removed");
}

fn some(keys: &[Key]) -> String {
    keys.first().map_or("none".to_owned(), |key| format!("the {} {key}", key.kind.name()))
}

/// Checks that `keys` lists records of every kind, each once (clause 7).
pub async fn keys_lists_every_kind_once<H: Harness>(harness: &H) {
    let storage = open(harness, &[7]).await;
    let mut written = BTreeSet::new();
    for number in 0..40 {
        for key in
            [head(number), chunk(number, 0), chunk(number, 1), head(number).sibling(Kind::Group, [0; 16], 0)]
        {
            storage.write(key, record("x")).await;
            written.insert(key);
        }
    }
    let listed = storage.keys().await;
    demand_complete(&listed, &written, &[7]);
    demand!([7]; listed.len() == written.len(), "`keys` yields only keys that exist";
        "{} keys, of which {} were written", listed.len(), written.len());
}

/// Checks that `values` and `size` include heads and variants, but not chunks (clause 7).
pub async fn values_lists_heads_and_variants<H: Harness>(harness: &H) {
    let storage = open(harness, &[7]).await;
    for (key, text) in
        [(head(1), "head"), (variant(1), "variant"), (chunk(1, 0), "chunk"), (head(2), "other")]
    {
        storage.write(key, record(text)).await;
    }
    let mut listed: Vec<_> =
        storage.values().await.into_iter().map(|(key, record)| (key, record.payload())).collect();
    listed.sort_by_key(|(key, _)| *key);
    demand!([7]; listed => [(head(1), "head".into()), (variant(1), "variant".into()), (head(2), "other".into())], LISTED;
        cause "a kind is listed by its number: `Kind::is_listed` decides");
    demand!([7]; storage.size().await => 3, SIZE; cause "chunks are counted: `Kind::is_listed` decides");
}

/// Checks that a listing is complete during concurrent changes (clause 7).
///
/// A record that exists from its beginning to its end is listed once.
pub async fn listings_are_complete_during_changes<H: Harness>(harness: &H) {
    let storage = open(harness, &[7]).await;
    let stay: BTreeSet<Key> = (0..100).map(head).collect();
    for key in &stay {
        storage.write(*key, record("stays")).await;
    }
    let (other, stop) = (storage.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let changes = tokio::spawn(async move {
        let mut number = 100;
        while !stopped.load(SeqCst) {
            other.write(head(number), record("comes")).await;
            other.write(head(number % 100), record("replaced")).await;
            other.delete(head(number)).await;
            number = if number == 255 { 100 } else { number + 1 };
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..5 {
        demand_complete(&storage.keys().await, &stay, &[7]);
        let values = storage.values().await.iter().filter(|(key, _)| *key < head(100)).count();
        demand!([7]; values => 100, "`values` yields each record once that exists from the beginning to the end of the listing");
    }
    stop.store(true, SeqCst);
    join([changes]).await;
}

/// Checks that an unfinished listing blocks no other operation (clauses 7 and 12).
pub async fn unfinished_listing_blocks_nothing<H: Harness>(harness: &H) {
    let storage = open(harness, &[7, 12]).await;
    for number in 0..50 {
        storage.write(head(number), record("x")).await;
    }
    {
        let (mut keys, mut values) = (pin!(storage.storage.keys()), pin!(storage.storage.values()));
        let first = matches!(storage.ends("keys", keys.try_next()).await, Ok(Some(_)));
        demand!([7]; first, EVERY_KEY; "no key at all, of 50 records");
        let first = matches!(storage.ends("values", values.try_next()).await, Ok(Some(_)));
        demand!([7]; first, LISTED; "no record at all, of 50");
        demand_usable(&storage, head(200), "while a listing is read").await;
    }
    demand_usable(&storage, head(201), "after a listing was dropped").await;
    demand!([7]; storage.keys().await.len() => 50, EVERY_KEY);
    storage.clear().await;
    demand!([7]; storage.keys().await => [], "`keys` yields only keys that exist");
}
