//! Clauses 18 and 19, and what a storage tells of itself.

use super::*;

/// 19. What was taken is written when `close` has returned, for a handle that is opened beside the closed one. What the closed one is
///     asked after that ends, be it with an error.
pub async fn close_writes_everything_that_was_taken<H: Harness>(harness: &H) {
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
    let asked = async {
        drop(clone.read(head(1)).await);
        drop(clone.write(head(200), record("late")).await);
        drop(clone.size().await);
        drop(clone.check().await);
    };
    in_time("when it is asked after it was closed", asked).await;
    if harness.persists() {
        let opened = harness.open("closed").await.unwrap();
        for number in 0..49 {
            assert_eq!(payload(&opened, head(number)).await.unwrap(), vec![number; 1_000]);
            assert_eq!(payload(&opened, chunk(number, 0)).await.unwrap(), vec![number; 20_000]);
        }
        assert!(opened.read(head(49)).await.unwrap().is_none());
        in_time("after another handle was closed", goes_on(&opened, head(201))).await;
        opened.clear().await.unwrap();
    }
}

/// A storage that answers says that it works, and nothing of it changes.
pub async fn check_says_that_it_works<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    storage.check().await.unwrap();
    storage.write(head(1), record("x")).await.unwrap();
    storage.check().await.unwrap();
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "x");
    assert_eq!(storage.size().await.unwrap(), 1);
}

/// 8. Where bytes are counted, they grow with the records, stay within the bound, and go with them.
pub async fn usage_grows_and_falls_with_the_records<H: Harness>(harness: &H) {
    const MOST: u64 = 4 << 20;
    const LEN: u64 = 50_000;
    let Some(storage) = harness.open_bounded(MOST).await else { return };
    let used = async || storage.usage().await.unwrap().bytes;
    let Some(empty) = used().await else { return };
    assert_eq!(storage.usage().await.unwrap().max_bytes, Some(MOST));
    for number in 0..10 {
        storage.write(head(number), record(vec![number; LEN as usize])).await.unwrap();
    }
    let full = used().await.unwrap();
    assert!(
        (empty + 10 * LEN..=MOST).contains(&full),
        "{full} bytes of ten records of {LEN}, {empty} without"
    );
    storage.write(head(3), record("short")).await.unwrap();
    assert!(used().await.unwrap() < full);
    storage.clear().await.unwrap();
    assert!(used().await.unwrap() < empty + LEN);
}

/// 18. Where there is a bound: an entry of which a body is held is there after several times the bound was written; when it is held no
///     longer, it goes as others do.
pub async fn a_held_entry_is_evicted_last<H: Harness>(harness: &H) {
    const MOST: u64 = 4 << 20;
    const LEN: usize = 100_000;
    const PARTS: u32 = 8;
    let Some(storage) = harness.open_bounded(MOST).await else { return };
    storage.write(head(0), record("head")).await.unwrap();
    for part in 0..PARTS {
        storage.write(chunk(0, part), record(vec![part as u8; LEN])).await.unwrap();
    }
    let hold = storage.hold(chunk(0, 0), u64::from(PARTS) * LEN as u64);
    for number in 1..=200 {
        storage.write(head(number), record(vec![number; LEN])).await.unwrap();
        if number.is_multiple_of(50) {
            for part in 0..PARTS {
                let read = payload(&storage, chunk(0, part)).await;
                assert!(read.is_some_and(|read| read == vec![part as u8; LEN]), "a held chunk is gone");
            }
        }
    }
    assert_eq!(payload(&storage, head(0)).await.expect("the head of a held entry is there"), "head");
    drop(hold);
    let goes = async {
        let mut number = 0_u8;
        while storage.contains(chunk(0, 0)).await.unwrap() {
            number = number.wrapping_add(1).max(1);
            storage.write(head(number), record(vec![number; LEN])).await.unwrap();
            // More than a use each, so that frequency alone does not keep what nothing reads.
            drop(storage.read(head(number)).await.unwrap());
        }
    };
    in_time("with an entry that was held", goes).await;
}
