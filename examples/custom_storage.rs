//! A custom storage: a `HashMap` behind a lock, in less than forty lines.
//!
//! `cargo run --example custom_storage`
//!
//! It knows nothing of HTTP and serialization. The trait provides what it does not implement: comparing writes, retention
//! and expiry.
//!
//! In a crate of your own it needs:
//!
//! ```toml
//! [dependencies]
//! bytes = "1"
//! futures-util = "0.3"
//! http = "1"
//! http-body-util = "0.1"
//! tokio = { version = "1", features = ["full"] }
//! tower = { version = "0.5", features = ["util"] }
//! tower-response-cache = "0.1"
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::storage::{Key, Record, Storage};
use tower_response_cache::{CacheLayer, Result};

/// Stores records in a map.
#[derive(Clone, Debug, Default)]
pub struct MapStorage(Arc<Mutex<HashMap<Key, Record>>>);

impl MapStorage {
    fn map(&self) -> MutexGuard<'_, HashMap<Key, Record>> {
        // No operation leaves the map half changed, so a panic in another task does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MapStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        Ok(self.map().get(&key).cloned())
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.map().insert(key, record);
        Ok(())
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        Ok(self.map().remove(&key).is_some())
    }

    async fn clear(&self) -> Result<()> {
        self.map().clear();
        Ok(())
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        // Collected, because the stream must not hold the lock while its reader waits.
        stream::iter(self.map().keys().copied().map(Ok).collect::<Vec<_>>())
    }
}

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code)] // tests/storages/contract.rs includes this file, to run the storage contract on `MapStorage`
async fn main() -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let origin = service_fn(|_: Request<Empty<Bytes>>| async {
        Response::builder().header("cache-control", "max-age=60").body(Full::<Bytes>::from("hello"))
    });
    let layer = CacheLayer::new(MapStorage::default());
    let service = layer.layer(origin);
    for _ in 0..2 {
        let request = Request::get("http://example.com/").body(Empty::new())?;
        let response = service.clone().oneshot(request).await?;
        let status = response.body().status().copied();
        let body = response.into_body().collect().await?.to_bytes();
        println!("{} bytes: {}", body.len(), status.map_or("-", |status| status.word()));
    }
    layer.idle().await;
    Ok(())
}
