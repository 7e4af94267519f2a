//! The flow of a request through the cache: [`Cache`], the service that [`CacheLayer`](crate::CacheLayer) makes.
//!
//! It does the I/O and decides nothing: what may be served or stored is the policy's business. Each file is one step of
//! the way: `flow` (the order of steps), `lookup`, `respond`, `coalesce` (one fetch for many), `lease`, `revalidate`,
//! `judge` (what the rules say), `keep` and `commit` (storing), `download`, `readers` and `recorder` (bodies on their way in), `reader` (on their way
//! out), `early`, `invalidate`; `way` (what it tells of itself); and what they stand on: `guard` (deadlines, `breaker` and `backlog` before the store), `flights`, `in_flight`,
//! `owed`, `noted`, `tasks`, `wakers`, `window`.

mod age;
mod backlog;
mod breaker;
mod cache;
mod coalesce;
mod commit;
mod config;
#[cfg(feature = "content-keys")]
mod content;
mod core;
mod download;
mod early;
mod fetcher;
mod flights;
mod flow;
mod groups;
mod guard;
mod in_flight;
mod invalidate;
mod judge;
mod keep;
mod lease;
mod lookup;
mod noted;
mod owed;
mod reader;
mod readers;
mod recorder;
mod respond;
mod revalidate;
mod tasks;
#[cfg(test)]
mod tests;
mod variants;
mod wakers;
mod way;
mod window;

pub use self::cache::{Cache, CacheFuture};
pub(crate) use self::config::{Config, Tape};
#[cfg(feature = "content-keys")]
pub use self::content::ReplayedContent;
pub(crate) use self::core::Core;
#[cfg(feature = "reqwest")]
pub(crate) use self::fetcher::{Fetcher, Unstorable};
#[cfg(feature = "reqwest")]
pub(crate) use self::flow::{Content, Route};
pub(crate) use self::groups::{SKEW, origin};
pub(crate) use self::guard::within;
#[cfg(feature = "reqwest")]
pub(crate) use self::judge::Untold;
pub(crate) use self::judge::Warming;
pub(crate) use self::lookup::{Found, Place, variant_in};
pub(crate) use self::respond::Asked;
