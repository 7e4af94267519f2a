//! How the fields that control caching are parsed.
//!
//! The cases cover delta-seconds (RFC 9111 §1.2.2), directives (§5.2), dates and Age.

use tower_response_cache::MissReason::Absent;
use tower_response_cache::NotStored;
use tower_response_cache::ValidateReason::Stale;

use super::table::{Case, case, run};

/// Returns a case whose response is fresh for a minute.
fn minute(what: &str, section: &'static str, fields: &str) -> Case {
    case(what, section).get("").ok(fields).stores().after(59).get("").hit().after(1).get("").not_reused()
}

/// Returns a case whose response is never used without validation.
fn never(what: &str, section: &'static str, fields: &str) -> Case {
    let fields = format!("{fields} | etag: \"a\"");
    case(what, section).get("").ok(&fields).get("").revalidated(Stale).asked("if-none-match: \"a\"")
}

#[test]
fn lifetimes() {
    let mut cases = Vec::new();
    cases.extend([
        minute("plain", "§5.2.2.1", "cache-control: max-age=60"),
        minute("capitals", "§5.2", "Cache-Control: MAX-AGE=60"),
        minute("mixed letter case", "§5.2", "cache-control: Max-Age=60"),
        minute("quoted", "§5.2", r#"cache-control: max-age="60""#),
        minute("leading zeros", "§1.2.2", "cache-control: max-age=0000000000000000000000060"),
        minute("empty members", "RFC 9110 §5.6.1", "cache-control: , ,max-age=60,,"),
        minute("no space after the comma", "RFC 9110 §5.6.1", "cache-control: public,max-age=60"),
        minute("tabs around the comma", "RFC 9110 §5.6.1", "cache-control: public\t,\tmax-age=60"),
        minute("twice: the least", "§4.2.1", "cache-control: max-age=60, max-age=3600"),
        minute("twice, the least last", "§4.2.1", "cache-control: max-age=3600, max-age=60"),
        minute("on two lines: the least", "§4.2.1", "cache-control: max-age=3600 | cache-control: max-age=60"),
        minute("on the second line", "§5.2", "cache-control: public | cache-control: max-age=60"),
        minute("a name that only ends like it", "§5.2.3", "cache-control: x-max-age=0, max-age=60"),
        minute("a name that only begins like it", "§5.2.3", "cache-control: max-age-x=0, max-age=60"),
        minute("hidden in a quoted string", "§5.2", r#"cache-control: ext="max-age=0, no-store", max-age=60"#),
        minute("hidden behind an escaped quote", "RFC 9110 §5.6.4", r#"cache-control: ext="\", no-store", max-age=60"#),
        never("only in a quoted string", "§5.2", r#"cache-control: ext="max-age=60, ""#),
        never("0", "§5.2.2.1", "cache-control: max-age=0"),
        never("negative", "§4.2.1", "cache-control: max-age=-60"),
        never("with a plus", "§1.2.2", "cache-control: max-age=+60"),
        never("a fraction", "§1.2.2", "cache-control: max-age=60.5"),
        never("with a unit", "§1.2.2", "cache-control: max-age=60s"),
        never("a letter", "§4.2.1", "cache-control: max-age=a"),
        never("no argument", "§4.2.1", "cache-control: max-age"),
        never("an empty argument", "§4.2.1", "cache-control: max-age="),
        never("an empty quoted argument", "§4.2.1", r#"cache-control: max-age="""#),
        never("space around the equals sign", "§5.2", "cache-control: max-age = 60"),
        never("space before the equals sign", "§5.2", "cache-control: max-age =60"),
        never("space after the equals sign", "§5.2", "cache-control: max-age= 60"),
        never("two numbers", "§1.2.2", "cache-control: max-age=60 60"),
        never("a good one and a bad one", "§4.2.1", "cache-control: max-age=60, max-age=x"),
        never("a bad one does not leave it to Expires", "§4.2.1", "cache-control: max-age=x | expires: {60}"),
        never("single quotes", "§5.2", "cache-control: max-age='60'"),
        never("a semicolon is no comma", "§5.2", "cache-control: max-age=60; public"),
        never("digits of another script", "§1.2.2", "cache-control: max-age=٦٠"),
    ]);
    let year = 31_536_000;
    cases.extend(["2147483647", "2147483648", "4294967296", "18446744073709551616", "99999999999999999999999999"].map(|huge| {
        case(format!("max-age={huge}"), "§1.2.2")
            .get("").ok(&format!("cache-control: max-age={huge}")).stores()
            .after(year).get("").hit().shows(&format!("age: {year}"))
    }));
    run(cases);
}

#[test]
fn directives() {
    run([
        case("NO-STORE", "§5.2").get("").ok("cache-control: NO-STORE, max-age=60").stores_not(NotStored::ResponseNoStore),
        case("a misspelt no-store is unknown", "§5.2.3")
            .get("").ok("cache-control: nostore, max-age=60").stores().get("").hit(),
        case("no-store in quotes is hidden", "§5.2")
            .get("").ok(r#"cache-control: ext="no-store", max-age=60"#).stores().get("").hit(),
        case("no-store after a quoted string", "§5.2")
            .get("").ok(r#"cache-control: ext="a, b", no-store, max-age=60"#).stores_not(NotStored::ResponseNoStore),
        case("no-store after empty members", "RFC 9110 §5.6.1")
            .get("").ok("cache-control: ,, ,no-store | expires: {60}").stores_not(NotStored::ResponseNoStore),
        case("Pragma in a response means nothing", "§5.4")
            .get("").ok("pragma: no-cache | cache-control: max-age=60").stores().get("").hit(),
        case("a date in quotes is no date", "§5.3").get("").ok(r#"expires: "{60}""#).stores_not(NotStored::Stale),
        case("Cache-Control of bytes beyond ASCII", "§5.2")
            .get("").ok("cache-control: é=1, max-age=60").stores().get("").hit(),
    ]);
}

#[test]
fn age_field() {
    let aged = |age: &str, lines: &str| {
        let fields = format!("cache-control: max-age=60 | {lines}");
        case(lines, "§5.1").get("").ok(&fields).stores().get("").hit().shows(&format!("age: {age}"))
    };
    run([
        aged("30", "age: 30"),
        aged("30", "age: 30 | age: 50"),
        aged("30", "age: 30, 50"),
        aged("30", "age: 030"),
        aged("0", "age: -30"),
        aged("0", "age: x"),
        aged("0", "age: 30s"),
        aged("0", "age: 3.5"),
        aged("0", "age: \"30\""),
        aged("0", "age:"),
        case("a huge Age is stale", "§1.2.2")
            .get("").ok("cache-control: max-age=60 | age: 99999999999999999999999").stores_not(NotStored::Stale)
            .get("").miss(Absent),
    ]);
}

#[test]
fn dates() {
    // Each case begins on Thursday, 1 January 2026, 00:00:00.
    run([
        minute("IMF-fixdate", "RFC 9110 §5.6.7", "expires: Thu, 01 Jan 2026 00:01:00 GMT"),
        minute("RFC 850", "RFC 9110 §5.6.7", "expires: Thursday, 01-Jan-26 00:01:00 GMT"),
        minute("asctime", "RFC 9110 §5.6.7", "expires: Thu Jan  1 00:01:00 2026"),
        minute("small letters", "§4.2", "expires: thu, 01 jan 2026 00:01:00 gmt"),
        minute("capitals", "§4.2", "expires: THU, 01 JAN 2026 00:01:00 GMT"),
        minute("another weekday", "RFC 9110 §5.6.7", "expires: Mon, 01 Jan 2026 00:01:00 GMT"),
        never("UTC", "§4.2", "expires: Thu, 01 Jan 2026 00:01:00 UTC"),
        never("EST", "§4.2", "expires: Thu, 01 Jan 2026 00:01:00 EST"),
        never("Z", "§4.2", "expires: Thu, 01 Jan 2026 00:01:00 Z"),
        never("+0000", "§4.2", "expires: Thu, 01 Jan 2026 00:01:00 +0000"),
        never("no zone", "§4.2", "expires: Thu, 01 Jan 2026 00:01:00"),
        never("an hour of one digit", "RFC 9110 §5.6.7", "expires: Thu, 01 Jan 2026 0:01:00 GMT"),
        never("a day of one digit", "RFC 9110 §5.6.7", "expires: Thu, 1 Jan 2026 00:01:00 GMT"),
        never("two spaces", "RFC 9110 §5.6.7", "expires: Thu, 01  Jan 2026 00:01:00 GMT"),
        never("no weekday", "RFC 9110 §5.6.7", "expires: 01 Jan 2026 00:01:00 GMT"),
        never("no seconds", "RFC 9110 §5.6.7", "expires: Thu, 01 Jan 2026 00:01 GMT"),
        never("dashes in the year of four digits", "RFC 9110 §5.6.7", "expires: Thu, 01-Jan-2026 00:01:00 GMT"),
        never("ISO 8601", "RFC 9110 §5.6.7", "expires: 2026-01-01T00:01:00Z"),
        never("text behind it", "RFC 9110 §5.6.7", "expires: Thu, 01 Jan 2026 00:01:00 GMT+1"),
        never("0", "§5.3", "expires: 0"),
        never("-1", "§5.3", "expires: -1"),
        never("empty", "§5.3", "expires:"),
        never("a number", "§5.3", "expires: 1767225660"),
        never("no such day", "RFC 9110 §5.6.7", "expires: Sat, 31 Feb 2026 00:01:00 GMT"),
        never("no such hour", "RFC 9110 §5.6.7", "expires: Fri, 02 Jan 2026 25:01:00 GMT"),
        never("two lines", "§4.2.1", "expires: {60} | expires: {60}"),
        never("a good line and a bad one", "§4.2.1", "expires: 0 | expires: {60}"),
        never("an RFC 850 year of the century past", "RFC 9110 §5.6.7", "expires: Sunday, 06-Nov-94 08:49:37 GMT"),
        case("a year far off", "§5.3")
            .get("").ok("expires: Fri, 31 Dec 9999 23:59:59 GMT").stores().after(31_536_000).get("").hit(),
    ]);
}
