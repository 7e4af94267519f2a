//! What the user knows better than the origin: which responses are stored, and for how long they are fresh.
//!
//! Promises: rules only speak where the user set them; a list of rules has one winner, the first that matches; a rule
//! that is malformed or contradicts another is told of when the cache is built.

mod pattern;
mod rule;
mod set;

pub use self::pattern::UrlPattern;
pub use self::rule::{IntoUrlPattern, Rule};
pub use self::set::{Forbidden, Rules};
