//! The storages that wrap another one and change payloads.
//!
//! They run the contract in `contract.rs`, and the layer in the binary `every_storage`.

#[path = "../../observe/listener.rs"]
#[allow(dead_code)] // the binary `observe` uses the rest
mod listener;

#[cfg(any(feature = "zstd", feature = "lz4"))]
mod compressed;
#[cfg(feature = "encrypt")]
mod encrypted;
#[cfg(all(feature = "zstd", feature = "encrypt"))]
mod layer;
#[cfg(all(feature = "zstd", feature = "encrypt"))]
mod order;

use bytes::Bytes;
use tower_response_cache::Timestamp;
use tower_response_cache::storage::{Key, Kind, Record, Storage};

const LATER: Timestamp = Timestamp::from_secs(4_000_000_000);

fn head(number: u8) -> Key {
    Key::head([number; 16])
}

fn chunk(number: u8) -> Key {
    head(number).sibling(Kind::Chunk, [1; 16], 0)
}

fn record(payload: impl Into<Bytes>) -> Record {
    Record::new(payload, LATER)
}

async fn payload(storage: &impl Storage, key: Key) -> Option<Bytes> {
    storage.read(key).await.unwrap().map(|record| record.payload())
}

/// Returns the record that the storage inside a wrapper holds.
async fn stored(inner: &impl Storage, key: Key) -> Record {
    inner.read(key).await.unwrap().expect("there is a record")
}

/// Returns objects in JSON, as an API lists them.
#[cfg(any(feature = "zstd", feature = "lz4"))]
fn json(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let words = ["alpha", "beta", "gamma", "delta", "user", "value", "hello", "world"];
    let mut text = String::from("[");
    while text.len() < len {
        let (id, score) = (random.u32(..10_000_000), random.f64() * 1000.0);
        let (one, other) = (random.choice(words).unwrap(), random.choice(words).unwrap());
        let (day, hour, minute) = (random.u8(1..29), random.u8(..24), random.u8(..60));
        text += &format!(
            r#"{{"id":{id},"name":"{one} {other}","email":"{one}.{id}@example.com","score":{score:.4},"#
        );
        text +=
            &format!(r#""created_at":"2026-03-{day:02}T{hour:02}:{minute:02}:00Z","tags":["{other}"]}},"#);
    }
    text.truncate(len);
    text.into_bytes()
}

fn random(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(9);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Checks that a record of any bytes that someone else wrote is absent, and can be replaced.
async fn assert_unreadable(wrapper: &impl Storage, key: Key, what: &str) {
    assert!(wrapper.read(key).await.unwrap().is_none(), "{what}: it was read");
    assert!(wrapper.read_now(key).is_none_or(|now| now.unwrap().is_none()), "{what}: it was read at once");
    assert!(!wrapper.contains(key).await.unwrap(), "{what}: it is contained");
}
