//! The storage contract, on the storages that need no server.
//!
//! It also runs on the custom storage of the examples.

#[path = "../../examples/custom_storage.rs"]
mod custom_storage;

use std::time::Duration;

use tower_response_cache::Result;
#[cfg(any(feature = "zstd", feature = "lz4"))]
use tower_response_cache::storage::CompressedStorage;
#[cfg(feature = "encrypt")]
use tower_response_cache::storage::EncryptedStorage;
#[cfg(feature = "lz4")]
use tower_response_cache::storage::compressed::Codec;
use tower_response_cache::storage::directory::DirectoryStorageBuilder;
#[cfg(feature = "encrypt")]
use tower_response_cache::storage::encrypted::{EncryptionKey, Keyring};
use tower_response_cache::storage::{
    BoxStorage, DirectoryStorage, Key, MemoryStorage, SqliteStorage, Storage, TieredStorage,
};
use tower_response_cache::testing::{Harness, contract_cases, storage_contract, unchecked};

use custom_storage::MapStorage;

storage_contract!(memory, Memory);
storage_contract!(small_memory, || MemoryStorage::builder().max_bytes(16 * 1024 * 1024).build());
storage_contract!(boxed_memory, || BoxStorage::new(MemoryStorage::new()));
storage_contract!(custom, MapStorage::default);
storage_contract!(boxed_custom, || BoxStorage::new(MapStorage::default()));
storage_contract!(sqlite, Sqlite::new(None));
storage_contract!(sqlite_in_task, Sqlite::new(Some(true)));
storage_contract!(sqlite_on_threads, Sqlite::new(Some(false)));
storage_contract!(boxed_sqlite, Boxed(Sqlite::new(None)));
storage_contract!(sqlite_in_memory, InMemory);
storage_contract!(directory, Directory::new(|builder| builder));
storage_contract!(unbounded_directory, Directory::new(|builder| builder.unbounded(true).threads(1)));
storage_contract!(small_directory, Directory::new(|builder| builder.max_bytes(32 << 20).threads(8)));
storage_contract!(synced_directory, Directory::new(|builder| builder.fsync(true)));

storage_contract!(tiered, || TieredStorage::new(MemoryStorage::new(), MemoryStorage::new()));
storage_contract!(tiered_custom, || TieredStorage::new(MapStorage::default(), MapStorage::default()));
storage_contract!(tiered_sqlite, TieredSqlite::new(Duration::ZERO));
storage_contract!(tiered_sqlite_by_signal, TieredSqlite::new(Duration::from_secs(1000)));
#[cfg(feature = "zstd")]
storage_contract!(compressed_memory, Wrapped::new(Memory, compressed));
#[cfg(feature = "lz4")]
storage_contract!(lz4_compressed_memory, Wrapped::new(Memory, compressed_by_lz4));
#[cfg(feature = "zstd")]
storage_contract!(compressed_sqlite, Wrapped::new(Sqlite::new(None), compressed));
#[cfg(feature = "encrypt")]
storage_contract!(encrypted_memory, Wrapped::new(Memory, encrypted));
#[cfg(feature = "encrypt")]
storage_contract!(encrypted_sqlite, Wrapped::new(Sqlite::new(None), encrypted));
#[cfg(feature = "encrypt")]
storage_contract!(padded_directory, Wrapped::new(Directory::new(|builder| builder), padded));
#[cfg(all(feature = "zstd", feature = "encrypt"))]
storage_contract!(compressed_and_encrypted_sqlite, Wrapped::new(Sqlite::new(None), compressed_and_encrypted));

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

/// Opens SQLite files, all in one folder.
struct Sqlite {
    folder: tempfile::TempDir,
    read_in_task: Option<bool>,
}

impl Sqlite {
    fn new(read_in_task: Option<bool>) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), read_in_task }
    }

    /// Opens each file, without the storage.
    fn connections(&self) -> Vec<rusqlite::Connection> {
        let paths = std::fs::read_dir(self.folder.path()).unwrap().map(|file| file.unwrap().path());
        let is_main = |path: &std::path::PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            !name.ends_with("-wal") && !name.ends_with("-shm")
        };
        paths.filter(is_main).map(|path| rusqlite::Connection::open(path).unwrap()).collect()
    }
}

impl Harness for Sqlite {
    type Storage = SqliteStorage;

    async fn open(&self, name: &str) -> Result<SqliteStorage> {
        SqliteStorage::builder(self.folder.path().join(name)).read_in_task(self.read_in_task).open().await
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
        for connection in self.connections() {
            let damaged = "UPDATE contents SET value = x'0102' WHERE id IN (SELECT content FROM records WHERE entry = ?1)";
            assert!(connection.execute(damaged, [key.entry]).unwrap() > 0);
        }
        true
    }

    async fn set_failing(&self, _: &SqliteStorage, fails: bool) -> bool {
        // Every query then fails, also in connections that are open. A file that is replaced or damaged would be noticed, and
        // given up for a new one.
        for connection in self.connections() {
            let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
            let mut tables = connection.prepare(tables).unwrap();
            let tables: Vec<String> =
                tables.query_map([], |row| row.get(0)).unwrap().map(|row| row.unwrap()).collect();
            for table in tables {
                let to = if fails { format!("hidden_{table}") } else { table.replace("hidden_", "") };
                connection.execute_batch(&format!("ALTER TABLE {table} RENAME TO {to}")).unwrap();
            }
        }
        true
    }
}

/// Opens SQLite files with copies in memory. Each handle has its own, as each process would.
struct TieredSqlite {
    files: Sqlite,
    max_lag: Duration,
}

impl TieredSqlite {
    fn new(max_lag: Duration) -> Self {
        Self { files: Sqlite::new(None), max_lag }
    }
}

impl Harness for TieredSqlite {
    type Storage = TieredStorage<MemoryStorage, SqliteStorage>;

    async fn open(&self, name: &str) -> Result<Self::Storage> {
        let far = self.files.open(name).await?;
        Ok(TieredStorage::builder(MemoryStorage::new(), far).max_lag(self.max_lag).build())
    }

    async fn open_bounded(&self, max_bytes: u64) -> Option<Self::Storage> {
        let far = self.files.open_bounded(max_bytes).await?;
        Some(TieredStorage::builder(MemoryStorage::new(), far).max_lag(self.max_lag).build())
    }

    fn shares(&self) -> bool {
        // With a lag, another handle may see a change later than at once.
        self.max_lag.is_zero()
    }

    fn persists(&self) -> bool {
        true
    }

    async fn set_failing(&self, storage: &Self::Storage, fails: bool) -> bool {
        self.files.set_failing(storage.far(), fails).await
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

/// Opens directories, all in one folder.
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
        // With the prefix, even `..` is the name of a folder next to the others.
        let path = self.folder.path().join(format!("in-{name}"));
        (self.set)(DirectoryStorage::builder(path)).open().await
    }

    async fn open_bounded(&self, max_bytes: u64) -> Option<DirectoryStorage> {
        // Each storage gets a directory of its own.
        let path = tempfile::tempdir_in(&self.folder).unwrap().keep();
        let builder = (self.set)(DirectoryStorage::builder(path));
        // The cases about the bound need one, even for `unbounded_directory`.
        builder.unbounded(false).max_bytes(max_bytes).open().await.ok()
    }

    fn shares(&self) -> bool {
        true
    }

    fn persists(&self) -> bool {
        true
    }

    async fn damage(&self, storage: &DirectoryStorage, key: Key) -> bool {
        let entry = key.to_string()[..32].to_owned();
        let file = storage.path().join(&entry[..2]).join(&entry).join("head");
        assert!(file.exists());
        std::fs::write(file, "not a record, but as long as one or longer").unwrap();
        true
    }

    /// Puts a link that leads to itself in the place of the directory. It fails for every user, unlike missing permissions.
    #[cfg(unix)]
    async fn set_failing(&self, storage: &DirectoryStorage, fails: bool) -> bool {
        let path = storage.path();
        let away = path.with_extension("away");
        if fails {
            std::fs::rename(path, away).unwrap();
            std::os::unix::fs::symlink(path, path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
            std::fs::rename(away, path).unwrap();
        }
        true
    }
}

/// Opens the storages of another harness, each in a wrapper.
#[cfg(any(feature = "zstd", feature = "lz4", feature = "encrypt"))]
struct Wrapped<H: Harness, W> {
    harness: H,
    wrap: W,
    /// The storage that was opened last, without its wrapper.
    inner: std::sync::Mutex<Option<H::Storage>>,
}

#[cfg(any(feature = "zstd", feature = "lz4", feature = "encrypt"))]
impl<H: Harness, W> Wrapped<H, W> {
    fn new(harness: H, wrap: W) -> Self {
        Self { harness, wrap, inner: std::sync::Mutex::new(None) }
    }
}

#[cfg(any(feature = "zstd", feature = "lz4", feature = "encrypt"))]
impl<H: Harness, S: Storage, W: Fn(H::Storage) -> S + Sync> Harness for Wrapped<H, W> {
    type Storage = S;

    async fn open(&self, name: &str) -> Result<S> {
        let inner = self.harness.open(name).await?;
        *self.inner.lock().unwrap() = Some(inner.clone());
        Ok((self.wrap)(inner))
    }

    fn shares(&self) -> bool {
        self.harness.shares()
    }

    fn persists(&self) -> bool {
        self.harness.persists()
    }

    async fn open_bounded(&self, max_bytes: u64) -> Option<S> {
        self.harness.open_bounded(max_bytes).await.map(&self.wrap)
    }

    async fn damage(&self, _: &S, key: Key) -> bool {
        let inner = self.inner.lock().unwrap().clone();
        match inner {
            Some(inner) => self.harness.damage(&inner, key).await,
            None => false,
        }
    }

    async fn set_failing(&self, _: &S, fails: bool) -> bool {
        let inner = self.inner.lock().unwrap().clone();
        match inner {
            Some(inner) => self.harness.set_failing(&inner, fails).await,
            None => false,
        }
    }
}

#[cfg(feature = "zstd")]
fn compressed<S: Storage>(inner: S) -> CompressedStorage<S> {
    CompressedStorage::new(inner).unwrap()
}

#[cfg(feature = "lz4")]
fn compressed_by_lz4<S: Storage>(inner: S) -> CompressedStorage<S> {
    CompressedStorage::builder(inner).codec(Codec::Lz4).build().unwrap()
}

#[cfg(feature = "encrypt")]
fn encrypted<S: Storage>(inner: S) -> EncryptedStorage<S> {
    EncryptedStorage::new(inner, Keyring::new(EncryptionKey::from_bytes(&[1; 32]))).unwrap()
}

#[cfg(feature = "encrypt")]
fn padded<S: Storage>(inner: S) -> EncryptedStorage<S> {
    let keyring = Keyring::new(EncryptionKey::from_bytes(&[1; 32]));
    EncryptedStorage::builder(inner, keyring).pad_to([512, 4096]).build().unwrap()
}

#[cfg(all(feature = "zstd", feature = "encrypt"))]
fn compressed_and_encrypted<S: Storage>(inner: S) -> CompressedStorage<EncryptedStorage<S>> {
    compressed(encrypted(inner))
}

struct InMemory;

impl Harness for InMemory {
    type Storage = SqliteStorage;

    async fn open(&self, _: &str) -> Result<SqliteStorage> {
        SqliteStorage::open(":memory:").await
    }
}

#[test]
fn macro_lists_every_case() {
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

#[tokio::test]
async fn harness_without_hooks_is_told_what_is_unchecked() {
    let hooks = |unchecked: Vec<String>| -> Vec<String> {
        unchecked.iter().map(|hook| hook.split(' ').next().unwrap().to_owned()).collect()
    };
    let none = hooks(unchecked(&MapStorage::default).await);
    assert_eq!(none, ["shares", "persists", "open_bounded", "damage", "set_failing"]);
    assert_eq!(hooks(unchecked(&Sqlite::new(None)).await), [""; 0]);
}
