//! The keys of an identity provider (JSON Web Key Set).
//!
//! The provider says by `max-age` how long its keys may be reused. The cache needs no refresh task: a stale set is
//! refreshed in the background, and goes on being used while the provider is down.
//!
//! ```toml
//! [dependencies]
//! bytes = "1"
//! http = "1"
//! http-body-util = "0.1"
//! jsonwebtoken = { version = "10", default-features = false, features = ["rust_crypto", "use_pem"] }
//! reqwest = "0.13"
//! serde_json = "1"
//! tower = { version = "0.5", features = ["util"] }
//! tower-response-cache = { version = "0.1", features = ["reqwest"] }
//! ```

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, TokenData, Validation, decode, decode_header};
use serde_json::Value;
use tower::{Layer, ServiceExt};
use tower_response_cache::reqwest::HttpService;
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{Cache, CacheLayer};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Verifies tokens by the keys of one provider.
#[derive(Clone)]
pub struct Verifier {
    url: Uri,
    service: Cache<HttpService, MemoryStorage>,
}

impl Verifier {
    /// Returns a verifier for the key set at a URL.
    pub fn new(url: Uri) -> Result<Self, Error> {
        let layer = CacheLayer::builder(MemoryStorage::new())
            .stale_while_revalidate(Duration::from_secs(3600))
            .stale_if_error(Duration::from_secs(24 * 3600))
            .build()?;
        Ok(Self { url, service: layer.layer(HttpService::new(reqwest::Client::new()).adds_no_fields()) })
    }

    /// Returns the claims of a token, if a key of the provider has signed it.
    pub async fn verify(&self, token: &str, validation: &Validation) -> Result<TokenData<Value>, Error> {
        let request = Request::get(self.url.clone()).body(Empty::<Bytes>::new())?;
        let response = self.service.clone().oneshot(request).await?;
        let keys: JwkSet = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
        let id = decode_header(token)?.kid.ok_or("the token names no key")?;
        let key = keys.find(&id).ok_or("the provider has no such key")?;
        Ok(decode(token, &DecodingKey::from_jwk(key)?, validation)?)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

    use super::*;
    use crate::server::{Server, response};

    #[tokio::test]
    async fn keys_are_fetched_once_for_many_tokens() {
        let server = Server::start(|_| {
            let keys = r#"{"keys":[{"kty":"oct","alg":"HS256","kid":"1","k":"c2VjcmV0"}]}"#;
            response(&[("cache-control", "public, max-age=3600"), ("content-type", "application/json")], keys)
        })
        .await;
        let verifier = Verifier::new(format!("{}/jwks", server.url).parse().unwrap()).unwrap();
        let header = Header { kid: Some("1".to_owned()), ..Header::new(Algorithm::HS256) };
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        for (secret, is_valid) in [(&b"secret"[..], true), (b"forged", false), (b"secret", true)] {
            let claims = serde_json::json!({ "sub": "a" });
            let token = encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap();
            assert_eq!(verifier.verify(&token, &validation).await.is_ok(), is_valid);
        }
        assert_eq!(server.count(), 1);
    }
}
