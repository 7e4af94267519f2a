//! Where responses are kept: the [`Storage`] trait and the storages built in.
//!
//! A storage is a map from [`Key`] to [`Record`] and knows nothing about HTTP; everything richer (variants, large
//! bodies, expiry) is made of plain records by the cache, so that every storage has it.
//!
//! | storage | feature | kept in | shared by |
//! |---|---|---|---|
//! | `MemoryStorage` | `memory` (default) | this process | its clones |
//! | `SqliteStorage` | `sqlite` | a file | processes of one machine |
//! | [`BoxStorage`] | – | any of them, chosen when the program runs | as the storage inside |

mod boxed;
mod contract;
mod exclusive;
mod key;
#[cfg(feature = "memory")]
mod memory;
mod record;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use self::boxed::BoxStorage;
pub use self::contract::{Retain, Storage};
pub use self::key::{Key, Kind, ParseKeyError};
#[cfg(feature = "memory")]
pub use self::memory::{MemoryStorage, MemoryStorageBuilder};
pub use self::record::{Record, Stamp};
#[cfg(feature = "sqlite")]
pub use self::sqlite::{SqliteStorage, SqliteStorageBuilder};

pub(crate) use self::exclusive::exclusive;
pub(crate) use self::record::{Decoded, random_id};
