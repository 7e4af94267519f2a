//! Clause 19, and what a storage tells of itself.

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
