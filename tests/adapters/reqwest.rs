//! The reqwest middleware over real sockets.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tower_response_cache::reqwest::reqwest_client::{self, Body, Client, Response, Url, redirect};
use tower_response_cache::reqwest::reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use tower_response_cache::reqwest::{CacheMiddleware, FollowRedirects, Redirects, TooManyRedirects};
use tower_response_cache::storage::{MemoryStorage, Storage};
use tower_response_cache::{
    BodyError, BypassReason, CacheLayer, CacheOptions, CacheStatus, Clock, MissReason, NotStored, Outcome,
    Rule, Rules, Stored,
};

use crate::sockets::{Origin, answer, redirect_to};

type Cached = CacheMiddleware<MemoryStorage>;

fn layer() -> CacheLayer<MemoryStorage> {
    CacheLayer::new(MemoryStorage::new())
}

/// Returns a cache for a client that adds no header fields.
fn without_client_headers(layer: CacheLayer<MemoryStorage>) -> Cached {
    CacheMiddleware::new(layer).client_headers(&HeaderMap::new())
}

fn plain() -> Client {
    Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap()
}

fn cached(client: Client, cache: Cached) -> ClientWithMiddleware {
    ClientBuilder::new(client).with(cache).build()
}

/// Returns a client that follows redirects above the cache.
fn following(cache: Cached) -> ClientWithMiddleware {
    ClientBuilder::new(plain()).with(FollowRedirects::new()).with(cache).build()
}

fn status(response: &Response) -> CacheStatus {
    *response.extensions().get::<CacheStatus>().expect("every response has a status")
}

/// Fetches a URL. Returns the cache status, the URL of the response, and the whole body.
async fn get(client: &ClientWithMiddleware, url: &str) -> (CacheStatus, Url, String) {
    let response = client.get(url).send().await.unwrap();
    (status(&response), response.url().clone(), response.text().await.unwrap())
}

/// Starts an origin whose `/a` redirects to `/b`, both fresh for a minute.
async fn redirecting(code: u16) -> Origin {
    Origin::start(move |request| match request.uri().path() {
        "/a" => redirect_to(code, "/b").field("cache-control", "max-age=60"),
        _ => answer("the end").field("cache-control", "max-age=60"),
    })
    .await
}

#[tokio::test]
async fn hit_keeps_its_request_url() {
    let origin = Origin::start(|_| answer("hello").field("cache-control", "max-age=60")).await;
    let client = cached(plain(), without_client_headers(layer()));
    let url = origin.url("/a?b=c");
    for word in ["miss", "hit"] {
        let response = client.get(format!("{url}#part")).send().await.unwrap();
        assert_eq!((status(&response).word(), response.url().as_str()), (word, url.as_str()));
        assert_eq!((response.version(), response.content_length()), (http::Version::HTTP_11, Some(5)));
        assert_eq!(response.text().await.unwrap(), "hello");
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn redirect_followed_by_client_is_not_stored() {
    let origin = redirecting(302).await;
    let client = Client::builder().no_proxy().build().unwrap();
    let client = cached(client, without_client_headers(layer()));
    for _ in 0..2 {
        let (status, url, body) = get(&client, &origin.url("/a")).await;
        assert_eq!((status.word(), status.stored()), ("miss", Stored::No(NotStored::Redirected)));
        assert_eq!((url.path(), body.as_str()), ("/b", "the end"));
    }
    assert_eq!(get(&client, &origin.url("/b")).await.0.stored(), Stored::Storing);
}

#[tokio::test]
async fn redirected_not_modified_does_not_freshen_stored_response() {
    let mut first = true;
    let origin = Origin::start(move |request| {
        let is_first = std::mem::take(&mut first);
        match request.uri().path() {
            "/a" if is_first => answer("old a").field("cache-control", "no-cache").field("etag", "\"same\""),
            "/a" => redirect_to(302, "/b"),
            _ if request.headers().contains_key("if-none-match") => {
                answer("").status(304).field("etag", "\"same\"")
            }
            _ => answer("b").field("etag", "\"same\""),
        }
    })
    .await;
    let client = Client::builder().no_proxy().build().unwrap();
    let client = cached(client, without_client_headers(layer()));
    assert_eq!(get(&client, &origin.url("/a")).await.2, "old a");
    let (status, url, body) = get(&client, &origin.url("/a")).await;
    assert_eq!((body.as_str(), url.path(), status.stored()), ("b", "/b", Stored::No(NotStored::Redirected)));
}

#[tokio::test]
async fn redirect_followed_above_caches_each_hop() {
    for code in [301, 302, 303, 307, 308] {
        let origin = redirecting(code).await;
        let client = following(without_client_headers(layer()));
        for word in ["miss", "hit"] {
            let response = client.get(origin.url("/a")).send().await.unwrap();
            assert_eq!((status(&response).word(), response.url().path()), (word, "/b"), "{code}");
            let hops = response.extensions().get::<Redirects>().unwrap().as_slice();
            assert_eq!((hops.len(), hops[0].url().path(), hops[0].status().as_u16()), (1, "/a", code));
            assert_eq!(hops[0].cache().unwrap().word(), word);
            assert_eq!(response.text().await.unwrap(), "the end");
        }
        assert_eq!(origin.count(), 2);
    }
}

#[tokio::test]
async fn redirect_with_body_is_stored() {
    let origin = Origin::start(|request| match request.uri().path() {
        "/a" => redirect_to(301, "/b").body("moved ".repeat(5000)),
        _ => answer("the end"),
    })
    .await;
    let client = following(without_client_headers(layer()));
    for _ in 0..2 {
        client.get(origin.url("/a")).send().await.unwrap();
    }
    assert_eq!(
        origin.paths(),
        ["/a", "/b", "/a", "/b"].map(String::from)[..],
        "no response has explicit freshness"
    );

    let origin = Origin::start(|request| match request.uri().path() {
        "/a" => redirect_to(301, "/b").field("cache-control", "max-age=60").body("moved ".repeat(5000)),
        _ => answer("the end"),
    })
    .await;
    for _ in 0..2 {
        client.get(origin.url("/a")).send().await.unwrap();
    }
    assert_eq!(origin.paths(), ["/a", "/b", "/b"]);
}

#[tokio::test]
async fn redirect_changes_method_only_where_permitted() {
    for (code, method, then, body) in [
        (301, Method::POST, "GET", ""),
        (302, Method::POST, "GET", ""),
        (302, Method::PUT, "PUT", "content"),
        (303, Method::PUT, "GET", ""),
        (303, Method::HEAD, "HEAD", ""),
        (307, Method::POST, "POST", "content"),
        (308, Method::POST, "POST", "content"),
    ] {
        let origin = redirecting(code).await;
        let client = following(without_client_headers(layer()));
        let mut request = client.request(method.clone(), origin.url("/a")).header("content-type", "text/x");
        if method != Method::HEAD {
            request = request.body("content");
        }
        request.send().await.unwrap();
        let last = origin.last();
        assert_eq!((last.method.as_str(), last.path.as_str(), &last.body[..]), (then, "/b", body.as_bytes()));
        let kept = then != "GET";
        assert_eq!(last.headers.contains_key("content-type"), kept, "{code} {method}");
    }
}

#[tokio::test]
async fn redirect_of_streamed_request_is_returned() {
    let origin = redirecting(307).await;
    let client = following(without_client_headers(layer()));
    let stream = Body::wrap(http_body_util::Full::new(Bytes::from("content")));
    let response = client.post(origin.url("/a")).body(stream).send().await.unwrap();
    assert_eq!((response.status(), origin.count()), (StatusCode::TEMPORARY_REDIRECT, 1));
}

#[tokio::test]
async fn redirect_drops_credentials_for_other_origin() {
    let other = Origin::start(|_| answer("other")).await;
    let to = other.url("/c").replace("http://", "http://user:password@");
    let origin = Origin::start(move |request| match request.uri().path() {
        "/a" => redirect_to(302, "/b"),
        _ => redirect_to(302, &to),
    })
    .await;
    let client = following(without_client_headers(layer()));
    let request = client.get(origin.url("/a")).header("authorization", "secret").header("cookie", "c=1");
    let response = request.header("x", "1").send().await.unwrap();
    assert_eq!(response.url().as_str(), other.url("/c"));
    assert_eq!(origin.last().headers["authorization"], "secret", "the same origin gets the credentials");
    let last = other.last().headers;
    assert!(!last.contains_key("authorization") && !last.contains_key("cookie"));
    assert_eq!(last["x"], "1");
}

#[tokio::test]
async fn redirect_loop_ends_with_error() {
    let origin = Origin::start(|_| redirect_to(302, "/a")).await;
    let client = ClientBuilder::new(plain())
        .with(FollowRedirects::new().limit(3))
        .with(without_client_headers(layer()))
        .build();
    let error = client.get(origin.url("/a")).send().await.unwrap_err();
    let Error::Middleware(error) = error else { panic!("{error}") };
    assert_eq!(error.downcast_ref::<TooManyRedirects>().unwrap().limit(), 3);
    assert_eq!(origin.count(), 4);
}

#[tokio::test]
async fn invalid_redirect_is_returned() {
    let origin = Origin::start(|request| match request.uri().path() {
        "/none" => answer("").status(302),
        "/scheme" => redirect_to(302, "ftp://example.com/"),
        _ => redirect_to(302, "http://[bad"),
    })
    .await;
    let client = following(without_client_headers(layer()));
    for path in ["/none", "/scheme", "/bad"] {
        let response = client.get(origin.url(path)).send().await.unwrap();
        assert_eq!((response.status(), response.url().path()), (StatusCode::FOUND, path));
    }
}

/// Starts an origin that returns the user and tenant of the request.
async fn greeting(vary: &'static str) -> Origin {
    Origin::start(move |request| {
        let name = |name| {
            request.headers().get(name).map_or("nobody", |value: &HeaderValue| value.to_str().unwrap())
        };
        let who = format!("{} {}", name("authorization"), name("x-tenant"));
        answer(who).field("cache-control", "max-age=60").field("vary", vary)
    })
    .await
}

fn client_of(user: &'static str, tenant: &'static str) -> (Client, HeaderMap) {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static(user));
    headers.insert("x-tenant", HeaderValue::from_static(tenant));
    let client = Client::builder().default_headers(headers.clone()).no_proxy().build().unwrap();
    (client, headers)
}

#[tokio::test]
async fn unknown_client_headers_store_only_public_responses() {
    for (vary, control, stored) in [
        ("Authorization", "public, max-age=60", Stored::No(NotStored::ClientHeaders)),
        ("accept, COOKIE", "public, max-age=60", Stored::No(NotStored::ClientHeaders)),
        ("accept", "max-age=60", Stored::No(NotStored::ClientHeaders)),
        ("accept", "public, max-age=60", Stored::Storing),
    ] {
        let origin =
            Origin::start(move |_| answer("hello").field("cache-control", control).field("vary", vary)).await;
        let client = cached(client_of("ann", "one").0, CacheMiddleware::new(layer()));
        assert_eq!(get(&client, &origin.url("/")).await.0.stored(), stored, "{vary}, {control}");
        let kept = stored == Stored::Storing;
        assert_eq!(get(&client, &origin.url("/")).await.0.is_hit(), kept);
    }
    let origin = greeting("cookie").await;
    assert_eq!(
        get(&cached(plain(), without_client_headers(layer())), &origin.url("/")).await.0.stored(),
        Stored::Storing
    );
}

#[tokio::test]
async fn clients_with_unknown_headers_never_share_responses() {
    let origin = greeting("accept").await; // Vary does not name the fields that the response depends on
    let layer = layer();
    let clients =
        ["ann", "bob"].map(|user| cached(client_of(user, "one").0, CacheMiddleware::new(layer.clone())));
    let anonymous = cached(plain(), without_client_headers(layer));
    assert_eq!(get(&anonymous, &origin.url("/")).await.0.stored(), Stored::Storing);
    for (user, client) in ["ann", "bob"].iter().zip(&clients) {
        assert_eq!(get(client, &origin.url("/")).await.2, format!("{user} one"));
    }
}

#[tokio::test]
async fn bare_not_modified_keeps_public_response() {
    let origin = Origin::start(|request| match request.headers().contains_key("if-none-match") {
        true => answer("").status(304).field("etag", "\"1\""),
        false => answer("hello").field("cache-control", "public, no-cache").field("etag", "\"1\""),
    })
    .await;
    let client = cached(plain(), CacheMiddleware::new(layer()));
    for word in ["miss", "revalidated", "revalidated"] {
        let (status, _, body) = get(&client, &origin.url("/")).await;
        assert_eq!((status.word(), body.as_str()), (word, "hello"));
    }
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn custom_key_applies_only_to_first_hop() {
    let origin = redirecting(301).await;
    let client = following(without_client_headers(layer()));
    for word in ["miss", "hit"] {
        let request = client.get(origin.url("/a")).with_extension(CacheOptions::new().key("mine"));
        let response = request.send().await.unwrap();
        assert_eq!(status(&response).word(), word);
        assert_eq!(response.text().await.unwrap(), "the end");
    }
    assert_eq!(get(&client, &origin.url("/b")).await.0.word(), "hit");
    assert_eq!(
        get(&client, &origin.url("/a")).await.0.word(),
        "hit",
        "the redirect without a key is stored too"
    );
    assert_eq!(origin.paths(), ["/a", "/b", "/a"].map(String::from)[..]);
}

#[tokio::test]
async fn host_header_never_poisons_another_server() {
    let first = Origin::start(|_| answer("the first's").field("cache-control", "max-age=60")).await;
    let second = Origin::start(|_| answer("the second's").field("cache-control", "max-age=60")).await;
    let client = cached(plain(), without_client_headers(layer()));
    let url = second.url("/x");
    let authority = url.split('/').nth(2).unwrap().to_owned();
    let response = client.get(first.url("/x")).header("host", authority).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "the first's");
    assert_eq!(get(&client, &url).await.2, "the second's");
    assert_eq!(get(&client, &first.url("/x")).await.0.word(), "miss");
}

#[tokio::test]
async fn declared_default_headers_select_variants() {
    let origin = greeting("authorization, x-tenant").await;
    let layer = layer();
    let users = [("ann", "one"), ("bob", "one"), ("ann", "two")];
    let clients = users.map(|(user, tenant)| {
        let (client, headers) = client_of(user, tenant);
        cached(client, CacheMiddleware::new(layer.clone()).client_headers(&headers))
    });
    for word in ["miss", "hit"] {
        for ((user, tenant), client) in users.iter().zip(&clients) {
            let (status, _, body) = get(client, &origin.url("/")).await;
            assert_eq!((status.word(), body), (word, format!("{user} {tenant}")));
        }
    }
    let own = clients[0].get(origin.url("/")).header("authorization", "eve").send().await.unwrap();
    assert_eq!(own.text().await.unwrap(), "eve one", "the request's own field takes precedence");
}

#[tokio::test]
async fn partition_shares_fetches_between_its_clients() {
    let origin = Origin::start(|_| answer("x").field("cache-control", "max-age=60")).await;
    let layer = layer();
    let client = |name| cached(plain(), CacheMiddleware::new(layer.clone()).partition(name));
    let (one, same, other, url) = (client("ann"), client("ann"), client("bob"), origin.url("/"));
    futures_util::future::join3(get(&one, &url), get(&same, &url), get(&other, &url)).await;
    assert_eq!(origin.count(), 2, "both clients of one partition share a fetch");
}

#[tokio::test]
async fn invalidate_tag_reaches_every_partition() {
    let origin = Origin::start(|_| answer("x").field("cache-control", "max-age=60")).await;
    let layer = CacheLayer::builder(MemoryStorage::new())
        .rules(Rules::new().rule(Rule::new().tag("t")))
        .build()
        .unwrap();
    let client = |name| cached(plain(), CacheMiddleware::new(layer.clone()).partition(name));
    let (ann, bob, url) = (client("ann"), client("bob"), origin.url("/"));
    for _ in 0..2 {
        for client in [&ann, &bob] {
            assert_eq!(get(client, &url).await.0.word(), "miss");
            assert_eq!(get(client, &url).await.0.word(), "hit");
        }
        layer.invalidate_tag("t").await.unwrap();
    }
}

#[tokio::test]
async fn partitions_never_share_responses() {
    let origin = greeting("cookie, authorization").await;
    let layer = layer();
    let clients = ["ann", "bob"]
        .map(|user| cached(client_of(user, "one").0, CacheMiddleware::new(layer.clone()).partition(user)));
    for word in ["miss", "hit"] {
        for (user, client) in ["ann", "bob"].iter().zip(&clients) {
            let (status, _, body) = get(client, &origin.url("/")).await;
            assert_eq!((status.word(), body), (word, format!("{user} one")));
        }
    }
    layer.idle().await;
}

#[tokio::test]
async fn explicit_host_header_separates_entries() {
    let origin = Origin::start(|request| {
        answer(request.headers()["host"].as_bytes().to_vec()).field("cache-control", "max-age=60")
    })
    .await;
    let client = cached(plain(), without_client_headers(layer()));
    for word in ["miss", "hit"] {
        for host in ["one.example", "two.example"] {
            let response = client.get(origin.url("/")).header("host", host).send().await.unwrap();
            assert_eq!(status(&response).word(), word);
            assert_eq!(response.url().as_str(), origin.url("/"));
            assert_eq!(response.text().await.unwrap(), host);
        }
    }
}

/// Starts an origin that counts its responses, and builds a cache with a mock clock.
///
/// The responses may be served stale while they are refreshed.
async fn counting() -> (Origin, tower_response_cache::MockClock, CacheLayer<MemoryStorage>) {
    let mut version = 0;
    let origin = Origin::start(move |_| {
        version += 1;
        answer(version.to_string()).field("cache-control", "max-age=10, stale-while-revalidate=60")
    })
    .await;
    let (clock, mock) = Clock::mock();
    (origin, mock, CacheLayer::builder(MemoryStorage::new()).clock(clock).build().unwrap())
}

#[tokio::test]
async fn stale_request_fetches_without_refresh_client() {
    let (origin, clock, layer) = counting().await;
    let client = cached(plain(), without_client_headers(layer));
    get(&client, &origin.url("/")).await;
    clock.advance(Duration::from_secs(11));
    let only = client.get(origin.url("/")).header("cache-control", "only-if-cached").send().await.unwrap();
    assert_eq!((status(&only).word(), origin.count()), ("stale", 1));
    let (status, _, body) = get(&client, &origin.url("/")).await;
    assert!(matches!(status.outcome(), Outcome::Miss(MissReason::Replaced(_))), "{status}");
    assert_eq!(body, "2");
    assert_eq!(get(&client, &origin.url("/")).await.0.word(), "hit");
}

#[tokio::test]
async fn refresh_client_refreshes_stale_response_in_background() {
    let (origin, clock, layer) = counting().await;
    let client = cached(plain(), without_client_headers(layer.clone()).refresh_with(plain()));
    get(&client, &origin.url("/")).await;
    clock.advance(Duration::from_secs(11));
    let (status, _, body) = get(&client, &origin.url("/")).await;
    assert_eq!((status.word(), body.as_str()), ("stale", "1"));
    layer.idle().await;
    let (status, _, body) = get(&client, &origin.url("/")).await;
    assert_eq!((status.word(), body.as_str(), origin.count()), ("hit", "2", 2));
}

#[tokio::test]
async fn unsafe_request_invalidates_stored_response() {
    let origin = Origin::start(|_| answer("v").field("cache-control", "max-age=60")).await;
    let client = cached(plain(), without_client_headers(layer()));
    get(&client, &origin.url("/")).await;
    client.post(origin.url("/")).body("change").send().await.unwrap();
    assert_eq!(origin.last().body, "change");
    assert_eq!(get(&client, &origin.url("/")).await.0.word(), "miss");
}

#[tokio::test]
async fn client_errors_reach_caller_unchanged() {
    let client = cached(plain(), without_client_headers(layer()));
    let error = client.get(crate::sockets::refusing().await).send().await.unwrap_err();
    assert!(error.is_connect() && matches!(error, Error::Reqwest(_)), "{error:?}");
    let error = client.get("ftp://example.com/").send().await.unwrap_err();
    assert!(error.is_builder(), "{error:?}");

    let silent = Origin::start(|_| answer("").never()).await;
    let request = client.get(silent.url("/")).timeout(Duration::from_millis(50));
    assert!(request.send().await.unwrap_err().is_timeout(), "the request's own timeout is kept");
}

#[tokio::test]
async fn broken_body_reports_source_and_stores_nothing() {
    let (origin, pieces) = Origin::piecewise(&[("cache-control", "max-age=60")]).await;
    let layer = layer();
    let client = cached(plain(), without_client_headers(layer.clone()));
    let mut response = client.get(origin.url("/")).send().await.unwrap();
    assert_eq!(status(&response).stored(), Stored::Storing);
    pieces.send(Ok("half".into())).await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "half");
    pieces.send(Err(std::io::Error::other("broken off"))).await.unwrap();
    let error = response.chunk().await.unwrap_err();
    let mut sources = std::iter::successors(std::error::Error::source(&error), |error| error.source());
    assert!(sources.any(|source| source.is::<BodyError>()), "{error:?}");
    assert!(sources.any(|source| source.is::<reqwest_client::Error>()), "{error:?}");
    layer.idle().await;
    assert_eq!(layer.storage().size().await.unwrap(), 0);
}

#[tokio::test]
async fn body_chunks_are_forwarded_on_arrival() {
    let (origin, pieces) = Origin::piecewise(&[("cache-control", "max-age=60")]).await;
    let layer = layer();
    let client = cached(plain(), without_client_headers(layer.clone()));
    let mut response = client.get(origin.url("/")).send().await.unwrap();
    for piece in ["one", "two", "three"] {
        pieces.send(Ok(piece.into())).await.unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), piece);
    }
    drop(pieces);
    assert_eq!(response.chunk().await.unwrap(), None);
    let (status, _, body) = get(&client, &origin.url("/")).await;
    assert_eq!((status.word(), body.as_str()), ("hit", "onetwothree"));
}

#[tokio::test]
async fn cache_options_extension_is_respected() {
    use tower_response_cache::{CacheMode, CacheOptions, scope};
    let origin = Origin::start(|_| answer("hello").field("cache-control", "max-age=60")).await;
    let client = cached(plain(), without_client_headers(layer()));
    let url = origin.url("/");
    let with = |options: CacheOptions| client.get(&url).with_extension(options).send();
    let word = |response: reqwest_middleware::Result<Response>| status(&response.unwrap()).word();
    assert_eq!(word(with(CacheOptions::new().mode(CacheMode::OnlyIfCached)).await), "refused");
    assert_eq!(get(&client, &url).await.0.word(), "miss");
    assert_eq!(word(with(CacheOptions::new().mode(CacheMode::OnlyIfCached)).await), "hit");
    assert_eq!(word(with(CacheOptions::new().mode(CacheMode::Reload)).await), "miss");
    assert_eq!(word(with(CacheOptions::new().mode(CacheMode::NoStore)).await), "bypass");
    assert_eq!(scope::disabled(get(&client, &url)).await.0.word(), "bypass");
    assert_eq!(origin.count(), 4);
}

#[tokio::test]
async fn request_content_is_part_of_key() {
    let origin = Origin::start(|_| answer("hello").field("cache-control", "max-age=60")).await;
    let layer =
        CacheLayer::builder(MemoryStorage::new()).methods([Method::GET, Method::POST]).max_content_bytes(20);
    let client = cached(plain(), without_client_headers(layer.build().unwrap()));
    let post = |content: &'static str| {
        let request = client.post(origin.url("/")).header("content-type", "application/json");
        request.body(content).send()
    };
    for (content, expected) in
        [("{\"a\":1,\"b\":2}", "miss"), ("{\"b\": 2, \"a\": 1}", "hit"), ("{}", "miss"), ("", "miss")]
    {
        let response = post(content).await.unwrap();
        assert_eq!(status(&response).word(), expected, "{content}");
        assert_eq!(response.text().await.unwrap(), "hello");
    }
    let streamed =
        client.post(origin.url("/")).body(Body::wrap(http_body_util::Full::new(Bytes::from("{}"))));
    let outcome = |response: &Response| status(response).outcome();
    let not_replayable = Outcome::Bypass(BypassReason::NotReplayable);
    assert_eq!(outcome(&streamed.send().await.unwrap()), not_replayable);
    let too_long = post("a content that is too long").await.unwrap();
    assert_eq!(outcome(&too_long), Outcome::Bypass(BypassReason::ContentTooLong));
    assert_eq!(origin.count(), 5);
}

#[tokio::test]
async fn filtered_out_post_invalidates_entry() {
    let origin = Origin::start(|_| answer("hello").field("cache-control", "max-age=60")).await;
    for waits in [false, true] {
        let reads = |parts: &http::request::Parts| !parts.headers.contains_key("x-changes");
        let builder = CacheLayer::builder(MemoryStorage::new()).methods([Method::GET, Method::POST]);
        let builder = match waits {
            false => builder.filter_request(reads),
            true => builder.filter_request_async(move |parts| std::future::ready(reads(parts))),
        };
        let client = cached(plain(), without_client_headers(builder.build().unwrap()));
        let url = origin.url("/graphql");
        let post = async |name| {
            let response = client.post(&url).header(name, "1").body("{}").send().await.unwrap();
            let word = status(&response).word();
            assert_eq!(response.text().await.unwrap(), "hello");
            word
        };
        get(&client, &url).await;
        assert_eq!((post("x-reads").await, post("x-reads").await), ("miss", "hit"));
        assert_eq!(
            get(&client, &url).await.0.word(),
            "hit",
            "a POST that passes the filter does not invalidate"
        );
        assert_eq!(post("x-changes").await, "miss");
        assert_eq!(get(&client, &url).await.0.word(), "miss", "{waits}");
    }
}
