//! GitHub's API by octocrab.
//!
//! GitHub sends an entity tag with each response, and a request that is answered 304 does not count against the rate limit.
//!
//! ```toml
//! [dependencies]
//! http = "1"
//! hyper-util = { version = "0.1", features = ["client-legacy", "http1", "tokio"] }
//! octocrab = { version = "0.54", default-features = false, features = ["default-client", "jwt-rust-crypto", "rustls", "rustls-ring"] }
//! tower-response-cache = "0.1"
//! ```

use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::Storage;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Returns a client whose responses are cached.
///
/// The cache stands below the layer that makes URIs absolute, and sees the token of each request: requests with different
/// tokens never share a response. For `https` take a connector of hyper-rustls.
pub fn client<S: Storage>(base: Uri, layer: &CacheLayer<S>) -> Result<Octocrab, Error> {
    let client: Client<HttpConnector, OctoBody> = Client::builder(TokioExecutor::new()).build_http();
    let client = OctocrabBuilder::new_empty()
        .with_service(client)
        .with_layer(layer)
        .with_layer(&BaseUriLayer::new(base))
        .with_auth(AuthState::None)
        .build()?;
    Ok(client)
}

#[cfg(test)]
mod tests {
    use tower_response_cache::storage::MemoryStorage;

    use super::*;
    use crate::server::{Server, response};

    #[tokio::test]
    async fn second_request_is_conditional() {
        let server = Server::start(|request| {
            let fields = [("cache-control", "private, max-age=0"), ("etag", "\"1\"")];
            match request.headers().contains_key("if-none-match") {
                false => {
                    response(&[fields[0], fields[1], ("content-type", "application/json")], "{\"id\":1}")
                }
                true => {
                    let mut unchanged = response(&fields, "");
                    *unchanged.status_mut() = http::StatusCode::NOT_MODIFIED;
                    unchanged
                }
            }
        })
        .await;
        let layer = CacheLayer::new(MemoryStorage::new());
        let client = client(server.url.parse().unwrap(), &layer).unwrap();
        for _ in 0..3 {
            let repository: serde_json::Value = client.get("/repos/a/b", None::<&()>).await.unwrap();
            assert_eq!(repository["id"], 1);
        }
        let statistics = layer.statistics();
        assert_eq!((server.count(), statistics.revalidated()), (3, 2));
    }
}
