//! What SqliteStorage promises beyond the contract of storages: the file, its settings, its bound and its neighbours.
#![cfg(feature = "sqlite")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use futures_util::future::{join_all, try_join_all};
use tower_response_cache::storage::sqlite::rusqlite::{Connection, OpenFlags};
use tower_response_cache::storage::{Key, Kind, Record, SqliteStorage, Storage};
use tower_response_cache::{Clock, ErrorKind, Timestamp};

fn head(n: u8) -> Key {
    Key::head([n; 16])
}

fn chunk(n: u8, part: u32) -> Key {
    head(n).sibling(Kind::Chunk, [1; 16], part)
}

fn record(len: usize) -> Record {
    Record::new(vec![7; len], Timestamp::NEVER)
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Every file below a directory, with its bytes.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

/// Waits until something that other threads do is done.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Drops a storage and waits until its connections are closed: the last one removes the log, then closes the file.
async fn close(storage: SqliteStorage, path: &Path) {
    drop(storage);
    let log = PathBuf::from(format!("{}-wal", path.display()));
    until("the log is merged on closing", || !log.exists()).await;
    until("all connections are closed", || open_files(path) == 0).await;
}

/// How many times this process has the file open, where the platform tells.
fn open_files(path: &Path) -> usize {
    let Ok(files) = std::fs::read_dir("/proc/self/fd") else { return 0 };
    files.flatten().filter(|file| std::fs::read_link(file.path()).is_ok_and(|file| file == path)).count()
}

async fn keys(storage: &SqliteStorage) -> Vec<Key> {
    storage.keys().try_collect().await.unwrap()
}

#[tokio::test]
async fn records_survive_reopening_and_the_log_is_merged_on_closing() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    let kept = Record::new("kept", Timestamp::from_secs(9));
    storage.write(head(1), kept.clone()).await.unwrap();
    close(storage, &path).await;
    let storage = SqliteStorage::open(&path).await.unwrap();
    let read = storage.read(head(1)).await.unwrap().unwrap();
    assert_eq!(
        (read.payload(), read.stamp(), read.retain_until()),
        (kept.payload(), kept.stamp(), Timestamp::from_secs(9))
    );
}

#[tokio::test]
async fn what_was_written_survives_a_process_that_dies() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(200_000)).await.unwrap();
    // The file and its log as they are while the process runs: what a killed one leaves.
    let left = directory.path().join("left.sqlite");
    std::fs::copy(&path, &left).unwrap();
    std::fs::copy(directory.path().join("cache.sqlite-wal"), directory.path().join("left.sqlite-wal"))
        .unwrap();
    let left = SqliteStorage::open(left).await.unwrap();
    assert_eq!(left.read(head(1)).await.unwrap().unwrap().payload().len(), 200_000);
}

#[tokio::test]
async fn directories_are_made_and_a_tilde_is_the_home_directory() {
    let directory = directory();
    SqliteStorage::open(directory.path().join("a/b/cache.sqlite")).await.unwrap();
    assert!(directory.path().join("a/b/cache.sqlite").exists());

    let name = format!("~/.tower-response-cache-test-{}/cache.sqlite", std::process::id());
    let storage = SqliteStorage::open(&name).await.unwrap();
    let made = std::env::home_dir().unwrap().join(&name[2..]);
    assert!(made.exists());
    close(storage, &made).await;
    std::fs::remove_dir_all(made.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn names_that_no_file_can_have_are_refused() {
    for name in ["", "nul\0byte", "~somebody/cache.sqlite", "/proc/nowhere/cache.sqlite", "/tmp"] {
        let error = SqliteStorage::open(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{name:?}: {error}");
    }
}

#[tokio::test]
async fn hostile_names_are_taken_as_they_are() {
    let directory = directory();
    for name in ["a'b\"c", "*?[x]%20#", "файл ;-- ", "file", "mode=ro?x"] {
        let path = directory.path().join(name);
        let storage = SqliteStorage::open(&path).await.unwrap();
        storage.write(head(1), Record::new(name.to_owned(), Timestamp::NEVER)).await.unwrap();
        close(storage, &path).await;
        let storage = SqliteStorage::open(&path).await.unwrap();
        assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload(), name.as_bytes());
        close(storage, &path).await;
        assert!(path.is_file(), "{name}");
    }
    assert_eq!(files(directory.path()).len(), 5);
}

#[tokio::test]
async fn memory_is_one_store_for_all_clones_and_none_for_others() {
    for name in [":memory:", "file::memory:", "file:x?mode=memory"] {
        let storage = SqliteStorage::builder(name).read_in_task(true).open().await.unwrap();
        storage.clone().write(head(1), record(10)).await.unwrap();
        assert!(storage.read(head(1)).await.unwrap().is_some());
        assert_eq!(storage.size().await.unwrap(), 1);
        let other = SqliteStorage::open(name).await.unwrap();
        assert_eq!(other.size().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn handles_of_one_shared_cache_never_say_locked() {
    let name = "file:shared-by-two?mode=memory&cache=shared";
    let (a, b) = (SqliteStorage::open(name).await.unwrap(), SqliteStorage::open(name).await.unwrap());
    let both = (0..200u8).map(|n| {
        let (storage, other) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        async move {
            storage.write(head(n), record(10)).await?;
            other.read(head(n)).await
        }
    });
    assert!(try_join_all(both).await.unwrap().iter().all(Option::is_some));
}

#[tokio::test]
async fn a_read_only_uri_serves_hits_and_stores_nothing() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    close(storage, &path).await;
    let before = std::fs::read(&path).unwrap();
    for parameters in ["mode=ro", "immutable=1", "mode=ro&cache=private"] {
        let storage = SqliteStorage::open(format!("file:{}?{parameters}", path.display())).await.unwrap();
        assert!(storage.is_read_only(), "{parameters}");
        assert!(storage.read(head(1)).await.unwrap().is_some());
        assert_eq!(storage.write(head(2), record(10)).await.unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(
            storage.write_if(head(2), None, record(10)).await.unwrap_err().kind(),
            ErrorKind::ReadOnly
        );
        assert_eq!(storage.clear().await.unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(keys(&storage).await, [head(1)]);
        drop(storage);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let storage = SqliteStorage::builder(&path).open_flags(flags).open().await.unwrap();
    assert!(storage.is_read_only());
    assert!(storage.read(head(1)).await.unwrap().is_some());
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn what_is_missing_is_not_made_by_one_who_only_reads() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let error = SqliteStorage::open(format!("file:{}?mode=ro&key=secret", path.display())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    assert!(files(directory.path()).is_empty());
}

fn refused_and_untouched(directory: &Path, path: &Path, kind: ErrorKind) {
    let before = files(directory);
    for read_in_task in [false, true] {
        let builder = SqliteStorage::builder(path).read_in_task(read_in_task);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(builder.open()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(files(directory) == before, "{error}");
    }
}

#[test]
fn a_file_that_is_no_database_is_left_as_it_is() {
    let directory = directory();
    let path = directory.path().join("notes.txt");
    for text in ["x".repeat(10), "not a database at all. ".repeat(500)] {
        std::fs::write(&path, text).unwrap();
        refused_and_untouched(directory.path(), &path, ErrorKind::Corrupt);
    }
}

#[test]
fn the_database_of_another_program_is_left_as_it_is() {
    for setup in [
        "CREATE TABLE records (entry, kind)",
        "PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)",
        "PRAGMA application_id = 77",
        "PRAGMA user_version = 3",
    ] {
        let directory = directory();
        let path = directory.path().join("other.sqlite");
        Connection::open(&path).unwrap().execute_batch(setup).unwrap();
        refused_and_untouched(directory.path(), &path, ErrorKind::Corrupt);
    }
}

#[test]
fn the_open_database_of_another_program_is_left_as_it_is() {
    let directory = directory();
    let path = directory.path().join("other.sqlite");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    let before = std::fs::read(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(SqliteStorage::open(&path)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    other.execute("INSERT INTO t VALUES (2)", []).unwrap();
}

fn filled(path: &Path, len: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let storage = SqliteStorage::open(path).await.unwrap();
        for n in 0..20 {
            storage.write(head(n), record(len)).await.unwrap();
        }
        close(storage, path).await;
    });
}

#[test]
fn a_newer_layout_is_left_as_it_is() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    filled(&path, 10);
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
    refused_and_untouched(directory.path(), &path, ErrorKind::Config);
}

#[test]
fn a_damaged_file_is_left_as_it_is() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    filled(&path, 5000);
    let whole = std::fs::read(&path).unwrap();
    let cut = whole[..whole.len() / 2].to_vec();
    let mut overwritten = whole.clone();
    overwritten[4096..].fill(0xAA);
    let mut tables = whole.clone();
    tables[100..1500].fill(0x55);
    for damaged in [cut, overwritten, tables] {
        std::fs::write(&path, damaged).unwrap();
        refused_and_untouched(directory.path(), &path, ErrorKind::Corrupt);
    }
    std::fs::write(&path, whole).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("DROP TABLE totals; PRAGMA journal_mode = DELETE").unwrap();
    drop(connection);
    refused_and_untouched(directory.path(), &path, ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_damaged_row_is_a_miss_for_read_and_for_write_if() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    let damages = [
        "UPDATE contents SET value = x'00'",
        "UPDATE contents SET value = substr(value, 1, length(value) - 1)",
        "UPDATE contents SET value = 'text'",
        "UPDATE records SET stamp = zeroblob(16)",
        "UPDATE records SET stamp = 5",
        "UPDATE records SET until = 'soon'",
        "DELETE FROM contents",
    ];
    for damage in damages {
        let old = record(100);
        storage.write(head(1), old.clone()).await.unwrap();
        Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        assert!(storage.read(head(1)).await.unwrap().is_none(), "{damage}");
        assert!(!storage.contains(head(1)).await.unwrap());
        assert!(storage.values().try_collect::<Vec<_>>().await.unwrap().is_empty());
        assert!(!storage.write_if(head(1), Some(old.stamp()), record(5)).await.unwrap());
        assert!(storage.write_if(head(1), None, record(5)).await.unwrap(), "{damage}");
        assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload().len(), 5);
    }
}

#[tokio::test]
async fn pragmas_flags_and_a_bad_setting_reach_sqlite() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let builder = SqliteStorage::builder(&path);
    let storage = builder.pragma("page_size", 8192).pragma("journal_mode", "delete").open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    assert!(storage.read(head(1)).await.unwrap().is_some());
    drop(storage);
    let connection = Connection::open(&path).unwrap();
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| {
                row.get_ref(0)?
                    .as_str()
                    .map(str::to_owned)
                    .or_else(|_| row.get::<_, i64>(0).map(|n| n.to_string()))
            })
            .unwrap()
    };
    assert_eq!((pragma("page_size"), pragma("journal_mode")), ("8192".to_owned(), "delete".to_owned()));

    let error = SqliteStorage::builder(&path).pragma("no such; pragma", 1).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let missing = directory.path().join("missing.sqlite");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let error = SqliteStorage::builder(&missing).open_flags(flags).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!missing.exists());
    let error = SqliteStorage::builder(&missing).max_bytes(0).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    SqliteStorage::builder(&path).busy_timeout(Duration::MAX).readers(usize::MAX).open().await.unwrap();
}

#[tokio::test]
async fn a_ready_connection_is_used_for_everything() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let ready = Connection::open(&path).unwrap();
    let storage = SqliteStorage::builder("unused").connection(ready).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    assert!(storage.read(head(1)).await.unwrap().is_some());
    assert!(!Path::new("unused").exists());
    drop(storage);

    let foreign = Connection::open_in_memory().unwrap();
    foreign.execute_batch("CREATE TABLE t (x)").unwrap();
    let error = SqliteStorage::builder("unused").connection(foreign).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let busy = Connection::open_in_memory().unwrap();
    busy.execute_batch("BEGIN").unwrap();
    let error = SqliteStorage::builder("unused").connection(busy).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn the_bound_holds_and_the_entry_used_longest_ago_goes_whole() {
    let (clock, time) = Clock::mock();
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).max_bytes(100_000).clock(clock).open().await.unwrap();
    // Nine entries of a head and two chunks, about 10 kB each.
    for n in 0..9 {
        for key in [chunk(n, 0), chunk(n, 1), head(n)] {
            storage.write(key, record(3200)).await.unwrap();
        }
        time.advance(Duration::from_secs(1));
    }
    let changes = || -> i64 {
        let connection = Connection::open(&path).unwrap();
        connection.query_row("SELECT sum(used) FROM entries", [], |row| row.get(0)).unwrap()
    };
    let before = changes();
    assert!(storage.read(head(0)).await.unwrap().is_some());
    assert!(storage.read(chunk(2, 1)).await.unwrap().is_some());
    assert_eq!(changes(), before, "a hit writes nothing");
    time.advance(Duration::from_secs(1));
    for n in 9..12 {
        for key in [chunk(n, 0), chunk(n, 1), head(n)] {
            storage.write(key, record(3200)).await.unwrap();
        }
    }
    let kept = keys(&storage).await;
    for n in 0..12 {
        let records = kept.iter().filter(|key| key.entry == [n; 16]).count();
        let expected = if [1, 3, 4].contains(&n) { 0 } else { 3 };
        assert_eq!(records, expected, "entry {n}");
    }
    let connection = Connection::open(&path).unwrap();
    let (total, sum): (i64, i64) = connection
        .query_row("SELECT (SELECT bytes FROM totals), (SELECT sum(size) FROM entries)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert!(total <= 100_000 && total == sum, "{total} {sum}");
}

#[tokio::test]
async fn what_has_expired_goes_before_what_is_older() {
    let (clock, time) = Clock::mock();
    let builder = SqliteStorage::builder(":memory:").max_bytes(100_000).clock(clock.clone());
    let storage = builder.open().await.unwrap();
    for n in 0..9 {
        let retain_until = if n < 5 { Timestamp::NEVER } else { clock.now() + Duration::from_secs(10) };
        storage.write(head(n), Record::new(vec![0; 10_000], retain_until)).await.unwrap();
    }
    time.advance(Duration::from_secs(11));
    storage.write(head(20), record(10_000)).await.unwrap();
    for n in 0..5 {
        assert!(storage.contains(head(n)).await.unwrap(), "entry {n}");
    }
    assert!(!storage.contains(head(5)).await.unwrap());
}

#[tokio::test]
async fn uses_are_written_down_once_in_a_while_and_on_closing() {
    let (clock, time) = Clock::mock();
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).clock(clock).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    storage.write(head(2), record(10)).await.unwrap();
    let used = |n: u8| -> i64 {
        let connection = Connection::open(&path).unwrap();
        connection
            .query_row("SELECT used FROM entries WHERE entry = ?1", [[n; 16]], |row| row.get(0))
            .unwrap()
    };
    let (first, second) = (used(1), used(2));
    time.advance(Duration::from_secs(301));
    storage.read(head(1)).await.unwrap();
    until("the use is written down", || used(1) > first).await;
    storage.read(head(2)).await.unwrap();
    assert_eq!(used(2), second);
    close(storage, &path).await;
    assert!(used(2) > second);
}

#[tokio::test]
async fn a_lowered_bound_is_reached_by_writing() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    try_join_all((0..200).map(|n| storage.write(head(n), record(200_000)))).await.unwrap();
    drop(storage);
    let storage = SqliteStorage::builder(&path).max_bytes(1_000_000).open().await.unwrap();
    for n in 201..205 {
        storage.write(head(n), record(10)).await.unwrap();
    }
    let kept = keys(&storage).await;
    assert!(kept.len() <= 9 && kept.contains(&head(204)), "{}", kept.len());
}

#[cfg(unix)]
#[tokio::test]
async fn a_read_only_file_and_directory_serve_hits() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory();
    let path = directory.path().join("a b%?#.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    close(storage, &path).await;
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(&path, 0o444);
    if std::fs::OpenOptions::new().append(true).open(&path).is_ok() {
        return; // root writes whatever it likes
    }
    for of_directory in [0o755, 0o555] {
        mode(directory.path(), of_directory);
        let storage = SqliteStorage::builder(&path).read_in_task(true).open().await.unwrap();
        assert!(storage.is_read_only());
        assert!(storage.read(head(1)).await.unwrap().is_some());
        assert_eq!(storage.write(head(2), record(10)).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    }
    mode(directory.path(), 0o755);
}

#[tokio::test]
async fn groups_are_neither_counted_nor_evicted() {
    let storage = SqliteStorage::builder(":memory:").max_bytes(100_000).open().await.unwrap();
    let group = Key { entry: [200; 16], kind: Kind::Group, slot: [0; 16], part: 0 };
    storage.write(group, record(16)).await.unwrap();
    for n in 0..50 {
        storage.write(head(n), record(10_000)).await.unwrap();
    }
    assert!(storage.contains(group).await.unwrap());
    assert!(storage.delete(group).await.unwrap());
}

#[tokio::test]
async fn an_entry_takes_at_most_half_and_what_was_there_stays() {
    let storage = SqliteStorage::builder(":memory:").max_bytes(100_000).open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    let longest = storage.max_record_len();
    let too_long = storage.write(head(1), record(longest - Record::OVERHEAD + 1)).await.unwrap_err();
    assert_eq!(too_long.kind(), ErrorKind::TooLarge);
    assert_eq!(storage.read(head(1)).await.unwrap().unwrap().payload().len(), 10);
    storage.write(head(1), record(longest - Record::OVERHEAD)).await.unwrap();
    assert_eq!(storage.write(chunk(1, 0), record(1)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    storage.write(head(1), record(10)).await.unwrap();
    storage.write(chunk(1, 0), record(1)).await.unwrap();
}

#[tokio::test]
async fn one_refused_write_does_not_fail_those_committed_with_it() {
    let storage = SqliteStorage::builder(":memory:").max_bytes(1 << 20).open().await.unwrap();
    storage.write(chunk(0, 0), record(300_000)).await.unwrap();
    // All are queued before the first is begun.
    let writes = (0..100u8).map(|n| storage.write(head(n), record(if n == 0 { 300_000 } else { 10 })));
    for (n, result) in join_all(writes).await.into_iter().enumerate() {
        assert_eq!(result.is_err(), n == 0, "{n} {result:?}");
    }
    assert_eq!(storage.size().await.unwrap(), 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_handles_racing_to_write_have_one_winner() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let (a, b) = (SqliteStorage::open(&path).await.unwrap(), SqliteStorage::open(&path).await.unwrap());
    let mut seen = None;
    for _ in 0..50 {
        let race = (0..16).map(|n| {
            let storage = if n % 2 == 0 { a.clone() } else { b.clone() };
            tokio::spawn(async move { storage.write_if(head(1), seen, record(10)).await.unwrap() })
        });
        let won = join_all(race).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
        assert_eq!(won, 1);
        seen = Some(a.read(head(1)).await.unwrap().unwrap().stamp());
        assert_eq!(b.read(head(1)).await.unwrap().map(|record| record.stamp()), seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_on_several_handles_get_no_lock_error() {
    for journal in ["wal", "delete"] {
        let directory = directory();
        let path = directory.path().join("cache.sqlite");
        // All of them make the file at once.
        let open = (0..4).map(|_| {
            let builder = SqliteStorage::builder(&path).busy_timeout(Duration::from_secs(60));
            builder.pragma("journal_mode", journal).pragma("synchronous", "off").max_bytes(2_000_000).open()
        });
        let handles = try_join_all(open).await.unwrap();
        let tasks = (0..64u8).map(|n| {
            let storage = handles[n as usize % handles.len()].clone();
            tokio::spawn(async move {
                for part in 0..20 {
                    storage.write(chunk(n, part), record(4000)).await.unwrap();
                    storage.read(chunk(n, part / 2)).await.unwrap();
                }
            })
        });
        join_all(tasks).await.into_iter().for_each(|done| done.unwrap());
        let connection = Connection::open(&path).unwrap();
        let row: (i64, i64, i64, i64) = connection
            .query_row(
                "SELECT (SELECT bytes FROM totals), (SELECT sum(size) FROM entries),
                (SELECT sum(size) FROM records), (SELECT count(*) FROM records) - (SELECT count(*) FROM contents)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .unwrap();
        assert!(row.0 <= 2_000_000 && row.0 == row.1 && row.1 == row.2 && row.3 == 0, "{row:?}");
    }
}

#[tokio::test]
async fn a_store_that_others_keep_too_long_is_a_timeout_and_works_afterwards() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let builder = SqliteStorage::builder(&path).busy_timeout(Duration::from_millis(50));
    let storage = builder.open().await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = storage.write(head(2), record(10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!format!("{error} {error:?}").contains("locked"));
    assert!(storage.read(head(1)).await.unwrap().is_some());
    other.execute_batch("ROLLBACK").unwrap();
    storage.write(head(2), record(10)).await.unwrap();
}

#[tokio::test]
async fn dropped_futures_leave_the_store_usable() {
    let directory = directory();
    let storage = SqliteStorage::open(directory.path().join("cache.sqlite")).await.unwrap();
    for n in 0..100 {
        let mut write = Box::pin(storage.write(head(n), record(5000)));
        let mut read = Box::pin(storage.read(head(n)));
        let _ = futures_util::poll!(write.as_mut());
        let _ = futures_util::poll!(read.as_mut());
    }
    storage.write(head(200), record(10)).await.unwrap();
    assert!(storage.read(head(200)).await.unwrap().is_some());
    let other = Connection::open(directory.path().join("cache.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_files_are_closed_when_the_last_clone_is_dropped() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::builder(&path).readers(3).read_in_task(true).open().await.unwrap();
    let clone = storage.clone();
    storage.write(head(1), record(10)).await.unwrap();
    assert!(open_files(&path) >= 7);
    drop(storage);
    assert!(clone.read(head(1)).await.unwrap().is_some());
    drop(clone);
    until("all connections are closed", || open_files(&path) == 0).await;
    assert_eq!(files(directory.path()).len(), 1);
}

#[tokio::test]
async fn reading_in_the_task_answers_at_once_and_sees_other_processes() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let storage = SqliteStorage::open(&path).await.unwrap();
    assert!(storage.read_now(head(1)).is_none());
    let in_task = SqliteStorage::builder(&path).read_in_task(true).open().await.unwrap();
    assert!(in_task.read_now(head(1)).unwrap().unwrap().is_none());
    storage.write(head(1), record(10)).await.unwrap();
    assert!(in_task.read_now(head(1)).unwrap().unwrap().is_some());
}

#[tokio::test]
async fn listings_over_many_pages_give_each_key_once() {
    let storage = SqliteStorage::open(":memory:").await.unwrap();
    let all: Vec<Key> =
        (0..5).flat_map(|n| (0..300).map(move |part| chunk(n, part)).chain([head(n)])).collect();
    try_join_all(all.iter().map(|&key| storage.write(key, record(3)))).await.unwrap();
    let mut expected = all.clone();
    expected.sort();
    assert_eq!(keys(&storage).await, expected);
    assert_eq!(storage.size().await.unwrap(), 5);
    assert_eq!(storage.values().try_collect::<Vec<_>>().await.unwrap().len(), 5);
    assert_eq!(storage.delete_many(&all).await.unwrap(), 1505);
    assert!(keys(&storage).await.is_empty());
}

#[tokio::test]
async fn more_than_one_transaction_of_expired_records_is_deleted_and_counted() {
    let storage = SqliteStorage::open(":memory:").await.unwrap();
    let write = |part| {
        let retain_until =
            if part % 2 == 0 { Timestamp::NEVER } else { Timestamp::from_millis(u64::from(part)) };
        storage.write(chunk(1, part), Record::new("x", retain_until))
    };
    try_join_all((0..5000).map(write)).await.unwrap();
    assert_eq!(storage.delete_expired(Timestamp::from_millis(4001)).await.unwrap(), 2001);
    assert_eq!(storage.delete_expired(Timestamp::from_millis(4001)).await.unwrap(), 0);
    assert_eq!(keys(&storage).await.len(), 2999);
}
