//! What a program tells the cache about one request, and what the cache tells about its response: [`CacheOptions`] and
//! [`CacheStatus`], both among the `http::Extensions`; and [`scope`], for all requests of a task.

mod options;
pub mod scope;
mod status;
mod words;

pub use self::options::{CacheMode, CacheOptions};
pub(crate) use self::scope::Scope;
pub use self::status::{BypassReason, CacheStatus, MissReason, Outcome, Stored};
