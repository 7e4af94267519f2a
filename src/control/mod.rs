//! Options for single requests and scopes, and the status of single responses.
//!
//! [`CacheOptions`] and [`CacheStatus`] travel in `http::Extensions`; a [`scope`] holds for all requests of a task.

mod options;
mod partial_body;
pub mod scope;
mod status;
mod words;

pub use self::options::{CacheMode, CacheOptions};
pub use self::partial_body::PartialBody;
pub(crate) use self::scope::Scope;
pub use self::status::{BypassReason, CacheStatus, MissReason, Outcome, Stored};
