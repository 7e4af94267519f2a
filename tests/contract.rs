//! The storage contract, on every storage of this crate and on the example of one's own.
#![allow(unreachable_pub, clippy::unwrap_used)]

#[path = "../examples/custom_storage.rs"]
mod custom_storage;

use tower_response_cache::Result;
use tower_response_cache::storage::directory::DirectoryStorageBuilder;
use tower_response_cache::storage::{BoxStorage, DirectoryStorage, Key, MemoryStorage, SqliteStorage};
use tower_response_cache::testing::{Harness, contract_cases, storage_contract};

use custom_storage::MapStorage;

storage_contract!(memory, Memory);
storage_contract!(small_memory, || MemoryStorage::builder().max_bytes(16 * 1024 * 1024).build());
storage_contract!(boxed_memory, || BoxStorage::new(MemoryStorage::new()));
storage_contract!(custom, MapStorage::default);
storage_contract!(boxed_custom, || BoxStorage::new(MapStorage::default()));
storage_contract!(sqlite, Sqlite::new(false));
storage_contract!(sqlite_in_task, Sqlite::new(true));
storage_contract!(boxed_sqlite, Boxed(Sqlite::new(false)));
storage_contract!(sqlite_in_memory, InMemory);
storage_contract!(directory, Directory::new(|builder| builder));
storage_contract!(unbounded_directory, Directory::new(|builder| builder.unbounded().threads(1)));
storage_contract!(small_directory, Directory::new(|builder| builder.max_bytes(32 << 20).threads(8)));
storage_contract!(synced_directory, Directory::new(|builder| builder.fsync(true)));

struct Memory;

impl Harness for Memory {
    type Storage = MemoryStorage;

    async fn open(&self, _: &str) -> Result<MemoryStorage> {
        Ok(MemoryStorage::new())
    }

    async fn open_bounded(&self, max_bytes: u64) -> Option<MemoryStorage> {
        Some(MemoryStorage::builder().max_bytes(max_bytes).build())
    }
}

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

    async fn open_bounded(&self, max_bytes: u64) -> Option<SqliteStorage> {
        SqliteStorage::builder(":memory:").max_bytes(max_bytes).open().await.ok()
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

/// Directories side by side in one folder.
struct Directory {
    folder: tempfile::TempDir,
    set: fn(DirectoryStorageBuilder) -> DirectoryStorageBuilder,
}

impl Directory {
    fn new(set: fn(DirectoryStorageBuilder) -> DirectoryStorageBuilder) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), set }
    }
}

impl Harness for Directory {
    type Storage = DirectoryStorage;

    async fn open(&self, name: &str) -> Result<DirectoryStorage> {
        // So that `..` is a name beside the others too.
        let path = self.folder.path().join(format!("in-{name}"));
        (self.set)(DirectoryStorage::builder(path)).open().await
    }

    async fn open_bounded(&self, max_bytes: u64) -> Option<DirectoryStorage> {
        // Each a directory of its own.
        let path = tempfile::tempdir_in(&self.folder).unwrap().keep();
        (self.set)(DirectoryStorage::builder(path)).max_bytes(max_bytes).open().await.ok()
    }

    fn shares(&self) -> bool {
        true
    }

    fn persists(&self) -> bool {
        true
    }

    async fn damage(&self, storage: &DirectoryStorage, key: Key) -> bool {
        let entry: String = key.entry.iter().map(|byte| format!("{byte:02x}")).collect();
        let file = storage.path().join(&entry[..2]).join(&entry).join("head");
        assert!(file.exists());
        std::fs::write(file, "not a record, but as long as one or longer").unwrap();
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
