//! An HTTP cache (RFC 9111) as a tower layer, with pluggable storage.
//!
//! # Features
//! | feature | default | gives |
//! |---|---|---|
//! | `memory` | yes | `storage::MemoryStorage` |
//! | `sqlite` | | `storage::SqliteStorage`, bundled SQLite |
//! | `reqwest` | | `reqwest::CacheMiddleware` for reqwest-middleware, and a redirect follower above it |
//! | `axum` | | reads axum's `OriginalUri`, for nested routers |
//! | `follow-redirect` | | reads the final URI that tower-http's `FollowRedirect` 0.7 leaves in a response |
//! | `testing` | | the storage contract's suite |

mod body;
mod builder;
mod control;
mod entry;
mod error;
mod key;
mod layer;
mod policy;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod service;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use self::body::{BodyError, BodyErrorKind, CacheBody};
pub use self::builder::CacheLayerBuilder;
pub use self::control::{CacheStatus, MissReason, Outcome, Stored};
pub use self::error::{Error, ErrorKind, Result};
pub use self::layer::CacheLayer;
pub use self::policy::{NotStored, StaleReason, ValidateReason};
pub use self::service::{Cache, CacheFuture};
pub use self::time::{Clock, MockClock, Timestamp};
