//! Two levels over a Redis cluster: the signal from the node that owns a key, while slots and masters change.
//!
//! A signal that is believed although its node does not own the slot any more is never corrected. So the tests only wait until
//! a change is seen, and fail by their time limit.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tower_response_cache::storage::redis::redis::cluster::ClusterClientBuilder;
use tower_response_cache::storage::{
    BoxStorage, Key, MemoryStorage, Record, RedisStorage, Storage, TieredStorage, connect,
};
use tower_response_cache::{ErrorKind, Timestamp};

use crate::redis::one;
use crate::servers::redis::{Cluster, Redis, until};

macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub fn trials() -> Vec<Trial> {
            vec![$(one("tiered_cluster", stringify!($name), || Box::pin($name()))),*]
        }
    };
}

trials![
    change_on_any_node_is_seen_by_signal,
    client_without_addresses_leaves_max_lag,
    migrating_slot_is_compared,
    unreadable_slot_leaves_others_usable,
    promoted_replica_signals_changes,
    killed_master_is_replaced,
    stopped_master_is_replaced,
    returned_master_is_not_believed,
    stopped_node_leaves_others_usable,
    signal_of_cluster_begins_anew_in_another_runtime,
];

const SECOND: Duration = Duration::from_secs(1);

fn name(key: Key) -> String {
    format!("app:{{{}}}:head", &key.to_string()[..32])
}

fn slot(cluster: &Cluster, key: Key) -> u16 {
    cluster.0[0].ok(&["CLUSTER", "KEYSLOT", &name(key)]).parse().unwrap()
}

/// Returns keys that a master has, by its slots at the start.
fn keys_of(cluster: &Cluster, master: usize) -> impl Iterator<Item = Key> {
    let keys: Vec<Key> = (0..=u8::MAX).map(|number| Key::head([number; 16])).collect();
    let slots = [0..=5460, 5461..=10922, 10923..=16383][master].clone();
    let own: Vec<Key> = keys.into_iter().filter(|key| slots.contains(&slot(cluster, *key))).collect();
    own.into_iter()
}

fn key_of(cluster: &Cluster, master: usize) -> Key {
    keys_of(cluster, master).next().unwrap()
}

fn record(payload: &str) -> Record {
    Record::new(payload.to_owned(), Timestamp::NEVER)
}

async fn tiered(cluster: &Cluster, options: &str) -> BoxStorage {
    connect(&format!("tiered+{}&{options}", cluster.address("app"))).await.unwrap()
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

async fn until_signal(storage: &impl Storage, key: Key) {
    while storage.change_count(key, SECOND).is_none() {
        pause().await;
    }
}

/// Waits until a storage reads a payload. Reads may fail meanwhile.
async fn until_read(storage: &impl Storage, key: Key, payload: &str) {
    while storage.read(key).await.ok().flatten().is_none_or(|record| record.payload() != payload) {
        pause().await;
    }
}

/// Waits until a storage has written. Another node may be taking the key meanwhile.
async fn until_written(storage: &impl Storage, key: Key, payload: &str) {
    loop {
        // As long as the cache would wait.
        let write = tokio::time::timeout(SECOND / 2, storage.write(key, record(payload)));
        if write.await.is_ok_and(|written| written.is_ok()) {
            return;
        }
        pause().await;
    }
}

fn copy(storage: &impl Storage, key: Key) -> Option<bytes::Bytes> {
    Some(storage.read_now(key)?.unwrap()?.payload())
}

/// Waits until a copy is served by the signal.
async fn until_copied(storage: &impl Storage, key: Key, payload: &str) {
    until_signal(storage, key).await;
    while copy(storage, key).is_none_or(|copied| copied != payload) {
        until_read(storage, key, payload).await;
    }
}

async fn change_on_any_node_is_seen_by_signal() {
    let cluster = Cluster::start().unwrap();
    let other = connect(&cluster.address("app")).await.unwrap();
    // Long enough that a copy which is replaced was replaced by the signal.
    let storage = tiered(&cluster, "max_lag=1h").await;
    for master in 0..3 {
        for key in keys_of(&cluster, master).take(3) {
            other.write(key, record("first")).await.unwrap();
            until_copied(&storage, key, "first").await;
            for number in 0..10 {
                let payload = format!("record {number}");
                other.write(key, record(&payload)).await.unwrap();
                until_read(&storage, key, &payload).await;
                until_copied(&storage, key, &payload).await;
            }
            cluster.0[master].ok(&["FLUSHALL"]);
            while storage.read(key).await.unwrap().is_some() {
                pause().await;
            }
        }
    }
}

/// Returns two levels over a cluster whose addresses the storage does not know.
fn by_client(cluster: &Cluster) -> TieredStorage<MemoryStorage, RedisStorage> {
    let nodes = cluster.0.iter().map(|node| format!("redis://127.0.0.1:{}", node.port));
    let client = ClusterClientBuilder::new(nodes).retries(3).build().unwrap();
    let far = RedisStorage::builder(client).cache_name("app").build().unwrap();
    let near = MemoryStorage::builder().max_bytes(1 << 20).build();
    TieredStorage::builder(near, far).max_lag(Duration::from_millis(50)).build()
}

async fn client_without_addresses_leaves_max_lag() {
    let cluster = Cluster::start().unwrap();
    let storage = by_client(&cluster);
    let other = connect(&cluster.address("app")).await.unwrap();
    let key = key_of(&cluster, 0);
    for payload in ["one", "two"] {
        other.write(key, record(payload)).await.unwrap();
        until_read(&storage, key, payload).await;
        assert_eq!(storage.change_count(key, SECOND), None);
    }
}

/// Changes a key until a storage sees it, several times.
async fn sees_changes(storage: &impl Storage, other: &impl Storage, key: Key, stage: &str) {
    for number in 0..5 {
        let payload = format!("{stage} {number}");
        until_written(other, key, &payload).await;
        until_read(storage, key, &payload).await;
        // A copy that is served although nothing tells of its changes would hide the next one.
        drop(storage.read(key).await);
    }
}

async fn migrating_slot_is_compared() {
    let cluster = Cluster::start().unwrap();
    let (storage, other) =
        (tiered(&cluster, "max_lag=500ms").await, connect(&cluster.address("app")).await.unwrap());
    let key = key_of(&cluster, 0);
    let slot = slot(&cluster, key).to_string();
    let ids: Vec<String> = cluster.0.iter().map(|node| node.ok(&["CLUSTER", "MYID"])).collect();
    for (from, to) in [(0, 1), (1, 0), (0, 2)] {
        let (source, target) = (&cluster.0[from], &cluster.0[to]);
        sees_changes(&storage, &other, key, &format!("before {from} {to}")).await;
        until_copied(&storage, key, &format!("before {from} {to} 4")).await;
        let before = storage.change_count(key, SECOND);
        target.ok(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]);
        source.ok(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]);
        sees_changes(&storage, &other, key, "migrating").await;
        while storage.change_count(key, SECOND).is_some() {
            pause().await;
        }
        let port = target.port.to_string();
        source.ok(&["MIGRATE", "127.0.0.1", &port, &name(key), "0", "5000"]);
        assert_eq!(source.keys("*").iter().filter(|other| **other == name(key)).count(), 0);
        // From here on, the node that had the key hears nothing of it.
        sees_changes(&storage, &other, key, "migrated").await;
        target.ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]);
        sees_changes(&storage, &other, key, "half moved").await;
        source.ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]);
        sees_changes(&storage, &other, key, "moved").await;
        until_copied(&storage, key, "moved 4").await;
        assert_ne!(storage.change_count(key, SECOND), before, "copies from before the move are believed");
    }
    let elsewhere = key_of(&cluster, 1);
    sees_changes(&storage, &other, elsewhere, "of another slot").await;
}

async fn unreadable_slot_leaves_others_usable() {
    let cluster = Cluster::start().unwrap();
    // It tells no servers apart, so that a server that counts as down would be all of them.
    let (storage, other) = (by_client(&cluster), connect(&cluster.address("app")).await.unwrap());
    let mut keys = keys_of(&cluster, 0);
    let unreadable = keys.next().unwrap();
    let others: Vec<Key> = keys.take(20).chain(keys_of(&cluster, 1).take(20)).collect();
    for key in &others {
        other.write(*key, record("stored")).await.unwrap();
    }
    // Each of the two nodes says that the other one has the slot.
    let (slot, id) = (slot(&cluster, unreadable).to_string(), cluster.0[1].ok(&["CLUSTER", "MYID"]));
    cluster.0[0].ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
    for key in others {
        let error = storage.read(unreadable).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert_eq!(storage.read(key).await.unwrap().unwrap().payload(), "stored");
    }
}

/// Waits until a replica is a master. On a busy machine the nodes need several elections.
async fn until_promoted(replica: &Redis) {
    let begun = Instant::now();
    while !is_master(replica) {
        assert!(begun.elapsed() < 60 * SECOND, "the replica knows {}", replica.ok(&["CLUSTER", "NODES"]));
        pause().await;
    }
}

fn is_master(redis: &Redis) -> bool {
    redis.ok(&["ROLE"]).starts_with("master")
}

async fn promoted_replica_signals_changes() {
    let mut cluster = Cluster::start().unwrap();
    let replica = cluster.add_replica(0);
    let (storage, other) =
        (tiered(&cluster, "max_lag=500ms").await, connect(&cluster.address("app")).await.unwrap());
    let key = key_of(&cluster, 0);
    sees_changes(&storage, &other, key, "before").await;
    until_copied(&storage, key, "before 4").await;
    let before = storage.change_count(key, SECOND);
    let mut asked: Option<Instant> = None;
    while !is_master(&replica) || is_master(&cluster.0[0]) {
        // The servers give up after five seconds.
        if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(6)) {
            replica.command(&["CLUSTER", "FAILOVER"]);
            asked = Some(Instant::now());
        }
        sees_changes(&storage, &other, key, "during").await;
    }
    sees_changes(&storage, &other, key, "after").await;
    until_copied(&storage, key, "after 4").await;
    while storage.change_count(key, SECOND).is_none_or(|count| Some(count) == before) {
        pause().await;
    }
    // As a replica, the old master signals the changes as well. But the signal is that of the new one.
    cluster.0[0].server.kill();
    sees_changes(&storage, &other, key, "alone").await;
    until_copied(&storage, key, "alone 4").await;
}

async fn killed_master_is_replaced() {
    let mut cluster = Cluster::start().unwrap();
    let replica = cluster.add_replica(0);
    let (storage, other) =
        (tiered(&cluster, "max_lag=500ms").await, connect(&cluster.address("app")).await.unwrap());
    let (key, elsewhere) = (key_of(&cluster, 0), key_of(&cluster, 1));
    sees_changes(&storage, &other, key, "before").await;
    until_copied(&storage, key, "before 4").await;
    cluster.0[0].server.kill();
    sees_changes(&storage, &other, elsewhere, "meanwhile").await;
    until_promoted(&replica).await;
    sees_changes(&storage, &other, key, "after").await;
    until_copied(&storage, key, "after 4").await;
}

async fn stopped_master_is_replaced() {
    let cluster = Cluster::start().unwrap();
    let replica = cluster.add_replica(0);
    let (storage, other) =
        (tiered(&cluster, "max_lag=500ms").await, connect(&cluster.address("app")).await.unwrap());
    let key = key_of(&cluster, 0);
    sees_changes(&storage, &other, key, "before").await;
    until_copied(&storage, key, "before 4").await;
    // Its connections stay open and are silent, so that no error tells the driver to look for another node.
    cluster.0[0].server.stop();
    until_promoted(&replica).await;
    let other =
        connect(&format!("redis+cluster://127.0.0.1:{}/?cache_name=app", replica.port)).await.unwrap();
    sees_changes(&storage, &other, key, "after").await;
    until_copied(&storage, key, "after 4").await;
    cluster.0[0].server.go_on();
    sees_changes(&storage, &other, key, "with the old master").await;
    until("the old master follows", || !is_master(&cluster.0[0]));
    sees_changes(&storage, &other, key, "with a replica").await;
    until_copied(&storage, key, "with a replica 4").await;
}

async fn returned_master_is_not_believed() {
    let mut cluster = Cluster::start().unwrap();
    let (storage, other) =
        (tiered(&cluster, "max_lag=500ms").await, connect(&cluster.address("app")).await.unwrap());
    let key = key_of(&cluster, 0);
    sees_changes(&storage, &other, key, "before").await;
    until_copied(&storage, key, "before 4").await;
    let before = storage.change_count(key, SECOND);
    // It keeps its data, but what was changed while no connection told of it is not known.
    cluster.0[0].server.restart(crate::servers::child::Data::Kept);
    cluster.wait();
    until_signal(&storage, key).await;
    assert_ne!(storage.change_count(key, SECOND), before);
    sees_changes(&storage, &other, key, "after").await;
}

async fn stopped_node_leaves_others_usable() {
    let cluster = Cluster::start().unwrap();
    let (storage, other) =
        (tiered(&cluster, "max_lag=500ms").await, connect(&cluster.address("app")).await.unwrap());
    let stopped = key_of(&cluster, 0);
    let others: Vec<Key> = keys_of(&cluster, 1).take(20).chain(keys_of(&cluster, 2).take(20)).collect();
    for key in others.iter().chain([&stopped]) {
        until_written(&other, *key, "stored").await;
        until_signal(&storage, *key).await;
    }
    until_copied(&storage, stopped, "stored").await;
    cluster.0[0].server.stop();
    // Without a signal and without an answer, no copy is served for longer than the lag.
    while copy(&storage, stopped).is_some() {
        pause().await;
    }
    for key in &others {
        // It is down for all that follows, and asked again now and then.
        assert!(storage.read(stopped).await.is_err());
        // No copy yet: the other nodes are asked.
        assert_eq!(storage.read(*key).await.unwrap().unwrap().payload(), "stored");
    }
    for key in &others {
        until_copied(&storage, *key, "stored").await;
        assert!(storage.read(stopped).await.is_err());
        other.write(*key, record("changed")).await.unwrap();
        until_read(&storage, *key, "changed").await;
    }
    cluster.0[0].server.go_on();
    sees_changes(&storage, &other, stopped, "back").await;
    until_copied(&storage, stopped, "back 4").await;
}

async fn signal_of_cluster_begins_anew_in_another_runtime() {
    let cluster = Cluster::start().unwrap();
    let (address, key) = (cluster.address("app"), key_of(&cluster, 2));
    let other = connect(&address).await.unwrap();
    let storage = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let storage = connect(&format!("tiered+{address}&max_lag=1h")).await.unwrap();
            until_written(&storage, key, "old").await;
            until_copied(&storage, key, "old").await;
            storage
        })
    });
    // The runtime that has made the connections ends here.
    let storage = storage.join().unwrap();
    other.write(key, record("new")).await.unwrap();
    assert!(copy(&storage, key).is_none_or(|copy| copy != "old"), "nothing tells of the change any more");
    until_read(&storage, key, "new").await;
    until_copied(&storage, key, "new").await;
}
