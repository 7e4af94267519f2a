//! The storage contract, on every storage of this crate and on the example of one's own.
#![allow(unreachable_pub, clippy::unwrap_used)]

#[path = "../examples/custom_storage.rs"]
mod custom_storage;

use tower_response_cache::Result;
use tower_response_cache::storage::{BoxStorage, Key, MemoryStorage, SqliteStorage};
use tower_response_cache::testing::{Harness, contract_cases, storage_contract};

use custom_storage::MapStorage;

storage_contract!(memory, MemoryStorage::new);
storage_contract!(small_memory, || MemoryStorage::builder().max_bytes(16 * 1024 * 1024).build());
storage_contract!(boxed_memory, || BoxStorage::new(MemoryStorage::new()));
storage_contract!(custom, MapStorage::default);
storage_contract!(boxed_custom, || BoxStorage::new(MapStorage::default()));
storage_contract!(sqlite, Sqlite::new(false));
storage_contract!(sqlite_in_task, Sqlite::new(true));
storage_contract!(boxed_sqlite, Boxed(Sqlite::new(false)));
storage_contract!(sqlite_in_memory, InMemory);

/// SQLite files side by side in one folder.
struct Sqlite {
    folder: tempfile::TempDir,
    in_task: bool,
}

impl Sqlite {
    fn new(in_task: bool) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), in_task }
    }
}

impl Harness for Sqlite {
    type Storage = SqliteStorage;

    async fn open(&self, name: &str) -> Result<SqliteStorage> {
        SqliteStorage::builder(self.folder.path().join(name)).read_in_task(self.in_task).open().await
    }

    fn shares(&self) -> bool {
        true
    }

    fn persists(&self) -> bool {
        true
    }

    async fn damage(&self, _: &SqliteStorage, key: Key) -> bool {
        for file in std::fs::read_dir(self.folder.path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !name.ends_with("-wal") && !name.ends_with("-shm") {
                let connection = rusqlite::Connection::open(path).unwrap();
                let damaged = "UPDATE contents SET value = x'0102' WHERE id IN (SELECT content FROM records WHERE entry = ?1)";
                assert!(connection.execute(damaged, [key.entry]).unwrap() > 0);
            }
        }
        true
    }
}

struct Boxed(Sqlite);

impl Harness for Boxed {
    type Storage = BoxStorage;

    async fn open(&self, name: &str) -> Result<BoxStorage> {
        self.0.open(name).await.map(BoxStorage::new)
    }

    fn shares(&self) -> bool {
        true
    }

    fn persists(&self) -> bool {
        true
    }
}

struct InMemory;

impl Harness for InMemory {
    type Storage = SqliteStorage;

    async fn open(&self, _: &str) -> Result<SqliteStorage> {
        SqliteStorage::open(":memory:").await
    }
}

#[test]
fn every_case_of_the_suite_is_in_its_list() {
    let listed = contract_cases!(case_names);
    let mut written = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/testing/cases")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("pub async fn ")) {
            let name = line.split('<').next().unwrap();
            assert!(listed.contains(&name), "{name} is not run by the macro");
            written += 1;
        }
    }
    assert_eq!(written, listed.len());
}
