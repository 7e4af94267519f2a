//! Requests as the origin gets them, and responses as the client gets them.

use super::peer::get;
use super::world::{Proxy, RawOrigin, ok, started};

#[tokio::test]
async fn hop_by_hop_fields_are_not_forwarded() {
    let (mut origin, _proxy, mut client) = started().await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: example.test\r\nConnection: X-Mine, keep-alive, TE\r\nConnection: x-too\r\n\
             X-Mine: 1\r\nX-Too: 2\r\nX-Stays: 3\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
             TE: gzip, trailers\r\nUpgrade: websocket\r\nProxy-Authorization: Basic abc\r\nVia: 1.0 before\r\n\
             Authorization: Basic def\r\nCookie: a=b\r\n\r\n",
        )
        .await;
    let fields = "Connection: X-Yours\r\nX-Yours: 1\r\nKeep-Alive: timeout=5\r\nX-Stays: 2\r\nUpgrade: h2c\r\n\
                  Proxy-Authenticate: Basic\r\nProxy-Connection: close\r\n";
    let asked = origin.answer(ok(fields, "hello")).await;
    for name in ["x-mine", "x-too", "keep-alive", "proxy-connection", "upgrade", "proxy-authorization"] {
        assert!(!asked.has(name), "{name} was forwarded");
    }
    assert_eq!((asked.all("te"), asked.all("connection")), (vec!["trailers"], vec!["TE"]));
    assert_eq!(asked.all("via"), ["1.0 before", "1.1 tower-response-cache"]);
    for (name, value) in [("x-stays", "3"), ("authorization", "Basic def"), ("cookie", "a=b")] {
        assert_eq!(asked.get(name), Some(value));
    }
    let head = client.response().await.head;
    for name in ["x-yours", "keep-alive", "upgrade", "proxy-authenticate", "proxy-connection", "connection"] {
        assert!(!head.has(name), "{name} was returned to the client");
    }
    assert_eq!(head.get("x-stays"), Some("2"));
}

#[tokio::test]
async fn target_override_fields_are_not_forwarded() {
    let (mut origin, _proxy, mut client) = started().await;
    let names =
        ["Forwarded", "X-Forwarded-Host", "x-forwarded-proto", "X-Original-URL", "X-HTTP-Method-Override"];
    let fields: String = names.iter().map(|name| format!("{name}: host=evil.example\r\n")).collect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\n{fields}\r\n")).await;
    let asked = origin.answer(ok("", "hello")).await;
    for name in names {
        assert!(!asked.has(&name.to_ascii_lowercase()), "{name} was forwarded");
    }
    assert_eq!(asked.get("x-forwarded-for"), Some("10.0.0.1"));
}

#[tokio::test]
async fn any_method_is_forwarded_with_content() {
    let (mut origin, _proxy, mut client) = started().await;
    for method in ["POST", "BREW", "PATCH", "M-SEARCH", "GET", "DELETE"] {
        client
            .send(format!("{method} /pot HTTP/1.1\r\nHost: example.test\r\nContent-Length: 5\r\n\r\nwater"))
            .await;
        let mut asked = origin.next().await;
        assert_eq!(
            (asked.head.line.as_str(), &asked.body[..]),
            (&*format!("{method} /pot HTTP/1.1"), &b"water"[..])
        );
        asked.peer.send("HTTP/1.1 418 I'm a teapot\r\nContent-Length: 3\r\n\r\ntea").await;
        asked.keep();
        let response = client.response().await;
        assert_eq!((response.head.status(), response.text().as_str()), (418, "tea"));
    }
}

#[tokio::test]
async fn chunked_content_is_forwarded_without_length() {
    let (mut origin, _proxy, mut client) = started().await;
    for method in ["PUT", "GET"] {
        let chunks = "4\r\nwiki\r\n5;name=value\r\npedia\r\n0\r\n\r\n";
        client
            .send(format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"))
            .await;
        let mut asked = origin.next().await;
        assert_eq!(asked.body, b"wikipedia", "{method}");
        assert!(!asked.head.has("content-length"));
        asked.peer.send(ok("", "done")).await;
        asked.keep();
        assert_eq!(client.response().await.text(), "done");
    }
}

#[tokio::test]
async fn expect_continue_is_answered_once() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 100);
    client.send("hello").await;
    let mut asked = origin.next().await;
    assert_eq!(asked.body, b"hello");
    asked.peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    asked.peer.send(ok("", "done")).await;
    assert_eq!(client.response().await.text(), "done");
}

#[tokio::test]
async fn targets_are_forwarded_byte_for_byte() {
    let (mut origin, _proxy, mut client) = started().await;
    for target in ["/", "/%7e/../a//b/", "/?", "/a?b=%20&c=d?e/f", "//double", "/semi;colon,comma:@"] {
        client.send(get(target)).await;
        let asked = origin.answer(ok("", "")).await;
        assert_eq!(asked.line, format!("GET {target} HTTP/1.1"));
        assert_eq!(client.response().await.head.status(), 200);
    }
}

#[tokio::test]
async fn options_requests_are_forwarded() {
    let (mut origin, _proxy, mut client) = started().await;
    for target in ["*", "/a"] {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: example.test\r\n\r\n")).await;
        let asked = origin.answer("HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n").await;
        assert_eq!(asked.line, format!("OPTIONS {target} HTTP/1.1"));
        let head = client.bodiless().await.head;
        assert_eq!((head.status(), head.get("allow")), (204, Some("GET")));
    }
}

#[tokio::test]
async fn invalid_host_or_target_is_refused() {
    let mut origin = RawOrigin::start().await;
    let proxy = Proxy::before(&origin).await;
    for fields in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a:x\r\n",
    ] {
        let mut client = proxy.connect().await;
        let refused = client.ask(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).await;
        assert_eq!(
            (refused.head.status(), refused.head.get("content-type")),
            (400, Some("text/plain; charset=utf-8")),
            "{fields:?}"
        );
    }
    let mut client = proxy.connect().await;
    assert_eq!(client.ask("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n").await.head.status(), 400);
    let mut client = proxy.connect().await;
    assert_eq!(client.ask("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").await.head.status(), 501);
    assert!(!origin.was_asked());
}

#[tokio::test]
async fn http_1_0_without_host_reaches_origin() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let asked =
        origin.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    assert_eq!(asked.line, "GET / HTTP/1.1");
    assert_eq!(asked.all("host"), [format!("127.0.0.1:{}", origin.port)]);
    assert_eq!(asked.all("via"), ["1.0 tower-response-cache"]);
    let head = client.head().await;
    assert!(!head.has("transfer-encoding"));
    assert_eq!(client.rest().await, b"hi");
}

#[tokio::test]
async fn http_1_0_response_becomes_1_1() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send(get("/")).await;
    let mut asked = origin.next().await;
    asked.peer.send("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    drop(asked);
    let response = client.response().await;
    assert_eq!((response.head.line.as_str(), response.text().as_str()), ("HTTP/1.1 200 OK", "until the end"));
    assert_eq!(response.head.all("via"), ["1.0 tower-response-cache"]);
    assert!(!response.cut);
}

#[tokio::test]
async fn response_is_streamed_byte_by_byte() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await;
    client.send("body").await;
    let mut asked = origin.next().await;
    asked.peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n").await;
    client.head().await;
    for byte in ["d", "r", "i", "p", "e", "d"] {
        asked.peer.send(byte).await;
        assert_eq!(client.bytes(1).await, byte.as_bytes());
    }
}

#[tokio::test]
async fn large_bodies_stream_both_ways() {
    const LEN: usize = 8 << 20;
    let body: Vec<u8> = (0..LEN).map(|i| (i % 251) as u8).collect();
    let (mut origin, _proxy, mut client) = started().await;
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LEN}\r\n\r\n")).await;
    client.send(&body).await;
    let mut asked = origin.next().await;
    assert!(asked.body == body);
    asked.peer.send(ok("", "")).await;
    asked.keep();
    client.response().await;

    client.send(get("/")).await;
    let mut asked = origin.next().await;
    let sent = body.clone();
    tokio::spawn(async move {
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {LEN}\r\n\r\n");
        asked.peer.send(head).await;
        asked.peer.send(sent).await;
        asked.keep();
    });
    assert!(client.response().await.body == body);
    let hit = client.get("/").await;
    assert!(hit.body == body && hit.head.get("cache-status").unwrap().contains("; hit"));
}

/// A length beside Transfer-Encoding is that of another framing (RFC 9112 §6.3).
///
/// A peer that trusts it cuts the body off, or takes the rest for another response.
#[tokio::test]
async fn length_beside_transfer_encoding_is_dropped() {
    let (mut origin, _proxy, mut client) = started().await;
    for (path, control) in [("/stored", "max-age=60"), ("/passed", "no-store")] {
        client.send(get(path)).await;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: {control}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"
        );
        origin.answer(answer).await;
        let answer = client.response().await;
        assert_eq!((answer.text().as_str(), answer.cut), ("0123456789", false), "{path}");
        assert_ne!(answer.head.get("content-length"), Some("5"), "{path}");
    }
    let hit = client.get("/stored").await;
    assert_eq!(hit.text(), "0123456789");
    assert_ne!(hit.head.get("content-length"), Some("5"));
}

#[tokio::test]
async fn http_2_request_is_forwarded_as_http_1() {
    let (mut origin, proxy, _) = started().await;
    let (mut sender, connection) = proxy.connect_http2().await;
    tokio::spawn(connection);
    let request =
        http::Request::get("http://example.test/a?b").header("cookie", "a=1").header("cookie", "b=2");
    let request = request.body(http_body_util::Empty::new()).unwrap();
    let response = tokio::spawn(sender.send_request(request));
    let head = origin.answer(ok("Connection: close\r\nKeep-Alive: timeout=1\r\n", "hello")).await;
    assert_eq!(head.line, "GET /a?b HTTP/1.1");
    assert_eq!(head.all("host"), ["example.test"]);
    assert_eq!(head.all("cookie"), ["a=1; b=2"]);
    assert_eq!(head.all("via"), ["2 tower-response-cache"]);
    let response = response.await.unwrap().unwrap();
    assert_eq!(
        (response.version(), response.headers().contains_key("keep-alive")),
        (http::Version::HTTP_2, false)
    );
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    assert_eq!(body.to_bytes(), "hello");
}
