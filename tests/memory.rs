//! The memory storage's bound: what it holds, what it evicts, what it refuses.
#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tower_response_cache::storage::{Key, Kind, MemoryStorage, Record, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

const MIB: u64 = 1024 * 1024;

fn entry(number: u32) -> Key {
    // Entries are named by hashes: this one spreads the numbers as a hash would.
    let mixed = u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = u128::from(mixed ^ (mixed >> 29)).wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
    Key::head(mixed.to_be_bytes())
}

fn chunk(number: u32, part: u32) -> Key {
    entry(number).sibling(Kind::Chunk, [1; 16], part)
}

fn record(len: usize) -> Record {
    Record::new(vec![7; len], Timestamp::NEVER)
}

fn small() -> MemoryStorage {
    MemoryStorage::builder().max_bytes(4 * MIB).build()
}

async fn held(storage: &MemoryStorage) -> u64 {
    let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    let mut held = 0;
    for key in keys {
        held += storage.read(key).await.unwrap().map_or(0, |record| record.weight() as u64);
    }
    held
}

#[tokio::test]
async fn the_bound_is_kept_and_nearly_used() {
    let storage = small();
    for number in 0..3000 {
        storage.write(entry(number), record(5000)).await.unwrap();
        assert!(storage.read(entry(number)).await.unwrap().is_some(), "what was just written was evicted");
    }
    let held = held(&storage).await;
    assert!(held <= 4 * MIB, "{held} bytes are held");
    assert!(held >= 3 * MIB, "only {held} bytes are held");
}

#[tokio::test]
async fn small_records_count_with_what_they_cost() {
    let storage = small();
    for number in 0..100_000 {
        storage.write(entry(number), record(0)).await.unwrap();
    }
    let most = 4 * MIB / 200;
    assert!(storage.size().await.unwrap() <= most);
}

#[tokio::test]
async fn an_evicted_entry_goes_whole() {
    let storage = small();
    let (mut written_whole, mut whole, mut evicted) = (Vec::new(), 0, 0);
    for number in 0..100 {
        storage.write(entry(number), record(1000)).await.unwrap();
        for part in 0..4 {
            storage.write(chunk(number, part), record(20_000)).await.unwrap();
        }
        // An entry may be evicted while it is written; what is written afterwards begins it anew.
        if storage.contains(entry(number)).await.unwrap() && storage.contains(chunk(number, 0)).await.unwrap()
        {
            written_whole.push(entry(number));
        }
    }
    assert!(written_whole.len() >= 90);
    let mut records: HashMap<[u8; 16], u32> = HashMap::new();
    for key in storage.keys().try_collect::<Vec<_>>().await.unwrap() {
        *records.entry(key.entry).or_default() += 1;
    }
    for key in written_whole {
        match records.get(&key.entry) {
            None => evicted += 1,
            Some(5) => whole += 1,
            Some(left) => panic!("{left} of 5 records of an entry are left"),
        }
    }
    assert!(evicted > 20 && whole > 20, "{evicted} are evicted, {whole} are there");
}

#[tokio::test]
async fn a_scan_does_not_drive_out_what_is_used_often() {
    let storage = small();
    for number in 0..100 {
        storage.write(entry(number), record(10_000)).await.unwrap();
    }
    for number in 100..5000 {
        storage.write(entry(number), record(10_000)).await.unwrap();
        if number % 10 == 0 {
            for often in 0..100 {
                storage.read_now(entry(often));
            }
        }
    }
    let mut kept = 0;
    for number in 0..100 {
        kept += u32::from(storage.contains(entry(number)).await.unwrap());
    }
    assert!(kept >= 95, "of 100 entries in use, {kept} outlived a scan of twelve times the bound");
}

#[tokio::test]
async fn an_entry_grows_by_chunks_to_nearly_half_of_the_bound_in_a_full_store() {
    let storage = small();
    for number in 0..1000 {
        storage.write(entry(number), record(10_000)).await.unwrap();
    }
    let mut written = 0;
    let refused = loop {
        match storage.write(chunk(5000, written), record(30_000)).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    assert!((60..70).contains(&written), "{written} chunks of 30,000 bytes were taken");
    for part in 0..written {
        assert!(storage.contains(chunk(5000, part)).await.unwrap(), "chunk {part} of {written} is gone");
    }
    storage.write(entry(5000), record(100)).await.unwrap(); // the head still has its place
    assert!(held(&storage).await <= 4 * MIB);
}

#[tokio::test]
async fn replacing_and_deleting_give_the_room_back() {
    let storage = small();
    let longest = storage.max_record_len() - Record::OVERHEAD;
    for len in [longest, 10, longest, longest] {
        storage.write(chunk(1, 0), record(len)).await.unwrap();
    }
    assert_eq!(storage.write(chunk(1, 1), record(1000)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(storage.delete(chunk(1, 0)).await.unwrap());
    storage.write(chunk(1, 1), record(longest)).await.unwrap();
    assert!(storage.read(chunk(1, 0)).await.unwrap().is_none());
    storage.clear().await.unwrap();
    storage.write(chunk(1, 2), record(longest)).await.unwrap();
    assert_eq!(storage.keys().try_collect::<Vec<_>>().await.unwrap(), [chunk(1, 2)]);
}

#[tokio::test]
async fn a_refused_record_leaves_the_others_of_its_entry() {
    let storage = small();
    let head = record(100);
    storage.write(entry(1), head.clone()).await.unwrap();
    storage.write(chunk(1, 0), record(1_500_000)).await.unwrap();
    for key in [chunk(1, 1), chunk(1, 0), entry(1)] {
        let refused = storage.write(key, record(2_013_000)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TooLarge);
    }
    assert_eq!(storage.read(entry(1)).await.unwrap().unwrap().stamp(), head.stamp());
    assert_eq!(storage.read(chunk(1, 0)).await.unwrap().unwrap().payload().len(), 1_500_000);
    assert!(storage.read(chunk(1, 1)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_hit_copies_no_bytes() {
    let storage = small();
    let bytes = Bytes::from(vec![1; 100_000]);
    for key in [entry(1), chunk(1, 0)] {
        storage.write(key, Record::new(bytes.clone(), Timestamp::NEVER)).await.unwrap();
        let read = storage.read_now(key).unwrap().unwrap().unwrap();
        assert_eq!(read.payload().as_ptr(), bytes.as_ptr());
    }
}

#[tokio::test]
async fn bounds_of_any_size_hold_or_refuse() {
    for max_bytes in [0, 1, 199, 2048, 10_000, 100_000, MIB - 1, MIB, u64::MAX / 2, u64::MAX] {
        let storage = MemoryStorage::builder().max_bytes(max_bytes).build();
        for len in [0, 100, 700, 2000, 40_000, 500_000] {
            let taken = storage.write(entry(1), record(len)).await;
            let fits = len + Record::OVERHEAD <= storage.max_record_len();
            assert_eq!(taken.is_ok(), fits, "{len} bytes in a store of {max_bytes}");
            let there = storage.read(entry(1)).await.unwrap().map(|record| record.payload().len());
            assert!(!fits || there == Some(len), "{len} bytes in a store of {max_bytes}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn entries_that_evict_each_other_lose_no_more_than_that() {
    let storage = small();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let storage = storage.clone();
            tokio::spawn(async move {
                for round in 0..2000_u32 {
                    let number = task * 1000 + round % 50;
                    let key = if round % 3 == 0 { entry(number) } else { chunk(number, round % 7) };
                    let own = record(20_000 + round as usize % 100);
                    storage.write(key, own.clone()).await.unwrap();
                    if let Some(there) = storage.read(key).await.unwrap() {
                        assert_eq!(there.stamp(), own.stamp(), "an older record came back");
                    }
                    if round % 11 == 0 {
                        storage.delete(key).await.unwrap();
                        assert!(storage.read(key).await.unwrap().is_none());
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(held(&storage).await <= 4 * MIB);
}
