//! The items in the table.
//!
//! Tests their documented format, DynamoDB's limits, and items of other programs.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::TryStreamExt;
use libtest_mimic::Trial;
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::primitives::Blob;
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::types::{AttributeValue, ScalarAttributeType};
use tower_response_cache::storage::{Key, Kind, Record, Retain, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::{builder, make, open, raw};
use crate::alike;
use crate::places::{self, Place};
use crate::trial;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub fn trials(kind: &places::Kind) -> Vec<Trial> {
            vec![$(trial("items", kind, stringify!($name), |place| Box::pin($name(place)))),*]
        }
    };
}

cases![
    item_format_matches_the_docs,
    longest_record_fits_under_longest_names,
    foreign_items_are_ignored_and_kept,
    expired_but_undeleted_record_is_a_miss,
];

const HEAD: Key = Key::head([7; 16]);

type Item = HashMap<String, AttributeValue>;

async fn item(place: &Place, table: &str, record: &str) -> Item {
    let request = raw(place).get_item().table_name(place.name(table)).consistent_read(true);
    let request = request.key("entry", text(&"07".repeat(16))).key("record", text(record));
    request.send().await.unwrap().item.unwrap()
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn bytes(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

async fn item_format_matches_the_docs(place: &Place) {
    let storage = open(place, "docs").await;
    let record = Record::new("payload", Timestamp::from_millis(4_000_000_000_001));
    storage.write(HEAD, record.clone()).await.unwrap();
    let expected = Item::from([
        ("entry".to_owned(), text("07070707070707070707070707070707")),
        ("record".to_owned(), text("head")),
        ("stamp".to_owned(), bytes(record.stamp().to_bytes())),
        ("until".to_owned(), number(4_000_000_000_001)),
        ("expires".to_owned(), number(4_000_000_001)),
        ("value".to_owned(), bytes(record.to_bytes())),
    ]);
    assert_eq!(item(place, "docs", "head").await, expected);
    for kind in [Kind::Variant, Kind::Chunk, Kind::Index] {
        storage.write(HEAD.sibling(kind, [0xa; 16], 0), record.clone()).await.unwrap();
    }
    let slot = "0a".repeat(16);
    for name in [format!("variant:{slot}"), format!("chunk:{slot}:0000000000"), format!("index:{slot}")] {
        item(place, "docs", &name).await;
    }
    storage.retain(&[HEAD], Retain::AtLeast(Timestamp::NEVER)).await.unwrap();
    let mut never = expected.clone();
    never.remove("expires");
    never.insert("until".to_owned(), number(u64::MAX));
    assert_eq!(
        item(place, "docs", "head").await,
        never,
        "a record that never expires has no expiry attribute"
    );
    storage.retain(&[HEAD], Retain::AtMost(record.retain_until())).await.unwrap();
    assert_eq!(item(place, "docs", "head").await, expected, "the expiry attribute is restored");
}

async fn longest_record_fits_under_longest_names(place: &Place) {
    let names = ["p", "s", "t"].map(|letter| letter.repeat(255));
    let keys = [(&*names[0], ScalarAttributeType::S), (&*names[1], ScalarAttributeType::S)];
    make(place, "long", &keys).await;
    let storage = builder(place, "long").key_names(&*names[0], &*names[1]).expiry_name(&*names[2]);
    let storage = storage.connect().await.unwrap();
    let key = HEAD.sibling(Kind::Chunk, [0xff; 16], u32::MAX);
    let longest = storage.max_record_len() - Record::OVERHEAD;
    let until = Timestamp::from_secs(4_000_000_000);
    storage.write(key, Record::new(vec![1; longest], until)).await.unwrap();
    let refused = storage.write(key, Record::new(vec![2; longest + 1], until)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    assert_eq!(storage.read(key).await.unwrap().unwrap().payload(), vec![1; longest]);
    assert_eq!(storage.retain(&[key], Retain::AtLeast(until + Duration::from_secs(1))).await.unwrap(), 1);
    assert!(storage.delete(key).await.unwrap());
}

async fn foreign_items_are_ignored_and_kept(place: &Place) {
    let storage = open(place, "shared").await;
    let (client, table) = (raw(place), place.name("shared"));
    let put =
        async |item: Item| client.put_item().table_name(&table).set_item(Some(item)).send().await.unwrap();
    let named = |entry: &str, record: &str| {
        Item::from([("entry".to_owned(), text(entry)), ("record".to_owned(), text(record))])
    };
    let ours = "07".repeat(16);
    let theirs = [
        named("user#1", "profile"),
        named("user#1", "head"),
        named(&ours, "heads"),
        named(&ours, "variants"),
        named(&ours, "chunk:1"),
        named(&ours.to_uppercase().replace('0', "A"), "head"),
    ];
    for item in &theirs {
        let mut item = item.clone();
        item.insert("until".to_owned(), number(1));
        item.insert("expires".to_owned(), number(1));
        put(item).await;
    }
    // Another program could also write such items under the storage's own keys.
    let stamp = [3; 16];
    let odd = [
        Item::default(),
        Item::from([("value".to_owned(), text("text")), ("until".to_owned(), text("soon"))]),
        Item::from([("value".to_owned(), bytes(vec![1; 60])), ("until".to_owned(), number(0))]),
        Item::from([
            ("stamp".to_owned(), AttributeValue::Bool(true)),
            ("until".to_owned(), AttributeValue::Null(true)),
        ]),
        Item::from([("stamp".to_owned(), bytes(stamp)), ("value".to_owned(), AttributeValue::L(Vec::new()))]),
        Item::from([
            ("until".to_owned(), AttributeValue::N("-1e99".into())),
            ("value".to_owned(), bytes([])),
        ]),
    ];
    let until = Timestamp::from_secs(4_000_000_000);
    for (at, odd) in odd.into_iter().enumerate() {
        put(named(&ours, "head").into_iter().chain(odd).collect()).await;
        assert!(storage.read(HEAD).await.unwrap().is_none(), "{at}");
        assert!(!storage.contains(HEAD).await.unwrap(), "{at}");
        assert_eq!(storage.values().try_collect::<Vec<_>>().await.unwrap().len(), 0, "{at}");
        storage.retain(&[HEAD], Retain::AtLeast(until)).await.unwrap();
        assert!(storage.read(HEAD).await.unwrap().is_none(), "{at}");
        let record = Record::new("ours", until);
        assert!(!storage.write_if(HEAD, Some(record.stamp()), record.clone()).await.unwrap(), "{at}");
        assert!(storage.write_if(HEAD, None, record).await.unwrap(), "{at}");
        assert_eq!(storage.read(HEAD).await.unwrap().unwrap().payload(), "ours", "{at}");
    }
    assert_eq!(storage.keys().try_collect::<Vec<_>>().await.unwrap(), [HEAD]);
    assert_eq!(storage.delete_expired(Timestamp::from_secs(10)).await.unwrap(), 0);
    storage.clear().await.unwrap();
    let left = client.scan().table_name(&table).consistent_read(true).send().await.unwrap();
    assert_eq!(left.count as usize, theirs.len(), "foreign items are deleted");
}

async fn expired_but_undeleted_record_is_a_miss(place: &Place) {
    // Without time to live, so that no expired item is deleted. The same happens where DynamoDB deletes it late.
    let text = ScalarAttributeType::S;
    make(place, "unswept", &[("entry", text.clone()), ("record", text)]).await;
    let storage = builder(place, "unswept").connect().await.unwrap();
    alike::expired_but_undeleted_record_is_a_miss(storage).await;
}
