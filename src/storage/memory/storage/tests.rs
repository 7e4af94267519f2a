//! The counts, the bound and the hashes of the memory storage.

use std::collections::HashMap;

use futures_util::{FutureExt, TryStreamExt};
use http::HeaderValue;

use super::*;
use crate::entry::{self, DecodedRecord, Tagged};

/// Returns the weight and the number of listed records, counted anew.
fn recount(storage: &MemoryStorage) -> (u64, u64) {
    let mut sums = (0, 0);
    for shard in &storage.0.shards {
        let table = shard.read();
        for entry in (0..table.positions()).filter_map(|at| table.at(at)) {
            sums.0 += entry.records.weight();
            sums.1 += entry.records.listed();
        }
    }
    sums
}

#[test]
fn random_operations_keep_counts_and_contents_right() {
    let kinds = [Kind::Head, Kind::Variant, Kind::Chunk, Kind::Group, Kind::Index];
    for max_bytes in [20_000, 100_000, 9 << 20, 40 << 20] {
        let storage = MemoryStorage::builder().max_bytes(max_bytes).build();
        let mut written: HashMap<Key, (Stamp, Timestamp)> = HashMap::new();
        let mut counter = max_bytes;
        let mut random = |below: u64| {
            counter = counter.wrapping_add(SPLIT_MIX_STEP);
            split_mix(counter) % below
        };
        for _ in 0..5_000 {
            let kind = kinds[random(5) as usize];
            let slot = if matches!(kind, Kind::Head | Kind::Group) { 0 } else { random(4) as u8 };
            let part = if kind == Kind::Chunk { random(6) as u32 } else { 0 };
            let key = Key { entry: [random(20) as u8; 16], kind, slot: [slot; 16], part };
            match random(8) {
                0 => {
                    let there = storage.get(key).is_some();
                    assert_eq!(storage.remove(key, |_| true), there);
                    written.remove(&key);
                }
                1 => {
                    let time = Timestamp::from_secs(random(100));
                    let retain = if random(2) == 0 { Retain::AtMost(time) } else { Retain::AtLeast(time) };
                    if storage.retain_one(key, retain) {
                        let kept = written.get_mut(&key).expect("it was written");
                        kept.1 = retain.apply(kept.1);
                    }
                }
                other => {
                    let len = random(max_bytes / 16) as usize / (1 + 9 * usize::from(other > 4));
                    let record = Record::new(vec![0; len], Timestamp::from_secs(50));
                    let seen = (other == 7).then(|| storage.get(key).map(|record| record.stamp()));
                    if storage.put(key, seen, record.clone()).is_ok() {
                        written.insert(key, (record.stamp(), record.retain_until()));
                        assert!(storage.get(key).is_some(), "a record that was just written is missing");
                    }
                }
            }
            let used = storage.0.used.load(Ordering::SeqCst);
            assert!(used <= max_bytes);
            assert_eq!((used, storage.0.listed.load(Ordering::SeqCst)), recount(&storage));
        }
        let there = storage.keys().try_collect::<Vec<_>>();
        let there = tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(there);
        let there = there.expect("no error");
        assert!(!there.is_empty());
        for key in there {
            let record = storage.get(key).expect("it is listed");
            assert_eq!((record.stamp(), record.retain_until()), written[&key]);
        }
        storage.clear().now_or_never();
    }
}

#[test]
fn similar_entries_have_different_hashes() {
    let (one, other) = (MemoryStorage::new(), MemoryStorage::new());
    let mut hashes = std::collections::HashSet::new();
    for number in 0..1_000_u64 {
        for high in [false, true] {
            let mut entry = [0; 16];
            let half = if high { &mut entry[8..] } else { &mut entry[..8] };
            half.copy_from_slice(&(number + 1).to_be_bytes());
            let (id, _) = one.find(Key::head(entry));
            // The bits that the index uses: the lowest, and the highest for its tags.
            hashes.insert((id.hash & 0xf_ffff, id.hash >> 57));
            assert_ne!(id.hash, other.find(Key::head(entry)).0.hash);
        }
    }
    assert!(hashes.len() > 1_980, "{} of 2,000", hashes.len());
}

#[test]
fn decoded_form_that_comes_while_a_record_is_written_is_counted_by_the_next_read() {
    let tag = HeaderValue::from_static("\"a\"");
    let tagged = |number| Tagged { selection: [number; 16], tag: tag.clone(), coding: Box::default() };
    let index = entry::record(DecodedRecord::Index((0..100).map(tagged).collect()), Timestamp::NEVER);
    // As from another process, without its decoded form.
    let record = Record::from_bytes(index.to_bytes()).expect("a record");
    let key = Key { kind: Kind::Index, ..Key::head([1; 16]) };
    let cost = entry_records::record_cost(key, &record);
    let before = record.memory();
    assert!(entry::decode(&record).is_some());
    assert!(record.memory() as u64 > before as u64 + DECODED_FORM, "the form is longer than was reserved");

    let mut records = EntryRecords::default();
    records.put(key, record.clone(), cost);
    assert!(records.weight() <= entry_records::entry_cost(key) + cost.bytes, "more than was reserved");
    assert!(records.has_grown(key));
    records.put(key, record.clone(), entry_records::record_cost(key, &record));
    assert!(records.weight() > record.memory() as u64 && !records.has_grown(key));
}
