//! The body of a response that went through the cache: [`CacheBody`].
//!
//! Promises: each frame of the inner body reaches the caller when it arrives; a body never ends short without an
//! error; `is_end_stream` and `size_hint` are the inner body's, or the stored body's; it is `Sync` and `Unpin`
//! whenever the inner body is. What comes from elsewhere than the inner service is the business of the [`Source`]
//! behind it.

mod cache_body;
mod error;
mod exclusive;

pub use self::cache_body::CacheBody;
pub(crate) use self::cache_body::Source;
pub use self::error::{BodyError, BodyErrorKind};
pub(crate) use self::exclusive::Exclusive;
