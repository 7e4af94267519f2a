//! Assertions that the tests of several storages share.

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use tower_response_cache::Timestamp;
use tower_response_cache::storage::Storage;

use crate::support::{Fixture, Origin, get_with, response};

const A: &str = "http://example.com/a";

/// Asserts how many requests to the server a hit costs.
///
/// A hit on the first variant costs one request, and a hit on a further variant two. `asked` returns the number of
/// requests since its last call, and how many of them were reads.
pub async fn hits_cost_one_or_two_requests<S: Storage>(
    storage: S,
    mut asked: impl FnMut() -> (usize, usize),
) {
    let origin = Origin::new(|request| {
        let language = request.headers()["accept-language"].to_str().unwrap();
        response(&[("cache-control", "max-age=60"), ("vary", "accept-language")], language.repeat(512))
    });
    let cache = Fixture::with(origin, storage, |builder| builder);
    cache.clock.set(SystemTime::now().into());
    for (language, each) in [("en", 1), ("de", 2)] {
        let ask = || cache.ask(get_with(A, &[("accept-language", language)]));
        assert_eq!(ask().await.word(), "miss");
        cache.layer.idle().await;
        assert_eq!(ask().await.word(), "hit");
        asked();
        for _ in 0..20 {
            assert_eq!(ask().await.word(), "hit");
        }
        assert_eq!(asked(), (20 * each, 20 * each), "{language}");
    }
}

/// Asserts that an expired record is a miss while the server still has it.
///
/// Then asserts that `delete_expired` removes it.
pub async fn expired_but_undeleted_record_is_a_miss<S: Storage>(storage: S) {
    let body = vec![7; 300_000];
    let origin = Origin::new(move |_| response(&[("cache-control", "max-age=60")], body.clone()));
    let cache = Fixture::with(origin, storage.clone(), |builder| builder);
    cache.clock.set(SystemTime::now().into());
    for expected in ["miss", "hit"] {
        assert_eq!(cache.get(A).await.word(), expected);
        cache.layer.idle().await;
    }
    let month = Duration::from_secs(30 * 24 * 3600);
    cache.clock.advance(month);
    assert_eq!(storage.size().await.unwrap(), 1, "the server has already deleted the record");
    assert_eq!(cache.get(A).await.word(), "miss");
    cache.layer.idle().await;
    let keys = storage.keys().try_collect::<Vec<_>>().await.unwrap();
    let over: Timestamp = (SystemTime::now() + 3 * month).into();
    assert_eq!(storage.delete_expired(over).await.unwrap(), keys.len() as u64);
    assert_eq!(storage.keys().try_collect::<Vec<_>>().await.unwrap(), []);
}
