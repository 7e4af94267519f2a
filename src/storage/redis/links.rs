//! The connections that all tasks share.
//!
//! Promises: an operation costs one command and no checkout: connections are taken from the pool once, their handles
//! cloned, and given back; connecting goes on beside the operation that asked for it, so one that gives up early does
//! not keep the next from finding a connection; one that broke, or let an operation wait in vain, is examined by the
//! pool and replaced; a command is repeated at most once, if it may be, and only when its connection broke.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::PoolError;
use deadpool_redis::redis::{Cmd, RedisError, Value};
use futures_util::future::{BoxFuture, FutureExt, Shared, join_all};

use super::failure::{failed, is_broken, is_demoted, no_runtime, unreachable};
use super::link::{Link, LinkManager};
use crate::error::{Error, ErrorKind, Result};

/// An operation that was given up after so long makes its connection suspect.
const IN_VAIN: Duration = Duration::from_millis(200);
/// A master that takes no writes is looked for anew at most so often.
const SEARCH: Duration = Duration::from_secs(1);

pub(super) type OwnPool = deadpool::managed::Pool<LinkManager>;

/// Where connections come from.
pub(super) enum Pool {
    Own(OwnPool),
    Ready(deadpool_redis::Pool),
}

pub(super) struct Links {
    pool: Pool,
    /// How many are shared.
    number: usize,
    connect_timeout: Duration,
    response_timeout: Duration,
    /// Raised when a master turned out to be none.
    age: Arc<AtomicU64>,
    state: Mutex<State>,
    next: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Tells one set of connections from the next.
    generation: u64,
    held: Held,
    /// The age that they were made in: of an earlier one, they may lead to a server that is no master any more.
    age: u64,
    /// When a master was last looked for anew.
    searched: Option<Instant>,
}

type Connecting = Shared<BoxFuture<'static, Result<Arc<[Link]>>>>;

#[derive(Default)]
enum Held {
    #[default]
    None,
    Connecting(Connecting),
    There(Arc<[Link]>),
}

/// How a command is to be treated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) writes: bool,
    /// Whether it may be carried out twice.
    pub(super) repeatable: bool,
}

impl Manner {
    pub(super) const READ: Self = Self { writes: false, repeatable: true };
    pub(super) const WRITE: Self = Self { writes: true, repeatable: true };
    /// Its answer would not be the same the second time.
    pub(super) const ONCE: Self = Self { writes: true, repeatable: false };
}

impl Links {
    pub(super) fn new(
        pool: Pool,
        number: usize,
        connect_timeout: Duration,
        response_timeout: Duration,
        age: Arc<AtomicU64>,
    ) -> Self {
        let (state, next) = (Mutex::default(), AtomicUsize::new(0));
        Self { pool, number, connect_timeout, response_timeout, age, state, next }
    }

    /// Sends one command.
    pub(super) async fn run(self: &Arc<Self>, command: &Cmd, manner: Manner) -> Result<Value> {
        let mut repeatable = manner.repeatable;
        loop {
            let (generation, mut link) = self.link().await?;
            let watch = Watch::new(self, generation, &link);
            let result = link.run(command).await;
            watch.answered();
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let mut failure = failed(&error, manner.writes);
            if failure.kind() == ErrorKind::Config && link.mends_itself() {
                // Its slots are moving, and were not found in so many steps as the driver takes.
                failure = Error::new(ErrorKind::Unavailable, "a part of the redis cluster is moving");
            }
            let broken = is_broken(&error);
            if broken || (failure.kind() == ErrorKind::Timeout && !link.mends_itself()) {
                self.doubt(generation);
            }
            if is_demoted(&error) {
                self.search(generation);
            }
            if !(broken && repeatable) {
                return Err(failure);
            }
            repeatable = false;
        }
    }

    /// One of the connections, in turn.
    pub(super) async fn link(self: &Arc<Self>) -> Result<(u64, Link)> {
        let (generation, connecting) = {
            let mut state = self.lock();
            if matches!(state.held, Held::There(_)) && state.age < self.age.load(Ordering::SeqCst) {
                state.held = Held::None;
            }
            match &state.held {
                Held::There(links) => return Ok((state.generation, self.one(links))),
                Held::Connecting(connecting) => (state.generation, connecting.clone()),
                Held::None => {
                    state.generation += 1;
                    let connecting = self.connect(state.generation)?;
                    state.held = Held::Connecting(connecting.clone());
                    (state.generation, connecting)
                }
            }
        };
        let links = connecting.await.inspect_err(|_| self.doubt(generation))?;
        Ok((generation, self.one(&links)))
    }

    fn one(&self, links: &[Link]) -> Link {
        let turn = if links.len() == 1 { 0 } else { self.next.fetch_add(1, Ordering::Relaxed) % links.len() };
        links[turn].clone()
    }

    /// Connects in a task of its own.
    fn connect(self: &Arc<Self>, generation: u64) -> Result<Connecting> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| no_runtime())?;
        let links = Arc::clone(self);
        let age = self.age.load(Ordering::SeqCst);
        let task = runtime.spawn(async move {
            let found = links.take_all().await;
            let mut state = links.lock();
            if state.generation == generation {
                state.age = age;
                state.held = match &found {
                    Ok(links) => Held::There(Arc::clone(links)),
                    Err(_) => Held::None,
                };
            }
            found
        });
        Ok(async move { task.await.unwrap_or_else(|_| Err(no_runtime())) }.boxed().shared())
    }

    /// Takes connections from the pool, all at once so that they differ, and gives them back.
    async fn take_all(&self) -> Result<Arc<[Link]>> {
        // The pool examines what it has, and then connects: each may take its time.
        let time = self.connect_timeout * 3;
        let taken = match &self.pool {
            Pool::Own(pool) => {
                let one = || async { Ok(pool.get().await.map_err(refused)?.link.clone()) };
                join_all((0..self.number).map(|_| tokio::time::timeout(time, one()))).await
            }
            Pool::Ready(pool) => {
                let one = || async {
                    let mut connection = (*pool.get().await.map_err(refused)?).clone();
                    connection.set_response_timeout(self.response_timeout);
                    Ok(Link::Server(connection))
                };
                join_all((0..self.number).map(|_| tokio::time::timeout(time, one()))).await
            }
        };
        let (mut links, mut failure) = (Vec::new(), unreachable());
        for one in taken {
            match one {
                Ok(Ok(link)) => links.push(link),
                Ok(Err(error)) => failure = error,
                Err(_) => {}
            }
        }
        if links.is_empty() { Err(failure) } else { Ok(links.into()) }
    }

    /// The next operation asks the pool anew.
    fn doubt(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation {
            state.held = Held::None;
        }
    }

    /// The next operation looks for the master anew.
    fn search(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation && state.searched.is_none_or(|last| last.elapsed() >= SEARCH) {
            state.searched = Some(Instant::now());
            state.held = Held::None;
            self.age.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(error: PoolError<RedisError>) -> Error {
    match error {
        PoolError::Backend(error) => failed(&error, false),
        PoolError::Timeout(_) => unreachable(),
        PoolError::Closed => {
            Error::new(ErrorKind::Unavailable, "the pool of connections to redis was closed")
        }
        PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => Error::new(
            ErrorKind::Config,
            "the pool of connections to redis cannot make any: see its own settings",
        ),
    }
}

/// Notices an operation that is dropped after it waited in vain: its caller had a deadline of its own.
struct Watch<'a> {
    links: &'a Links,
    generation: u64,
    /// When it began; `None`: whatever happens says nothing about the connection.
    begun: Option<Instant>,
}

impl<'a> Watch<'a> {
    fn new(links: &'a Links, generation: u64, link: &Link) -> Self {
        Self { links, generation, begun: (!link.mends_itself()).then(Instant::now) }
    }

    fn answered(mut self) {
        self.begun = None;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.begun.is_some_and(|begun| begun.elapsed() >= IN_VAIN) {
            self.links.doubt(self.generation);
        }
    }
}
