//! Clauses 8, 18 and 19, about held entries, closing, `check` and `usage`.

use super::*;

/// Checks that all changes are written when `close` has returned (clause 19).
///
/// They are read through a handle that is opened afterwards. Calls on the closed storage must return, even if with an error.
pub async fn close_writes_all_changes<H: Harness>(harness: &H) {
    let storage = harness.open("closed").await.unwrap();
    storage.clear().await.unwrap();
    for number in 0..50 {
        storage.write(head(number), record(vec![number; 1_000])).await.unwrap();
        storage.write(chunk(number, 0), record(vec![number; 20_000])).await.unwrap();
    }
    assert!(storage.delete(head(49)).await.unwrap());
    for _ in 0..2 {
        in_time("when it is closed", storage.close()).await.unwrap();
    }
    let clone = storage.clone();
    let calls = async {
        drop(clone.read(head(1)).await);
        drop(clone.write(head(200), record("late")).await);
        drop(clone.size().await);
        drop(clone.check().await);
    };
    in_time("when it is used after it was closed", calls).await;
    if harness.persists() {
        let opened = harness.open("closed").await.unwrap();
        for number in 0..49 {
            assert_eq!(payload(&opened, head(number)).await.unwrap(), vec![number; 1_000]);
            assert_eq!(payload(&opened, chunk(number, 0)).await.unwrap(), vec![number; 20_000]);
        }
        assert!(opened.read(head(49)).await.unwrap().is_none());
        in_time("after another handle was closed", assert_usable(&opened, head(201))).await;
        opened.clear().await.unwrap();
    }
}

/// Checks that `check` succeeds, and changes no record.
pub async fn check_succeeds<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    storage.check().await.unwrap();
    storage.write(head(1), record("x")).await.unwrap();
    storage.check().await.unwrap();
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "x");
    assert_eq!(storage.size().await.unwrap(), 1);
}

/// Checks that the usage follows the records, and stays within the bound (clause 8).
///
/// Checks nothing if the storage has no bound, or does not count its bytes.
pub async fn usage_follows_the_records<H: Harness>(harness: &H) {
    const MAX_BYTES: u64 = 4 << 20;
    const LEN: u64 = 50_000;
    let Some(storage) = harness.open_bounded(MAX_BYTES).await else { return };
    let used = async || storage.usage().await.unwrap().bytes;
    let Some(empty) = used().await else { return };
    assert_eq!(storage.usage().await.unwrap().max_bytes, Some(MAX_BYTES));
    for number in 0..10 {
        storage.write(head(number), record(incompressible(number, LEN as usize))).await.unwrap();
    }
    let full = used().await.unwrap();
    assert!(
        (empty + 10 * LEN..=MAX_BYTES).contains(&full),
        "{full} bytes of ten records of {LEN}, {empty} without"
    );
    storage.write(head(3), record("short")).await.unwrap();
    assert!(used().await.unwrap() < full);
    storage.clear().await.unwrap();
    assert!(used().await.unwrap() < empty + LEN);
}

/// Checks that a held entry is evicted after all others (clause 18).
///
/// It remains while several times the bound is written, and is evicted like others after the hold has ended. Checks nothing if
/// the storage has no bound.
pub async fn held_entry_is_evicted_last<H: Harness>(harness: &H) {
    const MAX_BYTES: u64 = 4 << 20;
    const LEN: usize = 100_000;
    const PARTS: u32 = 8;
    let Some(storage) = harness.open_bounded(MAX_BYTES).await else { return };
    storage.write(head(0), record("head")).await.unwrap();
    for part in 0..PARTS {
        storage.write(chunk(0, part), record(incompressible(part as u8, LEN))).await.unwrap();
    }
    let hold = storage.hold(chunk(0, 0), u64::from(PARTS) * LEN as u64);
    for number in 1..=200 {
        storage.write(head(number), record(incompressible(number, LEN))).await.unwrap();
        if number.is_multiple_of(50) {
            for part in 0..PARTS {
                let read = payload(&storage, chunk(0, part)).await;
                assert!(
                    read.is_some_and(|read| read == incompressible(part as u8, LEN)),
                    "a held chunk was evicted"
                );
            }
        }
    }
    assert_eq!(payload(&storage, head(0)).await.expect("the head of a held entry was evicted"), "head");
    drop(hold);
    let is_evicted = async {
        let mut number = 0_u8;
        // Looking for it may count as a use, so that is done less often than the bound is filled.
        while storage.contains(chunk(0, 0)).await.unwrap() {
            for _ in 0..100 {
                number = number.wrapping_add(1).max(1);
                storage.write(head(number), record(incompressible(number, LEN))).await.unwrap();
                // Used more often than the entry that was held, so that a storage that counts uses does not keep that one.
                drop(storage.read(head(number)).await.unwrap());
            }
        }
    };
    in_time("before it evicts an entry that is no longer held", is_evicted).await;
}
