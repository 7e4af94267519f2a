//! Warming the cache, and sweeping expired records.

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::storage::{BoxStorage, MemoryStorage, Storage};
use tower_response_cache::{CacheLayer, Clock, WarmReport};

use crate::support::faulty::{Faulty, Mode};
use crate::support::{Fixture, Origin, ReqBody, get, response};
use crate::{A, SECOND, origin, world};

#[tokio::test]
async fn warming_stores_responses_and_counts_outcomes() {
    let world = world(&BoxStorage::new(MemoryStorage::new()));
    world.fill(&[A, "http://example.com/stale?age=1"]).await;
    world.clock.advance(2 * SECOND);
    let uris = [
        A,
        "http://example.com/stale?age=1",
        "http://example.com/new",
        "http://example.com/large?len=400000",
        "http://example.com/never?control=no-store",
    ];
    for at_once in [0, 1, 100] {
        let world = &world;
        let warmed =
            world.handle().warm(world.service.clone()).at_once(at_once).requests(uris.map(get)).await;
        let (hits, stored) = if at_once == 0 { (1, 2) } else { (4, 0) };
        assert_eq!((warmed.hits, warmed.stored, warmed.not_stored, warmed.failed), (hits, stored, 1, 0));
        assert_eq!(warmed.revalidated, if at_once == 0 { 1 } else { 0 });
    }
    assert_eq!(world.get("http://example.com/large?len=400000").await.word(), "hit");
}

#[tokio::test]
async fn warming_limits_concurrency_and_counts_failures() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (level, peak) = (Arc::clone(&now), Arc::clone(&most));
    let client = service_fn(move |request: Request<ReqBody>| {
        let (level, peak) = (Arc::clone(&level), Arc::clone(&peak));
        async move {
            peak.fetch_max(level.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            level.fetch_sub(1, Ordering::SeqCst);
            match request.uri().path() {
                "/3" => Err(std::io::Error::other("scripted")),
                _ => Ok(response(&[("cache-control", "max-age=60")], "body")),
            }
        }
    });
    let layer = CacheLayer::new(MemoryStorage::new());
    let requests = (0..20).map(|number| get(&format!("http://example.com/{number}")));
    let warmed = layer.handle().warm(layer.layer(client)).at_once(4).requests(requests).await;
    assert_eq!((warmed.stored, warmed.failed), (19, 1));
    assert_eq!((most.load(Ordering::SeqCst), now.load(Ordering::SeqCst)), (4, 0));
    assert_eq!(layer.handle().size().await.unwrap().entries, 19);
}

#[tokio::test(start_paused = true)]
async fn warming_waits_for_storage_writes() {
    let faulty = Faulty::new(Mode::HungWrites);
    let fixture = Fixture::with(origin(), faulty.clone(), |builder| builder);
    let (handle, service) = (fixture.layer.handle(), fixture.service.clone());
    let warming = tokio::spawn(async move { handle.warm(service).requests([get(A)]).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(fixture.origin.count() == 1 && !warming.is_finished());
    faulty.set(Mode::Well);
    assert_eq!(warming.await.unwrap().stored, 1);
    assert_eq!(fixture.layer.handle().size().await.unwrap().entries, 1);
}

#[tokio::test]
async fn warming_requests_urls_with_fields_and_reports_progress() {
    let world = world(&BoxStorage::new(MemoryStorage::new()));
    let mut reports = Vec::new();
    let fields = [(http::header::ACCEPT_LANGUAGE, "de".parse().unwrap())].into_iter().collect();
    let handle = world.handle();
    let warmer = handle.warm(world.service.clone()).at_once(1).headers(fields);
    let urls = [A, "http://example.com/b?control=no-store", "not a URL", " http://example.com/c "];
    let warmed = warmer.progress(|report| reports.push(*report)).urls(urls).await;
    assert_eq!((warmed.stored, warmed.not_stored, warmed.failed, warmed.total()), (2, 1, 1, 4));
    assert_eq!(reports.iter().map(WarmReport::total).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(reports.last(), Some(&warmed));
    assert_eq!(world.origin.last()["accept-language"], "de");
}

#[tokio::test(start_paused = true)]
async fn warming_spreads_requests_over_time() {
    let begun = tokio::time::Instant::now();
    let starts = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&starts);
    let client = service_fn(move |request: Request<ReqBody>| {
        seen.lock().unwrap().push(begun.elapsed().as_millis());
        async move {
            if request.uri().path() == "/slow" {
                tokio::time::sleep(Duration::from_millis(900)).await;
            }
            Ok::<_, std::convert::Infallible>(response(&[("cache-control", "max-age=60")], "body"))
        }
    });
    let layer = CacheLayer::new(MemoryStorage::new());
    let handle = layer.handle();
    let warmer = handle.warm(layer.layer(client)).at_once(1).rate(10, SECOND);
    let urls = ["a", "b", "slow", "c", "d"].map(|path| format!("http://example.com/{path}"));
    assert_eq!(warmer.urls(urls).await.stored, 5);
    // The time that a slow answer takes is not made up for.
    let mut expected = vec![0, 100, 200, 1100, 1200];
    let starts = starts.lock().unwrap().clone();
    for (start, expected) in starts.iter().zip(&mut expected) {
        assert!(start.abs_diff(*expected) <= 5, "{starts:?}"); // timers have whole milliseconds
    }
    assert_eq!(starts.len(), 5);
}

#[tokio::test]
async fn warming_follows_links_of_stored_responses_once() {
    let links = |path: &str| match path {
        "/page" => {
            "</style>; rel=preload; as=style, </never>; rel=prefetch, <//other.example/x>; rel=preload, </page>; rel=preload"
        }
        "/style" => "</font>; rel=preload, </style>; rel=prefetch",
        "/never" => "</hidden>; rel=preload",
        _ => "</endless>; rel=next",
    };
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&asked);
    let origin = Origin::new(move |request| {
        let path = request.uri().path();
        seen.lock().unwrap().push(request.uri().to_string());
        let control = if path == "/never" { "no-store" } else { "max-age=60" };
        response(&[("cache-control", control), ("link", links(path))], "body")
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| builder);
    let handle = fixture.layer.handle();
    let page = ["http://example.com/page"];
    assert_eq!(handle.warm(fixture.service.clone()).urls(page).await.total(), 1);
    let warmed = handle.warm(fixture.service.clone()).at_once(3).follow_links(true).urls(page).await;
    // The page again is a hit, because it is stored.
    assert_eq!((warmed.hits, warmed.stored, warmed.not_stored, warmed.failed), (2, 2, 1, 0));
    let mut asked = asked.lock().unwrap().clone();
    asked.sort();
    assert_eq!(asked, ["font", "never", "page", "style"].map(|path| format!("http://example.com/{path}")));
}

#[tokio::test]
async fn warming_stops_following_endless_links() {
    let origin = Origin::new(|request| {
        let number: u32 = request.uri().path()[1..].parse().unwrap();
        let link = format!("</{}>; rel=prefetch", number + 1);
        response(&[("cache-control", "max-age=60"), ("link", &link)], "body")
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| builder);
    let handle = fixture.layer.handle();
    let warmed = handle.warm(fixture.service.clone()).follow_links(true).urls(["http://example.com/0"]).await;
    assert_eq!(warmed.total(), 10_001);
}

#[cfg(feature = "sitemap")]
#[tokio::test]
async fn warming_requests_the_urls_of_a_sitemap() {
    let origin = Origin::new(|request| {
        let body = match request.uri().path() {
            "/index.xml" => {
                "<sitemapindex><sitemap><loc>http://example.com/1.xml</loc></sitemap><sitemap><loc>/2.txt</loc></sitemap>\
                 <sitemap><loc>/index.xml</loc></sitemap><sitemap><loc>/damaged.xml</loc></sitemap></sitemapindex>"
            }
            "/1.xml" => {
                "<urlset><url><loc>http://example.com/a</loc></url><url><loc>http://example.com/b?c&amp;d</loc></url></urlset>"
            }
            "/2.txt" => "http://example.com/e\nhttp://other.example/f\n",
            "/damaged.xml" => "<urlset>",
            "/missing.xml" => return http::Response::builder().status(404).body(Full::default()).unwrap(),
            _ => "page",
        };
        response(&[("cache-control", "max-age=60")], body)
    });
    let fixture = Fixture::with(origin, MemoryStorage::new(), |builder| builder);
    let handle = fixture.layer.handle();
    let warm = async |url: &str| handle.warm(fixture.service.clone()).sitemap(url).await;
    let warmed = warm("http://example.com/index.xml").await.unwrap();
    assert_eq!(
        (warmed.stored, warmed.failed),
        (3, 2),
        "an index in an index, and a damaged file, count as failed"
    );
    for path in ["a", "b?c&d", "e"] {
        assert!(handle.has_url(&format!("http://example.com/{path}")).await.unwrap(), "{path}");
    }
    assert!(!handle.has_url("http://other.example/f").await.unwrap());
    for (path, kind) in [
        ("missing.xml", tower_response_cache::ErrorKind::Unavailable),
        ("damaged.xml", tower_response_cache::ErrorKind::Corrupt),
    ] {
        assert_eq!(warm(&format!("http://example.com/{path}")).await.unwrap_err().kind(), kind, "{path}");
    }
    assert_eq!(warm("no URL").await.unwrap_err().kind(), tower_response_cache::ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn sweeper_removes_expired_records_until_dropped() {
    let memory = MemoryStorage::new();
    let world = world(&BoxStorage::new(memory.clone()));
    let fill = async || {
        world.fill(&["http://example.com/loose?loose=1&age=1"]).await;
        world.clock.advance(2 * SECOND);
    };
    fill().await;
    let sweeper = world.handle().sweep_every(10 * SECOND);
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(memory.size().await.unwrap(), 1);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(memory.size().await.unwrap(), 0);
    fill().await;
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(memory.size().await.unwrap(), 0, "the sweeper runs again");
    assert!(sweeper.is_running());
    drop(sweeper);
    fill().await;
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(memory.size().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn sweeper_survives_failing_storage() {
    let faulty = Faulty::new(Mode::Failing);
    let fixture = Fixture::with(origin(), faulty.clone(), |builder| builder);
    let sweeper = fixture.layer.handle().sweep_every(Duration::ZERO);
    tokio::time::sleep(SECOND).await;
    let failed = faulty.operations();
    assert!((5..=10).contains(&failed), "the storage was swept {failed} times in a second");
    faulty.set(Mode::Well);
    tokio::time::sleep(SECOND).await;
    assert!(sweeper.is_running() && faulty.operations() > failed);
    drop(fixture);
    tokio::time::sleep(SECOND).await;
    assert!(!sweeper.is_running());
}

#[test]
fn sweeper_does_not_run_outside_runtime() {
    let (clock, _) = Clock::mock();
    let layer = CacheLayer::builder(MemoryStorage::new()).clock(clock).build().unwrap();
    assert!(!layer.handle().sweep_every(SECOND).is_running());
}

#[tokio::test]
async fn warming_accepts_service_with_another_body() {
    let layer = CacheLayer::new(MemoryStorage::new());
    let client = service_fn(|_: Request<ReqBody>| async {
        Ok::<_, std::convert::Infallible>(response(&[("cache-control", "max-age=60")], "body"))
    });
    let service =
        tower::util::MapResponseLayer::new(|response: http::Response<_>| response.map(BodyExt::boxed));
    let service = service.layer(layer.layer(client));
    assert_eq!(layer.handle().warm(service.clone()).requests([get(A)]).await.stored, 1);
    let body = service.oneshot(Request::get(A).body(Full::default()).unwrap()).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "body");
}

#[tokio::test]
async fn warming_counts_only_stored_responses() {
    let origin = Origin::new(|request| {
        let len = if request.uri().path() == "/large" { 1 << 20 } else { 10 };
        response(&[("cache-control", "max-age=60")], vec![b'x'; len])
    });
    let storage = MemoryStorage::builder().max_bytes(1 << 20).build();
    let fixture = Fixture::with(origin, storage, |builder| builder);
    let requests = ["http://example.com/large", "http://example.com/small"].map(get);
    let warmed = fixture.layer.handle().warm(fixture.service.clone()).at_once(1).requests(requests).await;
    assert_eq!((warmed.stored, warmed.not_stored), (1, 1));
    assert_eq!(fixture.layer.handle().size().await.unwrap().responses, 1);
}
