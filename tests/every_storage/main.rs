//! The storage contract and the layer on every storage, including servers that fail.
//!
//! Other tests run two processes that share a storage.
//!
//! The program starts the servers and ends them with the run. `TEST_REDIS_URL`, `TEST_REDIS_USER_URL`,
//! `TEST_REDIS_CLUSTER_URL`, `TEST_REDIS_SENTINEL_URL`, `TEST_MONGODB_URL` and `TEST_DYNAMODB_ENDPOINT` name other
//! servers to use instead. The tests touch those under random cache names only. If a server is missing, its tests are
//! listed as ignored, with the reason. If `CI` is set, they fail.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

mod alike;
mod broken;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod end_to_end;
mod faults;
#[cfg(feature = "dynamodb")]
mod large_body;
mod lives;
mod mongodb;
mod places;
mod processes;
mod redis;
#[path = "../servers/mod.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod tiered;
mod tiered_cluster;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use tower_response_cache::testing::{cases, contract_cases, in_time};

use places::{Kind, Place, Servers};
use servers::must_be_there;

/// Limits each operation of a cache in tests that are not about timeouts.
///
/// On busy cores, a server needs longer than the default timeout.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

type Case = for<'a> fn(&'a Place) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Returns a trial of a case on one kind of storage.
///
/// The trial has a runtime and a [`Place`] of its own.
pub fn trial(suite: &str, kind: &Kind, name: &str, case: Case) -> Trial {
    let title = format!("{suite}::{}::{name}", kind.name);
    if let Some(reason) = kind.missing.clone() {
        return match must_be_there() {
            true => Trial::test(title, move || Err(Failed::from(reason))),
            false => Trial::test(title, || Ok(())).with_ignored_flag(true).with_kind(reason),
        };
    }
    let kind = kind.clone();
    Trial::test(title, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let place = kind.place();
        runtime.block_on(async {
            case(&place).await;
            place.clean().await;
        });
        runtime.shutdown_background();
        Ok(())
    })
}

macro_rules! contract_trials {
    ([$($case:ident),* $(,)?] @ $kind:expr) => {
        vec![$(trial("contract", $kind, stringify!($case), |place| {
            Box::pin(in_time(concat!("in the case ", stringify!($case)), cases::$case(place)))
        })),*]
    };
}

fn main() -> ExitCode {
    if let Some(role) = std::env::var_os("STORES_ROLE") {
        return processes::play(&role.into_string().unwrap());
    }
    #[cfg(feature = "dynamodb")]
    if let Some(code) =
        dynamodb::environment::play().or_else(large_body::play).or_else(servers::dynamodb::with_credentials)
    {
        return code;
    }
    let arguments = Arguments::from_args();
    let mut servers = Servers::default();
    // Listing the names needs no servers, and each test of a fault starts a server of its own.
    let only_faults = arguments.filter.as_ref().is_some_and(|filter| filter.starts_with("faults"));
    let kinds = if arguments.list || only_faults { Vec::new() } else { servers.start() };
    let mut trials = Vec::new();
    for kind in &kinds {
        trials.extend(contract_cases!(own contract_trials @ kind));
        trials.extend(broken::trials(kind));
        trials.extend(end_to_end::trials(kind));
        trials.extend(lives::trials(kind));
        if kind.is_shared() {
            trials.extend(processes::trials(kind));
        }
        if kind.name == "mongodb" {
            trials.extend(mongodb::trials(kind));
        }
        #[cfg(feature = "dynamodb")]
        if kind.name == "dynamodb" {
            trials.extend(dynamodb::trials(kind));
        }
    }
    trials.extend(redis::trials());
    trials.extend(tiered::trials());
    trials.extend(tiered_cluster::trials());
    let well = libtest_mimic::run(&arguments, trials);
    drop(servers);
    // These run after the others have ended, because they measure how long a request waits.
    #[cfg_attr(not(feature = "dynamodb"), allow(unused_mut))]
    let mut timed = faults::trials();
    #[cfg(feature = "dynamodb")]
    timed.extend(large_body::trials());
    let timed = libtest_mimic::run(&arguments, timed);
    faults::print_table();
    if well.has_failed() { well.exit_code() } else { timed.exit_code() }
}
