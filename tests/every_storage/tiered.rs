//! Two levels over Redis: the signal of changes by client tracking, and what happens when it is lost.

use std::time::Duration;

use libtest_mimic::Trial;
use tower_response_cache::Timestamp;
use tower_response_cache::storage::{Key, Record, Storage, connect};

use crate::redis::one;
use crate::servers::link::Proxy;
use crate::servers::redis::{Redis, Sentinels};

const HEAD: Key = Key::head([1; 16]);
/// Long enough that a copy which the test sees replaced was replaced by the signal.
const LONG_LAG: &str = "max_lag=1h";

macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub fn trials() -> Vec<Trial> {
            vec![$(one("tiered", stringify!($name), || Box::pin($name()))),*]
        }
    };
}

trials![
    change_by_another_process_is_seen_by_signal,
    sentinels_lead_to_the_signal_of_the_master,
    flushed_database_empties_the_near_level,
    killed_connection_empties_the_near_level,
    silent_link_serves_no_copy_beyond_max_lag,
    server_without_permission_leaves_max_lag,
    signal_begins_anew_in_another_runtime,
];

fn record(payload: impl Into<String>) -> Record {
    Record::new(payload.into(), Timestamp::NEVER)
}

async fn read(storage: &impl Storage) -> Option<String> {
    let record = storage.read(HEAD).await.unwrap()?;
    Some(String::from_utf8(record.payload().to_vec()).unwrap())
}

fn copy(storage: &impl Storage) -> Option<String> {
    let record = storage.read_now(HEAD)?.unwrap()?;
    Some(String::from_utf8(record.payload().to_vec()).unwrap())
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// Waits until the storage has a signal and a copy of the record.
async fn until_copied(storage: &impl Storage, payload: &str) {
    while storage.change_count(HEAD, Duration::from_secs(1)).is_none() {
        pause().await;
    }
    while copy(storage).as_deref() != Some(payload) {
        storage.read(HEAD).await.unwrap();
        pause().await;
    }
}

async fn sees_changes(address: &str) {
    let other = connect(address).await.unwrap();
    let storage = connect(&format!("tiered+{address}&{LONG_LAG}")).await.unwrap();
    other.write(HEAD, record("first")).await.unwrap();
    until_copied(&storage, "first").await;
    for number in 0..20 {
        let payload = format!("record {number}");
        match number % 3 {
            0 => other.write(HEAD, record(payload.clone())).await.unwrap(),
            1 => {
                let seen = other.read(HEAD).await.unwrap().unwrap().stamp();
                assert!(other.write_if(HEAD, Some(seen), record(payload.clone())).await.unwrap());
            }
            _ => {
                assert!(other.delete(HEAD).await.unwrap());
                while read(&storage).await.is_some() {
                    pause().await;
                }
                assert!(other.write_if(HEAD, None, record(payload.clone())).await.unwrap());
            }
        }
        while read(&storage).await.as_deref() != Some(&*payload) {
            pause().await;
        }
        until_copied(&storage, &payload).await;
    }
}

async fn change_by_another_process_is_seen_by_signal() {
    let redis = Redis::start(&[]).unwrap();
    sees_changes(&format!("redis://127.0.0.1:{}/0?cache_name=app", redis.port)).await;
    // Names with other meanings in patterns, and a database of its own.
    sees_changes(&format!("redis://127.0.0.1:{}/3?cache_name=a%2A%5Bb", redis.port)).await;
}

async fn sentinels_lead_to_the_signal_of_the_master() {
    let sentinels = Sentinels::start().unwrap();
    sees_changes(&sentinels.address("app")).await;
}

async fn flushed_database_empties_the_near_level() {
    let redis = Redis::start(&[]).unwrap();
    let address = format!("tiered+redis://127.0.0.1:{}/0?{LONG_LAG}", redis.port);
    let storage = connect(&address).await.unwrap();
    storage.write(HEAD, record("kept")).await.unwrap();
    until_copied(&storage, "kept").await;
    redis.ok(&["FLUSHALL"]);
    while read(&storage).await.is_some() {
        pause().await;
    }
    assert_eq!(copy(&storage), None);
}

async fn killed_connection_empties_the_near_level() {
    let redis = Redis::start(&[]).unwrap();
    let other = connect(&format!("redis://127.0.0.1:{}/0", redis.port)).await.unwrap();
    let address = format!("tiered+redis://127.0.0.1:{}/0?{LONG_LAG}", redis.port);
    let storage = connect(&address).await.unwrap();
    for number in 0..5 {
        let (old, new) = (format!("old {number}"), format!("new {number}"));
        storage.write(HEAD, record(old.clone())).await.unwrap();
        until_copied(&storage, &old).await;
        let before = storage.change_count(HEAD, Duration::from_secs(1)).unwrap();
        // All connections, so that neither the signal nor an answer tells of the change.
        redis.ok(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        let script =
            "for _, name in ipairs(redis.call('KEYS', '*:head')) do redis.call('DEL', name) end return 0";
        redis.ok(&["EVAL", script, "0"]);
        while storage.change_count(HEAD, Duration::from_secs(1)) == Some(before) {
            pause().await;
        }
        assert_ne!(copy(&storage), Some(old));
        other.write(HEAD, record(new.clone())).await.unwrap();
        while read(&storage).await.as_deref() != Some(&*new) {
            pause().await;
        }
    }
}

async fn silent_link_serves_no_copy_beyond_max_lag() {
    let redis = Redis::start(&[]).unwrap();
    let link = Proxy::to(redis.port);
    let other = connect(&format!("redis://127.0.0.1:{}/0", redis.port)).await.unwrap();
    let address = format!("tiered+redis://127.0.0.1:{}/0?max_lag=500ms", link.port());
    let storage = connect(&address).await.unwrap();
    storage.write(HEAD, record("old")).await.unwrap();
    until_copied(&storage, "old").await;
    link.set(|link| link.hangs = true);
    other.write(HEAD, record("new")).await.unwrap();
    let changed = std::time::Instant::now();
    // Neither the message nor an answer arrives, but the time runs out.
    loop {
        let began = std::time::Instant::now();
        if copy(&storage).is_none() {
            break;
        }
        assert!(began.duration_since(changed) <= Duration::from_millis(500), "a copy outlived the lag");
        pause().await;
    }
    storage.read(HEAD).await.expect_err("the far storage does not answer");
    assert_eq!(copy(&storage), None);
    link.heal();
    while storage.read(HEAD).await.map(|record| record.map(|record| record.payload())).ok().flatten()
        != Some("new".into())
    {
        pause().await;
    }
}

async fn server_without_permission_leaves_max_lag() {
    let redis = Redis::start(&[]).unwrap();
    redis.ok(&["ACL", "SETUSER", "app", "on", ">word", "~*", "&*", "+@all", "-client|tracking"]);
    let other = connect(&format!("redis://127.0.0.1:{}/0", redis.port)).await.unwrap();
    let address = format!("tiered+redis://app:word@127.0.0.1:{}/0?max_lag=50ms", redis.port);
    let storage = connect(&address).await.unwrap();
    for payload in ["one", "two", "three"] {
        other.write(HEAD, record(payload)).await.unwrap();
        while read(&storage).await.as_deref() != Some(payload) {
            pause().await;
        }
        assert_eq!(storage.change_count(HEAD, Duration::from_secs(1)), None);
    }
}

async fn signal_begins_anew_in_another_runtime() {
    let redis = Redis::start(&[]).unwrap();
    let address = format!("tiered+redis://127.0.0.1:{}/0?{LONG_LAG}", redis.port);
    let other = connect(&format!("redis://127.0.0.1:{}/0", redis.port)).await.unwrap();
    let storage = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let storage = connect(&address).await.unwrap();
            storage.write(HEAD, record("old")).await.unwrap();
            until_copied(&storage, "old").await;
            storage
        })
    });
    // The runtime that has made the connection ends here.
    let storage = storage.join().unwrap();
    other.write(HEAD, record("new")).await.unwrap();
    assert_ne!(copy(&storage).as_deref(), Some("old"), "nothing tells of the change any more");
    while storage.read(HEAD).await.is_err() {
        pause().await;
    }
    until_copied(&storage, "new").await;
}
