//! Measures a long body that arrives slowly and is stored in SQLite.
//!
//! It arrives at 10 MiB per second. First one request reads it alone, and then one with a hundred followers, which
//! arrive at random times meanwhile.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::SqliteStorage;

use super::memory::Peak;

/// The length of a frame.
const FRAME: usize = 64 * 1024;
/// The speed of the origin in bytes per second.
///
/// It is slow enough that the machine is mostly idle, so that delays are those of the cache.
const SPEED: u64 = 10 << 20;

type Frames = UnsyncBoxBody<Bytes, Infallible>;

/// Returns a body of this length that sends its frames at the origin's speed.
fn body(len: u64, sent: Arc<AtomicU64>) -> Frames {
    let frames = futures_util::stream::unfold((0, tokio::time::Instant::now()), move |(place, begun)| {
        let sent = Arc::clone(&sent);
        async move {
            if place == len {
                return None;
            }
            let next = place + FRAME as u64;
            tokio::time::sleep_until(begun + Duration::from_micros(next * 1_000_000 / SPEED)).await;
            sent.store(next, Ordering::SeqCst);
            Some((Ok(Frame::data(Bytes::from(vec![7; FRAME]))), (next, begun)))
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The worst figures of all followers.
#[derive(Default)]
struct Worst {
    /// The time until the first byte, in microseconds.
    first_byte: AtomicU64,
    /// How many bytes a reader fell behind the origin, after it had caught up once.
    behind: AtomicU64,
}

async fn transfer(mebibytes: u64, readers: usize, file: &Path) {
    let len = mebibytes << 20;
    let (sent, fetches, worst) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Worst::default()));
    let (counter, progress) = (Arc::clone(&fetches), Arc::clone(&sent));
    let origin = service_fn(move |_: Request<Empty<Bytes>>| {
        counter.fetch_add(1, Ordering::SeqCst);
        let response = Response::builder().header("cache-control", "max-age=60");
        std::future::ready(Ok::<_, Infallible>(response.body(body(len, Arc::clone(&progress))).unwrap()))
    });
    let layer = CacheLayer::new(SqliteStorage::open(file).await.unwrap());
    let service = layer.layer(origin);
    let peak = Peak::begin();
    let mut callers = JoinSet::new();
    for number in 0..=readers {
        // The first request leads. The others arrive when between 2 and 92 % of the body have been sent.
        let arrival = if number == 0 { 0.0 } else { 0.02 + fastrand::f64() * 0.9 };
        let wait = Duration::from_secs_f64(arrival * len as f64 / SPEED as f64);
        let (service, sent, worst) = (service.clone(), Arc::clone(&sent), Arc::clone(&worst));
        callers.spawn(async move {
            tokio::time::sleep(wait).await;
            let begun = Instant::now();
            let request = Request::get("http://example.com/").body(Empty::new()).unwrap();
            let mut body = service.oneshot(request).await.unwrap().into_body();
            let (mut place, mut caught_up) = (0, false);
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                if place == 0 && number > 0 {
                    worst.first_byte.fetch_max(begun.elapsed().as_micros() as u64, Ordering::SeqCst);
                }
                place += data.len() as u64;
                let behind = sent.load(Ordering::SeqCst).saturating_sub(place);
                caught_up |= behind == 0;
                if caught_up {
                    worst.behind.fetch_max(behind, Ordering::SeqCst);
                }
            }
            assert_eq!(place, len);
        });
    }
    let begun = Instant::now();
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    let took = begun.elapsed();
    layer.idle().await;
    println!(
        "{mebibytes} MiB, {readers:>3} followers: {} fetch, {:.2} s, first byte after at most {:.1} ms, at most {} KiB behind \
         after catching up, memory {:.1} MiB",
        fetches.load(Ordering::SeqCst),
        took.as_secs_f64(),
        worst.first_byte.load(Ordering::SeqCst) as f64 / 1000.0,
        worst.behind.load(Ordering::SeqCst) / 1024,
        peak.end() as f64 / 1048576.0,
    );
}

pub async fn measure(mebibytes: u64, folder: &Path) {
    println!("\na body at 10 MiB per second, in SQLite");
    for readers in [0, 100] {
        transfer(mebibytes, readers, &folder.join(format!("long-{readers}"))).await;
    }
}
