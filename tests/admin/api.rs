//! The API.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::faulty::{Faulty, Mode};
use crate::support::get_with;
use crate::world::World;

fn urls(list: &Value) -> Vec<&str> {
    list["entries"].as_array().unwrap().iter().map(|entry| entry["url"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn filters_choose_by_every_condition() {
    let world = World::new();
    world.store(&["/old"]).await;
    world.cache.clock.advance(Duration::from_secs(30));
    world.store(&["/a?red", "/b?red+blue", "/missing", "/longer-path", "/short"]).await;
    world.cache.clock.advance(Duration::from_secs(2));
    let all = ["/a?red", "/b?red+blue", "/longer-path", "/missing", "/old", "/short"];
    let cases: [(&str, &[&str]); 17] = [
        ("", &all),
        ("url=example.com/*", &all),
        ("url=example.com/a?*", &["/a?red"]),
        ("contains=longer", &["/longer-path"]),
        ("contains=", &all),
        ("status=404", &["/missing"]),
        ("status=4xx", &["/missing"]),
        ("status=200-299", &["/a?red", "/b?red+blue", "/longer-path", "/old", "/short"]),
        ("tag=red", &["/a?red", "/b?red+blue"]),
        ("tag=blue&url=example.com/b**", &[]),
        ("tag=blue&contains=%2Fb", &["/b?red+blue"]),
        ("state=fresh&status=4xx", &["/missing"]),
        ("state=stale", &["/short"]),
        ("larger_than=11", &["/longer-path"]),
        ("older_than=10", &["/old"]),
        ("younger_than=10&tag=blue", &["/b?red+blue"]),
        ("entry=00000000000000000000000000000000", &[]),
    ];
    for (query, expected) in cases {
        if query.contains("b**") {
            continue; // malformed, below
        }
        let list = world.get(&format!("/api/v1/entries?sort=url&{query}")).await.json();
        let expected: Vec<_> = expected.iter().map(|path| format!("http://example.com{path}")).collect();
        assert_eq!(urls(&list), expected, "{query}");
        assert_eq!(list["matching"], expected.len(), "{query}");
    }
    let entry = world.get("/api/v1/entries?contains=old").await.json()["entries"][0].clone();
    let same = world.get(&format!("/api/v1/entries?entry={}", entry["entry"].as_str().unwrap())).await.json();
    assert_eq!(same["entries"], json!([entry]));
    for mistake in [
        "url=example.com/b**",
        "status=many",
        "status=1-",
        "state=old",
        "larger_than=-1",
        "older_than=x",
        "entry=0",
        "what=1",
        "limit=0",
        "limit=1001",
        "limit=x",
        "cursor=00",
        "cursor=x",
        "sort=age",
        "order=up",
        "tag=a&tag=b",
        "tag=%ff",
    ] {
        let reply = world.get(&format!("/api/v1/entries?{mistake}")).await;
        assert_eq!(reply.code, 400, "{mistake}");
        assert!(!reply.detail().is_empty());
    }
}

#[tokio::test]
async fn pages_have_each_response_once_in_order() {
    let world = World::new();
    let paths: Vec<String> =
        (0..57).map(|number| format!("/{}", "p".repeat(number % 7) + &number.to_string())).collect();
    for (number, path) in paths.iter().enumerate() {
        world.store(&[path]).await;
        world.cache.clock.advance(Duration::from_millis(number as u64 % 3));
    }
    let value = |entry: &Value, sort: &str| match sort {
        "url" => entry["url"].to_string(),
        "key" => entry["key"].to_string(),
        "size" => format!("{:020}", entry["body_bytes"].as_u64().unwrap()),
        "status" => entry["status"].to_string(),
        _ => format!("{:020}", entry[format!("{sort}_at")].as_u64().unwrap()),
    };
    for sort in ["key", "url", "status", "size", "stored", "expires"] {
        for order in ["ascending", "descending"] {
            for limit in [1, 7, 19, 57, 1000] {
                let (mut seen, mut values, mut cursor) = (BTreeSet::new(), Vec::new(), None::<String>);
                loop {
                    let after =
                        cursor.as_ref().map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
                    let query = format!("/api/v1/entries?sort={sort}&order={order}&limit={limit}{after}");
                    let page = world.get(&query).await.json();
                    assert_eq!(page["matching"], 57);
                    let entries = page["entries"].as_array().unwrap();
                    assert!(!entries.is_empty() && entries.len() <= limit);
                    for entry in entries {
                        assert!(seen.insert(entry["key"].as_str().unwrap().to_owned()), "{query}");
                        values.push(value(entry, sort));
                    }
                    match page["next"].as_str() {
                        Some(next) => cursor = Some(next.to_owned()),
                        None => break,
                    }
                }
                assert_eq!(seen.len(), 57, "{sort} {order} {limit}");
                let is_sorted =
                    if order == "ascending" { values.is_sorted() } else { values.iter().rev().is_sorted() };
                assert!(is_sorted, "{sort} {order} {limit}");
            }
        }
    }
}

#[tokio::test]
async fn description_says_why_a_response_is_served_or_not() {
    let world = World::new();
    let paths = ["/a", "/must", "/while", "/error", "/no-cache", "/a?red", "/group", "/b", "/c", "/vary"];
    world.store(&paths).await;
    let describe = async |path: &str| {
        let reply = world.get(&format!("/api/v1/entry?url=http://example.com{path}")).await;
        let found = reply.json();
        // The key leads to the same.
        let by_key = world.get(&format!("/api/v1/entries/{}", found["key"].as_str().unwrap())).await.json();
        assert_eq!(by_key, found);
        (found["state"].as_str().unwrap().to_owned(), found["is_served"].as_bool().unwrap(), found)
    };
    let state = async |path: &str| {
        let (state, is_served, _) = describe(path).await;
        (state, is_served)
    };
    let is = |word: &str, is_served| (word.to_owned(), is_served);
    for path in ["/a", "/must", "/while", "/error", "/a%3Fred", "/group", "/vary"] {
        assert_eq!(state(path).await, is("fresh", true), "{path}");
    }
    assert_eq!(state("/no-cache").await, is("must-validate", false));
    assert_eq!(state("/nothing").await, is("absent", false));
    let (_, _, found) = describe("/a").await;
    assert_eq!(found["response"]["url"], "http://example.com/a");
    assert_eq!(found["freshness"]["lifetime"], 60);
    assert!(found["fields"].as_array().unwrap().contains(&json!({ "name": "etag", "value": "\"1\"" })));

    let handle = world.cache.layer.handle();
    handle.invalidate_tag("red").await.unwrap();
    handle.invalidate_group("http://example.com", "news").await.unwrap();
    handle.delete_url("http://example.com/b").await.unwrap();
    handle.expire_url("http://example.com/c").await.unwrap();
    assert_eq!(state("/a%3Fred").await, is("tag-invalidated", false));
    let (_, _, found) = describe("/a%3Fred").await;
    assert!(found["explanation"].as_str().unwrap().contains("tag red"), "{found}");
    assert_eq!(state("/group").await, is("group-invalidated", false));
    assert_eq!(state("/b").await, is("invalidated", false));
    assert_eq!(state("/c").await, is("must-validate", false));
    let (_, _, found) = describe("/c").await;
    assert!(found["explanation"].as_str().unwrap().starts_with("It was made stale by hand"), "{found}");

    world.cache.clock.advance(Duration::from_secs(90));
    assert_eq!(state("/a").await, is("must-validate", false));
    assert_eq!(state("/must").await, is("must-validate", false));
    assert_eq!(state("/while").await, is("stale-while-revalidate", true));
    assert_eq!(state("/error").await, is("stale-if-error", false));
    world.cache.clock.advance(Duration::from_secs(3600));
    assert_eq!(state("/while").await, is("must-validate", false));
    world.cache.clock.advance(Duration::from_secs(30 * 86_400));
    assert!(["expired", "absent"].contains(&&*state("/a").await.0));

    for wrong in [
        "/api/v1/entry",
        "/api/v1/entry?url=relative",
        "/api/v1/entry?url=http://a/&b=1",
        "/api/v1/entries/00",
    ] {
        assert_eq!(world.get(wrong).await.code, 400, "{wrong}");
    }
}

#[tokio::test]
async fn variants_are_described_by_their_keys() {
    let world = World::new();
    for language in ["en", "de"] {
        world.cache.ask(get_with("http://example.com/vary", &[("accept-language", language)])).await;
        world.cache.layer.idle().await;
    }
    let list = world.get("/api/v1/entries").await.json();
    let entries = list["entries"].as_array().unwrap();
    assert_eq!((entries.len(), &entries[0]["entry"]), (2, &entries[1]["entry"]));
    assert_eq!(entries[0]["vary"], json!(["accept-language"]));
    for entry in entries {
        let found = world.get(&format!("/api/v1/entries/{}", entry["key"].as_str().unwrap())).await.json();
        assert_eq!((&found["state"], &found["response"]), (&json!("fresh"), entry));
    }
    // Without the first response nothing leads to the other.
    let handle = world.cache.layer.handle();
    handle.delete_url("http://example.com/vary").await.unwrap();
    let variant = entries.iter().find(|entry| !entry["key"].as_str().unwrap()[32..34].eq("00")).unwrap();
    let found = world.get(&format!("/api/v1/entries/{}", variant["key"].as_str().unwrap())).await.json();
    assert_eq!(found["is_served"], false);
    assert!(["unreachable", "invalidated"].contains(&found["state"].as_str().unwrap()), "{found}");
}

#[tokio::test]
async fn credentials_are_never_sent() {
    let world = World::new();
    world.store(&["/secret"]).await;
    let found = world.get("/api/v1/entry?url=http://example.com/secret").await;
    let fields = found.json()["fields"].clone();
    assert!(fields.as_array().unwrap().contains(&json!({ "name": "x-auth-token", "value": null })));
    assert!(fields.as_array().unwrap().contains(&json!({ "name": "x-shown", "value": "<b>shown</b>" })));
    assert!(!String::from_utf8(found.body.to_vec()).unwrap().contains("hidden"));
}

#[tokio::test]
async fn purges_remove_or_make_stale_what_they_name() {
    let paths = ["/a?red", "/b?red+blue", "/c", "/group", "/missing"];
    let cases = [
        ("url", json!({ "url": "http://example.com/c" }), Some(1), vec!["/c"]),
        ("matching", json!({ "matching": { "status": "4xx" } }), Some(1), vec!["/missing"]),
        (
            "matching",
            json!({ "matching": { "tag": "red", "contains": "blue" } }),
            Some(1),
            vec!["/b?red+blue"],
        ),
        ("tag", json!({ "tag": "red" }), None, vec!["/a?red", "/b?red+blue"]),
        ("group", json!({ "origin": "http://example.com", "name": "news" }), None, vec!["/group"]),
        ("all", json!({ "confirm": true }), Some(5), paths.to_vec()),
    ];
    for (route, content, count, gone) in cases {
        for soft in [false, true] {
            let world = World::new();
            world.store(&paths).await;
            let mut content = content.clone();
            content["soft"] = soft.into();
            let reply = world.post(&format!("/api/v1/purge/{route}"), &content).await;
            assert_eq!(
                (reply.code.as_u16(), reply.json()),
                (200, json!({ "soft": soft, "count": count })),
                "{content}"
            );
            let rest: Vec<_> = paths.iter().filter(|path| !gone.contains(path)).copied().collect();
            if soft {
                assert_eq!(world.stored().await, paths, "{content}");
                let fresh = world.get("/api/v1/entries?state=fresh&sort=url").await.json();
                let rest: Vec<_> = rest.iter().map(|path| format!("http://example.com{path}")).collect();
                assert_eq!(urls(&fresh), rest, "{content}");
            } else {
                assert_eq!(world.stored().await, rest, "{content}");
            }
        }
    }
}

#[tokio::test]
async fn unclear_purges_change_nothing() {
    let world = World::new();
    world.store(&["/a?red"]).await;
    let cases = [
        ("url", json!({})),
        ("url", json!({ "url": "relative" })),
        ("url", json!({ "url": "http://example.com/a?red", "also": 1 })),
        ("url", json!("http://example.com/a?red")),
        ("matching", json!({})),
        ("matching", json!({ "matching": {} })),
        ("matching", json!({ "matching": { "what": 1 } })),
        ("matching", json!({ "matching": { "url": "" } })),
        ("tag", json!({ "tag": "" })),
        ("tag", json!({ "tag": ["red"] })),
        ("group", json!({ "origin": "example.com:x", "name": "" })),
        ("all", json!({})),
        ("all", json!({ "confirm": false })),
        ("all", json!({ "confirm": "yes" })),
        ("all", json!({ "soft": true })),
    ];
    for (route, content) in cases {
        let reply = world.post(&format!("/api/v1/purge/{route}"), &content).await;
        assert_eq!(reply.code, 400, "{content}");
        assert!(!reply.detail().is_empty());
    }
    let fields = [("x-cache-admin", "1"), ("content-type", "text/plain")];
    let reply = world.ask("POST", "/api/v1/purge/all", &fields, "{\"confirm\":true}").await;
    assert_eq!(reply.code, 415);
    assert_eq!(world.get("/api/v1/entries?state=fresh").await.json()["matching"], 1);
}

#[tokio::test]
async fn tags_and_groups_are_counted_on_each_page() {
    let world = World::new();
    world.store(&["/a?red", "/b?red+blue", "/c?green", "/group?red", "/vary?a+b+c+d"]).await;
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/api/v1/tags?limit=2{cursor}")).await.json();
        assert!(page["tags"].as_array().unwrap().len() <= 2);
        for tag in page["tags"].as_array().unwrap() {
            all.push((
                tag["origin"].clone(),
                tag["name"].as_str().unwrap().to_owned(),
                tag["responses"].as_u64().unwrap(),
            ));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let tag = |name: &str, count| (Value::Null, name.to_owned(), count);
    let mut expected: Vec<_> = ["a", "b", "blue", "c", "d", "green"].map(|name| tag(name, 1)).to_vec();
    expected.push(tag("red", 3));
    expected.push((json!("http://example.com"), "news".to_owned(), 1));
    assert_eq!(all, expected);
    let some = world.get("/api/v1/tags?contains=/b").await.json();
    assert_eq!(some["tags"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn statistics_count_and_measure() {
    let world = World::new();
    world.store(&["/a", "/a", "/missing"]).await;
    let numbers = world.get("/api/v1/statistics").await.json();
    let counts = &numbers["counts"];
    assert_eq!(
        (&counts["requests"], &counts["hits"], &counts["misses"], &counts["stored"]),
        (&json!(3), &json!(1), &json!(2), &json!(2))
    );
    assert!(
        numbers["outcomes"]
            .as_array()
            .unwrap()
            .contains(&json!({ "outcome": "miss", "reason": "absent", "count": 2 }))
    );
    let origin = &numbers["latency"]["origin"];
    assert_eq!(origin["count"], 2);
    let buckets = origin["buckets"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap());
    assert_eq!(buckets.sum::<u64>(), 2);
    let storage = world.get("/api/v1/storage").await.json();
    assert_eq!((&storage["works"], &storage["error"]), (&json!(true), &Value::Null));
    assert!(storage["bytes"].as_u64().unwrap() > 0 && storage["max_bytes"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn urls_are_warmed_through_the_service() {
    let world = World::new();
    world.store(&["/a"]).await;
    let urls = ["http://example.com/a", "http://example.com/b", "http://example.com/vary"];
    let reply = world
        .post("/api/v1/warm", &json!({ "urls": urls, "fields": { "accept-language": "de" }, "at_once": 2 }))
        .await;
    let expected = json!({ "stored": 2, "hits": 1, "revalidated": 0, "not_stored": 0, "failed": 0 });
    assert_eq!(reply.json(), expected);
    assert_eq!(world.cache.origin.last()["accept-language"], "de");
    for wrong in [
        json!({ "urls": ["/relative"] }),
        json!({ "urls": ["ftp://example.com/"] }),
        json!({ "urls": ["http://user@example.com/"] }),
        json!({ "urls": [], "at_once": 0 }),
        json!({ "urls": ["http://example.com/"], "fields": { "a b": "" } }),
    ] {
        assert_eq!(world.post("/api/v1/warm", &wrong).await.code, 400, "{wrong}");
    }
    let router = tower_response_cache::admin::router(world.cache.layer.handle(), |_| true);
    let world = World { router, ..world };
    assert_eq!(world.post("/api/v1/warm", &json!({ "urls": [] })).await.code, 501);
}

#[tokio::test]
async fn one_verification_runs_at_a_time() {
    let faulty = Faulty::new(Mode::Well);
    let world = World::on(faulty.clone());
    world.store(&["/a", "/b"]).await;
    let fields = [("x-cache-admin", "1")];
    let state = async || world.get("/api/v1/verify").await.json()["state"].clone();
    assert_eq!(state().await, "never");
    // The task has not begun to run: the runtime has one thread, and nothing waits here.
    assert_eq!(world.ask("POST", "/api/v1/verify", &fields, "").await.code, 202);
    assert_eq!(world.ask("POST", "/api/v1/verify", &fields, "").await.code, 409);
    while state().await == "running" {
        tokio::task::yield_now().await;
    }
    let ended = world.get("/api/v1/verify").await.json();
    assert_eq!(
        (&ended["state"], &ended["responses"], &ended["is_sound"]),
        (&json!("done"), &json!(2), &json!(true))
    );
    assert!(ended["ended_at"].as_u64() >= ended["started_at"].as_u64());
    faulty.set(Mode::Failing);
    assert_eq!(world.ask("POST", "/api/v1/verify", &fields, "").await.code, 202);
    while state().await == "running" {
        tokio::task::yield_now().await;
    }
    let ended = world.get("/api/v1/verify").await.json();
    assert_eq!(ended["state"], "failed");
    assert!(ended["error"].is_string());
    // A failed storage is told, and by no list that looks empty.
    assert_eq!(world.get("/api/v1/entries").await.code, 503);
    assert_eq!(world.get("/api/v1/storage").await.json()["works"], false);
}

#[test]
fn memory_of_a_page_does_not_grow_with_entries() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for path in ["/api/v1/entries?limit=20&sort=url&order=descending", "/api/v1/tags?limit=20"] {
        let [few, many] = [200, 5000].map(|entries: usize| {
            let world = World::new();
            runtime.block_on(async {
                for number in 0..entries {
                    world.cache.get(&format!("http://example.com/{number:06}?tag-{number:06}")).await;
                }
                world.cache.layer.idle().await;
                world.get(path).await; // what is made once
            });
            let used = allocation_counter::measure(|| {
                assert_eq!(runtime.block_on(world.get(path)).code, 200);
            });
            used.bytes_max
        });
        assert!(many < few + 16 * 1024, "{path}: {few} bytes for few entries, {many} for many");
    }
}
