//! Which entries the handle lists.

use std::time::Duration;

use futures_util::TryStreamExt;
use http_body_util::BodyExt;
use tower_response_cache::storage::{BoxStorage, MemoryStorage};
use tower_response_cache::{CacheOptions, EntryFilter, ErrorKind, StoredEntry, Timestamp};

use crate::support::faulty::{Faulty, Mode};
use crate::support::{Fixture, get, get_with};
use crate::{A, SECOND, in_language, origin, stores, world, world_with};

fn everything() -> EntryFilter {
    EntryFilter::new()
}

#[tokio::test]
async fn entry_describes_stored_response() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        let begun = world.clock.now();
        let mut request = get("http://example.com/?type=text/html&groups=all&len=300000");
        request.extensions_mut().insert(CacheOptions::new().tags(["one", "two"]));
        world.settled(request).await;
        world.clock.advance(20 * SECOND);
        let entries: Vec<StoredEntry> = world.handle().entries(&everything()).try_collect().await.unwrap();
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!(entry.url(), "http://example.com/?type=text/html&groups=all&len=300000");
        assert_eq!((entry.status().as_u16(), entry.content_type()), (200, Some("text/html")));
        assert_eq!((entry.body_len(), entry.is_chunked()), (300_000, true));
        assert!((300_200..302_000).contains(&entry.stored_len()), "{}", entry.stored_len());
        assert_eq!((entry.requested_at(), entry.stored_at()), (begun, begun));
        assert_eq!(
            (entry.expires_at(), entry.retain_until()),
            (begun + 60 * SECOND, begun + (60 + 7 * 86_400) * SECOND)
        );
        assert_eq!((entry.age(), entry.ttl(), entry.is_fresh()), (20 * SECOND, 40, true));
        assert_eq!(entry.tags().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(entry.groups().collect::<Vec<_>>(), ["all"]);
        assert!(!entry.is_personal());
        assert_eq!(
            entry.vary().iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            ["authorization", "cookie"]
        );
        assert!(!format!("{entry:?}").contains("text/html\""), "the debug output contains no field values");
        let body = world.handle().read_entry(entry).await.unwrap().unwrap().into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 300_000);
        world.clock.advance(41 * SECOND);
        let entry = world.handle().get_url(entry.url()).await.unwrap().unwrap();
        assert_eq!((entry.age(), entry.ttl(), entry.is_fresh()), (61 * SECOND, -1, false));
    }
}

#[tokio::test]
async fn filter_requires_all_conditions() {
    let storage = BoxStorage::new(MemoryStorage::new());
    let world = world(&storage);
    world.fill(&["http://example.com/old?age=5000", "http://example.com/old/error?status=404&age=10"]).await;
    world.clock.advance(100 * SECOND);
    world.fill(&["http://example.com/new?len=100", "http://example.com/same?control=no-cache"]).await;
    let mut tagged = get("http://example.com/tagged?age=600");
    tagged.extensions_mut().insert(CacheOptions::new().tags(["news"]));
    world.settled(tagged).await;
    let (old, error, new) = ("/old?age=5000", "/old/error?status=404&age=10", "/new?len=100");
    let (same, tagged) = ("/same?control=no-cache", "/tagged?age=600");
    for (name, filter, expected) in [
        ("everything", everything(), vec![new, error, old, same, tagged]),
        ("glob", everything().url("example.com/old/**"), vec![error, old]),
        ("host", everything().url("*.example.com"), vec![]),
        ("status", everything().status(404..=404), vec![error]),
        ("statuses from", everything().status(400..), vec![error]),
        ("statuses to", everything().status(..400), vec![new, old, same, tagged]),
        ("older", everything().older_than(99 * SECOND), vec![error, old]),
        ("older, exactly", everything().older_than(100 * SECOND), vec![]),
        ("younger", everything().younger_than(100 * SECOND), vec![new, same, tagged]),
        ("younger, not at all", everything().younger_than(Duration::ZERO), vec![]),
        ("fresh", everything().fresh(), vec![new, old, tagged]),
        ("stale", everything().stale(), vec![error, same]),
        ("larger", everything().larger_than(4), vec![new]),
        ("larger, exactly", everything().larger_than(100), vec![]),
        ("tag", everything().tag("news"), vec![tagged]),
        ("no tag", everything().tag("new"), vec![]),
        ("test", everything().matching(|entry| entry.url().ends_with("404&age=10")), vec![error]),
        ("two", everything().url("example.com/old/**").stale(), vec![error]),
        ("the same twice", everything().status(404..=404).status(200..=200), vec![]),
        ("tests", everything().matching(|_| true).matching(|entry| entry.is_fresh()), vec![new, old, tagged]),
    ] {
        assert_eq!(world.listed(&filter).await, expected, "{name}");
    }
}

#[tokio::test]
async fn predicate_runs_once_after_other_conditions() {
    let world = world(&BoxStorage::new(MemoryStorage::new()));
    world.fill(&[A, "http://example.com/b?status=404", "http://example.com/c"]).await;
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&asked);
    let filter = everything()
        .matching(move |entry| {
            seen.lock().unwrap().push(entry.url().to_owned());
            true
        })
        .status(200..=200);
    world.listed(&filter).await;
    let mut asked = asked.lock().unwrap().clone();
    asked.sort();
    assert_eq!(asked, [A, "http://example.com/c"]);
}

#[tokio::test]
async fn unservable_responses_are_not_listed() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        let with = |uri, tag| {
            let mut request = get(uri);
            request.extensions_mut().insert(CacheOptions::new().tags([tag]));
            request
        };
        world.fill(&["http://example.com/loose?loose=1&age=10", A, "http://example.com/deleted"]).await;
        world.settled(with("http://example.com/ended", "gone")).await;
        world.settled(with("http://example.com/tagged", "here")).await;
        assert_eq!(world.handle().size().await.unwrap().responses, 5);
        world.handle().delete_url("http://example.com/deleted").await.unwrap();
        world.handle().invalidate_tag("gone").await.unwrap();
        world.clock.advance(11 * SECOND);
        assert_eq!(world.listed(&everything()).await, ["/a", "/tagged"]);
        let size = world.handle().size().await.unwrap();
        assert_eq!((size.entries, size.responses), (2, 2));
        assert!((400..4_000).contains(&size.bytes), "{}", size.bytes);
    }
}

#[tokio::test]
async fn incomplete_body_is_not_listed() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        let (piece, body) = world.begun(A).await;
        assert!(world.listed(&everything()).await.is_empty());
        drop(piece);
        body.await;
        world.layer.idle().await;
        assert_eq!(world.listed(&everything()).await, ["/a"]);
    }
}

#[tokio::test]
async fn urls_are_unique_and_omit_old_variants() {
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        const URI: &str = "http://example.com/?vary=accept-language";
        for language in ["en", "de", "fr"] {
            world.settled(in_language(URI, language)).await;
        }
        world.fill(&[A]).await;
        let handle = world.handle();
        let mut urls: Vec<String> = handle.urls(&everything()).try_collect().await.unwrap();
        urls.sort();
        assert_eq!(urls, [URI, A]);
        let size = handle.size().await.unwrap();
        assert_eq!((size.entries, size.responses), (2, 4));
        handle.delete_url(URI).await.unwrap();
        world.settled(in_language(URI, "en")).await;
        assert_eq!(handle.size().await.unwrap().responses, 2, "variants of the deleted head do not count");
    }
}

#[tokio::test]
async fn handle_lists_own_partition_or_all() {
    for (storage, _folder) in stores().await {
        let plain = world(&storage);
        let one = world_with(&storage, |builder| builder.partition("one"));
        let secret = world_with(&storage, |builder| builder.key_secret("secret"));
        for (world, path) in [(&plain, "plain"), (&one, "one"), (&secret, "secret")] {
            world.fill(&[&format!("http://example.com/{path}")]).await;
        }
        assert_eq!(plain.listed(&everything()).await, ["/plain"]);
        assert_eq!(one.listed(&everything()).await, ["/one"]);
        assert_eq!(secret.listed(&everything()).await, ["/secret"]);
        let all = one.handle().across_partitions(true);
        assert_eq!(crate::listed(&all, &everything()).await, ["/one", "/plain", "/secret"]);
        assert!(!all.has_url("http://example.com/plain").await.unwrap(), "a URL names only own entries");
        let others = everything().url("example.com/plain");
        assert_eq!(all.delete_matching(&others).await.unwrap(), 1);
        assert_eq!(plain.get("http://example.com/plain").await.word(), "miss");
    }
}

#[tokio::test]
async fn malformed_filter_pattern_is_config_error() {
    let world = world(&BoxStorage::new(MemoryStorage::new()));
    world.fill(&[A]).await;
    let (handle, filter) = (world.handle(), everything().url("exa mple.com").status(200..));
    let other = MemoryStorage::new();
    for error in [
        handle.entries(&filter).try_collect::<Vec<_>>().await.unwrap_err(),
        handle.urls(&filter).try_collect::<Vec<_>>().await.unwrap_err(),
        handle.delete_matching(&filter).await.unwrap_err(),
        handle.reset_expiry(&filter, SECOND).await.unwrap_err(),
        handle.copy_to(&other, &filter, |_| {}).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    assert!(handle.has_url(A).await.unwrap());
}

#[tokio::test]
async fn listing_skips_unreadable_records() {
    use tower_response_cache::storage::{Key, Record, Storage};
    for (storage, _folder) in stores().await {
        let world = world(&storage);
        world.fill(&[A]).await;
        for (number, payload) in [&b""[..], &[255; 40], &[4, 0, 0, 0, 9, 1]].into_iter().enumerate() {
            let record = Record::new(payload.to_vec(), Timestamp::NEVER);
            storage.write(Key::head([number as u8; 16]), record).await.unwrap();
        }
        assert_eq!(world.listed(&everything()).await, ["/a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_listing_times_out() {
    let faulty = Faulty::new(Mode::Well);
    let fixture = Fixture::with(origin(), faulty.clone(), |builder| builder);
    fixture.get(A).await;
    fixture.layer.idle().await;
    faulty.set(Mode::Hung);
    let handle = fixture.layer.handle();
    let all = everything();
    let mut entries = std::pin::pin!(handle.entries(&all));
    assert_eq!(entries.try_next().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(entries.try_next().await.unwrap().is_none(), "the listing ends after its error");
}

#[test]
fn listing_many_entries_uses_little_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = world(&BoxStorage::new(MemoryStorage::new()));
        for number in 0..10_000 {
            world.get(&format!("http://example.com/{number}?len=500")).await;
        }
        let handle = world.handle();
        let count = std::cell::Cell::new(0);
        let mut listing = std::pin::pin!(async {
            let all = everything();
            let mut entries = std::pin::pin!(handle.entries(&all));
            while entries.try_next().await.unwrap().is_some() {
                count.set(count.get() + 1);
            }
        });
        // The memory storage never waits, so the listing can be polled in a loop.
        let used = allocation_counter::measure(|| {
            use std::task::{Context, Waker};
            while listing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {}
        });
        assert_eq!(count.get(), 10_000);
        assert!(used.bytes_max < 2_000_000, "{used:?}");
    });
}

#[tokio::test]
async fn handle_methods_work_in_spawned_task() {
    let (storage, _folder) = crate::in_a_file().await;
    let world = world(&storage);
    world.fill(&[A]).await;
    let handle = world.handle();
    let service = world.service.clone();
    let work = tokio::spawn(async move {
        let all = everything();
        let other = MemoryStorage::new();
        assert!(handle.has(&get_with(A, &[])).await.unwrap());
        assert_eq!(handle.copy_to(&other, &all, |_| {}).await.unwrap().responses, 1);
        assert!(handle.verify(|_| {}).await.unwrap().is_sound());
        assert_eq!(handle.prune().await.unwrap(), 0);
        assert_eq!(handle.reset_expiry(&all, SECOND).await.unwrap(), 1);
        assert_eq!(handle.warm(service).requests([get(A)]).await.hits, 1);
        assert_eq!(handle.urls(&all).try_collect::<Vec<_>>().await.unwrap(), [A]);
        assert_eq!(handle.size().await.unwrap().entries, 1);
        assert_eq!(handle.delete_expired().await.unwrap(), 0);
        assert_eq!(handle.delete_matching(&all).await.unwrap(), 1);
        assert_eq!(handle.clear().await.unwrap(), 0);
    });
    work.await.unwrap();
}
