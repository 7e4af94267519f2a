//! A cache beside a model of it, in random schedules.
//!
//! Each seed is one run of a cache: a setting (`run::Setup`) and a schedule of some hundred steps. The cache is the real
//! one, over a storage (`storage`) and an origin (`support::upstream`) that do nothing before the schedule says so. There are no
//! threads, and time passes only in a step, so that every run of a seed is the same.
//!
//! # Steps
//! A step starts a request (GET, HEAD, a range, `max-age=0`, `no-cache`, `only-if-cached`, If-None-Match, POST, POST with
//! Upgrade) or a deletion by hand; polls a caller, if it was woken; lets one spawned task go on; answers a call at the origin
//! (another version, 304, 500, an error); sends a frame or the end of a body, or breaks it off; reads a frame; drops a caller
//! or its body; lets time pass; or decides what becomes of an operation of the storage: it is done at once or told of later,
//! in any order, it fails though it was done or was not, it panics, it never answers and is done long after. A step for which
//! there is nothing to do is another one. In the end everything is answered, or all callers go away, or the runtime does and
//! another comes; then the storage is well, and all must come to rest.
//!
//! # The model
//! `model` stores nothing. It keeps all that the origin ever said, with the moment of each, and all that was invalidated.
//! From that it knows which answers are allowed, for the order of steps leaves a cache a choice, and which response must be
//! found. It knows the rules of RFC 9111 for what the schedules use, and nothing of how the cache works.
//!
//! # What is checked
//! After each step:
//! - **What a caller gets** is the origin's word about this URI. It was not invalidated before the request began, is fresh or
//!   may be stale, answers the fields that Vary names, and is no other user's. Status, Age and lengths fit.
//! - **A body** is that of one version, byte for byte. It is whole, or ends in an error for which there is a cause.
//! - **No fetch is needless**: what a caller has read to its end in this process is a hit, however late the storage is; and
//!   of plain GETs for one key one at a time is fetched. This is left alone from the first fault of the storage on.
//! - `only-if-cached` never reaches the origin; a service error is the origin's own.
//!
//! At the end:
//! - **Waiting is bounded**: every request ends; if a call or a body is held back, all that does not depend on it.
//! - **Nothing is left**: no call or body for nobody, no task, flight, lease, record without end; a storage that is emptied
//!   is not answered for by something in the process, and takes the next response.
//!
//! # A seed that fails
//! The test prints the seed, what is wrong, and what happened, with as few steps as it could find. These replay and look
//! further:
//! - `MODEL_SEED=x` lives this seed alone.
//! - `MODEL_SEEDS=n` lives so many, from 0 or `MODEL_FIRST=x` on.
//! - `MODEL_GOES_ON=1` tells all that fail, and not the first one alone.
//! - `MODEL_TELLS=1` tells each seed before it is lived, for one that ends the process.
//! - `MODEL_WITHOUT=a,b` demands all but these (`demands`), and `none` all there is. It makes other schedules of the same seeds.
//!
//! Either the model or the cache is wrong. The model may be too strict where the cache has a choice: then widen the rule, as
//! narrowly as that can be said.
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

/// Leaves out steps for as long as the same rule is broken without them.
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

/// Describes a failure: the seed, the violated rule, and the shortest trace.
fn report(seed: u64, setup: &Setup, steps: &[Step], demands: Demands, found: &Violation) -> String {
    let all = steps.len();
    let steps = shorten(setup, steps, demands, found.rule);
    let lived = live(setup, &steps, demands, true);
    let text = lived.checked.err().map_or_else(|| found.text.clone(), |found| found.text);
    let (count, trace) = (steps.len(), lived.trace.join("\n"));
    format!("MODEL_SEED={seed}: {}: {text}\n{count} of {all} steps:\n{trace}", found.rule)
}

/// Runs one seed at a time: all storages of a process share the locks on keys, and a run in another thread could hold one.
/// The panics of scripted storages are intended, and not printed.
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
        let (setup, steps) = Setup::of(seed, demands);
        if let Err(found) = live(&setup, &steps, demands, false).checked {
            assert!(goes_on, "{}", report(seed, &setup, &steps, demands, &found));
            println!("MODEL_SEED={seed}: {}", found.rule);
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "of {count} seeds");
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
