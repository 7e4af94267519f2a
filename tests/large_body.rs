//! A body of 256 MiB through SQLite: at once, in little memory, and whole.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::SqliteStorage;

const FRAME: usize = 64 * 1024;
const FRAMES: usize = 4096;
/// Names the part that a child process plays.
const PART: &str = "LARGE_BODY_PART";

/// Frames that are made one by one, each with its number in it.
fn body() -> UnsyncBoxBody<Bytes, Infallible> {
    let frames = (0..FRAMES).map(|number| {
        let mut frame = vec![number as u8; FRAME];
        frame[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Ok(Frame::data(Bytes::from(frame)))
    });
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// Reads it all and checks each byte; says when the first one came.
async fn read(body: impl Body<Data = Bytes, Error: std::fmt::Debug>) -> Duration {
    let began = Instant::now();
    let mut first = None;
    let mut body = Box::pin(body);
    let mut at = 0_usize;
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        first.get_or_insert_with(|| began.elapsed());
        // The number is at the beginning of each frame, and its last byte everywhere else.
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (number, within) = (at / FRAME, at % FRAME);
            let here = rest.len().min(FRAME - within);
            if within == 0 && here >= 8 {
                assert_eq!(rest[..8], (number as u64).to_be_bytes());
                assert!(rest[here - 1] == number as u8);
            }
            at += here;
            rest = &rest[here..];
        }
    }
    assert_eq!(at, FRAME * FRAMES);
    first.unwrap()
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn play(part: &str) {
    let origin = service_fn(|_: Request<Empty<Bytes>>| async {
        Response::builder().header("cache-control", "max-age=600").body(body())
    });
    let ask = || Request::get("http://example.com/large").body(Empty::new()).unwrap();
    let first = if part == "bare" {
        read(origin.oneshot(ask()).await.unwrap().into_body()).await
    } else {
        let folder = tempfile::tempdir().unwrap();
        let layer = CacheLayer::new(SqliteStorage::open(folder.path().join("s")).await.unwrap());
        let service = layer.layer(origin);
        let first = read(service.clone().oneshot(ask()).await.unwrap().into_body()).await;
        if part == "hit" {
            let hit = service.oneshot(ask()).await.unwrap();
            assert!(hit.body().status().unwrap().is_hit());
            read(hit.into_body()).await;
        }
        layer.idle().await;
        first
    };
    println!("peak {} first {}", peak(), first.as_micros());
}

#[tokio::test]
async fn child() {
    if let Ok(part) = std::env::var(PART) {
        play(&part).await;
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_body_of_256_mib_streams_through_sqlite_in_little_memory() {
    let measure = |part: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(PART, part)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let line = text.lines().find_map(|line| line.split_once("peak ")).unwrap().1.to_owned();
        let mut words = line.split(' ');
        let peak: u64 = words.next().unwrap().parse().unwrap();
        let first: u64 = words.nth(1).unwrap().parse().unwrap();
        println!("{part}: peak {peak} KiB, first byte after {first} µs");
        (peak, first)
    };
    let (bare, _) = measure("bare");
    for part in ["miss", "hit"] {
        let (peak, first) = measure(part);
        assert!(peak <= bare + 16 * 1024, "{part}: {} KiB more than without the cache", peak - bare);
        // Not after the whole body, which takes much longer.
        assert!(first < 100_000, "{part}: the first byte came after {first} µs");
    }
}
