//! Copying to another storage.

use futures_util::TryStreamExt;
use tower_response_cache::storage::{BoxStorage, Key, Kind, MemoryStorage, Record, Storage};
use tower_response_cache::{CacheOptions, CopyReport, EntryFilter, Timestamp};

use crate::support::get;
use crate::{A, SECOND, in_a_file, in_language, world};

pub const LARGE: &str = "http://example.com/large?len=400000";
pub const SEVERAL: &str = "http://example.com/?vary=accept-language";

pub fn everything() -> EntryFilter {
    EntryFilter::new()
}

pub fn memory() -> BoxStorage {
    BoxStorage::new(MemoryStorage::new())
}

pub fn counts(copied: &CopyReport) -> [u64; 4] {
    assert_eq!(copied.unchanged, 0);
    [copied.responses, copied.bytes, copied.skipped, copied.failed]
}

fn tagged(uri: &str, tag: &'static str) -> http::Request<crate::support::ReqBody> {
    let mut request = get(uri);
    request.extensions_mut().insert(CacheOptions::new().tags([tag]));
    request
}

#[tokio::test]
async fn copied_responses_are_served_unchanged() {
    let (file, _folder) = in_a_file().await;
    let (first, last) = (memory(), memory());
    let source = world(&first);
    source.fill(&[A, LARGE]).await;
    for language in ["en", "de", "fr"] {
        source.settled(in_language(SEVERAL, language)).await;
    }
    source.settled(tagged("http://example.com/tagged", "news")).await;
    source.clock.advance(20 * SECOND);
    let mut calls = Vec::new();
    let copied = source.handle().copy_to(&file, &everything(), |so_far| calls.push(*so_far)).await.unwrap();
    assert_eq!(counts(&copied), [6, 400_000 + 5 * 4, 0, 0]);
    assert_eq!((calls.len(), calls.last()), (6, Some(&copied)));
    let middle = world(&file);
    middle.clock.advance(20 * SECOND);
    assert_eq!(middle.handle().copy_to(&last, &everything(), |_| {}).await.unwrap().responses, 6);
    let target = world(&last);
    target.clock.advance(20 * SECOND);
    for uri in [A, LARGE, "http://example.com/tagged"] {
        let answer = target.get(uri).await;
        assert_eq!((answer.word(), answer.header("age")), ("hit", Some("20")), "{uri}");
    }
    for language in ["en", "de", "fr"] {
        let answer = target.ask(in_language(SEVERAL, language)).await;
        assert_eq!(
            (answer.word(), answer.header("etag").unwrap()),
            ("hit", format!("\"{language}\"").as_str())
        );
    }
    assert_eq!(target.get(LARGE).await.body.len(), 400_000);
    assert_eq!(target.origin.count(), 0);
    target.handle().invalidate_tag("news").await.unwrap();
    assert_eq!(target.get("http://example.com/tagged").await.word(), "miss");
    assert!(target.handle().verify(|_| {}).await.unwrap().is_sound());
}

#[tokio::test]
async fn repeated_copy_leaves_responses_unchanged() {
    let (from, to) = (memory(), memory());
    let source = world(&from);
    source.fill(&[A, LARGE]).await;
    assert_eq!(
        counts(&source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap()),
        [2, 400_004, 0, 0]
    );
    let again = source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap();
    assert_eq!((again.unchanged, again.responses, again.bytes, again.skipped), (2, 0, 0, 0));
    assert!(world(&to).handle().verify(|_| {}).await.unwrap().is_sound());
}

#[tokio::test]
async fn copy_replaces_only_older_responses() {
    let (from, to) = (memory(), memory());
    let (source, target) = (world(&from), world(&to));
    target.fill(&["http://example.com/older?len=300000"]).await;
    target.clock.advance(SECOND);
    source.clock.advance(SECOND);
    source.fill(&[A, "http://example.com/newer", "http://example.com/older?len=300000"]).await;
    target.clock.advance(SECOND);
    source.clock.advance(SECOND);
    target.fill(&["http://example.com/newer"]).await;
    target.handle().delete_url(A).await.unwrap();
    let copied = source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap();
    assert_eq!(counts(&copied), [1, 300_000, 2, 0]);
    assert!(!target.handle().has_url(A).await.unwrap());
    let age = async |uri| target.handle().get_url(uri).await.unwrap().unwrap().age();
    assert_eq!(age("http://example.com/newer").await, std::time::Duration::ZERO);
    assert_eq!(age("http://example.com/older?len=300000").await, SECOND);
    assert_eq!(target.get("http://example.com/older?len=300000").await.body.len(), 300_000);
}

#[tokio::test]
async fn copied_variant_brings_its_head() {
    let (from, to) = (memory(), memory());
    let source = world(&from);
    for language in ["en", "de"] {
        source.settled(in_language(SEVERAL, language)).await;
    }
    let german = everything().matching(|entry| entry.headers()["etag"] == "\"de\"");
    let copied = source.handle().copy_to(&to, &german, |_| {}).await.unwrap();
    assert_eq!(counts(&copied), [1, 4, 0, 0]);
    let target = world(&to);
    assert_eq!(target.ask(in_language(SEVERAL, "de")).await.word(), "hit");
    // The target has another, newer head. The variant could not be found through it, so the copy skips it.
    let other = memory();
    let rival = world(&other);
    rival.clock.advance(SECOND);
    rival.settled(in_language(SEVERAL, "fr")).await;
    assert_eq!(counts(&source.handle().copy_to(&other, &german, |_| {}).await.unwrap()), [0, 0, 1, 0]);
    assert_eq!(rival.ask(in_language(SEVERAL, "fr")).await.word(), "hit");
}

#[tokio::test]
async fn copy_respects_target_group_invalidations() {
    let (from, to) = (memory(), memory());
    let (source, target) = (world(&from), world(&to));
    target.settled(tagged("http://example.com/other", "living")).await;
    source.settled(tagged(A, "ended")).await;
    source.settled(tagged("http://example.com/b", "living")).await;
    target.clock.advance(SECOND);
    source.clock.advance(SECOND);
    target.handle().invalidate_tag("ended").await.unwrap();
    let copied = source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap();
    assert_eq!(counts(&copied), [1, 4, 1, 0]);
    assert_eq!(
        (target.get("http://example.com/b").await.word(), target.get(A).await.word()),
        ("hit", "miss")
    );
    // A response counts as unchanged although its group has another value in the target.
    let again = source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap();
    assert_eq!((again.responses, again.unchanged, again.skipped), (0, 1, 1));
    target.handle().invalidate_tag("living").await.unwrap();
    assert_eq!(target.get("http://example.com/b").await.word(), "miss");
}

#[tokio::test]
async fn copy_skips_and_counts_incomplete_bodies() {
    let (from, to) = (memory(), memory());
    let source = world(&from);
    source.fill(&[A, LARGE]).await;
    let keys: Vec<Key> = from.keys().try_collect().await.unwrap();
    let chunk = keys.into_iter().find(|key| key.kind == Kind::Chunk && key.part == 1).unwrap();
    from.delete(chunk).await.unwrap();
    let copied = source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap();
    assert_eq!(counts(&copied), [1, 4, 0, 1]);
    assert!(!world(&to).handle().has_url(LARGE).await.unwrap());
}

#[tokio::test]
async fn copy_replaces_foreign_bytes() {
    let (from, to) = (memory(), memory());
    let source = world(&from);
    source.fill(&[A]).await;
    let head = source.handle().get_url(A).await.unwrap().unwrap().key();
    to.write(head, Record::new("foreign", Timestamp::NEVER)).await.unwrap();
    assert_eq!(counts(&source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap()), [1, 4, 0, 0]);
    assert_eq!(world(&to).get(A).await.word(), "hit");
}
