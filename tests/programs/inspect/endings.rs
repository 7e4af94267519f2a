//! Exit codes, errors of one line, and files that must not be created or changed.

use super::program::{inspect, program};
use super::world::World;

#[test]
fn help_lists_exit_codes() {
    let output = program().arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    for code in
        ["  0  done", "  1  nothing was found", "  2  wrong usage, or not confirmed", "  3  the storage"]
    {
        assert!(text.contains(code), "{text}");
    }
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    let world = World::new().await;
    let cases: [&[&str]; 14] = [
        &[],
        &["what"],
        &["list", "--what"],
        &["list", "--status", "20"],
        &["list", "--status", "299-200"],
        &["list", "--older-than", "long"],
        &["list", "--larger-than", "much"],
        &["list", "--fresh", "--stale"],
        &["list", "--url", "http://a b"],
        &["show"],
        &["delete", "--yes"],
        &["list", "--key-secret-file", "/there/is/none"],
        &["show", "https://shop.example/a.json", "--body", "--json"],
        &["purge", "--json"],
    ];
    for arguments in cases {
        inspect(&world.store, arguments).refused(2);
    }
    assert_eq!(program().output().unwrap().status.code(), Some(2));
    inspect("memory:", &["list"]).refused(2);
}

#[tokio::test]
async fn empty_result_exits_with_1() {
    let world = World::new().await;
    for arguments in [
        &["list", "--url", "nowhere.example"][..],
        &["delete", "https://nowhere.example/", "--yes"],
        &["delete", "--status", "5xx", "--yes"],
    ] {
        let ended = inspect(&world.store, arguments);
        assert_eq!((ended.code, ended.err.as_str()), (1, ""), "{ended:?}");
    }
    let shown = inspect(&world.store, &["show", "https://nowhere.example/"]);
    assert!(shown.refused(1).contains("nothing is stored for this URL") && shown.out.is_empty(), "{shown:?}");
    let variant = inspect(&world.store, &["show", "https://shop.example/v", "--variant", "3", "--json"]);
    assert!(variant.refused(1).contains("no variant") && variant.out == "[]\n", "{variant:?}");
}

#[tokio::test]
async fn storage_may_follow_the_command() {
    let world = World::new().await;
    let output = |words: &[&str]| program().args(words).output().unwrap();
    for (after, before) in [
        (vec!["list", &world.store], vec!["list"]),
        (vec!["list", &world.store, "--stale"], vec!["list", "--stale"]),
        (
            vec!["show", &world.store, "https://shop.example/a.json", "--body"],
            vec!["show", "https://shop.example/a.json", "--body"],
        ),
    ] {
        let (after, before) = (output(&after), inspect(&world.store, &before).done());
        assert_eq!((after.status.code(), after.stdout.as_slice()), (Some(0), before.out.as_bytes()));
        assert!(!before.out.is_empty());
    }
}

#[tokio::test]
async fn letter_case_and_levels_of_address_do_not_matter() {
    let world = World::new().await;
    let store = world.store.replacen("sqlite", "SQLite", 1);
    assert_eq!(inspect(&store, &["list"]).done().rows().len(), 6);
    let tiered = format!("tiered+{}?near=64MiB&max_lag=1s", world.store);
    assert_eq!(inspect(&tiered, &["list"]).done().rows().len(), 6);
    for missing in ["SQLITE", "tiered+sqlite"] {
        let path = world.folder.path().join("none.sqlite");
        inspect(&format!("{missing}://{}", path.display()), &["list"]).refused(3);
        assert!(!path.exists(), "{missing}");
    }
}

#[tokio::test]
async fn missing_storage_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none/store.sqlite");
    let path = path.to_str().unwrap();
    let mut stores = vec![
        path.to_owned(),
        format!("sqlite://{path}"),
        format!("sqlite:{path}?busy_timeout=1"),
        format!("sqlite:file:{path}"),
    ];
    if cfg!(feature = "directory") {
        stores.push(format!("directory://{path}"));
    }
    for store in &stores {
        for command in
            [&["list"][..], &["verify"], &["expire"], &["vacuum"], &["purge", "--yes"], &["copy", "memory:"]]
        {
            inspect(store, command).refused(3);
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn foreign_files_are_left_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("text", b"some text of a person's".as_slice()), ("empty", b"")] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        for command in [&["list"][..], &["purge", "--yes"]] {
            inspect(path.to_str().unwrap(), command).refused(3);
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn read_commands_change_no_byte() {
    let world = World::new().await;
    // No connection of this process still has this file open.
    let (store, path) = (world.other("sqlite", "closed.sqlite"), world.folder.path().join("closed.sqlite"));
    inspect(&world.store, &["copy", &store]).done();
    let before = std::fs::read(&path).unwrap();
    for command in
        [&["list"][..], &["stats"], &["verify"], &["purge", "--dry-run"], &["show", "https://shop.example/v"]]
    {
        inspect(&store, command).done();
        assert!(std::fs::read(&path).unwrap() == before, "{command:?}");
    }
}

#[test]
fn errors_contain_no_credentials() {
    for arguments in [
        ["redis://user:hidden@127.0.0.1:1/0?cache_name=hidden", "list"],
        ["list", "redis://user:hidden@127.0.0.1:1/"],
        ["nonsense://user:hidden@host/?password=hidden", "list"],
        ["sqlite:///there/is/none?hidden=hidden", "list"],
    ] {
        let output = program().args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!text.contains("hidden") && text.lines().count() == 1, "{arguments:?}: {text}");
        assert!(matches!(output.status.code(), Some(2 | 3)), "{arguments:?}: {text}");
    }
}
