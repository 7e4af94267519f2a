//! The raw MongoDB driver, with documents of a number and bytes.
//!
//! It uses the same client as the storage.

use bytes::Bytes;
use tower_response_cache::storage::MongoDbStorage;
use tower_response_cache::storage::mongodb::driver::bson::spec::BinarySubtype;
use tower_response_cache::storage::mongodb::driver::bson::{Binary, Bson, Document, doc};
use tower_response_cache::storage::mongodb::driver::{Client, Collection};

use crate::raw::Raw;

pub fn url() -> Result<String, &'static str> {
    std::env::var("TEST_MONGODB_URL").map_err(|_| "TEST_MONGODB_URL is not set")
}

pub struct RawMongoDb {
    client: Client,
    name: String,
    values: Collection<Document>,
}

/// Opens the storage and the raw driver, on two collections of one database.
pub async fn open(url: &str) -> (MongoDbStorage, RawMongoDb) {
    let client = Client::with_uri_str(url).await.unwrap();
    let name = format!("bench-{:016x}", fastrand::u64(..));
    let storage = MongoDbStorage::builder(client.clone()).cache_name(&name).connect().await.unwrap();
    let values = client.database(&name).collection("raw");
    (storage, RawMongoDb { client, name, values })
}

impl RawMongoDb {
    pub async fn drop_database(&self) {
        self.client.database(&self.name).drop().await.unwrap();
    }
}

impl Raw for RawMongoDb {
    async fn get(&self, number: u64) -> Option<Bytes> {
        let mut found = self.values.find_one(doc! { "_id": number as i64 }).await.unwrap()?;
        match found.remove("value").unwrap() {
            Bson::Binary(value) => Some(value.bytes.into()),
            other => panic!("{other:?}"),
        }
    }

    async fn set(&self, number: u64, value: Bytes) {
        let value = Binary { subtype: BinarySubtype::Generic, bytes: value.into() };
        let id = doc! { "_id": number as i64 };
        let document = doc! { "_id": number as i64, "value": value };
        self.values.replace_one(id, document).upsert(true).await.unwrap();
    }
}
