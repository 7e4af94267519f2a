//! Compression and encryption together.

use tower_response_cache::ErrorKind;
use tower_response_cache::storage::encrypted::{EncryptionKey, Keyring};
use tower_response_cache::storage::{
    BoxStorage, CompressedStorage, EncryptedStorage, MemoryStorage, Storage,
};

use super::{head, json, payload, record, stored};

fn keyring() -> Keyring {
    Keyring::new(EncryptionKey::from_bytes(&[1; 32]))
}

#[tokio::test]
async fn compressed_payloads_are_encrypted() {
    let inner = MemoryStorage::new();
    let encrypted = EncryptedStorage::new(inner.clone(), keyring()).unwrap();
    let storage = CompressedStorage::new(encrypted).unwrap();
    storage.write(head(1), record(json(10_000))).await.unwrap();
    assert!(stored(&inner, head(1)).await.payload().len() < 4000);
    assert!(payload(&storage, head(1)).await.unwrap() == json(10_000));
}

#[test]
fn encrypted_bytes_are_never_compressed() {
    let compressed = || CompressedStorage::new(MemoryStorage::new()).unwrap();
    let refused = [
        EncryptedStorage::new(compressed(), keyring()).map(drop),
        EncryptedStorage::new(BoxStorage::new(compressed()), keyring()).map(drop),
        EncryptedStorage::new(BoxStorage::new(BoxStorage::new(compressed())), keyring()).map(drop),
    ];
    for error in refused {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("inside of the CompressedStorage"), "{error}");
    }
}
