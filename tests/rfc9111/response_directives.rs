//! Cache-Control of responses (RFC 9111 §5.2.2).
//!
//! The cases cover `no-cache` and `private`, also with field names, and `immutable` (RFC 8246).

use tower_response_cache::NotStored;
use tower_response_cache::ValidateReason::{NoCache, Request, Stale};

use super::table::{case, run};

#[test]
fn no_cache() {
    let mut cases = Vec::new();
    cases.extend([
        case("always validated", "§5.2.2.4")
            .get("").ok(r#"cache-control: no-cache, max-age=60 | etag: "a""#)
            .get("").revalidated(NoCache).get("").revalidated(NoCache),
        case("by Last-Modified", "§5.2.2.4")
            .get("").ok("cache-control: no-cache | last-modified: {-1000}")
            .get("").revalidated(NoCache).asked("if-modified-since: {-1000}"),
        case("max-stale does not help", "§5.2.2.4")
            .get("").ok(r#"cache-control: no-cache | etag: "a""#).get("cache-control: max-stale").revalidated(NoCache),
        case("with an argument that is no list of names it is the unqualified one", "§5.2.2.4")
            .get("").ok(r#"cache-control: max-age=60, no-cache="x a" | etag: "a""#).get("").revalidated(NoCache),
        case("with an empty argument", "§5.2.2.4")
            .get("").ok(r#"cache-control: max-age=60, no-cache="" | etag: "a""#).get("").revalidated(NoCache),
        case("with an argument that does not end", "§5.2.2.4")
            .get("").ok(r#"cache-control: max-age=60, no-cache="x-a | etag: "a""#).get("").revalidated(NoCache),
        case("both forms: the unqualified holds", "§5.2.2.4")
            .get("").ok(r#"cache-control: max-age=60, no-cache="x-a", no-cache | etag: "a""#)
            .get("").revalidated(NoCache),
    ]);
    for shared in [false, true] {
        let begin = |name: &str| {
            let case = case(format!("{name} (shared: {shared})"), "§5.2.2.4");
            if shared { case.shared() } else { case }
        };
        cases.extend([
            begin("with a name: reused without the field")
                .get("").ok(r#"cache-control: max-age=60, no-cache="x-a" | x-a: 1 | x-b: 2"#).stores().shows("x-a: 1")
                .get("").hit().shows("!x-a | x-b: 2"),
            begin("with several names, in any letter case")
                .get("").ok(r#"cache-control: max-age=60, no-cache="X-A , x-c" | x-a: 1 | x-b: 2 | x-c: 3"#).stores()
                .get("").hit().shows("!x-a | x-b: 2 | !x-c"),
            begin("with a name as a token")
                .get("").ok("cache-control: max-age=60, no-cache=x-a | x-a: 1 | x-b: 2").stores()
                .get("").hit().shows("!x-a | x-b: 2"),
            begin("with a name: a validation brings the field back")
                .get("").ok(r#"cache-control: max-age=10, no-cache="x-a" | x-a: 1 | etag: "a""#)
                .after(11).get("").not_modified(r#"etag: "a" | x-a: 2"#).revalidated(Stale).shows("x-a: 2"),
        ]);
    }
    run(cases);
}

#[test]
fn private() {
    run([
        case("with a name, in a shared cache: stored without the field", "§5.2.2.7").shared()
            .get("").ok(r#"cache-control: max-age=60, private="x-a" | x-a: 1 | x-b: 2"#).stores().shows("x-a: 1")
            .get("").hit().shows("!x-a | x-b: 2"),
        case("with several names", "§5.2.2.7").shared()
            .get("").ok(r#"cache-control: max-age=60, private="X-A,x-c" | x-a: 1 | x-b: 2 | x-c: 3"#).stores()
            .get("").hit().shows("!x-a | x-b: 2 | !x-c"),
        case("with a name as a token", "§5.2.2.7").shared()
            .get("").ok("cache-control: max-age=60, private=x-a | x-a: 1 | x-b: 2").stores()
            .get("").hit().shows("!x-a | x-b: 2"),
        case("Set-Cookie named private may be left out and the rest stored", "§5.2.2.7").shared()
            .with(|builder| builder.store_set_cookie(true))
            .get("").ok(r#"cache-control: max-age=60, private="set-cookie" | set-cookie: a=1"#).stores()
            .get("").hit().shows("!set-cookie"),
        case("with a name, in a private cache: the field stays", "§5.2.2.7")
            .get("").ok(r#"cache-control: max-age=60, private="x-a" | x-a: 1"#).stores()
            .get("").hit().shows("x-a: 1"),
        case("with an argument that is no list of names", "§5.2.2.7").shared()
            .get("").ok(r#"cache-control: max-age=60, private="x a""#).stores_not(NotStored::Private),
        case("with an empty argument", "§5.2.2.7").shared()
            .get("").ok(r#"cache-control: max-age=60, private="""#).stores_not(NotStored::Private),
        case("with an argument that does not end", "§5.2.2.7").shared()
            .get("").ok(r#"cache-control: max-age=60, private="x-a"#).stores_not(NotStored::Private),
        case("both forms: the unqualified holds", "§5.2.2.7").shared()
            .get("").ok(r#"cache-control: max-age=60, private="x-a", private"#).stores_not(NotStored::Private),
        case("a 304 does not bring the field into the store", "§5.2.2.7").shared()
            .get("").ok(r#"cache-control: max-age=10, private="x-a" | etag: "a""#)
            .after(11).get("").not_modified(r#"etag: "a" | cache-control: max-age=10, private="x-a" | x-a: 1"#)
            .revalidated(Stale)
            .get("").hit().shows("!x-a"),
    ]);
}

#[test]
fn immutable() {
    let stored = |name| case(name, "RFC 8246 §2").get("").ok(r#"cache-control: max-age=60, immutable | etag: "a""#);
    run([
        stored("fresh").after(59).get("").hit(),
        stored("it does not outlive its lifetime").after(60).get("").revalidated(Stale),
        stored("a reload needs no validation").after(1).get("cache-control: max-age=0").hit(),
        stored("once stale it does").after(60).get("cache-control: max-age=0").revalidated(Request),
        stored("no-cache of a request still counts").get("cache-control: no-cache").revalidated(Request),
        case("it is no lifetime", "RFC 8246 §2").get("").ok("cache-control: immutable").stores_nothing(),
    ]);
}
