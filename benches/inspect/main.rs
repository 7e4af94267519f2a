//! Measures time and memory of the commands of `examples/inspect`.
//!
//! The storages are a SQLite file and a Redis server, with 100,000 responses of 2 KiB in each.
//!
//! `cargo bench --features sqlite,redis --bench inspect`
//!
//! The Redis server is the one at `TEST_REDIS_URL`, or else one that the bench starts if Redis is installed. The peak
//! memory is printed if GNU time is installed.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[path = "../../tests/programs/built.rs"]
mod built;
#[path = "../../tests/servers/mod.rs"]
mod servers;

use std::convert::Infallible;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::connect;

const TYPES: [&str; 4] = ["text/html; charset=utf-8", "application/json", "image/png", "text/css"];

/// Stores this many responses, from a thousand hosts.
async fn fill(storage: &str, entries: usize) {
    let layer = CacheLayer::new(connect(storage).await.unwrap());
    let body = Bytes::from(vec![b'x'; 2048]);
    let origin = service_fn(move |request: Request<Full<Bytes>>| {
        let body = body.clone();
        async move {
            let number = request.uri().path().len() + request.uri().host().unwrap().len();
            let response = Response::builder()
                .header("cache-control", "max-age=86400")
                .header("content-type", TYPES[number % TYPES.len()])
                .header("etag", "\"0123456789abcdef\"")
                .header("date", httpdate::fmt_http_date(std::time::SystemTime::now()))
                .header("server", "a server of some name/1.2.3");
            Ok::<_, Infallible>(response.body(Full::new(body)).unwrap())
        }
    });
    let service = layer.layer(origin);
    let requests = stream::iter(0..entries).for_each_concurrent(64, |number| {
        let url =
            format!("https://host-{}.example/some/path/to/page-{number}.html?query={number}", number % 1000);
        let response = service.clone().oneshot(Request::get(url).body(Full::default()).unwrap());
        async move {
            response.await.unwrap().into_body().collect().await.unwrap();
        }
    });
    requests.await;
    layer.idle().await;
}

/// Runs the program to its end, and measures it.
///
/// Returns the seconds and the peak memory in MiB.
fn run(program: &Path, arguments: &[&str], codes: &[i32]) -> (f64, Option<f64>) {
    let time = servers::find("time").ok();
    let mut command = match &time {
        Some(time) => {
            let mut command = Command::new(time);
            command.args(["-f", "%M"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    let begun = Instant::now();
    let output = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).output().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| codes.contains(&code)), "{arguments:?}: {stderr}");
    let peak = stderr.lines().last().and_then(|line| line.parse::<f64>().ok()).filter(|_| time.is_some());
    (seconds, peak.map(|kilobytes| kilobytes / 1024.0))
}

fn measure(program: &Path, storage: &str, name: &str, copy: &str) {
    let commands: [&[&str]; 11] = [
        &["list"],
        &["list", "--width", "80"],
        &["list", "--json"],
        &["list", "--sort", "size"],
        &["list", "--sort", "size", "--limit", "10"],
        &["show", "https://host-7.example/some/path/to/page-7.html?query=7"],
        &["stats"],
        &["verify"],
        &["copy", copy],
        &["delete", "--url", "host-1*.example", "--yes"],
        &["purge", "--yes"],
    ];
    for arguments in commands {
        let (seconds, peak) = run(program, &[&[storage], arguments].concat(), &[0]);
        let command =
            arguments.iter().filter(|word| !word.contains("://")).copied().collect::<Vec<_>>().join(" ");
        let peak = peak.map_or_else(|| "-".to_owned(), |peak| format!("{peak:.1} MiB"));
        println!("{name:8} {command:40} {seconds:>8.2} s {peak:>12}");
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let is_long = std::env::args().any(|word| word == "--bench");
    let entries = if is_long { 100_000 } else { 200 };
    let program = built::example("inspect");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    println!("{:8} {entries} responses", "");
    let storage = file("storage.sqlite");
    fill(&storage, entries).await;
    measure(&program, &storage, "sqlite", &file("copy.sqlite"));
    #[cfg(feature = "redis")]
    {
        let named = std::env::var("TEST_REDIS_URL").ok();
        let own = if named.is_none() { servers::redis::Redis::start(&[]).ok() } else { None };
        let Some(url) = named.or_else(|| own.as_ref().map(|own| format!("redis://127.0.0.1:{}/0", own.port)))
        else {
            return println!("redis    not measured: install Redis, or set TEST_REDIS_URL");
        };
        let storage = format!("{url}?cache_name=inspect-bench-{}", std::process::id());
        fill(&storage, entries).await;
        measure(&program, &storage, "redis", &format!("{storage}-copy"));
        run(&program, &[&format!("{storage}-copy"), "purge", "--yes"], &[0]);
    }
}
