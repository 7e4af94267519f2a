//! A cache whose server dies, hangs, loses its data or refuses commands.
//!
//! No request may fail, and none may wait longer than the deadline. No body may be wrong, and no invalidation may be
//! lost. The cache must use the storage again by itself.

mod contract;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod events;
mod mongodb;
mod outages;
mod redis;
mod redis_nodes;
mod world;

use libtest_mimic::{Completion, Trial};

pub use world::print_table;

/// The result of a test, or the reason why there is no server.
type Tried = Result<(), String>;

pub fn trials() -> Vec<Trial> {
    let mut tests = outages::tests("redis", redis::Alone::start);
    tests.extend(outages::tests("tiered_redis", redis::Tiered::start));
    tests.extend(contract::tests("redis", redis::Alone::start));
    tests.extend(contract::tests("tiered_redis", redis::Tiered::start));
    tests.extend(redis::tests());
    tests.extend(redis_nodes::tests());
    tests.extend(outages::tests("mongodb", mongodb::Alone::start));
    tests.extend(contract::tests("mongodb", mongodb::Alone::start));
    tests.extend(mongodb::tests());
    #[cfg(feature = "dynamodb")]
    tests.extend(outages::tests("dynamodb", dynamodb::Local::start));
    #[cfg(feature = "dynamodb")]
    tests.extend(contract::tests("dynamodb", dynamodb::Local::start));
    tests
}

/// Returns a test with a runtime of its own.
///
/// Its events are therefore counted separately.
fn test<F>(name: impl std::fmt::Display, body: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = Tried>,
{
    Trial::ignorable_test(format!("faults::{name}"), move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match runtime.block_on(body()) {
            Ok(()) => Ok(Completion::Completed),
            Err(reason) if crate::servers::must_be_there() => Err(reason.into()),
            Err(reason) => Ok(Completion::ignored_with(reason)),
        }
    })
}
