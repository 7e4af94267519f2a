//! A local server of this repository's files, with the fields that a cache works by.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

pub const NAME: &str = "quickstart.localhost";

/// The files, and how long a cache may keep each without asking.
const FILES: [(&str, &str); 5] = [
    ("README.md", "max-age=600"),
    ("Cargo.toml", "max-age=600"),
    ("Cargo.lock", "max-age=3600, stale-while-revalidate=60"),
    ("CHANGELOG.md", "no-cache"),
    ("LICENSE-APACHE", ""), // no lifetime of its own: the cache guesses one from Last-Modified
];

pub struct Origin {
    pub port: u16,
    pub urls: Vec<Uri>,
}

pub async fn start() -> std::io::Result<Origin> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request| async move { Ok::<_, Infallible>(serve(&request).await) });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let urls = FILES.iter().filter_map(|(name, _)| format!("http://{NAME}/{name}").parse().ok()).collect();
    Ok(Origin { port, urls })
}

async fn serve(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    answer(request).await.unwrap_or_else(|| {
        let mut response = Response::new(Full::from("not found\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    })
}

async fn answer(request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let asked = request.uri().path().strip_prefix('/')?;
    let (name, lifetime) = FILES.iter().find(|(name, _)| *name == asked)?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let contents = tokio::fs::read(&path).await.ok()?;
    let modified = tokio::fs::metadata(&path).await.ok()?.modified().ok()?;
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    let etag = format!("\"{:016x}\"", hasher.finish());

    let unchanged = unchanged(request.headers(), &etag, modified);
    let mut response = Response::new(Full::from(if unchanged { Vec::new() } else { contents }));
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::try_from(etag).ok()?);
    headers.insert(header::LAST_MODIFIED, HeaderValue::try_from(httpdate::fmt_http_date(modified)).ok()?);
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if !lifetime.is_empty() {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(lifetime));
    }
    Some(response)
}

/// Whether the client has this already (RFC 9110 §13.2.2).
fn unchanged(asked: &HeaderMap, etag: &str, modified: SystemTime) -> bool {
    let field = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(tags) = field(header::IF_NONE_MATCH) {
        return tags.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*");
    }
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    field(header::IF_MODIFIED_SINCE)
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .is_some_and(|since| seconds(modified) <= seconds(since))
}
