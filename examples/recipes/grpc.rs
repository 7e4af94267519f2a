//! Unary gRPC calls by tonic.
//!
//! gRPC sends each call by POST, and says nothing about lifetimes. So the cache is told which method may be reused and for how
//! long. A call is told apart by its content. A failed call is never stored.
//!
//! ```toml
//! [dependencies]
//! http = "1"
//! tonic = { version = "0.14", default-features = false, features = ["channel"] }
//! tonic-health = "0.14"
//! tower = "0.5"
//! tower-response-cache = { version = "0.1", features = ["content-keys"] }
//! ```

use std::time::Duration;

use http::{Method, Uri};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;
use tower::Layer;
use tower_response_cache::storage::Storage;
use tower_response_cache::{Cache, CacheLayer, Rule, Rules};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Returns a layer that keeps the responses of one method for ten seconds.
///
/// Calls of other methods bypass the cache. Do not name a method that changes something, nor one that streams requests.
pub fn layer<S: Storage>(storage: S, method: &'static str) -> Result<CacheLayer<S>, Error> {
    let rule = Rule::new().content_type("application/grpc").override_ttl(Duration::from_secs(10));
    let layer = CacheLayer::builder(storage)
        .methods([Method::POST])
        .replay_content(Body::new)
        .filter_request(move |request| request.uri.path() == method)
        .rules(Rules::new().rule(rule))
        .build()?;
    Ok(layer)
}

/// Returns a client of the health service whose checks are cached.
pub fn health<S: Storage>(origin: Uri, layer: &CacheLayer<S>) -> HealthClient<Cache<Channel, S>> {
    let channel = Channel::builder(origin.clone()).connect_lazy();
    HealthClient::with_origin(layer.layer(channel), origin)
}

#[cfg(test)]
mod tests {
    use tonic_health::pb::HealthCheckRequest;
    use tower_response_cache::storage::MemoryStorage;

    use super::*;

    #[tokio::test]
    async fn unary_call_is_cached_by_its_content_unless_it_fails() {
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("a", tonic_health::ServingStatus::Serving).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));

        let layer = layer(MemoryStorage::new(), "/grpc.health.v1.Health/Check").unwrap();
        let mut client = health(origin, &layer);
        let mut check = async |name: &str| client.check(HealthCheckRequest { service: name.into() }).await;
        for _ in 0..3 {
            assert_eq!(check("a").await.unwrap().into_inner().status, 1);
            assert_eq!(check("unknown").await.unwrap_err().code(), tonic::Code::NotFound);
        }
        let statistics = layer.statistics();
        assert_eq!((statistics.hits(), statistics.misses(), statistics.stored()), (2, 4, 1));
    }
}
