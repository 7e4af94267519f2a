//! Properties that hold for any response.
//!
//! Nothing panics, the age of a stored response never decreases, and a further restriction never permits reuse.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::Full;
use proptest::prelude::*;
use proptest::sample::select;
use tower_response_cache::storage::MemoryStorage;

use crate::support::{Answer, Fixture, Origin, ReqBody};

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
