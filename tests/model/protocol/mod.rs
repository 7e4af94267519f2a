//! Tests of the protocol between processes that share a storage.
//!
//! Two or three real caches run over one storage, which stops at every operation until the test releases it. Short
//! scenarios run in all orders of their steps. Long ones run in random orders, with processes that crash, operations
//! that are late, unacknowledged or carried out twice, eviction and expiry.
//!
//! # Invariants
//! - I1: no response that was fetched before a completed invalidation is served after it.
//! - I2: no body is mixed or short.
//! - I3: no request gets the variant of other values.
//! - I4, I5: no record stays for ever.
//! - I6: no write replaces what a fetch has stored without a condition.
//! - I7: once all is idle, the next fetch stores its response.

mod gate;
mod world;

use std::time::Duration;

use gate::Fate;
use world::{Kind, World};

/// Runs a test on one thread.
///
/// A schedule is therefore the same in each run. No other test runs meanwhile, because all caches of this process share
/// the locks on keys.
fn block_on<T>(test: impl Future<Output = T>) -> T {
    let _alone = crate::alone();
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

/// Runs a scenario in every order of its steps. Returns the number of orders.
fn every_order(processes: usize, kind: Kind, begin: fn(&World), prepare: bool) -> usize {
    let mut orders = 0;
    let mut prefix: Vec<usize> = Vec::new();
    loop {
        // An order is a list of indexes, in each step that of the waiting operation to release.
        let (taken, widths) = block_on(async {
            let world = World::new(processes, kind);
            if prepare {
                world.get(0, "1");
                world.drain().await;
                world.clock.advance(Duration::from_secs(100)); // stale, so that it will be validated
            }
            begin(&world);
            world.settle().await;
            let (mut taken, mut widths) = (Vec::new(), Vec::new());
            loop {
                let width = world.gates.choices().len();
                if width == 0 {
                    break;
                }
                let choice = prefix.get(taken.len()).copied().unwrap_or(0);
                world.gates.release(choice, Fate::Done);
                world.settle().await;
                taken.push(choice);
                widths.push(width);
            }
            let alive: Vec<usize> = (0..processes).collect();
            if let Err(violation) = world.conclude(&alive).await {
                panic!("{violation}\n{kind:?} in the order {taken:?}");
            }
            (taken, widths)
        });
        orders += 1;
        assert!(orders < 200_000, "too many orders to try them all");
        // In the next order, the last step that has another choice takes it.
        prefix = taken;
        loop {
            let Some(last) = prefix.pop() else {
                println!("{orders} orders of {kind:?}");
                return orders;
            };
            if last + 1 < widths[prefix.len()] {
                prefix.push(last + 1);
                break;
            }
        }
    }
}

#[test]
fn fetch_and_invalidation_in_every_order() {
    let begin = |world: &World| {
        world.get(0, "1");
        world.post(1);
    };
    for large in [false, true] {
        for reserves in [false, true] {
            let kind = Kind { large, reserves, ..Kind::default() };
            assert!(every_order(2, kind, begin, false) >= 70);
        }
    }
}

#[test]
fn fetch_and_group_invalidation_in_every_order() {
    let begin = |world: &World| {
        world.get(0, "1");
        world.post(1);
    };
    for (large, prepare) in [(false, false), (false, true), (true, false)] {
        let kind = Kind { large, grouped: true, ..Kind::default() };
        assert!(every_order(2, kind, begin, prepare) >= 800);
    }
}

#[test]
fn overlapping_fetches_in_every_order() {
    let begin = |world: &World| {
        world.get(0, "1");
        world.get(1, "1");
    };
    for large in [false, true] {
        assert!(every_order(2, Kind { large, ..Kind::default() }, begin, false) >= 70);
    }
}

#[test]
fn concurrent_variants_in_every_order() {
    let begin = |world: &World| {
        world.get(0, "1");
        world.get(1, "2");
    };
    for names_change in [false, true] {
        let kind = Kind { vary: true, names_change, ..Kind::default() };
        assert!(every_order(2, kind, begin, true) >= 70);
    }
}

#[test]
fn revalidation_and_invalidation_in_every_order() {
    let begin = |world: &World| {
        world.get(0, "1");
        world.post(1);
    };
    for large in [false, true] {
        assert!(every_order(2, Kind { large, ..Kind::default() }, begin, true) >= 70);
    }
}

#[test]
fn three_processes_in_every_order() {
    let begin = |world: &World| {
        world.get(0, "1");
        world.get(1, "1");
        world.post(2);
    };
    assert!(every_order(3, Kind::default(), begin, false) >= 10_000);
}

/// Runs three processes for 60 random steps with every kind of fault.
async fn random_life(seed: u64) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let shares = random.usize(..2) == 0;
    let kind = Kind {
        large: random.usize(..2) == 0,
        vary: random.usize(..2) == 0,
        names_change: random.usize(..4) == 0,
        // Only `reserve_on_miss` is safe against an eviction so soon after an invalidation.
        reserves: !shares || random.usize(..2) == 0,
        grouped: random.usize(..3) == 0,
        shares,
    };
    let query = |random: &mut fastrand::Rng| if shares { random.usize(..3) } else { 0 };
    let world = World::new(3, kind);
    let mut alive = vec![0, 1, 2];
    for _ in 0..60 {
        match random.usize(..20) {
            0..4 => {
                let x = ["1", "2"][random.usize(..2)];
                world.get_query(alive[random.usize(..alive.len())], x, query(&mut random));
            }
            4 => world.post_query(alive[random.usize(..alive.len())], query(&mut random)),
            5 if random.usize(..8) == 0 && alive.len() > 1 => {
                world.crash(alive.remove(random.usize(..alive.len())))
            }
            6 if random.usize(..3) == 0 => world.clock.advance(Duration::from_secs(70)),
            7 if random.usize(..4) == 0 && kind.reserves => world.evict().await,
            8 if world.gates.late() > 0 => world.gates.run_late(random.usize(..world.gates.late())).await,
            _ => {
                let choices = world.gates.choices();
                if !choices.is_empty() {
                    let index = random.usize(..choices.len());
                    let fate = match random.usize(..24) {
                        0 if choices[index].1 => Fate::DoneUnheard,
                        1 if choices[index].1 => Fate::Doubled,
                        2 if choices[index].1 => Fate::Late,
                        _ => Fate::Done,
                    };
                    if alive.contains(&choices[index].0) {
                        world.release(index, fate);
                    }
                }
            }
        }
        world.settle().await;
    }
    for process in 0..3 {
        if !alive.contains(&process) {
            world.gates.crash(process);
        }
    }
    world.drain().await;
    while world.gates.late() > 0 {
        world.gates.run_late(0).await;
        world.drain().await;
    }
    // Leaves time for breakers to close and for pending invalidations to be written.
    world.clock.advance(Duration::from_secs(10));
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.drain().await;
    }
    world.conclude(&alive).await
}

#[test]
fn random_processes_keep_invariants_under_faults() {
    let lives = std::env::var("PROTOCOL_LIVES").ok().and_then(|lives| lives.parse().ok()).unwrap_or(3000);
    for seed in 1..=lives {
        if let Err(violation) = block_on(random_life(seed)) {
            panic!("{violation}\nin the life of seed {seed}");
        }
    }
}
