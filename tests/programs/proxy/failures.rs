//! Origins that fail.

use std::time::Duration;

use super::peer::get;
use super::world::{Proxy, RawOrigin, ok, refusing, started};

#[tokio::test]
async fn unreachable_origin_is_502_in_plain_text() {
    let proxy = Proxy::start(refusing().await, Duration::from_secs(60)).await;
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        let answer = client.get("/?secret=1").await;
        assert_eq!(answer.head.status(), 502);
        assert_eq!(answer.head.get("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.text(), "502 the origin cannot be reached\n");
    }
}

#[tokio::test]
async fn stale_is_served_while_origin_is_down() {
    let (mut origin, _proxy, mut client) = started().await;
    for (path, control) in [("/may", "max-age=0"), ("/must", "max-age=0, must-revalidate")] {
        client.send(get(path)).await;
        origin.answer(ok(&format!("Cache-Control: {control}\r\nETag: \"v1\"\r\n"), "hello")).await;
        assert_eq!(client.response().await.text(), "hello");
    }
    origin.shut().await;
    let stale = client.get("/may").await;
    assert_eq!((stale.head.status(), stale.text().as_str()), (200, "hello"));
    let status = client.get("/must").await.head.status();
    assert!(matches!(status, 502 | 504), "{status}");
}

#[tokio::test]
async fn late_origin_is_504_or_stale() {
    let mut origin = RawOrigin::start().await;
    let proxy = Proxy::start(origin.port, Duration::from_millis(200)).await;
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let never = origin.next().await;
    let answer = client.response().await;
    assert_eq!(
        (answer.head.status(), answer.text().as_str()),
        (504, "504 the origin did not answer in time\n")
    );
    drop(never);

    client.send(get("/stored")).await;
    origin.answer(ok("Cache-Control: max-age=0\r\nETag: \"v1\"\r\n", "hello")).await;
    assert_eq!(client.response().await.text(), "hello");
    client.send(get("/stored")).await;
    let _never = origin.next().await;
    let stale = client.response().await;
    assert_eq!((stale.head.status(), stale.text().as_str()), (200, "hello"));
}

#[tokio::test]
async fn slow_upload_does_not_time_out() {
    let mut origin = RawOrigin::start().await;
    let timeout = Duration::from_secs(1);
    let proxy = Proxy::start(origin.port, timeout).await;
    let mut client = proxy.connect().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n").await;
    for _ in 0..8 {
        client.send("x").await;
        tokio::time::sleep(timeout / 5).await; // the whole upload takes longer than the timeout
    }
    origin.answer(ok("", "done")).await;
    assert_eq!(client.response().await.text(), "done");
}

/// Asserts that the client sees the response as incomplete, and that it is not stored.
async fn is_cut(response: &str, part: &str) {
    let (mut origin, proxy, mut client) = started().await;
    client.send(get("/")).await;
    let mut asked = origin.next().await;
    asked.peer.send(response).await;
    drop(asked);
    let answer = client.response().await;
    assert_eq!((answer.head.status(), answer.text().as_str(), answer.cut), (200, part, true));
    assert_eq!(client.rest().await, b"");

    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    origin.answer(ok("", "whole")).await;
    assert_eq!(client.response().await.text(), "whole");
}

#[tokio::test]
async fn truncated_body_is_not_stored() {
    is_cut("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nhello", "hello").await;
}

#[tokio::test]
async fn truncated_chunked_body_is_not_stored() {
    let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";
    is_cut(&format!("{head}5\r\nhello\r\n"), "hello").await;
}

#[tokio::test]
async fn bytes_beyond_content_length_are_dropped() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send(get("/")).await;
    origin
        .answer("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n")
        .await;
    assert_eq!(client.response().await.text(), "hello");
    assert_eq!(client.get("/").await.text(), "hello");
    // The surplus bytes are not taken for the next response.
    client.send(get("/other")).await;
    origin.answer(ok("", "other")).await;
    assert_eq!(client.response().await.text(), "other");
}

#[tokio::test]
async fn malformed_response_is_502() {
    let (mut origin, _proxy, mut client) = started().await;
    let malformed = [
        "no HTTP at all\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nna me: value\r\n\r\n",
        "HTTP/1.1 200 OK\r\nCache-Con",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "",
    ];
    for response in malformed {
        client.send(get("/")).await;
        let mut asked = origin.next().await;
        asked.peer.send(response).await;
        drop(asked);
        let answer = client.response().await;
        assert_eq!(
            (answer.head.status(), answer.text().as_str()),
            (502, "502 the origin sent no valid response\n"),
            "{response:?}"
        );
    }
}
