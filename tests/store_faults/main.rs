//! What a real server does to the cache when it dies, hangs, forgets or refuses: no request fails, none waits longer
//! than the deadline, no body is wrong, no invalidation is forgotten, and the store is used again by itself.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[cfg(feature = "dynamodb")]
mod dynamodb;
mod events;
#[cfg(feature = "mongodb")]
mod mongodb;
mod outages;
mod redis;
mod redis_nodes;
#[path = "../servers/mod.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

/// What a test of a server comes to; `Err`: why there is no server.
type Tried = Result<(), String>;

fn main() -> ExitCode {
    #[cfg(feature = "dynamodb")]
    if let Some(code) = servers::dynamodb::with_credentials() {
        return code;
    }
    let mut tests = outages::tests("redis", redis::Alone::start);
    tests.extend(redis::tests());
    tests.extend(redis_nodes::tests());
    #[cfg(feature = "mongodb")]
    tests.extend(outages::tests("mongodb", mongodb::Alone::start));
    #[cfg(feature = "dynamodb")]
    tests.extend(outages::tests("dynamodb", dynamodb::Local::start));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), tests);
    world::print_table();
    conclusion.exit_code()
}

/// A test in a runtime of its own, whose events are counted apart.
fn test<F>(name: impl Into<String>, body: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = Tried>,
{
    Trial::ignorable_test(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match runtime.block_on(body()) {
            Ok(()) => Ok(Completion::Completed),
            Err(reason) if servers::must_be_there() => Err(reason.into()),
            Err(reason) => Ok(Completion::ignored_with(reason)),
        }
    })
}
