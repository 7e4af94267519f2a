//! An HTTP cache (RFC 9111) as a tower layer, with pluggable storage.
//!
//! # Features
//! | feature | default | gives |
//! |---|---|---|
//! | `memory` | yes | `storage::MemoryStorage` |
//! | `sqlite` | | `storage::SqliteStorage`, bundled SQLite |
//! | `reqwest` | | the middleware for reqwest-middleware |
//! | `axum` | | reads axum's `OriginalUri`, for nested routers |
//! | `follow-redirect` | | reads the final URI that tower-http's `FollowRedirect` 0.7 leaves in a response |
//! | `testing` | | the storage contract's suite |

mod error;
pub mod policy;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use self::error::{Error, ErrorKind, Result};
pub use self::time::{Clock, MockClock, Timestamp};
