//! Tests the guarantees of `MongoDbStorage` beyond the contract.
//!
//! They are about its documents, which other programs can read, and about every way to name a server.

mod documents;
mod servers;

use libtest_mimic::Trial;
use tower_response_cache::storage::mongodb::driver::Collection;
use tower_response_cache::storage::mongodb::driver::bson::Document;
use tower_response_cache::storage::{Key, MongoDbStorage};

use crate::places::{Kind, Place};

const HEAD: Key = Key::head([7; 16]);

pub fn trials(kind: &Kind) -> Vec<Trial> {
    [documents::trials(kind), servers::trials(kind)].into_iter().flatten().collect()
}

/// Opens the storage with this name and the collection of its documents.
async fn open(place: &Place, name: &str) -> (MongoDbStorage, Collection<Document>) {
    let storage = MongoDbStorage::connect(place.address(name)).await.unwrap();
    (storage, place.mongodb_named(name).await.collection("records"))
}
