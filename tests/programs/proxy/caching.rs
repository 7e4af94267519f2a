//! Responses from the storage.

use super::peer::get;
use super::world::{ok, started};

#[tokio::test]
async fn second_request_is_a_hit() {
    let (mut origin, proxy, mut client) = started().await;
    client.send(get("/a?b=c")).await;
    origin.answer(ok("Cache-Control: max-age=60\r\nVia: 1.1 inner\r\n", "hello")).await;
    let miss = client.response().await;
    assert_eq!((miss.head.status(), miss.text().as_str()), (200, "hello"));
    assert_eq!(miss.head.all("via"), ["1.1 inner", "1.1 tower-response-cache"]);
    assert!(!miss.head.has("age"));
    assert!(miss.head.get("cache-status").unwrap().starts_with("tower-response-cache; fwd=uri-miss"));

    let mut other = proxy.connect().await;
    let hit = other.get("/a?b=c").await;
    assert_eq!((hit.head.status(), hit.text().as_str()), (200, "hello"));
    assert_eq!(hit.head.all("via"), ["1.1 inner", "1.1 tower-response-cache"]);
    assert!(hit.head.get("age").unwrap().parse::<u32>().unwrap() < 30);
    assert!(hit.head.get("cache-status").unwrap().starts_with("tower-response-cache; hit; ttl="));
    assert!(!origin.was_asked());
}

#[tokio::test]
async fn hosts_are_cached_separately() {
    let (mut origin, _proxy, mut client) = started().await;
    for host in ["one.test", "two.test:81"] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let asked = origin.answer(ok("Cache-Control: max-age=60\r\n", host)).await;
        assert_eq!(asked.all("host"), [host]);
        assert_eq!(client.response().await.text(), host);
    }
    // An authority in the request target takes precedence over Host.
    let hit = client.ask("GET http://two.test:81/ HTTP/1.1\r\nHost: one.test\r\n\r\n").await;
    assert_eq!(hit.text(), "two.test:81");
    assert!(!origin.was_asked());
}

#[tokio::test]
async fn stored_get_answers_head_range_and_conditions() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send(get("/")).await;
    origin.answer(ok("Cache-Control: max-age=60\r\nETag: \"v1\"\r\n", "0123456789")).await;
    client.response().await;

    client.send("HEAD / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    let head = client.bodiless().await.head;
    assert_eq!((head.status(), head.get("content-length")), (200, Some("10")));

    let part = client.ask("GET / HTTP/1.1\r\nHost: example.test\r\nRange: bytes=2-4\r\n\r\n").await;
    assert_eq!((part.head.status(), part.text().as_str()), (206, "234"));
    assert_eq!(part.head.get("content-range"), Some("bytes 2-4/10"));

    client.send("GET / HTTP/1.1\r\nHost: example.test\r\nIf-None-Match: \"v1\"\r\n\r\n").await;
    let unchanged = client.bodiless().await.head;
    assert_eq!((unchanged.status(), unchanged.get("etag")), (304, Some("\"v1\"")));
    // The 304 and the response to HEAD had no content, so the next response begins where it should.
    assert_eq!(client.get("/").await.text(), "0123456789");
    assert!(!origin.was_asked());
}

#[tokio::test]
async fn set_cookie_lines_stay_separate() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send(get("/")).await;
    let cookies = "Set-Cookie: a=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT\r\nSet-Cookie: b=2\r\n";
    origin.answer(ok(&format!("Cache-Control: max-age=60\r\n{cookies}"), "hello")).await;
    let response = client.response().await;
    assert_eq!(response.head.all("set-cookie"), ["a=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT", "b=2"]);
    // The cookies belong to one user, so the next request gets a response of its own.
    client.send(get("/")).await;
    origin.answer(ok("Cache-Control: max-age=60\r\nSet-Cookie: c=3\r\n", "hello")).await;
    assert_eq!(client.response().await.head.all("set-cookie"), ["c=3"]);
}

#[tokio::test]
async fn stale_response_is_revalidated() {
    let (mut origin, _proxy, mut client) = started().await;
    client.send(get("/")).await;
    origin.answer(ok("Cache-Control: max-age=0\r\nETag: \"v1\"\r\n", "hello")).await;
    client.response().await;
    client.send(get("/")).await;
    let asked = origin.answer("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n").await;
    assert_eq!(asked.get("if-none-match"), Some("\"v1\""));
    let response = client.response().await;
    assert_eq!((response.head.status(), response.text().as_str()), (200, "hello"));
    assert_eq!(response.head.all("via"), ["1.1 tower-response-cache"]);
}
