//! Counters of `Statistics`.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower_response_cache::{MissReason, StaleReason};

use crate::support::faulty::{Faulty, Mode};
use crate::support::{Fixture, Origin, get, get_with, has_tag, not_modified, response};

const A: &str = "http://example.com/a";

#[tokio::test]
async fn each_request_counts_once_by_its_outcome() {
    let fields = [("cache-control", "max-age=10, stale-while-revalidate=5"), ("etag", "\"v1\"")];
    let cache = Fixture::new(Origin::new(move |request| match has_tag(request, "\"v1\"") {
        true => not_modified(&fields),
        false => response(&fields, "a"),
    }));
    cache.get(A).await;
    cache.get(A).await;
    cache.get(A).await;
    cache.clock.advance(Duration::from_secs(20));
    assert_eq!(cache.get(A).await.word(), "revalidated");
    cache.clock.advance(Duration::from_secs(12));
    assert_eq!(cache.get(A).await.word(), "stale");
    cache.layer.idle().await;
    cache.ask(get_with("http://example.com/b", &[("cache-control", "only-if-cached")])).await;
    cache.ask(Request::options(A).body(Full::default()).unwrap()).await;
    cache.ask(Request::put(A).body(Full::from("x")).unwrap()).await;
    assert_eq!(cache.get(A).await.word(), "miss");

    let statistics = cache.layer.statistics();
    assert_eq!(
        statistics.to_string(),
        "requests=9 hits=2 stale=1 revalidated=1 misses=3 bypassed=1 refused=1 failed=0 collapsed=0 near=0 near_unchecked=0 stored=2 \
         freshened=2 superseded=0 storage_failures=0 origin_errors=0 refreshes=1 resumed=0 invalidations=1"
    );
    assert_eq!(statistics.stale_by(StaleReason::WhileRevalidate), 1);
    assert_eq!(statistics.stale_by(StaleReason::MaxStale), 0);
    let by = |reason| statistics.misses_by(reason);
    let all = [MissReason::Absent, MissReason::Method, MissReason::Invalidated].map(by);
    assert_eq!(all, [1, 1, 1]);
}

#[tokio::test]
async fn services_of_one_layer_share_statistics() {
    let origin = Origin::always(http::Response::builder().header("cache-control", "max-age=60"), "a");
    let cache = Fixture::new(origin.clone());
    let other = tower::Layer::layer(&cache.layer.clone(), origin);
    cache.get(A).await;
    drop(tower::ServiceExt::oneshot(other, get(A)).await.unwrap());
    assert_eq!((cache.layer.statistics().hits(), cache.layer.statistics().misses()), (1, 1));
}

#[tokio::test]
async fn storage_failures_and_superseded_writes_count_separately() {
    let storage = Faulty::new(Mode::ReadOnly);
    let origin = Origin::always(http::Response::builder().header("cache-control", "max-age=60"), "a");
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    cache.get(A).await;
    assert_eq!(cache.layer.statistics().storage_failures(), 1);
    storage.set(Mode::Well);
    // The entry is invalidated before the body is read.
    let late = cache.send(get(A)).await;
    cache.ask(Request::put(A).body(Full::from("x")).unwrap()).await;
    drop(http_body_util::BodyExt::collect(late.into_body()).await.unwrap());
    let statistics = cache.layer.statistics();
    assert_eq!((statistics.superseded(), statistics.stored()), (1, 0), "{statistics:?}");
}

#[tokio::test]
async fn inner_service_error_counts_as_origin_error() {
    let layer = tower_response_cache::CacheLayer::new(tower_response_cache::storage::MemoryStorage::new());
    let fails = tower::service_fn(async |_: Request<Full<Bytes>>| {
        Err::<http::Response<Full<Bytes>>, _>(std::io::Error::other("down"))
    });
    let service = tower::Layer::layer(&layer, fails);
    assert!(tower::ServiceExt::oneshot(service, get(A)).await.is_err());
    let statistics = layer.statistics();
    assert_eq!((statistics.requests(), statistics.origin_errors()), (0, 1));
}
