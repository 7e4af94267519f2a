//! Clients and origins that are too slow, and too many clients.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use tokio::time::{Instant, advance};

use super::peer::{get, patiently};
use super::world::{Proxy, RawOrigin, ok};
use crate::limits::Limits;
use crate::pace::{Pace, Slowest};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn head_that_does_not_end_is_closed() {
    let origin = RawOrigin::start().await;
    let proxy = Proxy::within(origin.port, Limits { head: SHORT, ..Limits::default() }).await;
    let (mut silent, mut slow) = (proxy.connect().await, proxy.connect().await);
    slow.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow:").await;
    assert_eq!(silent.rest().await, b"");
    assert_eq!(slow.rest().await, b"");
}

#[tokio::test]
async fn second_head_that_does_not_end_is_closed() {
    let mut origin = RawOrigin::start().await;
    let proxy = Proxy::within(origin.port, Limits { head: SHORT, ..Limits::default() }).await;
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    origin.answer(ok("", "hello")).await;
    assert_eq!(client.response().await.text(), "hello");
    client.send("GET / HTTP/1.1\r\n").await;
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn idle_connection_is_closed_and_busy_one_is_not() {
    let mut origin = RawOrigin::start().await;
    let limits = Limits { head: SHORT, idle: SHORT, ..Limits::default() };
    let proxy = Proxy::within(origin.port, limits).await;
    let (mut busy, mut idle) = (proxy.connect().await, proxy.connect().await);
    busy.send(get("/busy")).await;
    let mut asked = origin.next().await;
    idle.send(get("/idle")).await;
    origin.answer(ok("", "hello")).await;
    assert_eq!(idle.response().await.text(), "hello");
    assert_eq!(idle.rest().await, b""); // closed after both timeouts, which the other one outlives
    asked.peer.send(ok("", "late")).await;
    assert_eq!(busy.response().await.text(), "late");
}

#[tokio::test]
async fn content_that_stops_is_408() {
    let origin = RawOrigin::start().await;
    let client = Slowest::new(SHORT, 0);
    let proxy = Proxy::within(origin.port, Limits { client, ..Limits::default() }).await;
    let mut client = proxy.connect().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nx").await;
    let answer = client.response().await;
    assert_eq!((answer.head.status(), answer.text().as_str()), (408, "408 the content came too slowly\n"));
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn content_below_the_minimum_rate_ends_the_connection() {
    let origin = RawOrigin::start().await;
    let client = Slowest::new(SHORT, 1_000_000);
    let proxy = Proxy::within(origin.port, Limits { client, ..Limits::default() }).await;
    let mut client = proxy.connect().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    // A byte comes before each timeout ends, so that only their number is too low. The connection is closed after the 408.
    patiently(async {
        while client.try_send("1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(SHORT / 20).await;
        }
    })
    .await;
}

#[tokio::test]
async fn client_that_stops_reading_is_disconnected() {
    let mut origin = RawOrigin::start().await;
    let client = Slowest::new(SHORT, 0);
    let proxy = Proxy::within(origin.port, Limits { client, ..Limits::default() }).await;
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let mut asked = origin.next().await;
    asked.peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").await;
    asked.peer.send_until_closed(&[b'x'; 65536]).await; // the proxy gives up the request when its client has gone
    client.rest().await; // ends, since the connection is closed
}

#[tokio::test]
async fn http_2_client_that_stops_reading_is_disconnected() {
    let mut origin = RawOrigin::start().await;
    let client = Slowest::new(SHORT, 0);
    let proxy = Proxy::within(origin.port, Limits { client, ..Limits::default() }).await;
    let (mut sender, connection) = proxy.connect_http2().await;
    let connection = tokio::spawn(connection);
    let request = Request::get("http://example.test/").body(Empty::<Bytes>::new()).unwrap();
    let response = tokio::spawn(sender.send_request(request));
    let mut asked = origin.next().await;
    asked.peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").await;
    asked.peer.send_until_closed(&[b'x'; 65536]).await;
    let _unread = response.await.unwrap().unwrap();
    // It is read and written all the time, but the stream has no room left.
    patiently(connection).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn origin_that_stops_in_a_body_is_cut_off() {
    let mut origin = RawOrigin::start().await;
    let proxy = Proxy::start(origin.port, SHORT).await;
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let mut asked = origin.next().await;
    asked.peer.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nhello").await;
    let answer = client.response().await;
    assert_eq!((answer.head.status(), answer.text().as_str(), answer.cut), (200, "hello", true));
    assert_eq!(asked.peer.rest().await, b""); // closed
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    origin.answer(ok("", "whole")).await;
    assert_eq!(client.response().await.text(), "whole");
}

#[tokio::test]
async fn connection_above_the_limit_waits() {
    let mut origin = RawOrigin::start().await;
    let proxy = Proxy::within(origin.port, Limits { connections: 1, ..Limits::default() }).await;
    let mut first = proxy.connect().await;
    first.send(get("/first")).await;
    origin.answer(ok("", "1")).await;
    first.response().await;
    let mut second = proxy.connect().await;
    second.send(get("/second")).await;
    first.send(get("/first/again")).await;
    assert_eq!(origin.answer(ok("", "2")).await.line, "GET /first/again HTTP/1.1");
    first.response().await;
    drop(first);
    assert_eq!(origin.answer(ok("", "3")).await.line, "GET /second HTTP/1.1");
    assert_eq!(second.response().await.text(), "3");
}

/// Polls a pace once.
async fn is_late(pace: &mut Pace) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(pace.poll_late(cx).is_ready())).await
}

#[tokio::test(start_paused = true)]
async fn peer_that_moves_the_minimum_is_never_late() {
    let mut pace = Pace::new(Slowest::new(Duration::from_secs(10), 100));
    for _ in 0..100 {
        assert!(!is_late(&mut pace).await);
        advance(Duration::from_secs(9)).await;
        pace.moved(1000);
    }
}

#[tokio::test(start_paused = true)]
async fn peer_below_the_minimum_is_late_after_the_timeout() {
    let mut pace = Pace::new(Slowest::new(Duration::from_secs(10), 100));
    let began = Instant::now();
    while !is_late(&mut pace).await {
        advance(Duration::from_secs(1)).await;
        pace.moved(99);
    }
    assert_eq!(began.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn time_without_waiting_does_not_count() {
    let mut pace = Pace::new(Slowest::new(Duration::from_secs(10), 100));
    for _ in 0..100 {
        pace.moved(1);
        advance(Duration::from_secs(60)).await; // the other side is slow
    }
    assert!(!is_late(&mut pace).await);
    advance(Duration::from_secs(10)).await;
    assert!(is_late(&mut pace).await);
}
