//! A Kubernetes client by kube.
//!
//! The API server sends `no-cache, private` with most responses. Rules say what may be reused all the same, such as the
//! discovery documents that many tools fetch again for each command.
//!
//! ```toml
//! [dependencies]
//! k8s-openapi = { version = "0.29", default-features = false, features = ["latest"] } # kube needs one version of the API
//! kube = { version = "5", default-features = false, features = ["client"] }
//! tower-response-cache = "0.1"
//! ```

use std::time::Duration;

use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower_response_cache::adapt::ShareLayer;
use tower_response_cache::storage::Storage;
use tower_response_cache::{CacheLayer, Rule, Rules};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Returns a client that asks for discovery documents at most once in ten minutes.
///
/// kube adds host and token below the cache. So give each cluster and each user a storage or a `partition` of its own.
pub fn client<S: Storage>(config: Config, storage: S) -> Result<Client, Error> {
    let mut rules = Rules::new();
    for documents in ["version", "api", "api/*", "apis", "apis/*/*", "openapi/**"] {
        let rule = Rule::new().url(format!("cluster/{documents}"));
        rules = rules.rule(rule.override_ttl(Duration::from_secs(600)));
    }
    let layer = CacheLayer::builder(storage).default_authority("cluster").rules(rules).build()?;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&ShareLayer::new())
        .with_layer(&layer.empty_body(Body::empty))
        .build())
}

#[cfg(test)]
mod tests {
    use tower_response_cache::storage::MemoryStorage;

    use super::*;
    use crate::server::{Server, response};

    #[tokio::test]
    async fn discovery_is_asked_for_once() {
        let server = Server::start(|request| {
            let body = match request.uri().path() {
                "/version" => {
                    r#"{"major":"1","minor":"30","gitVersion":"v1","gitCommit":"","gitTreeState":"","buildDate":"",
                        "goVersion":"","compiler":"","platform":""}"#
                }
                _ => r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"a"}}"#,
            };
            response(&[("cache-control", "no-cache, private"), ("content-type", "application/json")], body)
        })
        .await;
        let client = client(Config::new(server.url.parse().unwrap()), MemoryStorage::new()).unwrap();
        for _ in 0..3 {
            assert_eq!(client.apiserver_version().await.unwrap().minor, "30");
        }
        assert_eq!(server.count(), 1);
        // Objects are asked for each time.
        for _ in 0..2 {
            let request = http::Request::get("/api/v1/namespaces/a/pods/b").body(Vec::new()).unwrap();
            client.request::<serde_json::Value>(request).await.unwrap();
        }
        assert_eq!(server.count(), 3);
    }
}
