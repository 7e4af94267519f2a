//! What users say about URLs: the patterns that choose them.
//!
//! Promises: a malformed pattern is refused when it is made, and never matches less or more than it says; to match
//! allocates nothing for a glob and takes at most the pattern's length times the URL's, whatever both hold.

mod glob;
mod host;
mod path;
mod pattern;

#[cfg(test)]
mod tests;

pub use self::pattern::UrlPattern;
