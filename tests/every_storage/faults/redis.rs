//! Faults that only a single Redis server can have.

use libtest_mimic::Trial;
use tower_response_cache::{BodyErrorKind, ErrorKind, storage};

use super::outages::FaultTarget;
use super::test;
use super::world::{World, patient};
use crate::servers::child::{Data, Server};
use crate::servers::link::Proxy;
use crate::servers::redis::Redis;

const REFUSES: &str = "the storage takes no writes";
const TAKES: &str = "the storage takes writes again";
const PATHS: [&str; 2] = ["/1000/a", "/1000/b"];

/// One Redis server behind a link.
pub struct Alone {
    redis: Redis,
    proxy: Proxy,
}

impl Alone {
    pub fn start() -> Result<Self, String> {
        let redis = Redis::durable(&[])?;
        let proxy = Proxy::to(redis.port);
        Ok(Self { redis, proxy })
    }
}

impl FaultTarget for Alone {
    fn address(&self) -> String {
        format!("redis://127.0.0.1:{}/0?cache_name=faults", self.proxy.port())
    }

    fn server(&mut self) -> &mut Server {
        &mut self.redis.server
    }

    fn link(&self) -> &Proxy {
        &self.proxy
    }
}

/// The same with copies in memory, each of which is compared before it is served.
pub struct Tiered(Alone);

impl Tiered {
    pub fn start() -> Result<Self, String> {
        Alone::start().map(Self)
    }
}

impl FaultTarget for Tiered {
    fn address(&self) -> String {
        format!("tiered+{}&max_lag=0", self.0.address())
    }

    fn server(&mut self) -> &mut Server {
        self.0.server()
    }

    fn link(&self) -> &Proxy {
        self.0.link()
    }

    fn events(&self) -> [&'static str; 2] {
        ["the far storage does not answer", "the far storage answers again"]
    }
}

fn address(redis: &Redis) -> String {
    format!("redis://127.0.0.1:{}/0?cache_name=faults", redis.port)
}

pub fn tests() -> Vec<Trial> {
    vec![
        test("redis::full_server_serves_reads_and_keeps_invalidations", full),
        test("redis::evicting_server_gives_no_short_body", evicts),
        test("redis::body_lacking_a_chunk_is_a_miss", lacks_a_chunk),
        test("redis::replica_serves_reads_until_promoted", replica),
        test("redis::storage_recovers_when_rights_return", rights),
        test("redis::flushed_responses_are_stored_again", flushed),
        test("redis::paused_server_costs_one_deadline", paused),
        test("redis::foreign_values_are_misses", foreign),
        test("redis::loading_server_is_left_alone_until_ready", loading),
        test("redis::wrong_password_is_reported_at_once", wrong_password),
    ]
}

async fn full() -> Result<(), String> {
    let redis = Redis::start(&["--maxmemory-policy", "noeviction"])?;
    let world = World::open_with(&address(&redis), patient).await;
    world.warm(&PATHS).await;
    redis.ok(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..20 {
        assert!(world.get(PATHS[0]).await, "a stored response is a miss");
        world.misses("/1000/new").await;
    }
    world.post(PATHS[1]).await;
    for _ in 0..5 {
        world.misses(PATHS[1]).await;
    }
    assert_eq!(world.events.count(REFUSES), 1, "{:?}", world.events.all());
    redis.ok(&["CONFIG", "SET", "maxmemory", "0"]);
    world.until_hits(&[PATHS[0], PATHS[1], "/1000/new"]).await;
    world.another(&address(&redis)).await.until_hits(&PATHS).await;
    world.until_written(TAKES).await;
    assert_eq!(world.events.all().len(), 2, "{:?}", world.events.all());
    world.report("out of memory, noeviction");
    Ok(())
}

async fn evicts() -> Result<(), String> {
    let redis = Redis::start(&["--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru"])?;
    let world = World::open(&address(&redis)).await;
    let paths: Vec<String> = (0..20).map(|number| format!("/600000/{number}")).collect();
    let mut hits = 0;
    for round in 0..4 {
        for (number, path) in paths.iter().enumerate() {
            for path in [path, &paths[number / 4]] {
                match world.try_get(path).await {
                    Ok(is_hit) => hits += usize::from(is_hit),
                    // Storing other responses may evict chunks of a body in progress.
                    Err(error) => assert_eq!(error.kind(), BodyErrorKind::Storage),
                }
            }
            if (number + round) % 7 == 0 {
                world.post(path).await;
            }
        }
    }
    let evicted = redis.ok(&["INFO", "stats"]);
    assert!(!evicted.contains("evicted_keys:0\r") && hits > 0, "{hits} hits, evictions: {evicted}");
    world.report("evicts under churn, allkeys-lru");
    Ok(())
}

async fn lacks_a_chunk() -> Result<(), String> {
    let redis = Redis::start(&[])?;
    let world = World::open_with(&address(&redis), patient).await;
    let path = "/600000/long";
    for number in 0..5 {
        world.warm(&[path]).await;
        let chunks = redis.keys("faults:*:chunk:*");
        let mut slots: Vec<&str> = chunks.iter().map(|name| name.rsplit_once(':').unwrap().0).collect();
        slots.dedup();
        for slot in slots {
            redis.ok(&["DEL", &format!("{slot}:{number}")]);
        }
        assert!(!world.get(path).await, "a hit without chunk {number}");
    }
    world.until_hits(&[path]).await;
    world.report("a chunk evicted");
    Ok(())
}

async fn replica() -> Result<(), String> {
    let redis = Redis::start(&[])?;
    let world = World::open_with(&address(&redis), patient).await;
    world.warm(&PATHS).await;
    // Its new master does not exist, so it keeps its own data.
    redis.ok(&["REPLICAOF", "127.0.0.1", "9"]);
    for _ in 0..10 {
        assert!(world.get(PATHS[0]).await);
        world.misses("/1000/new").await;
    }
    world.post(PATHS[1]).await;
    world.misses(PATHS[1]).await;
    assert_eq!(world.events.count(REFUSES), 1, "{:?}", world.events.all());
    redis.ok(&["REPLICAOF", "NO", "ONE"]);
    world.until_hits(&[PATHS[0], PATHS[1], "/1000/new"]).await;
    world.another(&address(&redis)).await.until_hits(&PATHS).await;
    world.until_written(TAKES).await;
    assert_eq!(world.events.all().len(), 2, "{:?}", world.events.all());
    world.report("made a replica");
    Ok(())
}

async fn rights() -> Result<(), String> {
    let redis = Redis::start(&[])?;
    redis.ok(&["ACL", "SETUSER", "app", "on", ">secret", "~faults:*", "+@all"]);
    let address = format!("redis://app:secret@127.0.0.1:{}/0?cache_name=faults", redis.port);
    let world = World::open_with(&address, patient).await;
    world.warm(&PATHS).await;

    redis.ok(&["ACL", "SETUSER", "app", "-set", "-eval"]);
    assert!(world.get(PATHS[0]).await, "a read failed although it is allowed");
    world.post(PATHS[1]).await;
    world.misses(PATHS[1]).await;
    assert_eq!(world.events.count(REFUSES), 1, "{:?}", world.events.all());
    redis.ok(&["ACL", "SETUSER", "app", "+set", "+eval"]);
    world.until_hits(&PATHS).await;

    redis.ok(&["ACL", "SETUSER", "app", "off"]);
    redis.command(&["CLIENT", "KILL", "USER", "app"]);
    world.until_event(PATHS[0], "the storage keeps failing").await;
    world.post(PATHS[1]).await;
    redis.ok(&["ACL", "SETUSER", "app", "on"]);
    world.until_hits(&PATHS).await;
    world.report("rights taken and given back");
    Ok(())
}

async fn wrong_password() -> Result<(), String> {
    let redis = Redis::start(&["--requirepass", "secret"])?;
    let with = |password: &str| format!("redis://:{password}@127.0.0.1:{}/0?cache_name=faults", redis.port);
    let error = storage::connect(&with("wrong")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    let world = World::open(&with("secret")).await;
    world.until_hits(&PATHS).await;
    Ok(())
}

async fn loading() -> Result<(), String> {
    // Redis takes 20 ms for each key that it loads, and answers commands in between.
    let slow = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"];
    let mut redis = Redis::start(&slow)?;
    let world = World::open(&address(&redis)).await;
    let paths: Vec<String> = (0..100).map(|number| format!("/1000/{number}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    world.warm(&paths).await;
    redis.ok(&["SAVE"]);
    redis.server.launch_again(Data::Kept);
    redis.server.wait();
    assert!(redis.command(&["GET", "anything"]).starts_with("-LOADING"));
    world.until_event(paths[0], "the storage keeps failing").await;
    world.post(paths[1]).await;
    world.until_hits(&paths).await;
    world.another(&address(&redis)).await.until_hits(&paths).await;
    assert_eq!(world.events.all().len(), 2, "{:?}", world.events.all());
    world.report("LOADING");
    Ok(())
}

async fn flushed() -> Result<(), String> {
    let redis = Redis::start(&[])?;
    let world = World::open_with(&address(&redis), patient).await;
    world.warm(&["/1000/a", "/600000/long"]).await;
    redis.ok(&["FLUSHALL"]);
    assert!(!world.get("/1000/a").await);
    assert!(!world.get("/600000/long").await);
    world.until_hits(&["/1000/a", "/600000/long"]).await;
    assert_eq!(world.events.all(), Vec::<String>::new());
    world.report("FLUSHALL");
    Ok(())
}

async fn paused() -> Result<(), String> {
    let redis = Redis::start(&[])?;
    let world = World::open(&address(&redis)).await;
    world.warm(&PATHS).await;
    redis.ok(&["CLIENT", "PAUSE", "1500", "ALL"]);
    world.post(PATHS[1]).await;
    for _ in 0..4 {
        world.get(PATHS[0]).await;
        world.get(PATHS[1]).await;
    }
    world.until_hits(&PATHS).await;
    world.another(&address(&redis)).await.until_hits(&PATHS).await;
    world.report("CLIENT PAUSE");
    Ok(())
}

async fn foreign() -> Result<(), String> {
    let redis = Redis::start(&[])?;
    let world = World::open_with(&address(&redis), patient).await;
    let version = format!("{:020}\u{2}the record of a later version", u64::MAX);
    for value in [None, Some(""), Some("garbage"), Some(&*version)] {
        world.warm(&["/1000/a"]).await;
        let name = redis.keys("faults:*:head").pop().unwrap();
        match value {
            Some(value) => drop(redis.ok(&["SET", &name, value])),
            None => {
                redis.ok(&["DEL", &name]);
                redis.ok(&["RPUSH", &name, "an element"]);
            }
        }
        assert!(!world.get("/1000/a").await, "{value:?}");
        assert_eq!(world.events.all(), Vec::<String>::new());
    }
    world.until_hits(&["/1000/a"]).await;
    world.report("foreign values");
    Ok(())
}
