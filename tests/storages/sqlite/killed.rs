//! Processes that are killed while they write.

use tower_response_cache::storage::SqliteStorage;

use super::processes::open;
use super::{directory, integrity};
use crate::on_disk::{kill_two, whole_entries, write_entries};

const KILLS: u64 = 200;

#[tokio::test]
#[ignore = "runs as a process of killed_processes_leave_whole_entries"]
async fn killed_writer_process() {
    write_entries(&open().await).await;
}

#[tokio::test]
async fn killed_processes_leave_whole_entries() {
    let directory = directory();
    let path = directory.path().join("cache.sqlite");
    let mut whole = 0;
    for _ in 0..KILLS / 2 {
        kill_two("sqlite::killed::killed_writer_process", &path);
        whole += whole_entries(&SqliteStorage::open(&path).await.unwrap()).await;
    }
    assert!(whole > 0);
    integrity(&path);
}
