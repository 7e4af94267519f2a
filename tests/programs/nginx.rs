//! The layer in front of nginx as an origin.
//!
//! The tests are skipped with a message if nginx is missing.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt};
use tower_response_cache::storage::SqliteStorage;
use tower_response_cache::{Cache, CacheLayer, CacheStatus, Clock, MockClock};

pub struct Nginx {
    process: Child,
    port: u16,
    /// The port for HTTP/2 without TLS.
    pub http2: u16,
    pub folder: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join("nginx")).find(|program| program.is_file())
}

impl Nginx {
    /// Starts nginx on a free port.
    ///
    /// Returns `None` if nginx is missing.
    pub fn start() -> Option<Self> {
        let Some(program) = find() else {
            assert!(std::env::var_os("REQUIRE_NGINX").is_none(), "nginx is missing");
            println!("skipped: there is no nginx");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("files")).unwrap();
        fs::write(root.join("files/text.txt"), "some text, again and again ".repeat(200)).unwrap();
        fs::write(root.join("files/large.bin"), large()).unwrap();
        let listeners = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let [port, http2] = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(listeners);
        fs::write(root.join("nginx.conf"), configuration(root, port, http2)).unwrap();
        let process = Command::new(program)
            .args(["-p".as_ref(), root.as_os_str(), "-c".as_ref(), root.join("nginx.conf").as_os_str()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "nginx does not listen");
            std::thread::yield_now();
        }
        Some(Self { process, port, http2, folder })
    }
}

fn configuration(root: &Path, port: u16, http2: u16) -> String {
    let root = root.display();
    format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;
         events {{ worker_connections 64; }}
         http {{
             access_log {root}/access.log;
             client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
             uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
             types {{ text/plain txt; }}
             gzip on; gzip_min_length 1; gzip_vary on; gzip_types text/plain; gzip_http_version 1.0;
             server {{
                 listen 127.0.0.1:{port};
                 listen 127.0.0.1:{http2} http2;
                 root {root}/files;
                 location / {{ expires 60s; }}
                 location /stale/ {{ alias {root}/files/; add_header Cache-Control max-age=1; }}
                 location /private/ {{ alias {root}/files/; add_header Cache-Control no-store; }}
                 location /moved {{ expires 60s; return 301 /text.txt; }}
             }}
         }}"
    )
}

fn large() -> Vec<u8> {
    (0..8 * 1024 * 1024_u32).map(|at| (at % 251) as u8).collect()
}

/// A cache around a client, and the nginx that it fetches from.
struct Fixture {
    nginx: Nginx,
    clock: MockClock,
    service: Cache<Client<HttpConnector, Empty<Bytes>>, SqliteStorage>,
}

impl Fixture {
    async fn start() -> Option<Self> {
        let nginx = Nginx::start()?;
        let storage = SqliteStorage::open(nginx.folder.path().join("store.sqlite")).await.unwrap();
        let (clock, mock) = Clock::mock();
        mock.set(std::time::SystemTime::now().into());
        let layer = CacheLayer::builder(storage).clock(clock).build().unwrap();
        let service = layer.layer(Client::builder(TokioExecutor::new()).build_http());
        Some(Self { nginx, clock: mock, service })
    }

    async fn ask(&self, path: &str, fields: &[(&str, &str)]) -> (StatusCode, &'static str, HeaderMap, Bytes) {
        let mut request = Request::get(format!("http://127.0.0.1:{}{path}", self.nginx.port));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = self.service.clone().oneshot(request.body(Empty::new()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let word = head.extensions.get::<CacheStatus>().unwrap().word();
        (head.status, word, head.headers, body.collect().await.unwrap().to_bytes())
    }

    async fn word(&self, path: &str) -> &'static str {
        self.ask(path, &[]).await.1
    }
}

#[tokio::test]
async fn files_are_stored_and_revalidated() {
    let Some(cache) = Fixture::start().await else { return };
    let first = cache.ask("/text.txt", &[]).await;
    assert_eq!((first.0, first.1), (StatusCode::OK, "miss"));
    let hit = cache.ask("/text.txt", &[]).await;
    assert_eq!((hit.1, &hit.3), ("hit", &first.3));
    assert_eq!(hit.2["etag"], first.2["etag"]);
    cache.clock.advance(Duration::from_secs(100));
    let confirmed = cache.ask("/text.txt", &[]).await;
    assert_eq!((confirmed.0, confirmed.1, &confirmed.3), (StatusCode::OK, "revalidated", &first.3));
    // The file changes, so the next validation fails, and the new version replaces the stored one.
    fs::write(cache.nginx.folder.path().join("files/text.txt"), "another text altogether").unwrap();
    cache.clock.advance(Duration::from_secs(200));
    assert_eq!(cache.ask("/text.txt", &[]).await.3, "another text altogether");
}

#[tokio::test]
async fn compressed_and_plain_variants_are_separate() {
    let Some(cache) = Fixture::start().await else { return };
    let plain = cache.ask("/text.txt", &[]).await.3;
    for word in ["miss", "hit"] {
        let gzip = cache.ask("/text.txt", &[("accept-encoding", "gzip")]).await;
        assert_eq!((gzip.1, &gzip.2["content-encoding"]), (word, &"gzip".parse().unwrap()));
        assert!(gzip.3.len() < plain.len());
    }
    let again = cache.ask("/text.txt", &[]).await;
    assert_eq!((again.1, again.3), ("hit", plain));
}

#[tokio::test]
async fn ranges_and_preconditions_match_the_origin() {
    let Some(cache) = Fixture::start().await else { return };
    let whole = cache.ask("/large.bin", &[]).await;
    assert!(whole.3 == large());
    let tag = whole.2["etag"].to_str().unwrap().to_owned();
    for fields in [
        vec![("range", "bytes=131070-131080")],
        vec![("range", "bytes=8388000-")],
        vec![("range", "bytes=-1")],
        vec![("range", "bytes=8388608-")],
        vec![("if-none-match", tag.as_str())],
        vec![("range", "bytes=0-9"), ("if-range", tag.as_str())],
        vec![("range", "bytes=0-9"), ("if-range", "\"other\"")],
    ] {
        let ours = cache.ask("/large.bin", &fields).await;
        let mut bypassing = fields.clone();
        bypassing.push(("upgrade", "none")); // makes the request bypass the cache
        let theirs = cache.ask("/large.bin", &bypassing).await;
        assert_eq!((ours.1, theirs.1), ("hit", "bypass"));
        assert_eq!(ours.0, theirs.0, "{fields:?}");
        assert_eq!(ours.2.get("content-range"), theirs.2.get("content-range"), "{fields:?}");
        if ours.0 != StatusCode::RANGE_NOT_SATISFIABLE {
            assert!(ours.3 == theirs.3, "{fields:?}"); // nginx explains a 416 in a page of its own
        }
    }
}

#[tokio::test]
async fn redirects_and_errors_follow_cache_control() {
    let Some(cache) = Fixture::start().await else { return };
    assert_eq!((cache.word("/moved").await, cache.word("/moved").await), ("miss", "hit"));
    assert_eq!(
        (cache.word("/private/text.txt").await, cache.word("/private/text.txt").await),
        ("miss", "miss")
    );
    let missing = cache.ask("/missing", &[]).await;
    assert_eq!(missing.0, StatusCode::NOT_FOUND);
    assert_eq!((cache.word("/stale/text.txt").await, cache.word("/stale/text.txt").await), ("miss", "hit"));
}
