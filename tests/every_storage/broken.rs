//! Origins that break off or contradict themselves, with many clients at once.
//!
//! No client may get part of a body as the whole one. Every byte crosses two real sockets, one between a scripted
//! origin and hyper's client below the cache, and one between hyper's server above the cache and hyper's client as the
//! caller.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use libtest_mimic::Trial;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, ServiceExt};
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::BoxStorage;
use tower_response_cache::testing::Harness;

use crate::places::{Kind, Place};
use crate::trial;

const CLIENTS: usize = 8;
/// More than two chunks of a stored body.
const LONG: usize = 300_000;
const SHORT: usize = 600;

pub fn trials(kind: &Kind) -> Vec<Trial> {
    vec![trial("layer", kind, "partial_body_is_never_served_whole", |place| {
        Box::pin(partial_body_is_never_served_whole(place))
    })]
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Reset,
}

/// The bytes that an origin sends for one request.
#[derive(Debug)]
struct Script {
    name: &'static str,
    /// The pieces that are written and flushed one after another.
    pieces: Vec<Bytes>,
    end: End,
    /// The body that is complete by the framing of the message, if one is.
    whole: Option<Bytes>,
}

fn body(len: usize) -> Bytes {
    (0..len).map(|at| b'a' + (at % 23) as u8).collect::<Vec<u8>>().into()
}

fn head(fields: &str) -> Bytes {
    format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{fields}\r\n").into()
}

fn chunk(data: &[u8]) -> Bytes {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat().into()
}

/// Splits data into pieces of 20 kB.
fn split(data: &Bytes) -> Vec<Bytes> {
    data.chunks(20_000).map(|piece| data.slice_ref(piece)).collect()
}

fn scripts(len: usize) -> Vec<Script> {
    use End::{Close, Reset};
    let all = body(len);
    let half = all.slice(..len / 2);
    let chunked = || head("Transfer-Encoding: chunked\r\n");
    let sized = |len: usize| head(&format!("Content-Length: {len}\r\n"));
    let chunks = |data: &Bytes| split(data).iter().map(|piece| chunk(piece)).collect::<Vec<_>>();
    let script = |name, first: Bytes, rest: Vec<Bytes>, end, whole| {
        let pieces = std::iter::once(first).chain(rest).collect();
        Script { name, pieces, end, whole }
    };
    let with = |mut pieces: Vec<Bytes>, last: &'static str| {
        pieces.push(last.into());
        pieces
    };
    let some = Some(all.clone());
    let both = |len: usize| head(&format!("Content-Length: {len}\r\nTransfer-Encoding: chunked\r\n"));
    vec![
        script("chunked, whole", chunked(), with(chunks(&all), "0\r\n\r\n"), Close, some.clone()),
        script("chunked, closed between chunks", chunked(), chunks(&half), Close, None),
        script("chunked, closed within a chunk", chunked(), with(chunks(&half), "ff\r\nabc"), Close, None),
        script("chunked, closed within a size", chunked(), with(chunks(&half), "f"), Close, None),
        script("chunked, closed within the last chunk", chunked(), with(chunks(&all), "0\r\n"), Close, None),
        script("chunked, reset", chunked(), chunks(&half), Reset, None),
        script("chunked, reset at the end", chunked(), chunks(&all), Reset, None),
        script(
            "a size that is no number",
            chunked(),
            with(chunks(&half), "zz\r\nabc\r\n0\r\n\r\n"),
            Close,
            None,
        ),
        script("a size beyond all", chunked(), with(chunks(&half), "fffffffffffffffff\r\nabc"), Close, None),
        script(
            "a chunk longer than its size",
            chunked(),
            with(chunks(&half), "2\r\nabc\r\n0\r\n\r\n"),
            Close,
            None,
        ),
        script("a trailer that is cut", chunked(), with(chunks(&all), "0\r\nX-Check: a"), Close, None),
        script(
            "more after the last chunk",
            chunked(),
            with(chunks(&all), "0\r\n\r\nabc"),
            Close,
            some.clone(),
        ),
        script("sized, short", sized(len), split(&half), Close, None),
        script("sized, reset", sized(len), split(&half), Reset, None),
        script("sized, nothing came", sized(len), Vec::new(), Close, None),
        script("sized, long", sized(len / 2), split(&all), Close, Some(half.clone())),
        script("two lengths", head("Content-Length: 5\r\nContent-Length: 7\r\n"), split(&all), Close, None),
        script("a negative length", head("Content-Length: -5\r\n"), split(&all), Close, None),
        script("a length that is no number", head("Content-Length: five\r\n"), split(&all), Close, None),
        script("both framings, whole", both(len / 2), with(chunks(&all), "0\r\n\r\n"), Close, some.clone()),
        script("both framings, cut at the length", both(len / 2), chunks(&half), Close, None),
        script("until the end", head(""), split(&all), Close, some),
        script("until the end, reset", head(""), split(&half), Reset, None),
        script("no head", "garbage, and no end of it\r\n\r\n".into(), Vec::new(), Close, None),
        script("a head that is cut", chunked().slice(..30), Vec::new(), Close, None),
        script("nothing", Bytes::new(), Vec::new(), Close, None),
    ]
}

/// Starts an origin that sends one script on every connection, and returns its port.
async fn origin(script: Arc<Script>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = Arc::clone(&script);
            tokio::spawn(async move { drop(play(stream, &script).await) });
        }
    });
    port
}

async fn play(mut stream: TcpStream, script: &Script) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(stream.read_u8().await?);
    }
    for piece in &script.pieces {
        stream.write_all(piece).await?;
        stream.flush().await?;
        tokio::task::yield_now().await;
    }
    match script.end {
        End::Close => stream.shutdown().await,
        End::Reset => stream.set_zero_linger(),
    }
}

type Http = Client<HttpConnector, Empty<Bytes>>;

/// Returns a client that uses a new connection for each request.
///
/// Each request therefore gets its script from the beginning.
fn client() -> Http {
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http()
}

/// Starts a server with the cache in front of an origin, and returns its port.
async fn server(layer: CacheLayer<BoxStorage>, origin: u16) -> u16 {
    let cache = layer.layer(client());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let cache = cache.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let cache = cache.clone();
                let uri = format!("http://127.0.0.1:{origin}{}", request.uri());
                async move {
                    let request = Request::get(uri).body(Empty::new()).unwrap();
                    let response = match cache.oneshot(request).await {
                        Ok(mut response) => {
                            // An intermediary must remove this Content-Length (RFC 9112 §6.3).
                            if response.headers_mut().remove(header::TRANSFER_ENCODING).is_some() {
                                response.headers_mut().remove(header::CONTENT_LENGTH);
                            }
                            response.map(Either::Left)
                        }
                        Err(_) => {
                            let mut failed = Response::new(Either::Right(Full::<Bytes>::default()));
                            *failed.status_mut() = StatusCode::BAD_GATEWAY;
                            failed
                        }
                    };
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    port
}

/// Returns the body of a response that ended cleanly, or `None` if it failed.
async fn fetch(http: Http, port: u16) -> Option<Bytes> {
    let request = Request::get(format!("http://127.0.0.1:{port}/page")).body(Empty::new()).unwrap();
    let response = http.request(request).await.ok()?;
    let status = response.status();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    (status == StatusCode::OK).then_some(body)
}

async fn partial_body_is_never_served_whole(place: &Place) {
    let storage = place.open("store").await.unwrap();
    for len in [SHORT, LONG] {
        for script in scripts(len) {
            let script = Arc::new(script);
            let layer = CacheLayer::new(storage.clone());
            let port = server(layer.clone(), origin(Arc::clone(&script)).await).await;
            let http = client();
            let asked: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(fetch(http.clone(), port))).collect();
            let mut got = Vec::new();
            for asked in asked {
                got.push(asked.await.unwrap());
            }
            // Later requests may be answered from the storage, and must have the same result.
            got.push(fetch(http.clone(), port).await);
            layer.idle().await;
            got.push(fetch(http, port).await);
            for (number, body) in got.into_iter().enumerate() {
                let what = format!("{}, {len} bytes, answer {number}", script.name);
                match (body, &script.whole) {
                    (Some(body), Some(whole)) => assert!(body == *whole, "{what}: {} bytes", body.len()),
                    (Some(body), None) => panic!("{what}: {} bytes served as the whole", body.len()),
                    (None, Some(_)) => panic!("{what}: a complete body was not served"),
                    (None, None) => {}
                }
            }
        }
    }
}
