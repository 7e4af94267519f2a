//! The flow of a request through the cache: [`Cache`], the service that [`CacheLayer`](crate::CacheLayer) makes.
//!
//! It does the I/O and decides nothing: what may be served or stored is the policy's business. Each file is one step of
//! the way: `flow` (the order of steps), `lookup`, `respond`, `revalidate`, `keep` and `commit` (storing), `recorder`
//! and `reader` (bodies on their way in and out), `invalidate`; and what they stand on: `guard` (deadlines and the
//! breaker before the store), `pending`, `owed`, `tasks`.

mod age;
mod cache;
mod commit;
mod config;
mod core;
mod fetcher;
mod flow;
mod guard;
mod invalidate;
mod keep;
mod lookup;
mod owed;
mod pending;
mod reader;
mod recorder;
mod respond;
mod revalidate;
mod tasks;
#[cfg(test)]
mod tests;
mod variants;

pub use self::cache::{Cache, CacheFuture};
pub(crate) use self::config::Config;
pub(crate) use self::core::Core;
#[cfg(feature = "reqwest")]
pub(crate) use self::fetcher::{Fetcher, Unstorable};
#[cfg(feature = "reqwest")]
pub(crate) use self::flow::Route;
