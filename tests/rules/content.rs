//! Requests with content, whose methods the user made cacheable.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::storage::{BoxStorage, MemoryStorage};
use tower_response_cache::{
    CacheLayer, CacheLayerBuilder, CacheMode, CacheOptions, MissReason, NotStored, Outcome, ReplayedContent,
    Stored,
};

use crate::support::{Answer, Fixture, Origin, ReqBody, response};

const URI: &str = "http://example.com/graphql";
const JSON: &str = "application/json";
const SECOND: Duration = Duration::from_secs(1);

fn query() -> Method {
    Method::from_bytes(b"QUERY").unwrap()
}

fn methods(builder: CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage> {
    builder.methods([Method::GET, Method::HEAD, Method::POST, query()])
}

/// Returns a cache over an origin that echoes the method and the content.
///
/// The counter holds the number of requests to the origin.
fn echo(fields: &'static [(&'static str, &'static str)]) -> (Fixture, Arc<AtomicUsize>) {
    with(fields, methods)
}

fn with(
    fields: &'static [(&'static str, &'static str)],
    settings: impl FnOnce(CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage>,
) -> (Fixture, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let origin = Origin::new(move |request| {
        counter.fetch_add(1, Ordering::SeqCst);
        let content = request.body().clone().collect();
        let content = futures_util::FutureExt::now_or_never(content).unwrap().unwrap().to_bytes();
        response(fields, format!("{} {}", request.method(), String::from_utf8_lossy(&content)))
    });
    (Fixture::with(origin, MemoryStorage::new(), settings), calls)
}

fn send(method: Method, media_type: &str, content: &'static str) -> Request<ReqBody> {
    Request::builder()
        .method(method)
        .uri(URI)
        .header("content-type", media_type)
        .body(content.into())
        .unwrap()
}

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test(start_paused = true)]
async fn equivalent_content_shares_response() {
    let (fixture, _) = echo(FRESH);
    let form = "application/x-www-form-urlencoded";
    let multi = |boundary: &'static str| format!("multipart/form-data; boundary={boundary}");
    let part = |name: &str| {
        format!("--{name}\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--{name}--\r\n")
    };
    let (one, other): (&'static str, &'static str) = (part("x").leak(), part("yy").leak());
    for (method, media_type, content, expected) in [
        (Method::POST, JSON, r#"{"a": 1, "b": [1, 2]}"#, "miss"),
        (Method::POST, JSON, r#"{"b":[1,2],"a":1}"#, "hit"),
        (Method::POST, JSON, r#"{"b":[2,1],"a":1}"#, "miss"),
        (query(), JSON, r#"{"b":[1,2],"a":1}"#, "miss"), // another method
        (query(), JSON, r#"{"a":1,"b":[1,2]}"#, "hit"),
        (Method::POST, form, "a=1&b=2", "miss"),
        (Method::POST, form, "%61=1&b=2", "hit"),
        (Method::POST, form, "b=2&a=1", "miss"), // the order of form fields may matter
        (Method::POST, "text/plain", "b=2&a=1", "miss"),
        (Method::POST, "text/plain", "a=1&b=2", "miss"),
        (Method::POST, &multi("x"), one, "miss"),
        (Method::POST, &multi("yy"), other, "hit"),
        (Method::POST, "text/plain", "", "miss"),
    ] {
        let answer = fixture.ask(send(method.clone(), media_type, content)).await;
        assert_eq!(answer.word(), expected, "{method} {media_type} {content}");
        if expected == "miss" {
            assert_eq!(answer.body, format!("{method} {content}"));
        }
    }
    assert_eq!(fixture.get(URI).await.word(), "miss", "a GET shares no response with them");
    assert_eq!(fixture.get(URI).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn ignored_content_fields_match_by_path() {
    let (fixture, _) =
        with(FRESH, |builder| methods(builder).ignore_content_fields(["token", "meta.time"]).unwrap());
    for (content, expected) in [
        (r#"{"q":1,"token":"a"}"#, "miss"),
        (r#"{"token":"b","q":1}"#, "hit"),
        (r#"{"q":1}"#, "hit"),
        (r#"{"q":1,"meta":{"time":1}}"#, "miss"),
        (r#"{"q":1,"meta":{"time":2}}"#, "hit"),
        (r#"{"q":1,"time":2}"#, "miss"),
        (r#"{"q":{"token":1,"x":2}}"#, "miss"),
        (r#"{"q":{"x":2}}"#, "hit"),
    ] {
        assert_eq!(fixture.ask(send(Method::POST, JSON, content)).await.word(), expected, "{content}");
    }
    assert!(CacheLayer::builder(MemoryStorage::new()).ignore_content_fields(["a..b"]).is_err());
}

#[tokio::test(start_paused = true)]
async fn only_uncacheable_methods_invalidate_entry() {
    let (fixture, _) = echo(FRESH);
    fixture.get(URI).await;
    fixture.ask(send(Method::POST, JSON, "{}")).await;
    assert_eq!(fixture.get(URI).await.word(), "hit");
    fixture.ask(send(Method::PUT, JSON, "{}")).await;
    assert_eq!(fixture.get(URI).await.word(), "miss");
    assert_eq!(fixture.ask(send(Method::POST, JSON, "{}")).await.word(), "miss");
}

#[tokio::test(start_paused = true)]
async fn stale_post_is_refetched_and_query_validated() {
    let silent: &[_] = &[("etag", "\"a\""), ("last-modified", "Wed, 01 Jan 2025 00:00:00 GMT")];
    let (fixture, _) = echo(silent);
    let answer = fixture.ask(send(Method::POST, JSON, "{}")).await;
    assert_eq!(answer.status.stored(), Stored::No(NotStored::NoFreshness));
    assert_eq!(fixture.ask(send(query(), JSON, "{}")).await.status.stored(), Stored::Storing);

    for (method, conditional) in [(Method::POST, false), (query(), true)] {
        let (fixture, _) = echo(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
        fixture.ask(send(method.clone(), JSON, "{\"a\":1}")).await;
        fixture.clock.advance(61 * SECOND);
        let answer = fixture.ask(send(method.clone(), JSON, "{\"a\":1}")).await;
        assert!(matches!(answer.status.outcome(), Outcome::Miss(MissReason::Replaced(_))));
        assert_eq!(fixture.origin.last().contains_key("if-none-match"), conditional, "{method}");
        assert_eq!(answer.body, format!("{method} {{\"a\":1}}"));
        assert_eq!(fixture.ask(send(method, JSON, "{\"a\":1}")).await.word(), "hit");
    }
}

#[tokio::test(start_paused = true)]
async fn background_refresh_resends_content() {
    let (fixture, calls) = with(FRESH, |builder| methods(builder).stale_while_revalidate(60 * SECOND));
    fixture.ask(send(Method::POST, JSON, "{\"a\":1}")).await;
    fixture.clock.advance(61 * SECOND);
    assert_eq!(fixture.ask(send(Method::POST, JSON, "{\"a\":1}")).await.word(), "stale");
    fixture.layer.idle().await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let answer = fixture.ask(send(Method::POST, JSON, "{\"a\":1}")).await;
    assert_eq!((answer.word(), &answer.body[..]), ("hit", &b"POST {\"a\":1}"[..]));
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_with_same_content_coalesce() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let origin = service_fn(move |request: Request<ReqBody>| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::time::sleep(SECOND).await;
            Ok::<_, Infallible>(
                Response::builder().header("cache-control", "max-age=60").body(request.into_body()).unwrap(),
            )
        }
    });
    let layer = methods(CacheLayer::builder(BoxStorage::new(MemoryStorage::new()))).build().unwrap();
    let service = layer.layer(origin);
    let ask = |content| service.clone().oneshot(send(Method::POST, JSON, content));
    let herd =
        futures_util::future::join_all((0..20).map(|number| ask(["{\"a\":1}", "{\"a\":2}"][number % 2])));
    for (number, answer) in herd.await.into_iter().enumerate() {
        let body = answer.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, ["{\"a\":1}", "{\"a\":2}"][number % 2]);
    }
    // There is one fetch for each content.
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn preconditions_scopes_and_options_apply_to_post() {
    let (fixture, _) = echo(FRESH);
    let mut conditional = send(Method::POST, JSON, "{}");
    conditional.headers_mut().insert("if-match", "\"a\"".parse().unwrap());
    assert_eq!(fixture.ask(conditional).await.word(), "bypass");
    let disabled = tower_response_cache::scope::disabled(fixture.ask(send(Method::POST, JSON, "{}")));
    assert_eq!(disabled.await.word(), "bypass");
    let mut offline = send(Method::POST, JSON, "{}");
    offline.headers_mut().insert("cache-control", "only-if-cached".parse().unwrap());
    assert_eq!(fixture.ask(offline).await.code, 504);
    fixture.ask(send(Method::POST, JSON, "{}")).await;
    let mut reload = send(Method::POST, JSON, "{}");
    reload.extensions_mut().insert(CacheOptions::new().mode(CacheMode::Reload));
    assert_eq!(fixture.ask(reload).await.word(), "miss");
    assert_eq!(fixture.ask(send(Method::POST, JSON, "{}")).await.word(), "hit");
}

/// Returns a request for the query `[1]` with one more field.
fn query_with(name: &'static str, value: &'static str) -> Request<ReqBody> {
    let mut request = send(query(), JSON, "[1]");
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn conditions_and_ranges_of_query_are_about_its_result() {
    let (fixture, calls) = echo(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
    assert_eq!(fixture.ask(query_with("if-none-match", "\"b\"")).await.word(), "miss");
    for (name, value, code, body) in [
        ("if-none-match", "\"a\"", 304, ""),
        ("if-none-match", "\"b\"", 200, "QUERY [1]"),
        ("range", "bytes=0-4", 206, "QUERY"),
        ("range", "bytes=20-", 416, ""),
    ] {
        let answer = fixture.ask(query_with(name, value)).await;
        assert_eq!(
            (answer.word(), answer.code.as_u16(), &answer.body[..]),
            ("hit", code, body.as_bytes()),
            "{name}: {value}"
        );
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    // Another query has another result, whatever its entity tag.
    let mut other = query_with("if-none-match", "\"a\"");
    *other.body_mut() = "[2]".into();
    assert_eq!(fixture.ask(other).await.word(), "miss");
    assert_eq!(fixture.ask(query_with("if-match", "\"a\"")).await.word(), "bypass");
    let mut post = send(Method::POST, JSON, "[1]");
    post.headers_mut().insert("if-none-match", "\"a\"".parse().unwrap());
    assert_eq!(fixture.ask(post).await.word(), "bypass");
}

#[tokio::test(start_paused = true)]
async fn query_may_ask_that_its_content_is_compared_as_it_is() {
    let (fixture, _) = echo(FRESH);
    let with = |content: &'static str, control: &'static str| {
        let mut request = query_with("cache-control", control);
        *request.body_mut() = content.into();
        request
    };
    for (content, control, word) in [
        ("[1]", "max-age=60", "miss"),
        ("[ 1]", "max-age=60", "hit"),
        ("[ 1]", "no-transform", "miss"),
        ("[1]", "No-Transform", "miss"),
        ("[1]", "no-transform", "hit"),
    ] {
        assert_eq!(fixture.ask(with(content, control)).await.word(), word, "{content} {control}");
    }
}

#[tokio::test(start_paused = true)]
async fn unlisted_methods_bypass_cache() {
    let (fixture, _) = with(FRESH, |builder| builder.methods([Method::POST]));
    for _ in 0..2 {
        assert_eq!(fixture.get(URI).await.word(), "bypass");
    }
    fixture.ask(send(Method::POST, JSON, "{}")).await;
    assert_eq!(fixture.ask(send(Method::POST, JSON, "{}")).await.word(), "hit");
    for method in [Method::CONNECT, Method::TRACE, Method::OPTIONS] {
        assert!(CacheLayer::builder(MemoryStorage::new()).methods([method]).build().is_err());
    }
    assert!(CacheLayer::builder(MemoryStorage::new()).methods([]).build().is_err());
}

type Boxed = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Returns a body of several frames and unknown length.
///
/// If `fails` is set, the body ends in an error.
fn pieces(pieces: &'static [&'static str], fails: bool) -> Boxed {
    let frames = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
    let end = fails.then(|| Err("the content failed".into()));
    BodyExt::boxed_unsync(StreamBody::new(futures_util::stream::iter(frames.chain(end).collect::<Vec<_>>())))
}

#[tokio::test(start_paused = true)]
async fn overlong_or_failing_content_reaches_origin_unchanged() {
    let origin = service_fn(|request: Request<Boxed>| async move {
        let collected = request.into_body().collect().await;
        let seen = match collected {
            Ok(content) => String::from_utf8(content.to_bytes().to_vec()).unwrap(),
            Err(error) => format!("error: {error}"),
        };
        Ok::<_, Infallible>(response(FRESH, seen))
    });
    let layer = methods(CacheLayer::builder(BoxStorage::new(MemoryStorage::new())))
        .max_content_bytes(6)
        .build()
        .unwrap();
    let service = layer.layer(origin);
    let ask = |body: Boxed| {
        let request = Request::post(URI).body(body).unwrap();
        let service = service.clone();
        async move { Answer::read(service.oneshot(request).await.unwrap()).await }
    };
    for (parts, fails, words, seen) in [
        (&["abc", "def"][..], false, ["miss", "hit"], "abcdef"),
        (&["abc", "def", "g"], false, ["bypass"; 2], "abcdefg"),
        (&["abcdefgh", "i"], false, ["bypass"; 2], "abcdefghi"),
        (&["abc"], true, ["bypass"; 2], "error: the content failed"),
        (&[], true, ["bypass"; 2], "error: the content failed"),
        (&[], false, ["miss", "hit"], ""),
    ] {
        for word in words {
            let answer = ask(pieces(parts, fails)).await;
            assert_eq!(
                (answer.word(), std::str::from_utf8(&answer.body).unwrap()),
                (word, seen),
                "{parts:?}"
            );
        }
    }
}

/// A body type that the cache cannot build by itself.
#[derive(Default)]
struct Own(Full<Bytes>);

impl Body for Own {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn custom_body_type_bypasses_without_replay_content() {
    let origin = || {
        service_fn(|request: Request<Own>| async move {
            Ok::<_, Infallible>(response(FRESH, request.into_body().collect().await.unwrap().to_bytes()))
        })
    };
    let builder = || methods(CacheLayer::builder(BoxStorage::new(MemoryStorage::new())));
    let without_methods = builder().build().unwrap();
    let with_methods =
        builder().replay_content(|content| Own(Full::new(content.into_bytes().unwrap()))).build().unwrap();
    for (layer, words) in [(without_methods, ["bypass"; 2]), (with_methods, ["miss", "hit"])] {
        let service = layer.layer(origin());
        for word in words {
            let request = Request::post(URI).body(Own("abc".into())).unwrap();
            let answer = Answer::read(service.clone().oneshot(request).await.unwrap()).await;
            assert_eq!((answer.word(), &answer.body[..]), (word, &b"abc"[..]));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn filtered_post_invalidates_and_query_does_not() {
    const GET: &str = "http://example.com/graphql";
    for waits in [false, true] {
        let (fixture, _) = with(&[("cache-control", "max-age=60")], |builder| {
            let reads = |parts: &http::request::Parts| !parts.headers.contains_key("x-changes");
            let builder = methods(builder);
            match waits {
                false => builder.filter_request(reads),
                true => builder.filter_request_async(move |parts| std::future::ready(reads(parts))),
            }
        });
        let changing = |method| {
            let mut request = send(method, JSON, "{}");
            request.headers_mut().insert("x-changes", "1".parse().unwrap());
            request
        };
        for (method, word, expected) in [(query(), "bypass", "hit"), (Method::POST, "miss", "miss")] {
            fixture.get(GET).await;
            fixture.ask(send(Method::POST, JSON, "{}")).await;
            assert_eq!(fixture.get(GET).await.word(), "hit");
            let answer = fixture.ask(changing(method.clone())).await;
            assert_eq!(answer.word(), word, "{method}, {waits}");
            assert_eq!(answer.body, format!("{method} {{}}"), "the content reached the origin");
            assert_eq!(fixture.get(GET).await.word(), expected, "{method}, {waits}");
        }
    }
}

/// A body of several frames and unknown length.
#[derive(Default)]
struct Pieces(Vec<Bytes>, Option<ReplayedContent>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.0.is_empty() {
            return std::task::Poll::Ready(Some(Ok(Frame::data(self.0.remove(0)))));
        }
        match &mut self.1 {
            Some(rest) => std::pin::Pin::new(rest).poll_frame(cx),
            None => std::task::Poll::Ready(None),
        }
    }
}

#[tokio::test]
async fn key_covers_all_content_frames() {
    let origin = service_fn(|request: Request<Pieces>| async move {
        Ok::<_, Infallible>(response(FRESH, request.into_body().collect().await.unwrap().to_bytes()))
    });
    let layer = methods(CacheLayer::builder(BoxStorage::new(MemoryStorage::new()))).max_content_bytes(8);
    let layer = layer.replay_content(|content| match content.into_bytes() {
        Ok(whole) => Pieces(vec![whole], None),
        Err(content) => Pieces(Vec::new(), Some(content)),
    });
    let service = layer.build().unwrap().layer(origin);
    for (pieces, words) in [(["amount=1", "000000"], ["bypass"; 2]), (["a=1", "&b=2"], ["miss", "hit"])] {
        for word in words {
            let content = Pieces(pieces.map(Bytes::from).to_vec(), None);
            let request = Request::post(URI).body(content).unwrap();
            let answer = Answer::read(service.clone().oneshot(request).await.unwrap()).await;
            assert_eq!((answer.word(), &answer.body[..]), (word, pieces.concat().as_bytes()));
        }
    }
}

#[tokio::test]
async fn ignored_content_fields_accumulate() {
    let (fixture, _) = with(FRESH, |builder| {
        methods(builder).ignore_content_fields(["token"]).unwrap().ignore_content_fields(["nonce"]).unwrap()
    });
    let ask = |content| fixture.ask(send(Method::POST, "application/json", content));
    assert_eq!(ask(r#"{"q":1,"token":"a","nonce":1}"#).await.word(), "miss");
    assert_eq!(ask(r#"{"q":1,"token":"b","nonce":1}"#).await.word(), "hit");
    assert_eq!(ask(r#"{"q":1,"token":"a","nonce":2}"#).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn persisted_queries_differ_by_hash() {
    // The documented setting, and a broader one that would include the hash.
    for setting in ["extensions.tracing", "extensions"] {
        let (fixture, _) = with(FRESH, |builder| methods(builder).ignore_content_fields([setting]).unwrap());
        for (content, expected) in [
            (r#"{"extensions":{"persistedQuery":{"sha256Hash":"aa"},"tracing":1}}"#, "miss"),
            (r#"{"extensions":{"persistedQuery":{"sha256Hash":"bb"},"tracing":1}}"#, "miss"),
            (r#"{"extensions":{"persistedQuery":{"sha256Hash":"aa"},"tracing":2}}"#, "hit"),
        ] {
            assert_eq!(
                fixture.ask(send(Method::POST, JSON, content)).await.word(),
                expected,
                "{setting} {content}"
            );
        }
    }
    // The hash is ignored only if a setting names `persistedQuery` itself.
    let ignoring = ["extensions.persistedQuery"];
    let (fixture, _) = with(FRESH, |builder| methods(builder).ignore_content_fields(ignoring).unwrap());
    for (hash, expected) in [("aa", "miss"), ("bb", "hit")] {
        let content = format!(r#"{{"extensions":{{"persistedQuery":{{"sha256Hash":"{hash}"}}}}}}"#);
        let content: &'static str = Box::leak(content.into_boxed_str());
        assert_eq!(fixture.ask(send(Method::POST, JSON, content)).await.word(), expected);
    }
}

/// Returns how the cache answers the second of two equal calls, if the gRPC call ends in this way.
async fn second_call(in_head: Option<&'static str>, in_trailers: Option<&'static str>) -> &'static str {
    let inner = service_fn(move |_: Request<ReqBody>| async move {
        let trailers = in_trailers.map(|status| {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            Ok(Frame::trailers(trailers))
        });
        let frames =
            std::iter::once(Ok::<_, Infallible>(Frame::data(Bytes::from("message")))).chain(trailers);
        let mut response = Response::builder().header("cache-control", "max-age=60");
        if let Some(status) = in_head {
            response = response.header("grpc-status", status);
        }
        Ok::<_, Infallible>(
            response.body(StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>()))).unwrap(),
        )
    });
    let builder = CacheLayer::builder(MemoryStorage::new()).methods([Method::POST]);
    let service = builder.build().unwrap().layer(inner);
    let mut word = "";
    for _ in 0..2 {
        let request = Request::post(URI).body(ReqBody::from("call")).unwrap();
        word = Answer::read(service.clone().oneshot(request).await.unwrap()).await.word();
    }
    word
}

#[tokio::test]
async fn failed_grpc_call_is_not_stored() {
    for (in_head, in_trailers, word) in [
        (None, Some("0"), "hit"),
        (Some("0"), None, "hit"),
        (None, None, "hit"), // not gRPC
        (None, Some("5"), "miss"),
        (Some("14"), None, "miss"),
        (Some("0"), Some("13"), "miss"),
        (None, Some("00"), "miss"),
    ] {
        assert_eq!(second_call(in_head, in_trailers).await, word, "{in_head:?} {in_trailers:?}");
    }
}
