//! Interim responses.

use super::peer::get;
use super::world::{ok, started};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nLink: </b>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n";

#[tokio::test]
async fn early_hints_precede_the_final_response() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send(get("/")).await;
    let mut asked = origin.next().await;
    for _ in 0..2 {
        asked.peer.send(HINTS).await;
        let hints = client.head().await; // before there is any final response
        assert_eq!(hints.line, "HTTP/1.1 103 Early Hints");
        assert_eq!(hints.all("link"), ["</style.css>; rel=preload", "</b>"]);
        assert!(!hints.has("x-hop") && !hints.has("connection"));
    }
    asked.peer.send(ok("Cache-Control: max-age=60\r\n", "hello")).await;
    asked.keep();
    for _ in 0..2 {
        let response = client.response().await;
        assert_eq!((response.head.status(), response.text().as_str()), (200, "hello"));
        assert!(!response.head.has("link"));
        client.send(get("/")).await; // a hit, without hints
    }
    assert!(!origin.was_asked());
}

#[tokio::test]
async fn interim_responses_keep_their_order() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send(get("/")).await;
    origin
        .answer(format!(
            "HTTP/1.1 102 Processing\r\n\r\n{HINTS}HTTP/1.1 100 Continue\r\n\r\n{}",
            ok("", "hello")
        ))
        .await;
    assert_eq!(client.head().await.line, "HTTP/1.1 102 Processing");
    assert_eq!(client.head().await.status(), 103);
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn http_1_0_gets_no_interim_response() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    origin.answer(format!("{HINTS}{}", ok("", "hello"))).await;
    assert_eq!(client.response().await.text(), "hello");
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn revalidation_relays_interim_responses() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send(get("/")).await;
    origin.answer(ok("Cache-Control: max-age=0\r\nETag: \"v1\"\r\n", "hello")).await;
    client.response().await;
    client.send(get("/")).await;
    origin.answer(format!("{HINTS}HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n")).await;
    assert_eq!(client.head().await.status(), 103);
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn background_refresh_relays_no_interim_response() {
    let (mut origin, proxy, mut client) = started().await;
    client.send(get("/")).await;
    let control = "Cache-Control: max-age=0, stale-while-revalidate=600\r\nETag: \"v1\"\r\n";
    origin.answer(ok(control, "old")).await;
    client.response().await;

    let stale = client.get("/").await;
    assert_eq!(stale.text(), "old");
    let mut refresh = origin.next().await;
    // The client's next request waits for the origin at the same time.
    client.send(get("/other")).await;
    let mut other = origin.next().await;
    refresh.peer.send(HINTS).await;
    refresh.peer.send(ok("Cache-Control: max-age=60\r\n", "new")).await;
    proxy.layer.idle().await; // the refresh has ended
    other.peer.send(ok("", "other")).await;
    let response = client.response().await;
    assert_eq!((response.head.status(), response.text().as_str()), (200, "other"));
    assert_eq!(client.get("/").await.text(), "new");
}

#[tokio::test]
async fn interim_response_never_splits_slow_response() {
    let body = "0123456789abcdef".repeat(1 << 18); // more than sockets and hyper buffer
    let (mut origin, _proxy, mut client) = started().await;
    client.send(get("/large")).await;
    let mut asked = origin.next().await;
    let sent = ok("Cache-Control: max-age=60\r\n", &body);
    let sending = tokio::spawn(async move {
        asked.peer.send(sent).await;
        asked.keep();
    });
    assert!(client.response().await.text() == body);
    sending.await.unwrap();

    // A hit whose body is not read yet, directly followed by a request whose interim responses come at once.
    client.send(get("/large") + &get("/small")).await;
    let answering = tokio::spawn(async move {
        origin.answer(format!("{HINTS}{HINTS}{}", ok("", "small"))).await;
    });
    assert!(client.response().await.text() == body);
    assert_eq!(client.head().await.status(), 103);
    assert_eq!(client.head().await.status(), 103);
    assert_eq!(client.response().await.text(), "small");
    answering.await.unwrap();
}
