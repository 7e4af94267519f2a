//! Storages that break the contract, and how the suite reports them.
//!
//! Each breaks one clause. The case that checks the clause must fail, and say which clause it is and what it demands.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use tower_response_cache::storage::{Hold, Key, Kind, MemoryStorage, Record, Retain, Stamp, Storage, Usage};
use tower_response_cache::testing::{Harness, cases, contract_cases, in_time};
use tower_response_cache::{Error, ErrorKind, Result, Timestamp};

/// What is wrong with a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// Reads and changes never end.
    Hangs,
    WritesHang,
    /// Writes do nothing.
    Forgets,
    /// Every operation fails.
    Fails,
    /// Each read returns a new stamp.
    NewStamps,
    /// Payloads end after a mebibyte.
    CutsPayloads,
    /// A handle keeps what it has read.
    KeepsCopies,
    /// A shorter record keeps the end of the longer one before.
    KeepsOldEnd,
    /// `write_if` compares nothing.
    ComparesNothing,
    /// `write_if` compares only with the stamp that was seen.
    RefusesRepeatedWrite,
    /// `write_if` reads and writes under a lock that each handle has for itself.
    LocksHandle,
    DeletesAnything,
    /// `clear` removes the records of all names that begin with this one.
    ClearsByPrefix,
    ListsTwice,
    /// A listing ends before the last page.
    ListsFirstPage,
    KeepsSeconds,
    RetainsWithoutDirection,
    ExpiresHeadsOnly,
    ClonesEmpty,
    /// A dropped `delete` keeps the lock that all operations need.
    KeepsLock,
    AcceptsTooLong,
    DamageIsError,
    /// Names are told apart by their letters only.
    ReadsLettersOfNames,
    /// `read_now` returns what was read first.
    OldReadNow,
    LooksAtFirstKey,
    HoldsNothing,
    /// `close` throws away what is not written yet.
    CloseForgets,
    SortsStamps,
    CountsNothing,
    /// An error of the medium is an absent record.
    FailedReadIsAbsent,
    /// The old record is removed before the new one is written.
    FailedWriteRemoves,
}

/// A storage with a fault, and what all its handles share.
struct Broken {
    fault: Fault,
    inner: MemoryStorage,
    shelf: Arc<Shared>,
    name: String,
    /// What this handle and its clones have read.
    copies: Arc<Mutex<HashMap<Key, Option<Record>>>>,
    lock: Arc<tokio::sync::Mutex<()>>,
}

/// What all storages of a harness share.
#[derive(Default)]
struct Shared {
    opened: Mutex<HashMap<String, MemoryStorage>>,
    damaged: Mutex<HashSet<Key>>,
    fails: AtomicBool,
    is_locked: AtomicBool,
}

impl Clone for Broken {
    fn clone(&self) -> Self {
        let inner = match self.fault {
            Fault::ClonesEmpty => MemoryStorage::new(),
            _ => self.inner.clone(),
        };
        Self {
            inner,
            shelf: Arc::clone(&self.shelf),
            name: self.name.clone(),
            copies: Arc::clone(&self.copies),
            lock: Arc::clone(&self.lock),
            ..*self
        }
    }
}

fn failed() -> Error {
    Error::new(ErrorKind::Unavailable, "the medium fails")
}

impl Broken {
    /// Fails or waits as the fault and the medium want it.
    async fn works(&self) -> Result<()> {
        if self.fault == Fault::Hangs || self.shelf.is_locked.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.fault == Fault::Fails || self.shelf.fails.load(SeqCst) {
            return Err(failed());
        }
        Ok(())
    }

    async fn may_write(&self) -> Result<()> {
        if self.fault == Fault::WritesHang {
            std::future::pending::<()>().await;
        }
        self.works().await
    }

    /// Returns the record that is kept instead of this one.
    async fn kept(&self, key: Key, record: Record) -> Result<Record> {
        let mut payload = record.payload();
        match self.fault {
            Fault::CutsPayloads => payload.truncate(1 << 20),
            Fault::KeepsOldEnd => {
                let old = self.inner.read(key).await?.map(|old| old.payload()).unwrap_or_default();
                let end = old.slice(old.len().min(payload.len())..);
                payload = [payload, end].concat().into();
            }
            Fault::KeepsSeconds if !record.retain_until().is_never() => {
                let time = Timestamp::from_secs(record.retain_until().as_millis() / 1000);
                return Ok(record.with_retain_until(time));
            }
            _ => return Ok(record),
        }
        Ok(record.with_payload(payload))
    }
}

impl Storage for Broken {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        if self.fault == Fault::FailedReadIsAbsent && self.shelf.fails.load(SeqCst) {
            return Ok(None);
        }
        self.works().await?;
        if self.fault == Fault::DamageIsError && self.shelf.damaged.lock().unwrap().contains(&key) {
            return Err(Error::new(ErrorKind::Corrupt, "the bytes are not a record"));
        }
        let read = self.inner.read(key).await?;
        let mut copies = self.copies.lock().unwrap();
        match self.fault {
            Fault::KeepsCopies => Ok(copies.entry(key).or_insert(read).clone()),
            Fault::OldReadNow => {
                copies.entry(key).or_insert_with(|| read.clone());
                Ok(read)
            }
            Fault::NewStamps => Ok(read.map(|record| Record::new(record.payload(), record.retain_until()))),
            _ => Ok(read),
        }
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        if self.fault == Fault::FailedWriteRemoves && self.shelf.fails.load(SeqCst) {
            self.inner.delete(key).await?;
        }
        self.may_write().await?;
        if self.fault == Fault::KeepsCopies {
            self.copies.lock().unwrap().insert(key, Some(record.clone()));
        }
        let record = self.kept(key, record).await?;
        match self.fault {
            Fault::Forgets => Ok(()),
            _ => self.inner.write(key, record).await,
        }
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        self.works().await?;
        self.copies.lock().unwrap().remove(&key);
        if self.fault == Fault::KeepsLock {
            self.shelf.is_locked.store(true, SeqCst);
            tokio::task::yield_now().await;
            self.shelf.is_locked.store(false, SeqCst);
        }
        let deleted = self.inner.delete(key).await?;
        Ok(deleted || self.fault == Fault::DeletesAnything)
    }

    async fn clear(&self) -> Result<()> {
        self.works().await?;
        self.copies.lock().unwrap().clear();
        let opened: Vec<(String, MemoryStorage)> = self
            .shelf
            .opened
            .lock()
            .unwrap()
            .iter()
            .map(|(name, opened)| (name.clone(), opened.clone()))
            .collect();
        for (name, opened) in opened {
            if self.fault == Fault::ClearsByPrefix && name.starts_with(&self.name) {
                opened.clear().await?;
            }
        }
        self.inner.clear().await
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        let keys = stream::once(async move {
            self.works().await?;
            let mut keys: Vec<Key> = self.inner.keys().try_collect().await?;
            match self.fault {
                Fault::ListsTwice => keys.extend(keys.first().copied()),
                Fault::ListsFirstPage => keys.truncate(99),
                _ => {}
            }
            Ok(stream::iter(keys).map(Ok))
        });
        keys.try_flatten()
    }

    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        match self.fault {
            Fault::OldReadNow => self.copies.lock().unwrap().get(&key).cloned().map(Ok),
            _ => None,
        }
    }

    async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        let looked_at = match self.fault {
            Fault::LooksAtFirstKey => keys.len().min(1),
            _ => keys.len(),
        };
        for key in &keys[..looked_at] {
            if self.read(*key).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn stamps(&self, keys: &[Key]) -> Result<Vec<Option<(Stamp, Timestamp)>>> {
        self.works().await?;
        let mut keys = keys.to_vec();
        if self.fault == Fault::SortsStamps {
            keys.sort();
        }
        self.inner.stamps(&keys).await
    }

    fn change_count(&self, _: Key, _: Duration) -> Option<u64> {
        (self.fault == Fault::CountsNothing).then_some(7)
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.may_write().await?;
        let current = self.read(key).await?.map(|current| current.stamp());
        match self.fault {
            Fault::ComparesNothing => return self.write(key, record).await.map(|()| true),
            Fault::RefusesRepeatedWrite if current != seen => return Ok(false),
            Fault::LocksHandle => {
                let _guard = self.lock.lock().await;
                let current = self.read(key).await?.map(|current| current.stamp());
                tokio::task::yield_now().await;
                if current != Some(record.stamp()) && current != seen {
                    return Ok(false);
                }
                return self.write(key, record).await.map(|()| true);
            }
            _ => {}
        }
        if self.fault == Fault::KeepsCopies {
            self.copies.lock().unwrap().remove(&key);
        }
        match self.fault {
            Fault::Forgets => Ok(true),
            _ => {
                let record = self.kept(key, record).await?;
                self.inner.write_if(key, seen, record).await
            }
        }
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        self.works().await?;
        self.copies.lock().unwrap().clear();
        if self.fault == Fault::RetainsWithoutDirection {
            let (Retain::AtLeast(time) | Retain::AtMost(time)) = retain;
            self.inner.retain(keys, Retain::AtMost(time)).await?;
            return self.inner.retain(keys, Retain::AtLeast(time)).await;
        }
        self.inner.retain(keys, retain).await
    }

    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        self.works().await?;
        if self.fault != Fault::ExpiresHeadsOnly {
            return self.inner.delete_expired(now).await;
        }
        let mut deleted = 0;
        for key in self.inner.keys().try_collect::<Vec<Key>>().await? {
            let read = self.inner.read(key).await?;
            if key.kind == Kind::Head && read.is_some_and(|record| record.retain_until() <= now) {
                deleted += u64::from(self.inner.delete(key).await?);
            }
        }
        Ok(deleted)
    }

    fn max_record_len(&self) -> usize {
        match self.fault {
            Fault::AcceptsTooLong => 100_000,
            _ => self.inner.max_record_len(),
        }
    }

    fn hold(&self, chunk: Key, bytes: u64) -> Hold {
        match self.fault {
            Fault::HoldsNothing => Hold::default(),
            _ => self.inner.hold(chunk, bytes),
        }
    }

    async fn usage(&self) -> Result<Usage> {
        self.works().await?;
        self.inner.usage().await
    }

    async fn close(&self) -> Result<()> {
        match self.fault {
            Fault::CloseForgets => self.inner.clear().await,
            _ => Ok(()),
        }
    }
}

/// Opens storages with a fault, side by side.
struct Shelf<S> {
    fault: Fault,
    shared: Arc<Shared>,
    wrap: fn(Broken) -> S,
}

impl<S> Shelf<S> {
    fn new(fault: Fault, wrap: fn(Broken) -> S) -> Self {
        Self { fault, shared: Arc::default(), wrap }
    }

    fn broken(&self, name: String, inner: MemoryStorage) -> S {
        (self.wrap)(Broken {
            fault: self.fault,
            inner,
            shelf: Arc::clone(&self.shared),
            name,
            copies: Arc::default(),
            lock: Arc::default(),
        })
    }
}

impl<S: Storage> Harness for Shelf<S> {
    type Storage = S;

    async fn open(&self, name: &str) -> Result<S> {
        let name = match self.fault {
            Fault::ReadsLettersOfNames => name.chars().filter(char::is_ascii_alphanumeric).collect(),
            _ => name.to_owned(),
        };
        let inner = self.shared.opened.lock().unwrap().entry(name.clone()).or_default().clone();
        Ok(self.broken(name, inner))
    }

    fn shares(&self) -> bool {
        true
    }

    fn persists(&self) -> bool {
        true
    }

    async fn open_bounded(&self, max_bytes: u64) -> Option<S> {
        Some(self.broken(String::new(), MemoryStorage::builder().max_bytes(max_bytes).build()))
    }

    async fn damage(&self, _: &S, key: Key) -> bool {
        self.shared.damaged.lock().unwrap().insert(key);
        let opened: Vec<MemoryStorage> = self.shared.opened.lock().unwrap().values().cloned().collect();
        for opened in opened {
            opened.delete(key).await.unwrap();
        }
        true
    }

    async fn set_failing(&self, _: &S, fails: bool) -> bool {
        self.shared.fails.store(fails, SeqCst);
        true
    }
}

/// A storage with the five required methods and those that are named here. The trait provides the others.
macro_rules! five_methods {
    ($name:ident: $($own:item)*) => {
        #[derive(Clone)]
        struct $name(Broken);

        impl Storage for $name {
            async fn read(&self, key: Key) -> Result<Option<Record>> {
                self.0.read(key).await
            }

            async fn write(&self, key: Key, record: Record) -> Result<()> {
                self.0.write(key, record).await
            }

            async fn delete(&self, key: Key) -> Result<bool> {
                self.0.delete(key).await
            }

            async fn clear(&self) -> Result<()> {
                self.0.clear().await
            }

            fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
                self.0.keys()
            }

            $($own)*
        }
    };
}

five_methods! { ProvidedWriteIf:
    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        self.0.retain(keys, retain).await
    }

    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        self.0.delete_expired(now).await
    }
}

five_methods! { ProvidedRetain:
    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.0.write_if(key, seen, record).await
    }

    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        self.0.delete_expired(now).await
    }
}

five_methods! { ProvidedDeleteExpired:
    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.0.write_if(key, seen, record).await
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        self.0.retain(keys, retain).await
    }
}

/// Runs a case while the clock advances, and returns the message with which it failed.
async fn failure(name: &str, case: impl Future<Output = ()> + Send + 'static) -> Option<String> {
    let case = tokio::spawn(in_time("in a case", case));
    // The paused clock advances by itself only when all tasks are idle, and a case may never be idle.
    for _ in 0..1_000_000 {
        if case.is_finished() {
            let panic = case.await.err()?.into_panic();
            return Some(*panic.downcast::<String>().expect("a case fails with a text"));
        }
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_millis(20)).await;
    }
    panic!("the case {name} does not end");
}

type Case = Pin<Box<dyn Future<Output = ()> + Send>>;

type RunCase = fn(Shelf<Broken>) -> Case;

macro_rules! every_case {
    ([$($case:ident),* $(,)?]) => {
        vec![$((stringify!($case), (|shelf| Box::pin(async move { cases::$case(&shelf).await })) as RunCase)),*]
    };
}

/// Returns the names of the cases, and how each is run on a broken storage.
fn every_case() -> Vec<(&'static str, RunCase)> {
    contract_cases!(own every_case)
}

fn shelf(fault: Fault) -> Shelf<Broken> {
    Shelf::new(fault, |broken| broken)
}

/// Demands that a case fails with the number of this clause, what it says and what was found.
async fn demand_message(
    case: impl Future<Output = ()> + Send + 'static,
    what: &str,
    (clause, rule, found): (usize, &str, &str),
) {
    let message = failure(what, case).await.unwrap_or_else(|| panic!("{what} passes"));
    let (heading, details) = message.split_once('\n').unwrap();
    assert!(heading.contains(&format!("clause {clause} (")), "{what}: {message}");
    assert!(heading.contains(rule), "{what}: {message}");
    assert!(details.starts_with("  found: ") && details.contains(found), "{what}: {message}");
}

#[rustfmt::skip] // a table
const MESSAGES: [(Fault, &str, (usize, &str, &str)); 27] = [
    (Fault::CutsPayloads, "records_are_read_as_written", (1, "`read` returns the payload", "5242880 bytes came back as 1048576 bytes, which differ from byte 1048576 on")),
    (Fault::NewStamps, "records_are_read_as_written", (1, "`read` returns the stamp that was written", "a stamp is made anew")),
    (Fault::KeepsCopies, "second_handle_sees_every_change", (2, "in every process that shares the storage", "has a copy in memory")),
    (Fault::KeepsOldEnd, "write_replaces_whole_record", (3, "`write` replaces the whole record", "Some(\"x longer one\"), instead of Some(\"x\")")),
    (Fault::ComparesNothing, "write_if_compares_current_stamp", (4, "only if the current record has the stamp `seen`", "true with `seen` of None")),
    (Fault::RefusesRepeatedWrite, "write_if_accepts_repeated_write", (4, "already has the stamp of the new one", "false with `seen` of None")),
    (Fault::LocksHandle, "concurrent_write_if_has_one_winner", (4, "exactly one returns true", "2 of 32 return true")),
    (Fault::DeletesAnything, "delete_is_idempotent", (5, "returns whether there was a record", "true where there is no record")),
    (Fault::ClearsByPrefix, "clear_spares_other_caches", (6, "the records of this cache and of no other", "a prefix")),
    (Fault::ListsTwice, "keys_lists_every_kind_once", (7, "`keys` yields no key twice", "1 of 161 keys twice, such as the")),
    (Fault::ListsFirstPage, "keys_lists_every_kind_once", (7, "`keys` yields every key that exists", "61 of 160 keys are missing")),
    (Fault::KeepsSeconds, "retention_time_is_exact", (8, "at least until its retention time", "the time is kept in seconds")),
    (Fault::RetainsWithoutDirection, "retain_respects_its_direction", (9, "`AtLeast` never shortens", "without a comparison")),
    (Fault::ExpiresHeadsOnly, "delete_expired_removes_only_expired", (10, "the records of every kind", "1, instead of 3")),
    (Fault::ClonesEmpty, "clones_share_records", (11, "clones are handles to the same storage", "None")),
    (Fault::KeepsLock, "dropped_futures_are_atomic", (12, "`read` ends", "the storage hangs")),
    (Fault::AcceptsTooLong, "too_long_record_is_refused", (13, "is refused with `ErrorKind::TooLarge`", "`write` of a record one byte longer returns no error")),
    (Fault::DamageIsError, "damaged_bytes_are_absent", (14, "count as an absent record", "the bytes are not a record")),
    (Fault::ReadsLettersOfNames, "hostile_names_are_separate_or_refused", (15, "is accepted literally, or refused", "has records of the name")),
    (Fault::OldReadNow, "read_now_agrees_with_read", (16, "or what `read` would return", "after `write`, `read_now` returns no record")),
    (Fault::LooksAtFirstKey, "contains_all_of_existing_records", (17, "always notices a missing record, or never", "only the first or the last")),
    (Fault::HoldsNothing, "held_entry_is_evicted_last", (18, "is evicted after all others", "was evicted after")),
    (Fault::CloseForgets, "close_writes_all_changes", (19, "when `close` has returned", "nothing of a payload of 1000 bytes")),
    (Fault::SortsStamps, "stamps_agree_with_read", (20, "in the order of the keys", "instead of")),
    (Fault::CountsNothing, "changes_show_in_change_count", (21, "shows in `change_count`", "after `write` through another handle")),
    (Fault::FailedReadIsAbsent, "failed_reads_are_errors", (22, "no answer as though there were no record", "`read` returns no error")),
    (Fault::FailedWriteRemoves, "failed_changes_leave_old_or_new", (22, "the key has the old record or the new one", "after `write`, no record")),
];

#[tokio::test(start_paused = true)]
async fn message_names_the_broken_clause() {
    let cases = every_case();
    for (fault, name, expected) in MESSAGES {
        let (_, case) = cases.iter().find(|(case, _)| *case == name).expect("there is such a case");
        demand_message(case(shelf(fault)), &format!("{fault:?}, {name}"), expected).await;
    }
    for clause in 1..=22 {
        assert!(
            MESSAGES.iter().any(|(.., (broken, ..))| *broken == clause),
            "no storage breaks clause {clause}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn provided_method_on_shared_storage_is_found() {
    let write_if = || Shelf::new(Fault::Nothing, ProvidedWriteIf);
    for found in ["both return true", "one atomic operation of the engine"] {
        let case = async move { cases::processes_write_if_has_one_winner(&write_if()).await };
        demand_message(case, "the provided write_if", (4, "also if they come from two processes", found))
            .await;
    }
    let retain = Shelf::new(Fault::Nothing, ProvidedRetain);
    let case = async move { cases::processes_keep_each_others_changes(&retain).await };
    let kept = (9, "another process writes during `retain` is kept", "implement it yourself");
    demand_message(case, "the provided retain", kept).await;
    let delete_expired = Shelf::new(Fault::Nothing, ProvidedDeleteExpired);
    let case = async move { cases::processes_keep_each_others_changes(&delete_expired).await };
    let kept = (10, "another process writes during `delete_expired` is kept", "implement it yourself");
    demand_message(case, "the provided delete_expired", kept).await;
}

#[tokio::test(start_paused = true)]
async fn storage_without_fault_passes() {
    for (name, case) in every_case() {
        assert_eq!(failure(name, case(shelf(Fault::Nothing))).await, None, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_message_names_a_clause() {
    // The faults that fail most cases.
    let severe = [Fault::NewStamps, Fault::Hangs, Fault::WritesHang, Fault::Forgets, Fault::Fails];
    let cases = every_case();
    for fault in severe.into_iter().chain(MESSAGES.map(|(fault, ..)| fault)) {
        let mut failed = Vec::new();
        for (name, case) in &cases {
            if let Some(message) = failure(name, case(shelf(fault))).await {
                assert!(message.starts_with("clause "), "{fault:?}, {name}: {message}");
                failed.push(*name);
            }
        }
        if severe.contains(&fault) {
            assert!(
                failed.len() * 2 > cases.len() || fault == Fault::NewStamps,
                "{fault:?} fails only {failed:?}"
            );
            assert!(failed.contains(&"concurrent_increments_are_all_counted"), "{fault:?} passes");
        }
    }
}
