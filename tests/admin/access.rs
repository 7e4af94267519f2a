//! Requests that are permitted, and requests that are refused.

use axum::body::Body;
use axum::extract::OriginalUri;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_response_cache::admin;

use crate::world::{TOKEN, World};

/// Returns all methods and paths: those of the document, the page's, and some that are none.
async fn routes(world: &World) -> Vec<(String, String)> {
    let document = world.get("/api/v1/openapi.json").await.json();
    let mut all = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        all.extend(
            operations.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())),
        );
    }
    assert!(all.len() > 12);
    for path in ["/", "/page.css", "/page.js", "/icon.svg", "/nothing", "/api/v1", "/souin-api/souin/flush"] {
        for method in
            ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PURGE", "BAN", "PURGEKEYS"]
        {
            all.push((method.to_owned(), path.to_owned()));
        }
    }
    all
}

#[tokio::test]
async fn every_route_refuses_without_the_token() {
    let world = World::new();
    world.store(&["/", "/nothing"]).await;
    let wrong = ["", "Bearer", "Bearer wrong", "Basic d3Jvbmc=", "Basic dXNlcjp3cm9uZw=="];
    for (method, path) in routes(&world).await {
        for field in wrong {
            let mut request = Request::builder().method(&*method).uri(path.replace("{key}", "00"));
            request = request.header("host", "example.com").header("x-cache-admin", "1");
            request = request.header("clear-cache", "true").header("content-type", "application/json");
            if !field.is_empty() {
                request = request.header("authorization", field);
            }
            let reply = world.send(request.body(Body::from("{\"confirm\":true}")).unwrap()).await;
            assert_eq!(reply.code, 401, "{method} {path}");
            if method != "HEAD" {
                assert_eq!(reply.detail(), "authorisation is required");
            }
            let challenges: Vec<_> = reply.headers.get_all("www-authenticate").iter().collect();
            assert_eq!(challenges, ["Basic realm=\"cache administration\", charset=\"UTF-8\"", "Bearer"]);
        }
    }
    assert_eq!(world.stored().await, ["/", "/nothing"]);
}

#[tokio::test]
async fn function_is_asked_before_anything_else() {
    let world = World::new();
    let router = admin::router(world.cache.layer.handle(), |parts| parts.uri.path() == "/icon.svg");
    for (path, code) in [("/icon.svg", 200), ("/", 401), ("/nothing", 401)] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(router.clone().oneshot(request).await.unwrap().status(), code, "{path}");
    }
}

#[tokio::test]
async fn every_route_of_the_document_answers() {
    let world = World::new();
    for (method, path) in routes(&world).await.iter().filter(|(_, path)| path.starts_with("/api/v1/")) {
        let key = "00".repeat(37);
        let reply = world.ask(method, &path.replace("{key}", &key), &[("x-cache-admin", "1")], "").await;
        let expected = match (&**method, &**path) {
            ("POST", "/api/v1/verify") => 202,
            ("POST", _) => 415, // no content
            (_, "/api/v1/entry") => 400,
            _ => 200,
        };
        assert_eq!(reply.code, expected, "{method} {path}");
    }
    let missing = world.get("/api/v1/nothing").await;
    assert_eq!(
        (missing.code, missing.detail()),
        (StatusCode::NOT_FOUND, "there is nothing at this path".to_owned())
    );
    let reply = world.ask("DELETE", "/api/v1/verify", &[("x-cache-admin", "1")], "").await;
    assert_eq!((reply.code.as_u16(), &reply.headers["allow"]), (405, &"POST, GET".parse().unwrap()));
}

#[tokio::test]
async fn requests_of_other_sites_are_refused() {
    let world = World::new();
    world.store(&["/a"]).await;
    let confirm = json!({ "confirm": true }).to_string();
    let clear = async |fields: &[(&str, &str)]| {
        let all = [&[("content-type", "application/json"), ("host", "admin.test:9200")][..], fields].concat();
        world.ask("POST", "/api/v1/purge/all", &all, &confirm).await.code.as_u16()
    };
    // A form cannot send the field.
    assert_eq!(clear(&[]).await, 403);
    assert_eq!(clear(&[("sec-fetch-site", "same-origin")]).await, 403);
    let field = ("x-cache-admin", "1");
    for site in ["cross-site", "same-site", ""] {
        assert_eq!(clear(&[field, ("sec-fetch-site", site)]).await, 403, "{site}");
    }
    for origin in ["http://evil.test", "null", "", "http://admin.test", "http://admin.test:9200.evil.test"] {
        assert_eq!(clear(&[field, ("origin", origin)]).await, 403, "{origin}");
    }
    // Neither may it read, nor use the other methods.
    for (method, path) in [("GET", "/api/v1/entries"), ("PURGE", "/a"), ("BAN", "/a")] {
        for foreign in [("sec-fetch-site", "cross-site"), ("origin", "http://evil.test")] {
            let fields = [("host", "example.com"), foreign];
            assert_eq!(world.ask(method, path, &fields, "").await.code, 403, "{method}");
        }
    }
    assert_eq!(world.stored().await, ["/a"]);
    // A link to the page is followed.
    assert_eq!(world.ask("GET", "/", &[("sec-fetch-site", "cross-site")], "").await.code, 200);
    for own in
        [("sec-fetch-site", "same-origin"), ("origin", "http://Admin.test:9200"), ("sec-fetch-site", "none")]
    {
        assert_eq!(clear(&[field, own]).await, 200, "{own:?}");
    }
    assert_eq!(world.stored().await, [""; 0]);
}

#[tokio::test]
async fn every_response_is_protected() {
    let world = World::new();
    for (method, path) in routes(&world).await {
        for token in [TOKEN, "wrong"] {
            let request = Request::builder().method(&*method).uri(&*path).header("host", "example.com");
            let request = request.header("authorization", format!("Bearer {token}"));
            let reply = world.send(request.body(Body::empty()).unwrap()).await;
            let policy = reply.headers["content-security-policy"].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; "),
                "{policy}"
            );
            assert!(!policy.contains("unsafe") && policy.ends_with("frame-ancestors 'none'"));
            assert_eq!(reply.headers["cache-control"], "no-store");
            assert_eq!(reply.headers["x-content-type-options"], "nosniff");
            assert!(!reply.headers.contains_key("access-control-allow-origin"));
        }
    }
}

#[tokio::test]
async fn nested_router_finds_its_files() {
    let world = World::new();
    let nested = axum::Router::new().nest("/admin", world.router.clone());
    let services = axum::Router::new().nest_service("/admin", world.router.clone());
    for router in [nested, services] {
        let ask = async |path: &str| {
            let request = Request::get(path).header("authorization", format!("Bearer {TOKEN}"));
            router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
        };
        let page = ask("/admin").await.into_body().collect().await.unwrap().to_bytes();
        let page = String::from_utf8(page.to_vec()).unwrap();
        assert!(page.contains("src=\"./admin/page.js\""), "{page}");
        for path in ["/admin/page.js", "/admin/api/v1/statistics"] {
            assert_eq!(ask(path).await.status(), 200, "{path}");
        }
        assert_eq!(ask("/page.js").await.status(), 404);
    }
    let mut request = Request::get("/").header("authorization", format!("Bearer {TOKEN}"));
    request = request.extension(OriginalUri("/a/\"b'&".parse().unwrap()));
    let page = world.send(request.body(Body::empty()).unwrap()).await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(page.contains("src=\"./&quot;b'&amp;/page.js\""), "{page}");
}

#[tokio::test]
async fn content_is_bounded() {
    let world = World::new();
    let long = "x".repeat(64 * 1024);
    let reply = world.post("/api/v1/purge/tag", &json!({ "tag": long })).await;
    assert_eq!(reply.code, 413);
    let urls = vec![Value::from("http://example.com/"); 60_000];
    assert_eq!(world.post("/api/v1/warm", &json!({ "urls": urls })).await.code, 413);
}
