//! `--store`: an address that `storage::connect` takes, the word `memory`, or the path of a SQLite file.

use tower_response_cache::Result;
use tower_response_cache::storage::{BoxStorage, SqliteStorage, connect};

/// Opens what `--store` names.
pub async fn open(store: &str) -> Result<BoxStorage> {
    match store {
        "memory" => connect("memory:").await,
        address if is_address(address) => connect(address).await,
        path => SqliteStorage::open(path).await.map(BoxStorage::new),
    }
}

pub fn is_address(text: &str) -> bool {
    text.contains("://") || ["memory:", "sqlite:", "directory:"].iter().any(|scheme| text.starts_with(scheme))
}

/// The store as it may be printed: without user, password and options.
pub fn shown(store: &str) -> String {
    if !is_address(store) {
        return store.to_owned();
    }
    let place = store.split('?').next().unwrap_or_default();
    match place.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or_default()),
        None => place.to_owned(),
    }
}
