//! Answers Prometheus at `/metrics`.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::meter;

/// The buckets of the durations, from a hit in memory to a large download.
const SECONDS: [f64; 10] = [0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 30.0, 120.0];
/// How often durations are moved into their buckets: without it, memory grows while nothing scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// How many scrapes run at once. More of them wait, so that they take no files from clients.
const SCRAPES: usize = 8;

/// Installs the recorder of metrics, and serves it in tasks.
///
/// # Errors
/// Returns a message if the address cannot be listened on, or the recorder not be installed.
pub async fn start(address: &str) -> Result<(), String> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| format!("cannot listen on {address} for --metrics: {error}"))?;
    let durations = Matcher::Suffix("duration_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(durations, &SECONDS);
    let handle = builder.and_then(PrometheusBuilder::install_recorder);
    let handle = handle.map_err(|error| format!("cannot measure: {error}"))?;
    meter::describe();
    #[cfg(feature = "metrics")]
    tower_response_cache::observe::describe_metrics();
    if let Ok(address) = listener.local_addr() {
        tracing::info!(target: "reverse_proxy", "metrics on http://{address}/metrics");
    }
    tokio::spawn(serve(listener, handle.clone()));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            handle.run_upkeep();
        }
    });
    Ok(())
}

async fn serve(listener: TcpListener, handle: PrometheusHandle) {
    let slots = std::sync::Arc::new(Semaphore::new(SCRAPES));
    while let Ok(slot) = std::sync::Arc::clone(&slots).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await; // too many open files, which the clients' listener reports
            continue;
        };
        let handle = handle.clone();
        let service = service_fn(move |request| std::future::ready(respond(&request, &handle)));
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            // One scrape for each connection: its timer closes those that send none.
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).keep_alive(false);
            let scrape = http.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(Duration::from_secs(60), scrape).await; // the scraper has gone
            drop(slot);
        });
    }
}

fn respond(
    request: &Request<Incoming>,
    handle: &PrometheusHandle,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        let mut response = Response::new(Full::from("404 the metrics are at /metrics\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    handle.run_upkeep();
    let mut response = Response::new(Full::from(handle.render()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    Ok(response)
}
