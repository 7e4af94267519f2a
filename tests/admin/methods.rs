//! PURGE and BAN, as curl and the clients of other caches send them.

use http::Request;
use serde_json::json;
use tokio::net::TcpListener;

use crate::world::{TOKEN, World};

const PATHS: [&str; 5] = ["/a", "/a?red", "/b?red+blue", "/c?green", "/page"];

/// A method, a path, fields, and what is expected.
type Case<'c, T> = (&'c str, &'c str, &'c [(&'c str, &'c str)], T);

/// Sends a request, and returns its status and the paths that are gone.
async fn gone(method: &str, path: &str, fields: &[(&str, &str)]) -> (u16, Vec<&'static str>, World) {
    let world = World::new();
    world.store(&PATHS).await;
    let mut fields = fields.to_vec();
    if !fields.iter().any(|(name, _)| *name == "host") {
        fields.push(("host", "example.com"));
    }
    let reply = world.ask(method, path, &fields, "").await;
    let left = world.stored().await;
    let gone = PATHS.into_iter().filter(|path| !left.iter().any(|left| left == path)).collect();
    (reply.code.as_u16(), gone, world)
}

#[tokio::test]
async fn purges_of_other_caches_are_understood() {
    let cases: [Case<&[&str]>; 16] = [
        ("PURGE", "/a", &[], &["/a"]),
        ("PURGE", "/a?red", &[("host", "EXAMPLE.com:80")], &["/a?red"]),
        ("PURGE", "http://example.com/a", &[("host", "admin.test")], &["/a"]),
        ("PURGE", "/a", &[("host", "other.test")], &[]),
        ("PURGE", "/a", &[("x-purge-method", "exact")], &["/a"]),
        ("PURGE", "/nothing", &[], &[]),
        ("PURGE", "/", &[("surrogate-key", "red")], &["/a?red", "/b?red+blue"]),
        ("PURGE", "/souin-api/souin", &[("surrogate-key", "blue, green")], &["/b?red+blue", "/c?green"]),
        ("PURGE", "/", &[("xkey", "blue green")], &["/b?red+blue", "/c?green"]),
        ("PURGE", "/a", &[("cache-tag", "green")], &["/c?green"]),
        ("PURGEKEYS", "/", &[("xkey-purge", "green")], &["/c?green"]),
        ("PURGETAGS", "/", &[("x-cache-tags", "blue,green")], &["/b?red+blue", "/c?green"]),
        ("PURGE", "/", &[("clear-cache", "true")], &PATHS),
        ("PURGE", "/souin-api/souin/flush", &[], &PATHS),
        ("BAN", "/a", &[], &["/a"]),
        ("BAN", "/a", &[("host", "other.test")], &[]),
    ];
    for (method, path, fields, expected) in cases {
        let (code, gone, _) = gone(method, path, fields).await;
        assert_eq!((code, &gone[..]), (200, expected), "{method} {path} {fields:?}");
    }
}

#[tokio::test]
async fn soft_purges_keep_the_responses() {
    let cases: [Case<u64>; 4] = [
        ("PURGE", "/a", &[("fastly-soft-purge", "1")], 4),
        ("PURGE", "/", &[("surrogate-key", "red"), ("fastly-soft-purge", "1")], 3),
        ("PURGEKEYS", "/", &[("xkey-softpurge", "red green")], 2),
        ("PURGE", "/", &[("clear-cache", "true"), ("fastly-soft-purge", "1")], 0),
    ];
    for (method, path, fields, fresh) in cases {
        let (code, gone, world) = gone(method, path, fields).await;
        assert_eq!((code, &gone[..]), (200, &[][..]), "{fields:?}");
        let list = world.get("/api/v1/entries?state=fresh").await.json();
        assert_eq!(list["matching"], fresh, "{fields:?}");
    }
}

#[cfg(feature = "regex")]
#[tokio::test]
async fn bans_match_regular_expressions() {
    let all = ".*";
    let cases: [Case<&[&str]>; 11] = [
        ("BAN", "/", &[("x-ban-url", "^/[ab]\\?")], &["/a?red", "/b?red+blue"]),
        ("BAN", "/", &[("x-ban-url", "^/a"), ("host", "other.test")], &[]),
        (
            "BAN",
            "/",
            &[("x-ban-url", "^/a"), ("x-ban-host", "^example"), ("host", "other.test")],
            &["/a", "/a?red"],
        ),
        ("BAN", "/", &[("x-host", all), ("x-url", "^/a$"), ("x-content-type", all)], &["/a"]),
        ("BAN", "/", &[("x-host", "other"), ("x-url", all), ("x-content-type", all)], &[]),
        ("BAN", "/", &[("x-host", all), ("x-url", all), ("x-content-type", "text/html")], &["/page"]),
        ("BAN", "/", &[("x-host", all), ("x-url", all), ("x-content-type", all)], &PATHS),
        (
            "BAN",
            "/",
            &[
                ("x-host", all),
                ("x-url", all),
                ("x-content-type", all),
                ("x-cache-tags", "(blue|green)(,.+)?$"),
            ],
            &["/c?green"], // the tags of the other are "blue,red"
        ),
        ("BAN", "/", &[("x-invalidate-pattern", "^/[bc]")], &["/b?red+blue", "/c?green"]),
        ("PURGE", "/", &[("x-invalidate-pattern", "^/c")], &["/c?green"]),
        ("PURGE", "/.*red", &[("x-purge-method", "regex")], &["/a?red", "/b?red+blue"]),
    ];
    for (method, path, fields, expected) in cases {
        let (code, gone, _) = gone(method, path, fields).await;
        let gone: Vec<_> =
            gone.into_iter().filter(|path| !(*path == "/b?red+blue" && fields.len() == 4)).collect();
        assert_eq!((code, &gone[..]), (200, expected), "{method} {path} {fields:?}");
    }
}

#[tokio::test]
async fn what_is_not_understood_changes_nothing() {
    let cases: [Case<u16>; 16] = [
        ("PURGE", "/a", &[("x-magento-tags-pattern", ".*")], 501),
        ("BAN", "/a", &[("x-ban-expression", "obj.status == 200")], 501),
        ("PURGE", "/souin-api/souin/GET-http-example.com-/a", &[], 501),
        ("PURGE", "/souin-api/souin", &[], 501),
        ("PURGE", "/a", &[("surrogate-key", "")], 400),
        ("PURGE", "/a", &[("surrogate-key", " , ")], 400),
        ("PURGE", "/a", &[("fastly-soft-purge", "maybe")], 400),
        ("PURGE", "/a", &[("clear-cache", "yes")], 400),
        ("PURGE", "/a", &[("x-purge-method", "fuzzy")], 400),
        ("PURGEKEYS", "/a", &[], 400),
        ("PURGETAGS", "/a", &[], 400),
        ("BAN", "/a", &[("surrogate-key", "red")], 400),
        ("BAN", "/a", &[("xkey-softpurge", "red")], 400),
        ("BAN", "/a", &[("x-ban-url", "a"), ("x-ban-url", "b")], 400),
        ("REFRESH", "/a", &[], 404),
        ("BAN", "/", &[("x-ban-url", "(?=a)")], if cfg!(feature = "regex") { 400 } else { 501 }),
    ];
    for (method, path, fields, expected) in cases {
        let (code, gone, world) = gone(method, path, fields).await;
        assert_eq!((code, &gone[..]), (expected, &[][..]), "{method} {path} {fields:?}");
        assert_eq!(world.get("/api/v1/entries?state=fresh").await.json()["matching"], PATHS.len());
    }
    let world = World::new();
    assert_eq!(world.ask("PURGE", "/a", &[], "").await.code, 400, "without a host");
}

#[tokio::test]
async fn many_tags_are_refused_together() {
    let tags: Vec<_> = (0..1001).map(|number| number.to_string()).collect();
    let (code, gone, _) = gone("PURGE", "/a", &[("surrogate-key", &format!("red {}", tags.join(" ")))]).await;
    assert_eq!((code, gone.len()), (400, 0));
}

#[tokio::test]
async fn curl_purges_and_bans() {
    let world = World::new();
    world.store(&PATHS).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = world.router.clone();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let curl = async |arguments: &[&str], token: &str| {
        let mut command = tokio::process::Command::new("curl");
        command.args(["-sS", "--noproxy", "*", "-w", " %{http_code}", "-H", "Host: example.com"]);
        let output =
            command.args(["-H", &format!("Authorization: Bearer {token}")]).args(arguments).output().await;
        output.ok().map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let Some(answer) = curl(&["-X", "PURGE", &format!("{url}/a")], TOKEN).await else {
        assert!(std::env::var_os("CI").is_none(), "there is no curl");
        println!("skipped: there is no curl");
        return;
    };
    assert_eq!(answer, format!("{} 200", json!({ "count": 1, "soft": false })));
    assert_eq!(
        curl(&["-X", "PURGE", "-H", "Surrogate-Key: green", &url], TOKEN).await.unwrap(),
        "{\"count\":null,\"soft\":false} 200"
    );
    assert_eq!(
        curl(&["-X", "BAN", &format!("{url}/page")], TOKEN).await.unwrap(),
        "{\"count\":1,\"soft\":false} 200"
    );
    assert_eq!(world.stored().await, ["/a?red", "/b?red+blue"]);
    let refused = curl(&["-X", "PURGE", &format!("{url}/a?red")], "wrong").await.unwrap();
    assert!(refused.ends_with(" 401"), "{refused}");
    // As a browser does, by the password of a user.
    let page = format!("{url}/api/v1/entries?tag=blue");
    let listed =
        curl(&["-H", "Authorization:", "-u", &format!("anyone:{TOKEN}"), &page], TOKEN).await.unwrap();
    assert!(listed.contains("\"matching\":1") && listed.ends_with(" 200"), "{listed}");
    serving.abort();
    let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
    assert_eq!(world.send(request).await.code, 401);
}
