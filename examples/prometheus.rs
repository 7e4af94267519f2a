//! Monitors a cache with Prometheus: an origin, a server with the cache before it, and the metrics at `/metrics`.
//!
//! `cargo run --example prometheus --features metrics -- [--listen ADDR]`
//!
//! Without `--listen` it sends some requests, prints what a scrape returns, and exits. With it, the server runs until it
//! is stopped, with the paths `/fresh`, `/slow`, `/private` and `/metrics`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt};
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{CacheLayer, observe};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = BoxBody<Bytes, BoxError>;
type Cached = BoxCloneSyncService<Request<Empty<Bytes>>, Response<Body>, BoxError>;

/// The buckets of the durations, from a hit in memory to a slow server.
const SECONDS: [f64; 8] = [0.000_01, 0.000_1, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0];

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listen = arguments(std::env::args().skip(1))?;
    let durations = Matcher::Suffix("duration_seconds".to_owned());
    let metrics = PrometheusBuilder::new().set_buckets_for_metric(durations, &SECONDS)?.install_recorder()?;
    observe::describe_metrics();

    let origin = start("127.0.0.1:0", |request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(page(request.uri().path()))
    })
    .await?;
    let client = Client::builder(TokioExecutor::new()).build_http().map_err(BoxError::from);
    let layer = CacheLayer::builder(MemoryStorage::new()).shared(true).metrics_label("front").build()?;
    let cache = BoxCloneSyncService::new(
        layer.layer(client).map_response(|response| response.map(|body| body.map_err(Into::into).boxed())),
    );

    let address = start(listen.as_deref().unwrap_or("127.0.0.1:0"), {
        let (metrics, origin) = (metrics.clone(), Arc::from(origin));
        move |request| respond(request, cache.clone(), metrics.clone(), Arc::clone(&origin))
    })
    .await?;
    if listen.is_some() {
        println!("listening on http://{address}");
        loop {
            // Moves the collected durations into their buckets: without it, memory grows while nothing scrapes.
            tokio::time::sleep(Duration::from_secs(5)).await;
            metrics.run_upkeep();
        }
    }

    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let get = async |path: &str| {
        let response = client.get(format!("http://{address}{path}").parse()?).await?;
        Ok::<_, BoxError>(response.into_body().collect().await?.to_bytes())
    };
    for path in ["/fresh", "/fresh", "/fresh", "/private", "/private"] {
        get(path).await?;
    }
    // At the same time: one of them fetches, the others follow.
    tokio::try_join!(get("/slow"), get("/slow"), get("/slow"))?;
    layer.idle().await;

    let scraped = get("/metrics").await?;
    for line in String::from_utf8_lossy(&scraped).lines() {
        if line.starts_with("http_cache_") && !line.contains("_bucket{") {
            println!("{line}");
        }
    }
    println!("\n{}", layer.statistics());
    Ok(())
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Option<String>, BoxError> {
    match (words.next().as_deref(), words.next()) {
        (None, _) => Ok(None),
        (Some("--listen"), Some(address)) => Ok(Some(address)),
        _ => Err("usage: prometheus [--listen ADDR]".into()),
    }
}

/// Answers with the metrics, or through the cache.
async fn respond(
    request: Request<Incoming>,
    cache: Cached,
    metrics: PrometheusHandle,
    origin: Arc<str>,
) -> Result<Response<Body>, BoxError> {
    let (mut parts, _) = request.into_parts(); // no path here takes content
    if parts.uri.path() == "/metrics" {
        metrics.run_upkeep();
        let response = Response::builder().header(header::CONTENT_TYPE, "text/plain; version=0.0.4");
        return Ok(response.body(whole(metrics.render()))?);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = Uri::builder().scheme("http").authority(&*origin).path_and_query(path).build()?;
    parts.headers.remove(header::HOST); // the client below the cache sets it to the origin's
    match cache.oneshot(Request::from_parts(parts, Empty::new())).await {
        Ok(response) => Ok(response),
        Err(_) => Ok(Response::builder()
            .status(StatusCode::BAD_GATEWAY)
            .body(whole("the origin cannot be reached\n"))?),
    }
}

/// Returns the origin's response.
fn page(path: &str) -> Response<Body> {
    let (cache_control, text) = match path {
        "/fresh" => ("public, max-age=60", "the news\n"),
        "/slow" => ("public, max-age=60", "a slow page\n"),
        _ => ("private", "your mail\n"),
    };
    let mut response = Response::new(whole(text));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static(cache_control));
    response
}

fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// Starts a server, and returns the address that it listens on.
async fn start<H, F>(address: &str, handler: H) -> Result<String, BoxError>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, BoxError>> + Send + 'static,
{
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(handler.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}
