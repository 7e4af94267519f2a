//! Origins that speak HTTP/2.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[cfg(target_os = "linux")]
use super::operating::{LARGE, memory_of_slow_reader};
use super::peer::{Peer, get, patiently};
use super::program::{program, running};
use super::world::Proxy;
use crate::connect::{HTTP1, HTTP2, connectors};
use crate::examples::Running;
use crate::limits::Limits;
use crate::multiplex::{Multiplexer, SendError, Sent};
use crate::nginx::Nginx;
use crate::origin::Speaks;
use crate::upload::Upload;

struct Asked {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    connection: usize,
}

impl Asked {
    /// Sends the head of a response that has content.
    fn begin(&mut self) -> SendStream<Bytes> {
        let response = Response::builder().header("cache-control", "max-age=60").body(()).unwrap();
        self.respond.send_response(response, false).unwrap()
    }

    /// Waits until the proxy gives up the request.
    async fn reset(&mut self) -> Reason {
        patiently(std::future::poll_fn(|cx| self.respond.poll_reset(cx))).await.unwrap()
    }
}

/// An origin whose requests the test answers, on connections that permit a number of them at once.
struct Http2Origin {
    port: u16,
    asked: mpsc::UnboundedReceiver<Asked>,
}

impl Http2Origin {
    async fn start(permitted: u32) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self::on(listener, permitted)
    }

    fn on(listener: TcpListener, permitted: u32) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (sender, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut builder = Builder::new();
                    let builder = builder.max_concurrent_streams(permitted).initial_window_size(65_535);
                    let mut http = builder.handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = http.accept().await {
                        let _ = sender.send(Asked { request, respond, connection }); // the test may have ended
                    }
                });
                connection += 1;
            }
        });
        Self { port, asked }
    }

    async fn next(&mut self) -> Asked {
        patiently(self.asked.recv()).await.unwrap()
    }

    fn was_asked(&mut self) -> bool {
        self.asked.try_recv().is_ok()
    }
}

async fn started_within(limits: Limits) -> (Http2Origin, Proxy) {
    let origin = Http2Origin::start(100).await;
    let proxy = Proxy::speaking(Speaks::Http2, origin.port, limits).await;
    (origin, proxy)
}

async fn started() -> (Http2Origin, Proxy) {
    started_within(Limits::default()).await
}

fn answer(mut asked: Asked) {
    asked.begin().send_data("hello".into(), true).unwrap();
}

#[tokio::test]
async fn host_becomes_the_authority() {
    let (mut origin, proxy) = started().await;
    let mut client = proxy.connect().await;
    client
        .send("GET /a?b HTTP/1.1\r\nHost: example.test:81\r\nTE: trailers\r\nConnection: TE, x-hop\r\nX-Hop: 1\r\n\r\n")
        .await;
    let asked = origin.next().await;
    assert_eq!(asked.request.uri(), "http://example.test:81/a?b");
    let headers = asked.request.headers();
    assert!(!["host", "connection", "x-hop"].iter().any(|name| headers.contains_key(*name)), "{headers:?}");
    assert_eq!(headers["te"], "trailers");
    answer(asked);
    let response = client.response().await;
    assert_eq!(
        (response.text().as_str(), response.head.get("via")),
        ("hello", Some("2 tower-response-cache"))
    );
    let hit = client.ask("GET /a?b HTTP/1.1\r\nHost: example.test:81\r\n\r\n").await;
    assert!(hit.head.get("cache-status").unwrap().contains("; hit"));
    assert!(!origin.was_asked());
}

#[tokio::test]
async fn malformed_host_is_refused() {
    let (mut origin, proxy) = started().await;
    for host in ["a%20b", "%41", "a b", "u@a", ""] {
        let mut client = proxy.connect().await;
        let refused = client.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let text = "400 the request's Host field is malformed\n";
        assert_eq!((refused.head.status(), refused.text().as_str()), (400, text), "{host}");
    }
    assert!(!origin.was_asked());
}

#[tokio::test]
async fn targets_and_hosts_are_forwarded_byte_for_byte() {
    let (mut origin, proxy) = started().await;
    let mut client = proxy.connect().await;
    for (target, host) in [
        ("/a%2Fb/../c?d=%00&e=[f]", "A.example.test"),
        ("//double", "a:"),
        ("/", "[::1]:80"),
        ("/?", "a:99999"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let asked = origin.next().await;
        assert_eq!(asked.request.uri().path_and_query().unwrap(), target);
        assert_eq!(asked.request.uri().authority().unwrap().as_str(), host);
        answer(asked);
        client.response().await;
    }
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let asked = origin.next().await;
    assert_eq!((asked.request.method().as_str(), asked.request.uri().path()), ("OPTIONS", "*"));
    answer(asked);
    client.response().await;
}

#[tokio::test]
async fn refused_request_is_sent_once_more() {
    let (mut origin, proxy) = started().await;
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let mut asked = origin.next().await;
    asked.respond.send_reset(Reason::REFUSED_STREAM);
    let again = origin.next().await;
    assert_eq!((asked.connection, again.connection), (0, 1));
    answer(again);
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn failed_request_is_not_repeated() {
    let (mut origin, proxy) = started().await;
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let mut asked = origin.next().await;
    asked.respond.send_reset(Reason::INTERNAL_ERROR);
    assert_eq!(client.response().await.head.status(), 502);
    assert!(!origin.was_asked());
}

/// A connection whose frames the test writes by hand.
struct Frames(Peer);

impl Frames {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;

    async fn accept(listener: &TcpListener) -> Self {
        let mut frames = Self(Peer::new(patiently(listener.accept()).await.unwrap().0));
        assert!(frames.0.bytes(24).await.starts_with(b"PRI * HTTP/2.0\r\n"));
        frames.send(Self::SETTINGS, 0, 0, &[]).await;
        frames
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.0.send(frame).await;
    }

    /// Waits for the next request, and returns the number of its stream.
    async fn request(&mut self) -> u32 {
        loop {
            let head: [u8; 9] = self.0.bytes(9).await.try_into().unwrap();
            let [_, a, b, kind, _, stream @ ..] = head;
            self.0.bytes(usize::from(u16::from_be_bytes([a, b]))).await;
            if kind == Self::HEADERS {
                return u32::from_be_bytes(stream);
            }
        }
    }
}

#[tokio::test]
async fn goaway_repeats_only_unprocessed_requests() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxy =
        Proxy::speaking(Speaks::Http2, listener.local_addr().unwrap().port(), Limits::default()).await;
    let mut clients = Vec::new();
    let mut send = async |request: &str| {
        let mut client = proxy.connect().await;
        client.send(request).await;
        clients.push(client);
    };
    send(&get("/0")).await;
    let mut first = Frames::accept(&listener).await;
    assert_eq!(first.request().await, 1);
    for (request, stream) in [
        (get("/1"), 3),
        (get("/2"), 5),
        ("PUT /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(), 7),
    ] {
        send(&request).await;
        assert_eq!(first.request().await, stream);
    }
    // The origin has begun with stream 1 and none after it.
    first.send(Frames::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
    let mut second = Http2Origin::on(listener, 100);
    let (one, other) = (second.next().await, second.next().await);
    let mut paths = [one.request.uri().path(), other.request.uri().path()];
    paths.sort_unstable();
    assert_eq!((paths, one.connection, other.connection), (["/1", "/2"], 0, 0));
    answer(one);
    answer(other);
    // A new request comes while the first one is still under way on the old connection.
    send(&get("/4")).await;
    let new = second.next().await;
    assert_eq!((new.request.uri().path(), new.connection), ("/4", 0));
    answer(new);
    first.send(Frames::HEADERS, Frames::END_HEADERS, 1, &[0x88]).await; // :status: 200
    first.send(Frames::DATA, Frames::END_STREAM, 1, b"first").await;
    let mut answers = Vec::new();
    for client in &mut clients {
        let response = client.response().await;
        answers.push((response.head.status(), response.text()));
    }
    let hello = (200, "hello".to_owned());
    let content_has_gone = (502, "502 the origin sent no valid response\n".to_owned());
    assert_eq!(answers, [(200, "first".to_owned()), hello.clone(), hello.clone(), content_has_gone, hello]);
    assert!(!second.was_asked());
}

#[tokio::test]
async fn requests_keep_to_the_limit_of_the_origin() {
    let mut origin = Http2Origin::start(10).await;
    let proxy = Proxy::speaking(Speaks::Http2, origin.port, Limits::default()).await;
    let mut clients = Vec::new();
    for number in 0..50 {
        let mut client = proxy.connect().await;
        client.send(get(&format!("/{number}"))).await;
        clients.push(client);
    }
    // What waits on a connection that is full is sent when another request there has ended.
    let mut asked = HashMap::new();
    for _ in 0..50 {
        let next = origin.next().await;
        *asked.entry(next.request.uri().path().to_owned()).or_insert(0) += 1;
        answer(next);
    }
    assert!(asked.len() == 50 && asked.values().all(|times| *times == 1), "{asked:?}");
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "hello");
    }
    // The limit is known now, so that a connection that is full is not waited for.
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(get(&format!("/again/{number}"))).await;
    }
    let mut running = Vec::new();
    for _ in 0..50 {
        running.push(origin.next().await);
    }
    let mut used = HashMap::new();
    for asked in running {
        *used.entry(asked.connection).or_insert(0) += 1;
        answer(asked);
    }
    assert!(used.len() == 5 && used.values().all(|requests| *requests == 10), "{used:?}");
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "hello");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (mut origin, proxy) = started().await;
    let mut client = proxy.connect().await;
    client
        .send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n")
        .await;
    let mut asked = origin.next().await;
    let body = asked.request.body_mut();
    assert_eq!(patiently(body.data()).await.unwrap().unwrap(), "hello");
    assert!(patiently(body.data()).await.is_none());
    assert_eq!(patiently(body.trailers()).await.unwrap().unwrap()["x-sum"], "1");
    answer(asked);
    client.response().await;

    let (mut sender, connection) = proxy.connect_http2().await;
    tokio::spawn(connection);
    let request = Request::get("http://example.test/").body(Empty::<Bytes>::new()).unwrap();
    let response = tokio::spawn(sender.send_request(request));
    let mut body = origin.next().await.begin();
    body.send_data("hello".into(), false).unwrap();
    body.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("2"))]))
        .unwrap();
    let response = patiently(response).await.unwrap().unwrap();
    let collected = patiently(response.into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "2");
    assert_eq!(collected.to_bytes(), "hello");
}

#[tokio::test]
async fn upload_is_streamed() {
    const LEN: usize = 5_000_000;
    let (mut origin, proxy) = started().await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut asked = origin.next().await; // the head comes before any content
    let counting = tokio::spawn(async move {
        let body = asked.request.body_mut();
        let mut len = 0;
        while let Some(data) = patiently(body.data()).await {
            let data = data.unwrap();
            len += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        asked.begin().send_data(len.to_string().into(), true).unwrap();
    });
    let chunk = [&b"c350\r\n"[..], &[b'x'; 50_000], b"\r\n"].concat();
    for _ in 0..LEN / 50_000 {
        client.send(&chunk).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.response().await.text(), LEN.to_string());
    counting.await.unwrap();
}

#[tokio::test]
async fn head_has_no_content() {
    let (mut origin, proxy) = started().await;
    let mut client = proxy.connect().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut asked = origin.next().await;
    assert_eq!(asked.request.method(), "HEAD");
    let response = Response::builder().header("content-length", 5).body(()).unwrap();
    asked.respond.send_response(response, true).unwrap();
    let head = client.bodiless().await.head;
    assert_eq!((head.status(), head.get("content-length")), (200, Some("5")));
    client.send(get("/")).await;
    answer(origin.next().await);
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn late_stream_is_given_up_and_others_go_on() {
    let limits = Limits { origin: Duration::from_millis(200), ..Limits::default() };
    let (mut origin, proxy) = started_within(limits).await;
    let mut client = proxy.connect().await;
    client.send(get("/head")).await;
    let mut silent = origin.next().await;
    assert_eq!(client.response().await.head.status(), 504);
    assert_eq!(silent.reset().await, Reason::CANCEL);

    client.send(get("/body")).await;
    let mut stopping = origin.next().await;
    let mut body = stopping.begin();
    body.send_data("hel".into(), false).unwrap();
    let cut = client.response().await;
    assert_eq!((cut.head.status(), cut.text().as_str(), cut.cut), (200, "hel", true));
    assert_eq!(patiently(std::future::poll_fn(|cx| body.poll_reset(cx))).await.unwrap(), Reason::CANCEL);

    let mut client = proxy.connect().await;
    client.send(get("/body")).await;
    let again = origin.next().await;
    assert_eq!(again.connection, 0);
    answer(again);
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn client_that_leaves_ends_its_stream_alone() {
    let (mut origin, proxy) = started().await;
    let (mut leaving, mut staying) = (proxy.connect().await, proxy.connect().await);
    leaving.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    let mut left = origin.next().await;
    staying.send(get("/")).await;
    let asked = origin.next().await;
    drop(leaving);
    assert_eq!(left.reset().await, Reason::CANCEL);
    answer(asked);
    assert_eq!(staying.response().await.text(), "hello");
}

#[tokio::test]
async fn slow_readers_hold_up_no_other_request() {
    const LEN: usize = 16 << 20; // more than the system takes for a client
    let (mut origin, proxy) = started().await;
    let large = Bytes::from(vec![b'x'; LEN]);
    let mut slow = Vec::new();
    for number in 0..20 {
        let mut client = proxy.connect().await;
        client.send(get(&format!("/{number}"))).await;
        let mut asked = origin.next().await;
        asked.begin().send_data(large.clone(), true).unwrap();
        client.head().await;
        slow.push(client);
    }
    let mut quick = proxy.connect().await;
    quick.send(get("/quick")).await;
    let asked = origin.next().await;
    assert_eq!(asked.connection, 0);
    answer(asked);
    assert_eq!(quick.response().await.text(), "hello");
    for client in &mut slow {
        assert!(client.bytes(1 << 20).await.len() == 1 << 20);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn slow_readers_of_new_bodies_take_little_memory() {
    let mut origin = Http2Origin::start(100).await;
    let url = format!("http://127.0.0.1:{}", origin.port);
    let answering = tokio::spawn(async move {
        let large = Bytes::from(vec![b'x'; LARGE]);
        while let Some(mut asked) = origin.asked.recv().await {
            asked.begin().send_data(large.clone(), true).unwrap();
        }
    });
    let measured =
        tokio::task::spawn_blocking(move || memory_of_slow_reader(&["--origin", &url, "--origin-http2"]));
    let each = measured.await.unwrap();
    answering.abort();
    assert!(each < 400, "{each} KiB for each reader");
}

#[tokio::test]
async fn nginx_serves_files_by_http_2() {
    let Some(nginx) = Nginx::start() else { return };
    let proxy = Proxy::speaking(Speaks::Http2, nginx.http2, Limits::default()).await;
    let mut client = proxy.connect().await;
    for (path, word) in
        [("/text.txt", "fwd=uri-miss"), ("/large.bin", "fwd=uri-miss"), ("/large.bin", "; hit")]
    {
        let response = client.get(path).await;
        let head = &response.head;
        assert_eq!((head.status(), head.get("via")), (200, Some("2 tower-response-cache")));
        assert!(head.get("cache-status").unwrap().contains(word), "{head:?}");
        let file = std::fs::read(nginx.folder.path().join("files").join(&path[1..])).unwrap();
        assert!(response.body == file && !response.cut);
    }
}

/// Sends twenty requests at once to an origin that closes each connection. Returns also how many connections there were.
async fn sent_to_closing_origin(scheme: &str) -> (Vec<Result<Sent, SendError>>, usize) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url: Uri = format!("{scheme}://{}", listener.local_addr().unwrap()).parse().unwrap();
    let [connector] = connectors(None, [&[HTTP2, HTTP1]]).unwrap();
    let origin = Multiplexer::new(connector, url.clone(), true);
    let send = |_| origin.send(Request::get(&url).body(Upload::Empty).unwrap());
    let mut sending = std::pin::pin!(futures_util::future::join_all((0..20).map(send)));
    let mut connections = 0;
    loop {
        tokio::select! {
            biased; // each connection is counted
            accepted = listener.accept() => {
                drop(accepted.unwrap());
                connections += 1;
            }
            results = patiently(sending.as_mut()) => return (results, connections),
        }
    }
}

#[tokio::test]
async fn failed_connection_fails_for_all_that_wait() {
    let (results, connections) = sent_to_closing_origin("https").await;
    assert!(results.iter().all(|result| matches!(result, Err(SendError::Unreachable(_)))));
    assert_eq!(connections, 2); // that of the first request, and one for all that came meanwhile
}

#[tokio::test]
async fn origin_is_asked_for_http_2_once() {
    // Without TLS nothing is chosen, as by an origin that does not know HTTP/2.
    let (results, connections) = sent_to_closing_origin("http").await;
    assert!(results.iter().all(|result| matches!(result, Ok(Sent::Http1(_)))));
    assert_eq!(connections, 1);
}

#[test]
fn https_origin_chooses_the_version() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let mut origin = program();
    origin.args(["--listen", "127.0.0.1:0", "--bare", "5", "--tls-cert", certificate, "--tls-key", key]);
    let origin = Running::start(origin);
    let url = format!("https://localhost:{}", origin.address.rsplit_once(':').unwrap().1);
    let options = ["--listen", "127.0.0.1:0", "--origin", &url, "--origin-ca", certificate];
    let chosen = running(&options).get("/");
    assert!(chosen.contains("via: 2 tower-response-cache"), "{chosen}");
    let older = running(&[&options[..], &["--origin-http1"]].concat()).get("/");
    assert!(older.contains("via: 1.1 tower-response-cache"), "{older}");
    let unknown = running(&options[..4]).get("/"); // no public authority has signed it
    assert!(unknown.starts_with("HTTP/1.1 502 "), "{unknown}");
}
