//! The body of a response that went through the cache: [`CacheBody`].
//!
//! A body that is stored or shared is read through a [`Source`], whose implementations are in `service::body`.
//!
//! # Invariants
//!
//! - Each frame of the inner body reaches the caller when it arrives.
//! - A body that ends early ends with an error.
//! - `is_end_stream` and `size_hint` are those of the inner body, or of the stored body.
//! - The body is `Sync` and `Unpin` if the inner body is.

mod cache_body;
mod error;
mod exclusive;

pub use self::cache_body::CacheBody;
pub(crate) use self::cache_body::Source;
pub use self::error::{BodyError, BodyErrorKind};
pub(crate) use self::exclusive::Exclusive;
