//! Random operations on the storage, compared with those on a map.
//!
//! They have the same results however the storage is opened.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use tower_response_cache::storage::sqlite::rusqlite::Connection;
use tower_response_cache::storage::{BoxStorage, Key, Kind, Record, Retain, SqliteStorage, Stamp, Storage};
use tower_response_cache::{Clock, Timestamp};

use super::directory;

/// A random number generator (xorshift) with a seed, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn key(&mut self) -> Key {
        let entry = [self.roll(4) as u8; 16];
        match self.roll(4) {
            0 => Key::head(entry),
            1 => Key { entry, kind: Kind::Variant, slot: [self.roll(2) as u8; 16], part: 0 },
            2 => {
                Key { entry, kind: Kind::Chunk, slot: [9; 16], part: [0, 1, u32::MAX][self.roll(3) as usize] }
            }
            _ => Key { entry, kind: Kind::Group, slot: [0; 16], part: 0 },
        }
    }

    fn keys(&mut self) -> Vec<Key> {
        let mut keys: Vec<Key> = (0..self.roll(5)).map(|_| self.key()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn time(&mut self) -> Timestamp {
        if self.roll(4) == 0 { Timestamp::NEVER } else { Timestamp::from_millis(self.roll(1000)) }
    }

    fn record(&mut self) -> Record {
        let len = [0, 1, 100, 4096, 70_000][self.roll(5) as usize];
        Record::new(vec![self.roll(256) as u8; len], self.time())
    }
}

async fn agrees_with_a_map<S: Storage>(storage: S, seed: u64) {
    let mut dice = Dice(seed);
    let mut map: BTreeMap<Key, Record> = BTreeMap::new();
    for step in 0..400 {
        let at = format!("seed {seed}, step {step}");
        let key = dice.key();
        match dice.roll(12) {
            0..3 => {
                let record = dice.record();
                storage.write(key, record.clone()).await.unwrap();
                map.insert(key, record);
            }
            3..6 => {
                let record = dice.record();
                let there = map.get(&key).map(Record::stamp);
                let seen = [there, None, Some(Stamp::random())][dice.roll(3) as usize];
                let is_written = storage.write_if(key, seen, record.clone()).await.unwrap();
                assert_eq!(is_written, seen == there, "{at}");
                if is_written {
                    assert!(storage.write_if(key, seen, record.clone()).await.unwrap(), "repeated: {at}");
                    map.insert(key, record);
                }
            }
            6 => assert_eq!(storage.delete(key).await.unwrap(), map.remove(&key).is_some(), "{at}"),
            7 => {
                let keys = dice.keys();
                let there = keys.iter().filter(|key| map.remove(key).is_some()).count() as u64;
                assert_eq!(storage.delete_many(&keys).await.unwrap(), there, "{at}");
            }
            8 | 9 => {
                let (keys, time) = (dice.keys(), dice.time());
                let retain = if dice.roll(2) == 0 { Retain::AtLeast(time) } else { Retain::AtMost(time) };
                let mut there = 0;
                for key in &keys {
                    if let Some(record) = map.get_mut(key) {
                        there += 1;
                        *record = record.clone().with_retain_until(retain.apply(record.retain_until()));
                    }
                }
                assert_eq!(storage.retain(&keys, retain).await.unwrap(), there, "{at}");
            }
            10 => {
                let (now, before) = (Timestamp::from_millis(dice.roll(300)), map.len());
                map.retain(|_, record| record.retain_until() > now);
                assert_eq!(storage.delete_expired(now).await.unwrap(), (before - map.len()) as u64, "{at}");
            }
            _ if dice.roll(10) == 0 => {
                storage.clear().await.unwrap();
                map.clear();
            }
            _ => {}
        }
        let same = |read: Option<Record>, kept: Option<&Record>| {
            let parts = |record: &Record| (record.payload(), record.stamp(), record.retain_until());
            assert_eq!(read.as_ref().map(parts), kept.map(parts), "{at}");
        };
        let key = dice.key();
        same(storage.read(key).await.unwrap(), map.get(&key));
        if let Some(read) = storage.read_now(key) {
            same(read.unwrap(), map.get(&key));
        }
        assert_eq!(storage.contains(key).await.unwrap(), map.contains_key(&key), "{at}");
        if step % 20 == 0 {
            let keys: Vec<Key> = storage.keys().try_collect().await.unwrap();
            assert!(keys.iter().eq(map.keys()), "{at}");
            let values: Vec<(Key, Record)> = storage.values().try_collect().await.unwrap();
            let listed: Vec<_> = map.iter().filter(|(key, _)| key.kind.is_listed()).collect();
            assert_eq!(storage.size().await.unwrap(), listed.len() as u64, "{at}");
            assert_eq!(values.len(), listed.len(), "{at}");
            for ((key, value), (listed, record)) in values.into_iter().zip(listed) {
                assert_eq!(key, *listed, "{at}");
                same(Some(value), Some(record));
            }
        }
    }
}

#[tokio::test]
async fn random_operations_agree_with_a_map() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    for seed in 1..6 {
        let file = |way: &str| path(&format!("{way}-{seed}"));
        agrees_with_a_map(SqliteStorage::open(file("default")).await.unwrap(), seed).await;
        let in_task = SqliteStorage::builder(file("in task")).read_in_task(true);
        agrees_with_a_map(in_task.open().await.unwrap(), seed).await;
        let without = SqliteStorage::builder(file("no readers")).readers(0);
        agrees_with_a_map(without.open().await.unwrap(), seed).await;
        let ready = SqliteStorage::builder("").connection(Connection::open_in_memory().unwrap());
        agrees_with_a_map(ready.open().await.unwrap(), seed).await;
        let boxed = BoxStorage::new(SqliteStorage::open(file("boxed")).await.unwrap());
        agrees_with_a_map(boxed, seed).await;
    }
}

#[tokio::test]
async fn totals_agree_after_random_operations() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    for seed in 10..15 {
        let (clock, _) = Clock::mock();
        let storage = SqliteStorage::builder(&path).clock(clock).open().await.unwrap();
        storage.clear().await.unwrap();
        agrees_with_a_map(storage, seed).await;
        let connection = Connection::open(&path).unwrap();
        let differing: i64 = connection
            .query_row(
                "SELECT abs((SELECT bytes FROM totals) - (SELECT ifnull(sum(size), 0) FROM records))
                + (SELECT count(*) FROM records r LEFT JOIN contents c ON c.id = r.content WHERE c.id IS NULL)
                + abs((SELECT count(*) FROM records) - (SELECT count(*) FROM contents))
                + (SELECT count(*) FROM entries e WHERE e.size <> (SELECT sum(size) FROM records r
                    WHERE r.entry = e.entry) OR e.records <> (SELECT count(*) FROM records r
                    WHERE r.entry = e.entry))
                + abs((SELECT count(*) FROM entries) - (SELECT count(DISTINCT entry) FROM records))",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(differing, 0, "seed {seed}");
    }
}
