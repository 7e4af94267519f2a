//! The raw DynamoDB driver, with a table of numbers and bytes.
//!
//! It uses the same client as the storage.

use aws_smithy_http_client::tls;
use bytes::Bytes;
use tower_response_cache::storage::DynamoDbStorage;
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::config::{
    BehaviorVersion, Credentials, Region,
};
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::primitives::Blob;
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::{Client, Config};

use crate::raw::Raw;

/// The longest value that is measured.
///
/// An item has at most 400 KB, including its attribute names.
pub const MAX_LEN: usize = 256 << 10;

pub fn endpoint() -> Result<String, &'static str> {
    std::env::var("TEST_DYNAMODB_ENDPOINT").map_err(|_| "TEST_DYNAMODB_ENDPOINT is not set")
}

pub struct RawDynamoDb {
    client: Client,
    table: String,
    storage_table: String,
}

/// Opens the storage and the raw driver, each with a table of its own.
pub async fn open(endpoint: &str) -> (DynamoDbStorage, RawDynamoDb) {
    let https = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .http_client(https);
    let client = Client::from_conf(config.build());
    let storage_table = format!("bench-{:016x}", fastrand::u64(..));
    let storage = DynamoDbStorage::builder(client.clone()).cache_name(&storage_table).create_if_missing(true);
    let storage = storage.connect().await.unwrap();
    let raw = RawDynamoDb { client, table: format!("{storage_table}-raw"), storage_table };
    let attribute =
        AttributeDefinition::builder().attribute_name("k").attribute_type(ScalarAttributeType::N).build();
    let key = KeySchemaElement::builder().attribute_name("k").key_type(KeyType::Hash).build();
    let table = raw.client.create_table().table_name(&raw.table).billing_mode(BillingMode::PayPerRequest);
    table.attribute_definitions(attribute.unwrap()).key_schema(key.unwrap()).send().await.unwrap();
    (storage, raw)
}

impl RawDynamoDb {
    pub async fn delete(&self) {
        for table in [&self.table, &self.storage_table] {
            self.client.delete_table().table_name(table).send().await.unwrap();
        }
    }
}

impl Raw for RawDynamoDb {
    async fn get(&self, number: u64) -> Option<Bytes> {
        let key = AttributeValue::N(number.to_string());
        let request = self.client.get_item().table_name(&self.table).key("k", key).consistent_read(true);
        match request.send().await.unwrap().item?.remove("v").unwrap() {
            AttributeValue::B(value) => Some(value.into_inner().into()),
            other => panic!("{other:?}"),
        }
    }

    async fn set(&self, number: u64, value: Bytes) {
        let request = self.client.put_item().table_name(&self.table);
        let request = request.item("k", AttributeValue::N(number.to_string()));
        request.item("v", AttributeValue::B(Blob::new(value))).send().await.unwrap();
    }
}
