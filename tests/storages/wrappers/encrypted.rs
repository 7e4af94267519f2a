//! The attacks that the documentation of the encrypted storage lists, and its keys.
//!
//! The attacker reads and writes the storage inside.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt};
use proptest::prelude::*;
use tower_response_cache::ErrorKind;
use tower_response_cache::storage::encrypted::{EncryptionKey, Keyring};
use tower_response_cache::storage::{EncryptedStorage, Key, MemoryStorage, Record, Storage};

use super::listener::Listener;
use super::{LATER, assert_unreadable, chunk, head, payload, random, record, stored};

const SECRET: &str = "https://example.com/account authorization: Bearer hunter2";

fn key(byte: u8) -> EncryptionKey {
    EncryptionKey::from_bytes(&[byte; 32])
}

fn with(inner: &MemoryStorage, keyring: Keyring) -> EncryptedStorage<MemoryStorage> {
    EncryptedStorage::new(inner.clone(), keyring).unwrap()
}

/// Returns an encrypted storage, and the storage inside.
fn encrypted() -> (EncryptedStorage<MemoryStorage>, MemoryStorage) {
    let inner = MemoryStorage::new();
    (with(&inner, Keyring::new(key(1))), inner)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn records_are_read_as_written() {
    let (storage, inner) = encrypted();
    for len in [0, 1, 1000, 131_072, 5 << 20] {
        let written = record(random(len));
        storage.write(head(1), written.clone()).await.unwrap();
        assert_eq!(stored(&inner, head(1)).await.payload().len(), len + 44);
        let read = storage.read(head(1)).await.unwrap().unwrap();
        assert!(read.payload() == written.payload());
        assert_eq!((read.stamp(), read.retain_until()), (written.stamp(), LATER));
    }
}

#[tokio::test]
async fn stored_bytes_reveal_no_payload() {
    let (storage, inner) = encrypted();
    storage.write(head(1), record(SECRET)).await.unwrap();
    let bytes = stored(&inner, head(1)).await.to_bytes();
    for part in ["https", "example", "Bearer", "hunter2"] {
        assert!(!contains(&bytes, part.as_bytes()), "{part} is readable");
    }
    assert!(!contains(&bytes, &[1; 8]), "a part of the key is readable");
}

#[tokio::test]
async fn equal_payloads_are_stored_differently() {
    let (storage, inner) = encrypted();
    let written = record(SECRET);
    let mut seen = HashSet::new();
    for key in [head(1), head(1), head(2), chunk(1)] {
        storage.write(key, written.clone()).await.unwrap();
        let bytes = stored(&inner, key).await.payload();
        assert!(seen.insert(bytes.slice(12..24)), "a nonce was used twice");
        assert!(seen.insert(bytes.slice(24..)), "two records have the same bytes");
    }
}

#[tokio::test]
async fn changed_byte_is_a_miss() {
    let (storage, inner) = encrypted();
    storage.write(head(1), record(SECRET)).await.unwrap();
    let whole = stored(&inner, head(1)).await;
    for at in 0..whole.payload().len() {
        for bit in [0x01, 0x80] {
            let mut changed = whole.payload().to_vec();
            changed[at] ^= bit;
            inner.write(head(1), whole.with_payload(changed.into())).await.unwrap();
            assert_unreadable(&storage, head(1), &format!("byte {at}")).await;
            assert!(storage.values().try_collect::<Vec<_>>().await.unwrap().is_empty());
        }
    }
    // The id of another key that the reader has.
    let both = with(&inner, Keyring::new(key(1)).readable(key(2)));
    with(&inner, Keyring::new(key(2))).write(head(2), record("of another key")).await.unwrap();
    let mut renamed = whole.payload().to_vec();
    renamed[4..12].copy_from_slice(&stored(&inner, head(2)).await.payload()[4..12]);
    inner.write(head(1), whole.with_payload(renamed.into())).await.unwrap();
    assert_unreadable(&both, head(1), "the id of another key").await;
    inner.write(head(1), whole).await.unwrap();
    assert_eq!(payload(&both, head(1)).await.unwrap(), SECRET);
}

#[tokio::test]
async fn truncated_or_extended_payload_is_a_miss() {
    let (storage, inner) = encrypted();
    storage.write(head(1), record(SECRET)).await.unwrap();
    let whole = stored(&inner, head(1)).await;
    let bytes = whole.payload();
    for len in 0..bytes.len() {
        inner.write(head(1), whole.with_payload(bytes.slice(..len))).await.unwrap();
        assert_unreadable(&storage, head(1), &format!("its first {len} bytes")).await;
        inner.write(head(1), whole.with_payload(bytes.slice(bytes.len() - len..))).await.unwrap();
        assert_unreadable(&storage, head(1), &format!("its last {len} bytes")).await;
    }
    for more in [&[0][..], &[0; 16], &bytes] {
        inner.write(head(1), whole.with_payload([&bytes, more].concat().into())).await.unwrap();
        assert_unreadable(&storage, head(1), "more bytes").await;
    }
}

#[tokio::test]
async fn swapped_records_are_misses() {
    let (storage, inner) = encrypted();
    let keys = [
        head(1),
        head(2),
        chunk(1),
        Key { part: 1, ..chunk(1) },
        Key { slot: [2; 16], ..chunk(1) },
        head(1).sibling(tower_response_cache::storage::Kind::Variant, [0; 16], 0),
    ];
    for from in keys {
        storage.write(from, record(SECRET)).await.unwrap();
        let moved = stored(&inner, from).await;
        for to in keys.into_iter().filter(|to| *to != from) {
            inner.write(to, moved.clone()).await.unwrap();
            assert_unreadable(&storage, to, &format!("moved from {from} to {to}")).await;
        }
        assert_eq!(payload(&storage, from).await.unwrap(), SECRET);
    }
}

#[tokio::test]
async fn payload_of_another_write_is_a_miss() {
    let (storage, inner) = encrypted();
    storage.write(head(1), record("old")).await.unwrap();
    let old = stored(&inner, head(1)).await;
    storage.write(head(1), record("new")).await.unwrap();
    let new = stored(&inner, head(1)).await;
    inner.write(head(1), new.with_payload(old.payload())).await.unwrap();
    assert_unreadable(&storage, head(1), "the old payload with the new stamp").await;
    inner.write(head(1), old.with_payload(new.payload())).await.unwrap();
    assert_unreadable(&storage, head(1), "the new payload with the old stamp").await;
}

#[tokio::test]
async fn record_of_another_context_is_a_miss() {
    let inner = MemoryStorage::new();
    let of = |context: &str| {
        EncryptedStorage::builder(inner.clone(), Keyring::new(key(1))).context(context).build().unwrap()
    };
    of("production").write(head(1), record(SECRET)).await.unwrap();
    for other in ["", "test", "productio", "production "] {
        assert_unreadable(&of(other), head(1), other).await;
    }
    assert_eq!(payload(&of("production"), head(1)).await.unwrap(), SECRET);
}

#[tokio::test]
async fn plain_or_foreign_record_is_a_miss() {
    let (storage, inner) = encrypted();
    inner.write(head(1), record(SECRET)).await.unwrap();
    assert_unreadable(&storage, head(1), "a record that is not encrypted").await;
    with(&inner, Keyring::new(key(2))).write(head(1), record(SECRET)).await.unwrap();
    assert_unreadable(&storage, head(1), "a record of another key").await;
    // With its header, which names a key that the reader has, and a tag of zeros.
    storage.write(head(1), record(SECRET)).await.unwrap();
    let header = stored(&inner, head(1)).await.payload().slice(..24);
    let forged = [&header, &[0, 0, 0, 5][..], b"forged", &[0; 16]].concat();
    inner.write(head(1), record(forged)).await.unwrap();
    assert_unreadable(&storage, head(1), "a record with a forged tag").await;
}

#[tokio::test]
async fn unreadable_record_is_replaced() {
    let (storage, inner) = encrypted();
    for forged in ["plain", "another"] {
        inner.write(head(1), record(forged)).await.unwrap();
        assert!(storage.write_if(head(1), None, record("new")).await.unwrap());
        assert_eq!(payload(&storage, head(1)).await.unwrap(), "new");
        assert!(!storage.write_if(head(1), None, record("newer")).await.unwrap());
    }
}

#[tokio::test]
async fn padded_payloads_have_few_lengths() {
    let inner = MemoryStorage::new();
    let storage = EncryptedStorage::builder(inner.clone(), Keyring::new(key(1)))
        .pad_to([4096, 0, 256])
        .build()
        .unwrap();
    for (len, padded) in
        [(0, 256), (1, 256), (256, 256), (257, 4096), (4096, 4096), (4097, 8192), (10_000, 12_288)]
    {
        let written = record(random(len));
        storage.write(head(1), written.clone()).await.unwrap();
        assert_eq!(stored(&inner, head(1)).await.payload().len(), padded + 44, "{len} bytes");
        assert!(payload(&storage, head(1)).await.unwrap() == written.payload());
    }
}

#[tokio::test]
async fn longest_record_fits_with_its_padding() {
    for lens in [vec![], vec![1000], vec![100, 4096], vec![1 << 20, 50_000], vec![usize::MAX, 300]] {
        let inner = MemoryStorage::builder().max_bytes(200_000).build();
        let storage =
            EncryptedStorage::builder(inner, Keyring::new(key(1))).pad_to(lens.clone()).build().unwrap();
        let longest = storage.max_record_len();
        storage.write(head(1), record(random(longest - Record::OVERHEAD))).await.unwrap();
        let error = storage.write(head(1), record(random(longest + 1 - Record::OVERHEAD))).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TooLarge, "{lens:?}");
        assert_eq!(payload(&storage, head(1)).await.unwrap().len(), longest - Record::OVERHEAD);
    }
}

#[tokio::test]
async fn keys_are_rotated_without_a_miss() {
    let inner = MemoryStorage::new();
    let old = with(&inner, Keyring::new(key(1)));
    old.write(head(1), record("by the old key")).await.unwrap();
    let prepared = with(&inner, Keyring::new(key(1)).readable(key(2)));
    let rotated = with(&inner, Keyring::new(key(2)).readable(key(1)));
    assert_eq!(payload(&rotated, head(1)).await.unwrap(), "by the old key");
    rotated.write(head(2), record("by the new key")).await.unwrap();
    assert_eq!(payload(&prepared, head(2)).await.unwrap(), "by the new key");
    let done = with(&inner, Keyring::new(key(2)));
    assert_eq!(payload(&done, head(2)).await.unwrap(), "by the new key");
    assert_unreadable(&done, head(1), "a key that was removed").await;
    assert_unreadable(&old, head(2), "a key that is not known yet").await;
}

#[tokio::test]
async fn long_payload_is_not_decrypted_at_once() {
    let (storage, _) = encrypted();
    storage.write(head(1), record(random(32 << 10))).await.unwrap();
    storage.write(head(2), record(random((32 << 10) + 1))).await.unwrap();
    assert!(storage.read_now(head(1)).unwrap().unwrap().is_some());
    assert!(storage.read_now(head(2)).is_none());
}

#[tokio::test]
async fn unreadable_records_cause_one_event_without_secrets() {
    let (listener, _guard) = Listener::new();
    let (storage, inner) = encrypted();
    for number in 0..100 {
        inner.write(chunk(number), record(SECRET)).await.unwrap();
        assert!(storage.read(chunk(number)).await.unwrap().is_none());
    }
    let events = listener.all("a stored record cannot be read: it counts as absent");
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].field("storage"), events[0].field("kind")), (Some("encrypted"), Some("chunk")));
    assert!(!listener.text().contains("hunter2") && !listener.text().contains("0101"));
}

#[test]
fn debug_output_shows_ids_only() {
    let bytes: [u8; 32] = std::array::from_fn(|at| 0xa0 ^ at as u8);
    let key = EncryptionKey::from_bytes(&bytes);
    let keyring = Keyring::new(key.clone()).readable(EncryptionKey::from_bytes(&[0xee; 32]));
    let builder = EncryptedStorage::builder(MemoryStorage::new(), keyring.clone());
    let before = format!("{key:?} {keyring:?} {builder:?}");
    let shown = format!("{before} {:?}", builder.build().unwrap());
    assert!(shown.matches(&key.id().to_string()).count() == 4, "{shown}");
    for secret in ["a0, a1", "a0a1a2", "160, 161", "eeee", "238"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn keys_are_read_from_text() {
    let id = key(1).id();
    let hex = "01".repeat(32);
    let texts = [
        hex.clone(),
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".to_owned(),
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE".to_owned(),
    ];
    for text in texts {
        assert_eq!(text.parse::<EncryptionKey>().unwrap().id(), id, "{text}");
        let keyring: Keyring = format!(" {text} ,\n{},", "aB".repeat(32)).parse().unwrap();
        let ids: Vec<_> = keyring.ids().collect();
        assert_eq!(ids, [id, key(0xab).id()]);
    }
    let (short, digit) = ("01".repeat(31), "0g".repeat(32));
    for wrong in ["", ",", "password", &short, &digit, "AQEB", &format!("{hex},x"), &"é".repeat(32)] {
        let error = wrong.parse::<Keyring>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(wrong.len() < 3 || !error.to_string().contains(wrong));
    }
    assert_eq!(Keyring::from_env("NO_SUCH_VARIABLE_WITH_KEYS").unwrap_err().kind(), ErrorKind::Config);
    assert_ne!(EncryptionKey::random().unwrap().id(), EncryptionKey::random().unwrap().id());
}

proptest! {
    #[test]
    fn any_payload_is_read_as_written(
        data in proptest::collection::vec(any::<u8>(), 0..3000),
        lens in proptest::collection::vec(0_usize..5000, 0..3),
    ) {
        let inner = MemoryStorage::new();
        let storage = EncryptedStorage::builder(inner, Keyring::new(key(1))).pad_to(lens).build().unwrap();
        let run = async {
            storage.write(head(1), record(data.clone())).await.unwrap();
            payload(&storage, head(1)).await
        };
        prop_assert!(run.now_or_never().unwrap().unwrap() == data);
    }

    #[test]
    fn any_stored_bytes_are_a_miss(
        header in 0_usize..3,
        bytes in proptest::collection::vec(any::<u8>(), 0..500),
    ) {
        let (storage, inner) = encrypted();
        let run = async {
            storage.write(head(1), record("x")).await.unwrap();
            let valid = stored(&inner, head(1)).await.payload();
            let data: Bytes = [&valid[..[0, 4, 24][header]], &bytes].concat().into();
            inner.write(head(1), record(data)).await.unwrap();
            storage.read(head(1)).await.unwrap()
        };
        prop_assert!(run.now_or_never().unwrap().is_none());
    }
}
