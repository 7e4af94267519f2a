//! Clauses 2, 8 and 11, about clones, handles and bounds.

use futures_util::TryStreamExt;
use futures_util::future::join_all;

use super::*;
use crate::storage::Retain;

/// Checks that clones share their records (clause 11).
pub async fn clones_share_records<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let clone = storage.clone();
    clone.write(head(1), record("shared")).await.unwrap();
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "shared");
    drop(clone);
    assert_eq!(payload(&storage, head(1)).await.unwrap(), "shared");
}

/// Checks that sixteen concurrent writers lose no record (clauses 2 and 11).
pub async fn concurrent_writers_lose_nothing<H: Harness>(harness: &H) {
    let storage = open(harness).await;
    let tasks = (0..16_u8).map(|task| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for number in 0..20_u8 {
                let key = chunk(task, u32::from(number));
                storage.write(key, record(vec![task, number])).await.unwrap();
                storage.write(head(task), record(vec![task])).await.unwrap();
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|done| done.unwrap());
    for task in 0..16_u8 {
        assert_eq!(payload(&storage, head(task)).await.unwrap(), vec![task]);
        for number in 0..20_u8 {
            assert_eq!(payload(&storage, chunk(task, u32::from(number))).await.unwrap(), vec![task, number]);
        }
    }
    assert_eq!(storage.size().await.unwrap(), 16);
}

/// Checks that two handles see each other's changes at once (clauses 2 and 11).
///
/// The handles are opened separately, and both have read the records before, so that they may have cached them. Checks
/// nothing if the harness does not share names.
pub async fn second_handle_sees_every_change<H: Harness>(harness: &H) {
    if !harness.shares() {
        return;
    }
    let (one, other) = (harness.open("warm").await.unwrap(), harness.open("warm").await.unwrap());
    one.clear().await.unwrap();
    let keys = [head(1), chunk(1, 0), head(1).sibling(Kind::Variant, [1; 16], 0), head(2)];
    let mut stamps = Vec::new();
    for key in keys {
        let written = record(vec![0; 100]);
        one.write(key, written.clone()).await.unwrap();
        stamps.push(written.stamp());
    }
    let stamp_at = async |storage: &H::Storage, key| {
        let stamp = storage.read(key).await.unwrap().map(|record| record.stamp());
        if let Some(now) = storage.read_now(key) {
            assert_eq!(
                now.unwrap().map(|record| record.stamp()),
                stamp,
                "read_now returns the previous record"
            );
        }
        stamp
    };
    for round in 0..20_u8 {
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        for (key, stamp) in keys.iter().zip(&mut stamps) {
            for storage in [writer, reader] {
                assert_eq!(stamp_at(storage, *key).await, Some(*stamp));
            }
            let next = record(vec![round; 200]);
            if round % 4 < 2 {
                writer.write(*key, next.clone()).await.unwrap();
            } else {
                assert!(writer.write_if(*key, Some(*stamp), next.clone()).await.unwrap());
            }
            assert_eq!(
                stamp_at(reader, *key).await,
                Some(next.stamp()),
                "a handle returns the previous record"
            );
            assert!(!reader.write_if(*key, Some(*stamp), record("late")).await.unwrap());
            *stamp = next.stamp();
        }
        let later = LATER + Duration::from_millis(1 + u64::from(round));
        assert_eq!(writer.retain(&keys, Retain::AtLeast(later)).await.unwrap(), 4);
        assert_eq!(reader.read(head(1)).await.unwrap().unwrap().retain_until(), later);
    }
    assert!(one.delete(head(2)).await.unwrap());
    assert!(stamp_at(&other, head(2)).await.is_none() && !other.contains(head(2)).await.unwrap());
    assert!(!other.delete(head(2)).await.unwrap());
    assert_eq!(other.delete_many(&keys[1..2]).await.unwrap(), 1);
    assert!(!one.contains(keys[1]).await.unwrap() && one.contains(keys[0]).await.unwrap());
    assert_eq!(one.size().await.unwrap(), 2);
    one.clear().await.unwrap();
    assert!(stamp_at(&other, head(1)).await.is_none());
    assert_eq!(other.keys().try_collect::<Vec<_>>().await.unwrap(), []);
}

/// Checks that the change count of a key differs after each change by another handle (clause 21).
///
/// Checks nothing if the harness does not share names, or if the storage has no signal of changes.
pub async fn changes_show_in_change_count<H: Harness>(harness: &H) {
    if !harness.shares() {
        return;
    }
    let (one, other) = (harness.open("counted").await.unwrap(), harness.open("counted").await.unwrap());
    one.clear().await.unwrap();
    // A signal may have to be set up first, which the first call begins.
    let signal = tokio::time::timeout(Duration::from_secs(2), async {
        while one.change_count(head(1), SILENCE).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    if signal.await.is_err() {
        return;
    }
    let mut earlier = Vec::new();
    for change in 0..20_u32 {
        // `None` is right at any time, and means that no copy may be trusted.
        let before = one.change_count(head(1), SILENCE);
        assert!(before.is_none_or(|count| change == 0 || !earlier.contains(&count)), "a count has returned");
        earlier.extend(before);
        match change % 4 {
            0 => other.write(head(1), record("written")).await.unwrap(),
            1 => {
                let later = LATER + Duration::from_secs(1);
                assert_eq!(other.retain(&[head(1)], Retain::AtLeast(later)).await.unwrap(), 1);
            }
            2 => assert!(other.delete(head(1)).await.unwrap()),
            _ => assert!(other.write_if(head(1), None, record("new")).await.unwrap()),
        }
        let is_seen = async {
            while one.change_count(head(1), SILENCE).is_some_and(|count| earlier.contains(&count)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        in_time("waiting until a change shows in the change count", is_seen).await;
    }
}

/// How long a signal of changes may be silent.
const SILENCE: Duration = Duration::from_secs(1);

/// Checks that a storage that is opened again has its records (clause 11).
///
/// Checks nothing if the harness neither shares names nor persists.
pub async fn reopened_storage_has_its_records<H: Harness>(harness: &H) {
    let written = record(vec![5; 300_000]);
    if harness.shares() {
        let (one, other) = (harness.open("shared").await.unwrap(), harness.open("shared").await.unwrap());
        one.write(head(1), written.clone()).await.unwrap();
        assert_eq!(other.read(head(1)).await.unwrap().unwrap().stamp(), written.stamp());
        one.clear().await.unwrap();
    }
    if harness.persists() {
        let deleted = head(1).sibling(Kind::Variant, [3; 16], 0);
        let later = LATER + Duration::from_millis(1);
        {
            let storage = harness.open("again").await.unwrap();
            storage.write(head(1), written.clone()).await.unwrap();
            storage.write(deleted, record("gone")).await.unwrap();
            storage.delete(deleted).await.unwrap();
            storage.write(chunk(1, 0), record("kept longer")).await.unwrap();
            storage.retain(&[chunk(1, 0)], Retain::AtLeast(later)).await.unwrap();
        }
        let storage = harness.open("again").await.unwrap();
        let read = storage.read(head(1)).await.unwrap().expect("the storage persists its records");
        assert_eq!((read.payload(), read.retain_until()), (written.payload(), written.retain_until()));
        assert!(storage.read(deleted).await.unwrap().is_none(), "a deleted record came back");
        assert_eq!(storage.read(chunk(1, 0)).await.unwrap().unwrap().retain_until(), later);
        assert!(storage.write_if(head(1), Some(written.stamp()), record("next")).await.unwrap());
        storage.clear().await.unwrap();
    }
}

/// Checks that records of every kind count towards the bound, and are evicted (clause 8).
///
/// Checks nothing if the storage has no bound.
pub async fn every_kind_is_counted_and_evicted<H: Harness>(harness: &H) {
    const MAX_BYTES: u64 = 512 * 1024;
    const LEN: u64 = 4000;
    for kind in Kind::ALL {
        let Some(storage) = harness.open_bounded(MAX_BYTES).await else { return };
        for number in 0..200 {
            let key = head(number).sibling(kind, [0; 16], 0);
            storage.write(key, record(incompressible(number, LEN as usize))).await.unwrap();
        }
        // A storage may make room on a thread of its own, some time after the write.
        let is_within = async {
            loop {
                let kept: Vec<Key> = storage.keys().try_collect().await.unwrap();
                if kept.len() as u64 * LEN <= MAX_BYTES {
                    return kept.len();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let kept = in_time(&format!("with records of {kind:?} above its bound"), is_within).await;
        assert!(kept > 10, "only {kept} records of {kind:?} are left: too many were evicted");
    }
}
