//! What the user knows better than the origin: which responses are stored, and for how long they are fresh.
//!
//! Promises: rules speak only where the user set them; a list of rules has one winner, the first that matches; a rule that
//! is malformed is told of when the cache is built, by an error that does not repeat its pattern; what stands in one part
//! of a URL never matches a pattern of another part; to match a glob allocates nothing and takes at most the pattern's
//! length times the URL's, whatever both hold.

mod glob;
mod host;
mod path;
mod pattern;
mod rule;
mod set;

#[cfg(test)]
mod tests;

pub use self::pattern::UrlPattern;
pub use self::rule::{IntoUrlPattern, Rule};
pub use self::set::{Forbidden, Rules};
