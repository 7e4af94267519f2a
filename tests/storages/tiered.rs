//! Two levels: changes by other processes, changes by this one, and a far storage that does not answer.

use std::time::Duration;

use futures_util::FutureExt;
use tower_response_cache::storage::tiered::Level;
use tower_response_cache::storage::{
    Key, Kind, MemoryStorage, Record, Retain, Storage, TieredStorage, connect,
};
use tower_response_cache::{Clock, ErrorKind, MockClock, Timestamp};

use crate::support::faulty::{Faulty, Mode};
use crate::support::{Fixture, Origin, get};

const LAG: Duration = Duration::from_secs(1);
const HEAD: Key = Key::head([1; 16]);
const CHUNK: Key = Key { entry: [1; 16], kind: Kind::Chunk, slot: [2; 16], part: 0 };

type Tiered<F> = TieredStorage<MemoryStorage, F>;

/// Returns a storage of two levels with a clock that stands still. Its far storage stands for the other processes.
fn tiered<F: Storage>(far: F) -> (Tiered<F>, MockClock) {
    with_outage(far, Duration::ZERO)
}

fn with_outage<F: Storage>(far: F, serve_while_far_is_down: Duration) -> (Tiered<F>, MockClock) {
    let (clock, mock) = Clock::mock();
    let builder = TieredStorage::builder(MemoryStorage::new(), far).max_lag(LAG).clock(clock);
    (builder.serve_while_far_is_down(serve_while_far_is_down).build(), mock)
}

fn record(payload: &'static str) -> Record {
    Record::new(payload, Timestamp::NEVER)
}

async fn read(storage: &impl Storage, key: Key) -> Option<String> {
    let record = storage.read(key).await.unwrap()?;
    Some(String::from_utf8(record.payload().to_vec()).unwrap())
}

fn read_now(storage: &impl Storage, key: Key) -> Option<String> {
    let record = storage.read_now(key)?.unwrap()?;
    Some(String::from_utf8(record.payload().to_vec()).unwrap())
}

#[tokio::test]
async fn change_elsewhere_is_seen_after_max_lag() {
    let far = MemoryStorage::new();
    let (storage, mock) = tiered(far.clone());
    for key in [HEAD, CHUNK, Key { kind: Kind::Group, ..HEAD }] {
        storage.write(key, record("old")).await.unwrap();
        far.write(key, record("new")).await.unwrap();
        mock.advance(LAG - Duration::from_millis(1));
        assert_eq!(read_now(&storage, key).as_deref(), Some("old"), "within the lag");
        mock.advance(Duration::from_millis(1));
        assert_eq!(read_now(&storage, key), None);
        assert_eq!(read(&storage, key).await.as_deref(), Some("new"));
        assert_eq!(read_now(&storage, key).as_deref(), Some("new"));
        far.delete(key).await.unwrap();
        mock.advance(LAG);
        assert_eq!(read(&storage, key).await, None);
        assert_eq!(read_now(&storage, key), None);
    }
}

#[tokio::test]
async fn unchanged_copy_is_confirmed_by_its_stamp() {
    let far = Faulty::new(Mode::Well);
    let (storage, mock) = tiered(far.clone());
    storage.write(HEAD, record("kept")).await.unwrap();
    for _ in 0..3 {
        mock.advance(LAG);
        assert!(storage.read_now(HEAD).is_none());
        let copy = storage.read(HEAD).await.unwrap().unwrap();
        assert_eq!(copy.payload(), "kept");
        assert!(storage.read_now(HEAD).is_some(), "it was confirmed");
    }
    let later = mock.now() + Duration::from_secs(60);
    far.inner.write(HEAD, storage.read(HEAD).await.unwrap().unwrap().with_retain_until(later)).await.unwrap();
    mock.advance(LAG);
    assert_eq!(
        storage.read(HEAD).await.unwrap().unwrap().retain_until(),
        later,
        "the new time is taken over"
    );
    mock.advance(LAG * 60);
    assert!(storage.read_now(HEAD).is_none(), "a copy that has expired is not served");
}

#[tokio::test]
async fn own_changes_are_seen_at_once() {
    let far = MemoryStorage::new();
    let (storage, _mock) = tiered(far.clone());
    storage.write(HEAD, record("one")).await.unwrap();
    assert_eq!(read_now(&storage, HEAD).as_deref(), Some("one"));
    let seen = storage.read(HEAD).await.unwrap().unwrap().stamp();
    let two = record("two");
    assert!(storage.clone().write_if(HEAD, Some(seen), two.clone()).await.unwrap());
    assert_eq!(read_now(&storage, HEAD).as_deref(), Some("two"));
    assert!(!storage.write_if(HEAD, Some(seen), record("late")).await.unwrap());
    assert_eq!(read(&storage, HEAD).await.as_deref(), Some("two"));
    let until = Timestamp::from_secs(4_000_000_000);
    storage.retain(&[HEAD], Retain::AtMost(until)).await.unwrap();
    assert_eq!(storage.read(HEAD).await.unwrap().unwrap().retain_until(), until);
    assert!(storage.delete(HEAD).await.unwrap());
    assert_eq!(read(&storage, HEAD).await, None);
    for change in 0..3 {
        storage.write(HEAD, record("again")).await.unwrap();
        assert!(read_now(&storage, HEAD).is_some());
        match change {
            0 => drop(storage.delete_many(&[HEAD]).await.unwrap()),
            1 => storage.clear().await.unwrap(),
            _ => drop(storage.delete_expired(Timestamp::NEVER).await.unwrap()),
        }
        assert_eq!((read_now(&storage, HEAD), read(&storage, HEAD).await), (None, None));
    }
}

#[tokio::test]
async fn repeated_write_keeps_the_changed_retention() {
    let (storage, _mock) = tiered(MemoryStorage::new());
    let written = record("one");
    assert!(storage.write_if(HEAD, None, written.clone()).await.unwrap());
    let until = Timestamp::from_secs(4_000_000_000);
    storage.retain(&[HEAD], Retain::AtMost(until)).await.unwrap();
    // A caller that did not get the answer writes again. The record is there, and nothing is written.
    assert!(storage.write_if(HEAD, None, written).await.unwrap());
    assert_eq!(storage.read(HEAD).await.unwrap().unwrap().retain_until(), until);
}

#[tokio::test]
async fn failed_compare_is_settled_by_the_far_storage() {
    let far = MemoryStorage::new();
    let (storage, _mock) = tiered(far.clone());
    storage.write(HEAD, record("copied")).await.unwrap();
    far.write(HEAD, record("elsewhere")).await.unwrap();
    // Within the lag, a caller still sees the copy, and its comparison fails.
    let seen = storage.read(HEAD).await.unwrap().unwrap();
    assert_eq!(seen.payload(), "copied");
    assert!(!storage.write_if(HEAD, Some(seen.stamp()), record("late")).await.unwrap());
    assert_eq!(read(&storage, HEAD).await.as_deref(), Some("elsewhere"));
}

#[tokio::test]
async fn read_that_began_before_a_change_does_not_hide_it() {
    let far = Faulty::new(Mode::Well);
    let (storage, _mock) = tiered(far.clone());
    far.inner.write(HEAD, record("old")).await.unwrap();
    // The far storage has read the record, but its answer is late.
    let late = storage.far().inner.read(HEAD).await.unwrap().unwrap();
    far.set(Mode::HungReads);
    let fill = tokio::spawn({
        let storage = storage.clone();
        async move { read(&storage, HEAD).await }
    });
    tokio::task::yield_now().await;
    storage.write(HEAD, record("new")).await.unwrap();
    let new = far.inner.read(HEAD).await.unwrap().unwrap();
    far.inner.write(HEAD, late).await.unwrap();
    far.set(Mode::Well);
    assert_eq!(fill.await.unwrap().as_deref(), Some("old"), "it began before the change");
    far.inner.write(HEAD, new).await.unwrap();
    assert_eq!(read(&storage, HEAD).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn dropped_and_failed_writes_leave_no_wrong_copy() {
    let far = Faulty::new(Mode::Well);
    let (storage, _mock) = tiered(far.clone());
    storage.write(HEAD, record("old")).await.unwrap();
    far.set(Mode::HungWrites);
    assert!(storage.write(HEAD, record("dropped")).now_or_never().is_none());
    // The write takes effect after its future was dropped.
    far.inner.write(HEAD, record("dropped")).await.unwrap();
    far.set(Mode::Well);
    assert_eq!(read(&storage, HEAD).await.as_deref(), Some("dropped"));
    far.set(Mode::FailingWrites);
    storage.write(HEAD, record("failed")).await.unwrap_err();
    far.inner.write(HEAD, record("failed")).await.unwrap();
    assert_eq!(read(&storage, HEAD).await.as_deref(), Some("failed"), "it had arrived before the error");
}

#[tokio::test]
async fn long_body_is_compared_by_one_question() {
    let far = Faulty::new(Mode::Well);
    let (storage, mock) = tiered(far.clone());
    let chunks: Vec<Key> = (0..50).map(|part| Key { part, ..CHUNK }).collect();
    for chunk in &chunks {
        storage.write(*chunk, record("chunk")).await.unwrap();
    }
    let mut payloads = vec![None; 50];
    assert!(storage.read_chunks_now(CHUNK, 49, &mut payloads));
    assert!(payloads.iter().all(Option::is_some));
    mock.advance(LAG);
    assert!(!storage.read_chunks_now(CHUNK, 49, &mut payloads));
    assert!(storage.contains_all(&chunks).await.unwrap());
    assert!(storage.read_chunks_now(CHUNK, 49, &mut payloads), "contains_all has confirmed the copies");
    far.inner.delete(chunks[30]).await.unwrap();
    assert!(storage.contains_all(&chunks).await.unwrap(), "within the lag");
    mock.advance(LAG);
    assert!(!storage.contains_all(&chunks).await.unwrap());
    assert!(!storage.read_chunks_now(CHUNK, 49, &mut payloads));
}

#[tokio::test]
async fn leases_are_never_copied() {
    let far = MemoryStorage::new();
    let (storage, _mock) = tiered(far.clone());
    let lease = Key { kind: Kind::Lease, ..HEAD };
    storage.write(lease, record("mine")).await.unwrap();
    far.write(lease, record("theirs")).await.unwrap();
    assert_eq!(read(&storage, lease).await.as_deref(), Some("theirs"));
    far.delete(lease).await.unwrap();
    assert!(!storage.contains(lease).await.unwrap());
    assert_eq!(storage.near().size().await.unwrap(), 0);
}

#[tokio::test]
async fn near_storage_that_fails_costs_only_time() {
    let (far, near) = (MemoryStorage::new(), Faulty::new(Mode::Well));
    let storage = TieredStorage::new(near.clone(), far.clone());
    storage.write(HEAD, record("one")).await.unwrap();
    near.set(Mode::Failing);
    assert_eq!(read(&storage, HEAD).await.as_deref(), Some("one"));
    storage.write(HEAD, record("two")).await.unwrap();
    near.set(Mode::Well);
    assert_eq!(
        read(&storage, HEAD).await.as_deref(),
        Some("two"),
        "the near storage still has the first record"
    );
    near.set(Mode::Failing);
    assert!(storage.delete(HEAD).await.unwrap());
    near.set(Mode::Well);
    assert_eq!(read(&storage, HEAD).await, None);
}

#[tokio::test]
async fn near_storage_with_two_levels_hides_no_change() {
    let (clock, mock) = Clock::mock();
    let near = TieredStorage::builder(MemoryStorage::new(), MemoryStorage::new());
    let near = near.max_lag(LAG).clock(clock.clone()).build();
    let far = MemoryStorage::new();
    let storage = TieredStorage::builder(near, far.clone()).max_lag(LAG).clock(clock).build();
    storage.write(HEAD, record("old")).await.unwrap();
    far.write(HEAD, record("new")).await.unwrap();
    mock.advance(LAG);
    // The near storage confirms its own copy, of which the far one knows nothing.
    storage.near().read(HEAD).await.unwrap();
    assert_eq!(read(&storage, HEAD).await.as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_no_copy_outlives_its_lag_in_an_outage() {
    let far = Faulty::new(Mode::Well);
    let (storage, mock) = tiered(far.clone());
    storage.write(HEAD, record("copied")).await.unwrap();
    for mode in [Mode::Failing, Mode::Hung] {
        far.set(mode);
        assert!(storage.read_now(HEAD).is_some(), "within the lag");
        mock.advance(LAG);
        assert!(storage.read_now(HEAD).is_none());
        assert_eq!(storage.read(HEAD).await.unwrap_err().kind(), ErrorKind::Busy);
        let asked = far.operations();
        assert_eq!(storage.read(HEAD).await.unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(far.operations(), asked, "it is not asked for a second");
        far.set(Mode::Well);
        mock.advance(Duration::from_secs(1));
        assert_eq!(read(&storage, HEAD).await.as_deref(), Some("copied"));
    }
}

#[tokio::test(start_paused = true)]
async fn setting_serves_copies_while_far_is_down() {
    let far = Faulty::new(Mode::Well);
    let (storage, mock) = with_outage(far.clone(), Duration::from_secs(10));
    storage.write(HEAD, record("copied")).await.unwrap();
    storage.write(CHUNK, record("changed")).await.unwrap();
    far.set(Mode::Hung);
    mock.advance(LAG);
    assert_eq!(read(&storage, HEAD).await.as_deref(), Some("copied"), "after the timeout of the far storage");
    assert_eq!(read_now(&storage, HEAD).as_deref(), Some("copied"), "without another wait");
    // A copy that this process has changed is not served, also if the change did not arrive.
    far.set(Mode::FailingWrites);
    storage.delete(CHUNK).await.unwrap_err();
    far.set(Mode::Hung);
    assert!(storage.read_now(CHUNK).is_none());
    storage.read(CHUNK).await.unwrap_err();
    mock.advance(Duration::from_secs(9));
    assert!(storage.read_now(HEAD).is_none(), "its time is over");
    assert_eq!(storage.read(HEAD).await.unwrap_err().kind(), ErrorKind::Busy);
    far.set(Mode::Well);
    mock.advance(Duration::from_secs(1));
    far.inner.write(HEAD, record("elsewhere")).await.unwrap();
    assert_eq!(read(&storage, HEAD).await.as_deref(), Some("elsewhere"));
}

#[tokio::test(start_paused = true)]
async fn body_is_served_by_the_first_request_of_an_outage() {
    let far = Faulty::new(Mode::Well);
    let (storage, mock) = with_outage(far.clone(), Duration::from_secs(10));
    let chunks = [CHUNK, Key { part: 1, ..CHUNK }];
    for chunk in chunks {
        storage.write(chunk, record("copied")).await.unwrap();
    }
    far.set(Mode::Failing);
    mock.advance(LAG);
    assert!(storage.contains_all(&chunks).await.unwrap());
    let absent = Key { part: 2, ..CHUNK };
    let error = storage.contains_all(&[CHUNK, absent]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "nothing is known about a key without a copy");
    // What this process has changed needs the far storage.
    storage.delete(CHUNK).await.unwrap_err();
    assert_eq!(storage.contains_all(&chunks).await.unwrap_err().kind(), ErrorKind::Busy);
    // As the other reads, it must not make the cache stop using the near storage.
    assert_eq!(storage.read(absent).await.unwrap_err().kind(), ErrorKind::Busy);
}

#[tokio::test(start_paused = true)]
async fn outage_shows_in_status_and_statistics_and_opens_no_breaker() {
    let far = Faulty::new(Mode::Well);
    let (clock, mock) = Clock::mock();
    let storage = TieredStorage::builder(MemoryStorage::new(), far.clone())
        .serve_while_far_is_down(Duration::from_secs(60))
        .clock(clock.clone())
        .build();
    let origin = Origin::always(http::Response::builder().header("cache-control", "max-age=600"), "body");
    let cache = Fixture::with(origin, storage, |builder| builder.clock(clock));
    let level = |answer: &crate::support::Answer| answer.status.level();
    let first = cache.get("http://example.com/a").await;
    assert_eq!((first.word(), level(&first)), ("miss", None));
    let near = cache.get("http://example.com/a").await;
    assert_eq!((near.word(), level(&near)), ("hit", Some(Level::Near)));
    assert!(near.status.to_string().ends_with("; detail=near"), "{}", near.status);
    far.set(Mode::Failing);
    mock.advance(Duration::from_secs(2));
    // Far more failures in a row than open a breaker.
    for number in 0..20 {
        assert_eq!(cache.get(&format!("http://example.com/absent{number}")).await.word(), "miss");
    }
    let unchecked = cache.get("http://example.com/a").await;
    assert_eq!((unchecked.word(), level(&unchecked)), ("hit", Some(Level::NearUnchecked)));
    assert!(unchecked.status.to_string().ends_with("; detail=near-unchecked"), "{}", unchecked.status);
    let statistics = cache.layer.statistics();
    assert_eq!((statistics.hits(), statistics.near(), statistics.near_unchecked()), (2, 2, 1));
    drop(cache.ask(get("http://example.com/a")).await);
}

/// Waits until a condition holds, and fails if it does not for long.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn sqlite_signals_changes_long_before_max_lag() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("sqlite://{}/cache.sqlite", folder.path().display());
    let other = connect(&address).await.unwrap();
    let storage = connect(&format!("tiered+{address}?max_lag=1h")).await.unwrap();
    // A thread sets up the signal, which the first call begins.
    until("there is a signal", async || storage.change_count(HEAD, LAG).is_some()).await;
    for payload in ["one", "two", "three"] {
        other.write(HEAD, record(payload)).await.unwrap();
        until("the change is seen", async || read(&storage, HEAD).await.as_deref() == Some(payload)).await;
        // Reading it again makes the copy current once no change is under way.
        until("there is a copy", async || {
            storage.read(HEAD).await.unwrap();
            storage.read_now(HEAD).is_some()
        })
        .await;
    }
    other.clear().await.unwrap();
    until("the deletion is seen", async || read(&storage, HEAD).await.is_none()).await;
}

#[cfg(feature = "zstd")]
#[tokio::test]
async fn address_puts_copies_before_a_compressed_storage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("compressed.sqlite");
    let address = format!("sqlite://{}", path.display());
    let storage = connect(&format!("tiered+{address}?compress=zstd:3&max_lag=10s")).await.unwrap();
    let text = "the same words again and again, ".repeat(1000);
    storage.write(HEAD, Record::new(text.clone(), Timestamp::NEVER)).await.unwrap();
    // Once the signal is set up, the copy is compared.
    until("there is a copy", async || {
        storage.read(HEAD).await.unwrap();
        read_now(&storage, HEAD) == Some(text.clone())
    })
    .await;
    assert!(connect(&address).await.unwrap().read(HEAD).await.unwrap().unwrap().payload().len() < 1000);
    let compressed = connect(&format!("{address}?compress=zstd")).await.unwrap();
    assert_eq!(read(&compressed, HEAD).await, Some(text));
}

#[tokio::test]
async fn addresses_open_two_levels_or_say_why_not() {
    let storage = connect("tiered+sqlite::memory:?near=64KiB&max_lag=250ms&far_timeout=1").await.unwrap();
    storage.write(HEAD, record("kept")).await.unwrap();
    assert_eq!(read_now(&storage, HEAD).as_deref(), Some("kept"));
    for (address, reason) in [
        ("tiered+tiered+sqlite:x", "given twice"),
        ("tiered+memory:", "write memory: alone"),
        ("tiered+sqlite:x?near=secret", "near"),
        ("tiered+sqlite:x?max_lag=secret", "max_lag"),
        ("tiered+sqlite:x?far_timeout=0", "far_timeout"),
        ("tiered+sqlite:x?other=secret", "no option other"),
        ("tiered+mysql:x", "no storage has this scheme"),
        ("sqlite:x?compress=secret", "zstd"),
        ("sqlite:x?encrypt=secret", "environment variable"),
        ("sqlite:x?encrypt=env:NOT_SET_ANYWHERE", "environment variable"),
    ] {
        let error = connect(address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{address}");
        assert!(error.to_string().contains(reason) && !error.to_string().contains("secret"), "{error}");
    }
}
