//! Clauses 1, 2, 3, 14 and 16, about reading and writing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures_util::TryStreamExt;
use futures_util::future::join_all;

use super::*;
use crate::storage::Retain;

/// Checks that an absent record is `None` (clause 1).
pub async fn absent_record_is_none<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    assert!(storage.read(head(1)).await.unwrap().is_none());
    assert!(!storage.contains(head(1)).await.unwrap());
    assert_eq!(storage.size().await.unwrap(), 0);
}

/// Checks that payload, stamp and retention time are read as they were written (clause 1).
///
/// The payloads have the lengths around which storages and the cache change their ways, up to 5 MiB.
pub async fn records_are_read_as_written<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let chunk = 128 * 1024;
    for len in [0, 1, 2, 255, 256, chunk - 1, chunk, chunk + 1, 5 * 1024 * 1024] {
        if len + Record::OVERHEAD > storage.max_record_len() {
            continue;
        }
        // Every byte value, in an order that does not repeat at any power of two.
        let bytes: Bytes = (0..len).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect::<Vec<_>>().into();
        let written = Record::new(bytes.clone(), Timestamp::from_millis(4_000_000_000_123));
        storage.write(head(1), written.clone()).await.unwrap();
        let read = storage.read(head(1)).await.unwrap().expect("it was written");
        assert!(read.payload() == bytes, "a payload of {len} bytes came back changed");
        assert_eq!(read.stamp(), written.stamp());
        assert_eq!(read.retain_until(), written.retain_until());
        assert!(storage.contains(head(1)).await.unwrap());
    }
}

/// Checks that a write replaces the whole record (clause 3).
///
/// The new record is longer, shorter and empty.
pub async fn write_replaces_whole_record<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    for text in ["first", "a longer one", "x", ""] {
        storage.write(head(1), record(text)).await.unwrap();
        assert_eq!(payload(&storage, head(1)).await.unwrap(), text);
    }
    assert_eq!(storage.size().await.unwrap(), 1);
}

/// Checks that readers see a whole record while it is replaced (clause 3).
pub async fn concurrent_readers_see_whole_records<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let whole = |letter: u8| vec![letter; 50_000 + 100 * usize::from(letter)];
    storage.write(head(1), record(whole(b'a'))).await.unwrap();
    let written = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (storage, written) = (storage.clone(), Arc::clone(&written));
            tokio::spawn(async move {
                while !written.load(SeqCst) {
                    let read = payload(&storage, head(1)).await.expect("there is always a record");
                    let first = read.first().copied().unwrap_or_default();
                    assert_eq!(
                        read.len(),
                        50_000 + 100 * usize::from(first),
                        "the record is truncated, or has the end of another one"
                    );
                    assert!(read.iter().all(|byte| *byte == first), "the record is a mixture of two");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for letter in (b'b'..b'z').chain(b'a'..b'm') {
        storage.write(head(1), record(whole(letter))).await.unwrap();
        tokio::task::yield_now().await;
    }
    written.store(true, SeqCst);
    join_all(readers).await.into_iter().for_each(|read| read.unwrap());
}

/// Checks that a read sees the writes and deletions before it (clause 2).
pub async fn read_sees_earlier_changes<H: Harness>(harness: &H) {
    let (storage, other) = {
        let storage = open(harness).await;
        (storage.clone(), storage)
    };
    for number in 0..20_u8 {
        storage.write(head(1), record(vec![number])).await.unwrap();
        assert_eq!(payload(&other, head(1)).await.unwrap(), vec![number]);
        assert!(other.delete(head(1)).await.unwrap());
        assert!(payload(&storage, head(1)).await.is_none());
    }
}

/// Checks that keys which differ in one field have different records (clause 1).
pub async fn keys_are_distinct_in_every_field<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let keys = [
        head(1),
        head(2),
        head(1).sibling(Kind::Variant, [1; 16], 0),
        head(1).sibling(Kind::Variant, [2; 16], 0),
        chunk(1, 0),
        chunk(1, 1),
        chunk(1, u32::MAX),
        chunk(2, 0),
        head(1).sibling(Kind::Lease, [0; 16], 0),
        head(1).sibling(Kind::Group, [0xff; 16], 0),
        head(1).sibling(Kind::Index, [1; 16], 0),
    ];
    for (number, key) in keys.iter().enumerate() {
        storage.write(*key, record(vec![number as u8])).await.unwrap();
    }
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(payload(&storage, *key).await.unwrap(), vec![number as u8]);
    }
}

/// Checks that `read_now` returns the same as `read`, after each kind of change (clause 16).
pub async fn read_now_agrees_with_read<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let agree = async |key| {
        let read = storage.read(key).await.unwrap();
        if let Some(now) = storage.read_now(key) {
            let seen = |record: Option<Record>| {
                record.map(|record| (record.stamp(), record.retain_until(), record.payload()))
            };
            assert!(seen(now.unwrap()) == seen(read), "read_now and read give different records");
        }
    };
    agree(head(1)).await;
    for key in [head(1), chunk(1, 7)] {
        storage.write(key, record("first")).await.unwrap();
        agree(key).await;
        storage.write(key, record("second")).await.unwrap();
        agree(key).await;
        storage.retain(&[key], Retain::AtMost(Timestamp::from_secs(3_000_000_000))).await.unwrap();
        agree(key).await;
        storage.write(key, Record::new("expired", Timestamp::from_secs(1))).await.unwrap();
        agree(key).await;
        storage.delete(key).await.unwrap();
        agree(key).await;
    }
}

/// Checks that `stamps` returns what `read` does, in the order of the keys and after each kind of change (clause 20).
pub async fn stamps_agree_with_read<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let variant = head(1).sibling(Kind::Variant, [1; 16], 0);
    let keys = [chunk(1, 2), head(2), head(1), variant, head(1), chunk(1, 0)];
    let agree = async || {
        let stamps = storage.stamps(&keys).await.unwrap();
        assert_eq!(stamps.len(), keys.len(), "stamps returns one answer for each key");
        for (key, stamp) in keys.iter().zip(stamps) {
            let read = storage.read(*key).await.unwrap();
            let read = read.map(|record| (record.stamp(), record.retain_until()));
            assert_eq!(stamp, read, "stamps and read give different records");
        }
    };
    agree().await;
    for key in [head(1), chunk(1, 2), variant] {
        storage.write(key, record(vec![7; 70_000])).await.unwrap();
        agree().await;
    }
    storage.write(head(1), record("shorter")).await.unwrap();
    agree().await;
    storage.retain(&keys, Retain::AtMost(Timestamp::from_secs(3_000_000_000))).await.unwrap();
    agree().await;
    storage.write(head(2), Record::new("never", Timestamp::NEVER)).await.unwrap();
    storage.delete(head(1)).await.unwrap();
    agree().await;
    storage.clear().await.unwrap();
    agree().await;
    assert_eq!(storage.stamps(&[]).await.unwrap(), []);
}

/// Checks that `read_chunks_now` returns the payloads that `read` does, and none of an incomplete body (clause 16).
pub async fn read_chunks_now_agrees_with_read<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    for part in [0, 1, 2, 3, 5] {
        storage.write(chunk(1, part), record(format!("chunk {part}"))).await.unwrap();
    }
    storage.write(head(1), record("head")).await.unwrap();
    storage.write(head(1).sibling(Kind::Chunk, [2; 16], 4), record("of another body")).await.unwrap();
    for (first, last, room) in [
        (0, 3, 4),
        (0, 3, 2),
        (0, 3, 8),
        (1, 2, 2),
        (3, 3, 1),
        (5, 5, 8),
        (0, 4, 2),
        (0, 5, 1),
        (3, 5, 8),
        (6, 6, 1),
    ] {
        let mut chunks = vec![None; room];
        if !storage.read_chunks_now(chunk(1, first), last, &mut chunks) {
            continue;
        }
        for (at, part) in (first..=last).enumerate() {
            let read =
                storage.read(chunk(1, part)).await.unwrap().expect("it returned that there are all chunks");
            assert!(chunks.get(at).is_none_or(|chunk| *chunk == Some(read.payload())), "chunk {part}");
        }
        assert!(
            chunks.iter().skip((last - first + 1) as usize).all(Option::is_none),
            "there are too many chunks"
        );
    }
}

/// Checks that damaged bytes count as an absent record (clause 14).
pub async fn damaged_bytes_are_absent<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    storage.write(head(1), record("good")).await.unwrap();
    if harness.damage(&storage, head(1)).await {
        assert!(storage.read(head(1)).await.unwrap().is_none());
        assert!(!storage.contains(head(1)).await.unwrap());
        assert!(storage.read_now(head(1)).is_none_or(|now| now.unwrap().is_none()));
        let listed: Vec<(Key, Record)> = storage.values().try_collect().await.unwrap();
        assert!(listed.is_empty(), "a damaged record was listed");
        assert!(storage.write_if(head(1), None, record("new")).await.unwrap());
        assert_eq!(payload(&storage, head(1)).await.unwrap(), "new");
    }
    let damaged = {
        let mut bytes = record("text").to_bytes().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes
    };
    for bytes in [damaged, Vec::new(), b"not a record".to_vec(), vec![0xff; 64]] {
        assert!(Record::from_bytes(bytes).is_err());
    }
}
