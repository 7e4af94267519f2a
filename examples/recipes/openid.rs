//! OpenID Connect discovery.
//!
//! ```toml
//! [dependencies]
//! bytes = "1"
//! http = "1"
//! http-body-util = "0.1"
//! openidconnect = { version = "4", default-features = false }
//! reqwest = "0.13"
//! tower = { version = "0.5", features = ["util"] }
//! tower-response-cache = { version = "0.1", features = ["reqwest"] }
//! ```

use http_body_util::{BodyExt, Full};
use openidconnect::core::CoreProviderMetadata;
use openidconnect::{HttpRequest, HttpResponse, IssuerUrl};
use tower::{BoxError, ServiceExt};
use tower_response_cache::Cache;
use tower_response_cache::reqwest::HttpService;
use tower_response_cache::storage::Storage;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// An error of the client, which openidconnect wants to be an `std::error::Error`.
#[derive(Debug)]
pub struct Failed(BoxError);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failed {}

/// Sends a request of openidconnect through the cache.
///
/// `service` is `layer.layer(HttpService::new(client).adds_no_fields())`. The client must not follow redirects, as
/// openidconnect demands.
pub async fn send<S: Storage>(
    service: Cache<HttpService, S>,
    request: HttpRequest,
) -> Result<HttpResponse, Failed> {
    let response = service
        .oneshot(request.map(Full::<bytes::Bytes>::from))
        .await
        .map_err(|error| Failed(error.into()))?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| Failed(error.into()))?;
    Ok(HttpResponse::from_parts(head, body.to_bytes().into()))
}

/// Returns what a provider says of itself, for as long as the provider permits from the cache.
pub async fn discover<S: Storage>(
    issuer: &str,
    service: &Cache<HttpService, S>,
) -> Result<CoreProviderMetadata, Error> {
    let client = |request| send(service.clone(), request);
    Ok(CoreProviderMetadata::discover_async(IssuerUrl::new(issuer.to_owned())?, &client).await?)
}

#[cfg(test)]
mod tests {
    use tower::Layer;
    use tower_response_cache::CacheLayer;
    use tower_response_cache::storage::MemoryStorage;

    use super::*;
    use crate::server::{Server, response};

    #[tokio::test]
    async fn provider_is_asked_once() {
        let server = Server::start(|request| {
            let issuer = format!("http://{}", request.headers()["host"].to_str().unwrap());
            let body = match request.uri().path() {
                "/.well-known/openid-configuration" => serde_json::json!({
                    "issuer": issuer,
                    "authorization_endpoint": format!("{issuer}/authorize"),
                    "jwks_uri": format!("{issuer}/keys"),
                    "response_types_supported": ["code"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                }),
                _ => serde_json::json!({ "keys": [] }),
            };
            let fields = [("cache-control", "max-age=3600"), ("content-type", "application/json")];
            response(&fields, body.to_string())
        })
        .await;
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let layer = CacheLayer::new(MemoryStorage::new());
        let service = layer.layer(HttpService::new(client).adds_no_fields());
        for _ in 0..3 {
            let metadata = discover(&server.url, &service).await.unwrap();
            assert!(metadata.authorization_endpoint().as_str().ends_with("/authorize"));
        }
        assert_eq!(server.count(), 2); // the document and the keys
    }
}
