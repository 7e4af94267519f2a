//! Groups and tags of responses, and what invalidates them.
//!
//! The origin names groups (RFC 9875), and the user names tags.

use std::sync::Arc;
use std::time::Duration;

use crate::support::faulty::{Faulty, Mode};
use crate::support::{Answer, Fixture, Origin, ReqBody, get, get_with, not_modified, response};
use futures_util::poll;
use http::Request;
use http_body_util::Full;
use tokio::sync::Semaphore;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::storage::{Key, Kind, MemoryStorage, Storage};
use tower_response_cache::{
    CacheBody, CacheLayer, CacheOptions, Clock, EntryFilter, ErrorKind, MissReason, NotStored, Outcome, Rule,
    Rules, Stored,
};

const A: &str = "http://example.com/a";
const B: &str = "http://example.com/b";
const ELSEWHERE: &str = "http://example.com:8080/a";
const SECOND: Duration = Duration::from_secs(1);

/// Returns an origin whose responses belong to two groups.
///
/// One is named like the path of the request, and the other is `all`. The response to any method but GET invalidates
/// the groups that the request names in `x-ends`.
fn origin() -> Origin {
    Origin::new(|request| {
        if request.method() != "GET" {
            let ends = request.headers().get("x-ends").map_or("", |ends| ends.to_str().unwrap());
            return response(&[("cache-group-invalidation", ends)], "");
        }
        let groups = format!("\"{}\", \"all\"", &request.uri().path()[1..]);
        response(&[("cache-control", "max-age=60"), ("cache-groups", &groups)], "body")
    })
}

fn ending(method: &str, uri: &str, ends: &str) -> Request<ReqBody> {
    Request::builder().method(method).uri(uri).header("x-ends", ends).body(ReqBody::default()).unwrap()
}

fn tagged(uri: &str, tags: &[&'static str]) -> Request<ReqBody> {
    let mut request = get(uri);
    request.extensions_mut().insert(CacheOptions::new().tags(tags.iter().copied()));
    request
}

fn plain() -> Origin {
    Origin::always(http::Response::builder().header("cache-control", "max-age=60"), "body")
}

async fn fill(fixture: &Fixture, uris: &[&str]) {
    for uri in uris {
        fixture.get(uri).await;
        assert_eq!(fixture.get(uri).await.word(), "hit");
    }
}

async fn words(fixture: &Fixture, uris: &[&str]) -> Vec<&'static str> {
    let mut words = Vec::new();
    for uri in uris {
        words.push(fixture.get(uri).await.word());
    }
    words
}

#[tokio::test(start_paused = true)]
async fn unsafe_response_invalidates_groups_of_its_origin() {
    let fixture = Fixture::new(origin());
    for (ends, expected) in [
        ("\"a\"", ["miss", "hit", "hit"]),
        ("\"b\";q=1, \"a\"", ["miss", "miss", "hit"]),
        ("\"all\"", ["miss", "miss", "hit"]),
        ("\"A\"", ["hit", "hit", "hit"]),
        ("\"none\"", ["hit", "hit", "hit"]),
        // The value is not a list of strings, so the field counts as absent (RFC 9651 §1.1).
        ("a", ["hit", "hit", "hit"]),
        ("\"a\", 1", ["hit", "hit", "hit"]),
        ("\"a\", (\"b\")", ["hit", "hit", "hit"]),
        ("\"a", ["hit", "hit", "hit"]),
        ("", ["hit", "hit", "hit"]),
    ] {
        fill(&fixture, &[A, B, ELSEWHERE]).await;
        fixture.ask(ending("POST", "http://example.com/c", ends)).await;
        assert_eq!(words(&fixture, &[A, B, ELSEWHERE]).await, expected, "{ends}");
        // A response fetched after the invalidation is stored, even at the same time of the clock.
        assert_eq!(words(&fixture, &[A, B, ELSEWHERE]).await, ["hit"; 3], "{ends}");
    }
}

#[tokio::test(start_paused = true)]
async fn safe_response_invalidates_no_group() {
    let fixture = Fixture::new(origin());
    fill(&fixture, &[A]).await;
    for method in ["OPTIONS", "TRACE", "QUERY", "PROPFIND"] {
        fixture.ask(ending(method, B, "\"a\"")).await;
        assert_eq!(fixture.get(A).await.word(), "hit", "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn group_field_is_limited_to_128_names() {
    let names = |count: usize| (0..count).map(|n| format!("\"{n:0>32}\"")).collect::<Vec<_>>();
    let script = move |request: &Request<ReqBody>| {
        let count = request.uri().query().unwrap().parse().unwrap();
        let mut response = response(&[("cache-control", "max-age=60")], "");
        for line in names(count).chunks(10) {
            response.headers_mut().append("cache-groups", line.join(", ").parse().unwrap());
        }
        response
    };
    let fixture = Fixture::new(Origin::new(script));
    for count in [32, 128, 129, 10_000] {
        let uri = format!("{A}?{count}");
        fill(&fixture, &[&uri]).await;
        if count > 128 {
            fixture.layer.invalidate_group("http://example.com", &format!("{:0>32}", 128)).await.unwrap();
            assert_eq!(fixture.get(&uri).await.word(), "hit", "names after the 128th are ignored");
        }
        fixture
            .layer
            .invalidate_group("http://EXAMPLE.com:80", &format!("{:0>32}", count.min(128) - 1))
            .await
            .unwrap();
        let missed = fixture.get(&uri).await;
        assert_eq!(missed.status.outcome(), Outcome::Miss(MissReason::Invalidated));
    }
}

/// Tags are the user's own, and an ignored tag could not be invalidated.
#[tokio::test]
async fn response_with_too_many_tags_is_not_stored() {
    let fixture = Fixture::new(plain());
    let mut request = get(A);
    request.extensions_mut().insert(CacheOptions::new().tags((0..129).map(|n| n.to_string())));
    let refused = fixture.ask(request).await;
    assert_eq!(refused.status.stored(), Stored::No(NotStored::TooManyGroups));
}

async fn group_keys<S: Storage>(store: &S) -> Vec<Key> {
    let keys: Vec<Key> = futures_util::TryStreamExt::try_collect(store.keys()).await.unwrap();
    keys.into_iter().filter(|key| key.kind == Kind::Group).collect()
}

/// One response names more groups than the list of pending invalidations holds.
#[tokio::test]
async fn group_invalidation_flood_writes_at_most_128() {
    let names = (0..10_001).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
    let store = Faulty::new(Mode::Well);
    let fixture = Fixture::with(origin(), store.clone(), |builder| builder);
    fill(&fixture, &["http://bank.example/"]).await;
    let before = group_keys(&store).await.len();
    store.set(Mode::ReadOnly);
    fixture.ask(ending("POST", "http://evil.example/", &names)).await;
    assert_eq!(fixture.get("http://bank.example/").await.word(), "hit");
    store.set(Mode::Well);
    fixture.ask(ending("POST", "http://evil.example/", &names)).await;
    assert_eq!(group_keys(&store).await.len() - before, 128);
}

#[tokio::test]
async fn unstored_response_creates_no_group() {
    let fixture = Fixture::new(Origin::new(|_| {
        response(&[("cache-control", "no-store"), ("cache-groups", "\"g\"")], "body")
    }));
    fixture.ask(tagged(A, &["tag"])).await;
    assert_eq!(group_keys(fixture.layer.storage()).await, []);
}

/// The entity tag of an invalidated response is not offered to the origin.
#[tokio::test]
async fn not_modified_does_not_restore_invalidated_variant() {
    let mut count = 0;
    let fixture = Fixture::new(Origin::new(move |request| {
        let fields =
            [("cache-control", "max-age=60"), ("etag", "\"1\""), ("vary", "x"), ("cache-groups", "\"g\"")];
        if crate::support::has_tag(request, "\"1\"") {
            return not_modified(&fields);
        }
        count += 1;
        response(&fields, format!("fetch {count}"))
    }));
    let ask = async |x: &str| fixture.ask(get_with(A, &[("x", x)])).await;
    assert_eq!(ask("1").await.body, "fetch 1");
    assert_eq!(ask("2").await.body, "fetch 1", "the stored response is confirmed for the other value");
    fixture.layer.invalidate_group("http://example.com", "g").await.unwrap();
    assert_eq!(ask("3").await.body, "fetch 2");
}

#[tokio::test]
async fn background_refresh_keeps_tags() {
    let mut count = 0;
    let fixture = Fixture::new(Origin::new(move |_| {
        count += 1;
        response(&[("cache-control", "max-age=10, stale-while-revalidate=100")], format!("version {count}"))
    }));
    fixture.ask(tagged(A, &["one"])).await;
    fixture.clock.advance(20 * SECOND);
    assert_eq!(fixture.ask(tagged(A, &["two"])).await.word(), "stale");
    fixture.layer.idle().await;
    for tag in ["one", "two"] {
        let refreshed = fixture.get(A).await;
        assert_eq!(refreshed.word(), "hit");
        fixture.layer.invalidate_tag(tag).await.unwrap();
        assert_eq!(fixture.ask(tagged(A, &["one", "two"])).await.word(), "miss", "{tag}");
    }
}

/// A POST response that answers later GETs has the tags and groups of its URI.
///
/// That also holds under a key of the user.
#[tokio::test]
async fn keyed_post_response_belongs_to_groups() {
    let origin = Origin::new(|_| {
        let fields = [("cache-control", "max-age=60"), ("content-location", "/a"), ("cache-groups", "\"g\"")];
        response(&fields, "body")
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| {
        let rule = Rule::new().url("example.com/a").tag("tag");
        builder.key_fn(|request| Some(request.uri.path().to_owned())).rules(Rules::new().rule(rule))
    });
    for is_tag in [true, false] {
        fixture.ask(Request::post(A).body(Full::from("x")).unwrap()).await;
        assert_eq!(fixture.get(A).await.word(), "hit");
        match is_tag {
            true => fixture.layer.invalidate_tag("tag").await.unwrap(),
            false => fixture.layer.invalidate_group("http://example.com", "g").await.unwrap(),
        }
        assert_eq!(fixture.get(A).await.word(), "miss", "{is_tag}");
    }
}

/// A full storage may evict group values, but invalidated members stay invalidated.
#[tokio::test]
async fn evicted_group_value_does_not_restore_members() {
    let fixture = Fixture::new(origin());
    fill(&fixture, &[A, B]).await;
    fixture.layer.invalidate_group("http://example.com", "all").await.unwrap();
    for key in group_keys(fixture.layer.storage()).await {
        fixture.layer.storage().delete(key).await.unwrap();
    }
    // The first response creates a new group value. The second must not count as its member.
    assert_eq!(words(&fixture, &[A, B, A, B]).await, ["miss", "miss", "hit", "hit"]);
}

#[tokio::test(start_paused = true)]
async fn tag_invalidates_members_across_origins() {
    let fixture = Fixture::new(plain());
    for (uri, tags) in [(A, &["one", "both"][..]), (B, &["two", "both"]), (ELSEWHERE, &["both"])] {
        fixture.ask(tagged(uri, tags)).await;
    }
    assert_eq!(words(&fixture, &[A, B, ELSEWHERE]).await, ["hit"; 3]);
    fixture.layer.invalidate_tag("one").await.unwrap();
    assert_eq!(words(&fixture, &[A, B, ELSEWHERE]).await, ["miss", "hit", "hit"]);
    fixture.layer.invalidate_tag("both").await.unwrap();
    // The first response has been stored again without tags.
    assert_eq!(words(&fixture, &[A, B, ELSEWHERE]).await, ["hit", "miss", "miss"]);
    // A group of the origin is separate from a tag of the user, even with the same name.
    fixture.layer.invalidate_group("http://example.com", "both").await.unwrap();
    assert_eq!(words(&fixture, &[A, B, ELSEWHERE]).await, ["hit"; 3]);
    let error = fixture.layer.invalidate_group("example.com", "both").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn tags_of_matching_rules_accumulate() {
    let rules = || {
        Rules::new()
            .rule(Rule::new().url("example.com/**").tag("site"))
            .rule(Rule::new().content_type("text/*").tag("text"))
            .rule(Rule::new().url("example.com/a").override_ttl(5 * SECOND).tag("a"))
    };
    let fields = [("content-type", "text/plain"), ("cache-control", "max-age=60")];
    let origin = Origin::new(move |_| response(&fields, "body"));
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| builder.rules(rules()));
    for (tag, expected) in [
        ("site", ["miss", "miss"]),
        ("text", ["miss", "miss"]),
        ("a", ["miss", "hit"]),
        ("b", ["hit", "hit"]),
    ] {
        fill(&fixture, &[A, B]).await;
        fixture.layer.invalidate_tag(tag).await.unwrap();
        assert_eq!(words(&fixture, &[A, B]).await, expected, "{tag}");
    }
    fixture.clock.advance(6 * SECOND);
    assert_eq!(words(&fixture, &[A, B]).await, ["miss", "hit"]);
}

#[tokio::test(start_paused = true)]
async fn revalidation_keeps_tags_of_earlier_request() {
    let origin = Origin::new(|request| {
        let fields = [("cache-control", "max-age=10"), ("etag", "\"1\"")];
        match crate::support::has_tag(request, "\"1\"") {
            true => not_modified(&fields),
            false => response(&fields, "body"),
        }
    });
    let fixture = Fixture::new(origin);
    fixture.ask(tagged(A, &["tag"])).await;
    fixture.clock.advance(11 * SECOND);
    assert_eq!(words(&fixture, &[A, A]).await, ["revalidated", "hit"]);
    fixture.layer.invalidate_tag("tag").await.unwrap();
    assert_eq!(fixture.get(A).await.word(), "miss");
}

type Held = http::Response<CacheBody<Full<bytes::Bytes>>>;

/// Returns a cache over an origin whose responses wait for a permit of the semaphore.
fn gated(
    layer: &CacheLayer<MemoryStorage>,
) -> (BoxCloneSyncService<Request<ReqBody>, Held, std::io::Error>, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let service = layer.layer(service_fn(move |_: Request<ReqBody>| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            Ok::<_, std::io::Error>(response(&[("cache-control", "max-age=60")], "body"))
        }
    }));
    (BoxCloneSyncService::new(service), gate)
}

#[tokio::test(start_paused = true)]
async fn fetch_before_tag_invalidation_is_not_reused() {
    let layer = CacheLayer::new(MemoryStorage::new());
    let (service, gate) = gated(&layer);
    let mut before = Box::pin(service.clone().oneshot(tagged(A, &["tag"])));
    assert!(poll!(before.as_mut()).is_pending());
    layer.invalidate_tag("tag").await.unwrap();
    let mut after = Box::pin(service.clone().oneshot(tagged(A, &["tag"])));
    assert!(poll!(after.as_mut()).is_pending());
    gate.add_permits(1);
    let before = Answer::read(before.await.unwrap()).await;
    assert_eq!(before.status.stored(), Stored::No(NotStored::GroupInvalidated));
    assert!(poll!(after.as_mut()).is_pending(), "the request fetches by itself");
    gate.add_permits(1);
    let after = Answer::read(after.await.unwrap()).await;
    assert_eq!((after.status.stored(), after.status.is_collapsed()), (Stored::Storing, false));
    let hit = Answer::read(service.oneshot(get(A)).await.unwrap()).await;
    assert_eq!(hit.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn fetch_overtaken_by_deletion_is_not_reused() {
    let layer = CacheLayer::new(MemoryStorage::new());
    let (service, gate) = gated(&layer);
    let ask = || Box::pin(service.clone().oneshot(get(A)));
    let mut before = ask();
    assert!(poll!(before.as_mut()).is_pending());
    // The fetch of another URL is not affected.
    let mut other = Box::pin(service.clone().oneshot(get(B)));
    assert!(poll!(other.as_mut()).is_pending());
    let deleted = layer.handle().delete_matching(&EntryFilter::new().url("example.com/a")).await.unwrap();
    assert_eq!(deleted, 0, "nothing is stored yet");
    let mut after = ask();
    assert!(poll!(after.as_mut()).is_pending());
    gate.add_permits(2);
    Answer::read(before.await.unwrap()).await;
    Answer::read(other.await.unwrap()).await;
    assert!(poll!(after.as_mut()).is_pending(), "the request fetches by itself");
    gate.add_permits(1);
    let after = Answer::read(after.await.unwrap()).await;
    assert_eq!((after.word(), after.status.is_collapsed()), ("miss", false));
    for uri in [A, B] {
        let hit = Answer::read(service.clone().oneshot(get(uri)).await.unwrap()).await;
        assert_eq!(hit.word(), "hit", "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn tag_invalidation_reaches_other_processes() {
    let store = MemoryStorage::new();
    let (clock, mock) = Clock::mock();
    let cache = || {
        let layer = CacheLayer::builder(store.clone()).clock(clock.clone()).build().unwrap();
        let service = layer.layer(origin());
        (layer, service)
    };
    let ((one, first), (_, second)) = (cache(), cache());
    let ask = async |service: &tower_response_cache::Cache<Origin, MemoryStorage>, request| {
        Answer::read(service.clone().oneshot(request).await.unwrap()).await
    };
    for service in [&first, &second] {
        ask(service, tagged(A, &["tag"])).await;
        assert_eq!(ask(service, get(A)).await.word(), "hit");
    }
    one.invalidate_tag("tag").await.unwrap();
    // For a while, the clock of the other process cannot tell whether its fetch began before or after the
    // invalidation.
    let soon = ask(&second, tagged(A, &["tag"])).await;
    assert_eq!(soon.status.outcome(), Outcome::Miss(MissReason::Invalidated));
    assert_eq!(soon.status.stored(), Stored::No(NotStored::GroupInvalidated));
    mock.advance(6 * SECOND);
    assert_eq!(ask(&second, tagged(A, &["tag"])).await.word(), "miss");
    for service in [&first, &second] {
        assert_eq!(ask(service, get(A)).await.word(), "hit");
    }
    // The other cache invalidates a group by an unsafe request.
    ask(&second, ending("DELETE", B, "\"a\"")).await;
    assert_eq!(ask(&first, get(A)).await.word(), "miss");
}

#[tokio::test(start_paused = true)]
async fn response_with_missing_group_value_is_not_served() {
    let fixture = Fixture::new(origin());
    fill(&fixture, &[A]).await;
    let store = fixture.layer.storage();
    let keys: Vec<Key> = futures_util::TryStreamExt::try_collect(store.keys()).await.unwrap();
    let groups: Vec<Key> = keys.into_iter().filter(|key| key.kind == Kind::Group).collect();
    assert_eq!(groups.len(), 2);
    store.delete(groups[0]).await.unwrap();
    assert_eq!(words(&fixture, &[A, A]).await, ["miss", "hit"]);
}

#[tokio::test(start_paused = true)]
async fn group_values_expire_with_their_members() {
    let fixture = Fixture::new(origin());
    fill(&fixture, &[A]).await;
    fixture.clock.advance(59 * SECOND);
    let store = fixture.layer.storage();
    store.delete_expired(fixture.clock.now()).await.unwrap();
    assert_eq!(fixture.get(A).await.word(), "hit");
    fixture.clock.advance(Duration::from_secs(3600));
    store.delete_expired(fixture.clock.now()).await.unwrap();
    let left: Vec<Key> = futures_util::TryStreamExt::try_collect(store.keys()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn failed_invalidation_applies_locally_and_is_retried() {
    let store = Faulty::new(Mode::Well);
    let fixture = Fixture::with(plain(), store.clone(), |builder| builder);
    let other = Fixture::with(plain(), store.clone(), |builder| builder);
    other.clock.set(fixture.clock.now());
    fixture.ask(tagged(A, &["tag"])).await;
    assert_eq!(words(&fixture, &[A]).await, ["hit"]);
    store.set(Mode::ReadOnly);
    let error = fixture.layer.invalidate_tag("tag").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(fixture.get(A).await.word(), "miss");
    assert_eq!(other.get(A).await.word(), "hit", "other processes cannot know of the invalidation yet");
    store.set(Mode::Well);
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(other.get(A).await.word(), "miss");
}

#[tokio::test(start_paused = true)]
async fn unreadable_group_value_prevents_storing() {
    let store = Faulty::new(Mode::Well);
    let fixture = Fixture::with(plain(), store.clone(), |builder| builder);
    fixture.ask(tagged(A, &["tag"])).await;
    store.set(Mode::Failing);
    let missed = fixture.ask(tagged(B, &["tag"])).await;
    assert_eq!(missed.status.stored(), Stored::No(NotStored::StorageFailed));
    store.set(Mode::Well);
    assert_eq!(fixture.get(A).await.word(), "hit");
}

#[tokio::test(start_paused = true)]
async fn variants_and_large_bodies_belong_to_groups() {
    let large: &'static str = "large body ".repeat(1000).leak();
    let origin = Origin::new(move |_| {
        let fields = [("cache-control", "max-age=60"), ("vary", "x"), ("cache-groups", "\"g\"")];
        response(&fields, large)
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| builder.chunk_bytes(1000));
    let ask = async |x: &str| fixture.ask(get_with(A, &[("x", x)])).await;
    for x in ["1", "2"] {
        ask(x).await;
        fixture.layer.idle().await;
        let hit = ask(x).await;
        assert_eq!((hit.word(), &hit.body[..]), ("hit", large.as_bytes()));
    }
    fixture.layer.invalidate_group("http://example.com", "g").await.unwrap();
    for x in ["1", "2"] {
        assert_eq!(ask(x).await.word(), "miss");
        fixture.layer.idle().await;
        assert_eq!(ask(x).await.word(), "hit");
    }
}

#[tokio::test(start_paused = true)]
async fn assumed_scheme_invalidates_groups_under_both_schemes() {
    let fixture = Fixture::shared(origin());
    fill(&fixture, &["https://example.com/a", A]).await;
    let put = Request::put("/x").header("host", "example.com").header("x-ends", "\"all\"");
    fixture.ask(put.body(ReqBody::default()).unwrap()).await;
    assert_eq!(words(&fixture, &["https://example.com/a", A]).await, ["miss", "miss"]);
}

/// Returns an origin whose responses have the fields that the query of the request names, `|` before each value.
fn origin_of_fields() -> Origin {
    Origin::new(|request| {
        let query = request.uri().query().unwrap_or_default().replace('+', " ");
        let fields = query.split('&').filter_map(|field| field.split_once('|'));
        response(&[&[("cache-control", "max-age=60")], &*fields.collect::<Vec<_>>()].concat(), "body")
    })
}

#[tokio::test(start_paused = true)]
async fn tag_fields_are_split_by_their_own_separators() {
    for (field, value, tags, others) in [
        ("surrogate-key", "a+b,c++d", &["a", "b,c", "d"][..], &["b", "c"][..]),
        ("cache-tag", "a+b,+c,,d", &["a b", "c", "d"], &["a", "b"]),
        ("xkey", "a+b,c", &["a", "b", "c"], &["a b,c"]),
        ("x-tags", "a+b,c", &["a b", "c"], &["a"]),
        ("other", "a", &[], &["a"]),
    ] {
        let fixture = Fixture::with(origin_of_fields(), MemoryStorage::new(), |builder| {
            builder.tag_fields(["Surrogate-Key", "cache-tag"]).tag_fields(["xkey", "x-tags"])
        });
        let uri = format!("{A}?{field}|{value}");
        for (names, expected) in [(tags, "miss"), (others, "hit")] {
            for name in names {
                fill(&fixture, &[&uri]).await;
                fixture.layer.invalidate_tag(name).await.unwrap();
                assert_eq!(fixture.get(&uri).await.word(), expected, "{field} {name}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tags_in_fields_are_bounded() {
    let fixture =
        Fixture::with(origin_of_fields(), MemoryStorage::new(), |builder| builder.tag_fields(["cache-tag"]));
    let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let refused = |reason| Stored::No(reason);
    for (value, expected) in [
        (many(128), Stored::Storing),
        (format!("{0},{0}", many(128)), Stored::Storing),
        (many(129), refused(NotStored::TooManyGroups)),
        (many(3000), refused(NotStored::TooManyGroups)),
        ("t".repeat(1024), Stored::Storing),
        ("t".repeat(1025), refused(NotStored::UnusableTag)),
    ] {
        let answer = fixture.get(&format!("{A}?cache-tag|{value}")).await;
        assert_eq!(answer.status.stored(), expected, "{} bytes", value.len());
    }
    let origin = Origin::new(|_| {
        let mut response = response(&[("cache-control", "max-age=60")], "");
        response.headers_mut().insert("cache-tag", http::HeaderValue::from_bytes(b"\xff").unwrap());
        response
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| builder.tag_fields(["cache-tag"]));
    assert_eq!(fixture.get(A).await.status.stored(), refused(NotStored::UnusableTag));
}

#[tokio::test(start_paused = true)]
async fn function_gives_tags_within_bounds() {
    let fixture = Fixture::with(origin_of_fields(), MemoryStorage::new(), |builder| {
        builder.tags_of(|request, response| {
            let name = response.headers.get("x-name").map_or("none", |name| name.to_str().unwrap());
            vec![format!("{}{name}", request.uri.path()).repeat(name.len())]
        })
    });
    let uri = format!("{A}?x-name|n");
    fill(&fixture, &[&uri]).await;
    fixture.layer.invalidate_tag("/an").await.unwrap();
    assert_eq!(fixture.get(&uri).await.word(), "miss");
    let long = fixture.get(&format!("{A}?x-name|{}", "n".repeat(100))).await;
    assert_eq!(long.status.stored(), Stored::No(NotStored::UnusableTag));
}

#[tokio::test(start_paused = true)]
async fn removed_tag_fields_still_count() {
    let fixture = Fixture::with(origin_of_fields(), MemoryStorage::new(), |builder| {
        builder.tag_fields(["surrogate-key"]).remove_tag_fields(true)
    });
    let uri = format!("{A}?surrogate-key|a+b&x-other|c");
    for expected in ["miss", "hit"] {
        let answer = fixture.get(&uri).await;
        assert_eq!(answer.word(), expected);
        assert!(!answer.headers.contains_key("surrogate-key") && answer.headers.contains_key("x-other"));
    }
    fixture.layer.invalidate_tag("b").await.unwrap();
    assert_eq!(fixture.get(&uri).await.word(), "miss");
}

/// A purge of a tag would not reach a response that was stored without it.
#[tokio::test(start_paused = true)]
async fn response_stored_without_its_tags_is_not_served() {
    let storage = MemoryStorage::new();
    let uri = format!("{A}?xkey|a&cache-tag|b");
    let without =
        Fixture::with(origin_of_fields(), storage.clone(), |builder| builder.tag_fields(["cache-tag"]));
    fill(&without, &[&uri]).await;
    without.layer.idle().await;
    let fixture =
        Fixture::with(origin_of_fields(), storage, |builder| builder.tag_fields(["cache-tag", "xkey"]));
    for expected in ["miss", "hit"] {
        assert_eq!(fixture.get(&uri).await.word(), expected);
        fixture.layer.idle().await;
    }
    assert_eq!(without.get(&uri).await.word(), "hit");
}
