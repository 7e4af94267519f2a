//! A cache with an administration service.

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;
use tower_response_cache::admin::{self, Admin};
use tower_response_cache::storage::MemoryStorage;

use crate::support::{Fixture, Origin, not_modified, response};

pub const TOKEN: &str = "a token that nobody guesses";

/// An answer of the service.
#[derive(Debug)]
pub struct Reply {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    /// Returns what a problem document says.
    pub fn detail(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], self.code.as_u16());
        document["detail"].as_str().unwrap().to_owned()
    }
}

/// A shared cache, an origin and the service. The path of a URL says how the origin answers.
pub struct World {
    pub cache: Fixture,
    pub router: Router,
}

impl World {
    pub fn new() -> Self {
        Self::on(MemoryStorage::new())
    }

    pub fn on(storage: impl tower_response_cache::storage::Storage) -> Self {
        let origin = Origin::new(|request| {
            let path = request.uri().path().to_owned();
            if request.headers().contains_key("if-none-match") {
                return not_modified(&[("cache-control", "max-age=60")]);
            }
            let tags = request.uri().query().unwrap_or_default().replace('+', " ");
            let mut fields = vec![("surrogate-key", &*tags), ("etag", "\"1\"")];
            fields.extend(match &*path {
                "/must" => vec![("cache-control", "max-age=60, must-revalidate")],
                "/while" => vec![("cache-control", "max-age=60, stale-while-revalidate=600")],
                "/error" => vec![("cache-control", "max-age=60, stale-if-error=600")],
                "/no-cache" => vec![("cache-control", "no-cache")],
                "/vary" => vec![("cache-control", "max-age=60"), ("vary", "accept-language")],
                "/group" => vec![("cache-control", "max-age=60"), ("cache-groups", "\"news\"")],
                "/secret" => vec![
                    ("cache-control", "max-age=60"),
                    ("x-auth-token", "hidden"),
                    ("x-shown", "<b>shown</b>"),
                ],
                "/page" => vec![("cache-control", "max-age=60"), ("content-type", "text/html")],
                "/short" => vec![("cache-control", "max-age=1")],
                _ => vec![("cache-control", "max-age=60")],
            });
            if path != "/page" {
                fields.push(("content-type", "text/plain"));
            }
            let mut answer = response(&fields, vec![b'x'; path.len()]);
            if path == "/missing" {
                *answer.status_mut() = StatusCode::NOT_FOUND;
            }
            answer
        });
        let cache =
            Fixture::with(origin, storage, |builder| builder.shared(true).tag_fields(["surrogate-key"]));
        let service = cache.service.clone();
        let router = Admin::new(cache.layer.handle(), admin::token(TOKEN))
            .warm_with::<_, Full<Bytes>, _>(service)
            .router();
        Self { cache, router }
    }

    /// Stores the responses for these paths of `http://example.com`.
    pub async fn store(&self, paths: &[&str]) {
        for path in paths {
            self.cache.get(&format!("http://example.com{path}")).await;
        }
        self.cache.layer.idle().await;
    }

    /// Returns the paths that are stored and served, sorted.
    pub async fn stored(&self) -> Vec<String> {
        let list = self.get("/api/v1/entries?sort=url").await.json();
        let urls = list["entries"].as_array().unwrap().iter().map(|entry| entry["url"].as_str().unwrap());
        urls.map(|url| url.strip_prefix("http://example.com").unwrap_or(url).to_owned()).collect()
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { code: head.status, headers: head.headers, body }
    }

    pub async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], content: &str) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("authorization", format!("Bearer {TOKEN}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(content.to_owned())).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], "").await
    }

    /// Sends JSON as a program does.
    pub async fn post(&self, path: &str, content: &Value) -> Reply {
        let fields = [("x-cache-admin", "1"), ("content-type", "application/json")];
        self.ask("POST", path, &fields, &content.to_string()).await
    }
}
