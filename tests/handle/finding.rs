//! Finding what is stored for one request or URL.

use http::Request;
use http_body_util::BodyExt;
use tower_response_cache::storage::{BoxStorage, Key, Kind, MemoryStorage, Storage};
use tower_response_cache::{CacheOptions, EntryFilter, ErrorKind};

use crate::support::faulty::{Faulty, Mode};
use crate::support::{Fixture, Origin, ReqBody, get, get_with, response};
use crate::{A, SECOND, in_language, origin, stores, world, world_with};
use futures_util::TryStreamExt;
use tower::ServiceExt;

const LARGE: &str = "http://example.com/large?len=400000";

#[tokio::test]
async fn handle_reads_entries_without_asking_origin() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        let handle = world.handle();
        assert!(!handle.has(&get(A)).await.unwrap() && handle.read(&get(A)).await.unwrap().is_none());
        world.fill(&[A, LARGE]).await;
        for _ in 0..2 {
            let entry = handle.get(&get(A)).await.unwrap().unwrap();
            assert_eq!((entry.url(), entry.body_len()), (A, 4));
            for (uri, len) in [(A, 4), (LARGE, 400_000)] {
                assert!(handle.has(&get(uri)).await.unwrap() && handle.has_url(uri).await.unwrap());
                let response = handle.read(&get(uri)).await.unwrap().unwrap();
                assert_eq!(response.headers()["etag"], "\"\"");
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "b".repeat(len));
            }
            let head = Request::head(A).header("cache-control", "no-store").body(()).unwrap();
            assert!(handle.has(&head).await.unwrap());
            world.clock.advance(61 * SECOND);
        }
        assert_eq!(world.origin.count(), 2);
        // A stale response is kept for a week, to be revalidated. By now it has expired.
        world.clock.advance(7 * 24 * 3600 * SECOND);
        assert!(!handle.has(&get(A)).await.unwrap() && handle.get_url(A).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn handle_lookups_count_as_no_request() {
    let world = world(&BoxStorage::new(MemoryStorage::new()));
    world.fill(&[A]).await;
    let handle = world.handle();
    let before = handle.statistics();
    assert!(handle.has_url(A).await.unwrap());
    handle.read(&get(A)).await.unwrap().unwrap();
    assert_eq!(handle.statistics(), before);
    for there in [1, 0] {
        assert_eq!(handle.delete_url(A).await.unwrap(), there);
    }
    assert_eq!(handle.delete(&get("http://example.com/never")).await.unwrap(), 0);
    assert_eq!(handle.statistics().invalidations(), before.invalidations() + 3);
}

#[tokio::test]
async fn request_fields_select_variant() {
    const URI: &str = "http://example.com/?vary=accept-language";
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        for language in ["en", "de"] {
            world.settled(in_language(URI, language)).await;
        }
        let handle = world.handle();
        for language in ["en", "de"] {
            let entry = handle.get(&in_language(URI, language)).await.unwrap().unwrap();
            assert_eq!(entry.headers()["etag"], format!("\"{language}\""));
            assert!(entry.vary().iter().any(|name| name == "accept-language") && !entry.is_personal());
        }
        assert!(!handle.has(&in_language(URI, "fr")).await.unwrap());
        assert_eq!(handle.get_url(URI).await.unwrap().unwrap().headers()["etag"], "\"en\"", "the first");
        assert_eq!(handle.delete(&in_language(URI, "fr")).await.unwrap(), 1, "deletes all variants");
        assert!(!handle.has(&in_language(URI, "en")).await.unwrap());
        assert!(!handle.has(&in_language(URI, "de")).await.unwrap());
    }
}

#[tokio::test]
async fn personal_response_requires_matching_credentials() {
    let world = world(&BoxStorage::new(MemoryStorage::new()));
    let with = |who| get_with(A, &[("authorization", who)]);
    world.settled(with("alice")).await;
    let handle = world.handle();
    assert!(handle.get(&with("alice")).await.unwrap().unwrap().is_personal());
    assert!(!handle.has(&with("bob")).await.unwrap() && !handle.has(&get(A)).await.unwrap());
    assert!(handle.has_url(A).await.unwrap(), "a URL names no user");
}

#[tokio::test]
async fn content_keyed_methods_delete_but_find_nothing() {
    let world = world(&BoxStorage::new(MemoryStorage::new()));
    world.fill(&[A]).await;
    let post = Request::post(A).body(()).unwrap();
    assert!(!world.handle().has(&post).await.unwrap() && world.handle().read(&post).await.unwrap().is_none());
    assert_eq!(world.handle().delete(&post).await.unwrap(), 1);
    assert!(!world.handle().has_url(A).await.unwrap());
}

#[tokio::test]
async fn handle_applies_layer_key_settings() {
    let world = world_with(&BoxStorage::new(MemoryStorage::new()), |builder| {
        builder.ignore_query_params(["utm"]).sort_query(true)
    });
    let named = || {
        let mut request = get("http://example.com/anything");
        request.extensions_mut().insert(CacheOptions::new().key("mine"));
        request
    };
    world.fill(&["http://example.com/?b=1&a=2&utm=x"]).await;
    world.settled(named()).await;
    let handle = world.handle();
    assert!(handle.has_url("HTTP://Example.com:80?utm=y&a=2&b=1#top").await.unwrap());
    assert!(
        handle.has(&named()).await.unwrap() && !handle.has_url("http://example.com/anything").await.unwrap()
    );
    let mut urls: Vec<_> = handle.urls(&EntryFilter::new()).try_collect().await.unwrap();
    urls.sort();
    assert_eq!(urls, ["cache-key:///mine", "http://example.com/?a=2&b=1"]);
    for url in urls {
        assert!(handle.has_url(&url).await.unwrap(), "{url}");
        assert_eq!((handle.delete_url(&url).await.unwrap(), handle.delete_url(&url).await.unwrap()), (1, 0));
        assert!(!handle.has_url(&url).await.unwrap(), "{url}");
    }
}

#[tokio::test]
async fn invalid_url_is_config_error() {
    let handle = world(&BoxStorage::new(MemoryStorage::new())).handle();
    for text in ["", "example.com", "/a", "http://", "http:///a", "a b", "http://example.com:x/"] {
        for error in [
            handle.has_url(text).await.unwrap_err(),
            handle.get_url(text).await.unwrap_err(),
            handle.delete_url(text).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert_eq!(error.to_string(), "not an absolute URL: expected a scheme, a host and a path");
        }
    }
}

#[tokio::test]
async fn body_with_missing_chunk_is_not_read() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        world.fill(&[LARGE]).await;
        let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
        let chunk = keys.into_iter().find(|key| key.kind == Kind::Chunk && key.part == 0).unwrap();
        assert!(storage.delete(chunk).await.unwrap());
        assert!(world.handle().read(&get(LARGE)).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn deletion_reaches_every_cache_on_storage() {
    for (storage, _folder) in stores().await {
        let (one, other) = (world(&storage), world(&storage));
        one.fill(&[A, LARGE]).await;
        assert_eq!(other.get(A).await.word(), "hit");
        assert_eq!(one.handle().delete(&get(A)).await.unwrap(), 1);
        assert_eq!(one.handle().delete(&get(A)).await.unwrap(), 0);
        assert_eq!((other.get(A).await.word(), other.get(LARGE).await.word()), ("miss", "hit"));
    }
}

#[tokio::test]
async fn fetch_in_progress_does_not_undo_deletion() {
    for (storage, _folder) in stores().await {
        // The origin deletes the entry while the request is in progress.
        let world = world(&storage);
        let handle = world.handle();
        let deleting = tower::service_fn(move |_: Request<ReqBody>| {
            let handle = handle.clone();
            async move {
                handle.delete_url(A).await.unwrap();
                Ok::<_, std::convert::Infallible>(response(&[("cache-control", "max-age=60")], "old"))
            }
        });
        let service = tower::Layer::layer(&world.layer, deleting);
        let answer = service.oneshot(get(A)).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "old");
        world.layer.idle().await;
        assert!(!world.handle().has_url(A).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn failed_deletion_is_error_but_takes_effect() {
    for mode in [Mode::Failing, Mode::Hung] {
        let faulty = Faulty::new(Mode::Well);
        let fixture = Fixture::with(origin(), faulty.clone(), |builder| builder);
        fixture.get(A).await;
        fixture.layer.idle().await;
        let handle = fixture.layer.handle();
        faulty.set(mode);
        assert_eq!(handle.has(&get(A)).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(handle.has_url(A).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(handle.delete_url(A).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(handle.entries(&EntryFilter::new()).try_collect::<Vec<_>>().await.is_err());
        assert!(handle.size().await.is_err() && handle.verify(|_| {}).await.is_err());
        faulty.set(Mode::Well);
        fixture.clock.advance(3 * SECOND);
        assert!(!handle.has_url(A).await.unwrap(), "{mode:?}: the deletion is pending");
        assert_eq!(fixture.get(A).await.word(), "miss");
    }
}

#[tokio::test(start_paused = true)]
async fn pending_deletion_is_not_listed() {
    let faulty = Faulty::new(Mode::Well);
    let fixture = Fixture::with(origin(), faulty.clone(), |builder| builder);
    for uri in [A, "http://example.com/b"] {
        fixture.get(uri).await;
    }
    fixture.layer.idle().await;
    faulty.set(Mode::HungWrites);
    let handle = fixture.layer.handle();
    assert!(handle.delete_url(A).await.is_err());
    let urls: Vec<_> = handle.urls(&EntryFilter::new()).try_collect().await.unwrap();
    assert_eq!(urls, ["http://example.com/b"]);
    assert_eq!(handle.size().await.unwrap().responses, 1);
}

#[tokio::test(start_paused = true)]
async fn variant_with_pending_deletion_is_not_served() {
    const URI: &str = "http://example.com/?vary=accept-language";
    let faulty = Faulty::new(Mode::Well);
    let fixture = Fixture::with(origin(), faulty.clone(), |builder| builder);
    for language in ["en", "de"] {
        fixture.ask(in_language(URI, language)).await;
        fixture.layer.idle().await;
    }
    faulty.set(Mode::ReadOnly);
    let german = EntryFilter::new().matching(|entry| entry.headers()["etag"] == "\"de\"");
    assert_eq!(
        fixture.layer.handle().delete_matching(&german).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(fixture.ask(in_language(URI, "de")).await.word(), "miss");
    assert_eq!(fixture.ask(in_language(URI, "en")).await.word(), "hit");
}

#[tokio::test]
async fn cloned_handle_shares_cache_state() {
    let world =
        Fixture::new(Origin::always(http::Response::builder().header("cache-control", "max-age=60"), "body"));
    let handle = world.layer.handle().clone();
    world.get(A).await;
    assert!(handle.has_url(A).await.unwrap());
    assert_eq!(handle.storage().size().await.unwrap(), 1);
    assert_eq!(handle.statistics(), world.layer.statistics());
    assert_eq!(format!("{handle:?}"), "CacheHandle { across_partitions: false, .. }");
}
