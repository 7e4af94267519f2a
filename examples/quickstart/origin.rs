//! A local origin: serves files of this repository with the header fields that a cache needs.

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

/// A name below `.localhost`, which is reserved for this machine (RFC 6761 §6.3).
pub const NAME: &str = "quickstart.localhost";

/// The files and their Cache-Control, chosen to show one case each.
const FILES: [(&str, &str); 5] = [
    ("README.md", "max-age=600"),
    ("Cargo.toml", "max-age=600"),
    ("Cargo.lock", "max-age=3600, stale-while-revalidate=60"),
    ("CHANGELOG.md", "no-cache"),
    ("LICENSE-APACHE", ""), // none: the cache guesses a lifetime from Last-Modified (RFC 9111 §4.2.2)
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
            let service = service_fn(|request| async move { Ok::<_, Infallible>(respond(&request).await) });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let urls = FILES.iter().filter_map(|(name, _)| format!("http://{NAME}/{name}").parse().ok()).collect();
    Ok(Origin { port, urls })
}

async fn respond(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    file(request).await.unwrap_or_else(|| {
        let mut response = Response::new(Full::from("not found\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    })
}

async fn file(request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path().strip_prefix('/')?;
    let (name, cache_control) = FILES.iter().find(|(name, _)| *name == path)?;
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
    if !cache_control.is_empty() {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
    }
    Some(response)
}

/// Returns whether the request's precondition says that the client has this version (RFC 9110 §13.2.2).
fn unchanged(request: &HeaderMap, etag: &str, modified: SystemTime) -> bool {
    let field = |name| request.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(tags) = field(header::IF_NONE_MATCH) {
        return tags.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*");
    }
    // A date in a field has whole seconds, the file's has not.
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    field(header::IF_MODIFIED_SINCE)
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .is_some_and(|since| seconds(modified) <= seconds(since))
}
