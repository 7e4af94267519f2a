//! Properties that hold for any response.
//!
//! Nothing panics, the age of a stored response never decreases, a further restriction never permits reuse, and a part of a
//! body has the bytes that it names.

use std::ops::Range;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::Full;
use proptest::prelude::*;
use proptest::sample::select;
use tower_response_cache::storage::MemoryStorage;

use crate::support::byteranges::{content_range, parts};
use crate::support::faulty::{Faulty, Mode};
use crate::support::{Answer, Fixture, Origin, ReqBody, get_with};

type Fields = Vec<(&'static str, Vec<u8>)>;

/// Cache-Control directives of responses.
const DIRECTIVES: [&str; 14] = [
    "max-age=5",
    "max-age=50",
    "s-maxage=50",
    "public",
    "private",
    "no-cache",
    "must-revalidate",
    "proxy-revalidate",
    "stale-while-revalidate=100",
    "stale-if-error=100",
    "must-understand",
    "immutable",
    "max-age=x",
    "x=\"a, b\"",
];

fn headers(fields: &Fields) -> HeaderMap {
    let valid = fields.iter().filter_map(|(name, value)| Some((*name, HeaderValue::from_bytes(value).ok()?)));
    valid.fold(HeaderMap::new(), |mut headers, (name, value)| {
        headers.append(HeaderName::from_static(name), value);
        headers
    })
}

fn request(fields: &Fields) -> Request<ReqBody> {
    let mut request = Request::get("http://example.com/a").body(Full::default()).unwrap();
    *request.headers_mut() = headers(fields);
    request
}

/// Sends the request `first`, and then the request `then` after each pause.
///
/// The origin always sends the same response.
fn ask(shared: bool, response: &Fields, first: &Fields, then: &Fields, pauses: &[u64]) -> Vec<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let fields = headers(response);
        let origin = Origin::new(move |_| {
            let mut answer = crate::support::response(&[], "body");
            *answer.headers_mut() = fields.clone();
            answer
        });
        let cache = Fixture::with(origin, MemoryStorage::new(), |b| if shared { b.shared(true) } else { b });
        let mut answers = vec![cache.ask(request(first)).await];
        for pause in pauses {
            cache.clock.advance(Duration::from_secs(*pause));
            answers.push(cache.ask(request(then)).await);
        }
        answers
    })
}

/// Generates fields of a response, as origins send them.
fn response() -> impl Strategy<Value = Fields> {
    let line = prop_oneof![
        4 => select(&DIRECTIVES[..]).prop_map(|value| ("cache-control", value)),
        1 => select(&["Thu, 01 Jan 2026 00:01:00 GMT", "0", "Thu, 01 Jan 2026 00:00:10 GMT"][..])
            .prop_map(|value| ("expires", value)),
        1 => select(&["3", "30", "x"][..]).prop_map(|value| ("age", value)),
        1 => select(&["Thu, 01 Jan 2026 00:00:00 GMT", "Wed, 31 Dec 2025 23:59:50 GMT"][..])
            .prop_map(|value| ("date", value)),
        1 => select(&["x-a", "*", "accept-language"][..]).prop_map(|value| ("vary", value)),
        1 => Just(("etag", "\"a\"")),
        1 => Just(("last-modified", "Mon, 01 Dec 2025 00:00:00 GMT")),
    ];
    let line = line.prop_map(|(name, value)| (name, value.as_bytes().to_vec()));
    prop::collection::vec(line, 0..6)
}

fn any_fields() -> impl Strategy<Value = Fields> {
    let names = [
        "cache-control",
        "expires",
        "age",
        "date",
        "vary",
        "etag",
        "last-modified",
        "range",
        "if-range",
        "pragma",
        "if-none-match",
        "if-modified-since",
        "cdn-cache-control",
        "connection",
        "authorization",
        "accept-encoding",
    ];
    let bytes =
        prop_oneof![prop::collection::vec(any::<u8>(), 0..30), "[ -~]{0,30}".prop_map(String::into_bytes)];
    prop::collection::vec((select(names.to_vec()), bytes), 0..8)
}

/// Generates members of a Range field, most of them valid.
fn range() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (0_usize..2500, 0_usize..400).prop_map(|(first, count)| format!("{first}-{}", first + count)),
        2 => (0_usize..2500).prop_map(|first| format!("{first}-")),
        2 => (0_usize..2500).prop_map(|count| format!("-{count}")),
        1 => select(&["", " ", "-0", "-1", "0-0", "0-18446744073709551616", "99999999999999999999-"][..])
            .prop_map(str::to_owned),
        1 => select(&["1-0", "-", "x", "0-0-0", "0 -1"][..]).prop_map(str::to_owned),
    ]
}

/// Returns the bytes that a Range field asks for, or `None` if it is invalid.
///
/// Each range is one that has bytes in a body of this length, in the order of the field.
fn asked(members: &[String], len: usize) -> Option<Vec<Range<usize>>> {
    let mut ranges = Vec::new();
    let members: Vec<_> =
        members.iter().map(|member| member.trim()).filter(|member| !member.is_empty()).collect();
    for member in &members {
        let (first, last) = member.split_once('-')?;
        let is_number = |text: &str| text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(first) || !is_number(last) {
            return None;
        }
        let number = |text: &str| text.parse::<u128>().ok();
        let (start, end) = match (number(first), number(last)) {
            (None, None) => return None,
            (None, Some(count)) => ((len as u128).saturating_sub(count), len as u128),
            (Some(first), None) => (first, len as u128),
            (Some(first), Some(last)) if first > last => return None,
            (Some(first), Some(last)) => {
                (first, len.min(usize::try_from(last).unwrap_or(len).saturating_add(1)) as u128)
            }
        };
        if start < end {
            ranges.push(start as usize..end as usize);
        }
    }
    (!members.is_empty()).then_some(ranges)
}

/// Sends a request for ranges of a stored body.
///
/// The storage returns chunks at once, or only later.
fn ask_for_ranges(body: &[u8], chunk_bytes: usize, later: bool, range: &str) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let body = body.to_vec();
        let origin =
            Origin::new(move |_| crate::support::response(&[("cache-control", "max-age=60")], body.clone()));
        let cache = if later {
            Fixture::with(origin, Faulty::new(Mode::Well), |b| b.chunk_bytes(chunk_bytes))
        } else {
            Fixture::with(origin, MemoryStorage::new(), |b| b.chunk_bytes(chunk_bytes))
        };
        cache.get(URI).await;
        cache.layer.idle().await;
        let answer = cache.ask(get_with(URI, &[("range", range)])).await;
        assert_eq!((answer.word(), cache.origin.count()), ("hit", 1));
        answer
    })
}

const URI: &str = "http://example.com/a";

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ranges_have_exactly_the_bytes_they_name(
        len in 0_usize..2500,
        seed: u8,
        chunk_bytes in select(&[1_usize, 7, 100, 1000, 1 << 16][..]),
        later: bool,
        members in prop_oneof![4 => prop::collection::vec(range(), 1..6), 1 => prop::collection::vec(range(), 6..20)],
    ) {
        let body: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed).collect();
        let answer = ask_for_ranges(&body, chunk_bytes, later, &format!("bytes={}", members.join(",")));
        let asked = asked(&members, len);
        let is_asked = |byte: usize| asked.iter().flatten().any(|range| range.contains(&byte));
        match answer.code.as_u16() {
            200 => {
                prop_assert_eq!(&answer.body[..], &body[..]);
                // The whole is not the answer to a plain request for parts.
                let plain = asked.iter().flatten().is_sorted_by(|one, other| one.end <= other.start);
                prop_assert!(!plain || members.len() > 16 || asked.is_none_or(|asked| asked.is_empty()));
            }
            416 => {
                prop_assert_eq!(asked, Some(vec![]));
                let value = format!("bytes */{len}");
                prop_assert_eq!(answer.header("content-range"), Some(value.as_str()));
            }
            206 => {
                let sent = match answer.header("content-range") {
                    Some(value) => vec![(content_range(value), answer.body.to_vec())],
                    None => {
                        let parts = parts(answer.header("content-type").unwrap(), &answer.body);
                        prop_assert!(parts.len() > 1);
                        parts.into_iter().map(|part| ((part.range, part.complete_len), part.data)).collect()
                    }
                };
                let mut times = vec![0; len];
                for ((range, complete_len), data) in sent {
                    prop_assert_eq!((complete_len, &data[..]), (len, &body[range.clone()]));
                    range.for_each(|byte| times[byte] += 1);
                }
                let covered = (0..len).all(|byte| times[byte] == 1 || (times[byte] == 0 && !is_asked(byte)));
                prop_assert!(covered && asked.is_some());
                let value = answer.body.len().to_string();
                prop_assert_eq!(answer.header("content-length"), Some(value.as_str()));
            }
            code => prop_assert!(false, "{code}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, max_global_rejects: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_not_panic(shared: bool, sent in any_fields(), asked in any_fields(), fresh: bool) {
        let mut sent = sent;
        if fresh {
            sent.push(("expires", b"Thu, 01 Jan 2026 00:01:00 GMT".to_vec()));
        }
        ask(shared, &sent, &asked, &asked, &[1, 100]);
    }

    #[test]
    fn age_never_decreases_between_hits(sent in response(), pauses in prop::collection::vec(0_u64..10, 1..6)) {
        let mut last = None;
        for answer in ask(false, &sent, &vec![], &vec![], &pauses) {
            // The age starts anew with a response from the origin.
            last = if answer.status.is_hit() {
                let age = answer.header("age").map(|age| age.parse::<u64>().unwrap());
                prop_assert!(age.is_some() && age >= last, "{last:?}, then {age:?}");
                prop_assert_eq!(answer.headers.get_all("age").iter().count(), 1);
                age
            } else {
                None
            };
        }
    }

    #[test]
    fn response_restriction_never_enables_reuse(
        shared: bool,
        sent in response(),
        more in select(&["no-store", "no-cache", "private", "must-revalidate", "max-age=1"][..]),
        pause in 0_u64..70,
    ) {
        // `private` restricts only a shared cache. If the response has no `max-age`, one would give it a lifetime
        // instead of reducing it. `must-revalidate` lets a shared cache store more only with Authorization, which
        // is not sent here.
        let limited = sent.iter().any(|(_, value)| value.starts_with(b"max-age"));
        prop_assume!((more != "private" || shared) && (more != "max-age=1" || limited));
        let before = ask(shared, &sent, &vec![], &vec![], &[pause]);
        let mut strict = sent;
        strict.push(("cache-control", more.as_bytes().to_vec()));
        let after = ask(shared, &strict, &vec![], &vec![], &[pause]);
        prop_assert!(before[1].status.is_hit() || !after[1].status.is_hit(), "{} allowed reuse", more);
    }

    #[test]
    fn request_restriction_never_enables_reuse(
        shared: bool,
        sent in response(),
        base in select(&["", "max-stale", "max-stale=20", "max-age=30", "min-fresh=5"][..]),
        more in select(&["no-cache", "max-age=0", "max-age=20", "min-fresh=20", "no-store"][..]),
        pause in 0_u64..70,
    ) {
        let line = |value: &str| vec![("cache-control", value.as_bytes().to_vec())];
        let before = ask(shared, &sent, &vec![], &line(base), &[pause]);
        let after = ask(shared, &sent, &vec![], &line(&format!("{base}, {more}")), &[pause]);
        prop_assert!(before[1].status.is_hit() || !after[1].status.is_hit(), "{} allowed reuse", more);
    }
}
