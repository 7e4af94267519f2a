//! A cache beside a model of it.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

mod defects;
mod model;
mod origin;
mod run;
mod storage;
#[path = "../support/mod.rs"]
mod support;
#[path = "../coalescing/task.rs"]
#[allow(dead_code)]
mod task;

use std::panic;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use defects::Defects;
use model::Violation;
use run::{Setup, Step, live};

/// So many seeds in an ordinary run.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// Leaves out steps for as long as the same rule is broken without them.
fn shorten(setup: &Setup, steps: &[Step], defects: Defects, rule: &str) -> Vec<Step> {
    let mut steps = live(setup, steps, defects, false).taken;
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let (mut at, before) = (0, steps.len());
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            let lived = live(setup, &fewer, defects, false);
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

/// The seed, what is wrong, and what happened.
fn report(seed: u64, setup: &Setup, steps: &[Step], defects: Defects, found: &Violation) -> String {
    let all = steps.len();
    let steps = shorten(setup, steps, defects, found.rule);
    let lived = live(setup, &steps, defects, true);
    let text = lived.checked.err().map_or_else(|| found.text.clone(), |found| found.text);
    let (count, trace) = (steps.len(), lived.trace.join("\n"));
    format!("MODEL_SEED={seed}: {}: {text}\n{count} of {all} steps:\n{trace}", found.rule)
}

/// Keeps lives apart: the cache has locks that all storages of a process share, and a life in another thread could hold one.
/// What a storage panics with is wanted, and not told.
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
    let defects = Defects::known();
    let (first, count) = match (number("MODEL_SEED"), number("MODEL_SEEDS")) {
        (Some(seed), _) => (seed, 1),
        (None, count) => (number("MODEL_FIRST").unwrap_or(0), count.unwrap_or(SEEDS)),
    };
    let goes_on = std::env::var_os("MODEL_GOES_ON").is_some();
    let mut failed = 0;
    for seed in first..first.saturating_add(count) {
        let (setup, steps) = Setup::of(seed, defects);
        if let Err(found) = live(&setup, &steps, defects, false).checked {
            assert!(goes_on, "{}", report(seed, &setup, &steps, defects, &found));
            println!("MODEL_SEED={seed}: {}", found.rule);
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "of {count} seeds");
}

#[test]
fn seed_is_lived_alike_again() {
    let _alone = alone();
    let defects = Defects::known();
    for seed in 0..50 {
        let (setup, steps) = Setup::of(seed, defects);
        let first = live(&setup, &steps, defects, true);
        assert_eq!(first.trace, live(&setup, &steps, defects, true).trace, "MODEL_SEED={seed}");
        // What did nothing can be left out.
        let taken = live(&setup, &first.taken, defects, true);
        assert_eq!(first.taken.len(), taken.taken.len(), "MODEL_SEED={seed}");
    }
}
