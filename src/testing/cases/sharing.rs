//! Clauses 2, 8, 11 and 21, about clones, handles and bounds.

use super::*;

const SEEN: &str =
    "a `read` that begins after a change has returned sees it, in every process that shares the storage";
const COPY: &str = "a handle has a copy in memory that other handles and processes do not change: \
                    read the storage each time, or say after how long a change is seen and let `Harness::shares` be false";
const PERSISTS: &str = "a handle that is opened later has the records of the earlier ones";
const LOST: &str = "concurrent writes to different keys are all kept";

/// Checks that clones share their records (clause 11).
pub async fn clones_share_records<H: Harness>(harness: &H) {
    let rule = "clones are handles to the same storage";
    let storage = open(harness, &[11]).await;
    let clone = storage.clone();
    clone.write(head(1), record("shared")).await;
    demand!([11]; storage.text(head(1)).await.as_deref() => Some("shared"), rule;
        cause "`Clone` copies the records: keep them behind an `Arc`");
    drop(clone);
    demand!([11]; storage.text(head(1)).await.as_deref() => Some("shared"), rule; cause "dropping a clone closes the storage");
}

/// Checks that sixteen concurrent writers lose no record (clauses 2 and 11).
pub async fn concurrent_writers_lose_nothing<H: Harness>(harness: &H) {
    let storage = open(harness, &[2, 11]).await;
    let tasks = (0..16_u8).map(|task| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for number in 0..20_u8 {
                let key = chunk(task, u32::from(number));
                storage.write(key, record(vec![task, number])).await;
                storage.write(head(task), record(vec![task])).await;
            }
        })
    });
    join(tasks).await;
    for task in 0..16_u8 {
        demand!([2, 11]; storage.payload(head(task)).await => Some(vec![task].into()), LOST);
        for number in 0..20_u8 {
            demand!([2, 11]; storage.payload(chunk(task, u32::from(number))).await => Some(vec![task, number].into()), LOST);
        }
    }
    demand!([2, 11]; storage.size().await => 16, LOST);
}

/// Checks that two handles see each other's changes at once (clauses 2 and 11).
///
/// The handles are opened separately, and both have read the records before, so that they may have cached them. Checks
/// nothing if the harness does not share names.
pub async fn second_handle_sees_every_change<H: Harness>(harness: &H) {
    let Some((one, other)) = open_twice(harness, &[2, 11]).await else { return };
    let keys = [head(1), chunk(1, 0), variant(1), head(2)];
    let mut stamps = Vec::new();
    for key in keys {
        let written = record(vec![0; 100]);
        one.write(key, written.clone()).await;
        stamps.push(written.stamp());
    }
    let stamp_at = async |storage: &Tested<H::Storage>, key| {
        let stamp = storage.read(key).await.map(|record| record.stamp());
        if let Some(now) = storage.read_now(key) {
            demand!([2, 16]; now.map(|record| record.stamp()) => stamp,
                "`read_now` returns `None` or what `read` returns, also after a change by another process"; cause COPY);
        }
        stamp
    };
    for round in 0..20_u8 {
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        for (key, stamp) in keys.iter().zip(&mut stamps) {
            for storage in [writer, reader] {
                demand!([2, 11]; stamp_at(storage, *key).await => Some(*stamp), SEEN; cause COPY);
            }
            let next = record(vec![round; 200]);
            if round % 4 < 2 {
                writer.write(*key, next.clone()).await;
            } else {
                demand!([2, 4]; writer.write_if(*key, Some(*stamp), next.clone()).await,
                    "`write_if` compares with the record that every process sees"; "false with the stamp that `read` returned");
            }
            demand!([2, 11]; stamp_at(reader, *key).await => Some(next.stamp()), SEEN; cause COPY);
            demand!([2, 4]; !reader.write_if(*key, Some(*stamp), record("late")).await,
                "`write_if` compares with the record that every process sees";
                "true with the stamp from before a change by another handle"; cause COPY);
            *stamp = next.stamp();
        }
        let later = LATER + Duration::from_millis(1 + u64::from(round));
        demand!([2, 9]; writer.retain(&keys, Retain::AtLeast(later)).await => 4, "`retain` counts the records of every handle");
        demand!([2, 9]; reader.existing(head(1)).await.retain_until() => later, SEEN; cause COPY);
    }
    let gone = "a record that one handle has deleted is absent for every other";
    demand!([2, 5]; one.delete(head(2)).await, gone; "`delete` of a record returns false");
    demand!([2]; stamp_at(&other, head(2)).await => None, gone; cause COPY);
    demand!([2]; !other.contains(head(2)).await, gone; "`contains` returns true"; cause COPY);
    demand!([2, 5]; !other.delete(head(2)).await, gone; "`delete` returns true"; cause COPY);
    demand!([2, 5]; other.delete_many(&keys[1..2]).await => 1, gone);
    demand!([2]; !one.contains(keys[1]).await && one.contains(keys[0]).await, gone;
        "after `delete_many` of one of two keys, `contains` does not tell them apart"; cause COPY);
    demand!([2, 7]; one.size().await => 2, gone; cause COPY);
    one.clear().await;
    demand!([2, 6]; stamp_at(&other, head(1)).await => None, "after `clear`, the records are absent for every handle"; cause COPY);
    demand!([2, 6]; other.keys().await => [], "after `clear`, the records are absent for every handle"; cause COPY);
}

/// Checks that the change count of a key differs after each change by another handle (clause 21).
///
/// Checks nothing if the harness does not share names, or if the storage has no signal of changes.
pub async fn changes_show_in_change_count<H: Harness>(harness: &H) {
    let Some((one, other)) = open_twice(harness, &[21]).await else { return };
    let count = || one.storage.change_count(head(1), SILENCE);
    // A signal may have to be set up first, which the first call begins.
    let signal = tokio::time::timeout(Duration::from_secs(2), async {
        while count().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    if signal.await.is_err() {
        return;
    }
    let mut earlier = Vec::new();
    for change in 0..20_u32 {
        // `None` is right at any time, and means that no copy may be trusted.
        let before = count();
        demand!([21]; before.is_none_or(|count| change == 0 || !earlier.contains(&count)),
            "`change_count` never returns to a number that it had before"; "{before:?} again");
        earlier.extend(before);
        match change % 4 {
            0 => other.write(head(1), record("written")).await,
            1 => drop(other.retain(&[head(1)], Retain::AtLeast(LATER + Duration::from_secs(1))).await),
            2 => drop(other.delete(head(1)).await),
            _ => drop(other.write_if(head(1), None, record("new")).await),
        }
        let is_seen = async {
            while count().is_some_and(|count| earlier.contains(&count)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let operation = ["write", "retain", "delete", "write_if"][change as usize % 4];
        let shows = tokio::time::timeout(SEEN_WITHIN, is_seen).await.is_ok();
        demand!([21]; shows,
            "a change by another handle shows in `change_count` after at most `max_silence`";
            "the same number {} s after `{operation}` through another handle", SEEN_WITHIN.as_secs();
            cause "the signal counts the changes of its own handle only: return `None` if there is no signal of others");
    }
    one.clear().await;
}

/// How long a signal of changes may be silent.
const SILENCE: Duration = Duration::from_secs(1);

/// How long the case waits for the signal. Much longer, because the machine may be busy.
const SEEN_WITHIN: Duration = Duration::from_secs(100);

/// Checks that a storage that is opened again has its records (clause 11).
///
/// Checks nothing if the harness neither shares names nor persists.
pub async fn reopened_storage_has_its_records<H: Harness>(harness: &H) {
    let written = record(vec![5; 300_000]);
    if let Some((one, other)) = open_twice(harness, &[11]).await {
        one.write(head(1), written.clone()).await;
        demand!([2, 11]; other.existing(head(1)).await.stamp() => written.stamp(), SEEN; cause COPY);
        one.clear().await;
    }
    if harness.persists() {
        let name = random_name();
        let deleted = head(1).sibling(Kind::Variant, [3; 16], 0);
        let later = LATER + Duration::from_millis(1);
        {
            let storage = open_named(harness, &name, &[11]).await;
            storage.write(head(1), written.clone()).await;
            storage.write(deleted, record("gone")).await;
            storage.delete(deleted).await;
            storage.write(chunk(1, 0), record("kept longer")).await;
            storage.retain(&[chunk(1, 0)], Retain::AtLeast(later)).await;
        }
        let storage = open_named(harness, &name, &[11]).await;
        let read = storage.read(head(1)).await;
        let is_written = |read: &Record| {
            read.payload() == written.payload() && read.retain_until() == written.retain_until()
        };
        demand!([11]; read.as_ref().is_some_and(is_written), PERSISTS;
            "{}, where {} was written", described(read.as_ref()), described(Some(&written));
            cause "the storage keeps its records in memory: let `Harness::persists` be false");
        demand!([11]; storage.text(deleted).await => None, "a deleted record does not come back when the storage is opened again");
        demand!([9, 11]; storage.existing(chunk(1, 0)).await.retain_until() => later, PERSISTS);
        demand!([4, 11]; storage.write_if(head(1), Some(written.stamp()), record("next")).await, PERSISTS;
            "`write_if` with the stamp that was written returns false");
        storage.clear().await;
    }
}

/// Checks that records of every kind count towards the bound, and are evicted (clause 8).
///
/// Checks nothing if the storage has no bound.
pub async fn every_kind_is_counted_and_evicted<H: Harness>(harness: &H) {
    const MAX_BYTES: u64 = 512 * 1024;
    const LEN: u64 = 4000;
    let rule = "records of every kind count towards the bound and can be evicted";
    for kind in Kind::ALL {
        let Some(storage) = harness.open_bounded(MAX_BYTES).await else { return };
        let storage = Tested::new(storage, &[8]);
        for number in 0..200 {
            let key = head(number).sibling(kind, [0; 16], 0);
            storage.write(key, record(incompressible(number, LEN as usize))).await;
        }
        // A storage may make room on a thread of its own, some time after the write.
        let is_within = async {
            loop {
                let kept = storage.keys().await.len();
                if kept as u64 * LEN <= MAX_BYTES {
                    return kept;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let Ok(kept) = tokio::time::timeout(EVICTED_WITHIN, is_within).await else {
            fail(
                &[8],
                rule,
                format!("200 records of {kind:?} stay above the bound of {MAX_BYTES} bytes"),
                "this kind is kept in a table of its own, or is never chosen for eviction",
            );
        };
        demand!([8]; kept > 10, rule; "only {kept} records of {kind:?} are left: too many were evicted");
    }
}

/// How long the case waits until a storage is within its bound again.
const EVICTED_WITHIN: Duration = Duration::from_secs(100);
