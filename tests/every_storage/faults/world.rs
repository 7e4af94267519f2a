//! A cache on a storage with faults, and the effects that its callers notice.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower_response_cache::storage::BoxStorage;
use tower_response_cache::{BodyError, CacheLayerBuilder, CacheStatus, Clock, storage};

use super::events::Events;
use crate::OPERATION_TIMEOUT;
use crate::support::{Fixture, Origin, get, response};

/// The time that every request must stay below.
///
/// A request makes a lookup, checks the body and writes, each with a deadline of half a second, on two busy cores. A
/// request that waited for a timeout of the storage or the driver would take longer.
const WIDE: Duration = Duration::from_millis(3_500);
pub const PATIENCE: Duration = Duration::from_secs(25);

static TABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Prints what each fault did, one row for each test.
pub fn print_table() {
    let mut rows = TABLE.lock().unwrap().clone();
    rows.sort();
    if !rows.is_empty() {
        println!(
            "| fault | requests | failed | longest | events | first hit after |\n|---|---|---|---|---|---|"
        );
    }
    rows.iter().for_each(|row| println!("{row}"));
}

#[derive(Default)]
struct Noticed {
    requests: usize,
    /// The number of stored bodies that ended in an error.
    failed: usize,
    longest: Duration,
    first_hit: Option<Duration>,
}

/// Lets operations take as long as busy cores need, by [`OPERATION_TIMEOUT`].
///
/// For faults that are answers: a request that missed its deadline would be a miss for another reason.
pub fn patient(builder: CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage> {
    builder.operation_timeout(OPERATION_TIMEOUT)
}

pub struct World {
    pub cache: Fixture,
    pub events: Events,
    versions: Arc<Mutex<HashMap<String, usize>>>,
    noticed: RefCell<Noticed>,
}

impl World {
    pub async fn open(address: &str) -> Self {
        Self::open_with(address, |builder| builder).await
    }

    /// Opens a cache in front of an origin whose bodies contain their path and version.
    ///
    /// The first segment of the path is the length of the body.
    pub async fn open_with(
        address: &str,
        settings: impl FnOnce(CacheLayerBuilder<BoxStorage>) -> CacheLayerBuilder<BoxStorage>,
    ) -> Self {
        let events = Events::default();
        events.listen();
        let versions = Arc::<Mutex<HashMap<String, usize>>>::default();
        let known = Arc::clone(&versions);
        let origin = Origin::new(move |request| {
            let path = request.uri().path().to_owned();
            let mut versions = known.lock().unwrap();
            let version = versions.entry(path.clone()).or_default();
            *version += usize::from(request.method() == "POST");
            response(&[("cache-control", "max-age=6000")], body(&path, *version))
        });
        let storage = storage::connect(address).await.unwrap();
        let cache = Fixture::with(origin, storage, |builder| settings(builder.clock(Clock::system())));
        Self { cache, events, versions, noticed: RefCell::default() }
    }

    /// Opens another cache on the same storage, in front of the same origin.
    ///
    /// It stands for the cache of another process.
    pub async fn another(&self, address: &str) -> Self {
        let storage = storage::connect(address).await.unwrap();
        let origin = self.cache.origin.clone();
        let cache = Fixture::with(origin, storage, |builder| builder.clock(Clock::system()));
        let versions = Arc::clone(&self.versions);
        Self { cache, events: Events::default(), versions, noticed: RefCell::default() }
    }

    /// Sends a request and returns whether it was a hit.
    ///
    /// Asserts that the body is complete and the current one of the origin.
    pub async fn get(&self, path: &str) -> bool {
        self.try_get(path).await.expect("the body is complete")
    }

    /// As [`get`](Self::get), but returns the error in which a stored body ended.
    pub async fn try_get(&self, path: &str) -> Result<bool, BodyError> {
        let begun = Instant::now();
        let response = self.cache.send(get(&format!("http://example.com{path}"))).await;
        let is_hit = response.extensions().get::<CacheStatus>().unwrap().word() == "hit";
        assert_eq!(response.status(), 200, "{path}");
        let bytes = match response.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                self.noticed.borrow_mut().failed += 1;
                self.took(begun);
                return Err(error);
            }
        };
        let version = *self.versions.lock().unwrap().get(path).unwrap();
        assert!(bytes == body(path, version), "{path} is not version {version} of {} bytes", bytes.len());
        self.took(begun);
        Ok(is_hit)
    }

    /// Sends a request and returns whether its body is the current one of the origin.
    pub async fn is_current(&self, path: &str) -> bool {
        let response = self.cache.send(get(&format!("http://example.com{path}"))).await;
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let version = *self.versions.lock().unwrap().get(path).unwrap();
        bytes == body(path, version)
    }

    /// Sends a POST request, which changes the resource at the origin.
    pub async fn post(&self, path: &str) {
        let begun = Instant::now();
        let request = Request::post(format!("http://example.com{path}")).body(Full::default()).unwrap();
        assert_eq!(self.cache.send(request).await.status(), 200);
        self.took(begun);
    }

    /// Records how long a caller waited, and asserts that it was not too long.
    pub fn took(&self, begun: Instant) {
        let time = begun.elapsed();
        assert!(time < WIDE, "a request took {time:?}");
        let mut noticed = self.noticed.borrow_mut();
        noticed.requests += 1;
        noticed.longest = noticed.longest.max(time);
    }

    /// Requests the paths until all of them are hits.
    pub async fn until_hits(&self, paths: &[&str]) {
        let begun = Instant::now();
        loop {
            let mut hits = 0;
            for path in paths {
                hits += usize::from(self.get(path).await);
            }
            if hits > 0 {
                self.noticed.borrow_mut().first_hit.get_or_insert(begun.elapsed());
            }
            if hits == paths.len() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{hits} hits of {}: {:?}", paths.len(), self.events.all());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stores the responses of the paths, and resets the measurements.
    pub async fn warm(&self, paths: &[&str]) {
        self.until_hits(paths).await;
        self.cache.layer.idle().await;
        self.noticed.take();
    }

    /// Requests the path until an event contains the text.
    pub async fn until_event(&self, path: &str, text: &str) {
        let begun = Instant::now();
        while self.events.count(text) == 0 {
            self.get(path).await;
            assert!(begun.elapsed() < PATIENCE, "no event {text}: {:?}", self.events.all());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Changes and stores a resource until an event contains the text.
    pub async fn until_written(&self, text: &str) {
        let begun = Instant::now();
        while self.events.count(text) == 0 {
            self.post("/1000/written").await;
            self.get("/1000/written").await;
            assert!(begun.elapsed() < PATIENCE, "no event {text}: {:?}", self.events.all());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reads and writes until as many events contain the text of an end of an outage as that of its beginning.
    pub async fn until_answered_again(&self, down: &str, up: &str) {
        let begun = Instant::now();
        while self.events.count(up) < self.events.count(down).max(1) {
            self.post("/1000/written").await;
            self.get("/1000/written").await;
            assert!(begun.elapsed() < PATIENCE, "no event {up}: {:?}", self.events.all());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asserts that a request is a miss.
    ///
    /// Then waits until the attempt to store the response is over.
    pub async fn misses(&self, path: &str) {
        assert!(!self.get(path).await, "{path} is a hit");
        self.cache.layer.idle().await;
    }

    /// Adds the measurements to the table as a row.
    pub fn report(&self, fault: &str) {
        let noticed = self.noticed.borrow();
        let after = noticed.first_hit.map_or("–".to_owned(), |time| format!("{} ms", time.as_millis()));
        let (longest, events) = (noticed.longest.as_millis(), self.events.all().len());
        let row = format!(
            "| {fault} | {} | {} | {longest} ms | {events} | {after} |",
            noticed.requests, noticed.failed
        );
        TABLE.lock().unwrap().push(row);
    }
}

/// Returns the body of `/<length>/<name>` in this version.
///
/// A body that is cut, or mixed with another, differs from it.
fn body(path: &str, version: usize) -> Bytes {
    let len = path.split('/').nth(1).and_then(|word| word.parse().ok()).unwrap_or(64);
    let text = format!("{path} version {version};");
    let numbered = (0..).flat_map(|line: usize| format!("{line} {text}").into_bytes());
    numbered.take(len).collect()
}
