//! Responses that are recorded and replayed without the origin.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use tower_response_cache::storage::{BoxStorage, DirectoryStorage, MemoryStorage, SqliteStorage, Storage};
use tower_response_cache::{CacheLayerBuilder, CacheOptions, Clock, Rules};

use crate::support::{Answer, Fixture, Origin, ReqBody, get, get_with, response};

fn ask(method: &str, uri: &str, content: &'static str) -> Request<ReqBody> {
    let builder = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    builder.body(content.into()).unwrap()
}

/// Returns an origin whose responses forbid storing and reuse by several fields.
fn forbidding() -> Origin {
    let mut count = 0;
    Origin::new(move |request| {
        count += 1;
        let status = request.uri().path().trim_start_matches('/').parse().unwrap_or(200);
        let response = Response::builder().status(status).header("cache-control", "no-store, private");
        let response = response.header("vary", "*").header("set-cookie", "a=b").header("etag", "\"a\"");
        let said = format!("{} {} {count}", request.method(), request.uri());
        response.body(Bytes::from(said).into()).unwrap()
    })
}

fn on(
    storage: impl Storage,
    settings: impl FnOnce(CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage>,
) -> Fixture {
    Fixture::with(forbidding(), storage, settings)
}

fn summary(answer: &Answer) -> (u16, String) {
    (answer.code.as_u16(), String::from_utf8(answer.body.to_vec()).unwrap())
}

async fn tape<S: Storage>(storage: S, reopened: impl Fn() -> S) {
    let asked = || {
        [
            get("http://a/200?token=secret&b=1"),
            get("http://a/404"),
            get("http://a/500"),
            get("http://a/302"),
            ask("POST", "http://a/", r#"{"a":1,"b":2}"#),
            ask("POST", "http://a/", r#"{"a":2}"#),
            ask("DELETE", "http://a/", ""),
        ]
    };
    let recorder = on(storage, |builder| builder.record(true).ignore_query_params(["token"]));
    let mut recorded = Vec::new();
    for round in 0..2 {
        recorded.clear();
        for request in asked() {
            let answer = recorder.ask(request).await;
            assert_eq!(answer.word(), "miss", "each request reaches the origin, in round {round}");
            recorded.push(summary(&answer));
        }
        // On a slow disk, writes of the first round may still be in flight. Writes of the second round would then be
        // given up as superseded.
        recorder.layer.idle().await;
    }
    drop(recorder);

    // The recording is replayed ten years later.
    let replayer = on(reopened(), |builder| builder.replay(true).ignore_query_params(["token"]));
    replayer.clock.advance(Duration::from_secs(10 * 365 * 24 * 3600));
    for (request, expected) in asked().into_iter().zip(recorded) {
        let answer = replayer.ask(request).await;
        assert_eq!(summary(&answer), expected, "the response recorded last");
        assert!(answer.status.is_hit() && answer.header("age").is_none());
        assert_eq!(answer.header("set-cookie"), Some("a=b"));
    }
    // Equivalent requests and other request directives get the recorded response too.
    assert_eq!(replayer.get("http://a/200?b=1&token=other").await.code, 200);
    assert_eq!(
        replayer.ask(get_with("http://a/404", &[("cache-control", "no-cache"), ("cookie", "x")])).await.code,
        404
    );
    assert_eq!(replayer.ask(get_with("http://a/200?b=1", &[("if-none-match", "\"a\"")])).await.code, 304);
    assert_eq!(replayer.ask(ask("POST", "http://a/", r#"{"b": 2, "a": 1}"#)).await.code, 200);
    // The answer names a missing response, and the origin is not asked for it.
    for (request, name) in [
        (get("http://a/missing?token=secret"), "GET http://a/missing is not"),
        (ask("POST", "http://a/", r#"{"a":3}"#), "POST http://a/ is not"),
        (ask("PUT", "http://a/x", ""), "PUT http://a/x is not"),
        (ask("OPTIONS", "http://a/x", ""), "OPTIONS http://a/x is not"),
        (ask("PURGE", "http://a/x", ""), "PURGE http://a/x is not"),
    ] {
        let (code, text) = summary(&replayer.ask(request).await);
        assert!(code == 504 && text.starts_with(name), "{code} {text}");
    }
    assert_eq!(replayer.origin.count(), 0);
}

#[tokio::test]
async fn recorded_directory_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tape");
    let first = DirectoryStorage::builder(&path).unbounded(true).open().await.unwrap();
    let again = DirectoryStorage::builder(&path).unbounded(true).open().await.unwrap();
    tape(first, || again.clone()).await;
}

#[tokio::test]
async fn recorded_file_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tape.sqlite");
    let first = SqliteStorage::open(&path).await.unwrap();
    let again = SqliteStorage::open(&path).await.unwrap();
    tape(first, || again.clone()).await;
}

#[tokio::test]
async fn recording_stores_whole_responses_despite_conditions() {
    let folder = tempfile::tempdir().unwrap();
    let storage = DirectoryStorage::builder(folder.path()).unbounded(true).open().await.unwrap();
    let recorder = on(storage, |builder| builder.record(true).clock(Clock::system()));
    let asked = [("if-none-match", "\"a\""), ("range", "bytes=0-1")];
    let answer = recorder.ask(get_with("http://a/200", &asked)).await;
    assert_eq!((answer.code.as_u16(), answer.word()), (200, "miss"));
    let seen = recorder.origin.last();
    assert!(asked.iter().all(|(name, _)| !seen.contains_key(*name)));
    assert_eq!(recorder.ask(ask(Method::HEAD.as_str(), "http://a/200", "")).await.word(), "miss");
}

/// Returns a recording cache, and a cache that replays from the same storage.
fn recorded(origin: Origin) -> (Fixture, Fixture) {
    let storage = MemoryStorage::new();
    let recording = Fixture::with(origin, storage.clone(), |builder| builder.record(true));
    let silent = Origin::new(|_| panic!("a replay must not reach the origin"));
    (recording, Fixture::with(silent, storage, |builder| builder.replay(true)))
}

#[tokio::test]
async fn later_response_does_not_remove_recording() {
    let (recording, replay) = recorded(Origin::new(|request| match request.method().as_str() {
        "GET" => response(&[("cache-groups", "\"g\"")], "the list"),
        _ => response(&[("cache-group-invalidation", "\"g\""), ("location", "/list")], "done"),
    }));
    recording.get("http://example.com/list").await;
    for method in ["POST", "PROPPATCH"] {
        for path in ["list", "add"] {
            recording.ask(ask(method, &format!("http://example.com/{path}"), "{}")).await;
        }
    }
    let answer = replay.get("http://example.com/list").await;
    assert_eq!((answer.word(), &answer.body[..]), ("hit", &b"the list"[..]));
}

#[tokio::test]
async fn rules_set_while_recording_keep_all_responses() {
    let (recording, replay) = recorded(forbidding());
    recording.layer.set_rules(Rules::new().default_ttl(Duration::from_secs(60))).unwrap();
    recording.get("http://example.com/200").await;
    replay.clock.advance(Duration::from_secs(3600));
    assert_eq!(replay.get("http://example.com/200").await.code, 200);
}

#[tokio::test]
async fn request_options_do_not_shorten_recording() {
    let (recording, replay) = recorded(forbidding());
    let mut request = get("http://example.com/200");
    request.extensions_mut().insert(CacheOptions::new().ttl(Duration::from_secs(60)).tags(["tag"]));
    recording.ask(request).await;
    recording.layer.invalidate_tag("tag").await.unwrap();
    replay.clock.advance(Duration::from_secs(3600));
    assert_eq!(replay.get("http://example.com/200").await.code, 200);
}

#[tokio::test]
async fn replay_makes_no_early_refresh() {
    let storage = MemoryStorage::new();
    let recorder = on(storage.clone(), |builder| builder.record(true));
    let mut request = get("http://a/200");
    request.extensions_mut().insert(CacheOptions::new().ttl(Duration::from_secs(60)));
    recorder.ask(request).await;
    let player = on(storage, |builder| builder.replay(true).refresh_early(Duration::from_secs(30)));
    for passed in [59_990, 20] {
        player.clock.advance(Duration::from_millis(passed));
        for _ in 0..20 {
            assert_eq!(player.get("http://a/200").await.code, 200);
        }
    }
    player.layer.idle().await;
    assert_eq!(player.origin.count(), 0);
}
