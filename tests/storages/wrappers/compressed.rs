//! What is compressed, and what a reader does with bytes that it did not write.

use bytes::Bytes;
use futures_util::TryStreamExt;
use proptest::prelude::*;
use tower_response_cache::ErrorKind;
use tower_response_cache::storage::compressed::Codec;
use tower_response_cache::storage::{CompressedStorage, Key, MemoryStorage, Record, Storage};

use super::listener::Listener;
use super::{LATER, assert_unreadable, chunk, head, json, payload, random, record, stored};

const CODECS: &[Codec] = &[
    #[cfg(feature = "zstd")]
    Codec::Zstd { level: 1 },
    #[cfg(feature = "zstd")]
    Codec::Zstd { level: -7 },
    #[cfg(feature = "zstd")]
    Codec::Zstd { level: 9 },
    #[cfg(feature = "lz4")]
    Codec::Lz4,
];

/// Returns a compressed storage, and the storage inside.
fn compressed(codec: Codec) -> (CompressedStorage<MemoryStorage>, MemoryStorage) {
    let inner = MemoryStorage::new();
    (CompressedStorage::builder(inner.clone()).codec(codec).build().unwrap(), inner)
}

#[tokio::test]
async fn text_takes_less_and_is_read_as_written() {
    for &codec in CODECS {
        let (storage, inner) = compressed(codec);
        for len in [500, 1000, 16_384, 131_072, 1 << 20, 4 << 20] {
            let text = Bytes::from(json(len));
            let written = record(text.clone());
            storage.write(head(1), written.clone()).await.unwrap();
            let in_storage = stored(&inner, head(1)).await;
            assert!(in_storage.payload().len() <= len - len / 8, "{codec:?} saves nothing of {len} bytes");
            assert_eq!((in_storage.stamp(), in_storage.retain_until()), (written.stamp(), LATER));
            let read = storage.read(head(1)).await.unwrap().unwrap();
            assert!(read.payload() == text, "{codec:?} changes {len} bytes");
            assert_eq!((read.stamp(), read.retain_until()), (written.stamp(), LATER));
        }
        let listed: Vec<(Key, Record)> = storage.values().try_collect().await.unwrap();
        assert!(listed.len() == 1 && listed[0].1.payload() == json(4 << 20));
    }
}

#[cfg(all(feature = "zstd", feature = "sqlite"))]
#[tokio::test]
async fn json_by_zstd_takes_a_third_at_most() {
    let (folder, len) = (tempfile::tempdir().unwrap(), 10_000_000);
    let path = folder.path().join("cache");
    let sqlite = tower_response_cache::storage::SqliteStorage::open(&path).await.unwrap();
    let storage = CompressedStorage::new(sqlite).unwrap();
    for (part, data) in json(len).chunks(128 << 10).enumerate() {
        let key = Key { part: part as u32, ..chunk(1) };
        storage.write(key, record(data.to_vec())).await.unwrap();
    }
    storage.close().await.unwrap();
    let files = std::fs::read_dir(folder.path()).unwrap();
    let taken: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(taken <= len as u64 / 3, "{taken} bytes");
}

#[tokio::test]
async fn what_does_not_pay_is_stored_as_it_is() {
    for &codec in CODECS {
        let (storage, inner) = compressed(codec);
        for data in [Vec::new(), json(255), random(300), random(131_072), json((4 << 20) + 1)] {
            storage.write(head(1), record(data.clone())).await.unwrap();
            let in_storage = stored(&inner, head(1)).await.payload();
            assert!(in_storage.ends_with(&data) && in_storage.len() == data.len() + 4, "{codec:?}");
            assert!(payload(&storage, head(1)).await.unwrap() == data);
        }
    }
}

#[tokio::test]
async fn head_of_incompressible_body_is_not_compressed() {
    // The fields of a response come before its body, and compress well.
    for &codec in CODECS {
        let (storage, inner) = compressed(codec);
        let data = [json(1000), random(40_000)].concat();
        storage.write(head(1), record(data.clone())).await.unwrap();
        assert_eq!(stored(&inner, head(1)).await.payload().len(), data.len() + 4, "{codec:?}");
    }
}

#[tokio::test]
async fn least_length_is_a_setting() {
    let inner = MemoryStorage::new();
    let storage = CompressedStorage::builder(inner.clone()).min_len(2000).build().unwrap();
    storage.write(head(1), record(json(1999))).await.unwrap();
    storage.write(head(2), record(json(2000))).await.unwrap();
    assert!(stored(&inner, head(1)).await.payload().len() > 1999);
    assert!(stored(&inner, head(2)).await.payload().len() < 1500);
}

#[tokio::test]
async fn every_codec_reads_what_the_others_wrote() {
    let inner = MemoryStorage::new();
    let text = json(5000);
    for &writing in CODECS {
        let storage = CompressedStorage::builder(inner.clone()).codec(writing).build().unwrap();
        storage.write(head(1), record(text.clone())).await.unwrap();
        for &reading in CODECS {
            let storage = CompressedStorage::builder(inner.clone()).codec(reading).build().unwrap();
            assert!(payload(&storage, head(1)).await.unwrap() == text, "{writing:?} by {reading:?}");
        }
    }
}

#[tokio::test]
async fn long_payload_is_not_restored_at_once() {
    let (storage, _) = compressed(Codec::default());
    storage.write(head(1), record(json(32 << 10))).await.unwrap();
    storage.write(head(2), record(json((32 << 10) + 1))).await.unwrap();
    storage.write(head(3), record(random(1 << 20))).await.unwrap();
    assert!(storage.read_now(head(1)).unwrap().unwrap().unwrap().payload() == json(32 << 10));
    assert!(storage.read_now(head(2)).is_none(), "it takes too long to restore");
    assert!(storage.read_now(head(3)).is_some(), "it is stored as it is");
    assert!(storage.read_now(head(4)).unwrap().unwrap().is_none());
}

#[tokio::test]
async fn record_without_header_is_absent() {
    let (storage, inner) = compressed(Codec::default());
    for data in [json(1000), b"\x07head".to_vec(), Vec::new(), b"\xf0zp".to_vec(), b"\xf0en\x01".to_vec()] {
        inner.write(head(1), record(data.clone())).await.unwrap();
        assert_unreadable(&storage, head(1), &format!("{data:?}")).await;
        assert!(storage.values().try_collect::<Vec<_>>().await.unwrap().is_empty());
        assert!(!storage.write_if(head(1), Some(record("").stamp()), record("x")).await.unwrap());
        assert!(storage.write_if(head(1), None, record("new")).await.unwrap(), "it blocks its key");
        assert_eq!(payload(&storage, head(1)).await.unwrap(), "new");
        assert!(!storage.write_if(head(1), None, record("newer")).await.unwrap());
    }
}

#[tokio::test]
async fn truncated_or_changed_payload_is_absent_or_equally_long() {
    for &codec in CODECS {
        let (storage, inner) = compressed(codec);
        let text = json(600);
        storage.write(head(1), record(text.clone())).await.unwrap();
        let whole = stored(&inner, head(1)).await;
        for len in 0..whole.payload().len() {
            inner.write(head(1), whole.with_payload(whole.payload().slice(..len))).await.unwrap();
            assert_unreadable(&storage, head(1), &format!("{codec:?}, {len} bytes")).await;
        }
        // Storages in files and on servers have a checksum of all this, so here it is only about panics and memory.
        for at in 0..whole.payload().len() {
            let mut changed = whole.payload().to_vec();
            changed[at] ^= 0x11;
            inner.write(head(1), whole.with_payload(changed.into())).await.unwrap();
            if let Some(read) = payload(&storage, head(1)).await {
                assert_eq!(read.len(), text.len());
            }
        }
    }
}

/// Returns what a compressed record of this length would be, with bytes that are not compressed ones.
fn claiming(tag: u8, len: u32, rest: &[u8]) -> Vec<u8> {
    [b"\xf0zp", &[tag][..], &len.to_be_bytes(), rest].concat()
}

#[tokio::test]
async fn record_that_claims_too_much_allocates_nothing() {
    let (storage, inner) = compressed(Codec::default());
    for tag in 1..=5 {
        for len in [u32::MAX, 1 << 30, (4 << 20) + 1] {
            inner.write(head(1), record(claiming(tag, len, &random(100)))).await.unwrap();
            let read = allocation_counter::measure(|| {
                assert!(storage.read_now(head(1)).is_none_or(|now| now.unwrap().is_none()));
                let read = futures_util::FutureExt::now_or_never(storage.read(head(1)));
                assert!(read.unwrap().unwrap().is_none());
            });
            assert!(read.bytes_max < 10_000, "{} bytes for a claim of {len}", read.bytes_max);
        }
    }
}

#[cfg(feature = "zstd")]
#[tokio::test]
async fn bomb_is_absent() {
    let (storage, inner) = compressed(Codec::default());
    storage.write(head(1), record(vec![0; 4 << 20])).await.unwrap();
    let bomb = stored(&inner, head(1)).await.payload();
    assert!(bomb.len() < 1000);
    // It restores to more than it says, or to less.
    for len in [0_u32, 1, 1000, (4 << 20) - 1] {
        inner.write(head(1), record(claiming(bomb[3], len, &bomb[8..]))).await.unwrap();
        let measured = allocation_counter::measure(|| {
            let read = futures_util::FutureExt::now_or_never(storage.read(head(1)));
            assert!(read.unwrap().unwrap().is_none());
        });
        assert!(measured.bytes_max <= u64::from(len) + 10_000, "{} bytes", measured.bytes_max);
    }
}

#[tokio::test]
async fn unreadable_records_cause_one_event() {
    let (listener, _guard) = Listener::new();
    let (storage, inner) = compressed(Codec::default());
    for number in 0..100 {
        inner.write(head(number), record("plain")).await.unwrap();
        assert!(storage.read(head(number)).await.unwrap().is_none());
    }
    let events = listener.all("a stored record cannot be read: it counts as absent");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].field("storage"), Some("compressed"));
    assert_eq!(events[0].field("kind"), Some("head"));
    assert_eq!(events[0].field("reason"), Some("it was not written by this wrapper"));
}

#[cfg(feature = "zstd")]
mod dictionaries {
    use super::*;

    fn with(
        inner: &MemoryStorage,
        writing: Option<&[u8]>,
        readable: &[&[u8]],
    ) -> CompressedStorage<MemoryStorage> {
        let mut builder = CompressedStorage::builder(inner.clone());
        if let Some(dictionary) = writing {
            builder = builder.dictionary(dictionary);
        }
        for dictionary in readable {
            builder = builder.readable_dictionary(*dictionary);
        }
        builder.build().unwrap()
    }

    #[tokio::test]
    async fn dictionary_saves_more_of_short_payloads() {
        let inner = MemoryStorage::new();
        let (dictionary, text) = (json(20_000), json(20_400).split_off(20_000));
        let mut lens = Vec::new();
        for storage in [with(&inner, None, &[]), with(&inner, Some(&dictionary), &[])] {
            storage.write(head(1), record(text.clone())).await.unwrap();
            assert!(payload(&storage, head(1)).await.unwrap() == text);
            lens.push(stored(&inner, head(1)).await.payload().len());
        }
        assert!(lens[1] * 4 < lens[0] * 3, "{lens:?}");
    }

    #[tokio::test]
    async fn missing_dictionary_is_a_miss() {
        let inner = MemoryStorage::new();
        let (old, new, text) = (json(10_000), random(10_000), json(2000));
        with(&inner, Some(&old), &[]).write(head(1), record(text.clone())).await.unwrap();
        for (storage, is_read) in [
            (with(&inner, Some(&old), &[]), true),
            (with(&inner, Some(&new), &[&old]), true),
            (with(&inner, None, &[&new, &old]), true),
            (with(&inner, Some(&new), &[]), false),
            (with(&inner, None, &[]), false),
        ] {
            assert_eq!(payload(&storage, head(1)).await.is_some_and(|read| read == text), is_read);
        }
    }

    #[test]
    fn wrong_settings_are_refused() {
        let builder = || CompressedStorage::builder(MemoryStorage::new());
        let refused = [
            builder().codec(Codec::Zstd { level: 23 }).build(),
            builder().codec(Codec::Zstd { level: -8 }).build(),
            builder().dictionary(Vec::new()).build(),
            builder().readable_dictionary(Vec::new()).build(),
            #[cfg(feature = "lz4")]
            builder().codec(Codec::Lz4).dictionary(json(1000)).build(),
        ];
        for error in refused {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Config);
        }
        builder().codec(Codec::Zstd { level: 22 }).build().unwrap();
    }
}

#[test]
fn codec_is_read_from_text() {
    #[cfg(feature = "zstd")]
    for (text, level) in [("zstd", 1), ("zstd:9", 9), ("zstd:-3", -3)] {
        assert_eq!(text.parse::<Codec>().unwrap(), Codec::Zstd { level });
    }
    #[cfg(feature = "lz4")]
    assert_eq!("lz4".parse::<Codec>().unwrap(), Codec::Lz4);
    for wrong in ["", "gzip", "zstd:", "zstd:x", "lz4:1", "ZSTD", "zstd "] {
        let error = wrong.parse::<Codec>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[tokio::test]
async fn compressing_twice_is_refused() {
    let (storage, _) = compressed(Codec::default());
    let error = CompressedStorage::new(storage).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

proptest! {
    #[test]
    fn any_payload_is_read_as_written(
        data in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..3000),
            (any::<u8>(), 0_usize..200_000).prop_map(|(byte, len)| vec![byte; len]),
            (0_usize..50_000).prop_map(json),
        ],
        codec in proptest::sample::select(CODECS),
    ) {
        let (storage, _) = compressed(codec);
        let run = async {
            storage.write(head(1), record(data.clone())).await.unwrap();
            payload(&storage, head(1)).await
        };
        prop_assert!(futures_util::FutureExt::now_or_never(run).unwrap().unwrap() == data);
    }

    #[test]
    fn any_stored_bytes_do_not_panic(
        has_header in any::<bool>(),
        tag in 0_u8..5,
        len in prop_oneof![0_u32..5000, any::<u32>()],
        bytes in proptest::collection::vec(any::<u8>(), 0..500),
    ) {
        let (storage, inner) = compressed(Codec::default());
        let data = if has_header { claiming(tag, len, &bytes) } else { bytes };
        let run = async {
            inner.write(head(1), record(data)).await.unwrap();
            storage.read(head(1)).await.unwrap()
        };
        let _ = futures_util::FutureExt::now_or_never(run).unwrap();
    }
}
