//! Rules that override or complete what the origin says about storing and freshness.
//!
//! The user sets them where they know better than the origin. The module calls `policy`, for the types of its decision,
//! and `service` calls this module for each response that may be stored.
//!
//! # Invariants
//! - A rule has no effect that the user did not ask for.
//! - Of the rules that give a lifetime, the first one that matches decides.
//! - A malformed rule is an error when the cache is built, or when the rules are replaced. The error does not repeat
//!   the pattern.

mod condition;
mod pattern;
mod rule;
mod set;

#[cfg(test)]
mod tests;

pub(crate) use self::condition::RuledResponse;
pub use self::pattern::UrlPattern;
pub use self::rule::{IntoUrlPattern, Rule};
pub use self::set::{Forbidden, Rules};
