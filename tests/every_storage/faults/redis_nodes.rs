//! Faults of several Redis servers that form one storage.

use libtest_mimic::Trial;

use super::test;
use super::world::World;
use crate::servers::child::Data;
use crate::servers::redis::{Cluster, Sentinels};

const PATHS: [&str; 2] = ["/1000/a", "/1000/b"];

pub fn tests() -> Vec<Trial> {
    vec![
        test("redis::lost_cluster_node_leaves_others_usable", cluster),
        test("redis::sentinel_failover_is_followed", sentinels),
    ]
}

async fn cluster() -> Result<(), String> {
    let mut cluster = Cluster::start()?;
    let address = cluster.address("faults");
    let world = World::open(&address).await;
    let paths: Vec<String> = (0..12).map(|number| format!("/1000/{number}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    world.warm(&paths).await;
    cluster.0[1].server.kill();
    let mut hits = 0;
    for _ in 0..10 {
        for path in &paths {
            hits += usize::from(world.get(path).await);
        }
    }
    for path in &paths {
        world.post(path).await;
        world.get(path).await;
    }
    cluster.0[1].server.restart(Data::Kept);
    cluster.wait();
    world.until_hits(&paths).await;
    world.another(&address).await.until_hits(&paths).await;
    world.report(&format!("a cluster's node lost ({hits} hits of 120 meanwhile)"));
    assert!(hits >= 40, "the other nodes served only {hits} hits");
    Ok(())
}

async fn sentinels() -> Result<(), String> {
    let mut sentinels = Sentinels::start()?;
    let world = World::open(&sentinels.address("faults")).await;
    world.warm(&PATHS).await;
    sentinels.master.server.kill();
    world.until_hits(&PATHS).await;
    world.until_hits(&["/1000/new"]).await;
    assert!(sentinels.replica.ok(&["INFO", "replication"]).contains("role:master"));
    world.post(PATHS[0]).await;
    assert!(!world.get(PATHS[0]).await);
    world.until_hits(&PATHS).await;
    world.report("sentinels: the master killed");
    Ok(())
}
