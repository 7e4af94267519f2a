//! Tables that the storage creates, adopts or refuses.
//!
//! Also tests every way to name a DynamoDB.

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use libtest_mimic::Trial;
use tower_response_cache::storage::dynamodb::aws_config::{BehaviorVersion, Region, SdkConfig};
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::config::Credentials;
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::types::{
    BillingMode, KeyType, ScalarAttributeType, TimeToLiveStatus,
};
use tower_response_cache::storage::{DynamoDbSource, DynamoDbStorage, Key, Kind, Record, Retain, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::{builder, endpoint, make, open, raw};
use crate::places::{self, Place};
use crate::processes::Peer;
use crate::servers::dynamodb::{client, config};
use crate::support::full_text;
use crate::trial;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub fn trials(kind: &places::Kind) -> Vec<Trial> {
            vec![$(trial("table", kind, stringify!($name), |place| Box::pin($name(place)))),*]
        }
    };
}

cases![
    missing_table_is_created_with_expiry,
    missing_table_is_a_clear_error,
    existing_table_keeps_its_attribute_names,
    mismatched_table_keys_are_an_error,
    write_if_on_missing_table_has_one_winner,
    two_processes_create_table_at_once,
    clients_and_settings_are_accepted,
    errors_contain_no_credentials,
];

const TEXT: ScalarAttributeType = ScalarAttributeType::S;
const HEAD: Key = Key::head([7; 16]);

fn record(payload: &'static str) -> Record {
    Record::new(payload, Timestamp::from_secs(4_000_000_000))
}

async fn missing_table_is_created_with_expiry(place: &Place) {
    open(place, "made").await;
    let client = raw(place);
    let table = client.describe_table().table_name(place.name("made")).send().await.unwrap().table.unwrap();
    let billed = table.billing_mode_summary().and_then(|billing| billing.billing_mode().cloned());
    assert_eq!(billed, Some(BillingMode::PayPerRequest));
    let keys: Vec<_> = table.key_schema().iter().map(|key| (key.attribute_name(), key.key_type())).collect();
    assert_eq!(keys, [("entry", &KeyType::Hash), ("record", &KeyType::Range)]);
    let expiry = client.describe_time_to_live().table_name(place.name("made")).send().await.unwrap();
    let expiry = expiry.time_to_live_description.unwrap();
    assert_eq!(expiry.time_to_live_status(), Some(&TimeToLiveStatus::Enabled));
    assert_eq!(expiry.attribute_name(), Some("expires"));
}

async fn missing_table_is_a_clear_error(place: &Place) {
    let built = builder(place, "missing").build().unwrap();
    let errors = [
        builder(place, "missing").connect().await.unwrap_err(),
        built.check().await.unwrap_err(),
        built.write(HEAD, record("x")).await.unwrap_err(),
        built.clear().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = full_text(&error);
        assert!(text.contains("create_if_missing") && !text.contains(&place.name("")), "{text}");
    }
    assert!(raw(place).describe_table().table_name(place.name("missing")).send().await.is_err());
}

async fn existing_table_keeps_its_attribute_names(place: &Place) {
    // Some of these names are reserved words of DynamoDB.
    let name = make(place, "theirs", &[("hash", TEXT), ("range", TEXT)]).await;
    let storage = builder(place, "theirs").key_names("hash", "range").expiry_name("ttl");
    let storage = storage.connect().await.unwrap();
    let (first, second) = (record("first"), record("second"));
    let chunk = HEAD.sibling(Kind::Chunk, [1; 16], 0);
    assert!(storage.write_if(HEAD, None, first.clone()).await.unwrap());
    assert!(!storage.write_if(HEAD, None, second.clone()).await.unwrap());
    assert!(storage.write_if(HEAD, Some(first.stamp()), second).await.unwrap());
    storage.write(chunk, record("chunk")).await.unwrap();
    assert_eq!(storage.retain(&[HEAD, chunk], Retain::AtMost(Timestamp::from_secs(1))).await.unwrap(), 2);
    assert_eq!(storage.read(HEAD).await.unwrap().unwrap().payload(), "second");
    assert_eq!(storage.size().await.unwrap(), 1);
    assert_eq!(storage.values().try_collect::<Vec<_>>().await.unwrap().len(), 1);
    let items = raw(place).scan().table_name(&name).send().await.unwrap().items.unwrap();
    assert!(items.iter().all(|item| item["ttl"].as_n().unwrap() == "1" && item.len() == 6), "{items:?}");
    assert_eq!(storage.delete_expired(Timestamp::from_secs(1)).await.unwrap(), 2);
    storage.write(HEAD, record("x")).await.unwrap();
    storage.clear().await.unwrap();
    assert_eq!(storage.keys().try_collect::<Vec<_>>().await.unwrap(), []);
}

async fn mismatched_table_keys_are_an_error(place: &Place) {
    let number = ScalarAttributeType::N;
    let tables: [(&str, &[(&str, ScalarAttributeType)]); 3] = [
        ("other-names", &[("pk", TEXT), ("sk", TEXT)]),
        ("no-sort-key", &[("entry", TEXT)]),
        ("a-number", &[("entry", TEXT), ("record", number)]),
    ];
    for (name, keys) in tables {
        make(place, name, keys).await;
        let error = builder(place, name).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{name}: {error:?}");
        assert!(error.to_string().contains("has other keys"), "{name}: {error}");
        let built = builder(place, name).build().unwrap();
        for error in [
            built.read(HEAD).await.map(drop).unwrap_err(),
            built.delete(HEAD).await.unwrap_err(),
            built.retain(&[HEAD], Retain::AtLeast(Timestamp::NEVER)).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Config, "{name}: {error:?}");
        }
    }
}

async fn write_if_on_missing_table_has_one_winner(place: &Place) {
    let storages: Vec<DynamoDbStorage> =
        (0..4).map(|_| builder(place, "raced").create_if_missing(true).build().unwrap()).collect();
    let write = |number: usize| {
        let storage = storages[number % 4].clone();
        async move { storage.write_if(HEAD, None, record("x")).await.unwrap() }
    };
    let won = join_all((0..16).map(|number| tokio::spawn(write(number)))).await;
    assert_eq!(won.into_iter().filter(|won| *won.as_ref().unwrap()).count(), 1);
    assert_eq!(storages[0].size().await.unwrap(), 1);
}

async fn two_processes_create_table_at_once(place: &Place) {
    let address = place.address("both");
    let (mut one, mut other) = (Peer::start(&address), Peer::start(&address));
    one.say("get /one 1 100");
    other.say("get /other 1 100");
    assert_eq!((one.hear(), other.hear()), ("miss 1".to_owned(), "miss 1".to_owned()));
    assert_eq!(one.ask("get /other 2 100"), "hit 1");
    assert_eq!(other.ask("get /one 2 100"), "hit 1");
}

async fn works(place: &Place, what: &str, source: impl Into<DynamoDbSource>) {
    let storage = DynamoDbStorage::builder(source).cache_name(place.name(what)).create_if_missing(true);
    let storage = storage.connect().await.unwrap();
    storage.check().await.unwrap();
    storage.write(HEAD, record("kept")).await.unwrap();
    assert_eq!(storage.read(HEAD).await.unwrap().unwrap().payload(), "kept", "{what}");
}

fn settings(place: &Place, credentials: Credentials) -> SdkConfig {
    let settings = SdkConfig::builder().behavior_version(BehaviorVersion::latest());
    let settings = settings.region(Region::new("eu-central-1")).endpoint_url(endpoint(place));
    let provider = aws_credential_types::provider::SharedCredentialsProvider::new(credentials);
    settings.credentials_provider(provider).build()
}

async fn clients_and_settings_are_accepted(place: &Place) {
    let plain = settings(place, Credentials::new("test", "test", None, None, "test"));
    works(place, "settings-of-all-services", &plain).await;
    works(place, "settings", config(endpoint(place))).await;
    works(place, "a-client", client(endpoint(place))).await;
    let address = place.address("an-address").replace("connect_timeout=20", "connect_timeout=2");
    let storage = DynamoDbStorage::connect(address).await.unwrap();
    storage.write(HEAD, record("kept")).await.unwrap();
    // The endpoint that the program gives takes precedence over that of the settings.
    let storage = DynamoDbStorage::builder(&plain).endpoint("http://127.0.0.1:1").build().unwrap();
    assert_eq!(storage.check().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

async fn errors_contain_no_credentials(place: &Place) {
    // DynamoDB Local accepts only letters and digits in an access key, so it denies this one.
    let wrong = Credentials::new("secret_id!", "secret_key", Some("secret_token".to_owned()), None, "secret");
    let settings = settings(place, wrong);
    let builder = DynamoDbStorage::builder(&settings).cache_name(place.name("secret"));
    let shown = format!("{:?} {builder:?}", DynamoDbSource::from(&settings));
    assert!(!shown.contains("secret"), "{shown}");
    let storage = builder.build().unwrap();
    for error in [
        storage.check().await.unwrap_err(),
        storage.write(HEAD, record("x")).await.unwrap_err(),
        storage.clear().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied);
        let text = format!("{} {storage:?}", full_text(&error));
        assert!(!text.contains("secret") && !text.contains("127.0.0.1"), "{text}");
    }
    let mut nobody = settings.into_builder();
    nobody.set_credentials_provider(None);
    let nobody = nobody.build();
    let error = DynamoDbStorage::builder(nobody).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
}
