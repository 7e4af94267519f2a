//! The signal of a cluster: one connection for each master, and the count of a key from the node that owns its slot.
//!
//! # Invariants
//!
//! - The answer that confirms a connection also says what its node owns ([`topology`](super::topology)). A slot that its node
//!   does not own any more, or is about to give away, has no signal from that answer on.
//! - A writer that follows the redirections of the cluster reaches another node only after the owner has said so. So a change
//!   there is seen, or the copy compared, once the last answer in which the owner kept the slot is `max_silence` old.
//! - An owner that is found counts as a change of all keys of its slots, also if it was the owner before.
//! - Nothing that a node without the slot still answers is believed: if an owner was replaced without having said so itself,
//!   there is no signal until the storage has connected again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use deadpool_redis::redis::{Client, ConnectionAddr, ConnectionInfo, RedisError, RedisResult, pipe};
use tokio::task::AbortHandle;

use super::topology::{Address, Owner, SLOTS, View, owners, slot_of};
use super::{
    MAX_PAUSE, MIN_PAUSE, PING_INTERVAL, REFUSED_INTERVAL, Running, Source, TIMEOUT, Tracking, is_refusal,
    open, warn_of_refusal,
};
use crate::hex;
use crate::storage::Key;

/// The most masters that are tracked, which is also the most that Redis recommends. Slots of further ones have no signal.
const MAX_NODES: usize = 1000;
/// Stands for an owner that is not tracked any more, and has not said that it has lost its slots.
const GONE: u16 = u16::MAX;
/// How many bits of a slot's word are the number of the owner. The others are the number of owners that were found.
const OWNER_BITS: u32 = 16;

pub(super) struct Cluster {
    /// The nodes that the address names.
    seeds: Arc<[ConnectionInfo]>,
    /// For each slot, the number of its owner, or zero, and how often an owner was found. One word, so that both are read
    /// together. Made for the first call, as the counters.
    slots: OnceLock<Box<[AtomicU64]>>,
    /// For each number of a node, when the last ping that was answered was sent. Zero: it has no signal.
    confirmed_at: Box<[AtomicU64]>,
    /// A std `Mutex`, since it is never held over an await.
    state: Mutex<State>,
    has_warned: AtomicBool,
    /// Incremented when the connections of the storage may lead to a node that was replaced.
    master_epoch: Arc<AtomicU64>,
}

struct State {
    /// The node of each number. The numbers begin with one.
    nodes: Vec<Option<Node>>,
    numbers: HashMap<String, u16>,
    /// The last owner of each slot, unless it has said itself that it is not the owner any more.
    last_owners: Vec<u16>,
    /// The number of connections that were begun, which tells the messages of one from those of the next.
    connections: u64,
}

/// A master.
struct Node {
    address: Address,
    task: Option<AbortHandle>,
    connection: u64,
    /// Its last answer, while its connection works.
    view: Option<View>,
}

impl Cluster {
    pub(super) fn new(seeds: Arc<[ConnectionInfo]>, master_epoch: Arc<AtomicU64>) -> Self {
        let state =
            State { nodes: Vec::new(), numbers: HashMap::new(), last_owners: Vec::new(), connections: 0 };
        Self {
            seeds,
            slots: OnceLock::new(),
            confirmed_at: zeros(MAX_NODES + 1),
            state: Mutex::new(state),
            has_warned: AtomicBool::new(false),
            master_epoch,
        }
    }

    /// Returns when the owner of a key was last confirmed, or zero, and how often an owner of its slot was found.
    pub(super) fn confirmed_at(&self, key: Key) -> (u64, u64) {
        // Acquire pairs with the release of `publish`: a task that sees the owner also sees the connections marked as old.
        let word = self.slots()[slot(key)].load(Ordering::Acquire);
        let owner = usize::from(word as u16);
        let confirmed_at = match owner {
            0 => 0,
            owner => self.confirmed_at[owner].load(Ordering::Acquire),
        };
        (confirmed_at, word >> OWNER_BITS)
    }

    /// Returns the number of the owner of a key, or zero.
    pub(super) fn server_of(&self, key: Key) -> u16 {
        self.slots.get().map_or(0, |slots| slots[slot(key)].load(Ordering::Relaxed) as u16)
    }

    fn slots(&self) -> &[AtomicU64] {
        self.slots.get_or_init(|| zeros(SLOTS))
    }

    /// Ends the tasks of all nodes.
    pub(super) fn forget_nodes(&self) {
        let mut state = self.lock();
        for number in 1..=state.nodes.len() {
            self.remove(&mut state, number);
        }
        self.publish(&mut state, None);
    }

    /// Returns the node to ask for the masters, or `None` while one of these answers.
    fn seed(&self, turn: usize) -> Option<ConnectionInfo> {
        let has_view = self.lock().nodes.iter().flatten().any(|node| node.view.is_some());
        if has_view { None } else { self.seeds.get(turn % self.seeds.len()).cloned() }
    }

    /// Begins a connection to a node, and returns its number. Returns `None` if the node is not tracked any more.
    fn connect(&self, number: u16, id: &str) -> Option<(Address, u64)> {
        let mut state = self.lock();
        state.connections += 1;
        let connection = state.connections;
        let is_known = state.numbers.get(id) == Some(&number);
        let node = state.nodes.get_mut(usize::from(number) - 1)?.as_mut().filter(|_| is_known)?;
        node.connection = connection;
        Some((node.address.clone(), connection))
    }

    /// Takes what a node says. Returns `false` if the connection was replaced.
    fn accept(&self, tracking: &Arc<Tracking>, number: u16, connection: u64, view: View) -> bool {
        let mut state = self.lock();
        let Some(node) = state.node(number).filter(|node| node.connection == connection) else {
            return false;
        };
        if node.view.as_ref() == Some(&view) {
            return true;
        }
        // The keys of a slot that the node has lost and got back since its last answer may have been changed meanwhile.
        let is_renewed = node.view.as_ref().is_some_and(|old| old.config_epoch != view.config_epoch);
        node.view = Some(view.clone());
        self.find_masters(tracking, &mut state, &view);
        self.publish(&mut state, is_renewed.then_some(number));
        state.node(number).is_some()
    }

    /// Notes that a connection has ended.
    fn lose(&self, number: u16, connection: u64) {
        let mut state = self.lock();
        let Some(node) = state.node(number).filter(|node| node.connection == connection) else { return };
        self.confirmed_at[usize::from(number)].store(0, Ordering::Release);
        if node.view.take().is_some() {
            self.publish(&mut state, None);
        }
    }

    /// Begins a task for each new master, and ends those of the nodes that no other one names.
    fn find_masters(&self, tracking: &Arc<Tracking>, state: &mut State, view: &View) {
        // A node that has lost the majority does not know the masters any more.
        if !view.is_ok {
            return;
        }
        for master in &view.masters {
            let known = state.numbers.get(&master.id).copied();
            let number = match known.or_else(|| state.free_number()) {
                Some(number) => number,
                None => continue,
            };
            if let Some(node) = state.node(number) {
                // With an empty address a node stands for the one that was asked.
                if node.address != master.address && !master.address.is_empty() {
                    node.address = master.address.clone();
                }
                continue;
            }
            let run = run_node(Arc::downgrade(tracking), number, master.id.clone());
            let task = tokio::runtime::Handle::try_current().ok().map(|runtime| runtime.spawn(run));
            let node = Node {
                address: master.address.clone(),
                task: task.map(|task| task.abort_handle()),
                connection: 0,
                view: None,
            };
            state.numbers.insert(master.id.clone(), number);
            state.nodes[usize::from(number) - 1] = Some(node);
        }
        let views = || state.nodes.iter().flatten().filter_map(|node| node.view.as_ref());
        let is_named = |id: &String| {
            let mut views = views().filter(|view| view.is_ok).chain([view]);
            views.any(|view| view.masters.iter().any(|master| master.id == *id))
        };
        let gone: Vec<u16> =
            state.numbers.iter().filter(|(id, _)| !is_named(id)).map(|(_, number)| *number).collect();
        if !gone.is_empty() {
            // Those that have said that they are no master may be forgotten without regret.
            self.publish(state, None);
        }
        for number in gone {
            self.remove(state, usize::from(number));
        }
    }

    /// Ends the task of a node.
    fn remove(&self, state: &mut State, number: usize) {
        let Some(node) = state.nodes.get_mut(number - 1).and_then(Option::take) else { return };
        if let Some(task) = node.task {
            task.abort();
        }
        self.confirmed_at[number].store(0, Ordering::Release);
        // Another node may get the number.
        for word in self.slots() {
            let old = word.load(Ordering::Relaxed);
            if usize::from(old as u16) == number {
                word.store(old >> OWNER_BITS << OWNER_BITS, Ordering::Release);
            }
        }
        state.numbers.retain(|_, other| usize::from(*other) != number);
        for last in state.last_owners.iter_mut().filter(|last| usize::from(**last) == number) {
            *last = GONE;
        }
    }

    /// Finds the owner of each slot. What `renewed` owns counts as found again.
    fn publish(&self, state: &mut State, renewed: Option<u16>) {
        state.last_owners.resize(SLOTS, 0);
        let views = state.nodes.iter().flatten().filter_map(|node| node.view.as_ref());
        let owners = owners(views, &state.numbers);
        // A node whose view contributes to an owner agrees with it.
        let agrees: Vec<bool> =
            std::iter::once(true)
                .chain(state.nodes.iter().map(|node| {
                    node.as_ref().and_then(|node| node.view.as_ref()).is_some_and(|view| view.is_ok)
                }))
                .collect();
        let has_agreed = |last: u16| agrees.get(usize::from(last)).copied().unwrap_or(false);
        let mut is_replaced = false;
        for (owner, last) in owners.iter().zip(&mut state.last_owners) {
            if let Owner::Named(number) | Owner::Confirmed(number) = *owner
                && number != *last
            {
                if has_agreed(*last) {
                    *last = 0;
                } else if let Owner::Confirmed(_) = owner {
                    (is_replaced, *last) = (true, 0);
                }
            }
        }
        if is_replaced {
            // Before the new owners: a reader that sees one of them also sees that its connections are old.
            self.master_epoch.fetch_add(1, Ordering::SeqCst);
        }
        for ((owner, word), last) in owners.iter().zip(self.slots()).zip(&mut state.last_owners) {
            // No other thread stores meanwhile, since the state is locked.
            let old = word.load(Ordering::Relaxed);
            let (found, old_owner) = (old >> OWNER_BITS, old as u16);
            let new = match *owner {
                Owner::Confirmed(number) => {
                    *last = number;
                    if number == old_owner && renewed != Some(number) {
                        continue;
                    }
                    ((found + 1) << OWNER_BITS) | u64::from(number)
                }
                Owner::Named(_) | Owner::Unknown => found << OWNER_BITS,
            };
            if new != old {
                word.store(new, Ordering::Release);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how to connect to a node.
    fn info(&self, address: &Address) -> Option<ConnectionInfo> {
        let seed = self.seeds.first()?;
        let port = address.port;
        let addr = match seed.addr().clone() {
            // Certificates name hosts.
            ConnectionAddr::TcpTls { host, insecure, tls_params, .. } => {
                let known = [&address.hostname, &address.ip].into_iter().find(|name| !name.is_empty());
                ConnectionAddr::TcpTls { host: known.cloned().unwrap_or(host), port, insecure, tls_params }
            }
            ConnectionAddr::Tcp(host, _) => {
                let known = [&address.ip, &address.hostname].into_iter().find(|name| !name.is_empty());
                ConnectionAddr::Tcp(known.cloned().unwrap_or(host), port)
            }
            _ => return None,
        };
        Some(seed.clone().set_addr(addr))
    }

    fn warn(&self) {
        // Every node refuses, and each of them again and again.
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            warn_of_refusal();
        }
    }
}

impl State {
    fn node(&mut self, number: u16) -> Option<&mut Node> {
        self.nodes.get_mut(usize::from(number).checked_sub(1)?)?.as_mut()
    }

    fn free_number(&mut self) -> Option<u16> {
        let free = self.nodes.iter().position(Option::is_none).unwrap_or(self.nodes.len());
        if free == self.nodes.len() {
            if free == MAX_NODES {
                return None;
            }
            self.nodes.push(None);
        }
        u16::try_from(free + 1).ok()
    }
}

fn zeros(len: usize) -> Box<[AtomicU64]> {
    (0..len).map(|_| AtomicU64::new(0)).collect()
}

/// Returns the slot of a key. All names of an entry have its digits as hash tag.
fn slot(key: Key) -> usize {
    let mut tag = [0; 32];
    hex::fill(&mut tag, &key.entry);
    slot_of(&tag)
}

fn cluster(tracking: &Tracking) -> Option<&Cluster> {
    match &tracking.source {
        Source::Cluster(cluster) => Some(cluster),
        Source::Server(_) => None,
    }
}

/// Finds the nodes of a cluster until the storage has ended.
pub(super) async fn run(running: Running) {
    let mut pause = MIN_PAUSE;
    for turn in 0.. {
        let Some(seed) = running.0.upgrade().as_deref().and_then(cluster).map(|cluster| cluster.seed(turn))
        else {
            return;
        };
        // While a node answers, it names the others.
        pause = match seed {
            None => MIN_PAUSE,
            Some(seed) => {
                let found = tokio::time::timeout(TIMEOUT, ask_seed(seed)).await;
                let Some(tracking) = running.0.upgrade() else { return };
                let Some(cluster) = cluster(&tracking) else { return };
                match found {
                    Ok(Ok(view)) => cluster.find_masters(&tracking, &mut cluster.lock(), &view),
                    Ok(Err(error)) if is_refusal(&error) => cluster.warn(),
                    _ => {}
                }
                (pause * 2).min(MAX_PAUSE)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Returns what a node says that the address names.
async fn ask_seed(seed: ConnectionInfo) -> RedisResult<View> {
    let host = match seed.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        _ => String::new(),
    };
    let mut connection = Client::open(seed)?.get_multiplexed_async_connection().await?;
    let mut view = ask(&mut connection).await?;
    for master in view.masters.iter_mut().filter(|master| master.address.is_empty()) {
        // A node that no other has met does not know its own address.
        master.address.ip.clone_from(&host);
    }
    Ok(view)
}

/// Tests a connection, and returns what its node says.
async fn ask(connection: &mut deadpool_redis::redis::aio::MultiplexedConnection) -> RedisResult<View> {
    let mut both = pipe();
    both.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("NODES");
    let (info, nodes): (String, String) = both.query_async(connection).await?;
    let unexpected = || RedisError::from((deadpool_redis::redis::ErrorKind::Parse, "no view of a cluster"));
    View::parse(&info, &nodes).ok_or_else(unexpected)
}

/// Keeps the connection to a node until it is not tracked any more.
async fn run_node(tracking: Weak<Tracking>, number: u16, id: String) {
    let mut pause = MIN_PAUSE;
    loop {
        let Some((info, connection)) = tracking.upgrade().as_deref().and_then(cluster).and_then(|cluster| {
            let (address, connection) = cluster.connect(number, &id)?;
            Some((cluster.info(&address)?, connection))
        }) else {
            return;
        };
        // Also if the task is aborted or its runtime ends.
        let lost = Lost { tracking: Weak::clone(&tracking), number, connection };
        let mut was_confirmed = false;
        let error = track(&tracking, &info, &id, &lost, &mut was_confirmed).await.err();
        drop(lost);
        pause = if was_confirmed { MIN_PAUSE } else { (pause * 2).min(MAX_PAUSE) };
        let refused = error.as_ref().is_some_and(is_refusal);
        if refused && let Some(cluster) = tracking.upgrade().as_deref().and_then(cluster) {
            cluster.warn();
        }
        tokio::time::sleep(if refused { REFUSED_INTERVAL } else { pause }).await;
    }
}

/// A connection, which is lost when this is dropped.
struct Lost {
    tracking: Weak<Tracking>,
    number: u16,
    connection: u64,
}

impl Drop for Lost {
    fn drop(&mut self) {
        if let Some(cluster) = self.tracking.upgrade().as_deref().and_then(cluster) {
            cluster.lose(self.number, self.connection);
        }
    }
}

/// Tracks the changes on a node until the connection is lost. Returns `Ok` when the storage has ended, or does not need it.
async fn track(
    tracking: &Weak<Tracking>,
    info: &ConnectionInfo,
    id: &str,
    lost: &Lost,
    was_confirmed: &mut bool,
) -> RedisResult<()> {
    let (number, connection) = (lost.number, lost.connection);
    let lose = move |tracking: &Tracking| {
        if let Some(cluster) = cluster(tracking) {
            cluster.lose(number, connection);
        }
    };
    let Some(mut link) = open(tracking, info, lose).await? else { return Ok(()) };
    loop {
        let Some(sent_at) = tracking.upgrade().map(|tracking| tracking.now()) else { return Ok(()) };
        let view = ask(&mut link).await?;
        // Another node may have got the address.
        if view.id != id {
            return Ok(());
        }
        let Some(tracking) = tracking.upgrade() else { return Ok(()) };
        let Some(cluster) = cluster(&tracking) else { return Ok(()) };
        // The view first: what it does not own any more is not confirmed.
        if !cluster.accept(&tracking, number, connection, view) {
            return Ok(());
        }
        cluster.confirmed_at[usize::from(number)].store(sent_at, Ordering::Release);
        *was_confirmed = true;
        drop(tracking);
        tokio::time::sleep(PING_INTERVAL).await;
    }
}
