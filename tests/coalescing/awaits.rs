//! One of several coalesced requests, dropped at each of its awaits.

use std::time::Duration;

use super::world::World;
use crate::support::faulty::{Faulty, Mode};
use crate::support::task::{Task, settle};

const FIELDS: &[(&str, &str)] = &[("cache-control", "max-age=10"), ("etag", "\"a\"")];

/// Drops the leader or a follower after each number of polls.
///
/// The origin sends one frame per step. Returns the number of drops.
async fn drop_one(leader: bool, stale: bool) -> usize {
    let mut drops = 0;
    for polls in 0.. {
        let world = World::on(Faulty::new(Mode::Well), |builder| builder.chunk_bytes(3));
        if stale {
            world.store(FIELDS, "before", Duration::from_secs(11)).await;
        }
        let mut tasks = world.herd(3, &[]);
        let victim = if leader { 0 } else { 1 };
        let (mut left, mut calls, mut senders) = (polls, 0, Vec::new());
        let mut dropped = false;
        for _ in 0..200 {
            for (number, task) in tasks.iter_mut().enumerate() {
                if number == victim && left == 0 && !dropped && !task.is_done() {
                    dropped = true;
                    drops += 1;
                    *task = Task::new(std::future::pending());
                    task.poll();
                } else if task.is_woken() {
                    task.poll();
                    left -= usize::from(number == victim && left > 0);
                }
            }
            tokio::task::yield_now().await;
            if world.upstream.waiting() > 0 {
                calls += 1;
                senders.push((world.upstream.call().head(200, FIELDS), 0));
            }
            senders.retain_mut(|(sender, sent)| {
                if *sent < 4 {
                    sender.data(["01", "23", "45", "67"][*sent]);
                }
                *sent += 1;
                *sent < 5
            });
        }
        for number in (0..3).filter(|number| *number != victim || !dropped) {
            let got = tasks[number].run().expect("every remaining request is answered").unwrap();
            assert_eq!(got.body.unwrap(), "01234567", "leader: {leader}, polls: {polls}");
        }
        assert_eq!(calls, 1, "leader: {leader}, polls: {polls}");
        drop(tasks);
        world.layer.idle().await;
        assert!(format!("{:?}", world.layer).contains("flights: 0"));
        let mut later = [world.ask(&[])];
        settle(&mut later).await;
        assert_eq!(later[0].run().unwrap().unwrap().status.word(), "hit");
        if !dropped {
            return drops;
        }
    }
    unreachable!()
}

#[tokio::test(start_paused = true)]
async fn leader_dropped_at_any_await_harms_no_follower() {
    assert!(drop_one(true, false).await > 4);
    assert!(drop_one(true, true).await > 4);
}

#[tokio::test(start_paused = true)]
async fn follower_dropped_at_any_await_harms_no_other() {
    assert!(drop_one(false, false).await > 4);
    assert!(drop_one(false, true).await > 4);
}
