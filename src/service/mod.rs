//! The service.

mod age;
mod body;
mod cache;
mod coalesce;
mod config;
#[cfg(feature = "content-keys")]
mod contents;
mod directives;
mod origin;
mod records;
mod request;
mod respond;
mod shared;
mod tasks;
mod telemetry;
#[cfg(test)]
mod tests;
mod wakers;

pub use self::cache::{Cache, CacheFuture};
pub(crate) use self::config::{Config, Tape};
#[cfg(feature = "content-keys")]
pub use self::contents::ReplayedContent;
#[cfg(feature = "reqwest")]
pub(crate) use self::origin::{Fetcher, Unstorable, change};
#[cfg(feature = "reqwest")]
pub(crate) use self::records::Untold;
pub(crate) use self::records::{CLOCK_SKEW, Found, Snapshot, Warming, origin, variant_in, within};
#[cfg(feature = "reqwest")]
pub(crate) use self::request::{Content, Route, bypass, route, run};
pub(crate) use self::respond::{Asked, from_record};
pub(crate) use self::shared::Shared;
pub(crate) use self::telemetry::invalidated;
