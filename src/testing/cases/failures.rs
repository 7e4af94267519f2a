//! Clause 22, about storages whose medium fails.
//!
//! A storage with copies in memory may still answer from them. So an operation returns an error, or what is right.

use futures_util::TryStreamExt;

use super::*;
use crate::error::Result;

const READS: &str =
    "a method that cannot read returns an error, and no answer as though there were no record";
const SWALLOWED: &str =
    "an error of the medium is turned into an absent record: only damaged bytes count as absent (clause 14)";
const CHANGES: &str = "after a failed change, the key has the old record or the new one";

/// Checks that a read that fails is an error, and not an absent record (clause 22).
///
/// Checks nothing if the harness cannot make the medium fail.
pub async fn failed_reads_are_errors<H: Harness>(harness: &H) {
    let tested = open(harness, &[22]).await;
    let storage = &tested.storage;
    let keys = [head(1), variant(1), chunk(1, 0)];
    let mut written = Vec::new();
    for key in keys {
        let record = record("stored");
        tested.write(key, record.clone()).await;
        written.push((record.stamp(), LATER));
    }
    if !harness.set_failing(storage, true).await {
        return;
    }
    let mut failed = 0;
    let mut demand_right = |operation: &str, answer: Result<bool>| match answer {
        Ok(true) => {}
        Ok(false) => {
            fail(&[22], READS, format!("`{operation}` returns no error and a wrong answer"), SWALLOWED)
        }
        Err(_) => failed += 1,
    };
    for (key, (stamp, _)) in keys.into_iter().zip(&written) {
        let is_right = |read: Option<Record>| read.is_some_and(|read| read.stamp() == *stamp);
        demand_right("read", tested.ends("read", storage.read(key)).await.map(is_right));
        if let Some(now) = storage.read_now(key) {
            demand_right("read_now", now.map(is_right));
        }
        demand_right("contains", tested.ends("contains", storage.contains(key)).await);
    }
    demand_right("contains_all", tested.ends("contains_all", storage.contains_all(&keys)).await);
    let stamps = tested.ends("stamps", storage.stamps(&keys)).await;
    demand_right("stamps", stamps.map(|stamps| stamps.iter().flatten().eq(&written)));
    let listed = tested.ends("keys", storage.keys().try_collect::<Vec<Key>>()).await;
    demand_right("keys", listed.map(|listed| listed.len() == 3));
    let values = tested.ends("values", storage.values().try_collect::<Vec<_>>()).await;
    demand_right("values", values.map(|values| values.len() == 2));
    demand_right("size", tested.ends("size", storage.size()).await.map(|size| size == 2));
    demand!([22]; failed > 0, "an operation on a medium that fails returns an error"; "every operation succeeds";
        cause "`Harness::set_failing` returns true, although nothing fails");
    let check = tested.ends("check", storage.check()).await;
    if tested.ends("read", storage.read(head(2))).await.is_err() {
        demand!([22]; check.is_err(), "`check` returns an error if the storage cannot be read"; "no error");
    }
    recover(harness, &tested).await;
    for (key, (stamp, _)) in keys.into_iter().zip(written) {
        demand!([22]; tested.read(key).await.map(|read| read.stamp()) => Some(stamp), "failed reads change no record");
    }
    tested.clear().await;
}

/// Checks that a change that fails leaves the old record or the new one (clause 22).
///
/// A change that returned no error has happened. Checks nothing if the harness cannot make the medium fail.
pub async fn failed_changes_leave_old_or_new<H: Harness>(harness: &H) {
    let tested = open(harness, &[22]).await;
    let storage = &tested.storage;
    let old = Record::new(vec![b'o'; 10_000], LATER);
    let new = record(vec![b'n'; 20_000]);
    let [written, compared, refused, deleted, retained] = [head(1), head(2), head(3), head(4), head(5)];
    for key in [written, compared, refused, deleted, retained] {
        tested.write(key, old.clone()).await;
    }
    if !harness.set_failing(storage, true).await {
        return;
    }
    let later = LATER + Duration::from_secs(1);
    let write = tested.ends("write", storage.write(written, new.clone())).await;
    let compare = tested.ends("write_if", storage.write_if(compared, Some(old.stamp()), new.clone())).await;
    let refuse = tested.ends("write_if", storage.write_if(refused, None, new.clone())).await;
    let delete = tested.ends("delete", storage.delete(deleted)).await;
    let retain = tested.ends("retain", storage.retain(&[retained], Retain::AtLeast(later))).await;
    demand!([22, 4]; !matches!(refuse, Ok(true)),
        "`write_if` with `None` writes only if there is no record, and not where reading the record fails"; "it returns true";
        cause SWALLOWED);
    demand!([22, 4]; !matches!(compare, Ok(false)),
        "`write_if` that cannot compare returns an error"; "false with the stamp of the record"; cause SWALLOWED);
    demand!([22, 5]; !matches!(delete, Ok(false)), "`delete` that cannot read or write returns an error";
        "false for a record"; cause SWALLOWED);
    demand!([22, 9]; !matches!(retain, Ok(0)), "`retain` that cannot read or write returns an error";
        "0 of one record"; cause SWALLOWED);
    recover(harness, &tested).await;
    let changes = [
        ("write", written, Some(&new), write.is_ok()),
        ("write_if", compared, Some(&new), compare.is_ok()),
        ("write_if, a wrong stamp", refused, Some(&old), false),
        ("delete", deleted, None, delete.is_ok()),
        ("retain", retained, Some(&old), false),
    ];
    for (operation, key, changed, has_succeeded) in changes {
        let read = tested.read(key).await;
        let is = |record: Option<&Record>| match (&read, record) {
            (Some(read), Some(record)) => {
                read.stamp() == record.stamp() && read.payload() == record.payload()
            }
            (read, record) => read.is_none() && record.is_none(),
        };
        demand!([22]; is(changed) || is(Some(&old)), CHANGES;
            "after `{operation}`, {}", described(read.as_ref());
            cause "the old record is removed or overwritten before the new one is complete");
        demand!([22]; !has_succeeded || is(changed), "a change that returns no error has happened";
            "after `{operation}` succeeded, {}", described(read.as_ref()));
    }
    tested.clear().await;
}

/// Lets the medium work again, and waits until the storage does.
async fn recover<H: Harness>(harness: &H, tested: &Tested<H::Storage>) {
    harness.set_failing(&tested.storage, false).await;
    let rule = "the storage works again when the cause of the failure is gone";
    let works = async {
        // A storage may wait before it asks a server again that did not answer.
        while tested.storage.read(head(1)).await.is_err()
            || tested.storage.write(head(99), record("x")).await.is_err()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(RECOVERED_WITHIN, works).await.is_err() {
        fail(
            &[22],
            rule,
            format!("errors for {} s", RECOVERED_WITHIN.as_secs()),
            "a broken connection or file handle is kept: open it anew after an error",
        );
    }
}

/// How long the cases wait until a storage works again.
const RECOVERED_WITHIN: Duration = Duration::from_secs(100);
