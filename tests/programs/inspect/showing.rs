//! The command `show`.

use std::time::SystemTime;

use tower_response_cache::storage::connect;

use super::program::{inspect, program};
use super::world::{LARGE, World, fill_partition, origin};
use crate::support::Fixture;

#[tokio::test]
async fn show_prints_details_without_secrets() {
    let world = World::new().await;
    let shown = inspect(&world.store, &["show", "https://shop.example/a.json", "--headers"]).done();
    assert!(!shown.out.contains("hidden"), "{}", shown.out);
    for line in [
        "https://shop.example/a.json",
        "  status        200 OK",
        "  type          application/json",
        "  body          10 bytes (10 B)",
        "  tags          shop",
        "    etag: \"a\"",
        "    set-cookie: (withheld)",
        "    x-api-key: (withheld)",
    ] {
        assert!(shown.out.lines().any(|shown| shown == line), "{line}: {}", shown.out);
    }
    let large = inspect(&world.store, &["show", "HTTPS://Shop.Example:443/b.html#part"]).done();
    assert!(large.out.contains("2,097,152 bytes (2.0 MiB), in chunks"), "{}", large.out);
}

#[tokio::test]
async fn json_shows_variants_and_no_secrets() {
    let world = World::new().await;
    let shown = inspect(&world.store, &["show", "https://shop.example/a.json", "--headers", "--json"]).done();
    assert!(!shown.out.contains("hidden"), "{}", shown.out);
    let json = shown.json();
    assert_eq!((&json[0]["variant"], &json[0]["tags"][0]), (&1.into(), &"shop".into()));
    let headers = json[0]["headers"].as_array().unwrap();
    assert!(headers.contains(&serde_json::json!(["set-cookie", "(withheld)"])), "{headers:?}");
    assert!(headers.contains(&serde_json::json!(["etag", "\"a\""])), "{headers:?}");
    let both = inspect(&world.store, &["show", "https://shop.example/v", "--json"]).done().json();
    assert_eq!((both.as_array().unwrap().len(), &both[1]["variant"]), (2, &2.into()));
    assert!(both[0].get("headers").is_none());
}

#[tokio::test]
async fn body_is_printed_unchanged() {
    let world = World::new().await;
    let body = |url: &str| program().arg(&world.store).args(["show", url, "--body"]).output().unwrap();
    let small = body("https://shop.example/a.json");
    assert_eq!((small.status.code(), small.stdout.as_slice()), (Some(0), br#"{"a":true}"#.as_slice()));
    assert_eq!(body("https://shop.example/b.html").stdout, vec![b'b'; LARGE]);
    let both = inspect(&world.store, &["show", "https://shop.example/a.json", "--body", "--headers"]).done();
    let (head, body) = both.out.split_once("\n\n").unwrap();
    assert!(head.starts_with("200 OK\n") && body == r#"{"a":true}"#, "{}", both.out);
}

#[tokio::test]
async fn variants_are_shown_and_chosen_by_number() {
    let world = World::new().await;
    let shown = inspect(&world.store, &["show", "https://shop.example/v"]).done();
    assert_eq!(shown.out.matches("  vary          accept-language").count(), 2, "{}", shown.out);
    let both = inspect(&world.store, &["show", "https://shop.example/v", "--body"]);
    assert!(both.refused(2).contains("2 variants"));
    let one = |number| {
        let arguments = ["show", "https://shop.example/v", "--body", "--variant", number];
        inspect(&world.store, &arguments).done().out
    };
    let mut bodies = [one("1"), one("2")];
    bodies.sort();
    assert_eq!(bodies, ["de", "en"]);
    assert_eq!(inspect(&world.store, &["show", "https://shop.example/v", "--variant", "3"]).code, 1);
}

#[tokio::test]
async fn body_of_any_partition_is_shown() {
    let world = World::new().await;
    fill_partition(&world.path(), "b", &["https://shop.example/part".to_owned()]).await;
    let output =
        program().arg(&world.store).args(["show", "https://shop.example/part", "--body"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 100));
}

#[tokio::test]
async fn made_entity_tag_is_told_from_the_origins() {
    let world = World::new().await;
    let storage = connect(&world.store).await.unwrap();
    let cache = Fixture::with(origin(), storage, |builder| builder.make_etags(true));
    cache.clock.set(SystemTime::now().into());
    let url = "https://shop.example/tagged";
    cache.get(url).await;
    cache.layer.idle().await;
    let tag = cache.get(url).await.header("etag").unwrap().to_owned();
    let shown = inspect(&world.store, &["show", url, "--headers"]).done();
    let line = format!("  etag          {tag}, made by the cache");
    assert!(shown.out.lines().any(|shown| shown == line), "{}", shown.out);
    assert!(!shown.out.contains("    etag:"), "{}", shown.out);
    let json = inspect(&world.store, &["show", url, "--json"]).done().json();
    assert_eq!(json[0]["made_etag"], *tag);
    let of_origin = inspect(&world.store, &["show", "https://shop.example/a.json", "--json"]).done().json();
    assert!(of_origin[0].get("made_etag").is_none());
}
