//! The names of files and folders, and the files of other programs in the directory.

use std::fs;
use std::path::Path;

use tower_response_cache::storage::{DirectoryStorage, Kind, Record, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::{chunk, directory, entry, files, head, keys, record};

/// Returns the relative paths of the files below a directory, except locks.
fn seen(root: &Path) -> Vec<String> {
    let paths = files(root).into_keys().map(|path| {
        let parts: Vec<_> =
            path.strip_prefix(root).unwrap().iter().map(|part| part.to_str().unwrap()).collect();
        parts.join("/")
    });
    paths.filter(|path| !path.starts_with(".work/lock-")).collect()
}

#[tokio::test]
async fn entries_are_folders_and_records_files() {
    let directory = directory();
    let root = directory.path().join("made/with parents");
    let storage = DirectoryStorage::open(&root).await.unwrap();
    let variant = head(0xab).sibling(Kind::Variant, [0x0c; 16], 0);
    let written = record(10);
    storage.write(head(0xab), written.clone()).await.unwrap();
    for key in [variant, chunk(0xab, 0), chunk(0xab, 12), head(0xab).sibling(Kind::Index, [0; 16], 0)] {
        storage.write(key, record(1)).await.unwrap();
    }
    let folder = format!("ab/{}", "ab".repeat(16));
    let chunks = "01".repeat(16);
    assert_eq!(
        seen(&root),
        [
            ".gitattributes".to_owned(),
            ".work/.gitignore".to_owned(),
            format!("{folder}/chunk-{chunks}-00000"),
            format!("{folder}/chunk-{chunks}-00012"),
            format!("{folder}/head"),
            format!("{folder}/index"),
            format!("{folder}/variant-{}", "0c".repeat(16)),
        ]
    );
    assert_eq!(fs::read(entry(&root, 0xab).join("head")).unwrap(), written.to_bytes());
    // Deleting the last record also removes the entry's folder and the folder above it.
    storage.delete_many(&keys(&storage).await).await.unwrap();
    assert_eq!(seen(&root), [".gitattributes", ".work/.gitignore"]);
    assert!(!root.join("ab").exists());
}

#[cfg(unix)]
#[tokio::test]
async fn new_files_and_folders_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = directory.path().join("a/b");
    let storage = DirectoryStorage::open(&root).await.unwrap();
    storage.write(head(1), record(1)).await.unwrap();
    assert_eq!(mode(directory.path()), 0o755);
    for folder in
        [&directory.path().join("a"), &root, &root.join(".work"), &root.join("01"), &entry(&root, 1)]
    {
        assert_eq!(mode(folder), 0o700, "{folder:?}");
    }
    assert_eq!(mode(&entry(&root, 1).join("head")), 0o600);
    assert_eq!(mode(&root.join(".work/lock-01")), 0o600);
}

#[tokio::test]
async fn copied_directory_is_readable() {
    let directory = directory();
    let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
    let storage = DirectoryStorage::builder(&from).unbounded(true).open().await.unwrap();
    for n in 0..10 {
        storage.write(head(n), record(100)).await.unwrap();
        storage.write(chunk(n, 0), record(100)).await.unwrap();
    }
    // Copies what version control keeps, which is every file outside the work folder.
    for (path, bytes) in files(&from) {
        let path = to.join(path.strip_prefix(&from).unwrap());
        if !path.starts_with(to.join(".work")) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    let copy = DirectoryStorage::builder(&to).unbounded(true).open().await.unwrap();
    assert_eq!(keys(&copy).await, keys(&storage).await);
    let before = files(&to);
    for key in keys(&copy).await {
        assert_eq!(copy.read(key).await.unwrap().unwrap().payload(), record(100).payload());
    }
    assert_eq!(copy.size().await.unwrap(), 10);
    assert_eq!(files(&to), before, "reading changed a file");
    let there = copy.read(head(1)).await.unwrap().unwrap();
    assert!(copy.write_if(head(1), Some(there.stamp()), record(1)).await.unwrap());
}

#[tokio::test]
async fn foreign_files_are_ignored_and_kept() {
    let directory = directory();
    let root = directory.path();
    let short = Timestamp::from_secs(1);
    let storage = DirectoryStorage::builder(root).max_bytes(100_000).open().await.unwrap();
    storage.write(head(1), Record::new("x", short)).await.unwrap();
    let neighbour = DirectoryStorage::open(root.join("02")).await.unwrap(); // in the place of a shard folder
    neighbour.write(head(2), record(10)).await.unwrap();
    let folder = entry(root, 1);
    let slot = "01".repeat(16);
    let theirs = [
        root.join("README.md"),
        root.join("01/notes"),
        root.join("zz/head"),
        root.join(format!("01/{}/head", "02".repeat(16))),
        folder.join("head.bak"),
        folder.join("HEAD"),
        folder.join(format!("chunk-{slot}-3")),
        folder.join(format!("variant-{slot}/head")),
        entry(root, 3).join("notes"),
    ];
    for path in &theirs {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, record(1).to_bytes()).unwrap();
    }
    assert_eq!(keys(&storage).await, [head(1)]);
    assert_eq!(storage.size().await.unwrap(), 1);
    assert!(storage.read(head(1).sibling(Kind::Variant, [1; 16], 0)).await.unwrap().is_none());
    assert_eq!(storage.delete_expired(short).await.unwrap(), 1);
    storage.write(head(1), record(1)).await.unwrap();
    storage.write(head(3), record(1)).await.unwrap();
    // These writes evict entries, and `clear` then removes the others.
    for n in 10..60 {
        storage.write(head(n), record(5000)).await.unwrap();
    }
    for n in 60..80 {
        storage.write(head(n), record(5000)).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    storage.clear().await.unwrap();
    assert_eq!(keys(&storage).await, []);
    for path in &theirs {
        assert_eq!(fs::read(path).unwrap()[29..], [7], "{path:?}");
    }
    assert!(neighbour.contains(head(2)).await.unwrap());
    assert!(!root.join("0a").exists(), "an empty folder was not removed");
}

#[tokio::test]
async fn unusable_paths_are_refused() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "theirs").unwrap();
    for path in [file.clone(), file.join("below"), "a\0b".into(), "".into(), "~nobody/x".into()] {
        let error = DirectoryStorage::open(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{path:?}: {error:?}");
    }
    let error = DirectoryStorage::builder(directory.path()).max_bytes(100).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(fs::read(&file).unwrap(), b"theirs");
}
