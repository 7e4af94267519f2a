//! Storages that a copy goes to.
//!
//! The tests cover how long copies are kept, storages that refuse records, hang or are slow, and concurrent writes.

use std::sync::Arc;

use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use tower_response_cache::storage::{BoxStorage, Key, Kind, MemoryStorage, Record, Stamp, Storage};
use tower_response_cache::{Error, ErrorKind, Result, Timestamp};

use crate::copying::{LARGE, SEVERAL, counts, everything, memory};
use crate::support::faulty::{Faulty, Mode};
use crate::support::forward::forward;
use crate::support::get_with;
use crate::{A, SECOND, in_language, world};

const DAY: u32 = 86_400;

type Before = dyn Fn(&MemoryStorage, Key, &Record) -> Result<()> + Send + Sync;

/// A memory storage that lists head records last, and runs a closure before each write.
#[derive(Clone)]
struct Scripted {
    inner: MemoryStorage,
    before: Arc<Before>,
}

impl Scripted {
    fn new(before: impl Fn(&MemoryStorage, Key, &Record) -> Result<()> + Send + Sync + 'static) -> Self {
        Self { inner: MemoryStorage::new(), before: Arc::new(before) }
    }
}

impl Storage for Scripted {
    forward!(inner: read, delete, clear, retain);

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        (self.before)(&self.inner, key, &record)?;
        self.inner.write(key, record).await
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        (self.before)(&self.inner, key, &record)?;
        self.inner.write_if(key, seen, record).await
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        let all = async {
            let mut keys: Vec<Key> = self.inner.keys().try_collect().await.unwrap();
            keys.sort_by_key(|key| key.kind == Kind::Head);
            stream::iter(keys.into_iter().map(Ok))
        };
        stream::once(all).flatten()
    }
}

#[tokio::test]
async fn copy_skips_oversized_records_and_reports_failures() {
    let source = world(&memory());
    source.fill(&[A, LARGE, "http://example.com/middle?len=5000"]).await;
    let narrow = |longest, kind| {
        Scripted::new(move |_, _, record| match record.to_bytes().len() > longest {
            true => Err(Error::new(kind, "scripted")),
            false => Ok(()),
        })
    };
    let few = narrow(2_000, ErrorKind::TooLarge);
    let copied = source.handle().copy_to(&few, &everything(), |_| {}).await.unwrap();
    assert_eq!(counts(&copied), [1, 4, 0, 2]);
    let full = source.handle().copy_to(&narrow(0, ErrorKind::Full), &everything(), |_| {}).await;
    assert_eq!(full.unwrap_err().kind(), ErrorKind::Full);
}

#[tokio::test(start_paused = true)]
async fn hanging_storage_ends_copy() {
    for mode in [Mode::Hung, Mode::HungWrites] {
        let source = world(&memory());
        source.fill(&[A]).await;
        let copied = source.handle().copy_to(&Faulty::new(mode), &everything(), |_| {}).await;
        assert_eq!(copied.unwrap_err().kind(), ErrorKind::Timeout);
    }
}

#[tokio::test]
async fn copy_slower_than_tombstone_writes_no_head() {
    let source = world(&memory());
    source.fill(&[LARGE]).await;
    let clock = source.clock.clone();
    let slow = Scripted::new(move |_, _, _| {
        clock.advance(200 * SECOND);
        Ok(())
    });
    let copied = source.handle().copy_to(&slow, &everything(), |_| {}).await.unwrap();
    assert_eq!(counts(&copied), [0, 0, 0, 1]);
    assert!(!world(&BoxStorage::new(slow)).handle().has_url(LARGE).await.unwrap());
}

#[tokio::test]
async fn concurrent_copy_keeps_only_referenced_body() {
    let source = world(&memory());
    source.fill(&[LARGE]).await;
    let faster = Scripted::new(|inner, key, record| {
        if key.kind == Kind::Head {
            let same = Record::new(record.payload(), record.retain_until());
            inner.write(key, same).now_or_never().unwrap()?;
        }
        Ok(())
    });
    let copied = source.handle().copy_to(&faster, &everything(), |_| {}).await.unwrap();
    assert_eq!((copied.unchanged, copied.responses, copied.skipped, copied.failed), (1, 0, 0, 0));
    let deleted = Scripted::new(|inner, key, _| {
        if key.kind == Kind::Head {
            inner.write(key, Record::new("foreign", Timestamp::NEVER)).now_or_never().unwrap()?;
        }
        Ok(())
    });
    let copied = source.handle().copy_to(&deleted, &everything(), |_| {}).await.unwrap();
    assert_eq!(counts(&copied), [0, 0, 1, 0]);
    let too_long = Scripted::new(|_, key, _| match (key.kind, key.part) {
        (Kind::Chunk, 1) => Err(Error::new(ErrorKind::TooLarge, "scripted")),
        _ => Ok(()),
    });
    let copied = source.handle().copy_to(&too_long, &everything(), |_| {}).await.unwrap();
    assert_eq!(counts(&copied), [0, 0, 0, 1]);
    for (storage, is_named) in [(faster, true), (deleted, false), (too_long, false)] {
        let target = world(&BoxStorage::new(storage.clone()));
        target.clock.advance(3 * 3600 * SECOND);
        target.handle().delete_expired().await.unwrap();
        let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
        assert_eq!(keys.iter().any(|key| key.kind == Kind::Chunk), is_named);
    }
}

#[tokio::test]
async fn copy_counts_each_response_once() {
    let from = BoxStorage::new(Scripted::new(|_, _, _| Ok(())));
    let (source, to) = (world(&from), memory());
    for language in ["en", "de", "fr"] {
        source.settled(in_language(SEVERAL, language)).await;
    }
    assert_eq!(counts(&source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap()), [3, 12, 0, 0]);
    let again = source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap();
    assert_eq!((again.unchanged, again.responses), (3, 0));
}

#[tokio::test]
async fn later_copy_extends_head_and_group_retention() {
    const SEVERAL: &str = "http://example.com/?vary=accept-language&loose=1&age=864000";
    let grouped = |name| format!("http://example.com/{name}?groups=all&loose=1&age=864000");
    let (from, to) = (memory(), memory());
    let (source, target) = (world(&from), world(&to));
    for (language, name) in [("en", "a"), ("de", "b")] {
        source.settled(in_language(SEVERAL, language)).await;
        source.fill(&[&grouped(name)]).await;
        assert_eq!(source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap().responses, 2);
        source.clock.advance(5 * DAY * SECOND);
    }
    target.clock.advance(12 * DAY * SECOND);
    assert!(target.handle().delete_expired().await.unwrap() > 0);
    assert_eq!(target.get(&grouped("a")).await.word(), "miss");
    assert_eq!(target.get(&grouped("b")).await.word(), "hit");
    assert_eq!(target.ask(in_language(SEVERAL, "de")).await.word(), "hit");
}

#[tokio::test]
async fn copied_variants_offer_their_entity_tags() {
    let (from, to) = (memory(), memory());
    let (source, target) = (world(&from), world(&to));
    for language in ["en", "de", "fr"] {
        source.settled(in_language(SEVERAL, language)).await;
    }
    source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap();
    target.settled(in_language(SEVERAL, "es")).await;
    let asked = target.origin.last();
    let mut tags: Vec<_> = asked["if-none-match"].to_str().unwrap().split(", ").collect();
    tags.sort_unstable();
    assert_eq!(tags, ["\"de\"", "\"en\"", "\"fr\""]);
}

#[tokio::test]
async fn copy_removes_replaced_body_but_keeps_confirmed() {
    const LASTING: &str = "http://example.com/?len=300000&age=864000";
    let (from, to) = (memory(), memory());
    let (source, target) = (world(&from), world(&to));
    let copy = async || {
        let copied = source.handle().copy_to(&to, &everything(), |_| {}).await.unwrap();
        assert_eq!(counts(&copied), [1, 300_000, 0, 0]);
    };
    let bodies = async || {
        target.handle().delete_expired().await.unwrap();
        let keys: Vec<Key> = to.keys().try_collect().await.unwrap();
        let mut bodies: Vec<_> =
            keys.iter().filter(|key| key.kind == Kind::Chunk).map(|key| key.slot).collect();
        bodies.dedup();
        bodies
    };
    let later = |times| [&source, &target].map(|world| world.clock.advance(times * SECOND));
    source.fill(&[LASTING]).await;
    copy().await;
    let first = bodies().await;
    later(10);
    let confirmed = source.settled(get_with(LASTING, &[("cache-control", "no-cache")])).await;
    assert_eq!(confirmed.word(), "revalidated");
    copy().await;
    later(3 * 3600);
    assert_eq!(bodies().await, first);
    assert_eq!(target.get(LASTING).await.body.len(), 300_000);
    source.handle().delete_url(LASTING).await.unwrap();
    source.fill(&[LASTING]).await;
    copy().await;
    assert_eq!(bodies().await.len(), 2, "the old body is kept for its readers");
    later(3 * 3600);
    let last = bodies().await;
    assert!(last.len() == 1 && last != first);
    let served = target.get(LASTING).await;
    assert_eq!((served.word(), served.body.len()), ("hit", 300_000));
}
