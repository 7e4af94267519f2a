//! Processes that are killed while they write.

use tower_response_cache::storage::{DirectoryStorage, Record};

use super::sharing::open;
use super::{directory, files, unfinished};
use crate::on_disk::{kill_two, whole_entries, write_entries};

const KILLS: u64 = 100;

#[tokio::test]
#[ignore = "runs as a process of killed_processes_leave_whole_entries"]
async fn killed_writer_process() {
    write_entries(&open().await).await;
}

#[tokio::test]
async fn killed_processes_leave_whole_entries() {
    let directory = directory();
    let path = directory.path().join("cache");
    let mut whole = 0;
    for _ in 0..KILLS / 2 {
        kill_two("directory::killed::killed_writer_process", &path);
        whole += whole_entries(&DirectoryStorage::open(&path).await.unwrap()).await;
    }
    assert!(whole > 0);
    // Every file outside the work folder is a complete record, except `.gitattributes`.
    for (path, bytes) in files(&path).into_iter().filter(|(path, _)| !path.iter().any(|part| part == ".work"))
    {
        assert!(path.ends_with(".gitattributes") || Record::from_bytes(bytes).is_ok(), "{path:?}");
    }
    for name in unfinished(&path) {
        assert!(name.starts_with("new-"), "{name}");
    }
}
