//! A storage that a cache has filled.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tower_response_cache::CacheOptions;
use tower_response_cache::storage::{BoxStorage, SqliteStorage, connect};

use crate::support::{Fixture, Origin, get, get_with, response};

pub const LARGE: usize = 2 << 20;
pub const DAY: &str = "max-age=86400";

pub struct World {
    pub folder: tempfile::TempDir,
    pub store: String,
}

impl World {
    /// Creates a SQLite file with responses of all kinds.
    ///
    /// They are `a.json`, `b.html` (large), `old.html` (stale), `missing` (404) and two variants of `v`.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite://{}", folder.path().join("store.sqlite").display());
        fill(&store).await;
        Self { folder, store }
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("store.sqlite")
    }

    /// Returns the address of another storage in the same folder.
    pub fn other(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}://{}", self.folder.path().join(name).display())
    }
}

/// Returns the origin's response, which is the same for all tests.
fn answer(request: &Request<Full<Bytes>>) -> http::Response<Full<Bytes>> {
    match request.uri().path() {
        "/a.json" => response(
            &[
                ("content-type", "application/json"),
                ("cache-control", DAY),
                ("set-cookie", "id=hidden"),
                ("x-api-key", "hidden"),
                ("etag", "\"a\""),
            ],
            r#"{"a":true}"#,
        ),
        "/b.html" => response(
            &[("content-type", "text/html; charset=utf-8"), ("cache-control", DAY)],
            vec![b'b'; LARGE],
        ),
        "/old.html" => response(
            &[("content-type", "text/html"), ("cache-control", "max-age=60"), ("etag", "\"o\"")],
            "old",
        ),
        "/v" => {
            let language = request.headers()["accept-language"].to_str().unwrap();
            response(&[("vary", "accept-language"), ("cache-control", DAY)], language.to_owned())
        }
        "/missing" => {
            let mut response = response(&[("cache-control", DAY)], "none");
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
        _ => response(&[("cache-control", DAY), ("content-type", "image/png")], vec![7; 100]),
    }
}

pub fn origin() -> Origin {
    Origin::new(answer)
}

pub async fn fill(store: &str) {
    let cache = cache(connect(store).await.unwrap());
    cache.clock.set((SystemTime::now() - Duration::from_secs(3 * 3600)).into());
    cache.get("https://shop.example/old.html").await;
    cache.clock.set(SystemTime::now().into());
    let mut tagged = get("https://shop.example/a.json");
    tagged.extensions_mut().insert(CacheOptions::new().tags(["shop"]));
    cache.ask(tagged).await;
    for url in ["https://shop.example/b.html", "https://other.example/missing"] {
        cache.get(url).await;
    }
    for language in ["en", "de"] {
        cache.ask(get_with("https://shop.example/v", &[("accept-language", language)])).await;
    }
    cache.layer.idle().await;
}

pub fn cache(storage: BoxStorage) -> Fixture {
    let cache = Fixture::with(origin(), storage, |builder| builder);
    cache.clock.set(SystemTime::now().into());
    cache
}

/// Fills a file through a cache with this partition.
pub async fn fill_partition(path: &std::path::Path, name: &str, urls: &[String]) {
    let storage = BoxStorage::new(SqliteStorage::open(path).await.unwrap());
    let cache = Fixture::with(origin(), storage, |builder| builder.partition(name));
    cache.clock.set(SystemTime::now().into());
    // Some at a time: this origin answers at once, so that the requests alone would never let the writes go on.
    for urls in urls.chunks(100) {
        for url in urls {
            cache.ask(get(url)).await;
        }
        cache.layer.idle().await;
    }
}

/// Returns the outcome for a URL, such as `hit`, in a new cache on this storage.
pub async fn word(store: &str, url: &str) -> &'static str {
    cache(connect(store).await.unwrap()).get(url).await.word()
}
