//! The bound of the memory storage, and which records it keeps, evicts and refuses.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::support::{Fixture, Origin, get, get_with, response};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use tower_response_cache::storage::{Key, Kind, MemoryStorage, Record, Retain, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

const MIB: u64 = 1024 * 1024;

fn entry(number: u32) -> Key {
    // The names of entries are hashes. This spreads the numbers as a hash would.
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
async fn bound_is_kept_and_nearly_used() {
    let storage = small();
    for number in 0..3000 {
        storage.write(entry(number), record(20_000)).await.unwrap();
        assert!(storage.read(entry(number)).await.unwrap().is_some(), "the record just written was evicted");
    }
    let held = held(&storage).await;
    assert!(held <= 4 * MIB, "{held} bytes are held");
    assert!(held >= 3 * MIB, "only {held} bytes are held");
}

#[tokio::test]
async fn small_records_count_their_overhead() {
    let storage = small();
    for number in 0..100_000 {
        storage.write(entry(number), record(0)).await.unwrap();
    }
    let most = 4 * MIB / 200;
    assert!(storage.size().await.unwrap() <= most);
}

#[tokio::test]
async fn eviction_removes_whole_entries() {
    let storage = small();
    let (mut written_whole, mut whole, mut evicted) = (Vec::new(), 0, 0);
    for number in 0..100 {
        storage.write(entry(number), record(1000)).await.unwrap();
        for part in 0..4 {
            storage.write(chunk(number, part), record(20_000)).await.unwrap();
        }
        // An entry may be evicted while it is written. The next write then begins a new entry.
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
            Some(left) => panic!("only {left} of 5 records of an entry are left"),
        }
    }
    assert!(evicted > 20 && whole > 20, "{evicted} entries were evicted, and {whole} are left");
}

#[tokio::test]
async fn scan_does_not_evict_frequent_entries() {
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
async fn entry_grows_to_half_the_bound() {
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
    storage.write(entry(5000), record(100)).await.unwrap(); // a short head still fits
    assert!(held(&storage).await <= 4 * MIB);
}

#[tokio::test]
async fn replacing_and_deleting_free_space() {
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
async fn refused_record_keeps_rest_of_entry() {
    let storage = small();
    let head = record(100);
    storage.write(entry(1), head.clone()).await.unwrap();
    storage.write(chunk(1, 0), record(1_500_000)).await.unwrap();
    for key in [chunk(1, 1), chunk(1, 0), entry(1)] {
        let refused = storage.write(key, record(2_097_000)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TooLarge);
    }
    assert_eq!(storage.read(entry(1)).await.unwrap().unwrap().stamp(), head.stamp());
    assert_eq!(storage.read(chunk(1, 0)).await.unwrap().unwrap().payload().len(), 1_500_000);
    assert!(storage.read(chunk(1, 1)).await.unwrap().is_none());
}

#[tokio::test]
async fn hit_copies_no_bytes() {
    let storage = small();
    let bytes = Bytes::from(vec![1; 100_000]);
    for key in [entry(1), chunk(1, 0)] {
        storage.write(key, Record::new(bytes.clone(), Timestamp::NEVER)).await.unwrap();
        let read = storage.read_now(key).unwrap().unwrap().unwrap();
        assert_eq!(read.payload().as_ptr(), bytes.as_ptr());
    }
}

#[tokio::test]
async fn any_bound_holds_or_refuses_records() {
    for max_bytes in [0, 1, 199, 2048, 10_000, 100_000, MIB - 1, MIB, u64::MAX / 2, u64::MAX] {
        let storage = MemoryStorage::builder().max_bytes(max_bytes).build();
        for len in [0, 100, 700, 2000, 40_000, 500_000] {
            let taken = storage.write(entry(1), record(len)).await;
            let fits = len + Record::OVERHEAD <= storage.max_record_len();
            // A record that never gets a decoded form may be slightly longer than the announced limit.
            assert!(taken.is_ok() || !fits, "{len} bytes in a storage of {max_bytes}");
            assert!(taken.is_err() || len as u64 <= max_bytes / 2, "{len} bytes in a storage of {max_bytes}");
            let there = storage.read(entry(1)).await.unwrap().map(|record| record.payload().len());
            assert!(taken.is_err() || there == Some(len), "{len} bytes in a storage of {max_bytes}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_evictions_return_no_older_record() {
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
                        assert_eq!(there.stamp(), own.stamp(), "an older record was returned");
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

/// Returns the number of bytes that the storage counts.
fn counted(storage: &MemoryStorage) -> u64 {
    let shown = format!("{storage:?}");
    shown.split("bytes: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn entry_drops_released_bodies_first() {
    let storage = small();
    let body = |slot: u8, part| entry(1).sibling(Kind::Chunk, [slot; 16], part);
    storage.write(entry(1), record(100)).await.unwrap();
    for slot in 1..=3 {
        for part in 0..5 {
            storage.write(body(slot, part), record(120_000)).await.unwrap();
        }
    }
    let of = |slot| [0, 1, 2, 3, 4].map(|part| body(slot, part));
    storage.retain(&of(2), Retain::AtMost(Timestamp::from_secs(1))).await.unwrap();
    storage.write(body(4, 0), record(500_000)).await.unwrap();
    assert!(storage.contains_all(&of(1)).await.unwrap(), "a body that was not released is gone");
    assert!(!storage.contains_all(&of(2)).await.unwrap());
    assert!(!storage.contains(body(2, 4)).await.unwrap(), "a chunk of a released body is left");
    storage.write(body(5, 0), record(500_000)).await.unwrap();
    assert!(!storage.contains_all(&of(1)).await.unwrap());
    assert!(storage.contains_all(&of(3)).await.unwrap());
    assert!(storage.contains(entry(1)).await.unwrap());
}

const URI: &str = "http://example.com/";

#[tokio::test]
async fn old_variants_make_room_for_new() {
    let origin = Origin::new(|_| {
        response(&[("cache-control", "max-age=60"), ("vary", "user-agent")], vec![b'x'; 10_000])
    });
    let storage = MemoryStorage::builder().max_bytes(MIB).build();
    let fixture = Fixture::with(origin, storage, |builder| builder.shared(true));
    let agent = |agent: &str| get_with(URI, &[("user-agent", agent)]);
    for number in 0..100 {
        fixture.ask(agent(&number.to_string())).await;
    }
    fixture.layer.idle().await;
    fixture.clock.advance(Duration::from_secs(365 * 86_400));
    for browser in ["one", "two", "three"] {
        fixture.ask(agent(browser)).await;
        fixture.layer.idle().await;
    }
    assert!(fixture.ask(agent("two")).await.status.is_hit());
}

#[tokio::test]
async fn changing_large_body_is_always_stored() {
    let mut version = 0_u8;
    let origin = Origin::new(move |_| {
        version = version.wrapping_add(1);
        response(&[("cache-control", "max-age=10")], vec![version; 50_000])
    });
    let storage = MemoryStorage::builder().max_bytes(MIB).build();
    let fixture = Fixture::with(origin, storage, |builder| builder.shared(true).chunk_bytes(16_384));
    for round in 0..60 {
        fixture.ask(get(URI)).await;
        fixture.layer.idle().await;
        let hit = fixture.ask(get(URI)).await;
        assert!(hit.status.is_hit(), "round {round}: {:?}", hit.status);
        assert_eq!(hit.body.len(), 50_000);
        fixture.clock.advance(Duration::from_secs(11));
    }
}

#[tokio::test]
async fn repeated_reloads_do_not_stop_caching() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=3600")], vec![b'x'; 50_000]));
    let storage = MemoryStorage::builder().max_bytes(MIB).build();
    let fixture = Fixture::with(origin, storage, |builder| builder.shared(true).chunk_bytes(16_384));
    for _ in 0..70 {
        fixture.ask(get_with(URI, &[("cache-control", "no-cache")])).await;
        fixture.layer.idle().await;
    }
    fixture.clock.advance(Duration::from_secs(4 * 3600));
    fixture.ask(get(URI)).await;
    fixture.layer.idle().await;
    assert!(fixture.ask(get(URI)).await.status.is_hit());
}

#[tokio::test]
async fn remote_group_names_stay_within_bound() {
    let mut number = 0;
    let origin = Origin::new(move |_| {
        number += 1;
        let groups: Vec<String> = (0..20).map(|group| format!("\"{number}-{group}\"")).collect();
        response(&[("cache-control", "max-age=60"), ("cache-groups", &groups.join(", "))], "body")
    });
    let storage = MemoryStorage::builder().max_bytes(MIB).build();
    let fixture = Fixture::with(origin, storage.clone(), |builder| builder.shared(true));
    for number in 0..300 {
        fixture.get(&format!("{URI}{number}")).await;
        assert!(counted(&storage) <= MIB);
    }
    fixture.layer.idle().await;
    let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    let groups = keys.iter().filter(|key| key.kind == Kind::Group).count();
    assert!((100..1_500).contains(&groups), "{groups} of 6,000 groups are left");
}

#[tokio::test]
async fn later_decoded_form_is_counted() {
    let from = MemoryStorage::builder().max_bytes(16 * MIB).build();
    let origin = Origin::new(|_| {
        let fields: Vec<(String, String)> = (0..60).map(|n| (format!("x-{n}"), "v".into())).collect();
        let mut fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        fields.push(("cache-control", "max-age=60"));
        response(&fields, "body")
    });
    let fixture = Fixture::with(origin.clone(), from.clone(), |builder| builder.shared(true));
    fixture.get(URI).await;
    fixture.layer.idle().await;
    let to = MemoryStorage::builder().max_bytes(16 * MIB).build();
    let keys: Vec<Key> = from.keys().try_collect().await.unwrap();
    for key in keys {
        // A storage of bytes would return the record without its decoded form, as here.
        let record = from.read(key).await.unwrap().unwrap();
        to.write(key, Record::from_bytes(record.to_bytes()).unwrap()).await.unwrap();
    }
    let before = counted(&to);
    let copy = Fixture::with(origin, to.clone(), |builder| builder.shared(true));
    for _ in 0..2 {
        assert!(copy.get(URI).await.status.is_hit());
    }
    assert!(counted(&to) > before + 60 * 100, "{before} bytes became {}", counted(&to));
}

#[tokio::test]
async fn new_working_set_replaces_old() {
    let storage = small();
    let mut hits = 0;
    for (from, rounds) in [(0, 5), (10_000, 5)] {
        for round in 0..rounds {
            hits = 0;
            for number in from..from + 250 {
                if storage.read_now(entry(number)).unwrap().unwrap().is_some() {
                    hits += 1;
                } else {
                    storage.write(entry(number), record(10_000)).await.unwrap();
                }
            }
            assert!(round == 0 || from > 0 || hits > 240);
        }
    }
    assert!(hits > 225, "only {hits} hits of 250 after four rounds of a new set");
}

#[tokio::test]
async fn listings_yield_to_tasks_without_duplicates() {
    let storage = MemoryStorage::builder().max_bytes(32 * MIB).build();
    for number in 0..5_000 {
        storage.write(entry(number), record(10)).await.unwrap();
        if number % 500 == 0 {
            for part in 0..400 {
                storage.write(chunk(number, part), record(10)).await.unwrap();
            }
        }
    }
    assert_eq!(storage.size().await.unwrap(), 5_000);
    let mut keys = Box::pin(storage.keys());
    let (mut seen, mut waits, mut run) = (HashSet::new(), 0, 0);
    loop {
        match futures_util::poll!(keys.next()) {
            std::task::Poll::Ready(None) => break,
            std::task::Poll::Ready(Some(key)) => {
                run += 1;
                assert!(run <= 256, "the listing returned {run} items without yielding");
                assert!(seen.insert(key.unwrap()), "a key was listed twice");
            }
            std::task::Poll::Pending => {
                (waits, run) = (waits + 1, 0);
                // During the listing, one record is deleted and written again, and a new one is written.
                for number in [waits * 7 % 5_000, 20_000 + waits] {
                    storage.delete(entry(number)).await.unwrap();
                    storage.write(entry(number), record(10)).await.unwrap();
                }
            }
        }
    }
    assert!(waits >= 9_000 / 256);
    let touched: HashSet<u32> = (1..=waits).map(|wait| wait * 7 % 5_000).collect();
    for number in (0..5_000).filter(|number| !touched.contains(number)) {
        assert!(seen.contains(&entry(number)), "{number} was stored all the time and is not listed");
    }
    assert!((0..400).all(|part| seen.contains(&chunk(500, part))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_keep_the_bound() {
    let storage = MemoryStorage::builder().max_bytes(64 * MIB).build();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let storage = storage.clone();
            tokio::spawn(async move {
                for round in 0..600_u32 {
                    let key = chunk(task * 100 + round % 37, round % 5);
                    storage.write(key, record(100_000)).await.unwrap();
                    assert!(held(&storage).await <= 64 * MIB || round % 100 > 0);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let bytes = counted(&storage);
    assert!((50 * MIB..=64 * MIB).contains(&bytes), "{bytes} bytes");
    storage.clear().await.unwrap();
    assert_eq!((counted(&storage), storage.size().await.unwrap()), (0, 0));
}
