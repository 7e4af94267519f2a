//! What users say about URLs: the patterns that choose them.
//!
//! Promises: a malformed pattern is refused when it is made, by an error that does not repeat it; what stands in one
//! part of a URL never matches a pattern of another part; to match a glob allocates nothing and takes at most the
//! pattern's length times the URL's, whatever both hold.

mod glob;
mod host;
mod path;
mod pattern;

#[cfg(test)]
mod tests;

pub use self::pattern::UrlPattern;
