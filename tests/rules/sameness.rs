//! Which requests count as the same.

use std::time::Duration;

use futures_util::StreamExt;
use http::{HeaderName, Request, header};
use tower_response_cache::storage::{BoxStorage, MemoryStorage, Storage};
use tower_response_cache::{CacheLayerBuilder, Rule, Rules, Ttl};

use crate::support::{Fixture, Origin, ReqBody, get_with, response};

fn fixture(settings: impl FnOnce(CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage>) -> Fixture {
    on(MemoryStorage::new(), settings)
}

fn on(
    storage: MemoryStorage,
    settings: impl FnOnce(CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage>,
) -> Fixture {
    let origin = Origin::new(|request| {
        let location = request.headers().get("x-location").map(|value| value.to_str().unwrap().to_owned());
        let mut response = response(&[("cache-control", "max-age=60")], request.uri().to_string());
        if let Some(location) = location {
            response.headers_mut().insert("location", location.parse().unwrap());
        }
        response
    });
    Fixture::with(origin, storage, settings)
}

async fn words<const N: usize>(fixture: &Fixture, uris: [&str; N]) -> [&'static str; N] {
    let mut words = [""; N];
    for (word, uri) in words.iter_mut().zip(uris) {
        *word = fixture.get(uri).await.word();
    }
    words
}

fn post(uri: &str, fields: &[(&str, &str)]) -> Request<ReqBody> {
    let builder =
        fields.iter().fold(Request::post(uri), |builder, (name, value)| builder.header(*name, *value));
    builder.body(ReqBody::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn ignored_query_params_do_not_affect_key() {
    let fixture = fixture(|builder| builder.ignore_query_params(["token", "utm source"]).sort_query(true));
    let uris = [
        "http://a/?b=1&token=x&a=2",
        "http://a/?a=2&b=1&token=y",
        "http://a/?utm+source=z&a=2&b=1",
        "http://a/?a=2&b=2",
        "http://a/?Token=x&a=2&b=1",
    ];
    assert_eq!(words(&fixture, uris).await, ["miss", "hit", "hit", "miss", "miss"]);
    assert_eq!(fixture.get(uris[1]).await.body, uris[0]);
}

#[tokio::test(start_paused = true)]
async fn stored_records_omit_ignored_query_params() {
    let storage = MemoryStorage::new();
    let fixture = on(storage.clone(), |builder| {
        builder.ignore_query_params(["token"]).key_headers(["x-key".parse().unwrap()])
    });
    fixture.ask(get_with("http://a/?token=sesame&b=1", &[("x-key", "sesame")])).await;
    fixture.layer.idle().await;
    let mut records = std::pin::pin!(storage.values());
    let mut seen = 0;
    while let Some(record) = records.next().await {
        let bytes = record.unwrap().1.to_bytes();
        // The body may contain the parameter, because the origin chose to echo the URI.
        let place = |text: &[u8]| bytes.windows(text.len()).position(|part| part == text);
        let end = place(b"http://a/?token=sesame&b=1").unwrap();
        assert!(place(b"http://a/?b=1").is_some() && place(b"sesame").unwrap() > end);
        seen += 1;
    }
    assert_eq!(seen, 1);
}

#[tokio::test(start_paused = true)]
async fn unsafe_request_invalidates_by_normalized_key() {
    let fixture = fixture(|builder| builder.ignore_query_params(["token"]));
    assert_eq!(words(&fixture, ["http://a/x?token=1", "http://a/y?token=1"]).await, ["miss"; 2]);
    fixture.ask(post("http://a/x?token=2", &[("x-location", "/y?token=3")])).await;
    assert_eq!(words(&fixture, ["http://a/x", "http://a/y"]).await, ["miss"; 2]);
}

#[tokio::test(start_paused = true)]
async fn keyed_headers_separate_responses_without_vary() {
    let tenant = || HeaderName::from_static("x-tenant");
    let storage = MemoryStorage::new();
    let without_settings = on(storage.clone(), |builder| builder);
    without_settings.get("http://a/").await;
    let fixture = on(storage, |builder| builder.key_headers([tenant()]));
    let of = |who: &str| get_with("http://a/", &[("x-tenant", who)]);
    // A response that was stored without the field in its key is not reused, because its tenant is unknown.
    assert_eq!(fixture.get("http://a/").await.word(), "miss");
    for (who, expected) in [("a", "miss"), ("b", "miss"), ("a", "hit"), ("b", "hit")] {
        assert_eq!(fixture.ask(of(who)).await.word(), expected, "{who}");
    }
    assert_eq!(fixture.get("http://a/").await.word(), "hit");
    fixture.ask(post("http://a/", &[("x-tenant", "c")])).await;
    assert_eq!(fixture.ask(of("a")).await.word(), "miss", "all tenants' responses are invalidated");
}

#[tokio::test(start_paused = true)]
async fn key_all_headers_omits_cache_and_ignored_headers() {
    let fixture =
        fixture(|builder| builder.key_all_headers(true).ignore_headers([HeaderName::from_static("x-trace")]));
    for (fields, expected) in [
        (&[("x-a", "1")][..], "miss"),
        (&[("x-a", "1"), ("x-trace", "7")], "hit"),
        (&[("x-a", "1"), ("cache-control", "max-age=60")], "hit"),
        (&[("x-a", "2")], "miss"),
        (&[("x-a", "1"), ("x-b", "1")], "miss"),
        (&[("x-b", "1"), ("x-a", "1")], "hit"),
        (&[("x-a", "1"), ("x-a", "2")], "miss"),
        (&[], "miss"),
    ] {
        assert_eq!(fixture.ask(get_with("http://a/", fields)).await.word(), expected, "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn ignored_header_does_not_select_despite_vary() {
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60"), ("vary", "x-a, x-b")], "body"));
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
        builder.ignore_headers([HeaderName::from_static("x-a"), header::AUTHORIZATION])
    });
    for (fields, expected) in [
        (&[("x-a", "1"), ("authorization", "a")][..], "miss"),
        (&[("x-a", "2"), ("authorization", "b")], "hit"),
        (&[("x-b", "1")], "miss"),
    ] {
        assert_eq!(fixture.ask(get_with("http://a/", fields)).await.word(), expected, "{fields:?}");
    }
}

type Settings = fn(CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage>;

/// Returns a copy of a storage.
async fn copy_of(storage: &MemoryStorage) -> MemoryStorage {
    let copy = MemoryStorage::new();
    let mut values = std::pin::pin!(storage.values());
    while let Some(value) = values.next().await {
        let (key, record) = value.unwrap();
        copy.write(key, record).await.unwrap();
    }
    copy
}

/// A storage outlives the settings under which it was filled.
///
/// A response that was stored while fewer fields distinguished requests must not answer another user.
#[tokio::test]
async fn reverted_key_setting_serves_no_earlier_response() {
    const USER: HeaderName = HeaderName::from_static("x-user");
    let plain: Settings = |b| b;
    let shared: Settings = |b| b.shared(true);
    let no_cookie: Settings = |b| b.ignore_cookie(true);
    let no_cookie_at_all: Settings = |b| b.ignore_headers([header::COOKIE]);
    let no_authorization: Settings = |b| b.ignore_headers([header::AUTHORIZATION]);
    let no_user: Settings = |b| b.ignore_headers([USER]);
    let record: Settings = |b| b.record(true);
    let replay: Settings = |b| b.replay(true);
    let shared_no_user: Settings = |b| b.shared(true).ignore_headers([USER]);
    let all: Settings = |b| b.key_all_headers(true);
    let all_no_user: Settings = |b| b.key_all_headers(true).ignore_headers([USER]);
    let session: Settings = |b| b.key_cookies(["session"]);
    let theme: Settings = |b| b.key_cookies(["theme"]);
    let theme_all: Settings = |b| b.key_all_headers(true).key_cookies(["theme"]);
    let shared_theme: Settings = |b| b.shared(true).key_cookies(["theme"]);
    let shared_session: Settings = |b| b.shared(true).key_cookies(["session"]);
    // The field by which two users differ, the fields that Vary names, the settings before and after, and whether the
    // response stored before answers the other user.
    for (field, vary, before, after, answers) in [
        ("cookie", "", no_cookie, plain, false),
        ("cookie", "", no_cookie, no_cookie_at_all, true),
        ("cookie", "", no_cookie_at_all, no_cookie, true),
        ("cookie", "", no_cookie_at_all, plain, false),
        ("cookie", "cookie", no_cookie_at_all, no_cookie, false),
        ("authorization", "", no_authorization, plain, false),
        ("authorization", "", no_authorization, no_authorization, true),
        ("authorization", "", record, plain, false),
        ("authorization", "", record, replay, true),
        ("x-user", "x-user", no_user, plain, false),
        ("x-user", "x-user", no_user, no_user, true),
        ("x-user", "x-user", shared_no_user, shared, false),
        ("x-user", "x-user", record, plain, false),
        ("x-user", "*", record, plain, false),
        ("x-user", "x-user", all_no_user, all, false),
        ("cookie", "", theme, plain, false),
        ("cookie", "", theme, session, false),
        ("cookie", "", theme, theme, true),
        ("cookie", "", theme_all, all, false),
        ("cookie", "cookie", shared_theme, shared, false),
        ("cookie", "cookie", shared_theme, shared_session, false),
        // Here the settings do not concern the field.
        ("x-tenant", "", shared_theme, shared, true),
        ("x-tenant", "", no_user, plain, true),
        ("x-tenant", "accept", no_cookie, no_cookie, true),
    ] {
        let storage = MemoryStorage::new();
        let origin = Origin::new(move |request| {
            let user = request.headers().get(field).map_or("nobody", |user| user.to_str().unwrap());
            response(&[("cache-control", "max-age=60"), ("vary", vary)], user.to_owned())
        });
        let cache = Fixture::with(origin.clone(), storage.clone(), before);
        cache.ask(get_with("http://example.com/", &[(field, "alice")])).await;
        cache.layer.idle().await;
        for other in [&[(field, "bob")][..], &[]] {
            let cache = Fixture::with(origin.clone(), copy_of(&storage).await, after);
            let answer = cache.ask(get_with("http://example.com/", other)).await;
            assert_eq!(answer.status.is_hit(), answers, "{field} {vary} {other:?}: {answer:?}");
        }
    }
}

/// The same for query parameters.
#[tokio::test]
async fn reverted_query_setting_serves_no_earlier_response() {
    let plain: Settings = |b| b;
    let no_lang: Settings = |b| b.ignore_query_params(["lang"]);
    let no_lang_here: Settings = |b| b.ignore_query_params_for("a/x", ["l*"]);
    let no_lang_elsewhere: Settings = |b| b.ignore_query_params_for("a/y", ["lang"]);
    let only_page: Settings = |b| b.only_query_params(["page"]);
    let sorted: Settings = |b| b.sort_query(true);
    let named: Settings = |b| b.ignore_query_params(["lang"]).key_fn(|_| Some("name".to_owned()));
    let named_plain: Settings = |b| b.key_fn(|_| Some("name".to_owned()));
    for (stored, before, asked, after, answers) in [
        ("http://a/x?lang=de", no_lang, "http://a/x", plain, false),
        ("http://a/x?lang=de", no_lang, "http://a/x", only_page, false),
        ("http://a/x?lang=de", no_lang, "http://a/x", no_lang_here, false),
        ("http://a/x?lang=de", no_lang, "http://a/x", no_lang_elsewhere, false),
        ("http://a/x?lang=de", no_lang, "http://a/x", no_lang, true),
        ("http://a/x?lang=de", no_lang_here, "http://a/x", plain, false),
        ("http://a/x?lang=de", only_page, "http://a/x", plain, false),
        ("http://a/x?b=1&a=2", sorted, "http://a/x?a=2&b=1", plain, false),
        // A response to exactly this URL answers each request that the settings call the same.
        ("http://a/x", plain, "http://a/x?lang=de", no_lang, true),
        ("http://a/x", no_lang_elsewhere, "http://a/x", plain, true),
        ("http://a/x?page=1", plain, "http://a/x?lang=de&page=1", only_page, true),
        // A name does not depend on the query.
        ("http://a/x?lang=de", named, "http://a/x", named_plain, true),
    ] {
        let storage = MemoryStorage::new();
        let cache = on(storage.clone(), before);
        cache.get(stored).await;
        cache.layer.idle().await;
        let copy = copy_of(&storage).await;
        let answer = on(storage, after).get(asked).await;
        assert_eq!(answer.status.is_hit(), answers, "{stored} {asked}: {answer:?}");
        // The handle finds what a request would be answered with.
        let found = on(copy, after).layer.handle().has(&Request::get(asked).body(()).unwrap()).await.unwrap();
        assert_eq!(found, answers, "{stored} {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_query_params_ignores_all_others() {
    let fixture = fixture(|builder| {
        builder
            .ignore_query_params(["utm_*"])
            .only_query_params_for("a/list", ["page"])
            .only_query_params_for::<&str>("a/static/**", [])
    });
    let uris = [
        "http://a/list?page=1&x=1",
        "http://a/list?y=2&page=1&utm_source=z",
        "http://a/list?PAGE=1",
        "http://a/list?page[]=1",
        "http://a/list",
        "http://a/static/logo?v=1",
        "http://a/static/logo",
        "http://a/other?x=1&utm_id=1",
        "http://a/other?x=1",
        "http://a/other?x=2",
    ];
    let expected = ["miss", "hit", "miss", "miss", "miss", "miss", "hit", "miss", "hit", "miss"];
    assert_eq!(words(&fixture, uris).await, expected);
    assert_eq!(fixture.get(uris[1]).await.body, uris[0], "the request is forwarded unchanged");
}

#[tokio::test(start_paused = true)]
async fn invalidation_and_handle_use_only_query_params() {
    let fixture = fixture(|builder| builder.only_query_params_for("a/**", ["page"]));
    let uris = ["http://a/x?page=1&t=1", "http://a/y?page=1&t=1", "http://a/z?t=1"];
    assert_eq!(words(&fixture, uris).await, ["miss"; 3]);
    fixture.layer.idle().await;
    let handle = fixture.layer.handle();
    assert!(handle.has_url("http://a/z?t=2").await.unwrap());
    assert_eq!(handle.delete_url("http://a/z?t=3").await.unwrap(), 1);
    fixture.ask(post("http://a/x?t=2&page=1", &[("x-location", "/y?t=3&page=1")])).await;
    assert_eq!(words(&fixture, ["http://a/x?page=1", "http://a/y?page=1", "http://a/z"]).await, ["miss"; 3]);
}

#[tokio::test(start_paused = true)]
async fn only_key_cookies_tell_requests_apart() {
    let cookie = |value: &'static str| vec![("cookie", value)];
    let lines = vec![("cookie", "session=5"), ("cookie", "theme=dark; a=1")];
    let requests = [
        (cookie("theme=dark; session=1"), "miss"),
        (cookie("session=2;theme=dark;  a=\"b\""), "hit"),
        (lines, "hit"),
        (cookie("theme=light; session=1"), "miss"),
        (cookie("session=1"), "miss"),
        (cookie("session=3; xtheme=dark; themes=dark"), "hit"),
        (vec![], "hit"),
        // Servers differ in what they read from these.
        (cookie("Theme=dark"), "miss"),
        (cookie("theme=light; theme=dark"), "miss"),
        (cookie("theme=dark; theme=light"), "miss"),
        (cookie("a=\"b; theme=dark; c=\""), "miss"),
        (cookie("a=\"\\\"; theme=dark"), "miss"),
        (cookie("a=1, theme=dark"), "miss"),
        (cookie("=theme=dark"), "miss"),
        (cookie("%74heme=dark"), "miss"),
    ];
    for (shared, vary, all) in [(false, "", false), (true, "cookie", false), (true, "", true)] {
        let origin =
            Origin::new(move |_| response(&[("cache-control", "max-age=60"), ("vary", vary)], "body"));
        let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
            builder.shared(shared).key_all_headers(all).key_cookies(["theme"])
        });
        for (fields, expected) in &requests {
            let answer = fixture.ask(get_with("http://a/", fields)).await;
            assert_eq!(answer.word(), *expected, "{shared} {vary} {fields:?}");
        }
    }
}

/// A response that no counted cookie selects is not for one user.
#[tokio::test(start_paused = true)]
async fn uncounted_cookies_make_no_response_personal() {
    let fixture = fixture(|builder| builder.key_cookies(["session"]));
    let requests = [("http://a/1", "seen=1", false), ("http://a/2", "session=1", true)];
    for (uri, cookie, personal) in requests {
        fixture.ask(get_with(uri, &[("cookie", cookie)])).await;
        fixture.layer.idle().await;
        let request = get_with(uri, &[("cookie", cookie)]);
        let entry = fixture.layer.handle().get(&request).await.unwrap().unwrap();
        assert_eq!(entry.is_personal(), personal, "{cookie}");
    }
}

#[tokio::test(start_paused = true)]
async fn key_fn_applies_to_lookup_and_invalidation() {
    let fixture = fixture(|builder| {
        builder.key_fn(|request| {
            Some(request.uri.path().strip_prefix("/mirror/")?.split_once('/')?.1.to_owned())
        })
    });
    let uris = [
        "http://a/mirror/1/file",
        "http://b/mirror/2/file",
        "http://a/mirror/1/other",
        "http://a/file",
        "http://b/file",
    ];
    assert_eq!(words(&fixture, uris).await, ["miss", "hit", "miss", "miss", "miss"]);
    fixture.ask(post("http://c/mirror/9/file", &[("x-location", "/mirror/3/other")])).await;
    assert_eq!(words(&fixture, uris).await, ["miss", "hit", "miss", "hit", "hit"]);
    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(words(&fixture, uris).await, ["miss", "hit", "miss", "miss", "miss"]);
}

#[tokio::test(start_paused = true)]
async fn shared_cache_never_serves_private_cache_entries() {
    let storage = MemoryStorage::new();
    let origin =
        || Origin::always(http::Response::builder().header("cache-control", "private, max-age=60"), "mine");
    let private = Fixture::with(origin(), storage.clone(), |builder| builder);
    let shared = Fixture::with(origin(), storage, |builder| builder.shared(true));
    private.get("http://example.com/").await;
    assert_eq!(private.get("http://example.com/").await.word(), "hit");
    assert_eq!(shared.get("http://example.com/").await.word(), "miss");
}

#[tokio::test(start_paused = true)]
async fn query_with_semicolon_is_kept_verbatim() {
    let fixture =
        fixture(|builder| builder.shared(true).ignore_query_params(["utm_source"]).sort_query(true));
    let uris = [
        "http://a/?page=1&utm_source=x;page=evil",
        "http://a/?page=1",
        "http://a/?page=1&a=2;page=evil",
        "http://a/?a=2;page=evil&page=1",
    ];
    assert_eq!(words(&fixture, uris).await, ["miss"; 4]);
    assert_eq!(words(&fixture, uris).await, ["hit"; 4]);
}

#[tokio::test(start_paused = true)]
async fn rules_do_not_see_ignored_query_params() {
    let fixture = fixture(|builder| {
        let rule = Rule::new().url("example.com/me?").override_ttl(Ttl::DoNotStore);
        builder.ignore_query_params(["utm_source"]).rules(Rules::new().rule(rule))
    });
    let uris = ["http://example.com/me", "http://example.com/me?utm_source=x", "http://example.com/me"];
    assert_eq!(words(&fixture, uris).await, ["miss"; 3]);
}

#[tokio::test(start_paused = true)]
async fn keyed_header_values_are_compared_verbatim() {
    let fixture = fixture(|builder| builder.key_headers([HeaderName::from_static("x-user")]));
    for user in ["key,", "key", "a, b", "a,b"] {
        assert_eq!(fixture.ask(get_with("http://a/", &[("x-user", user)])).await.word(), "miss", "{user}");
    }
    let lines = get_with("http://a/", &[("x-user", "a"), ("x-user", "b")]);
    assert_eq!(fixture.ask(lines).await.word(), "miss");
}
