//! The requests to DynamoDB.
//!
//! Tests their number, their consistency, and retries when DynamoDB has no capacity.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tower_response_cache::storage::{
    DynamoDbStorage, DynamoDbStorageBuilder, Key, Kind, Record, Retain, Storage,
};
use tower_response_cache::{ErrorKind, Timestamp};

use super::front::{Answer, Front};
use super::{endpoint, open};
use crate::alike;
use crate::places::{self, Place};
use crate::servers::dynamodb::config;
use crate::support::full_text;
use crate::trial;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub fn trials(kind: &places::Kind) -> Vec<Trial> {
            vec![$(trial("requests", kind, stringify!($name), |place| Box::pin($name(place)))),*]
        }
    };
}

cases![
    hits_cost_one_or_two_requests,
    reads_are_consistent_by_default,
    throttled_requests_are_retried,
    endless_throttling_ends_at_timeout,
    unprocessed_batch_items_are_retried,
    refusals_are_classified_without_their_texts,
    dropped_retain_still_completes,
    burst_of_requests_uses_bounded_connections,
];

const HEAD: Key = Key::head([7; 16]);
const THROTTLED: [&str; 3] =
    ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"];

fn record() -> Record {
    Record::new("x", Timestamp::from_secs(4_000_000_000))
}

/// Returns a storage on an existing table, and the front that records its requests.
async fn seen(
    place: &Place,
    settings: impl FnOnce(DynamoDbStorageBuilder) -> DynamoDbStorageBuilder,
) -> (Front, DynamoDbStorage) {
    open(place, "seen").await;
    let front = Front::of(endpoint(place)).await;
    let builder = DynamoDbStorage::builder(config(&front.endpoint)).cache_name(place.name("seen"));
    let storage = settings(builder).connect().await.unwrap();
    front.asked();
    (front, storage)
}

async fn hits_cost_one_or_two_requests(place: &Place) {
    let (front, storage) = seen(place, |builder| builder).await;
    alike::hits_cost_one_or_two_requests(storage, || {
        let asked = front.asked();
        (asked.len(), asked.iter().filter(|(operation, _)| operation == "GetItem").count())
    })
    .await;
}

async fn reads_are_consistent_by_default(place: &Place) {
    let is_consistent = |asked: &(String, String)| asked.1.contains(r#""ConsistentRead":true"#);
    let (front, storage) = seen(place, |builder| builder).await;
    storage.read(HEAD).await.unwrap();
    storage.size().await.unwrap();
    assert!(front.asked().iter().all(is_consistent));
    let (front, storage) = seen(place, |builder| builder.eventually_consistent(true)).await;
    storage.read(HEAD).await.unwrap();
    storage.size().await.unwrap();
    assert!(!front.asked().iter().any(is_consistent));
    // A missing chunk is read again, consistently. The reader has already seen its head, and a body in progress would
    // break off without the chunk.
    let chunk = HEAD.sibling(Kind::Chunk, [1; 16], 0);
    assert!(storage.read(chunk).await.unwrap().is_none());
    let asked: Vec<bool> = front.asked().iter().map(is_consistent).collect();
    assert_eq!(asked, [false, true]);
}

async fn throttled_requests_are_retried(place: &Place) {
    let (front, storage) = seen(place, |builder| builder).await;
    for name in THROTTLED {
        // More errors than the driver itself would retry.
        let no = [Answer::Error(name); 7];
        front.answers(&no);
        storage.write(HEAD, record()).await.unwrap();
        front.answers(&no);
        assert!(storage.read(HEAD).await.unwrap().is_some());
        front.answers(&no);
        assert_eq!(storage.retain(&[HEAD], Retain::AtLeast(Timestamp::NEVER)).await.unwrap(), 1);
        front.answers(&no);
        assert_eq!(storage.size().await.unwrap(), 1);
        front.answers(&no);
        assert!(storage.delete(HEAD).await.unwrap());
    }
}

async fn endless_throttling_ends_at_timeout(place: &Place) {
    let (front, storage) = seen(place, |builder| builder.response_timeout(Duration::from_millis(700))).await;
    front.always(Answer::Error(THROTTLED[0]));
    let begun = Instant::now();
    let error = storage.read(HEAD).await.unwrap_err();
    // The default is 10 s.
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    front.always(Answer::HandOn);
    assert!(storage.read(HEAD).await.unwrap().is_none());
}

async fn unprocessed_batch_items_are_retried(place: &Place) {
    let (front, storage) = seen(place, |builder| builder).await;
    for part in 0..30 {
        storage.write(HEAD.sibling(Kind::Chunk, [1; 16], part), record()).await.unwrap();
    }
    front.answers(&[Answer::HandOn, Answer::Unprocessed, Answer::Unprocessed, Answer::Unprocessed]);
    front.asked();
    storage.clear().await.unwrap();
    let asked = front.asked();
    let batches = asked.iter().filter(|(operation, _)| operation == "BatchWriteItem").count();
    assert_eq!((batches, asked.len()), (2 + 3, 1 + 2 + 3), "{asked:?}");
    for part in 0..30 {
        assert!(!storage.contains(HEAD.sibling(Kind::Chunk, [1; 16], part)).await.unwrap());
    }
    storage.write(HEAD, record()).await.unwrap();
    front.answers(&[Answer::HandOn]);
    front.always(Answer::Unprocessed);
    let error = storage.clear().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    front.always(Answer::HandOn);
    storage.clear().await.unwrap();
}

async fn refusals_are_classified_without_their_texts(place: &Place) {
    let (front, storage) = seen(place, |builder| builder).await;
    let kinds = [
        ("AccessDeniedException", ErrorKind::Denied, ErrorKind::ReadOnly),
        ("UnrecognizedClientException", ErrorKind::Denied, ErrorKind::Denied),
        ("ExpiredTokenException", ErrorKind::Denied, ErrorKind::Denied),
        ("ResourceNotFoundException", ErrorKind::Config, ErrorKind::Config),
        ("ItemCollectionSizeLimitExceededException", ErrorKind::Full, ErrorKind::Full),
        ("TransactionConflictException", ErrorKind::Unavailable, ErrorKind::Unavailable),
        ("InternalServerError", ErrorKind::Unavailable, ErrorKind::Unavailable),
        ("ValidationException", ErrorKind::Other, ErrorKind::Other),
        ("ConditionalCheckFailedException", ErrorKind::Other, ErrorKind::Other),
        ("SomethingNew", ErrorKind::Other, ErrorKind::Other),
    ];
    for (name, reading, writing) in kinds {
        front.always(Answer::Error(name));
        let (read, written) = (storage.read(HEAD).await, storage.write(HEAD, record()).await);
        for (error, kind) in [(read.map(drop).unwrap_err(), reading), (written.unwrap_err(), writing)] {
            assert_eq!(error.kind(), kind, "{name}");
            let text = full_text(&error);
            assert!(text.contains(name) || name.starts_with("Cond"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}

async fn dropped_retain_still_completes(place: &Place) {
    let (front, storage) = seen(place, |builder| builder).await;
    let chunks: Vec<Key> = (0..40).map(|part| HEAD.sibling(Kind::Chunk, [1; 16], part)).collect();
    for chunk in &chunks {
        storage.write(*chunk, record()).await.unwrap();
    }
    front.answers(&[Answer::Error(THROTTLED[0]); 40]);
    let moved = storage.retain(&chunks, Retain::AtLeast(Timestamp::NEVER));
    assert!(tokio::time::timeout(Duration::from_millis(20), moved).await.is_err());
    let begun = Instant::now();
    for chunk in chunks {
        while storage.read(chunk).await.unwrap().unwrap().retain_until() != Timestamp::NEVER {
            assert!(begun.elapsed() < Duration::from_secs(20), "a retention time was not changed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn burst_of_requests_uses_bounded_connections(place: &Place) {
    // On busy cores the server needs seconds for a thousand requests.
    let (front, storage) = seen(place, |builder| builder.response_timeout(Duration::from_secs(60))).await;
    let reads = (0..1000).map(|part| storage.read(HEAD.sibling(Kind::Chunk, [1; 16], part)));
    let answers = futures_util::future::join_all(reads).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().is_none()));
    assert!((2..=128).contains(&front.most_running()), "{} at once", front.most_running());
}
