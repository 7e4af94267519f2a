//! Connections on both sides of the proxy.

use super::peer::get;
use super::world::{Proxy, RawOrigin, ok, started};

#[tokio::test]
async fn connections_are_reused_on_both_sides() {
    let (mut origin, _proxy, mut client) = started().await;
    for path in ["/1", "/2", "/3"] {
        client.send(get(path)).await;
        let mut asked = origin.next().await;
        assert_eq!(asked.connection, 0);
        asked.peer.send(ok("", path)).await;
        asked.keep();
        assert_eq!(client.response().await.text(), path);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (mut origin, _proxy, mut client) = started().await;
    let paths = ["/1", "/2", "/3", "/1", "/2"];
    client.send(paths.map(get).concat()).await;
    for path in &paths[..3] {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let response = format!("{hints}{}", ok("Cache-Control: max-age=60\r\n", path));
        assert_eq!(origin.answer(response).await.line, format!("GET {path} HTTP/1.1"));
    }
    for (i, path) in paths.iter().enumerate() {
        if i < 3 {
            assert_eq!(client.head().await.status(), 103);
        }
        assert_eq!(client.response().await.text(), *path);
    }
    assert!(!origin.was_asked());
}

#[tokio::test]
async fn shutdown_finishes_requests_in_progress() {
    let mut origin = RawOrigin::start().await;
    let mut proxy = Proxy::before(&origin).await;
    let (mut busy, mut idle) = (proxy.connect().await, proxy.connect().await);
    idle.send(get("/")).await;
    origin.answer(ok("", "hello")).await;
    idle.response().await;
    busy.send(get("/")).await;
    let mut asked = origin.next().await;

    proxy.stop();
    assert_eq!(idle.rest().await, b""); // closed
    assert!(proxy.refuses().await);
    asked.peer.send(ok("", "hello")).await;
    let response = busy.response().await;
    assert_eq!((response.text().as_str(), response.head.get("connection")), ("hello", Some("close")));
    assert_eq!(busy.rest().await, b"");
    proxy.stopped().await;
}

#[tokio::test]
async fn client_disconnect_cancels_its_request() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send(get("/")).await;
    let mut asked = origin.next().await;
    drop(client);
    assert_eq!(asked.peer.rest().await, b""); // the proxy closed its connection
}
