//! Clauses 8, 18, 19 and 22, about held entries, closing, `check` and `usage`.

use super::*;

const WRITTEN: &str = "when `close` has returned, every accepted change is written, and a handle that is opened afterwards reads it";
const USAGE: &str = "`usage` follows the records, and names the bound";
const HELD: &str = "while a `Hold` of an entry exists, the entry is evicted after all others";

/// Checks that all changes are written when `close` has returned (clause 19).
///
/// They are read through a handle that is opened afterwards. Calls on the closed storage must return, even if with an error.
pub async fn close_writes_all_changes<H: Harness>(harness: &H) {
    let storage = open_named(harness, "closed", &[19]).await;
    storage.clear().await;
    for number in 0..50 {
        storage.write(head(number), record(vec![number; 1_000])).await;
        storage.write(chunk(number, 0), record(vec![number; 20_000])).await;
    }
    storage.delete(head(49)).await;
    for _ in 0..2 {
        storage.close().await;
    }
    let clone = storage.storage.clone();
    let calls = async {
        drop(clone.read(head(1)).await);
        drop(clone.write(head(200), record("late")).await);
        drop(clone.size().await);
        drop(clone.check().await);
    };
    storage.ends("a call on a closed storage", calls).await;
    if harness.persists() {
        let opened = open_named(harness, "closed", &[19]).await;
        let unwritten = "changes are queued, and `close` returns before the queue is empty";
        for number in 0..49 {
            for (key, len) in [(head(number), 1_000), (chunk(number, 0), 20_000)] {
                let read = opened.payload(key).await;
                demand!([19]; read.as_ref().is_some_and(|read| *read == vec![number; len]), WRITTEN;
                    "{} of a payload of {len} bytes", read.map_or("nothing".to_owned(), |read| format!("{} bytes", read.len()));
                    cause unwritten);
            }
        }
        demand!([19]; opened.read(head(49)).await.is_none(), WRITTEN; "a record that was deleted"; cause unwritten);
        demand_usable(&opened, head(201), "after another handle was closed").await;
        opened.clear().await;
    }
}

/// Checks that `check` succeeds, and changes no record (clause 22).
pub async fn check_succeeds<H: Harness>(harness: &H) {
    let storage = open(harness, &[22]).await;
    storage.check().await;
    storage.write(head(1), record("x")).await;
    storage.check().await;
    demand!([22]; storage.text(head(1)).await.as_deref() => Some("x"), "`check` changes no record");
    demand!([22]; storage.size().await => 1, "`check` changes no record"; cause "it writes a record and leaves it");
}

/// Checks that the usage follows the records, and stays within the bound (clause 8).
///
/// Checks nothing if the storage has no bound, or does not count its bytes.
pub async fn usage_follows_the_records<H: Harness>(harness: &H) {
    const MAX_BYTES: u64 = 4 << 20;
    const LEN: u64 = 50_000;
    let Some(storage) = harness.open_bounded(MAX_BYTES).await else { return };
    let storage = Tested::new(storage, &[8]);
    let Some(empty) = storage.usage().await.bytes else { return };
    let used = async || storage.usage().await.bytes.unwrap_or_default();
    demand!([8]; storage.usage().await.max_bytes => Some(MAX_BYTES), USAGE;
        cause "the harness opens the storage with another bound than it is asked for");
    for number in 0..10 {
        storage.write(head(number), record(incompressible(number, LEN as usize))).await;
    }
    let full = used().await;
    demand!([8]; (empty + 10 * LEN..=MAX_BYTES).contains(&full), USAGE;
        "{full} bytes of ten records of {LEN}, {empty} without, and a bound of {MAX_BYTES}");
    storage.write(head(3), record("short")).await;
    let less = used().await;
    demand!([8]; less < full, USAGE; "{less} bytes after a long record was replaced by a short one, {full} before");
    storage.clear().await;
    let cleared = used().await;
    demand!([8]; cleared < empty + LEN, USAGE; "{cleared} bytes after `clear`, {empty} before the first record");
}

/// Checks that a held entry is evicted after all others (clause 18).
///
/// It remains while several times the bound is written, and is evicted like others after the hold has ended. Checks nothing if
/// the storage has no bound.
pub async fn held_entry_is_evicted_last<H: Harness>(harness: &H) {
    const MAX_BYTES: u64 = 4 << 20;
    const LEN: usize = 100_000;
    const PARTS: u32 = 8;
    const ROUNDS: usize = 50;
    let Some(storage) = harness.open_bounded(MAX_BYTES).await else { return };
    let storage = Tested::new(storage, &[18]);
    storage.write(head(0), record("head")).await;
    for part in 0..PARTS {
        storage.write(chunk(0, part), record(incompressible(part as u8, LEN))).await;
    }
    let hold = storage.hold(chunk(0, 0), u64::from(PARTS) * LEN as u64);
    for number in 1..=200 {
        storage.write(head(number), record(incompressible(number, LEN))).await;
        if number.is_multiple_of(50) {
            for part in 0..PARTS {
                let read = storage.payload(chunk(0, part)).await;
                demand!([18]; read.is_some_and(|read| read == incompressible(part as u8, LEN)), HELD;
                    "the chunk {part} was evicted after {number} other records were written";
                    cause "`hold` is not implemented, or holds a single record instead of the entry of the key");
            }
        }
    }
    demand!([18]; storage.text(head(0)).await.as_deref() => Some("head"), HELD;
        cause "`hold` holds the chunks only: the head belongs to the entry too");
    drop(hold);
    let mut number = 0_u8;
    // Looking for it may count as a use, so that is done less often than the bound is filled.
    for _ in 0..ROUNDS {
        if !storage.contains(chunk(0, 0)).await {
            return;
        }
        for _ in 0..100 {
            number = number.wrapping_add(1).max(1);
            storage.write(head(number), record(incompressible(number, LEN))).await;
            // Used more often than the entry that was held, so that a storage that counts uses does not keep that one.
            drop(storage.read(head(number)).await);
        }
        // A storage may make room on a thread of its own.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fail(
        &[18],
        "an entry is evicted like others after its `Hold` was dropped",
        format!(
            "it is still there after {} records of {LEN} bytes, with a bound of {MAX_BYTES}",
            100 * ROUNDS
        ),
        "the storage does not notice that a `Hold` is dropped",
    );
}
