//! Two tiers over one far storage, in random schedules that are compared with a model.
//!
//! Every version of every record is noted when it takes effect in the far storage. A read is right if it returns a version
//! that was current within `max_lag` before it began, and none from before the last completed change by the same tier. Under a
//! signal it returns no version from before the last signalled change either.
//!
//! `TIERED_SEED=x` runs one seed only, and `TIERED_SEEDS=n` runs `n` seeds.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{FutureExt, Stream};
use tower_response_cache::storage::{
    Key, Kind, MemoryStorage, Record, Retain, Stamp, Storage, TieredStorage,
};
use tower_response_cache::{Clock, Error, ErrorKind, MockClock, Result, Timestamp};

const LAG: Duration = Duration::from_secs(1);
const SEEDS: u64 = 300;
const STEPS: usize = 300;
/// How many operations are under way at the same time.
const MAX_OPERATIONS: usize = 6;

const FIRST: Key = Key::head([1; 16]);
const CHUNK: Key = Key { entry: [1; 16], kind: Kind::Chunk, slot: [2; 16], part: 0 };
const KEYS: [Key; 6] = [
    FIRST,
    Key::head([2; 16]),
    CHUNK,
    Key { part: 1, ..CHUNK },
    Key { kind: Kind::Group, ..FIRST },
    Key { kind: Kind::Lease, ..FIRST },
];

type Tier = TieredStorage<Near, Far>;
type State = Option<(Stamp, Timestamp)>;
type Effect = Box<dyn FnOnce(&MemoryStorage) -> u64 + Send>;

/// A version of the record at a key. It ends when the next one begins.
struct Version {
    state: State,
    began: Timestamp,
}

/// A change that has reached the far storage. Versions are told apart by their index.
struct Done {
    tier: usize,
    name: &'static str,
    key: Key,
    version: usize,
}

/// The answers that one tier has received.
#[derive(Default)]
struct Told {
    has_signal: bool,
    /// How often the signal was lost or regained.
    flips: u64,
    regained_at: Option<Timestamp>,
    counts: HashMap<Key, u64>,
    /// The versions of the last signalled changes, and those at the last loss of the signal.
    shown: HashMap<Key, usize>,
    at_loss: HashMap<Key, usize>,
    /// The versions that this tier's own completed changes have led to.
    own: HashMap<Key, usize>,
}

struct Model {
    random: fastrand::Rng,
    history: HashMap<Key, Vec<Version>>,
    done: Vec<Done>,
    told: [Told; 2],
    /// Changes whose futures were dropped, or which have failed, and which may still take effect.
    late: Vec<(Vec<Key>, Effect)>,
    payloads: HashMap<Stamp, String>,
    written: Vec<(Key, Record)>,
    trace: Vec<String>,
}

/// The far storage as it is, and what is known about it.
struct World {
    far: MemoryStorage,
    clock: MockClock,
    /// Answers are late, and storages fail.
    has_faults: bool,
    model: Mutex<Model>,
}

impl World {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    fn chance(&self, one_in: u32) -> bool {
        self.model().random.u32(..one_in) == 0
    }

    /// Runs a change, notes the versions that it leads to, and signals it to all tiers but the one that makes it.
    fn change(&self, by: Option<(usize, &'static str)>, keys: &[Key], effect: Effect) -> u64 {
        let result = effect(&self.far);
        let mut model = self.model();
        let model = &mut *model;
        for &key in keys {
            let state = self.far.stamps(&[key]).now_or_never().unwrap().unwrap()[0];
            let versions = model.history.get_mut(&key).unwrap();
            if versions.last().unwrap().state != state {
                versions.push(Version { state, began: self.clock.now() });
                model.trace.push(format!("{by:?} {}: {state:?}", name_of(key)));
            }
            let version = versions.len() - 1;
            for (tier, told) in model.told.iter_mut().enumerate() {
                if by.is_none_or(|(by, _)| by != tier) {
                    *told.counts.entry(key).or_default() += 1;
                    told.shown.insert(key, version);
                }
            }
            if let Some((tier, name)) = by {
                model.done.push(Done { tier, name, key, version });
            }
        }
        result
    }

    /// Waits for a random number of polls, and then fails at random.
    async fn answer(&self) -> Result<()> {
        if !self.has_faults {
            return Ok(());
        }
        let polls = self.model().random.u32(..4);
        for _ in 0..polls {
            yield_once().await;
        }
        match self.chance(30) {
            true => Err(Error::new(ErrorKind::Unavailable, "scripted")),
            false => Ok(()),
        }
    }
}

fn name_of(key: Key) -> String {
    format!("{:?}{}{}", key.kind, key.entry[0], key.part)
}

async fn yield_once() {
    let mut has_yielded = false;
    std::future::poll_fn(|_| match std::mem::replace(&mut has_yielded, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// A change that has not reached the far storage. If it is dropped, it may reach it later.
struct Pending<'a> {
    world: &'a World,
    keys: Vec<Key>,
    effect: Option<Effect>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(effect) = self.effect.take() {
            let mut model = self.world.model();
            if model.random.bool() {
                model.late.push((std::mem::take(&mut self.keys), effect));
            }
        }
    }
}

/// The far storage as one tier sees it.
#[derive(Clone)]
struct Far {
    world: Arc<World>,
    tier: usize,
}

impl Far {
    async fn change(&self, name: &'static str, keys: &[Key], effect: Effect) -> Result<u64> {
        let mut pending = Pending { world: &self.world, keys: keys.to_vec(), effect: Some(effect) };
        self.world.answer().await?;
        let result = self.world.change(Some((self.tier, name)), keys, pending.effect.take().unwrap());
        drop(pending);
        self.world.answer().await?;
        Ok(result)
    }
}

/// Returns the result of a `MemoryStorage`, which never waits for these operations.
fn now<T>(operation: impl Future<Output = Result<T>>) -> T {
    operation.now_or_never().expect("memory does not wait").unwrap()
}

impl Storage for Far {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.world.answer().await?;
        let record = now(self.world.far.read(key));
        self.world.answer().await?;
        Ok(record)
    }

    async fn stamps(&self, keys: &[Key]) -> Result<Vec<State>> {
        self.world.answer().await?;
        let stamps = now(self.world.far.stamps(keys));
        self.world.answer().await?;
        Ok(stamps)
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        let effect = move |far: &MemoryStorage| {
            now(far.write(key, record));
            1
        };
        self.change("write", &[key], Box::new(effect)).await.map(|_| ())
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        let effect = move |far: &MemoryStorage| u64::from(now(far.write_if(key, seen, record)));
        self.change("write_if", &[key], Box::new(effect)).await.map(|written| written == 1)
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        let all = keys.to_vec();
        self.change("retain", keys, Box::new(move |far| now(far.retain(&all, retain)))).await
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        let deleted =
            self.change("delete", &[key], Box::new(move |far| u64::from(now(far.delete(key))))).await?;
        Ok(deleted == 1)
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        let all = keys.to_vec();
        self.change("delete_many", keys, Box::new(move |far| now(far.delete_many(&all)))).await
    }

    async fn delete_expired(&self, time: Timestamp) -> Result<u64> {
        let effect = move |far: &MemoryStorage| {
            let is_expired =
                |key: &Key| now(far.read(*key)).is_some_and(|found| found.retain_until() <= time);
            let expired: Vec<Key> = KEYS.into_iter().filter(is_expired).collect();
            now(far.delete_many(&expired))
        };
        self.change("delete_expired", &KEYS, Box::new(effect)).await
    }

    async fn clear(&self) -> Result<()> {
        self.change("clear", &KEYS, Box::new(|far| now(far.delete_many(&KEYS)))).await.map(|_| ())
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        self.world.far.keys()
    }

    fn change_count(&self, key: Key, _: Duration) -> Option<u64> {
        let model = self.world.model();
        let told = &model.told[self.tier];
        told.has_signal.then(|| told.counts.get(&key).copied().unwrap_or(0))
    }
}

/// A near storage that is late, fails, and loses what it was given.
#[derive(Clone)]
struct Near {
    world: Arc<World>,
    inner: MemoryStorage,
}

impl Storage for Near {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.world.answer().await?;
        let record = self.inner.read(key).await;
        self.world.answer().await?;
        record
    }

    fn read_now(&self, key: Key) -> Option<Result<Option<Record>>> {
        if self.world.has_faults && self.world.chance(3) { None } else { self.inner.read_now(key) }
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.world.answer().await?;
        if !self.world.has_faults || !self.world.chance(10) {
            self.inner.write(key, record).await?;
        }
        self.world.answer().await
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        self.world.answer().await?;
        self.inner.delete(key).await
    }

    async fn clear(&self) -> Result<()> {
        self.world.answer().await?;
        self.inner.clear().await
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        self.inner.keys()
    }
}

/// The versions that a tier knew of each key when one of its operations began.
struct Beginning {
    time: Timestamp,
    has_signal: bool,
    flips: u64,
    /// Copies that were compared without a signal may still be served without it.
    was_signalled_lately: bool,
    current: HashMap<Key, usize>,
    shown: HashMap<Key, usize>,
    at_loss: HashMap<Key, usize>,
    own: HashMap<Key, usize>,
    done: usize,
}

enum Answer {
    Record(Key, Result<Option<Record>>),
    AreThere(Vec<Key>, Result<bool>),
    Stamps(Vec<Key>, Result<Vec<State>>),
    Changed(Vec<Key>, &'static str, Result<()>),
}

struct Operation {
    tier: usize,
    beginning: Beginning,
    /// What it changes.
    change: Option<(Vec<Key>, &'static str)>,
    text: String,
    future: Pin<Box<dyn Future<Output = Answer>>>,
}

impl World {
    fn begin(&self, tier: usize) -> Beginning {
        let model = self.model();
        let told = &model.told[tier];
        let time = self.clock.now();
        Beginning {
            time,
            has_signal: told.has_signal,
            flips: told.flips,
            was_signalled_lately: told.regained_at.is_some_and(|at| time < at + LAG),
            current: model.history.iter().map(|(key, versions)| (*key, versions.len() - 1)).collect(),
            shown: told.shown.clone(),
            at_loss: told.at_loss.clone(),
            own: told.own.clone(),
            done: model.done.len(),
        }
    }

    /// Returns whether a tier may have returned a version with this state for an operation that began then.
    fn may_be(&self, tier: usize, then: &Beginning, key: Key, is_it: impl Fn(State) -> bool) -> bool {
        let model = self.model();
        let floor = |versions: &HashMap<Key, usize>| versions.get(&key).copied().unwrap_or(0);
        let versions = &model.history[&key];
        versions.iter().enumerate().any(|(index, version)| {
            let ended = versions.get(index + 1).map_or(Timestamp::NEVER, |next| next.began);
            let is_shown = index >= floor(&then.shown);
            let is_lost = !then.has_signal || model.told[tier].flips != then.flips;
            let is_within_lag = ended + LAG > then.time
                && (then.has_signal || then.was_signalled_lately || index >= floor(&then.at_loss));
            let is_leased = key.kind != Kind::Lease || index >= floor(&then.current);
            let is_current = is_shown && then.has_signal || is_lost && is_within_lag;
            is_it(version.state)
                && index >= floor(&then.own)
                && is_leased
                && (is_current || index >= floor(&then.current))
        })
    }

    fn check_record(&self, tier: usize, then: &Beginning, key: Key, record: Option<&Record>) {
        if let Some(record) = record {
            assert_eq!(
                self.model().payloads[&record.stamp()],
                record.payload(),
                "the payload of another record"
            );
        }
        let state = record.map(|record| (record.stamp(), record.retain_until()));
        assert!(
            self.may_be(tier, then, key, |found| found == state),
            "{}: {state:?} is too old",
            name_of(key)
        );
    }

    /// Notes that a change by a tier has ended.
    fn end_change(&self, tier: usize, then: &Beginning, keys: &[Key], name: &str, has_failed: bool) {
        let mut model = self.model();
        let model = &mut *model;
        for &key in keys {
            // The earliest that may have been this one. After an error, no copy from before the error is served.
            let done = model.done.iter().skip(then.done);
            let reached = done
                .filter(|done| (done.tier, done.name, done.key) == (tier, name, key))
                .map(|done| done.version);
            let version = match reached.min() {
                Some(version) if !has_failed => version,
                _ => model.history[&key].len() - 1,
            };
            let own = model.told[tier].own.entry(key).or_default();
            *own = version.max(*own);
        }
    }

    fn end(&self, operation: &Operation, answer: Answer) {
        let (tier, then) = (operation.tier, &operation.beginning);
        let has_faults = self.has_faults;
        let failed = |error: Error| assert!(has_faults, "{error}");
        match answer {
            Answer::Record(key, Ok(record)) => self.check_record(tier, then, key, record.as_ref()),
            Answer::AreThere(keys, Ok(true)) => {
                let is_there = |key: &Key| self.may_be(tier, then, *key, |state| state.is_some());
                assert!(keys.iter().all(is_there), "one of {keys:?} was absent");
            }
            Answer::AreThere(keys, Ok(false)) => {
                let is_absent = |key: &Key| self.may_be(tier, then, *key, |state| state.is_none());
                assert!(keys.iter().any(is_absent), "none of {keys:?} was absent");
            }
            Answer::Stamps(keys, Ok(stamps)) => {
                assert_eq!(keys.len(), stamps.len());
                for (key, state) in keys.iter().zip(stamps) {
                    assert!(self.may_be(tier, then, *key, |found| found == state), "the stamp of {key:?}");
                }
            }
            Answer::Changed(keys, name, result) => {
                self.end_change(tier, then, &keys, name, result.is_err());
                if let Err(error) = result {
                    failed(error);
                }
            }
            Answer::Record(_, Err(error))
            | Answer::AreThere(_, Err(error))
            | Answer::Stamps(_, Err(error)) => {
                failed(error);
            }
        }
    }

    fn random_key(&self) -> Key {
        KEYS[self.model().random.usize(..KEYS.len())]
    }

    fn random_keys(&self) -> Vec<Key> {
        KEYS.into_iter().filter(|_| self.chance(2)).collect()
    }

    fn random_time(&self) -> Timestamp {
        let mut model = self.model();
        match model.random.u32(..3) {
            0 => self.clock.now() + Duration::from_millis(model.random.u64(..3000)),
            _ => Timestamp::NEVER,
        }
    }

    fn random_retain(&self) -> Retain {
        let time = self.random_time();
        if self.chance(2) { Retain::AtLeast(time) } else { Retain::AtMost(time) }
    }

    /// Returns a new record.
    fn new_record(&self) -> Record {
        let until = self.random_time();
        let mut model = self.model();
        let padding = "x".repeat(model.random.usize(..300));
        let payload = format!("payload {} {padding}", model.payloads.len());
        let record = Record::new(payload.clone(), until);
        model.payloads.insert(record.stamp(), payload);
        record
    }

    /// Returns a new record, or seldom one that was written before.
    fn random_record(&self, key: Key) -> Record {
        let new = self.new_record();
        let mut model = self.model();
        let earlier =
            model.written.iter().rev().find(|(written, _)| *written == key).map(|(_, record)| record.clone());
        match earlier {
            Some(record) if model.random.u32(..10) == 0 => record,
            _ => {
                model.written.push((key, new.clone()));
                new
            }
        }
    }

    fn random_seen(&self, key: Key) -> Option<Stamp> {
        let mut model = self.model();
        let versions = model.history[&key].len();
        // The current record, the one before it, or none.
        let back = 1 + usize::from(model.random.u32(..3) == 0);
        let index = versions.checked_sub(back)?;
        model.history[&key][index].state.map(|(stamp, _)| stamp)
    }

    /// Changes the far storage as another process does.
    fn change_elsewhere(&self) {
        let key = self.random_key();
        let (record, retain) = (self.random_record(key), self.random_retain());
        let effect: Effect = match self.model().random.u32(..4) {
            0 => Box::new(move |far| u64::from(now(far.delete(key)))),
            1 => Box::new(move |far| now(far.retain(&[key], retain))),
            _ => Box::new(move |far| {
                now(far.write(key, record));
                1
            }),
        };
        self.change(None, &[key], effect);
    }

    fn flip_signal(&self, tier: usize) {
        let time = self.clock.now();
        let mut model = self.model();
        let told = &mut model.told[tier];
        told.has_signal = !told.has_signal;
        told.flips += 1;
        match told.has_signal {
            true => told.regained_at = Some(time),
            false => told.at_loss = told.shown.clone(),
        }
    }
}

/// Begins a random operation of a tier.
fn operation(world: &Arc<World>, tier: usize, storage: &Tier) -> Operation {
    let (key, keys) = (world.random_key(), world.random_keys());
    let storage = storage.clone();
    let beginning = world.begin(tier);
    let number = world.model().random.u32(..20);
    let changed = |keys: &[Key], name| Some((keys.to_vec(), name));
    type Begun = (Option<(Vec<Key>, &'static str)>, Pin<Box<dyn Future<Output = Answer>>>);
    let (change, future): Begun = match number {
        0..7 => (None, Box::pin(async move { Answer::Record(key, storage.read(key).await) })),
        7..9 => (None, Box::pin(async move { Answer::AreThere(vec![key], storage.contains(key).await) })),
        9..11 => (
            None,
            Box::pin(async move {
                let result = storage.contains_all(&keys).await;
                Answer::AreThere(keys, result)
            }),
        ),
        11 => (
            None,
            Box::pin(async move {
                let result = storage.stamps(&keys).await;
                Answer::Stamps(keys, result)
            }),
        ),
        12..14 => {
            let record = world.random_record(key);
            let future = async move { Answer::Changed(vec![key], "write", storage.write(key, record).await) };
            (changed(&[key], "write"), Box::pin(future))
        }
        14..16 => {
            let (record, seen) = (world.new_record(), world.random_seen(key));
            let future = async move {
                let result = storage.write_if(key, seen, record).await;
                Answer::Changed(vec![key], "write_if", result.map(|_| ()))
            };
            (changed(&[key], "write_if"), Box::pin(future))
        }
        16 => {
            let retain = world.random_retain();
            let change = changed(&keys, "retain");
            let future = async move {
                let result = storage.retain(&keys, retain).await;
                Answer::Changed(keys, "retain", result.map(|_| ()))
            };
            (change, Box::pin(future))
        }
        17 => {
            let future =
                async move { Answer::Changed(vec![key], "delete", storage.delete(key).await.map(|_| ())) };
            (changed(&[key], "delete"), Box::pin(future))
        }
        18 => {
            let change = changed(&keys, "delete_many");
            let future = async move {
                let result = storage.delete_many(&keys).await;
                Answer::Changed(keys, "delete_many", result.map(|_| ()))
            };
            (change, Box::pin(future))
        }
        _ => {
            let (time, clears) = (world.clock.now(), world.chance(2));
            let name = if clears { "clear" } else { "delete_expired" };
            let future = async move {
                let result = match clears {
                    true => storage.clear().await,
                    false => storage.delete_expired(time).await.map(|_| ()),
                };
                Answer::Changed(KEYS.to_vec(), name, result)
            };
            (changed(&KEYS, name), Box::pin(future))
        }
    };
    let text = format!("tier {tier}: {} {}", change.as_ref().map_or("read", |(_, name)| name), name_of(key));
    Operation { tier, beginning, change, text, future }
}

/// Polls an operation, and checks its answer if it has ended.
fn poll(world: &World, operation: &mut Operation) -> bool {
    match pin!(&mut operation.future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => {
            world.model().trace.push(format!("ended: {}", operation.text));
            world.end(operation, answer);
            true
        }
        Poll::Pending => false,
    }
}

/// Checks what a tier returns without waiting.
fn look(world: &World, tier: usize, storage: &Tier) {
    let then = world.begin(tier);
    let key = world.random_key();
    if let Some(record) = storage.read_now(key) {
        let record = record.unwrap();
        world.check_record(tier, &then, key, record.as_ref());
        let is_kept = record.is_none_or(|record| record.retain_until() > world.clock.now());
        assert!(is_kept, "an expired copy was served");
    }
    let mut chunks = [None, None];
    if storage.read_chunks_now(CHUNK, 1, &mut chunks) {
        for (part, payload) in (0..).zip(chunks) {
            let payload = payload.expect("there is room for both");
            let payloads = world.model().payloads.clone();
            let is_it = |state: State| state.is_some_and(|(stamp, _)| payload == payloads[&stamp]);
            assert!(world.may_be(tier, &then, Key { part, ..CHUNK }, is_it), "chunk {part} is too old");
        }
    }
}

/// Prints what was done before a failure.
struct Trace {
    seed: u64,
    world: Arc<World>,
}

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let model = self.world.model.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("TIERED_SEED={}\n{}", self.seed, model.trace.join("\n"));
        }
    }
}

/// Takes random steps.
fn run(seed: u64, has_faults: bool) {
    let (clock, mock) = Clock::mock();
    let mut random = fastrand::Rng::with_seed(seed);
    let bounds = [2 << 10, 16 << 10, 1 << 20];
    let bound = bounds[random.usize(..bounds.len())];
    let told = [(); 2].map(|()| Told { has_signal: random.bool(), ..Told::default() });
    let flips = random.bool();
    let start = || vec![Version { state: None, began: mock.now() }];
    let model = Model {
        random,
        history: KEYS.into_iter().map(|key| (key, start())).collect(),
        done: Vec::new(),
        told,
        late: Vec::new(),
        payloads: HashMap::new(),
        written: Vec::new(),
        trace: Vec::new(),
    };
    let far = MemoryStorage::new();
    let world = Arc::new(World { far, clock: mock.clone(), has_faults, model: Mutex::new(model) });
    let _trace = Trace { seed, world: Arc::clone(&world) };
    let tiers = [0, 1].map(|tier| {
        let near =
            Near { world: Arc::clone(&world), inner: MemoryStorage::builder().max_bytes(bound).build() };
        let far = Far { world: Arc::clone(&world), tier };
        TieredStorage::builder(near, far).max_lag(LAG).clock(clock.clone()).build()
    });
    let mut operations: Vec<Operation> = Vec::new();
    for _ in 0..STEPS {
        let (number, tier) = {
            let mut model = world.model();
            (model.random.u32(..24), model.random.usize(..2))
        };
        match number {
            0..6 if operations.len() < MAX_OPERATIONS => {
                let mut begun = operation(&world, tier, &tiers[tier]);
                world.model().trace.push(format!("begun: {}", begun.text));
                let mut is_done = poll(&world, &mut begun);
                while !has_faults && !is_done {
                    is_done = poll(&world, &mut begun);
                }
                if !is_done {
                    operations.push(begun);
                }
            }
            6..8 => look(&world, tier, &tiers[tier]),
            8 => {
                let millis = world.model().random.u64(1..700);
                mock.advance(Duration::from_millis(millis));
                world.model().trace.push(format!("{millis} ms later"));
            }
            9..11 => {
                world.change_elsewhere();
            }
            11 if flips => {
                world.model().trace.push(format!("signal of tier {tier} flipped"));
                world.flip_signal(tier);
            }
            12 => {
                let mut model = world.model();
                let len = model.late.len();
                if len > 0 {
                    let index = model.random.usize(..len);
                    let (keys, effect) = model.late.swap_remove(index);
                    drop(model);
                    world.change(None, &keys, effect);
                }
            }
            _ if operations.is_empty() => {}
            13 => {
                let index = world.model().random.usize(..operations.len());
                let Operation { tier, beginning, change, text, future } = operations.swap_remove(index);
                drop(future);
                world.model().trace.push(format!("dropped: {text}"));
                if let Some((keys, name)) = change {
                    world.end_change(tier, &beginning, &keys, name, false);
                }
            }
            _ => {
                let index = world.model().random.usize(..operations.len());
                if poll(&world, &mut operations[index]) {
                    drop(operations.swap_remove(index));
                }
            }
        }
    }
}

fn run_seeds(has_faults: bool) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    match number("TIERED_SEED") {
        Some(seed) => run(seed, has_faults),
        None => (0..number("TIERED_SEEDS").unwrap_or(SEEDS)).for_each(|seed| run(seed, has_faults)),
    }
}

#[test]
fn random_changes_are_seen_in_time() {
    run_seeds(false);
}

#[test]
fn late_answers_and_dropped_futures_hide_no_change() {
    run_seeds(true);
}
