//! Tests the guarantees of `DynamoDbStorage` beyond the contract.

pub mod environment;
mod front;
mod items;
mod requests;
mod table;

use libtest_mimic::Trial;
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::Client;
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use tower_response_cache::storage::{DynamoDbStorage, DynamoDbStorageBuilder};

use crate::places::{Kind, Place};
use crate::servers::dynamodb::{client, config};

pub fn trials(kind: &Kind) -> Vec<Trial> {
    [table::trials(kind), items::trials(kind), requests::trials(kind), environment::trials(kind)]
        .into_iter()
        .flatten()
        .collect()
}

fn endpoint(place: &Place) -> &str {
    place.kind.endpoint.as_deref().unwrap()
}

fn raw(place: &Place) -> Client {
    client(endpoint(place))
}

/// Returns the builder of the storage with this name.
fn builder(place: &Place, name: &str) -> DynamoDbStorageBuilder {
    DynamoDbStorage::builder(config(endpoint(place))).cache_name(place.name(name))
}

async fn open(place: &Place, name: &str) -> DynamoDbStorage {
    builder(place, name).create_if_missing(true).connect().await.unwrap()
}

/// Creates a table without time to live, as another program could.
async fn make(place: &Place, name: &str, keys: &[(&str, ScalarAttributeType)]) -> String {
    let name = place.name(name);
    let mut table = raw(place).create_table().table_name(&name).billing_mode(BillingMode::PayPerRequest);
    for ((attribute, of), role) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
        let definition =
            AttributeDefinition::builder().attribute_name(*attribute).attribute_type(of.clone()).build();
        let key = KeySchemaElement::builder().attribute_name(*attribute).key_type(role).build();
        table = table.attribute_definitions(definition.unwrap()).key_schema(key.unwrap());
    }
    table.send().await.unwrap();
    name
}
