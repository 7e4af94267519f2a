//! The layer around hyper's client, over real sockets.

#[path = "../../examples/hyper_client.rs"]
mod example;

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt};
use tower_response_cache::storage::{MemoryStorage, SqliteStorage, Storage};
use tower_response_cache::{BodyErrorKind, CacheLayer};

use crate::sockets::{Origin, SentBody, answer, refusing};

fn plain() -> Client<hyper_util::client::legacy::connect::HttpConnector, Empty<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn get(uri: impl AsRef<str>) -> Request<Empty<Bytes>> {
    Request::get(uri.as_ref()).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn http_and_https_are_separate_entries() {
    let servers = example::Servers::start().await.unwrap();
    let service = CacheLayer::new(MemoryStorage::new()).layer(servers.client().unwrap());
    for word in ["miss", "hit"] {
        for uri in [&servers.http, &servers.https] {
            let response = service.clone().oneshot(get(uri.to_string())).await.unwrap();
            assert_eq!(response.body().status().unwrap().word(), word);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        }
    }
}

#[tokio::test]
async fn refused_connection_returns_client_error() {
    let service = CacheLayer::new(MemoryStorage::new()).layer(plain());
    let error: hyper_util::client::legacy::Error = service.oneshot(get(refusing().await)).await.unwrap_err();
    assert!(error.is_connect());
}

#[tokio::test]
async fn broken_body_is_streamed_but_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(folder.path().join("s")).await.unwrap();
    let layer = CacheLayer::builder(storage.clone()).chunk_bytes(4).build().unwrap();
    let (origin, pieces) = Origin::piecewise(&[("cache-control", "max-age=60")]).await;
    let mut body = layer.layer(plain()).oneshot(get(origin.url("/"))).await.unwrap().into_body();
    for piece in ["first", "second"] {
        pieces.send(Ok(Bytes::from(piece))).await.unwrap();
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame())
            .await
            .expect("the frame is forwarded at once");
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), piece);
    }
    pieces.send(Err(std::io::Error::other("broken"))).await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap_err().kind(), BodyErrorKind::Inner);
    drop(body);
    layer.idle().await;
    let keys: Vec<_> = futures_util::TryStreamExt::try_collect(storage.values()).await.unwrap();
    // At most a placeholder is stored, which is never served.
    assert!(keys.iter().all(|(_, record)| record.payload().len() < 64));
}

#[tokio::test]
async fn large_body_is_served_unchanged() {
    let whole: Bytes = (0..1_000_003_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
    let sent = whole.clone();
    let origin = Origin::start(move |_| answer(sent.clone()).field("cache-control", "max-age=60")).await;
    let folder = tempfile::tempdir().unwrap();
    let layer = CacheLayer::new(SqliteStorage::open(folder.path().join("s")).await.unwrap());
    for word in ["miss", "hit"] {
        let response = layer.layer(plain()).oneshot(get(origin.url("/"))).await.unwrap();
        assert_eq!(response.body().status().unwrap().word(), word);
        assert!(response.into_body().collect().await.unwrap().to_bytes() == whole);
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn http2_trailers_are_stored_and_served() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(|_| async {
            let trailers = http::HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static("0"),
            )]);
            let frames = [Frame::data(Bytes::from("data")), Frame::trailers(trailers)];
            let body =
                StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
            Response::builder().header("cache-control", "max-age=60").body(body)
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
            .await;
    });
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(folder.path().join("s")).await.unwrap();
    let layer = CacheLayer::new(storage);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Empty<Bytes>>();
    let service = layer.layer(client);
    for word in ["miss", "hit"] {
        let response = service.clone().oneshot(get(&uri)).await.unwrap();
        assert_eq!(response.body().status().unwrap().word(), word);
        let whole = response.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0", "{word}");
        assert_eq!(whole.to_bytes(), "data", "{word}");
        layer.idle().await;
    }
    server.abort();
}

/// Sends a part of what it is asked for over one connection, and then closes it.
fn cut_off(request: &Request<Bytes>, whole: &Bytes) -> Response<SentBody> {
    let asked = request.headers().get("range").map(|range| range.to_str().unwrap());
    let range = asked.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    let start: usize = range.map_or(0, |start| start.parse().unwrap());
    let rest = whole.slice(start..);
    let is_cut = rest.len() > 300_000;
    let sent = rest.slice(..if is_cut { 300_000 } else { rest.len() });
    let end = async move {
        // Lets the server write what it has before it breaks off.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut off"))
    };
    let frames = futures_util::stream::once(async { Ok(Frame::data(sent)) });
    let frames = frames.chain(futures_util::stream::once(end).take(usize::from(is_cut)));
    let mut response = Response::builder().header("cache-control", "max-age=60").header("etag", "\"t\"");
    if start > 0 {
        let range = format!("bytes {start}-{}/{}", whole.len() - 1, whole.len());
        response = response.status(206).header("content-range", range);
    }
    let body = BodyExt::boxed(StreamBody::new(frames));
    response.header("content-length", rest.len()).body(body).unwrap()
}

#[tokio::test]
async fn cut_connections_are_continued_unseen() {
    let whole: Bytes = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect::<Vec<_>>().into();
    let sent = whole.clone();
    let origin = Origin::serve(move |request: Request<Bytes>| {
        let response = cut_off(&request, &sent);
        async move { response }
    })
    .await;
    let layer = CacheLayer::builder(MemoryStorage::new()).resume(50).build().unwrap();
    let service = layer.layer(plain());
    let read = || async {
        let response = service.clone().oneshot(get(origin.url("/"))).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap().to_bytes()
    };
    let (leader, follower) = tokio::join!(read(), read());
    assert!(leader == whole && follower == whole);
    let asked = origin.count();
    assert_eq!(layer.statistics().resumed() as usize, asked - 1);
    assert!(asked > 3, "{asked}");
    assert!(read().await == whole);
    assert_eq!(origin.count(), asked, "the whole body is stored");
}
