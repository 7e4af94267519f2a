//! One run of the cache.
//!
//! Its setup and schedule come from a seed, and the outcome of each step is compared with the model.

use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Handle, Runtime};
use tower::{Layer, Service};
use tower_response_cache::storage::{BoxStorage, Kind, MemoryStorage, TieredStorage};
use tower_response_cache::{
    BodyError, Cache, CacheBody, CacheLayer, CacheStatus, Clock, EntryFilter, MockClock, Outcome,
    Result as StoreResult,
};

use super::demands::Demands;
use super::model::{
    Asked, CHUNK, Called, Checked, Contact, Control, Model, Moment, Setting, Version, Wish, violation,
};
use super::storage::{Happens, Manner, Scripted};
use crate::support::ReqBody;
use crate::support::task::Task;
use crate::support::upstream::{Call, Given, Sender, Upstream};

const HOUR: Duration = Duration::from_secs(3600);
/// The limit of concurrent requests. Further requests begin when others have ended.
const MOST_CALLERS: usize = 6;

/// The kind of a step. Its effect depends on what is possible at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Start,
    Poll,
    Background,
    Store,
    StoreOdd,
    Answer,
    Frame,
    End,
    Break,
    Read,
    Leave,
    Advance,
    Delete,
}

const KINDS: [(What, u32); 13] = [
    (What::Start, 12),
    (What::Poll, 26),
    (What::Background, 16),
    (What::Store, 22),
    (What::StoreOdd, 3),
    (What::Answer, 11),
    (What::Frame, 8),
    (What::End, 5),
    (What::Break, 1),
    (What::Read, 16),
    (What::Leave, 2),
    (What::Advance, 3),
    (What::Delete, 1),
];

/// A step, and the numbers by which it chooses among the possible effects.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub what: What,
    pub pick: u32,
    pub also: u32,
    /// Whether the step is skipped if it is not possible.
    ///
    /// Otherwise a step of another kind takes its place.
    pub is_exact: bool,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Everything is answered, and every caller reads to the end.
    Finished,
    /// All callers are dropped.
    Abandoned,
    /// The runtime is dropped with all its tasks, and so are the callers. Another runtime follows.
    NewRuntime,
}

/// The settings of one run.
#[derive(Clone, Debug)]
pub struct Setup {
    is_shared: bool,
    has_faults: bool,
    manner: Manner,
    lease: bool,
    reserves: bool,
    inline_bytes: Option<usize>,
    finish_on_drop: bool,
    stale_if_error: u64,
    /// Whether a call or body is held back at the end.
    ///
    /// All that does not depend on it has to end first.
    holds: bool,
    uris: usize,
    /// The number of kinds of callers. The first has no credentials, and each other one is a user.
    users: u8,
    langs: u8,
    varies: [bool; 3],
    has_tags: [bool; 3],
    /// The percentage of requests with a method or fields that matter to caches.
    wishes: u32,
    /// The percentage of responses with other directives than a `max-age` of a minute.
    oddities: u32,
    ending: Ending,
    /// Whether copies of the storage's records are kept in memory before it.
    pub tiers: bool,
}

impl Setup {
    /// Returns the setup and schedule of a seed.
    pub fn of(seed: u64, demands: Demands) -> (Self, Vec<Step>) {
        let mut random = Rng::with_seed(seed);
        let endings = [Ending::Finished, Ending::Finished, Ending::Abandoned, Ending::NewRuntime];
        let mut ending = endings[random.usize(..4)];
        if ending == Ending::NewRuntime && !demands.runtimes {
            ending = Ending::Abandoned;
        }
        let manner = Manner {
            is_instant: random.u8(..5) == 0,
            reads_at_once: random.u8(..3) == 0,
            keeps_bytes: random.bool(),
            inline_len: random.usize(..20),
        };
        let setup = Self {
            is_shared: random.bool(),
            has_faults: random.u8(..3) == 0,
            manner,
            lease: random.u8(..8) == 0,
            reserves: random.u8(..8) == 0 && demands.strict_followers,
            inline_bytes: random.bool().then(|| random.usize(..CHUNK)),
            finish_on_drop: random.u8(..8) == 0 && demands.finishing_at_shutdown,
            stale_if_error: if random.u8(..4) == 0 { 30 } else { 0 },
            holds: random.bool(),
            uris: [1, 1, 1, 2, 2, 3][random.usize(..6)],
            users: [1, 1, 3][random.usize(..3)],
            langs: random.u8(1..=2),
            varies: [random.bool(), random.bool(), random.bool()],
            has_tags: [random.u8(..4) > 0, random.u8(..4) > 0, random.bool()],
            wishes: [0, 30, 60][random.usize(..3)],
            oddities: [0, 40, 80][random.usize(..3)],
            ending,
            tiers: false,
        };
        // Schedules prefer different kinds of steps.
        let weights = KINDS.map(|(what, weight)| (what, weight * 4 * [1, 2, 4][random.usize(..3)] / 4));
        let all: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let len = random.usize(30..200);
        let steps = (0..len)
            .map(|_| {
                let mut at = random.u32(..all);
                let chosen = weights.iter().find(|(_, weight)| {
                    let is_it = at < *weight;
                    at = at.saturating_sub(*weight);
                    is_it
                });
                Step { what: chosen.unwrap().0, pick: random.u32(..), also: random.u32(..), is_exact: false }
            })
            .collect();
        (setup, steps)
    }
}

type Answered = io::Result<Response<CacheBody<Given>>>;
type Read = (CacheBody<Given>, Option<Result<Frame<Bytes>, BodyError>>);

/// A body that a caller reads.
struct Reading {
    next: Task<Read>,
    expected: Vec<u8>,
    got: usize,
    contact: usize,
    is_whole: bool,
}

/// A deletion by the handle.
struct Deleting {
    task: Task<StoreResult<u64>>,
    /// Whether it takes effect in this process even if the storage fails.
    is_sure: bool,
}

enum State {
    Waiting(Task<Answered>),
    Reading(Box<Reading>),
    Deleting(Deleting),
}

struct Caller {
    request: usize,
    /// The invalidations in the model that its request causes.
    invalidations: Vec<usize>,
    state: State,
}

impl Caller {
    /// Returns whether it waits for a response or a deletion, and reads no body.
    fn waits(&self) -> bool {
        !matches!(self.state, State::Reading(_))
    }

    fn is_woken(&self) -> bool {
        match &self.state {
            State::Waiting(task) => task.is_woken(),
            State::Deleting(deleting) => deleting.task.is_woken(),
            State::Reading(reading) => reading.next.is_woken(),
        }
    }
}

/// A body that the origin is sending.
struct Stream {
    sending: Sender,
    version: usize,
    rest: VecDeque<Bytes>,
}

/// The cache with its storage, origin and callers.
pub struct Life {
    setup: Setup,
    demands: Demands,
    storage: Scripted,
    origin: Upstream,
    layer: CacheLayer<BoxStorage>,
    service: Cache<Upstream, BoxStorage>,
    clock: MockClock,
    model: Model,
    callers: Vec<Caller>,
    /// The calls, in the order of their numbers in the model.
    calls: Vec<Call>,
    streams: Vec<Stream>,
    step: u64,
    /// Whether a caller was dropped before its end.
    has_left: bool,
    /// The steps that had an effect.
    taken: Vec<Step>,
    /// The trace, for the report.
    trace: Option<Vec<String>>,
}

/// The result of a run.
#[derive(Debug)]
pub struct Lived {
    pub checked: Checked,
    /// The steps that had an effect. Replayed, they have the same effects.
    pub taken: Vec<Step>,
    /// The trace, if it was requested.
    pub trace: Vec<String>,
}

/// Runs a whole schedule. A panic is a violation too.
pub fn live(setup: &Setup, steps: &[Step], demands: Demands, traces: bool) -> Lived {
    let mut life = Life::new(setup.clone(), demands, traces);
    let checked = panic::catch_unwind(AssertUnwindSafe(|| life.through(steps))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        violation("a panic", text.unwrap_or_default())
    });
    let (taken, trace) = (std::mem::take(&mut life.taken), life.trace.take().unwrap_or_default());
    Lived { checked, taken, trace }
}

/// After how long two levels notice what another process has changed.
const MAX_LAG: Duration = Duration::from_secs(10);

/// Returns the storage as the cache uses it.
fn opened(setup: &Setup, storage: &Scripted, clock: &Clock) -> BoxStorage {
    if !setup.tiers {
        return BoxStorage::new(storage.clone());
    }
    // The lag makes no difference to what this process does itself.
    let near = MemoryStorage::builder().max_bytes(64 * 1024).build();
    let mut builder = TieredStorage::builder(near, storage.clone()).clock(clock.clone()).max_lag(MAX_LAG);
    if !setup.has_faults {
        builder = builder.far_timeout(1000 * HOUR);
    }
    BoxStorage::new(builder.build())
}

fn runtime() -> Runtime {
    // Each yield runs one spawned task.
    Builder::new_current_thread().enable_time().start_paused(true).event_interval(1).build().unwrap()
}

impl Life {
    fn new(setup: Setup, demands: Demands, traces: bool) -> Self {
        let storage = Scripted::new(setup.manner);
        let (clock, mock) = Clock::mock();
        let mut builder =
            CacheLayer::builder(opened(&setup, &storage, &clock)).clock(clock).chunk_bytes(CHUNK);
        builder = builder.shared(setup.is_shared);
        if setup.lease {
            builder = builder.lease(Duration::from_secs(20));
        }
        builder = builder.reserve_on_miss(setup.reserves);
        if setup.stale_if_error > 0 {
            builder = builder.stale_if_error(Duration::from_secs(setup.stale_if_error));
        }
        builder = builder.finish_on_drop(setup.finish_on_drop);
        if let Some(len) = setup.inline_bytes {
            builder = builder.inline_bytes(len);
        }
        if !setup.has_faults {
            // The timeouts are so long that the storage is never too late.
            builder = builder.operation_timeout(1000 * HOUR).body_timeout(1000 * HOUR);
        }
        let layer = builder.build().unwrap();
        let origin = Upstream::default();
        let service = layer.layer(origin.clone());
        let setting = Setting {
            is_shared: setup.is_shared,
            stale_if_error: setup.stale_if_error,
            varies: setup.varies,
            demands,
        };
        let model = Model::new(setting);
        Self {
            setup,
            demands,
            storage,
            origin,
            layer,
            service,
            clock: mock,
            model,
            callers: Vec::new(),
            calls: Vec::new(),
            streams: Vec::new(),
            step: 0,
            has_left: false,
            taken: Vec::new(),
            trace: traces.then(Vec::new),
        }
    }

    fn through(&mut self, steps: &[Step]) -> Checked {
        let first = runtime();
        let note = format!("{:?}", self.setup);
        self.note(|| note);
        first.block_on(async {
            for step in steps {
                self.take(*step).await?;
            }
            match self.setup.ending {
                Ending::Finished => {
                    self.finish().await?;
                    self.rest().await
                }
                Ending::Abandoned => {
                    self.abandon(steps.len() as u32).await?;
                    self.rest().await
                }
                Ending::NewRuntime => Ok(()),
            }
        })?;
        if self.setup.ending != Ending::NewRuntime {
            return Ok(());
        }
        self.note(|| "the runtime goes".to_owned());
        // Some callers are dropped before the runtime, and others after it.
        if steps.len().is_multiple_of(2) {
            self.callers.retain(|caller| caller.request % 2 == 0);
        }
        drop(first);
        if steps.len().is_multiple_of(3) {
            self.without_runtime()?;
        }
        self.callers.clear();
        // Fetches and writes in progress are lost with the runtime.
        self.model.forget();
        runtime().block_on(async {
            self.observe()?;
            self.note(|| "a new runtime".to_owned());
            self.all_dropped(false)?;
            self.rest().await
        })
    }

    /// Goes on with bodies and starts new requests, outside of every runtime.
    fn without_runtime(&mut self) -> Checked {
        // A caller that waits may wait for a timer of the dropped runtime. So may a reader of a body, for the storage.
        let is_asked = self.storage.waiting() > 0 || self.setup.has_faults;
        self.callers.retain(|caller| !caller.waits() && !is_asked);
        self.model.forget();
        self.storage.recover();
        while self.storage.waiting() > 0 {
            self.store(0, Happens::Done);
        }
        for uri in 0..self.setup.uris {
            self.step += 1;
            self.ask(uri, 0, None, Wish::default())?;
        }
        for _ in 0..100 {
            self.step += 1;
            while let Some(number) = chosen(&self.callers, 0, Caller::is_woken) {
                self.poll(number)?;
            }
            self.observe()?;
            for call in 0..self.calls.len() {
                if self.calls[call].is_waiting() {
                    self.answer(call, 3);
                }
            }
            while !self.streams.is_empty() {
                self.end(0);
            }
        }
        match self.callers.iter().find(|caller| caller.waits()) {
            Some(caller) => violation(
                "a request does not end without a runtime",
                format!("request {} is not answered", caller.request),
            ),
            None => Ok(()),
        }
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        let step = self.step;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{step:4} {}", text()));
        }
    }

    fn now(&self) -> Moment {
        Moment::at(self.step, self.clock.now())
    }

    // --- steps -------------------------------------------------------------------------------------------------------

    async fn take(&mut self, step: Step) -> Checked {
        self.step += 1;
        // If no step of this kind is possible, a step of another kind is taken.
        let others =
            [What::Poll, What::Read, What::Store, What::Background, What::Answer, What::Frame, What::Start];
        let others = others.into_iter().filter(|_| !step.is_exact);
        let Some(what) = [step.what].into_iter().chain(others).find(|what| self.is_possible(*what)) else {
            return Ok(());
        };
        self.taken.push(Step { what, is_exact: true, ..step });
        let Step { pick, also, .. } = step;
        match what {
            What::Start => self.start(pick, also)?,
            What::Delete => self.start_delete(pick, also),
            What::Poll => {
                if let Some(number) = chosen(&self.callers, pick, |one| one.waits() && one.is_woken()) {
                    self.poll(number)?;
                }
            }
            What::Read => {
                if let Some(number) = chosen(&self.callers, pick, |one| !one.waits() && one.is_woken()) {
                    self.poll(number)?;
                }
            }
            What::Background => tokio::task::yield_now().await,
            What::Store => self.store(pick, Happens::Done),
            What::StoreOdd => self.store_odd(pick, also),
            What::Answer => {
                if let Some(call) = chosen(&self.calls, pick, Call::is_waiting) {
                    self.answer(call, also);
                }
            }
            What::Frame => {
                if let Some(stream) = chosen(&self.streams, pick, |stream| !stream.rest.is_empty()) {
                    self.send(stream);
                }
            }
            What::End => {
                if let Some(stream) = chosen(&self.streams, pick, |_| true) {
                    self.end(stream);
                }
            }
            What::Break => {
                if let Some(stream) = chosen(&self.streams, pick, |_| true) {
                    self.break_off(stream);
                }
            }
            What::Leave => {
                if let Some(number) = chosen(&self.callers, pick, |_| true) {
                    self.leave(number);
                }
            }
            What::Advance => {
                let millis = [20, 300, 1_000, 1_000, 2_000, 2_000, 5_000, 11_000, 40_000, 70_000];
                self.advance(Duration::from_millis(millis[pick as usize % millis.len()])).await;
            }
        }
        self.observe()
    }

    /// Returns whether a step of this kind is possible.
    fn is_possible(&self, what: What) -> bool {
        match what {
            What::Start => self.callers.len() < MOST_CALLERS,
            What::Delete | What::Advance => true,
            What::Poll => self.callers.iter().any(|one| one.waits() && one.is_woken()),
            What::Read => self.callers.iter().any(|one| !one.waits() && one.is_woken()),
            What::Background => Handle::current().metrics().num_alive_tasks() > 0,
            What::Store | What::StoreOdd => self.storage.waiting() > 0,
            What::Answer => self.calls.iter().any(Call::is_waiting),
            What::Frame => self.streams.iter().any(|stream| !stream.rest.is_empty()),
            What::End | What::Break => !self.streams.is_empty(),
            What::Leave => !self.callers.is_empty(),
        }
    }

    /// Records the new calls, and the calls and bodies that the cache has dropped.
    fn observe(&mut self) -> Checked {
        let now = self.now();
        for call in self.origin.calls() {
            let number = |name: &str| call.field(name).unwrap().parse().unwrap();
            let (owner, uri): (usize, usize) = (number("x-request"), call.path[1..].parse().unwrap());
            let called = Called {
                uri,
                owner,
                began: now,
                is_post: call.method == Method::POST,
                is_led: false,
                answered: None,
                contact: None,
                is_dropped: false,
            };
            let at = self.calls.len();
            self.note(|| format!("call {at}: {} of request {owner} {:?}", call.method, call.headers));
            self.calls.push(call);
            self.model.arrives(called)?;
        }
        for (number, call) in self.calls.iter().enumerate() {
            let called = &self.model.calls[number];
            if called.answered.is_none() && !called.is_dropped && !call.is_waiting() {
                self.model.gives_up(number, now.step);
            }
        }
        for gone in self.streams.extract_if(.., |stream| stream.sending.is_dropped()) {
            self.model.ends(gone.version, now);
        }
        self.storage.waiting();
        Ok(())
    }

    fn start(&mut self, pick: u32, also: u32) -> Checked {
        let mut random = Rng::with_seed(u64::from(pick) << 32 | u64::from(also));
        let uri = random.usize(..self.setup.uris);
        let mut wish = Wish::default();
        if random.u32(..100) < self.setup.wishes {
            match random.u8(..16) {
                0 | 1 => wish.is_head = true,
                2..=4 => {
                    let from = random.u64(..12);
                    wish.range = Some((from, from + random.u64(..20)));
                }
                5 | 6 => wish.max_age_zero = true,
                7 | 8 => wish.no_cache = true,
                9 | 10 => wish.only_if_cached = true,
                11 => {
                    let versions = &self.model.versions;
                    let known = chosen(versions, random.u32(..), |one| one.uri == uri && one.has_tag);
                    wish.has_version = known;
                }
                12 => (wish.is_post, wish.upgrades) = (true, self.demands.upgrades),
                _ => wish.is_post = true,
            }
        }
        let user = Some(random.u8(..self.setup.users)).filter(|user| *user > 0);
        self.ask(uri, random.u8(..self.setup.langs), user, wish)
    }

    fn ask(&mut self, uri: usize, lang: u8, user: Option<u8>, wish: Wish) -> Checked {
        let number = self.model.requests.len();
        let method = match wish {
            Wish { is_post: true, .. } => Method::POST,
            Wish { is_head: true, .. } => Method::HEAD,
            _ => Method::GET,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://example.com/{uri}"))
            .header("x-request", number)
            .header("lang", lang.to_string());
        if let Some(user) = user {
            request = request.header("authorization", format!("user {user}"));
        }
        if wish.upgrades {
            request = request.header("connection", "upgrade").header("upgrade", "other");
        }
        if let Some((from, to)) = wish.range {
            request = request.header("range", format!("bytes={from}-{to}"));
        }
        let says = [
            (wish.max_age_zero, "max-age=0"),
            (wish.no_cache, "no-cache"),
            (wish.only_if_cached, "only-if-cached"),
        ];
        for (_, word) in says.iter().filter(|(is_said, _)| *is_said) {
            request = request.header("cache-control", *word);
        }
        if let Some(version) = wish.has_version {
            request = request.header("if-none-match", tag(version));
        }
        let asked = Asked { uri, lang, user, wish, began: self.now(), over: None };
        self.note(|| format!("request {number} for {uri}, lang {lang}, user {user:?}: {wish}"));
        self.model.requests.push(asked);
        let future = self.service.call(request.body(ReqBody::default()).unwrap());
        let state = State::Waiting(Task::new(future));
        self.callers.push(Caller { request: number, invalidations: Vec::new(), state });
        Ok(())
    }

    /// Starts a deletion of what is stored for one URI, or for all.
    fn start_delete(&mut self, pick: u32, also: u32) {
        let handle = self.layer.handle();
        let uri = pick as usize % self.setup.uris;
        let (uris, task) = match also % 3 {
            0 => {
                let all = EntryFilter::new();
                (0..self.setup.uris, Task::new(async move { handle.delete_matching(&all).await }))
            }
            _ => {
                let url = format!("http://example.com/{uri}");
                (uri..uri + 1, Task::new(async move { handle.delete_url(&url).await }))
            }
        };
        // The model treats it as a POST that never reaches the origin.
        let number = self.model.requests.len();
        self.note(|| format!("request {number}: deletes {uris:?}"));
        let (began, wish) = (self.now(), Wish { is_post: true, ..Wish::default() });
        self.model.requests.push(Asked { uri, lang: 0, user: None, wish, began, over: None });
        let is_sure = !also.is_multiple_of(3);
        let is_certain = is_sure || self.demands.deletions_by_filter;
        let invalidations = uris.map(|uri| self.model.invalidates(uri, began, is_certain)).collect();
        let state = State::Deleting(Deleting { task, is_sure });
        self.callers.push(Caller { request: number, invalidations, state });
    }

    fn is_listing(&self) -> bool {
        let is_one = |caller: &Caller| matches!(&caller.state, State::Deleting(one) if !one.is_sure);
        self.callers.iter().any(is_one)
    }

    fn store(&mut self, pick: u32, happens: Happens) {
        let waiting = self.storage.waiting();
        if waiting > 0 {
            let text = self.storage.decide(pick as usize % waiting, happens);
            self.note(|| text);
        }
    }

    fn store_odd(&mut self, pick: u32, also: u32) {
        let lost = self.storage.lost();
        if !self.setup.has_faults {
            return self.store(pick, Happens::DoneInSilence);
        }
        if lost > 0 && also.is_multiple_of(3) {
            let text = self.storage.land(pick as usize % lost);
            return self.note(|| text);
        }
        let all = [
            Happens::Fails,
            Happens::FailsThoughDone,
            Happens::Panics,
            Happens::IsCutOff,
            Happens::DoneInSilence,
        ];
        let happens = match all[(also / 3) as usize % all.len()] {
            Happens::Panics if !self.demands.panics_in_listings && self.is_listing() => Happens::Fails,
            happens => happens,
        };
        if self.storage.waiting() > 0 && happens != Happens::DoneInSilence {
            self.model.forget();
        }
        self.store(pick, happens);
    }

    async fn advance(&mut self, by: Duration) {
        self.note(|| format!("{by:?} pass"));
        let is_asked = self.storage.waiting() > 0 || Handle::current().metrics().num_alive_tasks() > 0;
        let may_wait = is_asked || self.callers.iter().any(Caller::waits);
        if self.setup.has_faults && by >= Duration::from_millis(300) && may_wait {
            self.model.forget(); // the cache may have given up some of it after a timeout
        }
        self.clock.advance(by);
        self.model.passes(self.now());
        tokio::time::advance(by).await;
    }

    // --- the origin --------------------------------------------------------------------------------------------------

    fn answer(&mut self, number: usize, also: u32) {
        let mut random = Rng::with_seed(u64::from(also) + 7);
        let (now, called) = (self.now(), self.model.calls[number].clone());
        let odd = random.u8(..100);
        if odd < 4 {
            self.note(|| format!("call {number} fails"));
            self.calls[number].fail();
            return self.model.answers(number, now, None);
        }
        if called.is_post {
            return self.answer_post(number, &mut random);
        }
        let control = self.control(&mut random);
        let call = &self.calls[number];
        let is_head = call.method == Method::HEAD;
        let wanted = call.field("range").map(ToOwned::to_owned);
        let tags = call.field("if-none-match").unwrap_or_default().to_owned();
        let lang = call.field("lang").unwrap().parse().unwrap();
        let user = call.field("authorization").map(|user| user[5..].parse().unwrap());
        let named = |version: usize| tags.split(", ").any(|named| named == tag(version));
        let known = self.model.versions.iter().enumerate().rev();
        let is_usual = |one: &Version| one.uri == called.uri && one.has_tag && one.user == user;
        let confirmed = known.clone().find(|(number, one)| is_usual(one) && named(*number));
        let latest = known.clone().find(|(_, one)| is_usual(one) && one.lang == lang && one.status == 200);
        let confirmed = match is_head {
            true if random.bool() => latest,
            _ if !is_head && random.u8(..10) < 6 => confirmed,
            _ => None,
        };
        let confirmed = confirmed.map(|(version, _)| version);
        let status = match (confirmed, odd) {
            (Some(_), _) if !is_head => 304,
            (None, 4..12) => 500,
            _ => 200,
        };
        let version =
            confirmed.unwrap_or_else(|| self.new_version(called.uri, status, (lang, user), &mut random));
        let mut contact = Contact {
            version,
            uri: called.uri,
            owner: called.owner,
            lang,
            user,
            control: if status == 500 { Control::default() } else { control },
            began: called.began,
            answered: now,
            is_get: !is_head,
            is_part: false,
            is_led: called.is_led,
            is_confirmed: confirmed.is_some(),
            is_refresh: self.is_refresh(number),
            received: None,
            whole: None,
        };
        let mut headers = HeaderMap::new();
        let mut add = |name: &'static str, value: String| {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
        };
        let of = self.model.versions[version].clone();
        add("x-contact", self.model.contacts.len().to_string());
        if status != 304 {
            add("x-version", version.to_string());
        }
        // The response to a HEAD without an ETag would confirm whatever is stored (RFC 9111 §4.3.5).
        if of.has_tag || is_head {
            add("etag", tag(version));
        }
        if status != 500 {
            add("cache-control", control.text());
        }
        if self.setup.varies[called.uri] {
            add("vary", "lang".to_owned());
        }
        let has_body = !is_head && status != 304;
        let (mut code, mut sent) = (status, of.body.clone());
        if let Some(wanted) = wanted.filter(|_| status == 200 && random.u8(..4) > 0)
            && has_body
        {
            let (from, to) = wanted.trim_start_matches("bytes=").split_once('-').unwrap();
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
            if from < sent.len() {
                let end = (to + 1).min(sent.len());
                add("content-range", format!("bytes {from}-{}/{}", end - 1, sent.len()));
                sent = sent[from..end].to_vec();
                (code, contact.is_part) = (206, true);
            }
        }
        if is_head && of.len.is_some() {
            add("content-length", of.body.len().to_string());
        }
        let mut known_len = None;
        if has_body {
            if let Some(len) = of.len {
                add("content-length", if code == 206 { sent.len() } else { len }.to_string());
                known_len = random.bool().then_some(sent.len() as u64);
            }
            if of.is_contradicted {
                add("transfer-encoding", "chunked".to_owned());
            }
        } else {
            known_len = Some(0);
        }
        let contact_number = self.model.contacts.len();
        self.note(|| {
            let (len, said) = (len_of(&of), control.text());
            format!("call {number}: {code}, contact {contact_number} of version {version} ({len}): {said}")
        });
        self.model.contacts.push(contact);
        let (sending, given) = Sender::new(known_len);
        self.calls[number].respond(code, headers, given);
        self.model.answers(number, now, Some(contact_number));
        if is_head && code == 200 {
            // It may invalidate what is stored, for as long as its request is under way.
            let disturbance = self.model.invalidates(called.uri, now, false);
            match self.callers.iter_mut().find(|caller| caller.request == called.owner) {
                Some(caller) => caller.invalidations.push(disturbance),
                None => self.model.invalidations[disturbance].is_abandoned = true,
            }
        }
        if !has_body {
            return;
        }
        let pieces = [sent.len().max(1), 1, 3, CHUNK, 2 * CHUNK][random.usize(..5)];
        let rest = sent.chunks(pieces).map(Bytes::copy_from_slice).collect();
        self.streams.push(Stream { sending, version, rest });
        if random.bool() {
            let stream = self.streams.len() - 1;
            while !self.streams[stream].rest.is_empty() {
                self.send(stream);
            }
            if random.bool() {
                self.end(stream);
            }
        }
    }

    fn answer_post(&mut self, number: usize, random: &mut Rng) {
        let (now, called) = (self.now(), self.model.calls[number].clone());
        let status = [200, 200, 204, 303, 500][random.usize(..5)];
        let mut ended = vec![called.uri];
        let mut headers = HeaderMap::new();
        if random.u8(..4) == 0 {
            let other = random.usize(..self.setup.uris);
            headers.insert("location", HeaderValue::from_str(&format!("/{other}")).unwrap());
            ended.push(other);
            ended.dedup();
        }
        self.note(|| format!("call {number}: {status} {headers:?}"));
        let (_, given) = Sender::new(Some(0));
        self.calls[number].respond(status, headers, given);
        self.model.calls[number].answered = Some(now);
        if status < 400 {
            for uri in ended {
                let gone = self.model.invalidates(uri, now, true);
                let caller = self.callers.iter_mut().find(|caller| caller.request == called.owner).unwrap();
                caller.invalidations.push(gone);
            }
        }
    }

    fn control(&self, random: &mut Rng) -> Control {
        let mut control = Control { max_age: Some(60), ..Control::default() };
        if random.u32(..100) >= self.setup.oddities {
            return control;
        }
        match random.u8(..14) {
            0 => control.no_store = true,
            1 => control.no_cache = true,
            2 => control.private = true,
            3 => control.public = true,
            4 => (control.max_age, control.must_revalidate) = (Some(2), true),
            5 => (control.max_age, control.stale_while_revalidate) = (Some(1), 30),
            6 => control.max_age = Some(0),
            7 => (control.max_age, control.public) = (Some(1), true),
            8..11 => control.max_age = Some(2),
            _ => control.max_age = Some(1),
        }
        if !self.demands.stale_for_only_if_cached {
            control.stale_while_revalidate = 0;
        }
        control
    }

    fn new_version(
        &mut self,
        uri: usize,
        status: u16,
        (lang, user): (u8, Option<u8>),
        random: &mut Rng,
    ) -> usize {
        let number = self.model.versions.len();
        let len = [0, 3, CHUNK, 13, 2 * CHUNK, 30][random.usize(..6)];
        // These bytes reveal any mixture of two versions, and any truncation.
        let body: Vec<u8> = (0..len).map(|at: usize| (number * 37 + at * 11 + 1) as u8).collect();
        let has_len = random.bool();
        let is_contradicted = self.demands.contradicted_lengths && has_len && random.u8(..20) == 0 && len > 3;
        let announced = if is_contradicted { len / 2 } else { len };
        self.model.versions.push(Version {
            uri,
            status,
            body,
            has_tag: self.setup.has_tags[uri] && status == 200,
            len: has_len.then_some(announced),
            is_contradicted,
            is_broken: false,
            lang,
            user,
        });
        number
    }

    fn send(&mut self, stream: usize) {
        let Stream { sending, version, rest } = &mut self.streams[stream];
        let (version, Some(piece)) = (*version, rest.pop_front()) else { return };
        sending.data(piece);
        self.note(|| format!("a frame of version {version}"));
    }

    /// Sends the rest of a body, and its end.
    fn end(&mut self, stream: usize) {
        while !self.streams[stream].rest.is_empty() {
            self.send(stream);
        }
        let mut ended = self.streams.remove(stream);
        ended.sending.end();
        self.note(|| format!("the end of version {}", ended.version));
    }

    fn break_off(&mut self, stream: usize) {
        let mut broken = self.streams.remove(stream);
        broken.sending.break_off();
        let version = &mut self.model.versions[broken.version];
        version.is_broken = true;
        let uri = version.uri;
        self.model.parts(uri, self.step);
        self.note(|| format!("version {} breaks off", broken.version));
    }

    // --- callers -----------------------------------------------------------------------------------------------------

    fn leave(&mut self, number: usize) {
        let caller = self.callers.remove(number);
        let request = caller.request;
        self.has_left = true;
        self.note(|| format!("request {request} goes away"));
        self.model.is_over(request, self.now());
        for gone in &caller.invalidations {
            let gone = &mut self.model.invalidations[*gone];
            gone.is_abandoned |= gone.completed.is_none();
        }
        let uri = self.model.requests[request].uri;
        drop(caller);
        self.model.parts(uri, self.step);
    }

    /// Polls a caller, and checks what it got.
    fn poll(&mut self, number: usize) -> Checked {
        let request = self.callers[number].request;
        match &mut self.callers[number].state {
            State::Waiting(task) => {
                let Some(answered) = one_poll(task) else { return Ok(()) };
                self.observe()?;
                self.has_answer(number, answered)
            }
            State::Deleting(Deleting { task, is_sure }) => {
                let is_sure = *is_sure;
                if let Some(deleted) = one_poll(task) {
                    self.note(|| format!("request {request} is done: {deleted:?}"));
                    if !is_sure && (deleted.is_err() || !self.demands.deletions_by_filter) {
                        let gone = self.callers[number].invalidations.clone();
                        gone.into_iter().for_each(|gone| self.model.has_not_invalidated(gone));
                    }
                    self.is_over(number);
                }
                Ok(())
            }
            State::Reading(reading) => match one_poll(&mut reading.next) {
                Some((body, frame)) => self.has_frame(number, body, frame),
                None => Ok(()),
            },
        }
    }

    /// Removes a caller that is done, and completes its invalidations.
    fn is_over(&mut self, number: usize) {
        let caller = self.callers.remove(number);
        self.complete(&caller);
        self.model.is_over(caller.request, self.now());
    }

    fn complete(&mut self, caller: &Caller) {
        for gone in &caller.invalidations {
            if self.model.invalidations[*gone].completed.is_none() {
                self.model.has_invalidated(*gone, self.now());
            }
        }
    }

    fn has_answer(&mut self, number: usize, answered: Answered) -> Checked {
        let request = self.callers[number].request;
        let asked = self.model.requests[request].clone();
        let response = match answered {
            Ok(response) => response,
            Err(_) => {
                self.note(|| format!("request {request} fails"));
                let own = self.model.calls.iter().filter(|call| call.owner == request);
                let has_failed = own.clone().any(|call| call.answered.is_some() && call.contact.is_none());
                self.is_over(number);
                return match has_failed {
                    true => Ok(()),
                    false => violation(
                        "an unexpected error",
                        format!("request {request} fails though its call did not"),
                    ),
                };
            }
        };
        let status = *response.body().status().unwrap();
        let (head, body) = response.into_parts();
        self.note(|| {
            format!("request {request}: {} {status} {:?} {:?}", head.status, status.outcome(), head.headers)
        });
        if asked.wish.is_post {
            self.is_over(number);
            return Ok(());
        }
        if status.outcome() == Outcome::Refused {
            self.is_over(number);
            return self.model.check_refusal(request, self.now());
        }
        let number_in = |name: &str| -> Option<usize> { head.headers.get(name)?.to_str().ok()?.parse().ok() };
        let stale = match status.outcome() {
            Outcome::Stale(reason) => Some(reason),
            _ => None,
        };
        // A 304 or 416 that the cache made itself has only the fields that it needs, so no number of a contact.
        let range = head.headers.get("content-range").and_then(|range| range.to_str().ok());
        let len = range.and_then(|range| range.strip_prefix("bytes */")?.parse().ok());
        let claimed = number_in("x-contact").or_else(|| {
            self.model.allowed(request, stale, |number, version| match head.status.as_u16() {
                304 => asked.wish.has_version == Some(number),
                416 => len == Some(version.body.len()) && asked.wish.range.is_some(),
                _ => false,
            })
        });
        let Some(contact) = claimed else {
            return violation(
                "a response that the origin did not give",
                format!("request {request}: {head:?}"),
            );
        };
        self.model.receives(contact, self.now());
        self.model.check_answer(request, contact, stale)?;
        if let Some(age) = number_in("age").filter(|_| number_in("x-contact").is_some()) {
            self.model.check_age(request, contact, age as u64, self.now())?;
        }
        let version = self.model.contacts[contact].version;
        if number_in("x-version").is_some_and(|named| named != version) {
            return violation("a head of several versions", format!("request {request}: {head:?}"));
        }
        let code = head.status.as_u16();
        let may_be_not_modified = asked.wish.has_version == Some(version);
        let is_right = match code {
            200 | 500 => code == self.model.versions[version].status,
            206 | 416 => asked.wish.range.is_some(),
            304 => may_be_not_modified,
            _ => false,
        };
        if !is_right {
            return violation("a wrong status", format!("request {request}: {head:?}"));
        }
        let expected = self.model.expected(request, version, &head.headers, code);
        // The response to its own call is passed on as it is, even with a wrong length.
        let is_own = self.model.contacts[contact].owner == request && !status.is_hit();
        let whole = self.model.versions[version].body.len();
        let is_another = |len: Option<usize>, right: usize| len.is_some_and(|len| len != right);
        let of_range = range.and_then(|range| range.rsplit('/').next()?.parse().ok());
        let is_wrong = match code {
            200 if asked.wish.is_head => is_another(number_in("content-length"), whole),
            200 => is_another(number_in("content-length"), expected.len()),
            206 => is_another(number_in("content-length"), expected.len()) || is_another(of_range, whole),
            _ => false,
        };
        if !is_own && is_wrong {
            return violation("a wrong length", format!("request {request}: {head:?}"));
        }
        self.settles(&asked, contact, code, &status);
        let caller = &mut self.callers[number];
        let ended = Caller {
            request,
            invalidations: std::mem::take(&mut caller.invalidations),
            state: State::Reading(Box::new(Reading {
                next: next_frame(body),
                expected,
                got: 0,
                contact,
                is_whole: code == 200 && !asked.wish.is_head,
            })),
        };
        self.complete(&ended);
        self.callers[number].state = ended.state;
        self.model.is_over(request, self.now());
        self.note_end(number, false)
    }

    /// Settles a response that the origin has confirmed, once a caller has its head.
    fn settles(&mut self, asked: &Asked, contact: usize, code: u16, status: &CacheStatus) {
        if status.is_revalidated() && code == 200 && !asked.wish.is_head {
            self.model.has_whole(contact, self.now());
        }
    }

    fn has_frame(
        &mut self,
        number: usize,
        body: CacheBody<Given>,
        frame: Option<Result<Frame<Bytes>, BodyError>>,
    ) -> Checked {
        let now = self.now();
        let Caller { request, state: State::Reading(reading), .. } = &mut self.callers[number] else {
            unreachable!("the caller reads")
        };
        let request = *request;
        let version = self.model.contacts[reading.contact].version;
        let of = &self.model.versions[version];
        match frame {
            None => {
                self.note(|| format!("request {request} is at the end"));
                self.note_end(number, true)
            }
            Some(Err(error)) => {
                let waited = now.time - self.model.requests[request].began.time;
                let may_fail = of.is_broken
                    || self.model.is_faulty
                    || (!self.demands.bodies_on_their_way && self.model.may_be_ended(version))
                    || (of.is_contradicted && !self.demands.contradicted_lengths)
                    || (self.setup.has_faults && waited > 9_000);
                self.note(|| format!("request {request}: {error}"));
                self.model.ends(version, now);
                self.is_over(number);
                match may_fail {
                    true => Ok(()),
                    false => violation(
                        "a body broke off",
                        format!("request {request}, version {version}: {error}"),
                    ),
                }
            }
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                let rest = reading.expected.get(reading.got..).unwrap_or_default();
                if !rest.starts_with(&data) {
                    let text = format!("request {request}, version {version}: {data:?} is not in {rest:?}");
                    return violation("a body of several versions", text);
                }
                reading.got += data.len();
                let is_end = body.is_end_stream();
                reading.next = next_frame(body);
                let got = reading.got;
                self.note(|| format!("request {request} has {got} bytes"));
                self.note_end(number, is_end)
            }
        }
    }

    /// Records what a reader has got, and removes it if its body has ended.
    fn note_end(&mut self, number: usize, is_end: bool) -> Checked {
        let now = self.now();
        let Caller { request, state: State::Reading(reading), .. } = &self.callers[number] else {
            unreachable!("the caller reads")
        };
        let (request, contact) = (*request, reading.contact);
        let version = &self.model.versions[self.model.contacts[contact].version];
        let has_all = reading.got == reading.expected.len();
        // Most callers stop reading at the announced length.
        let has_its_length = version.len.is_some() && !version.is_contradicted && reading.got > 0;
        if has_all && reading.is_whole && (is_end || has_its_length) && !version.is_broken {
            self.model.has_whole(contact, now);
        }
        if !is_end {
            return Ok(());
        }
        self.is_over(number);
        match has_all {
            true => Ok(()),
            false => violation("a body is incomplete", format!("request {request}")),
        }
    }

    // --- the end -----------------------------------------------------------------------------------------------------

    /// Runs everything that needs neither the origin nor the clock, until nothing moves.
    async fn settle(&mut self) -> Checked {
        let mut quiet = 0;
        for _ in 0..10_000 {
            self.step += 1;
            let mut moves = false;
            while self.storage.waiting() > 0 {
                self.store(0, Happens::Done);
                moves = true;
            }
            for number in (0..self.callers.len()).rev() {
                let is_woken = self.callers[number].is_woken();
                if is_woken {
                    self.poll(number)?;
                    moves = true;
                }
            }
            for _ in 0..=Handle::current().metrics().num_alive_tasks() {
                tokio::task::yield_now().await;
            }
            self.observe()?;
            quiet = if moves { 0 } else { quiet + 1 };
            if quiet == 3 {
                return Ok(());
            }
        }
        violation("the cache does not come to rest", "something goes on for ever")
    }

    /// Holds back one call or body, and checks that all else ends.
    ///
    /// Only what depends on the call or body may wait.
    async fn hold(&mut self) -> Checked {
        let pick = self.step as u32;
        let call = chosen(&self.calls, pick, Call::is_waiting);
        let version = chosen(&self.streams, pick, |_| true).map(|stream| self.streams[stream].version);
        let (call, version) = match pick % 2 {
            0 => (call, None),
            _ => (None, version),
        };
        self.note(|| format!("held back: call {call:?}, version {version:?}"));
        let mut silent = 0;
        while silent < 60 {
            self.settle().await?;
            let calls = (0..self.calls.len()).filter(|number| self.calls[*number].is_waiting());
            let calls: Vec<usize> = calls.filter(|number| Some(*number) != call).collect();
            let streams: Vec<usize> = (0..self.streams.len())
                .rev()
                .filter(|number| Some(self.streams[*number].version) != version)
                .collect();
            let is_quiet = calls.is_empty() && streams.is_empty();
            for stream in streams {
                self.end(stream);
            }
            for call in calls {
                self.answer(call, 1000 + call as u32);
            }
            if is_quiet {
                silent += 1;
                self.advance(Duration::from_secs(1)).await;
            }
        }
        let waits = |caller: &&Caller| match &caller.state {
            State::Reading(reading) => Some(self.model.contacts[reading.contact].version) != version,
            State::Deleting(_) => true,
            State::Waiting(_) => call.is_none_or(|call| self.model.calls[call].owner != caller.request),
        };
        match self.callers.iter().find(waits) {
            Some(caller) => violation(
                "a request waits for an unrelated one",
                format!("request {} waits for another's", caller.request),
            ),
            None => Ok(()),
        }
    }

    /// Answers every call and lets time pass, until every request has ended.
    async fn finish(&mut self) -> Checked {
        self.storage.recover();
        if std::mem::take(&mut self.setup.holds) {
            self.hold().await?;
        }
        self.note(|| "everything is answered".to_owned());
        for _ in 0..100 {
            self.settle().await?;
            let calls = self.calls.iter().enumerate().filter(|(_, call)| call.is_waiting());
            let calls: Vec<usize> = calls.map(|(number, _)| number).collect();
            let streams = self.streams.len();
            if self.callers.is_empty() && streams == 0 && calls.is_empty() {
                return Ok(());
            }
            for &call in &calls {
                self.answer(call, 1000 + call as u32);
            }
            while !self.streams.is_empty() {
                self.end(0);
            }
            if calls.is_empty() && streams == 0 {
                self.advance(Duration::from_secs(1)).await;
            }
        }
        let waiting: Vec<usize> = self.callers.iter().map(|caller| caller.request).collect();
        violation("a request does not end", format!("requests {waiting:?} wait though all is answered"))
    }

    /// Drops all callers, and checks that no work for them is left.
    async fn abandon(&mut self, pick: u32) -> Checked {
        self.note(|| "all go away".to_owned());
        if pick.is_multiple_of(2) {
            self.storage.recover();
        }
        while !self.callers.is_empty() {
            self.step += 1;
            self.leave(self.callers.len() - 1);
            self.observe()?;
        }
        self.storage.recover();
        self.settle().await?;
        if !self.setup.finish_on_drop {
            self.all_dropped(true)?;
        }
        // Background refreshes may go on for a time.
        for _ in 0..40 {
            self.advance(Duration::from_secs(1)).await;
            self.settle().await?;
        }
        if self.setup.finish_on_drop {
            return self.finish().await;
        }
        self.all_dropped(false)
    }

    /// Returns whether a call is, or may be, a background refresh.
    fn is_refresh(&self, call: usize) -> bool {
        let called = &self.model.calls[call];
        let over = self.model.requests[called.owner].over;
        self.model.may_be_refreshed(called.uri) || over.is_some_and(|over| over.step < called.began.step)
    }

    /// Checks that no call or body is left without a caller.
    ///
    /// With `but_refreshes`, background refreshes may still be under way.
    fn all_dropped(&self, but_refreshes: bool) -> Checked {
        let is_left = |call: &Call| call.is_waiting();
        let mut calls = (0..self.calls.len()).filter(|number| is_left(&self.calls[*number]));
        if let Some(number) = calls.find(|number| !but_refreshes || !self.is_refresh(*number)) {
            return violation("a fetch goes on without a caller", format!("call {number} is waited for"));
        }
        let is_wrong = |stream: &&Stream| {
            let uri = self.model.versions[stream.version].uri;
            let mut contacts = self.model.contacts.iter().filter(|one| one.uri == uri);
            let of_first = self.model.contacts.iter().find(|one| one.uri == uri).map(|one| one.version);
            let is_refresh = contacts.any(|one| one.version == stream.version && one.is_refresh);
            // Any response but the first may have been fetched to replace a stored one.
            let is_left_out = of_first != Some(stream.version) && !self.demands.leaving_while_validating;
            !(but_refreshes && (is_refresh || is_left_out))
        };
        match self.streams.iter().find(is_wrong) {
            Some(stream) => violation(
                "a body is read without a caller",
                format!("version {} is being read", stream.version),
            ),
            None => Ok(()),
        }
    }

    /// Checks that nothing is left once all is idle.
    async fn rest(&mut self) -> Checked {
        self.storage.recover();
        self.settle().await?;
        // Leaves time for retries of pending invalidations.
        for _ in 0..10 {
            self.advance(Duration::from_secs(1)).await;
            self.settle().await?;
        }
        let layer = self.layer.clone();
        let mut idle = Task::new(async move { layer.idle().await });
        idle.poll();
        if !idle.is_done() {
            return violation("the cache is not idle", "something is under way when all is quiet");
        }
        let alive = Handle::current().metrics().num_alive_tasks();
        if alive > 0 {
            return violation("a task is left", format!("{alive} tasks are left"));
        }
        let shown = format!("{:?}", self.layer);
        if shown.contains("flights:") && !shown.contains("flights: 0") {
            return violation("a flight is left", shown);
        }
        let now = self.clock.now();
        let is_lease = |kind| kind == Kind::Lease;
        let leases = self.storage.keys_now().into_iter();
        if leases.filter(|(key, until)| is_lease(key.kind) && *until > now).count() > 0
            && !self.model.is_faulty
            && (self.demands.leaving_with_leases || !self.has_left)
        {
            return violation("a lease is left", "a lease is left");
        }
        self.forgotten().await?;
        self.clock.advance(60 * 24 * HOUR);
        let left =
            tower_response_cache::storage::Storage::delete_expired(&self.storage, self.clock.now()).await;
        left.unwrap();
        match self.storage.keys_now().len() {
            0 => Ok(()),
            left => violation("a record is left", format!("{left} records stay for ever")),
        }
    }

    /// Empties the storage, as another process does. Two levels may notice that only after the lag.
    async fn empty(&mut self) {
        self.storage.empty();
        if self.setup.tiers {
            self.advance(MAX_LAG).await;
        }
    }

    /// Empties the storage, and checks that nothing in the process still answers for it.
    ///
    /// The next response must be stored.
    async fn forgotten(&mut self) -> Checked {
        self.note(|| "the storage is emptied".to_owned());
        self.empty().await;
        self.model.forget();
        for uri in 0..self.setup.uris {
            for (lang, user) in [(0, None), (1, None), (0, Some(1)), (1, Some(2))] {
                self.step += 1;
                let wish = Wish { only_if_cached: true, ..Wish::default() };
                self.ask(uri, lang, user, wish)?;
                let hits = self.layer.statistics().hits() + self.layer.statistics().stale();
                self.settle().await?;
                if self.layer.statistics().hits() + self.layer.statistics().stale() > hits {
                    return violation(
                        "a record that is not in the storage",
                        format!("{uri} is answered, and nothing is stored"),
                    );
                }
            }
            // Responses may have been stored meanwhile.
            self.finish().await?;
            self.empty().await;
        }
        self.advance(Duration::from_secs(61)).await;
        self.setup.oddities = 0;
        for uri in 0..self.setup.uris {
            for round in 0..2 {
                self.step += 1;
                let calls = self.calls.len();
                self.ask(uri, 0, None, Wish::default())?;
                self.settle().await?;
                let is_fetched = self.calls.len() > calls;
                if round == 0 && !is_fetched {
                    return violation(
                        "a record that is not in the storage",
                        format!("{uri} is answered, and nothing is stored"),
                    );
                }
                if round == 1 && is_fetched {
                    return violation("not stored", format!("{uri} was read, and is not found"));
                }
                for call in calls..self.calls.len() {
                    // This number gives a plain response.
                    self.answer(call, 3);
                }
                self.finish().await?;
            }
        }
        Ok(())
    }
}

fn len_of(version: &Version) -> String {
    format!("{} bytes {:?}", version.body.len(), version.len)
}

fn tag(version: usize) -> String {
    format!("\"v{version}\"")
}

fn next_frame(mut body: CacheBody<Given>) -> Task<Read> {
    Task::new(async move {
        let frame = body.frame().await;
        (body, frame)
    })
}

/// Polls a task once. Returns its result if it is done.
fn one_poll<T>(task: &mut Task<T>) -> Option<T> {
    task.poll();
    // `run` does not poll a task that is done, and only returns its result.
    if task.is_done() { task.run() } else { None }
}

/// Returns the index of one of the items that `is_open` accepts, chosen by `pick`.
fn chosen<T>(all: &[T], pick: u32, is_open: impl Fn(&T) -> bool) -> Option<usize> {
    let open: Vec<usize> = (0..all.len()).filter(|number| is_open(&all[*number])).collect();
    if open.is_empty() { None } else { Some(open[pick as usize % open.len()]) }
}
