//! Clauses 1, 2, 3, 14, 16 and 20, about reading and writing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::*;

const READ_NOW: &str = "`read_now` returns `None`, or what `read` would return";
const CHUNKS_NOW: &str =
    "if `read_chunks_now` returns true, there is a record at each key, and `chunks` has their payloads";
const STAMPS: &str = "`stamps` returns the stamp and retention time of the record that `read` returns, in the order of the keys";
const STALE_COPY: &str = "a copy in memory that was not updated by the last change";

/// Checks that an absent record is `None` (clause 1).
pub async fn absent_record_is_none<H: Harness>(harness: &H) {
    let storage = open(harness, &[1]).await;
    let rule = "there is no record at a key that was never written";
    demand!([1]; storage.read(head(1)).await.is_none(), rule; "`read` returns a record");
    demand!([1]; !storage.contains(head(1)).await, rule; "`contains` returns true");
    demand!([1]; storage.size().await => 0, rule; cause "the harness does not open an empty storage");
}

/// Checks that payload, stamp and retention time are read as they were written (clause 1).
///
/// The payloads have the lengths around which storages and the cache change their ways, up to 5 MiB.
pub async fn records_are_read_as_written<H: Harness>(harness: &H) {
    let rule = "`read` returns the payload that was written, for every length";
    let storage = open(harness, &[1]).await;
    let chunk = 128 * 1024;
    for len in [0, 1, 2, 255, 256, chunk - 1, chunk, chunk + 1, 5 * 1024 * 1024] {
        if len + Record::OVERHEAD > storage.storage.max_record_len() {
            continue;
        }
        // Every byte value, in an order that does not repeat at any power of two.
        let bytes: Bytes = (0..len).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect::<Vec<_>>().into();
        let written = Record::new(bytes.clone(), Timestamp::from_millis(4_000_000_000_123));
        storage.write(head(1), written.clone()).await;
        let read = storage.existing(head(1)).await;
        let payload = read.payload();
        demand!([1]; payload == bytes, rule;
            "a payload of {len} bytes came back as {} bytes, which differ from byte {} on",
            payload.len(), payload.iter().zip(&bytes).take_while(|(read, written)| read == written).count());
        demand!([1]; read.stamp() => written.stamp(), "`read` returns the stamp that was written";
            cause "a stamp is made anew: keep the record's bytes by `Record::to_bytes` and `Record::from_bytes`");
        demand!([1]; read.retain_until() => written.retain_until(), "`read` returns the retention time that was written"; cause "the time is kept in seconds");
        demand!([1]; storage.contains(head(1)).await, "`contains` is true for a record"; "false");
    }
}

/// Checks that a write replaces the whole record (clause 3).
///
/// The new record is longer, shorter and empty.
pub async fn write_replaces_whole_record<H: Harness>(harness: &H) {
    let storage = open(harness, &[3]).await;
    for text in ["first", "a longer one", "x", ""] {
        storage.write(head(1), record(text)).await;
        demand!([3]; storage.text(head(1)).await.as_deref() => Some(text), "`write` replaces the whole record";
            cause "the old record is not removed, or the end of a longer one is not cut off");
    }
    demand!([3]; storage.size().await => 1, "`write` replaces the record instead of adding one");
}

/// Checks that readers see a whole record while it is replaced (clause 3).
pub async fn concurrent_readers_see_whole_records<H: Harness>(harness: &H) {
    let rule = "a reader sees the old record or the new one while `write` replaces it";
    let cause = "the record is written in several steps: write it beside the old one and rename it, or in a transaction";
    let storage = open(harness, &[3]).await;
    let whole = |letter: u8| vec![letter; 50_000 + 100 * usize::from(letter)];
    storage.write(head(1), record(whole(b'a'))).await;
    let written = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (storage, written) = (storage.clone(), Arc::clone(&written));
            tokio::spawn(async move {
                while !written.load(SeqCst) {
                    let Some(read) = storage.payload(head(1)).await else {
                        fail(&[3], rule, "no record", cause)
                    };
                    let first = read.first().copied().unwrap_or_default();
                    if read.len() != 50_000 + 100 * usize::from(first) {
                        fail(&[3], rule, "a record that is truncated, or has the end of another one", cause);
                    }
                    if read.iter().any(|byte| *byte != first) {
                        fail(&[3], rule, "a mixture of two records", cause);
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for letter in (b'b'..b'z').chain(b'a'..b'm') {
        storage.write(head(1), record(whole(letter))).await;
        tokio::task::yield_now().await;
    }
    written.store(true, SeqCst);
    join(readers).await;
}

/// Checks that a read sees the writes and deletions before it (clause 2).
pub async fn read_sees_earlier_changes<H: Harness>(harness: &H) {
    let storage = open(harness, &[2]).await;
    let other = storage.clone();
    for number in 0..20_u8 {
        storage.write(head(1), record(vec![number])).await;
        demand!([2]; other.payload(head(1)).await => Some(vec![number].into()),
            "a `read` that begins after a `write` has returned sees the new record, through every clone";
            cause "the write is queued, and `write` returns before it is done; or a clone has a copy");
        other.delete(head(1)).await;
        demand!([2]; storage.payload(head(1)).await => None,
            "a `read` that begins after a `delete` has returned sees no record, through every clone");
    }
}

/// Checks that keys which differ in one field have different records (clause 1).
pub async fn keys_are_distinct_in_every_field<H: Harness>(harness: &H) {
    let storage = open(harness, &[1]).await;
    let keys = [
        head(1),
        head(2),
        variant(1),
        head(1).sibling(Kind::Variant, [2; 16], 0),
        chunk(1, 0),
        chunk(1, 1),
        chunk(1, u32::MAX),
        chunk(2, 0),
        head(1).sibling(Kind::Lease, [0; 16], 0),
        head(1).sibling(Kind::Group, [0xff; 16], 0),
        head(1).sibling(Kind::Index, [1; 16], 0),
    ];
    for (number, key) in (0_u8..).zip(&keys) {
        storage.write(*key, record(vec![number])).await;
    }
    for (number, key) in (0_u8..).zip(&keys) {
        demand!([1]; storage.payload(*key).await => Some(vec![number].into()),
            "keys that differ in any field have records of their own";
            cause "a name that is made of a part of the key: use `Key::to_bytes` or its `Display`");
    }
}

/// Checks that `read_now` returns the same as `read`, after each kind of change (clause 16).
pub async fn read_now_agrees_with_read<H: Harness>(harness: &H) {
    let storage = open(harness, &[16]).await;
    let agree = async |key, change: &str| {
        let read = storage.read(key).await;
        if let Some(now) = storage.read_now(key) {
            demand!([16]; same(now.as_ref(), read.as_ref()), READ_NOW;
                "{change}, `read_now` returns {}, and `read` {}", described(now.as_ref()), described(read.as_ref());
                cause STALE_COPY);
        }
    };
    agree(head(1), "before any change").await;
    for key in [head(1), chunk(1, 7)] {
        storage.write(key, record("first")).await;
        agree(key, "after `write`").await;
        storage.write(key, record("second")).await;
        agree(key, "after another `write`").await;
        storage.retain(&[key], Retain::AtMost(Timestamp::from_secs(3_000_000_000))).await;
        agree(key, "after `retain`").await;
        storage.write(key, Record::new("expired", Timestamp::from_secs(1))).await;
        agree(key, "after `write` of an expired record").await;
        storage.delete(key).await;
        agree(key, "after `delete`").await;
    }
}

/// Returns whether two records are the same.
fn same(one: Option<&Record>, other: Option<&Record>) -> bool {
    let parts = |record: &Record| (record.stamp(), record.retain_until(), record.payload());
    one.map(parts) == other.map(parts)
}

/// Checks that `stamps` returns what `read` does, in the order of the keys and after each kind of change (clause 20).
pub async fn stamps_agree_with_read<H: Harness>(harness: &H) {
    let storage = open(harness, &[20]).await;
    let keys = [chunk(1, 2), head(2), head(1), variant(1), head(1), chunk(1, 0)];
    let agree = async || {
        let stamps = storage.stamps(&keys).await;
        demand!([20]; stamps.len() => keys.len(), "`stamps` returns one answer for each key");
        for (key, stamp) in keys.iter().zip(stamps) {
            let read = storage.read(*key).await.map(|record| (record.stamp(), record.retain_until()));
            demand!([20]; stamp => read, STAMPS);
        }
    };
    agree().await;
    for key in [head(1), chunk(1, 2), variant(1)] {
        storage.write(key, record(vec![7; 70_000])).await;
        agree().await;
    }
    storage.write(head(1), record("shorter")).await;
    agree().await;
    storage.retain(&keys, Retain::AtMost(Timestamp::from_secs(3_000_000_000))).await;
    agree().await;
    storage.write(head(2), Record::new("never", Timestamp::NEVER)).await;
    storage.delete(head(1)).await;
    agree().await;
    storage.clear().await;
    agree().await;
    demand!([20]; storage.stamps(&[]).await => [], "`stamps` returns one answer for each key");
}

/// Checks that `read_chunks_now` returns the payloads that `read` does, and none of an incomplete body (clause 16).
pub async fn read_chunks_now_agrees_with_read<H: Harness>(harness: &H) {
    let storage = open(harness, &[16]).await;
    for part in [0, 1, 2, 3, 5] {
        storage.write(chunk(1, part), record(format!("chunk {part}"))).await;
    }
    storage.write(head(1), record("head")).await;
    storage.write(head(1).sibling(Kind::Chunk, [2; 16], 4), record("of another body")).await;
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
        if !storage.storage.read_chunks_now(chunk(1, first), last, &mut chunks) {
            continue;
        }
        for (at, part) in (first..=last).enumerate() {
            let Some(read) = storage.payload(chunk(1, part)).await else {
                let found = format!(
                    "true for the parts {first} to {last}, but `read` returns no record of part {part}"
                );
                fail(&[16], CHUNKS_NOW, found, STALE_COPY)
            };
            if let Some(now) = chunks.get(at) {
                demand!([16]; *now => Some(read), CHUNKS_NOW);
            }
        }
        demand!([16]; chunks.iter().skip((last - first + 1) as usize).all(Option::is_none), CHUNKS_NOW;
            "more than the {} chunks from {first} to {last}", last - first + 1);
    }
}

/// Checks that damaged bytes count as an absent record (clause 14).
pub async fn damaged_bytes_are_absent<H: Harness>(harness: &H) {
    let rule = "bytes that are not a record count as an absent record, and are not an error";
    let cause = "the error of `Record::from_bytes` is returned: return `Ok(None)` instead";
    let storage = open(harness, &[14]).await;
    storage.write(head(1), record("good")).await;
    if harness.damage(&storage.storage, head(1)).await {
        match storage.storage.read(head(1)).await {
            Ok(None) => {}
            Ok(read) => {
                fail(&[14], rule, described(read.as_ref()), "`Harness::damage` does not reach the record")
            }
            Err(error) => fail(&[14], rule, format!("the error {error:?}"), cause),
        }
        demand!([14]; !storage.contains(head(1)).await, rule; "`contains` returns true");
        demand!([14]; storage.read_now(head(1)).flatten().is_none(), rule; "`read_now` returns a record");
        demand!([14]; storage.values().await.len() => 0, rule);
        demand!([14, 4]; storage.write_if(head(1), None, record("new")).await,
            "`write_if` with `None` writes where `read` returns no record"; "it returns false";
            cause "`write_if` compares with damaged bytes, so that the key could never be written again");
        demand!([14]; storage.text(head(1)).await.as_deref() => Some("new"), "a damaged record can be replaced");
    }
}
