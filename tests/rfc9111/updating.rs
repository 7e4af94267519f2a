//! The changes that a 304 makes to a stored response (RFC 9111 §3.2, §4.3.4).

use tower_response_cache::ValidateReason::Stale;

use super::table::{case, run};

#[test]
fn updates() {
    let update = |name, stored: &str, update: &str, shows: &str| {
        case(name, "§3.2").get("").ok(&format!(r#"cache-control: max-age=10 | etag: "a" | {stored}"#))
            .after(11).get("").not_modified(&format!(r#"etag: "a" | {update}"#)).revalidated(Stale).code(200).shows(shows)
            .get("").hit().shows(shows)
    };
    run([
        update("replaced", "x-a: 1", "x-a: 2", "x-a: 2"),
        update("added", "x-a: 1", "x-b: 2", "x-a: 1 | x-b: 2"),
        update("all lines are replaced", "x-a: 1 | x-a: 2", "x-a: 3", "x-a: 3"),
        update("by several lines", "x-a: 1", "x-a: 2 | x-a: 3", "x-a: 2 | x-a: 3"),
        update("Content-Length stays", "content-length: 10", "content-length: 0", "content-length: 10"),
        update("Content-Encoding stays", "content-encoding: x", "content-encoding: y", "content-encoding: x"),
        update("Content-Range is not added", "x-a: 1", "content-range: bytes 0-1/2", "!content-range"),
        update("Content-Type is replaced", "content-type: text/a", "content-type: text/b", "content-type: text/b"),
        update("fields of the connection are left out", "x-a: 1", "connection: x-b | x-b: 1 | keep-alive: x",
            "!connection | !x-b | !keep-alive"),
        update("Date is replaced", "date: {0}", "date: {11}", "date: {11}"),
        update("Set-Cookie is replaced", "set-cookie: a=1", "set-cookie: b=1 | set-cookie: c=1",
            "set-cookie: b=1 | set-cookie: c=1"),
    ]);
}
