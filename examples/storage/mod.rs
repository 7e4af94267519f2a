//! `--storage`: an address that `storage::connect` takes, the word `memory`, or the path of a SQLite file.

mod address;

use tower_response_cache::Result;
use tower_response_cache::storage::{BoxStorage, SqliteStorage, connect};

use self::address::is_address;
pub use self::address::redacted;

/// Opens the storage that `--storage` names.
pub async fn open(storage: &str) -> Result<BoxStorage> {
    match storage {
        "memory" => connect("memory:").await,
        address if is_address(address) => connect(address).await,
        path => SqliteStorage::open(path).await.map(BoxStorage::new),
    }
}
