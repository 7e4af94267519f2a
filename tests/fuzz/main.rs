//! Random requests and responses through the whole cache, over a storage that flips bits.
//!
//! Nothing panics. Whatever is served from the storage is what the origin sent for that URI and allowed to be stored.
//!
//! The test runs for two seconds, and longer with `FUZZ_SECONDS=60 cargo test --test fuzz`. It works with any engine
//! that bolero drives (`cargo bolero test` runs it under libFuzzer).

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::future_not_send)]

mod bytes_storage;
mod hostile;
mod input;
mod properties;
#[path = "../support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_response_cache::{CacheLayer, Clock, Outcome};

use bytes_storage::BytesStorage;
use input::Input;

/// The URI, status and fields of each response that the origin sent, by its body.
type Sent = Arc<Mutex<HashMap<Bytes, (String, StatusCode, HeaderMap)>>>;
/// The next answers of the origin, the last one first. `None` is an error.
type Answers = Arc<Mutex<Vec<Option<Response<Full<Bytes>>>>>>;

fn seconds() -> Duration {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

#[test]
fn arbitrary_exchanges_serve_only_sent_responses() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    bolero::check!().with_test_time(seconds()).with_max_len(512).with_type::<Vec<u8>>().for_each(|bytes| {
        runtime.block_on(life(Input::new(bytes)));
    });
}

async fn life(mut input: Input<'_>) {
    let (clock, mock) = Clock::mock();
    let storage = BytesStorage::default();
    let mut builder = CacheLayer::builder(storage.clone()).clock(clock).status_field("fuzz");
    if input.flag() {
        builder = builder.shared(true);
    }
    if input.flag() {
        builder = builder.stale_when_disconnected(true);
    }
    if input.flag() {
        builder = builder.chunk_bytes(3);
    }
    let (sent, answers) = (Sent::default(), Answers::default());
    let (noted, next) = (Arc::clone(&sent), Arc::clone(&answers));
    let origin = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let answer = next.lock().unwrap().pop().flatten();
        if let Some(answer) = &answer {
            let body = body_of(answer);
            let what = (request.uri().to_string(), answer.status(), answer.headers().clone());
            noted.lock().unwrap().insert(body, what);
        }
        std::future::ready(answer.ok_or_else(|| BoxError::from("down")))
    });
    let layer = builder.build().unwrap();
    let mut service = layer.layer(origin);
    let mut number = 0;
    while !input.is_empty() {
        mock.advance(Duration::from_secs(input.seconds()));
        if input.one_in(16) {
            storage.damage(input.byte());
        }
        // A background refresh or a retry takes more than one answer.
        let prepared: Vec<_> = (0..3)
            .map(|_| {
                number += 1;
                (!input.one_in(8)).then(|| input.response(number))
            })
            .collect();
        *answers.lock().unwrap() = prepared;
        let Some(request) = input.request() else { continue };
        let (method, uri) = (request.method().clone(), request.uri().to_string());
        let Ok(response) = service.ready().await.unwrap().call(request).await else { continue };
        let status = *response.body().status().unwrap();
        let (head, body) = response.into_parts();
        let Ok(body) = body.collect().await else { continue };
        if matches!(status.outcome(), Outcome::Hit | Outcome::Stale(_)) {
            let whole = method == http::Method::GET && head.status != StatusCode::NOT_MODIFIED;
            if whole
                && ![StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE].contains(&head.status)
            {
                served(&uri, &head, &body.to_bytes(), &sent);
            }
            assert_eq!(head.headers.get_all(header::AGE).iter().count(), usize::from(head.status != 304));
        }
        layer.idle().await;
    }
}

fn served(uri: &str, head: &http::response::Parts, body: &Bytes, sent: &Sent) {
    let sent = sent.lock().unwrap();
    let (from, status, fields) = sent.get(body).expect("the origin sent this body, and it is whole");
    assert_eq!((from.as_str(), *status), (uri, head.status), "the response to another request was served");
    for line in fields.get_all(header::CACHE_CONTROL) {
        for alone in ["no-store", "no-cache"] {
            assert!(!line.as_bytes().eq_ignore_ascii_case(alone.as_bytes()), "served despite {alone}");
        }
    }
    // No 304 has this field, so that it must be served as it was sent.
    assert!(head.headers.get_all("x-as-sent").iter().eq(fields.get_all("x-as-sent")));
}

fn body_of(response: &Response<Full<Bytes>>) -> Bytes {
    use futures_util::FutureExt;
    response.body().clone().collect().now_or_never().unwrap().unwrap().to_bytes()
}
