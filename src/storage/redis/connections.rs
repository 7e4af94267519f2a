//! The connections that all tasks share, and the pool that makes them.
//!
//! # Invariants
//!
//! - An operation costs one command and no checkout. Connections are taken from the pool once, their handles are cloned, and
//!   they are given back.
//! - Every connection has the timeouts of the settings. The managers that come with the pool set none for clusters and
//!   sentinels.
//! - Connecting continues after the operation that began it has given up, so that the next operation finds a connection.
//! - A connection that broke, did not answer, or leads to a demoted master is tested by the pool and replaced.
//! - A command is repeated at most once, only if it is retryable, and only if its connection broke.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, PoolError, RecycleError, RecycleResult};
use deadpool_redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use deadpool_redis::redis::cluster::{ClusterClient, ClusterConfig};
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::sentinel::SentinelClient;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, Pipeline, RedisError, RedisResult,
    Value, cmd,
};
use futures_util::future::{BoxFuture, FutureExt, Shared, join_all};
use tokio::task::AbortHandle;

use super::error::{
    Link, is_broken, is_demoted, is_redirection, is_torn, map_connect_error, map_error, no_connection,
    no_runtime,
};
use crate::error::{Error, ErrorKind, Result};

/// How long a command must have waited for its drop to make the connection suspect. The cache's deadline of an operation is
/// 500 ms. A command that is dropped much earlier was cancelled for a reason of its own.
pub(super) const STALLED_AFTER: Duration = Duration::from_millis(200);
/// The least time between two searches for the master. A failover takes seconds, in which every write fails.
const REDISCOVERY_INTERVAL: Duration = Duration::from_secs(1);
/// How many connect timeouts a checkout may take. The pool tests the connection that it has, then connects to a sentinel and
/// to the server.
const CONNECT_STEPS: u32 = 3;

/// A handle of a connection that many tasks use at the same time.
#[derive(Clone)]
pub(super) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Returns whether the driver itself replaces connections that do not answer.
    ///
    /// It does so for a cluster, whose nodes fail one by one: the nodes that work must not wait for the others.
    fn heals_itself(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    async fn run(&mut self, request: Request<'_>) -> RedisResult<Value> {
        match (self, request) {
            (Self::Server(connection), Request::Command(command)) => {
                connection.send_packed_command(command).await?.extract_error()
            }
            (Self::Cluster(connection), Request::Command(command)) => {
                connection.req_packed_command(command).await?.extract_error()
            }
            // Boxed by the driver, so that they do not make the future of a single command larger.
            (Self::Server(connection), Request::Pipeline(commands)) => {
                connection.req_packed_commands(commands, 0, commands.len()).await.map(Value::Array)
            }
            (Self::Cluster(connection), Request::Pipeline(commands)) => {
                connection.req_packed_commands(commands, 0, commands.len()).await.map(Value::Array)
            }
        }
    }
}

/// One or more commands that are sent to the server at once.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    Command(&'a Cmd),
    /// Commands whose answers, or errors, are returned as an array.
    Pipeline(&'a Pipeline),
}

/// The server to connect to. There is one for each storage, so its size does not matter.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)]
pub(super) enum Endpoint {
    Server(Client),
    /// With the nodes that the address names. A ready client does not tell them.
    Cluster(ClusterClient, Arc<[ConnectionInfo]>),
    /// Locked while the master is looked up, since the client needs exclusive access. A tokio `Mutex`, as it is held over an
    /// await.
    Sentinel(Arc<tokio::sync::Mutex<SentinelClient>>),
}

impl Endpoint {
    fn link(&self) -> Link {
        match self {
            Self::Server(client) => match client.get_connection_info().addr() {
                ConnectionAddr::Tcp(..) => Link::Plain,
                ConnectionAddr::TcpTls { .. } => Link::Tls,
                ConnectionAddr::Unix(_) => Link::Socket,
                _ => Link::Unknown,
            },
            Self::Cluster(..) | Self::Sentinel(_) => Link::Unknown,
        }
    }
}

/// Makes and tests the connections of the pool.
pub(super) struct Connector {
    endpoint: Endpoint,
    config: AsyncConnectionConfig,
    connect_timeout: Duration,
    response_timeout: Duration,
    /// Connections that were made in an earlier epoch are not handed out any more.
    master_epoch: Arc<AtomicU64>,
}

/// A connection in the pool.
pub(super) struct Pooled {
    connection: Connection,
    /// The epoch in which it was made.
    epoch: u64,
}

impl Connector {
    pub(super) fn new(
        endpoint: Endpoint,
        config: AsyncConnectionConfig,
        connect_timeout: Duration,
        response_timeout: Duration,
        master_epoch: Arc<AtomicU64>,
    ) -> Self {
        Self { endpoint, config, connect_timeout, response_timeout, master_epoch }
    }

    async fn connect(&self) -> RedisResult<Connection> {
        match &self.endpoint {
            Endpoint::Server(client) => client
                .get_multiplexed_async_connection_with_config(&self.config)
                .await
                .map(Connection::Server),
            Endpoint::Sentinel(client) => {
                let mut client = client.lock().await;
                client.get_async_connection_with_config(&self.config).await.map(Connection::Server)
            }
            Endpoint::Cluster(client, _) => {
                let config = ClusterConfig::new()
                    .set_connection_timeout(self.connect_timeout)
                    .set_response_timeout(self.response_timeout);
                client.get_async_connection_with_config(config).await.map(Connection::Cluster)
            }
        }
    }
}

impl Manager for Connector {
    type Type = Pooled;
    type Error = RedisError;

    async fn create(&self) -> Result<Pooled, RedisError> {
        // Read before connecting: if the master is demoted meanwhile, this connection counts as an old one.
        let epoch = self.master_epoch.load(Ordering::SeqCst);
        Ok(Pooled { connection: self.connect().await?, epoch })
    }

    async fn recycle(&self, pooled: &mut Pooled, _: &Metrics) -> RecycleResult<RedisError> {
        if pooled.epoch < self.master_epoch.load(Ordering::SeqCst) {
            return Err(RecycleError::message("the connection may lead to a demoted master"));
        }
        match tokio::time::timeout(
            self.connect_timeout,
            pooled.connection.run(Request::Command(&cmd("PING"))),
        )
        .await
        {
            Ok(answer) => answer.map(drop).map_err(RecycleError::Backend),
            Err(_) => Err(RecycleError::message("the connection does not answer")),
        }
    }
}

pub(super) type OwnPool = deadpool::managed::Pool<Connector>;

/// The pool that makes connections.
pub(super) enum Pool {
    Own(OwnPool),
    /// A pool that the program has made.
    Ready(deadpool_redis::Pool),
}

/// How a command may be treated.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommandKind {
    pub(super) writes: bool,
    /// Whether it may be executed twice.
    is_retryable: bool,
}

impl CommandKind {
    pub(super) const READ: Self = Self { writes: false, is_retryable: true };
    pub(super) const WRITE: Self = Self { writes: true, is_retryable: true };
    /// A write whose second answer would differ, such as the number of deleted keys.
    pub(super) const WRITE_ONCE: Self = Self { writes: true, is_retryable: false };
}

/// The connections that all tasks share.
pub(super) struct Connections {
    pool: Pool,
    count: usize,
    connect_timeout: Duration,
    response_timeout: Duration,
    /// Incremented when a master was demoted or replaced. All loads and increments are SeqCst: they are cheap beside a command, and no
    /// argument about weaker orderings is needed.
    master_epoch: Arc<AtomicU64>,
    /// The epoch of the current connections, or of the last ones.
    connected_epoch: AtomicU64,
    /// A std `Mutex`, since it is never held over an await.
    state: Mutex<State>,
    /// The connection whose turn is next.
    next: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Tells one set of connections from the next. A late failure of the old one must not discard the new one.
    generation: u64,
    current: Current,
    /// The epoch in which they were made.
    epoch: u64,
    /// The task that makes new connections to a cluster while the old ones are used.
    renewal: Option<AbortHandle>,
    /// When the master was last searched.
    rediscovered_at: Option<Instant>,
}

/// Shared, so that all operations that need a connection wait for the same attempt.
type Connecting = Shared<BoxFuture<'static, Result<Arc<[Connection]>>>>;

#[derive(Default)]
enum Current {
    #[default]
    None,
    Connecting(Connecting),
    Connected(Arc<[Connection]>),
}

impl Connections {
    pub(super) fn new(
        pool: Pool,
        count: usize,
        connect_timeout: Duration,
        response_timeout: Duration,
        master_epoch: Arc<AtomicU64>,
    ) -> Self {
        Self {
            pool,
            count,
            connect_timeout,
            response_timeout,
            master_epoch,
            connected_epoch: AtomicU64::new(0),
            state: Mutex::default(),
            next: AtomicUsize::new(0),
        }
    }

    /// Sends a request and returns its answer.
    pub(super) async fn run(self: &Arc<Self>, request: Request<'_>, kind: CommandKind) -> Result<Value> {
        let mut is_retryable = kind.is_retryable;
        loop {
            let (generation, mut connection) = self.get().await?;
            let stall = StallGuard::new(self, generation, &connection);
            let result = connection.run(request).await;
            stall.disarm();
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let mut mapped = map_error(&error, kind.writes);
            let is_moving = is_redirection(&error) || is_torn(&error);
            if is_moving && connection.heals_itself() {
                // The driver follows redirections of a cluster, up to a limit. An error here means that slots are moving, not
                // that the address is wrong. All other slots can be read. A write may have been done by an earlier attempt.
                let kind = if kind.writes { ErrorKind::Unavailable } else { ErrorKind::Busy };
                mapped = Error::new(kind, "slots of the redis cluster are moving");
            }
            let is_broken = is_broken(&error);
            if is_broken || (mapped.kind() == ErrorKind::Timeout && !connection.heals_itself()) {
                self.discard(generation);
            }
            if is_demoted(&error) {
                self.rediscover_master(generation);
            }
            if !(is_broken && is_retryable) {
                return Err(mapped);
            }
            is_retryable = false;
        }
    }

    /// Returns one of the connections, each in turn, and the generation of them. Connects if there are none.
    pub(super) async fn get(self: &Arc<Self>) -> Result<(u64, Connection)> {
        let (generation, connecting) = {
            let mut state = self.lock();
            // The other set of connections, for reads or for writes, may have met the demoted master.
            if let Current::Connected(connections) = &state.current
                && state.epoch < self.master_epoch.load(Ordering::SeqCst)
            {
                match connections.iter().any(Connection::heals_itself) {
                    // The other nodes of a cluster are used meanwhile.
                    true => self.renew(&mut state),
                    false => state.current = Current::None,
                }
            }
            match &state.current {
                Current::Connected(connections) => return Ok((state.generation, self.pick(connections))),
                Current::Connecting(connecting) => (state.generation, connecting.clone()),
                Current::None => {
                    state.generation += 1;
                    let connecting = self.connect(state.generation)?;
                    state.current = Current::Connecting(connecting.clone());
                    (state.generation, connecting)
                }
            }
        };
        // On an error, the next operation connects again. The task itself cannot do that if its runtime has ended.
        let connections = connecting.await.inspect_err(|_| self.discard(generation))?;
        Ok((generation, self.pick(&connections)))
    }

    /// Returns whether the next request uses connections of the current epoch. If not, they are made.
    pub(super) fn are_renewed(self: &Arc<Self>) -> bool {
        let epoch = self.master_epoch.load(Ordering::SeqCst);
        if self.connected_epoch.load(Ordering::SeqCst) == epoch {
            return true;
        }
        let mut state = self.lock();
        match state.current {
            Current::None => true,
            Current::Connecting(_) => false,
            Current::Connected(_) if state.epoch == epoch => true,
            Current::Connected(_) => {
                self.renew(&mut state);
                false
            }
        }
    }

    /// Makes new connections, in a task of its own. The old ones are used until these are there.
    fn renew(self: &Arc<Self>, state: &mut State) {
        let is_renewing = state.renewal.as_ref().is_some_and(|task| !task.is_finished());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if is_renewing {
            return;
        }
        let (this, generation) = (Arc::clone(self), state.generation);
        let epoch = self.master_epoch.load(Ordering::SeqCst);
        let task = runtime.spawn(async move {
            // On an error, the next operation tries again.
            let Ok(connections) = this.check_out_all().await else { return };
            let mut state = this.lock();
            if state.generation == generation && matches!(state.current, Current::Connected(_)) {
                state.generation += 1;
                this.install(&mut state, epoch, connections);
            }
        });
        state.renewal = Some(task.abort_handle());
    }

    fn install(&self, state: &mut State, epoch: u64, connections: Arc<[Connection]>) {
        state.epoch = epoch;
        state.current = Current::Connected(connections);
        self.connected_epoch.store(epoch, Ordering::SeqCst);
    }

    fn pick(&self, connections: &[Connection]) -> Connection {
        let turn = match connections.len() {
            1 => 0,
            // Relaxed: the turns need not be exact.
            count => self.next.fetch_add(1, Ordering::Relaxed) % count,
        };
        connections[turn].clone()
    }

    /// Begins to connect, in a task of its own.
    ///
    /// So it continues if the caller's deadline passes.
    fn connect(self: &Arc<Self>, generation: u64) -> Result<Connecting> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| no_runtime())?;
        let this = Arc::clone(self);
        let epoch = self.master_epoch.load(Ordering::SeqCst);
        let task = runtime.spawn(async move {
            let connected = this.check_out_all().await;
            let mut state = this.lock();
            // Unless it was discarded, and another attempt has begun.
            if state.generation == generation {
                match &connected {
                    Ok(connections) => this.install(&mut state, epoch, Arc::clone(connections)),
                    Err(_) => state.current = Current::None,
                }
            }
            connected
        });
        Ok(async move { task.await.unwrap_or_else(|_| Err(no_runtime())) }.boxed().shared())
    }

    /// Takes connections from the pool, clones their handles and gives them back.
    async fn check_out_all(&self) -> Result<Arc<[Connection]>> {
        let timeout = self.connect_timeout * CONNECT_STEPS;
        // All at once: if each were given back before the next is taken, they would be the same connection.
        let checkouts = match &self.pool {
            Pool::Own(pool) => {
                let link = pool.manager().endpoint.link();
                let failed = |error| map_pool_error(error, link);
                let check_out = || async { Ok(pool.get().await.map_err(failed)?.connection.clone()) };
                join_all((0..self.count).map(|_| tokio::time::timeout(timeout, check_out()))).await
            }
            Pool::Ready(pool) => {
                let check_out = || async {
                    let connection =
                        pool.get().await.map_err(|error| map_pool_error(error, Link::Unknown))?;
                    let mut connection = connection.clone();
                    connection.set_response_timeout(self.response_timeout);
                    Ok(Connection::Server(connection))
                };
                join_all((0..self.count).map(|_| tokio::time::timeout(timeout, check_out()))).await
            }
        };
        let (mut connections, mut failure) = (Vec::new(), no_connection());
        for checkout in checkouts {
            match checkout {
                Ok(Ok(connection)) => connections.push(connection),
                Ok(Err(error)) => failure = error,
                // The timeout, whose error is the initial value of `failure`.
                Err(_) => {}
            }
        }
        // Fewer connections than wanted are enough.
        if connections.is_empty() { Err(failure) } else { Ok(connections.into()) }
    }

    /// Stops using the connections of a generation. The next operation takes connections from the pool, which tests them.
    fn discard(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation {
            state.current = Current::None;
        }
    }

    /// Makes the next operation look up the master.
    ///
    /// The pool then drops all connections to the old one.
    fn rediscover_master(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation
            && state.rediscovered_at.is_none_or(|at| at.elapsed() >= REDISCOVERY_INTERVAL)
        {
            state.rediscovered_at = Some(Instant::now());
            state.current = Current::None;
            self.master_epoch.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn map_pool_error(error: PoolError<RedisError>, link: Link) -> Error {
    match error {
        PoolError::Backend(error) => map_connect_error(&error, link),
        PoolError::Timeout(_) => no_connection(),
        PoolError::Closed => Error::new(ErrorKind::Unavailable, "the pool of redis connections was closed"),
        PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => Error::new(
            ErrorKind::Config,
            "the pool of redis connections cannot make any: check its runtime and its hooks",
        ),
    }
}

/// Discards the connections if a command is dropped after it has waited for long.
///
/// The cache drops a command at its own deadline, which is shorter than the driver's, so no error tells that the connection
/// does not answer.
struct StallGuard<'a> {
    connections: &'a Connections,
    generation: u64,
    /// When the command was sent. `None`: the guard is disarmed.
    begun: Option<Instant>,
}

impl<'a> StallGuard<'a> {
    fn new(connections: &'a Connections, generation: u64, connection: &Connection) -> Self {
        Self { connections, generation, begun: (!connection.heals_itself()).then(Instant::now) }
    }

    fn disarm(mut self) {
        self.begun = None;
    }
}

impl Drop for StallGuard<'_> {
    fn drop(&mut self) {
        if self.begun.is_some_and(|begun| begun.elapsed() >= STALLED_AFTER) {
            self.connections.discard(self.generation);
        }
    }
}
