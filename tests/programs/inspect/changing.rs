//! The commands `delete`, `purge`, `expire`, `prune`, `copy` and `verify`.

use super::program::inspect;
use super::world::{World, fill_partition, word};

const A: &str = "https://shop.example/a.json";

#[tokio::test]
async fn removal_needs_confirmation() {
    let world = World::new().await;
    for arguments in [&["purge"][..], &["delete", A], &["delete", "--url", "shop.example"]] {
        let refused = inspect(&world.store, arguments);
        assert!(refused.refused(2).contains("--yes") && refused.out.is_empty(), "{refused:?}");
    }
    for arguments in [&["purge", "--dry-run"][..], &["delete", "--status", "2xx", "--dry-run"]] {
        let said = inspect(&world.store, arguments).done();
        assert!(said.out.contains(" responses, 2.0 MiB in storage:\n  https://"), "{said:?}");
    }
    assert_eq!(inspect(&world.store, &["list"]).done().rows().len(), 6);
}

#[tokio::test]
async fn delete_removes_all_variants() {
    let world = World::new().await;
    let said = inspect(&world.store, &["delete", A, "https://shop.example/v", "--yes"]).done();
    assert!(said.out.starts_with("3 responses, ") && said.out.contains("\ndeleted "), "{said:?}");
    assert_eq!(inspect(&world.store, &["list"]).done().names(), ["b.html", "missing", "old.html"]);
    assert_eq!(word(&world.store, A).await, "miss");
    assert_eq!(inspect(&world.store, &["delete", "https://shop.example/v", "--yes"]).code, 1);
}

#[tokio::test]
async fn soft_delete_makes_responses_stale() {
    let world = World::new().await;
    let said = inspect(&world.store, &["delete", "--soft", A, "--yes"]).done();
    assert!(said.out.contains("\nexpired 1 response"), "{said:?}");
    let entry = inspect(&world.store, &["list", "--stale", "--json"]).done();
    assert!(entry.out.contains(A), "{entry:?}");
}

#[tokio::test]
async fn delete_removes_matching_responses() {
    let world = World::new().await;
    let said = inspect(&world.store, &["delete", "--url", "shop.example/*.html", "--yes"]).done();
    assert!(
        said.out.contains("https://shop.example/old.html") && said.out.contains("deleted 2 "),
        "{said:?}"
    );
    assert_eq!(inspect(&world.store, &["list"]).done().names(), ["a.json", "missing", "v", "v"]);
}

#[tokio::test]
async fn purge_abbreviates_list_and_deletes_all() {
    let world = World::new().await;
    let urls: Vec<_> = (0..20).map(|number| format!("https://shop.example/{number}")).collect();
    fill_partition(&world.path(), "b", &urls).await;
    let said = inspect(&world.store, &["purge", "--partition", "b", "--yes"]).done();
    assert!(said.out.contains("… and 15 others\n") && said.out.contains("deleted 20 "), "{said:?}");
    assert_eq!(inspect(&world.store, &["list"]).done().rows().len(), 6, "other partitions are not purged");
    assert!(inspect(&world.store, &["purge", "--yes"]).done().out.contains("deleted 6 "));
    assert_eq!(inspect(&world.store, &["list"]).code, 1);
    inspect(&world.store, &["purge", "--yes"]).done();
}

#[tokio::test]
async fn expire_and_prune_keep_current_responses() {
    let world = World::new().await;
    assert!(inspect(&world.store, &["expire"]).done().out.starts_with("deleted "));
    assert!(inspect(&world.store, &["prune"]).done().out.contains("pruned 0 "));
    assert_eq!(inspect(&world.store, &["list"]).done().rows().len(), 6);
}

#[tokio::test]
async fn copied_responses_are_hits() {
    let world = World::new().await;
    let to = world.other("sqlite", "copy.sqlite");
    let said = inspect(&world.store, &["copy", &to]).done();
    assert!(said.out.starts_with("copied 6 responses, 2.0 MiB"), "{said:?}");
    for url in [A, "https://shop.example/b.html", "https://other.example/missing"] {
        assert_eq!(word(&to, url).await, "hit", "{url}");
    }
    let again = inspect(&world.store, &["copy", &to]).done();
    assert!(again.out.starts_with("copied 0 "), "{again:?}");
    let part = world.other("sqlite", "part.sqlite");
    assert!(
        inspect(&world.store, &["copy", &part, "--status", "4xx"])
            .done()
            .out
            .starts_with("copied 1 response,")
    );
}

#[tokio::test]
async fn json_reports_what_changed() {
    let world = World::new().await;
    let json = |arguments: &[&str]| inspect(&world.store, &[arguments, &["--json"]].concat()).done().json();
    let to = world.other("sqlite", "copy.sqlite");
    let copied = json(&["copy", &to]);
    assert_eq!((&copied["copied"], &copied["not_copied"]), (&6.into(), &0.into()));
    let verified = json(&["verify"]);
    assert_eq!((&verified["responses"], &verified["sound"]), (&6.into(), &true.into()));
    let looked = json(&["delete", A, "--dry-run"]);
    assert_eq!((&looked["responses"], &looked["deleted"]), (&1.into(), &0.into()));
    let deleted = json(&["delete", "--status", "404", "--yes"]);
    assert_eq!((&deleted["responses"], &deleted["deleted"]), (&1.into(), &1.into()));
    let none = inspect(&world.store, &["delete", "https://nowhere.example/", "--yes", "--json"]);
    assert_eq!((none.code, &none.json()["responses"]), (1, &0.into()));
    assert_eq!(json(&["expire"])["deleted"], 0);
    assert_eq!(json(&["prune"])["pruned"], 0);
    assert_eq!(json(&["purge", "--yes"])["deleted"], 5);
}

#[tokio::test]
async fn vacuum_shortens_file() {
    let world = World::new().await;
    // No connection of this process still has this file open.
    let (store, path) = (world.other("sqlite", "closed.sqlite"), world.folder.path().join("closed.sqlite"));
    inspect(&world.store, &["copy", &store]).done();
    inspect(&store, &["purge", "--yes"]).done();
    let before = std::fs::metadata(&path).unwrap().len();
    let files = std::fs::read_dir(world.folder.path()).unwrap().count();
    let freed = inspect(&format!("{store}?busy_timeout=5"), &["vacuum", "--json"]).done().json();
    let after = std::fs::metadata(&path).unwrap().len();
    assert_eq!(std::fs::read_dir(world.folder.path()).unwrap().count(), files, "a log of changes is left");
    assert!(after < 1 << 20 && before > 2 << 20, "{before}, {after}");
    assert_eq!(freed["freed_bytes"], before - after);
}

#[tokio::test]
async fn verify_finds_damage() {
    let world = World::new().await;
    assert!(inspect(&world.store, &["verify"]).done().out.contains("no damage"));
    let file = rusqlite::Connection::open(world.path()).unwrap();
    let longest = "(SELECT max(length(value)) FROM contents)";
    let changed = file.execute(&format!("DELETE FROM contents WHERE length(value) = {longest}"), []);
    assert!(changed.unwrap() > 0);
    drop(file);
    let found = inspect(&world.store, &["verify"]);
    assert_eq!((found.code, found.err.as_str()), (1, ""), "{found:?}");
    assert!(found.out.contains("damaged"), "{found:?}");
}
