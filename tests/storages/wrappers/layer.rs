//! The cache over wrapped storages that were tampered with, or that fail.

use bytes::Bytes;
use futures_util::TryStreamExt;
use tower_response_cache::storage::encrypted::{EncryptionKey, Keyring};
use tower_response_cache::storage::{CompressedStorage, EncryptedStorage, Key, MemoryStorage, Storage};

use super::json;
use crate::support::faulty::{Faulty, Mode};
use crate::support::{Fixture, Origin, response};

const A: &str = "http://example.com/a";

fn wrapped<S: Storage>(inner: S) -> CompressedStorage<EncryptedStorage<S>> {
    let keyring = Keyring::new(EncryptionKey::from_bytes(&[1; 32]));
    CompressedStorage::new(EncryptedStorage::new(inner, keyring).unwrap()).unwrap()
}

#[tokio::test]
async fn tampered_response_is_fetched_again() {
    // In its head, and in chunks.
    for body in [json(1000), json(500_000)].map(Bytes::from) {
        let inner = MemoryStorage::new();
        let sent = body.clone();
        let origin = Origin::new(move |_| response(&[("cache-control", "max-age=60")], sent.clone()));
        let cache = Fixture::with(origin, wrapped(inner.clone()), |builder| builder);
        for round in 0..3 {
            // A record whose chunk is gone is put out of use first, and replaced by the next request.
            let mut words = Vec::new();
            while words.last().is_none_or(|word| word != "hit") && words.len() < 4 {
                let answer = cache.get(A).await;
                assert!(answer.body == body, "{} bytes in round {round}", answer.body.len());
                words.push(answer.word().to_owned());
                cache.layer.idle().await;
            }
            assert!(words[0] == "miss" && words[words.len() - 1] == "hit", "{words:?} in round {round}");
            let keys: Vec<Key> = inner.keys().try_collect().await.unwrap();
            for key in keys {
                // In the second round the chunks only.
                if round == 1 && body.len() > 100_000 && key.kind.is_listed() {
                    continue;
                }
                let record = inner.read(key).await.unwrap().unwrap();
                let mut changed = record.payload().to_vec();
                let last = changed.len() - 1;
                changed[last] ^= 1;
                inner.write(key, record.with_payload(changed.into())).await.unwrap();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failing_storage_is_a_miss() {
    let inner = Faulty::new(Mode::Well);
    let origin = Origin::new(|_| response(&[("cache-control", "max-age=60")], json(5000)));
    let cache = Fixture::with(origin, wrapped(inner.clone()), |builder| builder);
    for mode in [Mode::Failing, Mode::Hung, Mode::ReadOnly, Mode::Full, Mode::HungReads, Mode::FailingWrites]
    {
        inner.set(mode);
        let answer = cache.get(&format!("{A}?{mode:?}")).await;
        assert!(answer.word() == "miss" && answer.body == json(5000), "{mode:?}");
    }
    inner.set(Mode::Well);
}
