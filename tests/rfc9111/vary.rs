//! Which of several stored responses answers a request (RFC 9111 §4.1).

use tower_response_cache::MissReason::{self, Absent};
use tower_response_cache::NotStored;
use tower_response_cache::ValidateReason::Stale;

use super::table::{Case, case, run};

/// Returns a case that stores a response with Vary, and sends a second request.
///
/// `same` tells whether the stored response answers that request.
fn pair(what: &str, vary: &str, stored: &str, asked: &str, same: bool) -> Case {
    let case = case(what, "§4.1").get(stored).ok(&format!("cache-control: max-age=60 | vary: {vary}")).stores().get(asked);
    if same { case.hit() } else { case.miss(MissReason::Vary) }
}

#[test]
fn vary_fields_must_match() {
    run([
        pair("equal", "x-a", "x-a: 1", "x-a: 1", true),
        pair("different", "x-a", "x-a: 1", "x-a: 2", false),
        pair("absent in both", "x-a", "", "", true),
        pair("absent in one", "x-a", "x-a: 1", "", false),
        pair("absent in the other", "x-a", "", "x-a: 1", false),
        pair("absent is not empty", "x-a", "", "x-a:", false),
        pair("fields that are not named do not count", "x-a", "x-a: 1 | x-b: 1", "x-a: 1 | x-b: 2", true),
        pair("letter case of the name in Vary", "X-A", "x-a: 1", "x-a: 2", false),
        pair("letter case of the value counts", "x-a", "x-a: v", "x-a: V", false),
        pair("several names", "x-a, x-b", "x-a: 1 | x-b: 1", "x-a: 1 | x-b: 1", true),
        pair("several names, one different", "x-a, x-b", "x-a: 1 | x-b: 1", "x-a: 1 | x-b: 2", false),
        pair("several Vary lines", "x-a | vary: x-b", "x-a: 1 | x-b: 1", "x-a: 1 | x-b: 2", false),
        pair("empty members in Vary", ", x-a,,", "x-a: 1", "x-a: 1", true),
        pair("empty members in Vary, different", ", x-a,,", "x-a: 1", "x-a: 2", false),
        pair("lines of an unknown field may be no list", "x-a", "x-a: 1, 2", "x-a: 1 | x-a: 2", false),
        pair("white space in an unknown field", "x-a", "x-a: 1,2", "x-a: 1 ,  2", false),
        pair("equal lines", "x-a", "x-a: 1 | x-a: 2", "x-a: 1 | x-a: 2", true),
        pair("Accept is a list", "accept", "accept: a/b, c/d", "accept: a/b | accept: c/d", true),
        pair("the order of Accept", "accept", "accept: a/b, c/d", "accept: c/d, a/b", false),
        pair("the order of members counts in an unknown field", "x-a", "x-a: 1, 2", "x-a: 2, 1", false),
        pair("the order of lines counts in an unknown field", "x-a", "x-a: 1 | x-a: 2", "x-a: 2 | x-a: 1", false),
        pair("a comma is no space", "x-a", "x-a: 1, 2", "x-a: 1 2", false),
        pair("Cookie", "cookie", "cookie: a=1", "cookie: a=2", false),
        pair("User-Agent", "user-agent", "user-agent: x/1", "user-agent: x/2", false),
        case("an empty Vary names nothing", "§4.1")
            .get("x-a: 1").ok("cache-control: max-age=60 | vary:").stores().get("x-a: 2").hit(),
    ]);
}

#[test]
fn selecting_fields_are_normalized() {
    let fields = ["accept-language", "accept-encoding", "accept-charset"];
    run(fields.into_iter().flat_map(|name| {
        // Some servers take the order of languages as their priority (RFC 9110 §12.5.4).
        let any_order = name != "accept-language";
        let pair = |what: &str, stored: &str, asked: &str, same| {
            let request = |lines: &str| lines.replace('#', &format!("{name}:"));
            pair(&format!("{name}: {what}"), name, &request(stored), &request(asked), same)
        };
        [
            pair("white space", "# aa,bb", "# aa ,  bb", true),
            pair("lines are combined", "# aa, bb", "# aa | # bb", true),
            pair("letter case", "# AA, bB", "# aa, bb", true),
            pair("order", "# bb, aa", "# aa, bb", any_order),
            pair("order of lines", "# bb | # aa", "# aa | # bb", any_order),
            pair("order with weights", "# bb;q=0.5, aa", "# aa, bb;q=0.5", any_order),
            pair("space around a weight's semicolon", "# aa, bb;q=0.5", "# aa, bb; q=0.5", true),
            pair("another weight", "# aa;q=0.5", "# aa;q=0.6", false),
            pair("a weight less", "# aa;q=0.5", "# aa", false),
            pair("a member more", "# aa, bb", "# aa, bb, cc", false),
            pair("weights change places", "# aa;q=0.1, bb;q=0.9", "# aa;q=0.9, bb;q=0.1", false),
        ]
    }));
}

#[test]
fn vary_star_never_matches() {
    let mut cases = Vec::new();
    cases.extend(["*", "*, x-a", "x-a, *", ", *", "x-a | vary: *", "* | vary: x-a", "x-a,*,x-b"].map(|vary| {
        case(format!("Vary: {vary}"), "§4.1")
            .get("x-a: 1").ok(&format!("cache-control: max-age=60 | vary: {vary}")).stores_not(NotStored::VaryAny)
            .get("x-a: 1").forwarded()
    }));
    cases.extend([
        case("Vary that cannot be read", "§4.1")
            .get("").ok("cache-control: max-age=60 | vary: x a").stores_not(NotStored::VaryAny).get("").miss(Absent),
        case("Vary: * in a 304 leaves nothing to reuse", "§4.1")
            .get("").ok(r#"cache-control: max-age=10 | etag: "a""#)
            .after(11).get("").not_modified(r#"etag: "a" | vary: * | cache-control: max-age=60"#)
            .get("").not_reused(),
    ]);
    run(cases);
}

#[test]
fn several_variants_are_stored() {
    let stored = |tag: &str| format!(r#"cache-control: max-age=60 | vary: x-a | etag: "{tag}""#);
    let both = |name| {
        case(name, "§4.3.1")
            .get("x-a: 1").ok(&stored("a")).body("one").stores()
            .get("x-a: 2").ok(&stored("b")).body("two").stores()
    };
    run([
        both("each answers its own").get("x-a: 1").hit().gives("one").get("x-a: 2").hit().gives("two"),
        both("a third asks with all tags, and is answered from the one that the 304 names")
            .get("x-a: 3").not_modified(r#"etag: "a" | vary: x-a"#).asked(r#"if-none-match: "a", "b""#)
            .code(200).gives("one").shows(r#"etag: "a""#),
        both("the 304 may name the other")
            .get("x-a: 3").not_modified(r#"etag: "b" | vary: x-a"#).code(200).gives("two").shows(r#"etag: "b""#),
        both("a third with an answer of its own")
            .get("x-a: 3").ok(&stored("c")).body("three").miss(MissReason::Vary).stores().gives("three")
            .get("x-a: 1").hit().gives("one").get("x-a: 3").hit().gives("three"),
        case("one variant's tag is asked with on a miss", "§4.3.1")
            .get("x-a: 1").ok(&stored("a")).body("one")
            .get("x-a: 2").not_modified(r#"etag: "a" | vary: x-a"#).asked(r#"if-none-match: "a" | !if-modified-since"#)
            .code(200).gives("one"),
        case("a variant without a tag is not asked with", "§4.3.1")
            .get("x-a: 1").ok("cache-control: max-age=60 | vary: x-a | last-modified: {-60}")
            .get("x-a: 2").ok(&stored("b")).miss(MissReason::Vary).asked("!if-none-match | !if-modified-since"),
        case("a stale variant does not stand in the way of a fresh one", "§4.1")
            .get("x-a: 1").ok(&stored("a")).body("one")
            .after(50).get("x-a: 2").ok(&stored("b")).body("two")
            .after(11).get("x-a: 2").hit().gives("two").get("x-a: 1").revalidated(Stale),
        case("the most recent of several that match", "§4")
            .get("x-a: 1").ok("cache-control: max-age=60 | vary: x-a").body("one")
            .after(5).get("x-a: 2").ok("cache-control: max-age=60").body("two")
            .after(1).get("x-a: 1").hit().gives("two"),
    ]);
}
