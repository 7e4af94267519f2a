//! Records that another process with access to the storage wrote by hand.
//!
//! The checksum of a record is no signature, so such a process can write any record. Whatever the record claims, the
//! cache does not panic and does not allocate much. A record that it does not accept is a miss.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Layer, ServiceExt};
use tower_response_cache::storage::{Key, Kind, MemoryStorage, Record, Storage};
use tower_response_cache::{CacheLayer, Clock, Timestamp};

const URI: &str = "http://example.com/";

type Run = (u64, u64, u32, u64, u64);

/// The claims of a head record about its response, as numbers that postcard encodes.
#[derive(Clone)]
struct Claims {
    fields: usize,
    until: u64,
    status: u64,
    initial_age: u64,
    times: [u64; 2],
    given: Option<u64>,
    body_len: u64,
    /// The length of a chunk, or `None` if the body is in the record.
    chunk_len: Option<u32>,
    /// The runs of a body in parts: their ranges, and the chunk length, the length and the start of their extents.
    runs: Option<Vec<Run>>,
}

impl Default for Claims {
    fn default() -> Self {
        let now = 1_767_225_600_000;
        Self {
            fields: 3,
            until: u64::MAX,
            status: 200,
            initial_age: 0,
            times: [now; 2],
            given: None,
            body_len: 0,
            chunk_len: None,
            runs: None,
        }
    }
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn text(out: &mut Vec<u8>, text: &str) {
    varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

impl Claims {
    /// Returns the head record with these claims.
    ///
    /// `version` and `names` are those of a record that the cache wrote.
    fn record(&self, version: u8, names: &[&str]) -> Record {
        let mut form = Vec::new();
        varint(&mut form, 0); // a head
        text(&mut form, URI);
        varint(&mut form, names.len() as u64);
        names.iter().for_each(|name| text(&mut form, name));
        form.push(0); // no ignored selectors
        form.extend([7; 16]); // generation
        varint(&mut form, 0); // fence
        varint(&mut form, self.until);
        form.extend([0; 16]); // selection
        form.push(0); // is_personal
        form.push(0); // has_hidden_selector
        varint(&mut form, self.status);
        varint(&mut form, self.fields as u64 + 1);
        text(&mut form, "cache-control");
        text(&mut form, "max-age=99999999, stale-while-revalidate=99999999");
        for _ in 0..self.fields {
            text(&mut form, "a");
            text(&mut form, "");
        }
        form.push(0); // no trailers
        varint(&mut form, self.initial_age);
        varint(&mut form, self.times[0]);
        varint(&mut form, self.times[1]);
        match self.given {
            None => form.push(0),
            Some(millis) => {
                form.push(1);
                varint(&mut form, millis);
                form.push(1);
            }
        }
        varint(&mut form, 0); // no groups
        varint(&mut form, self.body_len);
        form.push(0); // no entity tag of the cache
        match self.chunk_len {
            None => form.push(0),
            Some(chunk_len) => {
                form.push(1);
                form.extend([9; 16]);
                varint(&mut form, u64::from(chunk_len));
                varint(&mut form, u64::MAX); // the retention of the chunks
            }
        }
        match &self.runs {
            None => form.push(0),
            Some(runs) => {
                form.push(1);
                form.extend([9; 16]);
                varint(&mut form, u64::MAX);
                varint(&mut form, runs.len() as u64);
                for (from, to, chunk_len, len, start) in runs {
                    varint(&mut form, *from);
                    varint(&mut form, *to);
                    form.extend([9; 16]);
                    varint(&mut form, u64::from(*chunk_len));
                    varint(&mut form, *len);
                    varint(&mut form, *start);
                }
            }
        }
        let mut payload = vec![version];
        payload.extend((form.len() as u32).to_be_bytes());
        payload.extend(form);
        Record::new(payload, Timestamp::NEVER)
    }
}

/// Returns the answer to a request whose head record is replaced by these claims.
///
/// The answer consists of the body, whether it was a hit, and the head.
async fn answer(claims: &Claims) -> (Bytes, bool, Response<()>) {
    let storage = MemoryStorage::builder().max_bytes(1 << 30).build();
    let (clock, _) = Clock::mock();
    let layer = CacheLayer::builder(storage.clone()).clock(clock).build().unwrap();
    let origin = tower::service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, BoxError>(
            Response::builder()
                .header("cache-control", "max-age=60")
                .body(Full::<Bytes>::from("fetched"))
                .unwrap(),
        )
    });
    let service = layer.layer(origin);
    let ask = async || {
        let response =
            service.clone().oneshot(Request::get(URI).body(Full::default()).unwrap()).await.unwrap();
        let hit = response.body().status().unwrap().is_hit();
        let (head, body) = response.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        (body, hit, Response::from_parts(head, ()))
    };
    ask().await;
    layer.idle().await;
    let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
    let head = keys.into_iter().find(|key| key.kind == Kind::Head).unwrap();
    let payload = storage.read(head).await.unwrap().unwrap().payload();
    let names: Vec<&str> = NAMES
        .into_iter()
        .filter(|name| payload.windows(name.len()).any(|at| at == name.as_bytes()))
        .collect();
    storage.write(head, claims.record(payload[0], &names)).await.unwrap();
    ask().await
}

/// The fields that may select a response in a private cache, sorted.
const NAMES: [&str; 4] = ["*uri", "authorization", "cookie", "host"];

#[tokio::test]
async fn valid_claims_produce_a_hit() {
    let (_, hit, head) = answer(&Claims::default()).await;
    assert!(hit);
    assert_eq!(head.headers().get_all("a").iter().count(), 3);
}

#[tokio::test]
async fn record_of_many_fields_is_a_miss() {
    for fields in [16_384, 24_575, 24_577, 30_000, 100_000] {
        let claims = Claims { fields, ..Claims::default() };
        let answered = AssertUnwindSafe(answer(&claims)).catch_unwind().await;
        assert_eq!(answered.expect("the cache must not panic").0, "fetched", "{fields} fields");
    }
}

#[test]
fn record_of_many_chunks_allocates_little() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (chunk_len, body_len) in [(1, 10_000_000), (1, 4_294_967_295), (1, u64::MAX), (u32::MAX, u64::MAX)] {
        let claims = Claims { chunk_len: Some(chunk_len), body_len, ..Claims::default() };
        let mut body = Bytes::new();
        let measured = allocation_counter::measure(|| body = runtime.block_on(answer(&claims)).0);
        assert_eq!(body, "fetched", "{body_len} bytes in chunks of {chunk_len}");
        assert!(measured.bytes_max < 1 << 20, "{} bytes for {body_len}", measured.bytes_max);
    }
}

#[test]
fn record_of_many_parts_allocates_little() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let most = u64::MAX;
    let all = u64::from(u32::MAX);
    let single = (0..10_000).map(|at| (at, at + 1, 1, 1, at)).collect();
    let cases = [
        (all, vec![(0, all, 1, all, 0)]),
        (most, vec![(0, most, u32::MAX, most, 0)]),
        (most, vec![(0, most, 1, most, 0)]),
        (100, vec![(0, 100, 0, 100, 0)]),
        (100, vec![(0, 100, 10, 50, 0)]),
        (100, vec![(50, 100, 10, most, most)]),
        (100, vec![(0, 60, 10, 100, 0), (50, 100, 10, 100, 0)]),
        (10_000, single),
    ];
    for (body_len, runs) in cases {
        let claims = Claims { runs: Some(runs.clone()), body_len, ..Claims::default() };
        let mut body = Bytes::new();
        let measured = allocation_counter::measure(|| body = runtime.block_on(answer(&claims)).0);
        let first = runs[0];
        assert_eq!(body, "fetched", "{body_len} bytes in parts such as {first:?}");
        assert!(measured.bytes_max < 2 << 20, "{} bytes for {first:?}", measured.bytes_max);
    }
}

#[tokio::test]
async fn extreme_numbers_do_not_panic() {
    let extremes = [0, 1, 1_767_225_600_000, u64::MAX / 2, u64::MAX - 1, u64::MAX];
    for one in extremes {
        for other in extremes {
            for claims in [
                Claims { until: one, initial_age: other, ..Claims::default() },
                Claims { times: [one, other], ..Claims::default() },
                Claims { given: Some(one), initial_age: other, ..Claims::default() },
                Claims { status: one % 70_000, body_len: other, ..Claims::default() },
                Claims { given: Some(one), times: [other; 2], ..Claims::default() },
            ] {
                let answered = AssertUnwindSafe(answer(&claims)).catch_unwind().await;
                let (body, hit, _) = answered.unwrap_or_else(|_| panic!("{one} {other}"));
                assert!(hit || body == "fetched", "{one} {other}");
            }
        }
    }
}
