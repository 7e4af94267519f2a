//! The commands `list` and `stats`.

use std::time::SystemTime;

use tower_response_cache::storage::connect;

use super::program::{inspect, program};
use super::world::{World, fill_partition};
use crate::support::{Fixture, Origin, response};

#[tokio::test]
async fn pipe_gets_whole_urls_between_tabs() {
    let world = World::new().await;
    let listed = inspect(&world.store, &["list"]).done();
    assert_eq!(listed.names(), ["a.json", "b.html", "missing", "old.html", "v", "v"]);
    let rows = listed.rows();
    let large = rows.iter().find(|row| row[0] == "https://shop.example/b.html").unwrap();
    assert_eq!(large[1..4], ["200", "text/html", "2097152"]);
    assert!(large[4].ends_with('Z') && large[5] > large[4], "{large:?}");
}

#[tokio::test]
async fn table_fits_its_width() {
    let world = World::new().await;
    let long = format!("https://shop.example/{}/the-end", "long/".repeat(40));
    let wide = "https://shop.example/%E2%82%AC/ok".to_owned();
    fill_partition(&world.path(), "", &[long, wide]).await;
    for width in ["80", "120"] {
        let table = inspect(&world.store, &["list", "--width", width]).done();
        let lines: Vec<_> = table.out.lines().collect();
        assert_eq!(lines.len(), 1 + 8 + 1, "{}", table.out);
        assert!(
            lines[0].starts_with("URL ") && lines[9].starts_with("8 responses (1 stale), 2.0 MiB of bodies"),
            "{lines:?}"
        );
        let widest = lines.iter().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width.parse().unwrap(), "{}", table.out);
        assert!(lines.iter().any(|line| line.contains('…') && line.contains("/the-end ")), "{}", table.out);
        assert!(table.out.contains("2h ago") && table.out.contains("in 23h"), "{}", table.out);
    }
}

#[tokio::test]
async fn listing_and_statistics_agree_on_stale() {
    let world = World::new().await;
    let url = "https://shop.example/validated";
    let storage = connect(&world.store).await.unwrap();
    let validated = Origin::new(|_| response(&[("cache-control", "max-age=600, no-cache")], "x"));
    let cache = Fixture::with(validated, storage, |builder| builder);
    cache.clock.set(SystemTime::now().into());
    cache.get(url).await;
    cache.layer.idle().await;
    let listed = inspect(&world.store, &["list"]).done();
    let stale: Vec<_> = listed.rows().into_iter().filter(|row| row[6] == "stale").map(|row| row[0]).collect();
    assert_eq!(stale.len(), 2, "{listed:?}");
    assert!(stale.contains(&url));
    let stats = inspect(&world.store, &["stats", "--json"]).done().json();
    assert_eq!((&stats["stale"], &stats["fresh"]), (&2.into(), &5.into()));
    let table = inspect(&world.store, &["list", "--width", "80"]).done().out;
    assert!(table.contains("7 responses (2 stale)") && table.contains("no-cache\n"), "{table}");
    assert!(inspect(&world.store, &["show", url]).done().out.contains("but validated before each use"));
}

#[tokio::test]
async fn json_lists_responses_without_secrets() {
    let world = World::new().await;
    let listed = inspect(&world.store, &["list", "--json", "--sort", "url"]).done();
    assert!(!listed.out.contains("hidden"), "{}", listed.out);
    let json = listed.json();
    let all = json.as_array().unwrap();
    assert_eq!(all.len(), 6);
    assert_eq!(all[0]["url"], "https://other.example/missing");
    assert_eq!(all[0]["status"], 404);
    assert!(all[0]["content_type"].is_null());
    assert_eq!((&all[2]["body_bytes"], &all[2]["in_chunks"]), (&2_097_152.into(), &true.into()));
    assert_eq!((&all[3]["fresh"], &all[1]["fresh"]), (&false.into(), &true.into()));
    assert_eq!((&all[1]["tags"][0], all[2]["tags"].as_array().unwrap().len()), (&"shop".into(), 0));
    assert_eq!(all[4]["vary"][0], "accept-language");
    let (stored, expires) = (all[1]["stored_at"].as_str().unwrap(), all[1]["expires_at"].as_str().unwrap());
    let moment = |text: &str| humantime::parse_rfc3339(text).unwrap();
    assert_eq!(moment(expires).duration_since(moment(stored)).unwrap().as_secs(), 86_400);
}

#[tokio::test]
async fn empty_json_listing_is_an_array() {
    let world = World::new().await;
    let listed = inspect(&world.store, &["list", "--json", "--url", "nowhere.example"]);
    assert_eq!((listed.code, listed.out.as_str(), listed.err.as_str()), (1, "[]\n", ""));
}

#[tokio::test]
async fn conditions_select_matching_responses() {
    let world = World::new().await;
    let cases: [(&[&str], &[&str]); 13] = [
        (&["--url", "shop.example/*.html"], &["b.html", "old.html"]),
        (&["--url", "other.example"], &["missing"]),
        (&["--status", "404"], &["missing"]),
        (&["--status", "4xx"], &["missing"]),
        (&["--status", "200-299", "--url", "*/a.json"], &["a.json"]),
        (&["--older-than", "2h"], &["old.html"]),
        (&["--younger-than", "2h", "--status", "4xx"], &["missing"]),
        (&["--stale"], &["old.html"]),
        (&["--fresh"], &["a.json", "b.html", "missing", "v", "v"]),
        (&["--larger-than", "1MiB"], &["b.html"]),
        (&["--tag", "shop"], &["a.json"]),
        (&["--sort", "size", "--limit", "1"], &["b.html"]),
        (&["--sort", "age", "--limit", "1"], &["old.html"]),
    ];
    for (conditions, names) in cases {
        let listed = inspect(&world.store, &[&["list"], conditions].concat()).done();
        assert_eq!(listed.names(), names, "{conditions:?}");
    }
    assert_eq!(inspect(&world.store, &["list", "--limit", "2"]).done().rows().len(), 2);
    let sorted = inspect(&world.store, &["list", "--sort", "expires"]).done();
    assert!(sorted.rows()[0][0].ends_with("old.html"));
}

#[tokio::test]
async fn listing_covers_all_partitions_by_default() {
    let world = World::new().await;
    fill_partition(&world.path(), "b", &["https://shop.example/part".to_owned()]).await;
    assert_eq!(inspect(&world.store, &["list"]).done().rows().len(), 7);
    assert_eq!(inspect(&world.store, &["--partition", "b", "list"]).done().names(), ["part"]);
    assert_eq!(inspect(&world.store, &["list", "--partition", ""]).done().rows().len(), 6);
    let secret = world.folder.path().join("secret");
    std::fs::write(&secret, "other").unwrap();
    let secret = secret.to_str().unwrap();
    assert_eq!(inspect(&world.store, &["list", "--key-secret-file", secret]).code, 1);
    let deleted =
        inspect(&world.store, &["--partition", "b", "delete", "https://shop.example/a.json", "--yes"]);
    assert_eq!(deleted.code, 1, "the entry of another partition is not deleted");
}

#[tokio::test]
async fn stats_count_by_status_type_and_host() {
    let world = World::new().await;
    let json = inspect(&world.store, &["stats", "--json"]).done().json();
    assert_eq!((&json["responses"], &json["fresh"], &json["stale"]), (&6.into(), &5.into(), &1.into()));
    assert_eq!(json["by_status"]["404"]["responses"], 1);
    assert_eq!(json["by_host"][0]["name"], "shop.example");
    assert_eq!(json["by_host"][0]["responses"], 5);
    let html = json["by_type"].as_array().unwrap().iter().find(|one| one["name"] == "text/html").unwrap();
    assert_eq!((&html["responses"], &html["body_bytes"]), (&2.into(), &2_097_155.into()));
    assert!(json["oldest"].as_str() < json["newest"].as_str());
    let text = inspect(&world.store, &["stats"]).done().out;
    assert!(text.starts_with("6 responses: 5 fresh, 1 stale\n2.0 MiB of bodies"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[tokio::test]
async fn closed_pipe_ends_quietly() {
    let world = World::new().await;
    let urls: Vec<_> = (0..2000).map(|number| format!("https://shop.example/{number}")).collect();
    fill_partition(&world.path(), "", &urls).await;
    let all = inspect(&world.store, &["list", "--json"]).done().json();
    assert_eq!(all.as_array().unwrap().len(), 2006);
    for form in ["list", "list --json"] {
        let mut command = program();
        command.arg(&world.store).args(form.split(' '));
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), b"".as_slice()), "{form}");
    }
}
