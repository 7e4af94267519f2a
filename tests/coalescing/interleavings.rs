//! All orders of the steps of several requests, the storage and the origin.
//!
//! In some runs, one request is dropped at any step. A request is polled only when it was woken, so that a lost wake-up
//! shows as a request that never ends. Each run replays a list of choices and then takes the first possible step. The
//! next run changes the last choice that has an alternative, until there is none.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tower_response_cache::storage::{Key, MemoryStorage, Record, Stamp, Storage};
use tower_response_cache::{CacheLayerBuilder, Result};

use super::world::{Got, Sender, World};
use crate::support::forward::forward;
use crate::support::task::Task;

/// A storage whose reads and writes each wait until the test releases them.
#[derive(Clone)]
struct Gated {
    inner: MemoryStorage,
    gates: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
}

impl Gated {
    fn new() -> Self {
        Self { inner: MemoryStorage::new(), gates: Arc::default() }
    }

    async fn pass(&self) {
        let (open, opened) = oneshot::channel();
        self.gates.lock().unwrap().push(open);
        let _ = opened.await;
    }

    /// Returns the number of operations that wait.
    fn waiting(&self) -> usize {
        let mut gates = self.gates.lock().unwrap();
        gates.retain(|gate| !gate.is_closed());
        gates.len()
    }

    fn open(&self, number: usize) {
        let _ = self.gates.lock().unwrap().remove(number).send(());
    }
}

impl Storage for Gated {
    forward!(inner: delete, clear, keys, retain);

    async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.pass().await;
        self.inner.read(key).await
    }
    async fn write(&self, key: Key, record: Record) -> Result<()> {
        self.pass().await;
        self.inner.write(key, record).await
    }
    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        self.pass().await;
        self.inner.write_if(key, seen, record).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Poll(usize),
    Drop(usize),
    /// Releases an operation of the storage.
    Open(usize),
    /// Sends a head from the origin.
    Head(usize),
    /// Sends the body.
    Data,
    /// Ends the body.
    End,
    /// Lets time pass, at most once while other steps are possible.
    Wait,
}

/// The requests of a run.
#[derive(Clone, Copy)]
enum Callers {
    /// This many requests to one cache.
    OneCache(usize),
    /// This many caches with a lease and one request each.
    ///
    /// They share only the storage, so the order of their polls does not matter. A woken request is polled at once.
    CacheEach(usize),
}

struct Run {
    worlds: Vec<World<Gated>>,
    store: Gated,
    tasks: Vec<Option<Task<io::Result<Got>>>>,
    bodies: Vec<(Sender, bool)>,
    may_drop: bool,
    waits: usize,
}

impl Run {
    fn new(callers: Callers, may_drop: bool) -> Self {
        let store = Gated::new();
        // Without No-Vary-Search, whose one more read on a miss would multiply the orders.
        let (worlds, tasks): (Vec<_>, Vec<_>) = match callers {
            Callers::OneCache(many) => {
                let world = World::on(store.clone(), |builder| builder.no_vary_search(false));
                let tasks = world.herd(many, &[]);
                (vec![world], tasks)
            }
            Callers::CacheEach(many) => {
                let settings = |builder: CacheLayerBuilder<Gated>| {
                    builder.no_vary_search(false).lease(Duration::from_secs(9))
                };
                let world = |_| World::on(store.clone(), settings);
                (0..many)
                    .map(world)
                    .map(|world| (world.ask(&[]), world))
                    .map(|(task, world)| (world, task))
                    .unzip()
            }
        };
        let tasks = tasks.into_iter().map(Some).collect();
        Self { worlds, store, tasks, bodies: Vec::new(), may_drop, waits: 0 }
    }

    fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        let tasks = self.tasks.iter().enumerate().filter_map(|(number, task)| Some((number, task.as_ref()?)));
        for (number, task) in tasks {
            if task.is_woken() && self.worlds.len() > 1 {
                return vec![Step::Poll(number)];
            }
            if task.is_woken() {
                steps.push(Step::Poll(number));
            }
            if self.may_drop && !task.is_done() {
                steps.push(Step::Drop(number));
            }
        }
        steps.extend((0..self.store.waiting()).map(Step::Open));
        let asked = self.worlds.iter().enumerate().filter(|(_, world)| world.upstream.waiting() > 0);
        steps.extend(asked.map(|(number, _)| Step::Head(number)));
        self.bodies.retain(|(sender, _)| !sender.is_dropped());
        if let Some((_, sent)) = self.bodies.first() {
            steps.push(if *sent { Step::End } else { Step::Data });
        }
        let is_open = |task: &Option<Task<_>>| task.as_ref().is_some_and(|task| !task.is_done());
        let most_waits = if steps.iter().all(|step| matches!(step, Step::Drop(_))) { 50 } else { 1 };
        if self.worlds.len() > 1 && self.tasks.iter().any(is_open) && self.waits < most_waits {
            steps.push(Step::Wait);
        }
        steps
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Poll(number) => self.tasks[number].as_mut().unwrap().poll(),
            Step::Drop(number) => {
                self.tasks[number] = None;
                self.may_drop = false;
            }
            Step::Open(number) => self.store.open(number),
            Step::Head(number) => {
                let call = self.worlds[number].upstream.call();
                if !call.is_dropped() {
                    self.bodies.push((call.head(200, &[("cache-control", "max-age=60")]), false));
                }
            }
            Step::Data => {
                self.bodies[0].0.data("body");
                self.bodies[0].1 = true;
            }
            Step::End => drop(self.bodies.remove(0)),
            Step::Wait => {
                self.waits += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        // Lets spawned tasks run.
        for _ in 0..2 {
            tokio::task::yield_now().await;
        }
    }

    /// Takes steps until only drops are possible.
    ///
    /// `choose` gets the number of possible steps and returns the index of one.
    async fn through(mut self, most_calls: impl Fn(bool) -> usize, mut choose: impl FnMut(usize) -> usize) {
        let mut trace = Vec::new();
        loop {
            let steps = self.steps();
            if steps.iter().all(|step| matches!(step, Step::Drop(_))) {
                break;
            }
            let step = steps[choose(steps.len())];
            trace.push(step);
            self.take(step).await;
        }
        let dropped = trace.iter().any(|step| matches!(step, Step::Drop(_)));
        self.check(most_calls(dropped), &trace);
    }

    /// Checks the results after the last step.
    fn check(mut self, most_calls: usize, trace: &[Step]) {
        for task in self.tasks.iter_mut().flatten() {
            let got = task.run().unwrap_or_else(|| panic!("a request never ends: {trace:?}")).unwrap();
            assert_eq!(got.body.unwrap(), "body", "{trace:?}");
        }
        let calls: usize = self.worlds.iter().map(|world| world.upstream.count()).sum();
        assert!(calls <= most_calls, "{calls} calls: {trace:?}");
        for world in &self.worlds {
            assert!(format!("{:?}", world.layer).contains("flights: 0"), "a flight is left: {trace:?}");
        }
    }
}

/// Runs all orders, and returns their number.
async fn all(callers: Callers, may_drop: bool, most_calls: impl Fn(bool) -> usize) -> usize {
    let mut choices: Vec<usize> = Vec::new();
    let mut runs = 0;
    loop {
        let mut widths = Vec::new();
        let choose = |width| {
            let depth = widths.len();
            if depth == choices.len() {
                choices.push(0);
            }
            widths.push(width);
            choices[depth]
        };
        Run::new(callers, may_drop).through(&most_calls, choose).await;
        runs += 1;
        choices.truncate(widths.len());
        while let Some(last) = choices.pop() {
            if last + 1 < widths[choices.len()] {
                choices.push(last + 1);
                break;
            }
        }
        if choices.is_empty() {
            return runs;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_requests_make_one_fetch_in_every_order() {
    let runs = all(Callers::OneCache(2), false, |_| 1).await;
    println!("{runs} orders of two requests");
    assert!(runs > 100);
}

#[tokio::test(start_paused = true)]
async fn dropped_request_leaves_other_intact_in_every_order() {
    // A request that arrives after the only waiting one was dropped fetches again.
    let runs = all(Callers::OneCache(2), true, |dropped| 1 + usize::from(dropped)).await;
    println!("{runs} orders of two requests of which one is dropped");
    assert!(runs > 1000);
}

#[tokio::test(start_paused = true)]
async fn two_processes_make_one_fetch_in_every_order() {
    let runs = all(Callers::CacheEach(2), false, |_| 1).await;
    println!("{runs} orders of two processes");
    assert!(runs > 500);
}

#[tokio::test(start_paused = true)]
async fn dropped_process_leaves_other_intact_in_every_order() {
    let runs = all(Callers::CacheEach(2), true, |dropped| 1 + usize::from(dropped)).await;
    println!("{runs} orders of two processes of which one gives up");
    assert!(runs > 1000);
}

#[tokio::test(start_paused = true)]
async fn many_requests_complete_in_random_orders() {
    let seed = std::env::var("ORDERS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("ORDERS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for callers in [Callers::OneCache(3), Callers::OneCache(5), Callers::CacheEach(3)] {
        for _ in 0..2000 {
            let may_drop = random.bool();
            let most_calls = |dropped| 1 + usize::from(dropped);
            Run::new(callers, may_drop).through(most_calls, |width| random.usize(..width)).await;
        }
    }
}
