//! Compares the cache with a model of it, in random schedules.
//!
//! Each seed is one run: a setup (`run::Setup`) and a schedule of a few hundred steps. The cache is the real one. Its
//! storage (`storage`) and its origin (`support::upstream`) do nothing until the schedule says so. There is one thread,
//! and time passes only in a step, so a seed always runs in the same way.
//!
//! # Steps
//! A step does one of these things:
//! - It starts a request (GET, HEAD, a range, `max-age=0`, `no-cache`, `only-if-cached`, If-None-Match, POST, POST with
//!   Upgrade) or a deletion by the handle.
//! - It polls a caller that was woken, or runs one spawned task.
//! - It answers a request at the origin: with another version, 304, 500 or an error.
//! - It sends a frame of a body or its end, or breaks the body off. It reads a frame.
//! - It drops a caller or its body.
//! - It advances the clock.
//! - It decides about an operation of the storage. The operation is done and acknowledged, at once or later and in any
//!   order; or it fails, done or not; or it panics; or it is never acknowledged, and done long afterwards.
//!
//! A step that is not possible is replaced by one that is. At the end either everything is answered, or all callers are
//! dropped, or the runtime is dropped and another is started. From then on the storage works, and everything must come to
//! rest.
//!
//! # The model
//! `model` stores nothing. It records all responses of the origin and all invalidations, each with its time. From these it
//! computes which responses a request may get, since the order of steps leaves the cache a choice, and which stored
//! response it must find. It contains the rules of RFC 9111 that the schedules use, and no knowledge of how the cache works.
//!
//! # What is checked
//! After each step:
//! - **Responses.** A response is one that the origin gave for this URI. It was not invalidated before the request began. It
//!   is fresh or may be served stale. It answers the fields that Vary names, and belongs to no other user. Status, Age and
//!   lengths are right.
//! - **Bodies.** A body is that of one version, byte for byte. It is complete, or ends in an error that has a cause.
//! - **No needless fetch.** A response that a caller has read to its end in this process is a hit, however late the storage
//!   is. Of plain GETs for one key at a time, one is fetched. From the first fault of the storage on, this is not checked.
//! - **only-if-cached** never reaches the origin. A server error is the origin's own.
//!
//! At the end:
//! - **Bounded waiting.** Every request ends. If a request to the origin or a body is held back, everything that does not
//!   depend on it ends.
//! - **Nothing is left.** There is no request or body without a caller, and no task, flight, lease or record without an
//!   expiry. After the storage is emptied, nothing in the process answers for it, and it takes the next response.
//!
//! # A seed that fails
//! The test prints the seed, the violation and the steps, after removing as many steps as possible. These variables help:
//! - `MODEL_SEED=x` runs this seed only.
//! - `MODEL_SEEDS=n` runs `n` seeds, from 0 or from `MODEL_FIRST=x`.
//! - `MODEL_GOES_ON=1` reports all seeds that fail, not only the first.
//! - `MODEL_TELLS=1` prints each seed before its run, for a seed that ends the process.
//! - `MODEL_WITHOUT=a,b` demands everything except these (see `demands`), and `none` demands everything. The same seed then
//!   makes another schedule.
//!
//! Either the model or the cache is wrong. The model may be too strict where the cache has a choice. Then its rule is
//! relaxed, as narrowly as possible.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

mod demands;
mod model;
mod protocol;
mod run;
mod storage;
#[path = "../support/mod.rs"]
mod support;

use std::panic;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use demands::Demands;
use model::Violation;
use run::{Setup, Step, live};

/// The number of seeds in an ordinary run.
const SEEDS: u64 = 1_500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// Removes steps for as long as the remaining ones violate the same rule.
fn shorten(setup: &Setup, steps: &[Step], demands: Demands, rule: &str) -> Vec<Step> {
    let mut steps = live(setup, steps, demands, false).taken;
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let (mut at, before) = (0, steps.len());
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            let lived = live(setup, &fewer, demands, false);
            match lived.checked {
                Err(found) if found.rule == rule => steps = fewer,
                _ => at += size,
            }
        }
        if size > 1 || steps.len() == before {
            size /= 2;
        }
    }
    steps
}

/// Describes a failure by its seed, the violated rule and the shortest trace.
fn report(seed: u64, setup: &Setup, steps: &[Step], demands: Demands, found: &Violation) -> String {
    let all = steps.len();
    let steps = shorten(setup, steps, demands, found.rule);
    let lived = live(setup, &steps, demands, true);
    let text = lived.checked.err().map_or_else(|| found.text.clone(), |found| found.text);
    let (count, trace) = (steps.len(), lived.trace.join("\n"));
    format!("MODEL_SEED={seed}: {}: {text}\n{count} of {all} steps:\n{trace}", found.rule)
}

/// Keeps other tests of this binary from running meanwhile.
///
/// All storages of a process share the locks on keys, and a run in another thread could hold one. The panics of
/// scripted storages are intended, and not printed.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !storage::SCRIPTED.replace(false) {
                hook(info);
            }
        }));
    });
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn cache_does_what_the_model_allows() {
    explore(false);
}

#[test]
fn two_levels_do_what_the_model_allows() {
    explore(true);
}

/// Runs the seeds that the variables of the environment name.
fn explore(tiers: bool) {
    let _alone = alone();
    let demands = Demands::of_run();
    let (first, count) = match (number("MODEL_SEED"), number("MODEL_SEEDS")) {
        (Some(seed), _) => (seed, 1),
        (None, count) => (number("MODEL_FIRST").unwrap_or(0), count.unwrap_or(SEEDS)),
    };
    let goes_on = std::env::var_os("MODEL_GOES_ON").is_some();
    let tells = std::env::var_os("MODEL_TELLS").is_some();
    let mut failed = 0;
    for seed in first..first.saturating_add(count) {
        if tells {
            eprintln!("MODEL_SEED={seed}");
        }
        let (mut setup, steps) = Setup::of(seed, demands);
        setup.tiers = tiers;
        if let Err(found) = live(&setup, &steps, demands, false).checked {
            assert!(goes_on, "{}", report(seed, &setup, &steps, demands, &found));
            println!("MODEL_SEED={seed}: {}", found.rule);
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "{failed} of {count} seeds fail");
}

#[test]
fn seed_replays_deterministically() {
    let _alone = alone();
    let demands = Demands::of_run();
    for seed in 0..50 {
        let (setup, steps) = Setup::of(seed, demands);
        let first = live(&setup, &steps, demands, true);
        assert_eq!(first.trace, live(&setup, &steps, demands, true).trace, "MODEL_SEED={seed}");
        // Steps without effect can be left out.
        let taken = live(&setup, &first.taken, demands, true);
        assert_eq!(first.taken.len(), taken.taken.len(), "MODEL_SEED={seed}");
    }
}
