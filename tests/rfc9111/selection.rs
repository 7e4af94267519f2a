//! Stored responses that answer other requests than the one that fetched them.
//!
//! They are variants that the origin names by entity tag, responses that a HEAD confirms, and responses to POST.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::Full;
use tower_response_cache::storage::{BoxStorage, Key, Kind, MemoryStorage, Record, Storage};
use tower_response_cache::{MissReason, Outcome, Result, Stored, ValidateReason};

use crate::support::forward::forward;
use crate::support::{Fixture, Origin, ReqBody, get, get_with, not_modified, response};

const A: &str = "http://example.com/a";

type Builder = tower_response_cache::CacheLayerBuilder<BoxStorage>;

fn in_language(language: &str) -> Request<ReqBody> {
    get_with(A, &[("accept-language", language)])
}

fn asked_tags(request: &Request<ReqBody>) -> Option<&str> {
    request.headers().get(header::IF_NONE_MATCH).map(|tags| tags.to_str().unwrap())
}

/// Returns an origin that answers `de` in German, and any other language in English.
fn bilingual() -> Origin {
    Origin::new(|request| {
        let german = request.headers()["accept-language"] == "de";
        let (tag, body) = if german { ("\"de\"", "guten Tag") } else { ("\"en\"", "good day") };
        let fields = [("cache-control", "max-age=60"), ("vary", "accept-language"), ("etag", tag)];
        match asked_tags(request) {
            Some(tags) if tags.contains(tag) => not_modified(&fields),
            _ => response(&fields, body),
        }
    })
}

#[tokio::test]
async fn not_modified_selects_variant_for_new_request() {
    let cache = Fixture::new(bilingual());
    cache.ask(in_language("en")).await;
    let german = cache.ask(in_language("de")).await;
    assert_eq!(german.status.outcome(), Outcome::Miss(MissReason::Vary));
    assert_eq!(cache.origin.last()["if-none-match"], "\"en\"");
    // The request for French offers both entity tags. The variant that the 304 names is served, and stored for French
    // as well.
    let french = cache.ask(in_language("fr")).await;
    assert_eq!(cache.origin.last()["if-none-match"], "\"en\", \"de\"");
    assert!(!cache.origin.last().contains_key("if-modified-since"));
    assert_eq!(french.status.outcome(), Outcome::Revalidated(ValidateReason::Vary));
    assert_eq!((french.code, &french.body[..]), (StatusCode::OK, &b"good day"[..]));
    assert_eq!(cache.ask(in_language("fr")).await.word(), "hit");
    assert_eq!(cache.ask(in_language("de")).await.body, "guten Tag");
    assert_eq!(cache.origin.count(), 3);
}

#[tokio::test]
async fn chunked_body_never_belongs_to_two_records() {
    let cache = Fixture::with(bilingual(), MemoryStorage::new(), |builder| builder.chunk_bytes(3));
    cache.ask(in_language("en")).await;
    cache.ask(in_language("de")).await;
    for _ in 0..2 {
        let french = cache.ask(in_language("fr")).await;
        assert_eq!(french.status.outcome(), Outcome::Revalidated(ValidateReason::Vary));
        assert_eq!((french.status.stored(), &french.body[..]), (Stored::Unchanged, &b"good day"[..]));
    }
    assert_eq!(cache.origin.count(), 4);
    assert_eq!(cache.ask(in_language("en")).await.word(), "hit");
}

#[tokio::test]
async fn not_modified_for_unknown_variant_is_refetched() {
    let mut asked = 0;
    let cache = Fixture::new(Origin::new(move |request| {
        asked += 1;
        let fields = [("cache-control", "max-age=60"), ("vary", "accept-language"), ("etag", "\"1\"")];
        match asked_tags(request) {
            Some(_) => not_modified(&[("etag", "\"never heard of\"")]),
            None => response(&fields, asked.to_string()),
        }
    }));
    cache.ask(in_language("en")).await;
    let other = cache.ask(in_language("de")).await;
    assert_eq!((other.code, &other.body[..]), (StatusCode::OK, &b"3"[..]));
    assert_eq!(cache.ask(in_language("de")).await.word(), "hit");
}

#[tokio::test]
async fn not_modified_with_invalid_tag_selects_no_variant() {
    for tag in ["unquoted", "\"one\" \"two\"", ""] {
        let cache = Fixture::new(Origin::new(move |request| {
            let language = request.headers()["accept-language"].to_str().unwrap().to_owned();
            let own = format!("\"{language}\"");
            let fields =
                [("cache-control", "max-age=60"), ("vary", "accept-language"), ("etag", own.as_str())];
            if asked_tags(request).is_some() {
                not_modified(&[("etag", tag)])
            } else {
                response(&fields, language)
            }
        }));
        for language in ["en", "de", "fr"] {
            assert_eq!(cache.ask(in_language(language)).await.body, language, "{tag}");
        }
    }
}

#[tokio::test]
async fn client_conditions_are_forwarded_unmixed() {
    let cache = Fixture::new(bilingual());
    cache.ask(in_language("en")).await;
    let answer = cache.ask(get_with(A, &[("accept-language", "de"), ("if-none-match", "\"de\"")])).await;
    assert_eq!(cache.origin.last()["if-none-match"], "\"de\"");
    assert_eq!(answer.code, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn unaccepted_content_coding_is_never_selected() {
    let cache = Fixture::new(Origin::new(|request| {
        let gzip = request.headers().get("accept-encoding").is_some_and(|value| value == "gzip");
        let fields = [("cache-control", "max-age=60"), ("vary", "accept-encoding"), ("etag", "\"same\"")];
        // A careless origin uses one tag for both codings.
        if asked_tags(request).is_some() {
            return not_modified(&fields);
        }
        let mut answer = response(&fields, if gzip { "packed" } else { "plain" });
        if gzip {
            answer.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        }
        answer
    }));
    assert_eq!(cache.ask(get_with(A, &[("accept-encoding", "gzip")])).await.body, "packed");
    assert_eq!(cache.get(A).await.body, "plain");
    assert_eq!(cache.ask(get_with(A, &[("accept-encoding", "br")])).await.body, "plain");
    let both = cache.ask(get_with(A, &[("accept-encoding", "br, gzip")])).await;
    assert_eq!((both.word(), &both.body[..]), ("revalidated", &b"packed"[..]));
}

#[tokio::test]
async fn head_freshens_or_invalidates_stored_response() {
    for (tag, length, stays) in
        [("\"1\"", "4", true), ("\"2\"", "4", false), ("\"1\"", "5", false), ("W/\"1\"", "4", false)]
    {
        let cache = Fixture::new(Origin::new(move |request| {
            let head = request.method() == http::Method::HEAD;
            let fields = [("etag", if head { tag } else { "\"1\"" }), ("cache-control", "max-age=60")];
            let mut answer = response(&fields, if head { "" } else { "body" });
            if head {
                answer.headers_mut().insert("content-length", length.parse().unwrap());
                answer.headers_mut().insert("x-new", "1".parse().unwrap());
            }
            answer
        }));
        cache.get(A).await;
        cache.clock.advance(Duration::from_secs(61));
        let head = cache.ask(Request::head(A).body(Full::default()).unwrap()).await;
        assert_eq!((head.code, head.header("x-new"), head.body.len()), (StatusCode::OK, Some("1"), 0));
        let after = cache.get(A).await;
        if stays {
            assert_eq!(
                (after.word(), after.header("x-new"), &after.body[..]),
                ("hit", Some("1"), &b"body"[..])
            );
        } else {
            let invalidated = Outcome::Miss(MissReason::Invalidated);
            assert_eq!(after.status.outcome(), invalidated, "{tag} {length}");
        }
    }
}

#[tokio::test]
async fn post_response_with_content_location_serves_get() {
    let post = || Request::post(A).body(Full::from("x")).unwrap();
    for (fields, kept) in [
        (&[("cache-control", "max-age=60"), ("content-location", "/a")][..], true),
        (&[("cache-control", "max-age=60"), ("content-location", "http://EXAMPLE.com:80/a")], true),
        (&[("cache-control", "max-age=60"), ("content-location", "/b")], false),
        (&[("cache-control", "max-age=60"), ("content-location", "http://other.example/a")], false),
        (&[("cache-control", "max-age=60")], false),
        (&[("content-location", "/a"), ("etag", "\"1\"")], false),
        (&[("cache-control", "no-store, max-age=60"), ("content-location", "/a")], false),
    ] {
        let cache = Fixture::new(Origin::new(move |request| {
            let posted = request.method() == http::Method::POST;
            response(fields, if posted { "posted" } else { "got" })
        }));
        cache.get(A).await;
        let posted = cache.ask(post()).await;
        assert_eq!(posted.status.outcome(), Outcome::Miss(MissReason::Method));
        assert_eq!(posted.body, "posted", "a POST is never answered from the storage");
        let after = cache.get(A).await;
        let expected = if kept { ("hit", "posted") } else { ("miss", "got") };
        assert_eq!((after.word(), std::str::from_utf8(&after.body).unwrap()), expected, "{fields:?}");
        assert_eq!(cache.ask(post()).await.word(), "miss");
    }
}

#[tokio::test]
async fn listed_fields_are_omitted_on_reuse() {
    let listed = "max-age=60, no-cache=\"x-a\", private=\"X-B\"";
    let fields = [("cache-control", listed), ("x-a", "1"), ("x-b", "2"), ("etag", "\"1\"")];
    let shared = Fixture::shared(Origin::new(move |request| {
        if asked_tags(request).is_some() { not_modified(&fields) } else { response(&fields, "") }
    }));
    let first = shared.get(A).await;
    assert_eq!((first.header("x-a"), first.header("x-b")), (Some("1"), Some("2")));
    // A 304 gives the fields to the one request that it answers (§5.2.2.4), and to no other.
    for (pause, word, a, b) in
        [(0, "hit", None, None), (61, "revalidated", Some("1"), Some("2")), (0, "hit", None, None)]
    {
        shared.clock.advance(Duration::from_secs(pause));
        let again = shared.get(A).await;
        assert_eq!((again.word(), again.header("x-a"), again.header("x-b")), (word, a, b));
    }
    let private = Fixture::new(Origin::new(move |_| response(&fields, "")));
    private.get(A).await;
    let second = private.get(A).await;
    assert_eq!((second.word(), second.header("x-a"), second.header("x-b")), ("hit", None, Some("2")));
}

#[tokio::test]
async fn stale_when_disconnected_respects_directives() {
    for (directives, asked, served) in [
        ("max-age=1", "", true),
        ("max-age=1, must-revalidate", "", false),
        ("max-age=1, no-cache", "", false),
        ("max-age=1, stale-if-error=5", "", false), // the response itself sets the limit
        ("max-age=1", "no-cache", false),
        ("max-age=1", "max-stale=2", false),
        ("s-maxage=1", "", false),
    ] {
        let (clock, mock) = tower_response_cache::Clock::mock();
        let layer = tower_response_cache::CacheLayer::builder(MemoryStorage::new())
            .clock(clock)
            .shared(true)
            .stale_when_disconnected(true)
            .build()
            .unwrap();
        let mut up = true;
        let inner = tower::service_fn(move |_: Request<ReqBody>| {
            let answer =
                if up { Ok(response(&[("cache-control", directives)], "stored")) } else { Err("down") };
            up = false;
            std::future::ready(answer)
        });
        let inner = tower::util::BoxCloneSyncService::new(tower::buffer::Buffer::new(inner, 8));
        let service = tower::Layer::layer(&layer, inner);
        let ask = |request| tower::ServiceExt::oneshot(service.clone(), request);
        crate::support::Answer::read(ask(get(A)).await.unwrap()).await;
        mock.advance(Duration::from_secs(3600));
        let request = if asked.is_empty() { get(A) } else { get_with(A, &[("cache-control", asked)]) };
        match ask(request).await {
            Ok(response) => {
                assert!(served, "{directives} {asked}");
                let answer = crate::support::Answer::read(response).await;
                assert_eq!((answer.word(), &answer.body[..]), ("stale", &b"stored"[..]));
                assert_eq!(answer.header("age"), Some("3600"));
            }
            Err(error) => {
                assert!(!served, "{directives} {asked}");
                assert_eq!(error.to_string(), "down");
            }
        }
    }
}

#[tokio::test]
async fn no_store_not_modified_invalidates_stored_response() {
    let cache = Fixture::new(Origin::new(|request| {
        let asked = asked_tags(request).is_some();
        let fields = [("cache-control", if asked { "no-store" } else { "max-age=60" }), ("etag", "\"1\"")];
        if asked { not_modified(&fields) } else { response(&fields, "body") }
    }));
    cache.get(A).await;
    let confirmed = cache.ask(get_with(A, &[("cache-control", "no-cache")])).await;
    assert_eq!((confirmed.word(), &confirmed.body[..]), ("revalidated", &b"body"[..]));
    assert_eq!(confirmed.status.stored(), Stored::No(tower_response_cache::NotStored::ResponseNoStore));
    assert_eq!(cache.get(A).await.word(), "miss");
}

#[tokio::test]
async fn unstored_newer_response_supersedes_older() {
    for newer in ["no-store", "max-age=0"] {
        let mut count = 0;
        let cache = Fixture::new(Origin::new(move |_| {
            count += 1;
            response(&[("cache-control", if count == 2 { newer } else { "max-age=60" })], count.to_string())
        }));
        assert_eq!(cache.get(A).await.body, "1");
        assert_eq!(cache.ask(get_with(A, &[("cache-control", "no-cache")])).await.body, "2");
        let third = cache.get(A).await;
        assert_eq!((third.word(), &third.body[..]), ("miss", &b"3"[..]), "{newer}");
        assert_eq!(cache.get(A).await.word(), "hit");
    }
}

#[tokio::test]
async fn credentialed_variant_is_never_offered_to_others() {
    let cache = Fixture::new(Origin::new(|request| {
        let user = request.headers().get("authorization").map_or("nobody", |user| user.to_str().unwrap());
        let fields = [("cache-control", "max-age=60"), ("etag", "\"one tag for all\"")];
        // A careless origin names a version by its tag, which is the same for every user.
        if asked_tags(request).is_some() { not_modified(&fields) } else { response(&fields, user.to_owned()) }
    }));
    let first_with = |user: Option<&'static str>| match user {
        Some(user) => get_with(A, &[("authorization", user)]),
        None => get(A),
    };
    for order in [[Some("a"), Some("b"), None], [None, Some("b"), Some("a")], [Some("a"), None, Some("b")]] {
        for user in order {
            assert_eq!(cache.ask(first_with(user)).await.body, user.unwrap_or("nobody"));
        }
        cache.ask(Request::post(A).body(Full::default()).unwrap()).await;
    }
}

/// A memory storage that loses writes of index records while `forgets` is set.
#[derive(Clone)]
struct Forgetful {
    inner: MemoryStorage,
    forgets: Arc<AtomicBool>,
}

impl Storage for Forgetful {
    forward!(inner: read, delete, clear, keys);

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        if key.kind == Kind::Index && self.forgets.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.inner.write(key, record).await
    }
}

#[tokio::test]
async fn changed_variant_is_not_served_for_old_tag() {
    let forgets = Arc::new(AtomicBool::new(false));
    let storage = Forgetful { inner: MemoryStorage::new(), forgets: Arc::clone(&forgets) };
    let mut version = 0;
    let origin = Origin::new(move |request| {
        version += 1;
        let language = request.headers()["accept-language"].to_str().unwrap().to_owned();
        let tag = format!("\"{version}\"");
        let fields = [("cache-control", "max-age=60"), ("vary", "accept-language"), ("etag", tag.as_str())];
        // For French, the origin confirms the earlier German version.
        match asked_tags(request) {
            Some(tags) if language == "fr" && tags.contains("\"2\"") => not_modified(&[("etag", "\"2\"")]),
            _ => response(&fields, format!("{language} {version}")),
        }
    });
    let cache = Fixture::with(origin, storage, |builder| builder);
    cache.ask(in_language("en")).await;
    cache.ask(in_language("de")).await;
    forgets.store(true, Ordering::SeqCst);
    cache.clock.advance(Duration::from_secs(61));
    assert_eq!(cache.ask(in_language("de")).await.body, "de 3");
    let french = cache.ask(in_language("fr")).await;
    assert_eq!((french.word(), &french.body[..]), ("miss", &b"fr 5"[..]));
}

/// Returns an origin that builds its links from the Host field.
fn by_host() -> Origin {
    Origin::new(|request| {
        let hosts: Vec<_> =
            request.headers().get_all("host").iter().map(|host| host.to_str().unwrap()).collect();
        let body = format!("<script src=//{}/x.js>", hosts.join("+"));
        response(&[("cache-control", "max-age=60")], body)
    })
}

#[tokio::test]
async fn differing_host_field_selects_variant() {
    let settings: [fn(Builder) -> Builder; 3] =
        [|builder| builder, |builder| builder.shared(true), |builder| builder.key_all_headers(true)];
    for settings in settings {
        let cache = Fixture::with(by_host(), MemoryStorage::new(), settings);
        for word in ["miss", "hit"] {
            for (uri, host) in [
                ("http://victim.example/", "evil.example"),
                ("http://victim.example/", "victim.example:80"),
                ("http://10.0.0.1/", "a.example"),
                ("http://10.0.0.1/", "b.example"),
                ("http://victim.example:80/p", "victim.example:80"),
                ("/", "victim.example"),
                ("/p", "victim.example"),
            ] {
                let answer = cache.ask(get_with(uri, &[("host", host)])).await;
                assert_eq!(
                    (answer.word(), &answer.body[..]),
                    (word, format!("<script src=//{host}/x.js>").as_bytes())
                );
            }
        }
    }
}

#[tokio::test]
async fn matching_host_field_shares_entry() {
    let cache = Fixture::new(by_host());
    assert_eq!(cache.ask(get("http://Example.com:80/")).await.word(), "miss");
    for (uri, host) in [
        ("http://example.com/", "EXAMPLE.com"),
        ("/", "example.com"),
        ("http://example.com:80/", "example.com"),
    ] {
        assert_eq!(cache.ask(get_with(uri, &[("host", host)])).await.word(), "hit", "{uri} {host}");
    }
}

#[tokio::test]
async fn unsafe_request_invalidates_all_host_variants() {
    let cache = Fixture::shared(by_host());
    let evil = || get_with("http://a.example/", &[("host", "b.example")]);
    cache.get("http://a.example/").await;
    cache.ask(evil()).await;
    assert_eq!(cache.ask(evil()).await.word(), "hit");
    cache.ask(Request::put("http://a.example/").body(Full::from("x")).unwrap()).await;
    assert_eq!(cache.ask(evil()).await.word(), "miss");
    assert_eq!(cache.get("http://a.example/").await.word(), "miss");
}

#[tokio::test]
async fn malformed_host_fields_bypass() {
    let cache = Fixture::shared(by_host());
    for host in ["shop.example:+81", "shop.example:x", "a@b", "a b", "a/b", "", ":80", "shop.example:99999"] {
        for uri in ["/", "http://shop.example/"] {
            assert_eq!(cache.ask(get_with(uri, &[("host", host)])).await.word(), "bypass", "{uri} {host}");
        }
    }
    let two = [("host", "shop.example"), ("host", "shop.example")];
    assert_eq!(cache.ask(get_with("http://shop.example/", &two)).await.word(), "bypass");
    assert_eq!(cache.ask(get_with("http://shop.example/", &[])).await.word(), "miss");
}

#[tokio::test]
async fn host_port_selects_variant() {
    let settings: [fn(Builder) -> Builder; 2] = [
        |builder| builder.shared(true),
        |builder| builder.shared(true).default_scheme(http::uri::Scheme::HTTPS),
    ];
    for settings in settings {
        let cache = Fixture::with(by_host(), MemoryStorage::new(), settings);
        for word in ["miss", "hit"] {
            for host in
                ["shop.example:80", "shop.example:", "shop.example:0080", "shop.example", "shop.example:443"]
            {
                let answer = cache.ask(get_with("/", &[("host", host)])).await;
                assert_eq!(
                    (answer.word(), &answer.body[..]),
                    (word, format!("<script src=//{host}/x.js>").as_bytes())
                );
            }
        }
    }
}

#[tokio::test]
async fn unsafe_request_invalidates_both_schemes() {
    let put = |uri: &str, version| {
        let put = Request::put(uri).header("host", "shop.example").version(version);
        put.body(Full::from("x")).unwrap()
    };
    let (absolute, origin_form) = ("https://shop.example/", || get_with("/", &[("host", "shop.example")]));
    let cache = Fixture::shared(by_host());
    cache.get(absolute).await;
    cache.ask(put("/", http::Version::HTTP_11)).await;
    assert_eq!(cache.get(absolute).await.word(), "miss");
    cache.ask(origin_form()).await;
    cache.ask(put(absolute, http::Version::HTTP_2)).await;
    assert_eq!(cache.ask(origin_form()).await.word(), "miss");
    // By `default_scheme`, the user states that the two are not the same.
    let cache = Fixture::with(by_host(), MemoryStorage::new(), |builder| {
        builder.shared(true).default_scheme(http::uri::Scheme::HTTP)
    });
    cache.get(absolute).await;
    cache.ask(put("/", http::Version::HTTP_11)).await;
    assert_eq!(cache.get(absolute).await.word(), "hit");
}

#[tokio::test]
async fn client_unsafe_request_leaves_other_scheme() {
    let cache = Fixture::new(by_host());
    cache.get("http://shop.example/").await;
    cache.ask(Request::put("https://shop.example/").body(Full::from("x")).unwrap()).await;
    assert_eq!(cache.get("http://shop.example/").await.word(), "hit");
}

/// Returns an origin whose only tag is that of its template, as many frameworks do.
fn one_tag() -> Origin {
    Origin::new(|request| {
        let fields = [("cache-control", "max-age=60"), ("etag", "\"v1\""), ("vary", "accept-language")];
        if asked_tags(request).is_some() {
            return not_modified(&fields);
        }
        let tenant = request.headers().get("x-tenant").or(request.headers().get("host"));
        let tenant = tenant.map_or("all", |tenant| tenant.to_str().unwrap());
        response(&fields, format!("{} of {tenant}", request.method()))
    })
}

#[tokio::test]
async fn entity_tags_never_cross_user_keys() {
    let settings: [fn(Builder) -> Builder; 3] = [
        |builder| builder.key_headers([http::HeaderName::from_static("x-tenant")]),
        |builder| builder.shared(true).key_headers([http::HeaderName::from_static("x-tenant")]),
        |builder| builder.key_all_headers(true),
    ];
    for settings in settings {
        let cache = Fixture::with(one_tag(), MemoryStorage::new(), settings);
        for tenant in ["alice", "bob", "carol", "alice"] {
            let answer = cache.ask(get_with(A, &[("x-tenant", tenant)])).await;
            assert_eq!(answer.body, format!("GET of {tenant}"));
        }
        assert_eq!(cache.get(A).await.body, "GET of all");
    }
}

#[tokio::test]
async fn entity_tags_never_cross_host_fields() {
    let cache = Fixture::new(one_tag());
    for host in ["a.example", "b.example", "example.com", "a.example"] {
        assert_eq!(cache.ask(get_with(A, &[("host", host)])).await.body, format!("GET of {host}"));
    }
}

#[tokio::test]
async fn requests_without_keyed_header_share_entity_tags() {
    let cache = Fixture::with(one_tag(), MemoryStorage::new(), |builder| {
        builder.key_headers([http::HeaderName::from_static("x-tenant")])
    });
    cache.ask(in_language("en")).await;
    let german = cache.ask(in_language("de")).await;
    assert_eq!(german.status.outcome(), Outcome::Revalidated(ValidateReason::Vary));
}

#[cfg(feature = "content-keys")]
#[tokio::test]
async fn get_never_reuses_post_response() {
    let cache = Fixture::with(one_tag(), MemoryStorage::new(), |builder| {
        builder.shared(true).methods([http::Method::GET, http::Method::POST])
    });
    cache.ask(Request::post(A).body(Full::from("q=private")).unwrap()).await;
    assert_eq!(cache.get(A).await.body, "GET of all");
    cache.ask(Request::post(A).body(Full::from("q=other")).unwrap()).await;
    assert_eq!(cache.ask(in_language("de")).await.body, "GET of all");
}
