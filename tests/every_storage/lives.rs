//! One caller that sends one request after another.
//!
//! A body that it has just read must be a hit, however late the storage is.
//!
//! `LIVES` sets the number of lives for each [`Manner`].

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use libtest_mimic::Trial;
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::testing::Harness;
use tower_response_cache::{CacheLayer, Clock};

use crate::places::{Kind, Place};
use crate::{OPERATION_TIMEOUT, trial};

const REQUESTS: usize = 30;

/// How the origin answers.
#[derive(Clone, Copy, Debug)]
struct Manner {
    len: usize,
    /// The length of each frame.
    frame: usize,
    announces_len: bool,
    /// Whether the origin answers conditional requests with 304.
    confirms: bool,
}

const MANNERS: [Manner; 8] = [
    Manner { len: 300, frame: 300, announces_len: true, confirms: false },
    Manner { len: 300, frame: 7, announces_len: false, confirms: true },
    Manner { len: 60_000, frame: 60_000, announces_len: true, confirms: false },
    Manner { len: 60_000, frame: 1_000, announces_len: false, confirms: true },
    Manner { len: 1 << 20, frame: 1 << 20, announces_len: true, confirms: false },
    Manner { len: 1 << 20, frame: 1 << 20, announces_len: false, confirms: true },
    Manner { len: 1 << 20, frame: 16 << 10, announces_len: true, confirms: true },
    Manner { len: 1 << 20, frame: 8_192, announces_len: false, confirms: false },
];

pub fn trials(kind: &Kind) -> Vec<Trial> {
    vec![
        trial("lives", kind, "body_just_read_is_a_hit", |place| Box::pin(lives(place))),
        trial("lives", kind, "body_just_read_is_a_hit_in_one_thread", |place| {
            Box::pin(async move {
                std::thread::scope(|scope| {
                    let runtime =
                        || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    scope.spawn(move || runtime().block_on(lives(place))).join().unwrap();
                });
            })
        }),
    ]
}

async fn lives(place: &Place) {
    let count = std::env::var("LIVES").map_or(3, |count| count.parse().unwrap());
    let storage = place.open("lives").await.unwrap();
    for manner in MANNERS {
        for number in 0..count {
            live(storage.clone(), manner, number).await;
        }
    }
}

/// Returns a body that contains its version.
fn body(manner: Manner, version: usize) -> Bytes {
    vec![version as u8; manner.len].into()
}

async fn live(storage: impl tower_response_cache::storage::Storage, manner: Manner, number: usize) {
    let (clock, mock) = Clock::mock();
    // A server deletes expired records by its own clock, so the mock clock starts at the present time.
    mock.set(SystemTime::now().into());
    let layer =
        CacheLayer::builder(storage).clock(clock).operation_timeout(OPERATION_TIMEOUT).build().unwrap();
    let (version, asked) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicUsize::new(0)));
    let origin = service_fn({
        let (version, asked) = (Arc::clone(&version), Arc::clone(&asked));
        move |request: Request<Full<Bytes>>| {
            asked.fetch_add(1, SeqCst);
            let version = version.load(SeqCst);
            let tag = format!("\"{version}\"");
            let has_tag = request.headers().get("if-none-match").is_some_and(|value| *value == tag);
            let mut response = Response::builder().header("cache-control", "max-age=60").header("etag", tag);
            let mut rest = body(manner, version);
            if has_tag {
                (response, rest) = (response.status(StatusCode::NOT_MODIFIED), Bytes::new());
            } else if manner.announces_len {
                response = response.header("content-length", manner.len);
            }
            let mut frames = Vec::new();
            while !rest.is_empty() {
                let frame = rest.split_to(rest.len().min(manner.frame));
                frames.push(Ok::<_, Infallible>(Frame::data(frame)));
            }
            async move { Ok::<_, Infallible>(response.body(StreamBody::new(stream::iter(frames))).unwrap()) }
        }
    });
    let service = layer.layer(origin);
    let uri = format!("http://example.com/{manner:?}/{number}").replace(['{', '}', ' ', ','], "-");
    let mut due = 0;
    for step in 0..REQUESTS {
        // From time to time the stored response is stale. The origin then replaces or confirms it.
        if step == 0 || step % 7 == 6 {
            mock.advance(Duration::from_secs(61));
            if !manner.confirms {
                version.fetch_add(1, SeqCst);
            }
            due += 1;
        }
        let request = Request::get(&uri).body(Full::<Bytes>::default()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        let status = response.body().status().copied();
        let read = response.into_body().collect().await.unwrap().to_bytes();
        assert!(read == body(manner, version.load(SeqCst)), "wrong body at step {step} of {manner:?}");
        assert_eq!(
            asked.load(SeqCst),
            due,
            "the origin got a needless request at step {step} of life {number} of {manner:?}: {status:?}, {:?}",
            layer.statistics()
        );
    }
    layer.idle().await;
}
