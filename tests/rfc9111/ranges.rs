//! Ranges of a stored whole response (RFC 9110 §14).

use http::Method;

use super::support::byteranges::{content_range, parts};
use super::support::{Answer, Fixture, Origin, get_with, response};
use super::table::{BODY, Case, case, run};

fn stored(name: &str) -> Case {
    case(name, "RFC 9110 §14.2").get("").ok(r#"cache-control: max-age=60 | etag: "a" | last-modified: {-1000}"#).stores()
}

#[test]
fn ranges() {
    let parts = [
        ("0-1", "01", "0-1"), ("8-", "89", "8-9"), ("-3", "789", "7-9"), ("8-99", "89", "8-9"), ("-99", BODY, "0-9"),
        ("9-9", "9", "9-9"), ("0-99999999999999999999999", BODY, "0-9"), ("0-18446744073709551616", BODY, "0-9"),
        // Several ranges that become one, so that no client gets parts that it need not read.
        ("0-1,3-4", "01234", "0-4"), ("3-4,0-1", "01234", "0-4"), (" 0-1 ,\t, 2-3,", "0123", "0-3"), ("0-1,10-", "01", "0-1"),
        ("-0,5-", "56789", "5-9"), ("0-5,4-9", BODY, "0-9"),
    ];
    let parts = parts.map(|(range, body, sent)| {
        stored(range).get(&format!("range: bytes={range}")).hit().code(206).gives(body)
            .shows(&format!("content-range: bytes {sent}/10 | content-length: {}", body.len()))
    });
    let beyond = ["10-", "10-20", "-0", "10-,-0", "18446744073709551616-"].map(|range| {
        stored(range).get(&format!("range: bytes={range}")).hit().code(416).shows("content-range: bytes */10")
    });
    let whole = ["bytes=0-1,4-3", "bytes=0-1,x", "bytes=,", "bytes=0-1,1-2,1-3", "bytes=0 - 1", "lines=0-1", "bytes=2-1", "bytes=a-b", "bytes=-", "bytes", "bytes=0-1 | range: bytes=3-4"];
    let whole = whole.map(|range| stored(range).get(&format!("range: {range}")).hit().code(200).gives(BODY));
    let conditions = [
        (r#""a""#, 206), (r#""b""#, 200), (r#"W/"a""#, 200), ("{-1000}", 206), ("{-999}", 200), ("x", 200),
    ];
    let conditions = conditions.map(|(condition, code)| {
        stored(condition).get(&format!("range: bytes=0-1 | if-range: {condition}")).hit().code(code)
    });
    run(parts.into_iter().chain(beyond).chain(whole).chain(conditions).chain([
        stored("If-None-Match comes first").get(r#"range: bytes=0-1 | if-none-match: "a""#).hit().code(304),
        case("a weak tag is no condition for a range", "RFC 9110 §13.1.5")
            .get("").ok(r#"cache-control: max-age=60 | etag: W/"a""#)
            .get(r#"range: bytes=0-1 | if-range: W/"a""#).hit().code(200).gives(BODY),
        case("only a 200 has ranges", "RFC 9110 §14.2")
            .get("").answer(404, "cache-control: max-age=60").get("range: bytes=0-1").hit().code(404).gives(BODY),
        stored("HEAD has no ranges").send("HEAD", "range: bytes=0-1").hit().code(200),
        case("a digest is of the content of one message", "RFC 9530 §2")
            .get("").ok("cache-control: max-age=60 | content-digest: sha-256=:x: | repr-digest: sha-256=:x:")
            .get("").hit().shows("content-digest: sha-256=:x:")
            .get("range: bytes=0-1").hit().code(206).shows("!content-digest | repr-digest: sha-256=:x:"),
        case("no part describes an empty body", "RFC 9110 §14.1.2")
            .get("").ok("cache-control: max-age=60").body("").get("range: bytes=-1").hit().code(200).gives("")
            .get("range: bytes=0-,-5").hit().code(200).get("range: bytes=0-").hit().code(416).shows("content-range: bytes */0"),
        case("a miss asks for the range", "§3.3").get("range: bytes=0-1").asked("range: bytes=0-1"),
    ]));
}

/// A cache that has stored a body of 1000 bytes, each of which tells its place, in its record or in chunks.
async fn long(in_chunks: bool, fields: &'static [(&'static str, &'static str)]) -> Fixture {
    let origin = Origin::new(move |_| response(fields, body()));
    let chunk_bytes = if in_chunks { 70 } else { 4096 };
    let storage = tower_response_cache::storage::MemoryStorage::new();
    let cache = Fixture::with(origin, storage, |builder| builder.chunk_bytes(chunk_bytes).make_etags(true).shared(true));
    assert_eq!(ask(&cache, &[]).await.code, 200);
    cache.layer.idle().await;
    cache
}

fn body() -> Vec<u8> {
    (0..250).flat_map(|number| format!("{number:04}").into_bytes()).collect()
}

async fn ask(cache: &Fixture, fields: &[(&str, &str)]) -> Answer {
    cache.ask(get_with("http://example.com/a", fields)).await
}

const PLAIN: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("content-type", "text/x; a=\"b\""), ("content-length", "1000")];

#[tokio::test]
async fn several_ranges_are_sent_as_parts() {
    // RFC 9110 §14.6 and §15.3.7.2.
    for in_chunks in [false, true] {
        let cache = long(in_chunks, PLAIN).await;
        for (asked, sent) in [
            ("0-0,-1", vec![0..1, 999..1000]),
            ("0-99,200-299", vec![0..100, 200..300]),
            ("900-,0-9", vec![900..1000, 0..10]),
            ("500-599, 0-99 ,,800-18446744073709551616", vec![500..600, 0..100, 800..1000]),
            ("300-399,0-9,350-449", vec![300..450, 0..10]),
            ("0-9,2000-3000,500-509,-0", vec![0..10, 500..510]),
            ("0-9,100-109,200-209,300-309,400-409,500-509,600-609,700-709,800-809,900-909", (0..10).map(|n| n * 100..n * 100 + 10).collect()),
        ] {
            let got = ask(&cache, &[("range", &format!("bytes={asked}"))]).await;
            assert_eq!((got.code.as_u16(), got.word()), (206, "hit"), "{asked}");
            assert_eq!(got.header("content-range"), None);
            assert_eq!(got.header("content-length"), Some(got.body.len().to_string().as_str()));
            assert!(got.header("age").is_some() && got.header("date").is_some() && got.header("etag").is_some());
            assert_eq!(got.header("cache-control"), Some("max-age=60"));
            assert_eq!(got.headers.get_all("content-type").iter().count(), 1);
            let parts = parts(got.header("content-type").unwrap(), &got.body);
            let ranges: Vec<_> = parts.iter().map(|part| part.range.clone()).collect();
            assert_eq!(ranges, sent, "{asked}");
            for part in &parts {
                assert_eq!((part.complete_len, &part.data[..]), (1000, &body()[part.range.clone()]), "{asked}");
                assert_eq!(part.fields, ["Content-Type: text/x; a=\"b\""]);
            }
        }
        assert_eq!(cache.origin.count(), 1);
    }
}

#[tokio::test]
async fn part_has_type_only_if_body_has() {
    let cache = long(true, &[("cache-control", "max-age=60"), ("content-range", "bytes 0-9/10")]).await;
    let got = ask(&cache, &[("range", "bytes=0-0,-1")]).await;
    // The field of a 200 has no meaning, and would make the response one of a single part.
    assert_eq!((got.code.as_u16(), got.header("content-range")), (206, None));
    let parts = parts(got.header("content-type").unwrap(), &got.body);
    assert!(parts.iter().all(|part| part.fields.is_empty()), "{parts:?}");
}

#[tokio::test]
async fn egregious_ranges_are_answered_whole() {
    // RFC 9110 §14.2 and §17.15.
    let many = |count: usize| (0..count).map(|_| "0-0").collect::<Vec<_>>().join(",");
    for in_chunks in [false, true] {
        let cache = long(in_chunks, PLAIN).await;
        for asked in [many(1000), many(17), many(3), "0-,0-,0-".to_owned(), "900-900,700-700,500-500,300-300,100-100".to_owned()] {
            let got = ask(&cache, &[("range", &format!("bytes={asked}"))]).await;
            assert_eq!((got.code.as_u16(), got.word(), got.body.len()), (200, "hit", 1000), "{asked}");
            assert_eq!(got.header("content-type"), Some("text/x; a=\"b\""));
        }
    }
}

#[tokio::test]
async fn conditions_come_before_several_ranges() {
    let cache = long(true, PLAIN).await;
    let range = ("range", "bytes=0-9,500-509");
    let made = ask(&cache, &[range]).await.header("etag").unwrap().to_owned();
    for (condition, value, code) in [
        ("if-range", made.as_str(), 206),
        ("if-range", "\"other\"", 200),
        ("if-none-match", made.as_str(), 304),
        ("if-none-match", "\"other\"", 206),
    ] {
        let got = ask(&cache, &[range, (condition, value)]).await;
        assert_eq!((got.code.as_u16(), got.word()), (code, "hit"), "{condition}: {value}");
    }
    let mut head = get_with("http://example.com/a", &[range]);
    *head.method_mut() = Method::HEAD;
    let got = cache.ask(head).await;
    assert_eq!((got.code.as_u16(), got.header("content-length"), got.body.len()), (200, Some("1000"), 0));
    let got = ask(&cache, &[("range", "bytes=0-9,20-29")]).await;
    assert_eq!((content_range(got.header("content-range").unwrap()), got.body.len()), ((0..30, 1000), 30));
}

#[tokio::test]
async fn variants_answer_several_ranges() {
    // Each range is of the encoded bytes (RFC 9110 §14.1.2).
    let origin = Origin::new(|request| {
        let coding = request.headers().get("accept-encoding").map_or("identity", |value| value.to_str().unwrap());
        let fields = [("cache-control", "max-age=60"), ("vary", "accept-encoding"), ("content-encoding", coding)];
        response(&fields, coding.repeat(100))
    });
    let cache = Fixture::new(origin);
    for coding in ["gzip", "br"] {
        ask(&cache, &[("accept-encoding", coding)]).await;
    }
    for coding in ["gzip", "br"] {
        let got = ask(&cache, &[("accept-encoding", coding), ("range", "bytes=0-9,-10")]).await;
        assert_eq!((got.code.as_u16(), got.word(), got.header("content-encoding")), (206, "hit", Some(coding)));
        let whole = coding.repeat(100);
        for part in parts(got.header("content-type").unwrap(), &got.body) {
            assert_eq!(part.data, whole.as_bytes()[part.range]);
        }
    }
    assert_eq!(cache.origin.count(), 2);
}
