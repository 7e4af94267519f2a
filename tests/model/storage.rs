//! A storage whose every operation waits until the schedule decides its fate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{Stream, stream};
use tokio::sync::oneshot;
use tower_response_cache::storage::{Key, Kind, Record, Retain, Stamp, Storage};
use tower_response_cache::{Error, ErrorKind, Result, Timestamp};

/// An operation of the storage.
#[derive(Clone, Debug)]
pub enum Operation {
    Read(Key),
    Write(Key, Record),
    WriteIf(Key, Option<Stamp>, Record),
    Delete(Vec<Key>),
    Retain(Vec<Key>, Retain),
    ContainsAll(Vec<Key>),
}

/// The answer to an operation.
#[derive(Debug)]
enum Reply {
    Record(Option<Record>),
    Done,
    Bool(bool),
    Count(u64),
}

enum Fate {
    Reply(Result<Reply>),
    Panic,
}

/// An operation that its caller waits for.
struct Waiting {
    operation: Operation,
    /// The answer, if the operation is done and not yet acknowledged.
    done: Option<Reply>,
    answer: oneshot::Sender<Fate>,
}

/// How the storage behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Every operation completes at once, and `read_now` answers.
    pub is_instant: bool,
    /// Reads complete at once. Changes wait.
    pub reads_at_once: bool,
    /// Records are kept as bytes, as a server does.
    pub keeps_bytes: bool,
    /// The length up to which a body is stored within its response's record.
    pub inline_len: usize,
}

#[derive(Default)]
struct State {
    records: BTreeMap<Key, (Record, Timestamp)>,
    waiting: Vec<Waiting>,
    /// Operations that are never answered. They may be carried out long after their callers have given up.
    lost: Vec<Waiting>,
    /// Whether new operations complete at once.
    is_well: bool,
    /// The random ids of variants and bodies, in the order of their first use.
    slots: Vec<[u8; 16]>,
}

#[derive(Clone)]
pub struct Scripted {
    manner: Manner,
    state: Arc<Mutex<State>>,
}

/// The fate of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happens {
    /// It succeeds, and its caller gets the result.
    Done,
    /// It succeeds, and its caller gets the result later.
    DoneInSilence,
    /// It fails, and its caller gets an error.
    Fails,
    /// It succeeds, and its caller gets an error.
    FailsThoughDone,
    /// It panics.
    Panics,
    /// It is never answered.
    IsCutOff,
}

thread_local! {
    /// Set during a scripted panic, so that the panic hook does not print it.
    pub static SCRIPTED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Scripted {
    pub fn new(manner: Manner) -> Self {
        Self { manner, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns the number of operations that wait.
    pub fn waiting(&self) -> usize {
        let mut state = self.lock();
        let State { waiting, lost, .. } = &mut *state;
        // A caller that gives up does not cancel its operation.
        for dropped in waiting.extract_if(.., |one| one.answer.is_closed()) {
            if dropped.done.is_none() {
                lost.push(dropped);
            }
        }
        waiting.len()
    }

    /// Decides the fate of a waiting operation. Returns a description of it.
    pub fn decide(&self, number: usize, happens: Happens) -> String {
        let mut state = self.lock();
        let mut one = state.waiting.remove(number);
        let text = format!("{happens:?}: {}", state.name(&one.operation));
        let error = || Error::new(ErrorKind::Unavailable, "scripted");
        let fate = match happens {
            Happens::Done => Fate::Reply(Ok(match one.done.take() {
                Some(done) => done,
                None => state.apply(&one.operation, self.manner),
            })),
            Happens::FailsThoughDone => {
                if one.done.is_none() {
                    state.apply(&one.operation, self.manner);
                }
                Fate::Reply(Err(error()))
            }
            Happens::Fails => Fate::Reply(Err(error())),
            Happens::Panics => Fate::Panic,
            Happens::DoneInSilence => {
                if one.done.is_none() {
                    one.done = Some(state.apply(&one.operation, self.manner));
                }
                state.waiting.push(one);
                return text;
            }
            Happens::IsCutOff => {
                state.lost.push(one);
                return text;
            }
        };
        drop(state);
        let _ = one.answer.send(fate); // its caller may have been dropped
        text
    }

    /// Returns the number of operations that were neither answered nor carried out.
    pub fn lost(&self) -> usize {
        self.lock().lost.iter().filter(|one| one.done.is_none()).count()
    }

    /// Carries out an operation that was never answered. Returns a description of it.
    pub fn land(&self, number: usize) -> String {
        let mut state = self.lock();
        let open = state.lost.iter().enumerate().filter(|(_, one)| one.done.is_none());
        let Some(at) = open.map(|(at, _)| at).nth(number) else { return String::new() };
        let operation = state.lost[at].operation.clone();
        let name = state.name(&operation);
        let done = state.apply(&operation, self.manner);
        state.lost[at].done = Some(done);
        format!("lands late: {name}")
    }

    /// Completes every new operation at once from now on.
    ///
    /// Operations that already wait, or were never answered, stay so.
    pub fn recover(&self) {
        self.lock().is_well = true;
    }

    /// Removes all records behind the cache's back.
    pub fn empty(&self) {
        self.lock().records.clear();
    }

    pub fn keys_now(&self) -> Vec<(Key, Timestamp)> {
        self.lock().records.iter().map(|(key, (_, until))| (*key, *until)).collect()
    }

    async fn run(&self, operation: Operation) -> Result<Reply> {
        let answer = {
            let mut state = self.lock();
            let is_read = matches!(operation, Operation::Read(_) | Operation::ContainsAll(_));
            if self.manner.is_instant || state.is_well || (is_read && self.manner.reads_at_once) {
                return Ok(state.apply(&operation, self.manner));
            }
            let (answer, answered) = oneshot::channel();
            state.waiting.push(Waiting { operation, done: None, answer });
            answered
        };
        match answer.await {
            Ok(Fate::Reply(reply)) => reply,
            Ok(Fate::Panic) => {
                SCRIPTED.set(true);
                panic!("scripted");
            }
            Err(_) => std::future::pending().await,
        }
    }
}

impl Operation {
    fn keys(&self) -> (&'static str, &[Key]) {
        match self {
            Self::Read(key) => ("read", std::slice::from_ref(key)),
            Self::Write(key, _) => ("write", std::slice::from_ref(key)),
            Self::WriteIf(key, ..) => ("write_if", std::slice::from_ref(key)),
            Self::Delete(keys) => ("delete", keys),
            Self::Retain(keys, _) => ("retain", keys),
            Self::ContainsAll(keys) => ("contains_all", keys),
        }
    }
}

impl State {
    /// Returns a description of the operation, the same in every run of the schedule.
    fn name(&mut self, operation: &Operation) -> String {
        let (name, keys) = operation.keys();
        let mut text = name.to_owned();
        for key in keys {
            let number = self.slots.iter().position(|slot| *slot == key.slot).unwrap_or_else(|| {
                self.slots.push(key.slot);
                self.slots.len() - 1
            });
            text += &match key.kind {
                Kind::Head => format!(" {:02x} head", key.entry[0]),
                kind => format!(" {:02x} {kind:?} {number}/{}", key.entry[0], key.part),
            };
        }
        text
    }

    fn apply(&mut self, operation: &Operation, manner: Manner) -> Reply {
        match operation {
            Operation::Read(key) => Reply::Record(self.read(*key)),
            Operation::Write(key, record) => {
                self.write(*key, record, manner);
                Reply::Done
            }
            Operation::WriteIf(key, seen, record) => {
                let there = self.records.get(key).map(|(there, _)| there.stamp());
                if there == Some(record.stamp()) {
                    return Reply::Bool(true);
                }
                if there == *seen {
                    self.write(*key, record, manner);
                }
                Reply::Bool(there == *seen)
            }
            Operation::Delete(keys) => {
                Reply::Count(keys.iter().filter(|key| self.records.remove(key).is_some()).count() as u64)
            }
            Operation::Retain(keys, retain) => {
                let mut there = 0;
                for key in keys {
                    if let Some((_, until)) = self.records.get_mut(key) {
                        *until = retain.apply(*until);
                        there += 1;
                    }
                }
                Reply::Count(there)
            }
            Operation::ContainsAll(keys) => {
                Reply::Bool(keys.iter().all(|key| self.records.contains_key(key)))
            }
        }
    }

    fn read(&self, key: Key) -> Option<Record> {
        self.records.get(&key).map(|(record, until)| record.clone().with_retain_until(*until))
    }

    fn write(&mut self, key: Key, record: &Record, manner: Manner) {
        let kept = match manner.keeps_bytes {
            true => Record::from_bytes(record.to_bytes()).unwrap(),
            false => record.clone(),
        };
        self.records.insert(key, (kept, record.retain_until()));
    }
}

impl Storage for Scripted {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        match self.run(Operation::Read(key)).await? {
            Reply::Record(record) => Ok(record),
            other => unreachable!("{other:?}"),
        }
    }
    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.run(Operation::Write(key, record)).await.map(drop)
    }
    async fn delete(&self, key: Key) -> Result<bool> {
        Ok(self.delete_many(&[key]).await? > 0)
    }
    async fn clear(&self) -> Result<()> {
        self.empty();
        Ok(())
    }
    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        stream::iter(self.keys_now().into_iter().map(|(key, _)| Ok(key)))
    }
    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        let state = self.lock();
        (self.manner.is_instant || state.is_well).then(|| Ok(state.read(key)))
    }
    async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        match self.run(Operation::ContainsAll(keys.to_vec())).await? {
            Reply::Bool(all) => Ok(all),
            other => unreachable!("{other:?}"),
        }
    }
    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        match self.run(Operation::WriteIf(key, seen, record)).await? {
            Reply::Bool(written) => Ok(written),
            other => unreachable!("{other:?}"),
        }
    }
    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        match self.run(Operation::Retain(keys.to_vec(), retain)).await? {
            Reply::Count(count) => Ok(count),
            other => unreachable!("{other:?}"),
        }
    }
    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        match self.run(Operation::Delete(keys.to_vec())).await? {
            Reply::Count(count) => Ok(count),
            other => unreachable!("{other:?}"),
        }
    }
    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        let mut state = self.lock();
        let before = state.records.len();
        state.records.retain(|_, (_, until)| *until > now);
        Ok((before - state.records.len()) as u64)
    }
    fn inline_len(&self) -> usize {
        self.manner.inline_len
    }
}
