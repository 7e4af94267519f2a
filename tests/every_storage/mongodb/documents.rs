//! The documents in the collection.
//!
//! Tests their documented format, and documents of other programs.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use libtest_mimic::Trial;
use tower_response_cache::storage::mongodb::driver::bson::spec::BinarySubtype;
use tower_response_cache::storage::mongodb::driver::bson::{Binary, Bson, DateTime, Document, doc};
use tower_response_cache::storage::mongodb::driver::options::IndexOptions;
use tower_response_cache::storage::mongodb::driver::{Collection, IndexModel};
use tower_response_cache::storage::{Kind as RecordKind, Record, Retain, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::{HEAD, open};
use crate::alike;
use crate::places::{Kind, Place};
use crate::trial;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub fn trials(kind: &Kind) -> Vec<Trial> {
            vec![$(trial("documents", kind, stringify!($name), |place| Box::pin($name(place)))),*]
        }
    };
}

cases![
    document_format_matches_the_docs,
    index_expires_records_at_their_time,
    equal_index_of_other_name_is_adopted,
    concurrent_first_write_if_has_one_winner,
    concurrent_first_writes_all_succeed,
    record_above_the_limit_is_refused,
    foreign_documents_are_no_records,
    expired_but_undeleted_record_is_a_miss,
];

fn binary(bytes: impl Into<Vec<u8>>) -> Bson {
    Binary { subtype: BinarySubtype::Generic, bytes: bytes.into() }.into()
}

async fn document_format_matches_the_docs(place: &Place) {
    let (storage, records) = open(place, "docs").await;
    let record = Record::new("payload", Timestamp::from_millis(4_000_000_000_001));
    storage.write(HEAD, record.clone()).await.unwrap();
    let id = format!("{}00{}", "07".repeat(16), "00".repeat(20));
    let expected = doc! {
        "_id": &id,
        "kind": "head",
        "stamp": binary(record.stamp().to_bytes()),
        "until": "00000004000000000001",
        "expires": DateTime::from_millis(4_000_000_000_001),
        "value": binary(record.to_bytes()),
    };
    let there = async || records.find_one(doc! { "_id": &id }).await.unwrap().unwrap();
    assert_eq!(there().await, expected);
    storage.retain(&[HEAD], Retain::AtLeast(Timestamp::NEVER)).await.unwrap();
    let mut never = expected.clone();
    never.insert("until", u64::MAX.to_string());
    never.insert("expires", Bson::MaxKey);
    assert_eq!(there().await, never, "a record that never expires has no date");
    storage.retain(&[HEAD], Retain::AtMost(record.retain_until())).await.unwrap();
    assert_eq!(there().await, expected, "the date is restored");

    let kinds =
        [RecordKind::Variant, RecordKind::Chunk, RecordKind::Lease, RecordKind::Group, RecordKind::Index];
    for kind in kinds {
        storage.write(HEAD.sibling(kind, [0xa; 16], 3), record.clone()).await.unwrap();
    }
    let of_entry = doc! { "_id": { "$regex": format!("^{}", "07".repeat(16)) } };
    let all: Vec<Document> =
        records.find(of_entry).sort(doc! { "_id": 1 }).await.unwrap().try_collect().await.unwrap();
    let kinds: Vec<&str> = all.iter().map(|document| document.get_str("kind").unwrap()).collect();
    assert_eq!(kinds, ["head", "variant", "chunk", "lease", "group", "index"]);
}

/// Returns the name and expiry of each index on the expiry time.
///
/// Waits until the storage has created its indexes.
async fn expiry(records: &Collection<Document>) -> Vec<(Option<String>, Option<Duration>)> {
    let begun = Instant::now();
    loop {
        let all: Vec<IndexModel> = match records.list_indexes().await {
            Ok(indexes) => indexes.try_collect().await.unwrap(),
            Err(_) => Vec::new(),
        };
        if all.iter().any(|index| index.keys == doc! { "kind": 1, "_id": 1 }) {
            let all = all.into_iter().filter(|index| index.keys == doc! { "expires": 1 });
            let options = all.map(|index| index.options.unwrap_or_default());
            return options.map(|options| (options.name, options.expire_after)).collect();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the indexes were not created");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn index_expires_records_at_their_time(place: &Place) {
    let (storage, records) = open(place, "indexes").await;
    storage.write(HEAD, Record::new("x", Timestamp::NEVER)).await.unwrap();
    assert_eq!(expiry(&records).await, [(Some("expires_1".to_owned()), Some(Duration::ZERO))]);
}

async fn equal_index_of_other_name_is_adopted(place: &Place) {
    let (storage, records) = open(place, "adopted").await;
    let options = IndexOptions::builder().name("theirs".to_owned()).expire_after(Duration::ZERO).build();
    let index = IndexModel::builder().keys(doc! { "expires": 1 }).options(options).build();
    records.create_index(index).await.unwrap();
    storage.write(HEAD, Record::new("x", Timestamp::NEVER)).await.unwrap();
    let all = expiry(&records).await;
    assert!(all.contains(&(Some("theirs".to_owned()), Some(Duration::ZERO))), "{all:?}");
    assert_eq!(storage.size().await.unwrap(), 1);
}

async fn concurrent_first_write_if_has_one_winner(place: &Place) {
    let (storage, _) = open(place, "race").await;
    for round in 0..10 {
        let key = HEAD.sibling(RecordKind::Variant, [round; 16], 0);
        let writers = (0..16).map(|number| {
            let storage = storage.clone();
            let record = Record::new(format!("writer {number}"), Timestamp::NEVER);
            tokio::spawn(async move { (storage.write_if(key, None, record.clone()).await.unwrap(), record) })
        });
        let mut won = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            let (is_written, record) = writer.await.unwrap();
            won.extend(is_written.then_some(record.stamp()));
        }
        let there = storage.read(key).await.unwrap().unwrap();
        assert_eq!(won, [there.stamp()]);
    }
}

async fn concurrent_first_writes_all_succeed(place: &Place) {
    let (storage, _) = open(place, "overwrite").await;
    for round in 0..10 {
        let key = HEAD.sibling(RecordKind::Variant, [round; 16], 0);
        let writers = (0..16).map(|_| {
            let storage = storage.clone();
            tokio::spawn(async move { storage.write(key, Record::new("x", Timestamp::NEVER)).await.unwrap() })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        assert!(storage.contains(key).await.unwrap());
    }
}

async fn record_above_the_limit_is_refused(place: &Place) {
    let (storage, _) = open(place, "long").await;
    let key = HEAD.sibling(RecordKind::Chunk, [0xff; 16], u32::MAX);
    let longest = storage.max_record_len() - Record::OVERHEAD;
    storage.write(key, Record::new(vec![1; longest], Timestamp::NEVER)).await.unwrap();
    for len in [longest + 1, 17 << 20] {
        let record = Record::new(vec![2; len], Timestamp::NEVER);
        assert_eq!(storage.write(key, record.clone()).await.unwrap_err().kind(), ErrorKind::TooLarge);
        let refused = storage.write_if(HEAD, None, record).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TooLarge);
    }
    assert_eq!(storage.read(key).await.unwrap().unwrap().payload(), vec![1; longest]);
}

async fn foreign_documents_are_no_records(place: &Place) {
    let (storage, records) = open(place, "others").await;
    let id = HEAD.to_string();
    let good = Record::new("good", Timestamp::NEVER);
    let foreign =
        [doc! { "_id": 7 }, doc! { "_id": "text", "kind": "head" }, doc! { "_id": { "a": 1 }, "value": 3 }];
    records.insert_many(&foreign).await.unwrap();
    let odd = [
        doc! {},
        doc! { "kind": "head", "stamp": 1, "until": 5, "value": "text" },
        doc! { "kind": 3, "stamp": binary([]), "until": "5", "value": binary([]) },
        doc! { "kind": "head", "stamp": binary(good.stamp().to_bytes()), "until": "x".repeat(20), "value": binary(good.to_bytes()) },
        doc! { "kind": "head", "stamp": binary(good.stamp().to_bytes()), "until": "9".repeat(20), "value": binary(good.to_bytes()) },
        doc! { "kind": "head", "stamp": binary([1; 16]), "until": u64::MAX.to_string(), "value": binary(good.to_bytes()) },
    ];
    for (at, odd) in odd.into_iter().enumerate() {
        let mut document = doc! { "_id": &id };
        document.extend(odd);
        records.replace_one(doc! { "_id": &id }, document).upsert(true).await.unwrap();
        assert!(storage.read(HEAD).await.unwrap().is_none(), "{at}");
        assert!(!storage.contains(HEAD).await.unwrap(), "{at}");
        assert_eq!(storage.values().try_collect::<Vec<_>>().await.unwrap().len(), 0, "{at}");
        let record = Record::new("ours", Timestamp::NEVER);
        assert!(!storage.write_if(HEAD, Some(record.stamp()), record.clone()).await.unwrap(), "{at}");
        assert!(storage.write_if(HEAD, None, record).await.unwrap(), "{at}");
        assert_eq!(storage.read(HEAD).await.unwrap().unwrap().payload(), "ours", "{at}");
    }
    assert_eq!(storage.keys().try_collect::<Vec<_>>().await.unwrap(), [HEAD]);
    assert_eq!(storage.delete_expired(Timestamp::from_secs(10)).await.unwrap(), 0);
}

async fn expired_but_undeleted_record_is_a_miss(place: &Place) {
    let (storage, _) = open(place, "unswept").await;
    alike::expired_but_undeleted_record_is_a_miss(storage).await;
}
