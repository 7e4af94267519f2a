//! The verification of all stored responses, which runs in a task.
//!
//! # Invariants
//! - At most one runs at a time.
//! - One that ends in any way, also by a panic of the storage, permits another.

use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use serde::Serialize;

use super::Shared;
use super::entry::millis;
use super::problem::Problem;
use crate::handle::VerifyReport;
use crate::storage::Storage;

/// The verification that runs, or the last one.
#[derive(Clone, Default)]
pub(super) struct Verification(Arc<Mutex<State>>);

/// How far a verification is.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct State {
    state: Stage,
    started_at: Option<u64>,
    ended_at: Option<u64>,
    error: Option<String>,
    responses: u64,
    bytes: u64,
    undecodable: u64,
    incomplete: u64,
    orphans: u64,
    is_sound: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Stage {
    /// There was none since the service was made.
    #[default]
    Never,
    Running,
    Done,
    Failed,
}

impl Verification {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // A change is a few assignments, so that a poisoned state is whole.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Ends a verification whose task is dropped or panics.
struct Ending<F: Fn() -> Option<u64>>(Verification, F);

impl<F: Fn() -> Option<u64>> Drop for Ending<F> {
    fn drop(&mut self) {
        let ended_at = (self.1)();
        self.0.change(|state| {
            state.ended_at = ended_at;
            if state.state == Stage::Running {
                state.state = Stage::Failed;
                state.error = Some("the verification was interrupted".to_owned());
            }
        });
    }
}

impl State {
    fn set(&mut self, report: &VerifyReport) {
        self.responses = report.responses;
        self.bytes = report.bytes;
        self.undecodable = report.undecodable;
        self.incomplete = report.incomplete;
        self.orphans = report.orphans;
    }
}

/// Begins a verification.
pub(super) fn begin<S: Storage>(shared: &Shared<S>) -> Result<State, Problem> {
    let (verification, handle) = (shared.verification.clone(), shared.handle.clone());
    let begun = verification.change(|state| {
        if state.state == Stage::Running {
            return None;
        }
        let started_at = millis(handle.now());
        *state = State { state: Stage::Running, started_at, ..State::default() };
        Some(state.clone())
    });
    let Some(begun) = begun else {
        return Err(Problem::new(StatusCode::CONFLICT, "a verification is running already"));
    };
    let clock = handle.clone();
    let ending = Ending(verification.clone(), move || millis(clock.now()));
    // A task, since it may take longer than any client waits.
    tokio::spawn(async move {
        let _ending = ending;
        let result = handle.verify(|report| verification.change(|state| state.set(report))).await;
        verification.change(|state| match result {
            Ok(report) => {
                state.set(&report);
                (state.state, state.is_sound) = (Stage::Done, Some(report.is_sound()));
            }
            Err(error) => (state.state, state.error) = (Stage::Failed, Some(error.to_string())),
        });
    });
    Ok(begun)
}

/// Returns how far the verification is that runs, or how the last one ended.
pub(super) fn state<S: Storage>(shared: &Shared<S>) -> State {
    shared.verification.change(|state| state.clone())
}
