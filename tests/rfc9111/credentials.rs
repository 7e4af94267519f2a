//! Requests with credentials (RFC 9111 §3.5), and the users of a private cache.

use tower_response_cache::MissReason::{self, Absent};
use tower_response_cache::NotStored;
use tower_response_cache::ValidateReason::Stale;

use super::table::{case, run};

#[test]
fn shared_cache_respects_authorization() {
    let mut cases = Vec::new();
    let allowing = ["public, max-age=60", "must-revalidate, max-age=60", "s-maxage=60", "s-maxage=60, max-age=0"];
    cases.extend(allowing.map(|control| {
        case(format!("{control} allows it"), "§3.5").shared()
            .get("authorization: a").ok(&format!("cache-control: {control}")).stores()
            .get("authorization: b").hit().get("").hit()
    }));
    let silent = ["max-age=60", "max-age=60, proxy-revalidate", "max-age=60, no-cache=\"x-a\"", "max-age=60, immutable"];
    cases.extend(silent.map(|control| {
        case(format!("{control} does not allow it"), "§3.5").shared()
            .get("authorization: a").ok(&format!("cache-control: {control}")).stores_not(NotStored::Authorization)
            .get("authorization: a").miss(Absent)
    }));
    cases.extend([
        case("Expires does not allow it", "§3.5").shared()
            .get("authorization: a").ok("expires: {60}").stores_not(NotStored::Authorization),
        case("public without a lifetime of its own", "§3.5").shared()
            .get("authorization: a").ok("cache-control: public | last-modified: {-1000}").stores()
            .get("authorization: b").hit(),
        case("what is stored without credentials answers requests with them", "§3.5").shared()
            .get("").ok("cache-control: max-age=60").get("authorization: a").hit(),
        case("must-revalidate: stale is validated", "§3.5").shared()
            .get("authorization: a").ok(r#"cache-control: max-age=10, must-revalidate | etag: "a""#)
            .after(11).get("authorization: b | cache-control: max-stale").revalidated(Stale),
        case("Cookie does not count in a shared cache", "§3").shared()
            .get("cookie: a=1").ok("cache-control: max-age=60").stores().get("cookie: a=2").hit(),
    ]);
    run(cases);
}

#[test]
fn private_cache_stores_authorized_responses() {
    run([
        case("Authorization tells users apart", "§3.5")
            .get("authorization: a").ok("cache-control: max-age=60").stores()
            .get("authorization: b").miss(MissReason::Vary)
            .get("").miss(MissReason::Vary)
            .get("authorization: a").hit(),
        case("even when public", "§3.5")
            .get("authorization: a").ok("cache-control: max-age=60, public").stores()
            .get("authorization: b").miss(MissReason::Vary),
        case("Cookie tells users apart", "§3")
            .get("cookie: a=1").ok("cache-control: max-age=60").stores()
            .get("cookie: a=2").miss(MissReason::Vary)
            .get("").miss(MissReason::Vary)
            .get("cookie: a=1").hit(),
        case("not when public", "§5.2.2.9")
            .get("cookie: a=1").ok("cache-control: max-age=60, public").stores()
            .get("cookie: a=2").hit().get("").hit(),
        case("when public, but setting a cookie", "§7.3")
            .get("cookie: a=1").ok("cache-control: max-age=60, public | set-cookie: b=1").stores()
            .get("cookie: a=2").miss(MissReason::Vary)
            .get("").miss(MissReason::Vary),
        case("when public, and a 304 sets a cookie", "§7.3")
            .get("cookie: a=1").ok(r#"cache-control: max-age=60, public | etag: "a""#).stores()
            .after(61).get("cookie: a=1").not_modified(r#"cache-control: max-age=60, public | set-cookie: b=1"#)
            .revalidated(Stale).shows("set-cookie: b=1")
            .get("cookie: a=1").hit()
            .get("cookie: a=2").miss(MissReason::Vary),
        case("not when told so", "§3").with(|builder| builder.ignore_cookie(true))
            .get("cookie: a=1").ok("cache-control: max-age=60").stores().get("cookie: a=2").hit(),
    ]);
}
