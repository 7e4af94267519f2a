//! Freshness and age (RFC 9111 §4.2), and the decision to serve (§4 and §5.2.1, RFC 5861).

use std::time::Duration;

use http::StatusCode;

use super::*;

const DATE: (&str, &str) = ("date", "Thu, 01 Jan 2026 00:00:00 GMT");

#[test]
fn lifetime_comes_from_response_fields() {
    let private = Options::default();
    for (list, secs) in [
        (&[("cache-control", "max-age=60")][..], 60),
        (&[("cache-control", "Max-Age=60")], 60), // §5.2: any letter case
        (&[("cache-control", "max-age=\"60\"")], 60), // §5.2: a quoted value equals a token
        (&[("cache-control", "x=\"a, max-age=9\", max-age=60")], 60),
        (&[("cache-control", "public"), ("cache-control", "max-age=60")], 60),
        (&[("cache-control", "max-age=60, max-age=10")], 10), // §4.2.1: the smallest of several
        (&[("cache-control", "max-age=-1")], 0),
        (&[("cache-control", "max-age=1.5")], 0),
        (&[("cache-control", "max-age")], 0),
        (&[("cache-control", "max-age=99999999999999999999")], 1 << 31), // §1.2.2: saturates
        (&[("cache-control", "s-maxage=60")], 0),                        // §5.2.2.10: for shared caches only
        (&[("cache-control", "max-age=60"), ("expires", "0")], 60),      // §5.3: max-age comes first
        (&[DATE, ("expires", "Thu, 01 Jan 2026 00:01:00 GMT")], 60),
        (&[DATE, ("expires", "Wed, 31 Dec 2025 00:01:00 GMT")], 0),
        (&[DATE, ("expires", "0")], 0), // §5.3: an invalid date is in the past
        (&[DATE, ("expires", "tomorrow")], 0),
        (
            &[
                DATE,
                ("expires", "Thu, 01 Jan 2026 00:01:00 GMT"),
                ("expires", "Thu, 01 Jan 2026 00:02:00 GMT"),
            ],
            0,
        ),
        (&[DATE, ("last-modified", "Wed, 31 Dec 2025 23:50:00 GMT")], 60), // §4.2.2: 10 percent
        (&[DATE, ("last-modified", "Thu, 01 Jan 1970 00:00:01 GMT")], 24 * 3600), // at most a day
        (&[DATE, ("last-modified", "Thu, 01 Jan 2026 01:00:00 GMT")], 0),
        (&[], 0),
        // Nothing can be counted from a Date in the future, except within the tolerance for clock skew.
        (&[("date", "Thu, 01 Jan 2026 00:01:00 GMT"), ("cache-control", "max-age=60")], 0),
        (&[("date", "Thu, 01 Jan 2026 00:00:03 GMT"), ("cache-control", "max-age=60")], 60),
    ] {
        assert_eq!(freshness(list, &private).lifetime, Duration::from_secs(secs), "{list:?}");
    }
    let both = [("cache-control", "max-age=60, s-maxage=10")];
    assert_eq!(freshness(&both, &shared()).lifetime, Duration::from_secs(10));
    assert_eq!(freshness(&both, &private).lifetime, Duration::from_secs(60));
}

#[test]
fn age_includes_every_correction() {
    let options = Options::default();
    let age = |list: &[(&str, &str)], delay: u64| {
        let requested = NOW - Duration::from_secs(delay);
        Freshness::new(StatusCode::OK, &fields(list), requested, NOW, &options).age(NOW).as_secs()
    };
    assert_eq!(age(&[DATE], 0), 0);
    assert_eq!(age(&[DATE, ("age", "10")], 0), 10);
    assert_eq!(age(&[DATE, ("age", "10")], 5), 15); // §4.2.3: the response delay
    assert_eq!(age(&[("date", "Wed, 31 Dec 2025 23:59:00 GMT")], 0), 60); // the apparent age
    assert_eq!(age(&[("date", "Wed, 31 Dec 2025 23:59:00 GMT"), ("age", "90")], 0), 90);
    assert_eq!(age(&[DATE, ("age", "7, 90")], 0), 7); // §5.1: the first of a list
    assert_eq!(age(&[DATE, ("age", "7"), ("age", "90")], 0), 7);
    assert_eq!(age(&[DATE, ("age", "-7")], 0), 0);
    assert_eq!(age(&[DATE, ("age", "99999999999999999999999")], 0), 1 << 31);
    let stored = freshness(&[DATE, ("age", "10"), ("cache-control", "max-age=60")], &options);
    assert_eq!(stored.age(NOW + Duration::from_secs(20)).as_secs(), 30);
    assert_eq!(stored.ttl(NOW + Duration::from_secs(20)), 30);
    assert_eq!(stored.ttl(NOW + Duration::from_secs(70)), -20);
}

fn verdict(request: &[(&str, &str)], response: &str, age: u64) -> Verdict {
    let options = Options::default();
    let stored = freshness(&[DATE, ("cache-control", response), ("etag", "\"t\"")], &options);
    decide(&RequestDirectives::of(&fields(request)), &stored, NOW + Duration::from_secs(age))
}

#[test]
fn verdict_follows_directives_and_age() {
    use StaleReason::{MaxStale, WhileRevalidate};
    use ValidateReason::{NoCache, Request, Stale};
    use Verdict::{Refuse, Serve, ServeStale, Validate};
    let asks = |value| vec![("cache-control", value)];
    for (request, response, age, expected) in [
        (vec![], "max-age=60", 0, Serve),
        (vec![], "max-age=60", 59, Serve),
        (vec![], "max-age=60", 60, Validate(Stale)), // §4.2: fresh while the lifetime is greater
        (vec![], "max-age=60, no-cache", 0, Validate(NoCache)),
        (vec![], "max-age=60, No-Cache=\"x\"", 0, Serve), // §5.2.2.4: only without that field
        (vec![], "max-age=60, no-cache=\"content-type\"", 0, Validate(NoCache)), // an essential field
        (vec![], "max-age=60, no-cache=\"x", 0, Validate(NoCache)),
        (vec![], "max-age=60, no-cache=\"\"", 0, Validate(NoCache)),
        (vec![], "max-age=60, x=\"", 0, Validate(NoCache)), // the open quote may hide any directive
        (asks("no-cache"), "max-age=60", 0, Validate(Request)),
        (vec![("pragma", "no-cache")], "max-age=60", 0, Validate(Request)), // §5.4
        (vec![("pragma", "no-cache"), ("cache-control", "x")], "max-age=60", 0, Serve),
        (asks("max-age=10"), "max-age=60", 10, Serve),
        (asks("max-age=10"), "max-age=60", 11, Validate(Request)),
        (asks("max-age=0"), "max-age=60", 1, Validate(Request)),
        (asks("max-age=0"), "max-age=60, immutable", 1, Serve), // RFC 8246 §2.1
        (asks("max-age=0"), "max-age=60, Immutable=1", 60, Validate(Request)),
        (asks("no-cache"), "max-age=60, immutable", 1, Validate(Request)),
        (asks("max-age=100"), "max-age=60, stale-while-revalidate=10", 61, Validate(Stale)),
        (asks("max-stale=1"), "max-age=60, stale-while-revalidate=10", 62, Validate(Stale)),
        (asks("min-fresh=10"), "max-age=60", 50, Serve),
        (asks("min-fresh=10"), "max-age=60", 51, Validate(Request)),
        (asks("max-stale"), "max-age=60", 9999, ServeStale(MaxStale)),
        (asks("max-stale=10"), "max-age=60", 70, ServeStale(MaxStale)),
        (asks("max-stale=10"), "max-age=60", 71, Validate(Stale)),
        (asks("max-stale=x"), "max-age=60", 71, Validate(Stale)),
        (asks("max-stale"), "max-age=60, must-revalidate", 61, Validate(Stale)), // §5.2.2.2
        (asks("max-stale"), "max-age=60, no-cache", 61, Validate(NoCache)),
        (vec![], "max-age=60, stale-while-revalidate=10", 70, ServeStale(WhileRevalidate)),
        (vec![], "max-age=60, stale-while-revalidate=10", 71, Validate(Stale)),
        (vec![], "max-age=60, stale-while-revalidate=10, must-revalidate", 61, Validate(Stale)),
        (asks("only-if-cached"), "max-age=60", 0, Serve),
        (asks("only-if-cached"), "max-age=60", 61, Refuse),
        (asks("only-if-cached, max-stale"), "max-age=60", 61, ServeStale(MaxStale)),
    ] {
        assert_eq!(verdict(&request, response, age), expected, "{request:?} {response} {age}");
    }
}

#[test]
fn stale_on_error_respects_window_and_prohibitions() {
    let allowed = |request: &[(&str, &str)], response: &str, options: &Options, age: u64| {
        let stored = freshness(&[DATE, ("cache-control", response)], options);
        let asked = RequestDirectives::of(&fields(request));
        stale_on_error(&asked, &stored, NOW + Duration::from_secs(age), false, options)
    };
    let private = Options::default();
    assert!(allowed(&[], "max-age=10, stale-if-error=60", &private, 70));
    assert!(!allowed(&[], "max-age=10, stale-if-error=60", &private, 71));
    assert!(allowed(&[("cache-control", "stale-if-error=60")], "max-age=10", &private, 20));
    for directive in ["no-cache", "must-revalidate"] {
        assert!(!allowed(&[], &format!("max-age=10, stale-if-error=60, {directive}"), &private, 20));
    }
    for directive in ["proxy-revalidate", "s-maxage=10"] {
        let response = format!("max-age=10, stale-if-error=60, {directive}");
        assert!(allowed(&[], &response, &private, 20));
        assert!(!allowed(&[], &response, &shared(), 20));
    }
}

#[test]
fn retained_while_fresh_stale_or_validatable() {
    let options = Options::default();
    let kept = |list: &[(&str, &str)]| freshness(list, &options).retain_until(&options).since(NOW).as_secs();
    assert_eq!(kept(&[DATE, ("cache-control", "max-age=60")]), 60);
    assert_eq!(kept(&[DATE, ("age", "10"), ("cache-control", "max-age=60")]), 50);
    assert_eq!(kept(&[DATE, ("cache-control", "max-age=60, stale-if-error=100")]), 160);
    assert_eq!(kept(&[DATE, ("cache-control", "max-age=60"), ("etag", "\"t\"")]), 60 + 7 * 24 * 3600);
}

#[test]
fn response_from_the_future_is_stale() {
    // The clock of another machine is ahead, or that of this machine was set back.
    for (ahead, expected) in [
        (0, Verdict::Serve),
        (5, Verdict::Serve),
        (6, Verdict::Validate(ValidateReason::Stale)),
        (3600, Verdict::Validate(ValidateReason::Stale)),
    ] {
        let received = NOW + Duration::from_secs(ahead);
        let response = fields(&[("cache-control", "max-age=60")]);
        let options = Options::default();
        let stored = Freshness::new(StatusCode::OK, &response, received, received, &options);
        assert_eq!(decide(&RequestDirectives::default(), &stored, NOW), expected, "{ahead}");
    }
}
