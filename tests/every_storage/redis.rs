//! Tests the guarantees of `RedisStorage` beyond the contract.
//!
//! They are about the number of commands, expiry by Redis itself, and every way to name a server.

use std::time::{Duration, SystemTime};

use futures_util::future::{join_all, maybe_done};
use libtest_mimic::{Failed, Trial};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tower_response_cache::storage::redis::deadpool_redis::{Config, PoolConfig, Runtime};
use tower_response_cache::storage::redis::redis as driver;
use tower_response_cache::storage::{Key, Kind, Record, RedisServer, RedisStorage, Retain, Storage};
use tower_response_cache::testing::in_time;
use tower_response_cache::{ErrorKind, Timestamp};

use crate::alike;
use crate::servers::redis::{Cluster, Redis, Sentinels};
use crate::servers::{find, must_be_there};

macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub fn trials() -> Vec<Trial> {
            vec![$(one("redis", stringify!($name), || Box::pin($name()))),*]
        }
    };
}

trials![
    hits_cost_one_or_two_commands,
    records_use_native_expiry,
    clients_pools_and_settings_are_accepted,
    tls_is_used_when_configured,
    shared_pool_of_one_stays_usable,
    single_node_in_cluster_mode_works,
    cluster_node_is_refused_with_advice,
    wrong_topology_and_database_are_named,
    blocked_writes_do_not_block_reads,
    delete_expired_costs_no_command,
    reads_do_not_wait_for_unpolled_reads,
    reads_sent_together_survive_closed_connection,
    reads_do_not_depend_on_an_idle_runtime,
];

/// Returns a trial that starts its own Redis.
pub fn one(
    suite: &str,
    name: &'static str,
    body: fn() -> std::pin::Pin<Box<dyn Future<Output = ()>>>,
) -> Trial {
    let title = format!("{suite}::{name}");
    match (find("redis-server"), must_be_there()) {
        (Err(reason), true) => Trial::test(title, move || Err(Failed::from(reason))),
        (Err(reason), false) => Trial::test(title, || Ok(())).with_ignored_flag(true).with_kind(reason),
        (Ok(_), _) => Trial::test(title, move || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?
                .block_on(in_time(name, body()));
            Ok(())
        }),
    }
}

fn url(redis: &Redis) -> String {
    format!("redis://127.0.0.1:{}/0?cache_name=app", redis.port)
}

/// Returns how many commands the server has executed.
///
/// The INFO command that asks is not included, but those of earlier calls are.
fn commands(redis: &Redis) -> u64 {
    let stats = redis.ok(&["INFO", "stats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
    line.trim().parse().unwrap()
}

async fn hits_cost_one_or_two_commands() {
    let redis = Redis::start(&[]).unwrap();
    let storage = RedisStorage::connect(url(&redis)).await.unwrap();
    let mut before = 0;
    alike::hits_cost_one_or_two_requests(storage, || {
        let now = commands(&redis);
        // The INFO command of the last call is not counted.
        let count = (now - std::mem::replace(&mut before, now)) as usize - 1;
        (count, count)
    })
    .await;
}

async fn records_use_native_expiry() {
    let redis = Redis::start(&[]).unwrap();
    let storage = RedisStorage::connect(url(&redis)).await.unwrap();
    let now: Timestamp = SystemTime::now().into();
    let head = Key::head([7; 16]);
    let name = format!("app:{{{}}}:head", "07".repeat(16));
    storage.write(head, Record::new("x", Timestamp::NEVER)).await.unwrap();
    assert_eq!(redis.command(&["PTTL", &name]), "-1");
    storage.retain(&[head], Retain::AtMost(now + Duration::from_secs(600))).await.unwrap();
    let left: u64 = redis.command(&["PTTL", &name]).parse().unwrap();
    assert!((590_000..=600_000).contains(&left), "{left}");
    assert!(
        redis
            .ok(&["GETRANGE", &name, "0", "19"])
            .ends_with(&(now + Duration::from_secs(600)).as_millis().to_string())
    );
    storage.retain(&[head], Retain::AtLeast(Timestamp::NEVER)).await.unwrap();
    assert_eq!(redis.command(&["PTTL", &name]), "-1");
    let chunk = head.sibling(Kind::Chunk, [1; 16], 3);
    storage.write(chunk, Record::new("x", now + Duration::from_millis(50))).await.unwrap();
    let name = format!("app:{{{}}}:chunk:{}:3", "07".repeat(16), "01".repeat(16));
    assert!(redis.command(&["PTTL", &name]).parse::<i64>().unwrap() <= 50);
    let began = std::time::Instant::now();
    while storage.read(chunk).await.unwrap().is_some() {
        assert!(began.elapsed() < Duration::from_secs(10), "the server does not delete the expired record");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn works(what: &str, server: impl Into<RedisServer>) {
    let storage = RedisStorage::builder(server).cache_name(what).connect().await.unwrap();
    storage.check().await.unwrap();
    storage.write(Key::head([1; 16]), Record::new("kept", Timestamp::NEVER)).await.unwrap();
    assert_eq!(storage.read(Key::head([1; 16])).await.unwrap().unwrap().payload(), "kept", "{what}");
    assert_eq!(storage.size().await.unwrap(), 1, "{what}");
}

async fn clients_pools_and_settings_are_accepted() {
    let redis = Redis::start(&["--unixsocket", "redis.sock"]).unwrap();
    let plain = format!("redis://127.0.0.1:{}/0", redis.port);
    works("an-address", plain.as_str()).await;
    works("a-database", format!("redis://127.0.0.1:{}/3", redis.port)).await;
    works("the-third-protocol", format!("{plain}?protocol=resp3")).await;
    works("a-socket", format!("redis+unix://{}/redis.sock?db=4", redis.server.folder().display())).await;
    works("a-client", driver::Client::open(plain.as_str()).unwrap()).await;
    works(
        "settings of a connection",
        driver::IntoConnectionInfo::into_connection_info(plain.as_str()).unwrap(),
    )
    .await;
    let mut config = Config::from_url(plain.as_str());
    config.pool = Some(PoolConfig::new(1));
    works("settings-of-a-pool", config.clone()).await;
    works("a-pool", config.create_pool(Some(Runtime::Tokio1)).unwrap()).await;
    assert_eq!(redis.keys("a-pool:*").len(), 1);

    let cluster = Cluster::start().unwrap();
    let nodes = cluster.0.iter().map(|node| format!("redis://127.0.0.1:{}", node.port));
    works("a-client-of-a-cluster", driver::cluster::ClusterClient::new(nodes.collect::<Vec<_>>()).unwrap())
        .await;

    let sentinels = Sentinels::start().unwrap();
    let address = sentinels.address("x");
    let sentinel =
        format!("redis://{}", address["redis+sentinel://".len()..].split(['/', ',']).next().unwrap());
    let client = driver::sentinel::SentinelClient::build(
        vec![sentinel],
        "main",
        None,
        driver::sentinel::SentinelServerType::Master,
    );
    works("a-client-of-sentinels", client.unwrap()).await;
    assert_eq!(sentinels.master.keys("a-client-of-sentinels:*").len(), 1);
}

async fn shared_pool_of_one_stays_usable() {
    let redis = Redis::start(&[]).unwrap();
    let mut config = Config::from_url(url(&redis).split('?').next().unwrap());
    config.pool = Some(PoolConfig::new(1));
    let pool = config.create_pool(Some(Runtime::Tokio1)).unwrap();
    let storage = RedisStorage::builder(pool.clone()).connections(4).connect().await.unwrap();
    storage.write(Key::head([1; 16]), Record::new("x", Timestamp::NEVER)).await.unwrap();
    let mut connection = tokio::time::timeout(Duration::from_secs(10), pool.get()).await.unwrap().unwrap();
    let answer: String = driver::cmd("PING").query_async(&mut connection).await.unwrap();
    assert_eq!(answer, "PONG");
    assert!(
        storage.contains(Key::head([1; 16])).await.unwrap(),
        "the storage needs the connection that the owner of the pool holds"
    );
}

async fn tls_is_used_when_configured() {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let own = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&own, &authority).unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (root, chain, key) = (
        file("ca.pem", authority.pem()),
        file("server.pem", certificate.pem()),
        file("key.pem", own.serialize_pem()),
    );
    let port = crate::servers::child::free_port().to_string();
    let settings = [
        ["--tls-port", &port],
        ["--tls-cert-file", &chain],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &root],
        ["--tls-auth-clients", "no"],
    ];
    let redis = Redis::start(&settings.concat()).unwrap();
    let certificates =
        driver::TlsCertificates { client_tls: None, root_cert: Some(authority.pem().into_bytes()) };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = driver::Client::build_with_tls(format!("rediss://localhost:{port}"), certificates).unwrap();
    works("by-TLS", client).await;
    // No known authority signed the certificate, so an address alone does not trust it. The storage must not fall back
    // to plain text.
    let stranger = RedisStorage::builder(format!("rediss://localhost:{port}")).build().unwrap();
    let refused = stranger.check().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    assert!(refused.to_string().contains("certificate of redis is not trusted"), "{refused:?}");
    let refused = RedisStorage::builder(format!("redis://localhost:{port}")).build().unwrap().check().await;
    assert!(refused.unwrap_err().to_string().contains("if it expects TLS, connect by rediss://"));
    let plain = RedisStorage::builder(format!("rediss://localhost:{}", redis.port)).build().unwrap();
    let refused = plain.check().await.unwrap_err();
    assert!(refused.to_string().contains("does not answer by TLS"), "{refused:?}");
}

/// Starts a server in cluster mode that has all slots.
fn alone_in_cluster_mode() -> Redis {
    let redis = Redis::start(&["--cluster-enabled", "yes"]).unwrap();
    redis.ok(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let begun = std::time::Instant::now();
    while !redis.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
        assert!(begun.elapsed() < Duration::from_secs(20), "the cluster of one is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    redis
}

async fn single_node_in_cluster_mode_works() {
    let redis = alone_in_cluster_mode();
    let storage = RedisStorage::connect(url(&redis)).await.unwrap();
    let until = Timestamp::from(SystemTime::now()) + Duration::from_secs(1000);
    let later = until + Duration::from_secs(80_000);
    let keys: Vec<Key> = (0..20)
        .flat_map(|n| [Key::head([n; 16]), Key::head([n; 16]).sibling(Kind::Chunk, [1; 16], 0)])
        .collect();
    for key in &keys {
        storage.write(*key, Record::new("x", until)).await.unwrap();
    }
    assert!(storage.contains_all(&keys).await.unwrap());
    assert_eq!(storage.retain(&keys, Retain::AtLeast(later)).await.unwrap(), 40);
    for key in &keys {
        assert_eq!(storage.read(*key).await.unwrap().unwrap().retain_until(), later);
    }
    assert_eq!(storage.delete_many(&keys[..20]).await.unwrap(), 20);
    storage.clear().await.unwrap();
    assert!(redis.keys("*").is_empty());
}

async fn cluster_node_is_refused_with_advice() {
    let cluster = Cluster::start().unwrap();
    for node in &cluster.0 {
        let error = RedisStorage::connect(url(node)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("redis+cluster://"), "{error}");
    }
}

async fn wrong_topology_and_database_are_named() {
    let redis = Redis::start(&["--databases", "2"]).unwrap();
    let port = redis.port;
    let node = alone_in_cluster_mode();
    RedisStorage::connect(format!("redis://127.0.0.1:{port}/1")).await.unwrap();
    for (address, named) in [
        (format!("redis://127.0.0.1:{port}/2"), "no database of this number"),
        (format!("redis+cluster://127.0.0.1:{port}"), "this redis is no cluster: connect by redis://"),
        (format!("redis+sentinel://127.0.0.1:{port}?master=main"), "this server is no sentinel"),
        (format!("redis://127.0.0.1:{}/1", node.port), "connect by redis+cluster://"),
    ] {
        let error = RedisStorage::connect(&*address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{address}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(named) && !text.contains("127.0.0.1"), "{address}: {text}");
    }
    redis.ok(&["CONFIG", "SET", "requirepass", "right"]);
    for address in
        [format!("redis://:wrong@127.0.0.1:{port}"), format!("redis+cluster://:wrong@127.0.0.1:{port}")]
    {
        let error = RedisStorage::connect(&*address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{address}: {error:?}");
    }
}

async fn blocked_writes_do_not_block_reads() {
    let redis = Redis::start(&[]).unwrap();
    let storage = RedisStorage::connect(url(&redis)).await.unwrap();
    let key = Key::head([1; 16]);
    storage.write(key, Record::new("x", Timestamp::NEVER)).await.unwrap();
    redis.ok(&["CLIENT", "PAUSE", "100000", "WRITE"]);
    let writes: Vec<_> = (0..20)
        .map(|number| {
            let storage = storage.clone();
            tokio::spawn(async move {
                let write = storage.write(Key::head([number + 2; 16]), Record::new("y", Timestamp::NEVER));
                // The write is dropped when it takes too long, as in the cache.
                tokio::time::timeout(Duration::from_millis(500), write).await.is_ok()
            })
        })
        .collect();
    for _ in 0..100 {
        let read = tokio::time::timeout(Duration::from_secs(5), storage.read(key)).await;
        assert!(read.expect("a read waits for writes").unwrap().is_some());
    }
    for write in writes {
        assert!(!write.await.unwrap(), "a write ended although writes are paused");
    }
    let read = tokio::time::timeout(Duration::from_secs(5), storage.read(key)).await;
    assert!(read.expect("a read waits for abandoned writes").unwrap().is_some());
    redis.ok(&["CLIENT", "UNPAUSE"]);
}

/// As many reads at once as are sent in several batches.
const READS: u8 = 100;

async fn store_numbers(storage: &RedisStorage) {
    for number in 0..READS {
        let record = Record::new(vec![number; 1000], Timestamp::NEVER);
        storage.write(Key::head([number; 16]), record).await.unwrap();
    }
}

async fn read_numbers(storage: &RedisStorage) {
    let reads = join_all((0..READS).map(|number| storage.read(Key::head([number; 16]))));
    let records = tokio::time::timeout(Duration::from_secs(60), reads).await.expect("no read waits forever");
    for (number, record) in records.into_iter().enumerate() {
        assert_eq!(record.unwrap().unwrap().payload(), vec![number as u8; 1000], "record {number}");
    }
}

async fn reads_do_not_wait_for_unpolled_reads() {
    let redis = Redis::start(&[]).unwrap();
    let storage = RedisStorage::connect(url(&redis)).await.unwrap();
    store_numbers(&storage).await;
    // On a busy machine the answer to a read may be there before the last of them is polled, and a later read take it.
    let read = |number| Box::pin(maybe_done(storage.read(Key::head([number; 16]))));
    let mut held: Vec<_> = (0..READS).map(read).collect();
    for read in &mut held {
        let _ = futures_util::poll!(read);
    }
    read_numbers(&storage).await;
    // Dropped reads leave nothing behind that later ones wait for.
    held.truncate(usize::from(READS / 2));
    read_numbers(&storage).await;
    for (number, mut read) in held.into_iter().enumerate() {
        read.as_mut().await;
        let record = read.as_mut().take_output().expect("a read that has ended has a record");
        assert_eq!(record.unwrap().unwrap().payload(), vec![number as u8; 1000]);
    }
}

async fn reads_sent_together_survive_closed_connection() {
    let redis = Redis::start(&[]).unwrap();
    let storage = RedisStorage::connect(url(&redis)).await.unwrap();
    store_numbers(&storage).await;
    for _ in 0..3 {
        read_numbers(&storage).await;
        redis.ok(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    read_numbers(&storage).await;
}

async fn reads_do_not_depend_on_an_idle_runtime() {
    let redis = Redis::start(&[]).unwrap();
    let storage = RedisStorage::connect(url(&redis)).await.unwrap();
    store_numbers(&storage).await;
    // These reads have begun in a runtime that is kept, and that no thread drives afterwards.
    let others = storage.clone();
    let idle_runtime = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut reads: Vec<_> =
                (0..READS).map(|number| Box::pin(others.read(Key::head([number; 16])))).collect();
            for read in &mut reads {
                let _ = futures_util::poll!(read);
            }
        });
        runtime
    });
    let idle_runtime = idle_runtime.join().unwrap();
    read_numbers(&storage).await;
    // Dropping a runtime blocks, which no task of another one may.
    std::thread::spawn(move || drop(idle_runtime)).join().unwrap();
    read_numbers(&storage).await;
}

async fn delete_expired_costs_no_command() {
    let redis = Redis::start(&[]).unwrap();
    let storage = RedisStorage::connect(url(&redis)).await.unwrap();
    let now = Timestamp::from(SystemTime::now());
    for number in 0..50 {
        storage.write(Key::head([number; 16]), Record::new("x", Timestamp::NEVER)).await.unwrap();
    }
    let before = commands(&redis);
    assert_eq!(storage.delete_expired(now).await.unwrap(), 0);
    assert_eq!(commands(&redis), before + 1, "commands other than the INFO of `commands`");
    assert_eq!(storage.size().await.unwrap(), 50);
}
