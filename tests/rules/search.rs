//! Responses that answer several queries of a path (No-Vary-Search).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use http::Request;
use tower_response_cache::storage::{BoxStorage, Key, MemoryStorage, Record, Storage};
use tower_response_cache::{CacheLayerBuilder, EntryFilter, Result, Rule, Rules};

use crate::support::faulty::{Faulty, Mode};
use crate::support::forward::forward;
use crate::support::{Fixture, Origin, ReqBody, get_with, has_tag, not_modified, response};

const UTM: &str = "params=(\"utm\")";
/// How long the first response of a value answers other queries.
const FIRST: Duration = Duration::from_secs(8 * 60);

/// A cache over an origin that sends the current value of the field, if any, and its URL as the body.
struct Site {
    cache: Fixture,
    field: Arc<Mutex<&'static str>>,
}

impl Site {
    fn new(field: &'static str) -> Self {
        Self::on(MemoryStorage::new(), field, |builder| builder)
    }

    fn on(
        storage: impl Storage,
        field: &'static str,
        settings: impl FnOnce(CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage>,
    ) -> Self {
        let field = Arc::new(Mutex::new(field));
        let current = Arc::clone(&field);
        let origin = Origin::new(move |request| {
            let field = *current.lock().unwrap();
            let tag = format!("\"{}\"", request.uri().path());
            let mut fields = vec![("cache-control", "max-age=3600"), ("etag", &*tag)];
            if !field.is_empty() {
                fields.push(("no-vary-search", field));
            }
            match has_tag(request, &tag) {
                true => not_modified(&fields),
                false => response(&fields, request.uri().to_string()),
            }
        });
        Self { cache: Fixture::with(origin, storage, settings), field }
    }

    fn send_field(&self, field: &'static str) {
        *self.field.lock().unwrap() = field;
    }

    async fn word(&self, uri: &str) -> &'static str {
        self.cache.get(uri).await.word()
    }

    async fn words<const N: usize>(&self, uris: [&str; N]) -> [&'static str; N] {
        let mut words = [""; N];
        for (word, uri) in words.iter_mut().zip(uris) {
            *word = self.word(uri).await;
        }
        words
    }

    async fn post(&self, uri: &str) {
        self.cache.ask(Request::post(uri).body(ReqBody::default()).unwrap()).await;
    }

    /// Makes the cache know the field of a path, so that further responses are stored for all equivalent queries.
    async fn learn(&self, uri: &str) {
        self.word(uri).await;
        self.cache.clock.advance(FIRST + Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn equivalent_queries_share_a_response() {
    for (field, uris, words) in [
        (
            UTM,
            ["http://a/x?id=1&utm=1", "http://a/x?utm=2&id=1", "http://a/x?id=1", "http://a/x?id=2"],
            "mhhm",
        ),
        (UTM, ["http://a/x", "http://a/x?utm=1", "http://a/x?", "http://a/y?utm=1"], "mhhm"),
        (
            "key-order",
            ["http://a/?a=1&b=2", "http://a/?b=2&a=1", "http://a/?b=2&%61=1", "http://a/?a=1"],
            "mhhm",
        ),
        (
            "except=(\"id\")",
            ["http://a/?id=1&b", "http://a/?id=1", "http://a/?c=2&id=1", "http://a/"],
            "mhhm",
        ),
        ("params", ["http://a/?b", "http://a/?c=1", "http://a/", "http://b/"], "mhhm"),
        ("params=?0", ["http://a/?b", "http://a/?c=1", "http://a/", "http://a/?b"], "mmmh"),
        ("params=(utm)", ["http://a/?utm=1", "http://a/?utm=2", "http://a/", "http://a/?utm=1"], "mmmh"),
        (UTM, ["http://a/?utm=1", "https://a/?utm=2", "http://a:81/?utm=3", "http://a/?utm=1;b=2"], "mmmm"),
    ] {
        let site = Site::new(field);
        let got = site.words(uris).await.map(|word| &word[..1]).concat();
        assert_eq!(got, words, "{field} {uris:?}");
        // Once more, when all of them know the field.
        site.learn(uris[0]).await;
        site.words(uris).await;
        let origin = site.cache.origin.count();
        assert_eq!(site.words(uris).await, ["hit"; 4], "{field} {uris:?}");
        assert_eq!(site.cache.origin.count(), origin);
    }
}

#[tokio::test(start_paused = true)]
async fn setting_switches_the_field_off() {
    let site = Site::on(MemoryStorage::new(), UTM, |builder| builder.no_vary_search(false));
    let uris = ["http://a/?utm=1", "http://a/?utm=2", "http://a/", "http://a/?utm=1"];
    assert_eq!(site.words(uris).await, ["miss", "miss", "miss", "hit"]);
}

#[tokio::test(start_paused = true)]
async fn later_responses_share_one_entry() {
    let site = Site::new(UTM);
    site.learn("http://a/?utm=0").await;
    assert_eq!(site.word("http://a/?utm=1").await, "miss", "the first response no longer answers others");
    assert_eq!(site.words(["http://a/?utm=2", "http://a/?utm=3&utm=4", "http://a/"]).await, ["hit"; 3]);
    assert_eq!(site.cache.origin.count(), 2);
    let handle = site.cache.layer.handle();
    let mut urls: Vec<String> = handle.urls(&EntryFilter::new()).try_collect().await.unwrap();
    urls.sort();
    assert_eq!(urls, ["http://a/", "http://a/?utm=0"]);
    assert_eq!(handle.delete_matching(&EntryFilter::new().url("http://a/")).await.unwrap(), 2);
    assert_eq!(site.word("http://a/?utm=2").await, "miss");
}

#[tokio::test(start_paused = true)]
async fn unsafe_request_invalidates_equivalent_urls() {
    for knows in [false, true] {
        let site = Site::new(UTM);
        if knows {
            site.learn("http://a/x?utm=0").await;
        }
        site.words(["http://a/x?utm=1&id=1", "http://a/x?id=2", "http://a/x?id=2&utm=1"]).await;
        site.post("http://a/x?id=1&utm=5").await;
        // What was stored for the very query of the request before is not another's.
        let words =
            site.words(["http://a/x?utm=3&id=1", "http://a/x?id=1&utm=1", "http://a/x?id=2&utm=3"]).await;
        assert_eq!(words, ["miss", "hit", "hit"], "{knows}");
    }
}

#[tokio::test(start_paused = true)]
async fn handle_reaches_equivalent_urls() {
    for knows in [false, true] {
        let site = Site::new(UTM);
        let handle = site.cache.layer.handle();
        if knows {
            site.learn("http://a/?utm=0").await;
        }
        site.word("http://a/?utm=1").await;
        for url in ["http://a/?utm=1", "http://a/?utm=2", "http://a/"] {
            let request = get_with(url, &[]);
            assert!(
                handle.has(&request).await.unwrap() && handle.has_url(url).await.unwrap(),
                "{knows} {url}"
            );
            let entry = handle.get_url(url).await.unwrap().unwrap();
            assert_eq!(entry.url(), if knows { "http://a/" } else { "http://a/?utm=1" });
            let read = handle.read(&request).await.unwrap().unwrap();
            assert_eq!(crate::support::Answer::read(read).await.body, "http://a/?utm=1");
        }
        assert!(!handle.has_url("http://a/?b").await.unwrap());
        assert_eq!(handle.expire_url("http://a/?utm=2").await.unwrap(), 1);
        assert_eq!(
            site.words(["http://a/?utm=1", "http://a/?utm=3"]).await,
            ["revalidated", "hit"],
            "{knows}"
        );
        assert_eq!(handle.delete_url("http://a/?utm=4").await.unwrap(), 1);
        assert_eq!(handle.delete_url("http://a/?utm=4").await.unwrap(), 0);
        assert_eq!(site.words(["http://a/?utm=3", "http://a/?utm=5"]).await, ["miss", "hit"]);
        assert_eq!(handle.delete(&get_with("http://a/", &[])).await.unwrap(), 1);
        assert_eq!(handle.expire(&get_with("http://a/", &[])).await.unwrap(), 0);
        assert!(!handle.has_url("http://a/?utm=5").await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn caches_on_one_storage_share_and_invalidate() {
    let storage = MemoryStorage::new();
    let one = Site::on(storage.clone(), UTM, |builder| builder);
    let other = Site::on(storage.clone(), UTM, |builder| builder.no_vary_search(true));
    let off = Site::on(storage.clone(), UTM, |builder| builder.no_vary_search(false));
    let apart = Site::on(storage, UTM, |builder| builder.partition("other"));
    assert_eq!(one.word("http://a/?utm=1").await, "miss");
    assert_eq!(other.word("http://a/?utm=2").await, "hit");
    assert_eq!((off.word("http://a/?utm=2").await, apart.word("http://a/?utm=3").await), ("miss", "miss"));
    one.learn("http://b/?utm=1").await;
    other.cache.clock.advance(FIRST + Duration::from_secs(1));
    assert_eq!((one.word("http://b/?utm=2").await, other.word("http://b/?utm=3").await), ("miss", "hit"));
    for (number, by) in [&other, &one].into_iter().enumerate() {
        by.post(&format!("http://b/?utm=x{number}")).await;
        assert_eq!(one.word(&format!("http://b/?utm=y{number}")).await, "miss");
        assert_eq!(other.word(&format!("http://b/?utm=z{number}")).await, "hit");
    }
}

/// A process that does not know the list stores a response for its own query, which no invalidation of another would reach.
#[tokio::test(start_paused = true)]
async fn response_that_is_not_listed_does_not_outlive_an_invalidation() {
    let storage = MemoryStorage::new();
    let one = Site::on(storage.clone(), UTM, |builder| builder);
    let other = Site::on(storage, "", |builder| builder);
    assert_eq!(other.word("http://a/?x=1").await, "miss"); // there is no list of this path yet
    other.send_field(UTM);
    assert_eq!(one.word("http://a/?utm=1").await, "miss");
    assert_eq!(other.word("http://a/?utm=2").await, "miss");
    one.post("http://a/?utm=3").await;
    assert_eq!(one.word("http://a/?utm=2").await, "miss");
    // From then on all share one response.
    assert_eq!(other.words(["http://a/?utm=1", "http://a/?utm=2", "http://a/?utm=4"]).await, ["hit"; 3]);
}

#[tokio::test(start_paused = true)]
async fn first_response_of_a_value_ends_with_its_place_in_the_list() {
    let site = Site::new(UTM);
    site.learn("http://a/?utm=1").await;
    site.send_field(r#"params=("utm" "ref")"#);
    site.learn("http://a/?ref=1").await;
    assert_eq!(site.word("http://a/?utm=1").await, "hit");
    // The value comes back with another first response.
    site.send_field(UTM);
    assert_eq!(site.words(["http://a/?utm=2&ref=2", "http://a/?utm=1"]).await, ["miss"; 2]);
}

/// An invalidation during the fetch of the first response of a value leaves a tombstone at its own key only.
#[tokio::test(start_paused = true)]
async fn first_response_does_not_answer_an_invalidated_url() {
    let storage = MemoryStorage::new();
    let other = Site::on(storage.clone(), "", |builder| builder);
    let layer = other.cache.layer.clone();
    let origin = Origin::new(move |request| {
        if request.uri().query() == Some("utm=1") {
            let deleting = async { layer.handle().delete_url("http://a/?utm=2").await };
            futures_util::FutureExt::now_or_never(deleting).unwrap().unwrap();
        }
        response(&[("cache-control", "max-age=3600"), ("no-vary-search", UTM)], request.uri().to_string())
    });
    let cache = Fixture::with(origin, storage, |builder| builder);
    let words = async |uris: [&str; 3]| {
        let mut words = Vec::new();
        for uri in uris {
            words.push(cache.get(uri).await.word());
        }
        words
    };
    let got = words(["http://a/?utm=1", "http://a/?utm=2", "http://a/?utm=3"]).await;
    assert_eq!(got, ["miss", "miss", "hit"]);
}

#[tokio::test(start_paused = true)]
async fn other_parts_of_the_key_still_count() {
    let site = Site::on(MemoryStorage::new(), UTM, |builder| {
        builder
            .key_headers(["x-key".parse().unwrap()])
            .ignore_query_params(["token"])
            .sort_query(true)
            .key_fn(|request| {
                let query = request.uri.query()?;
                Some(query.split('&').find_map(|pair| pair.strip_prefix("name="))?.to_owned())
            })
    });
    for learns in [true, false] {
        let key = |uri: &str, key: &str| get_with(uri, &[("x-key", key)]);
        let word = async |uri: &str, of: &str| site.cache.ask(key(uri, of)).await.word();
        assert_eq!(word("http://a/?utm=1&b=1&a=1&token=1", "k").await, "miss");
        assert_eq!(word("http://a/?token=2&a=1&utm=2&b=1", "k").await, "hit");
        assert_eq!(word("http://a/?token=2&a=1&utm=2&b=1", "l").await, "miss");
        assert_eq!(word("http://a/?utm=3&b=1&a=1", "l").await, "hit");
        // Names do not share a response, neither with each other nor with a URI.
        assert_eq!(word("http://a/?a=1&b=1&name=1&utm=1", "k").await, "miss");
        assert_eq!(word("http://a/?a=1&b=1&name=2&utm=1", "k").await, "miss");
        assert_eq!(word("http://a/?a=1&b=1&name=1&utm=2", "k").await, "hit");
        if learns {
            site.cache.clock.advance(FIRST + Duration::from_secs(1));
            site.cache.layer.handle().delete_matching(&EntryFilter::new()).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn newest_value_of_a_path_counts() {
    let site = Site::new(UTM);
    site.learn("http://a/?utm=0").await;
    assert_eq!(site.words(["http://a/?utm=1", "http://a/?utm=2"]).await, ["miss", "hit"]);
    site.send_field("params=(\"ref\")");
    // It is stored for its own query only, and from then on counts.
    assert_eq!(site.words(["http://a/?ref=1&utm=1", "http://a/?ref=2&utm=1"]).await, ["miss", "hit"]);
    assert_eq!(site.word("http://a/?utm=2").await, "miss", "the former value does not find it");
    // Its invalidations are still reached.
    site.post("http://a/?utm=9").await;
    site.send_field(UTM);
    assert_eq!(site.words(["http://a/?b&utm=1", "http://a/?utm=3"]).await, ["miss", "miss"]);
    assert_eq!(site.words(["http://a/?utm=4", "http://a/?b&utm=2"]).await, ["hit", "hit"]);
    // Without the field, a response is stored for its own query, and the others stay.
    site.send_field("");
    assert_eq!(
        site.words(["http://a/?c&utm=1", "http://a/?c&utm=2", "http://a/?c&utm=1"]).await,
        ["miss", "miss", "hit"]
    );
    assert_eq!(site.word("http://a/?utm=5").await, "hit");
}

/// A response that was stored under a value which is not listed any more is never found again.
#[tokio::test(start_paused = true)]
async fn value_that_returns_finds_no_older_response() {
    let site = Site::new(UTM);
    site.learn("http://a/?utm=0").await;
    assert_eq!(site.words(["http://a/?utm=1", "http://a/?utm=2"]).await, ["miss", "hit"]);
    let fields = ["key-order", "params=(\"b\")", "params=(\"c\")", "params=(\"d\")", UTM];
    for (number, field) in fields.into_iter().enumerate() {
        site.send_field(field);
        assert_eq!(site.word(&format!("http://a/?x={number}")).await, "miss");
    }
    site.cache.clock.advance(FIRST + Duration::from_secs(1));
    assert_eq!(site.word("http://a/?utm=2").await, "miss");
}

#[tokio::test(start_paused = true)]
async fn validation_keeps_or_changes_the_field() {
    let site = Site::new(UTM);
    site.learn("http://a/?utm=0").await;
    assert_eq!(site.word("http://a/?utm=1").await, "miss");
    site.cache.clock.advance(Duration::from_secs(3601));
    assert_eq!(site.words(["http://a/?utm=2", "http://a/?utm=3"]).await, ["revalidated", "hit"]);
    // The response no longer answers all queries of its key, and is fetched as one for its own query.
    site.cache.clock.advance(Duration::from_secs(3601));
    site.send_field("params=()");
    let answer = site.cache.get("http://a/?utm=4").await;
    assert_eq!((answer.word(), &*answer.body), ("miss", &b"http://a/?utm=4"[..]));
    assert_eq!(
        site.words(["http://a/?utm=4", "http://a/?utm=5", "http://a/?utm=5"]).await,
        ["hit", "miss", "hit"]
    );
}

#[tokio::test(start_paused = true)]
async fn background_refresh_asks_for_the_url_at_hand() {
    let origin = Origin::new(|request| {
        let fields = [("cache-control", "max-age=600, stale-while-revalidate=600"), ("no-vary-search", UTM)];
        response(&fields, request.uri().to_string())
    });
    let cache = Fixture::new(origin);
    cache.get("http://a/?utm=0").await;
    cache.clock.advance(FIRST + Duration::from_secs(1));
    assert_eq!(cache.get("http://a/?utm=1").await.word(), "miss");
    cache.clock.advance(Duration::from_secs(700));
    assert_eq!(cache.get("http://a/?utm=2").await.body, "http://a/?utm=1");
    cache.layer.idle().await;
    let answer = cache.get("http://a/?utm=3").await;
    assert_eq!((answer.word(), &*answer.body), ("hit", &b"http://a/?utm=2"[..]));
}

#[tokio::test(start_paused = true)]
async fn variants_and_long_bodies_are_shared() {
    let origin = Origin::new(|request| {
        let language = request.headers().get("accept-language").map_or("", |value| value.to_str().unwrap());
        let body = format!("{language} {}", "x".repeat(300_000));
        let fields =
            [("cache-control", "max-age=3600"), ("no-vary-search", UTM), ("vary", "accept-language")];
        response(&fields, body)
    });
    let cache = Fixture::new(origin);
    for utm in 0..6 {
        for language in ["en", "de"] {
            let request = get_with(&format!("http://a/?utm={utm}"), &[("accept-language", language)]);
            let answer = cache.ask(request).await;
            assert!(answer.body.starts_with(language.as_bytes()) && answer.body.len() > 300_000);
            // The first response is in English, and German is the first that is stored for all.
            assert_eq!(answer.word() == "miss", utm == 0, "{utm} {language}");
        }
        if utm == 2 {
            cache.clock.advance(FIRST + Duration::from_secs(1));
            cache.layer.handle().delete_matching(&EntryFilter::new()).await.unwrap();
            for language in ["en", "de"] {
                cache.ask(get_with("http://a/", &[("accept-language", language)])).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stored_records_of_many_queries_are_bounded() {
    let storage = MemoryStorage::new();
    let site = Site::on(storage.clone(), UTM, |builder| builder);
    site.learn("http://a/?utm=0").await;
    for utm in 1..100 {
        site.word(&format!("http://a/?utm={utm}")).await;
    }
    // The first response, the one for all queries, and the list of the path.
    assert_eq!(storage.keys().count().await, 3);
}

#[tokio::test(start_paused = true)]
async fn failing_storage_causes_misses_and_pending_invalidations() {
    let storage = Faulty::new(Mode::Well);
    let site = Site::on(storage.clone(), UTM, |builder| builder);
    let handle = site.cache.layer.handle();
    site.learn("http://a/?utm=0").await;
    assert_eq!(site.words(["http://a/?utm=1", "http://a/?utm=2"]).await, ["miss", "hit"]);
    storage.set(Mode::Failing);
    handle.delete_url("http://a/?utm=3").await.unwrap_err();
    storage.set(Mode::Well);
    // The breakers admit operations again.
    site.cache.clock.advance(Duration::from_secs(10));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(site.word("http://a/?utm=4").await, "miss");
    assert_eq!(site.word("http://a/?utm=5").await, "hit");
}

#[tokio::test(start_paused = true)]
async fn list_outlives_its_responses() {
    let lifetime = Arc::new(Mutex::new("max-age=600"));
    let current = Arc::clone(&lifetime);
    let cache = Fixture::new(Origin::new(move |request| {
        let fields = [("cache-control", *current.lock().unwrap()), ("no-vary-search", UTM)];
        response(&fields, request.uri().to_string())
    }));
    cache.get("http://a/?utm=1").await;
    cache.clock.advance(FIRST + Duration::from_secs(1));
    *lifetime.lock().unwrap() = "max-age=31536000";
    cache.get("http://a/?utm=2").await;
    cache.clock.advance(Duration::from_secs(300 * 24 * 60 * 60));
    assert_eq!(cache.get("http://a/?utm=3").await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn reserved_keys_share_responses_too() {
    let site = Site::on(MemoryStorage::new(), UTM, |builder| builder.reserve_on_miss(true));
    assert_eq!(
        site.words(["http://a/?utm=1", "http://a/?utm=2", "http://a/?utm=3"]).await,
        ["miss", "miss", "hit"]
    );
    site.send_field("");
    assert_eq!(site.words(["http://a/?b", "http://a/?b", "http://a/?utm=4"]).await, ["miss", "hit", "hit"]);
}

#[tokio::test(start_paused = true)]
async fn rules_do_not_see_what_does_not_count() {
    let long = Rule::new().url("a/?x=1*").override_ttl(Duration::from_secs(7200));
    let site =
        Site::on(MemoryStorage::new(), "params=(\"x\")", |builder| builder.rules(Rules::new().rule(long)));
    for uri in ["http://a/?x=1", "http://a/?x=1&b=1"] {
        assert!(site.cache.get(uri).await.status.ttl().unwrap() <= 3600, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn copies_leave_shared_responses_out() {
    let site = Site::new(UTM);
    site.learn("http://a/?utm=0").await;
    site.word("http://a/?utm=1").await;
    let to = MemoryStorage::new();
    let copied = site.cache.layer.handle().copy_to(&to, &EntryFilter::new(), |_| {}).await.unwrap();
    assert_eq!((copied.responses, copied.skipped), (1, 1));
}

/// Counts the reads of a storage.
#[derive(Clone, Default)]
struct Reads {
    inner: MemoryStorage,
    count: Arc<AtomicUsize>,
}

impl Storage for Reads {
    forward!(inner: write, delete, clear, keys, retain, delete_expired);

    async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.inner.read(key).await
    }
}

#[tokio::test(start_paused = true)]
async fn hit_for_own_query_costs_one_read() {
    for field in ["", UTM] {
        let storage = Reads::default();
        let site = Site::on(storage.clone(), field, |builder| builder);
        let reads = async |uri: &str| {
            storage.count.store(0, Ordering::SeqCst);
            (site.word(uri).await, storage.count.load(Ordering::SeqCst))
        };
        site.word("http://a/?utm=1").await;
        assert_eq!(reads("http://a/?utm=1").await, ("hit", 1));
        if field.is_empty() {
            // One of the reads is that of `write_if`. The list of a path is not read again and again.
            assert_eq!(reads("http://a/?utm=2").await, ("miss", 2));
            assert_eq!(reads("http://b/").await, ("miss", 3));
        }
    }
}
