//! Files of an older layout: version 0 carries our application id and has no tables.

use std::path::Path;

use tower_response_cache::ErrorKind;
use tower_response_cache::storage::{SqliteStorage, Storage};

use crate::{directory, head, record};

const APPLICATION_ID: i32 = 0x5477_5243;

fn version_0(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
}

fn version(path: &Path) -> i32 {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn an_older_file_is_brought_up_to_date_when_it_is_opened() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    version_0(&path);
    assert_eq!(version(&path), 0);
    let storage = SqliteStorage::open(&path).await.unwrap();
    storage.write(head(1), record(10)).await.unwrap();
    assert!(storage.contains(head(1)).await.unwrap());
    assert_eq!(version(&path), 1);
}

#[tokio::test]
async fn many_that_open_an_older_file_at_once_all_have_it() {
    for _ in 0..5 {
        let directory = directory();
        let path = directory.path().join("cache.sqlite");
        version_0(&path);
        let opened = (0..8).map(|_| tokio::spawn(SqliteStorage::open(path.clone()))).collect::<Vec<_>>();
        for (number, storage) in (0..).zip(opened) {
            storage.await.unwrap().unwrap().write(head(number), record(10)).await.unwrap();
        }
        assert_eq!(SqliteStorage::open(&path).await.unwrap().size().await.unwrap(), 8);
    }
}

#[tokio::test]
async fn an_older_file_that_cannot_be_written_is_refused_and_left_as_it_is() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    version_0(&path);
    let before = std::fs::read(&path).unwrap();
    let uri = format!("file:{}?immutable=1", path.display());
    let refused = SqliteStorage::open(uri).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
