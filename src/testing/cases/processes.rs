//! Clauses 4, 9 and 10, about processes that share a storage.
//!
//! A case opens the storage twice, and runs one operation at the moment when another, as in another process, has compared
//! and has not yet written. The provided methods of the trait take a lock of the process before they compare. The cases leave
//! it out, as another process does not have it.

use super::*;
use crate::storage::two_processes::interrupted;

const PROVIDED: &str = "the provided method is atomic only among the tasks of one process: implement it yourself, with one atomic operation \
     of the engine (a transaction, a conditional update, a script), or keep others from opening the storage";

/// Checks that `write_if` compares and writes in one step, also among processes (clause 4).
///
/// Checks nothing if the harness does not share names.
pub async fn processes_write_if_has_one_winner<H: Harness>(harness: &H) {
    let Some((one, other)) = open_twice(harness, &[4]).await else { return };
    for seen in [None, Some(record("first"))] {
        if let Some(first) = &seen {
            one.write(head(1), first.clone()).await;
        } else {
            one.clear().await;
        }
        let (seen, ours, theirs) = (seen.map(|first| first.stamp()), record("ours"), record("theirs"));
        let won = interrupted(
            one.write_if(head(1), seen, ours.clone()),
            other.write_if(head(1), seen, theirs.clone()),
        )
        .await;
        demand!([4]; won.0 != won.1, "of several `write_if` calls with the same `seen`, exactly one returns true, \
            also if they come from two processes";
            "{} return true", if won.0 { "both" } else { "none of two" }; cause PROVIDED);
        let winner = if won.0 { ours } else { theirs };
        demand!([4]; one.existing(head(1)).await.stamp() => winner.stamp(), "the record of the call that returned true is written");
    }
}

/// Checks that `retain` and `delete_expired` keep what another process writes meanwhile (clauses 9 and 10).
///
/// Checks nothing if the harness does not share names.
pub async fn processes_keep_each_others_changes<H: Harness>(harness: &H) {
    let Some((one, other)) = open_twice(harness, &[9, 10]).await else { return };
    let (first, second) = (Record::new("first", Timestamp::from_secs(3_000_000_000)), record("second"));
    one.write(head(1), first.clone()).await;
    let keys = [head(1)];
    let later = Retain::AtLeast(Timestamp::from_secs(3_500_000_000));
    interrupted(one.retain(&keys, later), other.write(head(1), second.clone())).await;
    demand!([9]; one.existing(head(1)).await.stamp() => second.stamp(),
        "a record that another process writes during `retain` is kept"; cause PROVIDED);
    one.write(head(1), first).await;
    interrupted(one.delete_expired(Timestamp::from_secs(3_000_000_000)), other.write(head(1), second)).await;
    demand!([10]; one.text(head(1)).await.as_deref() => Some("second"),
        "a record that another process writes during `delete_expired` is kept"; cause PROVIDED);
}
