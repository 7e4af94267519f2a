//! Measures how old the oldest record is that two levels over a Redis cluster serve.
//!
//! `cargo bench --features redis --bench staleness -- [calm|moving|failover|stopped] [seconds]`
//!
//! One process changes records at random, and another reads them through two levels at full rate. A read is stale if it returns
//! a record although the write of the next one had returned before the read began. The program starts a cluster of its own, and
//! moves slots, promotes replicas, or stops a node meanwhile.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::future_not_send)]

#[path = "../tests/servers/mod.rs"]
mod servers;

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use servers::redis::{Cluster, Redis};
use tower_response_cache::Timestamp;
use tower_response_cache::storage::{Key, Record, Storage, connect};

const KEYS: u16 = 1000;
const TASKS: usize = 4;

fn key(number: u16) -> Key {
    let mut entry = [0; 16];
    entry[..2].copy_from_slice(&number.wrapping_mul(40503).to_be_bytes());
    entry[2..4].copy_from_slice(&number.to_be_bytes());
    Key::head(entry)
}

/// Returns the time in microseconds, which both processes measure by the same clock.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64
}

fn version(record: &Record) -> u64 {
    u64::from_be_bytes(record.payload()[..8].try_into().unwrap())
}

/// The other process: writes new versions, and prints when each write had returned.
async fn write(address: &str, seconds: u64) {
    // Two levels here as well, since they find the replica of a master that hangs.
    let storage = connect(&format!("tiered+{address}")).await.unwrap();
    let (began, mut versions) = (Instant::now(), HashMap::<u16, u64>::new());
    let mut out = std::io::BufWriter::new(std::io::stdout());
    while began.elapsed() < Duration::from_secs(seconds) {
        let number = fastrand::u16(..KEYS);
        let version = versions.entry(number).or_default();
        *version += 1;
        let record = Record::new(version.to_be_bytes().to_vec(), Timestamp::NEVER);
        let write =
            tokio::time::timeout(Duration::from_millis(500), storage.write(key(number), record)).await;
        if write.is_ok_and(|written| written.is_ok()) {
            writeln!(out, "{number} {version} {}", now()).unwrap();
        }
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    out.flush().unwrap();
}

/// Moves a slot with its keys.
fn move_slot(cluster: &Cluster, slot: u16, from: usize, to: usize) {
    let (source, target, slot) = (&cluster.0[from], &cluster.0[to], slot.to_string());
    let ids = [source, target].map(|node| node.ok(&["CLUSTER", "MYID"]));
    target.ok(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]);
    source.ok(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]);
    std::thread::sleep(Duration::from_millis(200));
    for name in source.ok(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).split_whitespace() {
        source.ok(&["MIGRATE", "127.0.0.1", &target.port.to_string(), name, "0", "5000"]);
    }
    std::thread::sleep(Duration::from_millis(200));
    for node in [target, source] {
        node.ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]);
    }
}

/// Does to the cluster what is to be measured, until the end.
fn disturb(cluster: &Cluster, replica: Option<&Redis>, mode: &str, ended: &AtomicBool) -> usize {
    let mut done = 0;
    let pause = |millis| std::thread::sleep(Duration::from_millis(millis));
    let slots: Vec<u16> = (0..KEYS)
        .map(|number| format!("app:{{{}}}:head", &key(number).to_string()[..32]))
        .map(|name| cluster.0[0].ok(&["CLUSTER", "KEYSLOT", &name]).parse().unwrap())
        .filter(|slot| *slot <= 5460)
        .collect();
    let mut at_target = std::collections::HashSet::new();
    while !ended.load(Ordering::Relaxed) {
        match (mode, replica) {
            ("moving", _) => {
                let slot = slots[fastrand::usize(..slots.len())];
                let back = !at_target.insert(slot);
                let (from, to) = if back { (1, 0) } else { (0, 1) };
                if back {
                    at_target.remove(&slot);
                }
                move_slot(cluster, slot, from, to);
                done += 1;
                pause(50);
            }
            ("failover", Some(replica)) => {
                let is_master = replica.ok(&["ROLE"]).starts_with("master");
                let next = if is_master { &cluster.0[0] } else { replica };
                next.command(&["CLUSTER", "FAILOVER"]);
                pause(6000);
                done += usize::from(next.ok(&["ROLE"]).starts_with("master"));
            }
            ("stopped", Some(replica)) => {
                // The replica takes over, and the old master comes back without knowing it.
                let is_master = replica.ok(&["ROLE"]).starts_with("master");
                let (master, next) =
                    if is_master { (replica, &cluster.0[0]) } else { (&cluster.0[0], replica) };
                // A replica that has not got the data yet would lose what was written.
                while !next.ok(&["INFO", "replication"]).contains("master_link_status:up") {
                    pause(50);
                }
                master.server.stop();
                pause(5000);
                done += usize::from(next.ok(&["ROLE"]).starts_with("master"));
                master.server.go_on();
                pause(4000);
            }
            _ => pause(50),
        }
    }
    done
}

async fn measure(mode: &str, seconds: u64) {
    let cluster = Cluster::start().unwrap();
    let replica = matches!(mode, "failover" | "stopped").then(|| cluster.add_replica(0));
    let address = cluster.address("app");
    let storage = connect(&format!("tiered+{address}")).await.unwrap();
    for number in 0..KEYS {
        storage.write(key(number), Record::new(vec![0; 8], Timestamp::NEVER)).await.unwrap();
    }
    let ended = Arc::new(AtomicBool::new(false));
    let (reads, copies, errors) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let counts = Arc::new((reads, copies, errors));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (storage, ended, counts) = (storage.clone(), Arc::clone(&ended), Arc::clone(&counts));
            tokio::spawn(async move {
                // For each version of each key, when the last read began that has returned it.
                let mut seen = HashMap::<(u16, u64), u64>::new();
                let mut longest = Duration::ZERO;
                while !ended.load(Ordering::Relaxed) {
                    let number = fastrand::u16(..KEYS);
                    let (began, began_at) = (Instant::now(), now());
                    counts.0.fetch_add(1, Ordering::Relaxed);
                    let record = match storage.read_now(key(number)) {
                        Some(copy) => {
                            counts.1.fetch_add(1, Ordering::Relaxed);
                            copy
                        }
                        None => storage.read(key(number)).await,
                    };
                    longest = longest.max(began.elapsed());
                    match record {
                        Ok(Some(record)) => {
                            seen.insert((number, version(&record)), began_at);
                        }
                        Ok(None) => {}
                        Err(_) => {
                            counts.2.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    tokio::task::yield_now().await;
                }
                (seen, longest)
            })
        })
        .collect();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .env("STALENESS_WRITES", &address)
        .env("STALENESS_SECONDS", seconds.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(other.stdout.take().unwrap());
    let written = std::thread::spawn(move || {
        let number = |word: &str| word.parse::<u64>().unwrap();
        let line = |line: std::io::Result<String>| {
            let line = line.unwrap();
            let words: Vec<u64> = line.split(' ').map(number).collect();
            ((words[0] as u16, words[1]), words[2])
        };
        // Without the writes that failed, which may have taken effect all the same.
        out.lines().map(line).collect::<BTreeMap<_, _>>()
    });
    let disturbed = {
        let (ended, mode) = (Arc::clone(&ended), mode.to_owned());
        std::thread::spawn(move || disturb(&cluster, replica.as_ref(), &mode, &ended))
    };
    let written = tokio::task::spawn_blocking(move || written.join().unwrap()).await.unwrap();
    other.wait().unwrap();
    ended.store(true, Ordering::Relaxed);
    let (mut ages, mut longest) = (Vec::new(), Duration::ZERO);
    for task in tasks {
        let (seen, longest_here) = task.await.unwrap();
        longest = longest.max(longest_here);
        for ((number, version), began_at) in seen {
            if let Some((_, returned_at)) = written.range((number, version + 1)..(number + 1, 0)).next() {
                ages.push(began_at.saturating_sub(*returned_at));
            }
        }
    }
    let disturbed = tokio::task::spawn_blocking(move || disturbed.join().unwrap()).await.unwrap();
    // A copy that is stale by now stays stale. Each is compared with the record that another connection reads.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (direct, mut differing) = (connect(&address).await.unwrap(), 0);
    for number in 0..KEYS {
        let [served, there] = [storage.read(key(number)).await, direct.read(key(number)).await];
        let version =
            |record: Result<Option<Record>, _>| record.ok().flatten().map(|record| version(&record));
        differing += usize::from(version(served) != version(there));
    }
    ages.sort_unstable();
    let millis = |part: f64| ages[((ages.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    let (reads, copies, errors) = (&counts.0, &counts.1, &counts.2);
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{mode}, {seconds} s, {disturbed} disturbances: {} reads, {} from copies, {} failed, the longest {} ms; {} writes; \
         the last read of a replaced version began {:.2} ms (median), {:.2} ms (99 %), {:.1} ms (longest) after its \
         replacement had returned; {differing} of {KEYS} records differ at the end",
        count(reads),
        count(copies),
        count(errors),
        longest.as_millis(),
        written.len(),
        millis(0.5),
        millis(0.99),
        millis(1.0),
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(address) = std::env::var("STALENESS_WRITES") {
        let seconds = std::env::var("STALENESS_SECONDS").unwrap().parse().unwrap();
        return runtime.block_on(write(&address, seconds));
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let mode = words.first().map_or("calm", String::as_str);
    let seconds = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(30);
    runtime.block_on(measure(mode, seconds));
}
