//! Which responses (RFC 9111 §3) and fields (§3.1) are stored, and which fields select a response (§4.1).

use http::{Method, StatusCode, header};

use super::*;

fn decide_storing(
    request: &[(&str, &str)],
    status: u16,
    response: &[(&str, &str)],
    options: &Options,
) -> Result<(), NotStored> {
    let (response, status) = (fields(response), StatusCode::from_u16(status).unwrap());
    let freshness = Freshness::new(status, &response, NOW, NOW, options);
    storable(&Method::GET, &fields(request), status, &response, &freshness, options)
}

#[test]
fn storable_or_first_reason_against() {
    use NotStored::*;
    let cc = |value| vec![("cache-control", value)];
    let (private, shared) = (Options::default(), shared());
    let authorization = vec![("authorization", "a")];
    for (request, status, response, options, expected) in [
        (vec![], 200, cc("max-age=60"), &private, Ok(())),
        (vec![], 200, vec![], &private, Err(NoFreshness)),
        (vec![], 200, vec![("etag", "\"t\"")], &private, Ok(())), // storable by its validator alone
        (vec![], 200, vec![("etag", "t")], &private, Err(NoFreshness)), // not an entity tag
        (vec![], 200, cc("max-age=0"), &private, Err(Stale)),
        (vec![], 200, cc("no-store"), &private, Err(ResponseNoStore)),
        (vec![], 200, cc("max-age=60, No-Store"), &private, Err(ResponseNoStore)),
        (cc("no-store"), 200, cc("max-age=60"), &private, Err(RequestNoStore)),
        (vec![], 200, cc("private, max-age=60"), &private, Ok(())),
        (vec![], 200, cc("private, max-age=60"), &shared, Err(Private)),
        (vec![], 200, cc("private=\"x\", max-age=60"), &shared, Ok(())), // §5.2.2.7: only without that field
        (vec![], 200, cc("private=\"\", max-age=60"), &shared, Err(Private)),
        (vec![], 200, cc("private=\"a b\", max-age=60"), &shared, Err(Private)),
        (vec![], 200, cc("private = \"x\", max-age=60"), &shared, Err(Private)),
        (vec![], 200, cc("private=\"x\", private, max-age=60"), &shared, Err(Private)),
        (vec![], 200, cc("no-store, must-understand, max-age=60"), &shared, Ok(())),
        (vec![], 599, cc("must-understand, max-age=60"), &shared, Err(StatusNotUnderstood)),
        (vec![], 200, cc("no-store, must-understand=1, max-age=60"), &shared, Err(ResponseNoStore)),
        (vec![], 599, vec![("cache-control", "private"), ("etag", "\"t\"")], &private, Ok(())),
        (authorization.clone(), 200, cc("max-age=60"), &private, Ok(())),
        (authorization.clone(), 200, cc("max-age=60"), &shared, Err(Authorization)), // §3.5
        (authorization.clone(), 200, cc("max-age=60, public"), &shared, Ok(())),
        (authorization.clone(), 200, cc("max-age=60, must-revalidate"), &shared, Ok(())),
        (authorization, 200, cc("s-maxage=60"), &shared, Ok(())),
        (vec![], 200, vec![("cache-control", "max-age=60"), ("set-cookie", "a=b")], &shared, Err(SetCookie)),
        (vec![], 200, vec![("cache-control", "max-age=60"), ("set-cookie", "a=b")], &private, Ok(())),
        (vec![], 206, cc("max-age=60"), &private, Err(PartialContent)),
        (vec![], 304, cc("max-age=60"), &private, Err(StatusNotCacheable)),
        (vec![], 101, cc("max-age=60"), &private, Err(StatusNotCacheable)),
        (vec![], 404, cc("max-age=60"), &private, Ok(())),
        (vec![], 500, cc("max-age=60"), &private, Ok(())),
        (vec![], 500, vec![("etag", "\"t\"")], &private, Err(StatusNotCacheable)),
        (vec![], 302, vec![("etag", "\"t\"")], &private, Err(StatusNotCacheable)),
        (vec![], 599, cc("max-age=60"), &private, Ok(())),
        (vec![], 999, cc("max-age=60"), &private, Err(StatusNotCacheable)),
    ] {
        assert_eq!(decide_storing(&request, status, &response, options), expected, "{status} {response:?}");
    }
    let freshness = freshness(&[("cache-control", "max-age=60")], &private);
    for method in [Method::HEAD, Method::POST, Method::PUT] {
        let response = fields(&[("cache-control", "max-age=60")]);
        let verdict = storable(&method, &HeaderMap::new(), StatusCode::OK, &response, &freshness, &private);
        assert_eq!(verdict, Err(MethodNotCacheable));
    }
}

#[test]
fn too_many_fields_are_not_stored() {
    let mut many = fields(&[("cache-control", "max-age=60")]);
    for number in 0..24_000 {
        many.append("x-many", HeaderValue::from(number));
    }
    let options = Options::default();
    let freshness = Freshness::new(StatusCode::OK, &many, NOW, NOW, &options);
    let verdict = storable(&Method::GET, &HeaderMap::new(), StatusCode::OK, &many, &freshness, &options);
    assert_eq!(verdict, Err(NotStored::TooManyFields));
    let mut stored = fields(&[("etag", "\"t\"")]);
    freshen(&mut stored, &many, &Options::default());
    assert_eq!(stored, fields(&[("etag", "\"t\"")]));
}

#[test]
fn shared_cache_stores_set_cookie_only_if_set() {
    let options = Options { store_set_cookie: true, ..shared() };
    let response = [("cache-control", "max-age=60"), ("set-cookie", "a=b")];
    assert_eq!(decide_storing(&[], 200, &response, &options), Ok(()));
}

#[test]
fn connection_fields_are_not_stored() {
    let came = fields(&[
        ("connection", "close, X-Named"),
        ("connection", "x-other"),
        ("x-named", "1"),
        ("x-other", "2"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("proxy-authenticate", "Basic"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x-kept", "3"),
    ]);
    let directives = ResponseDirectives::of(&came, &Options::default());
    let stored = stored_headers(&came, &UnstoredFields::by(&came, &directives, &Options::default()), 2);
    let names: Vec<_> = stored.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(names, [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-kept", "3")]);
}

#[test]
fn missing_date_is_added() {
    let mut headers = HeaderMap::new();
    ensure_date(&mut headers, NOW);
    assert_eq!(headers[header::DATE], "Thu, 01 Jan 2026 00:00:00 GMT");
    let mut headers = fields(&[("date", "whenever")]);
    ensure_date(&mut headers, NOW);
    assert_eq!(headers[header::DATE], "whenever");
}

#[test]
fn every_vary_line_selects() {
    let names = |vary: &[(&str, &str)], options: &Options| {
        let response = fields(vary);
        selecting_names(
            &response,
            &ResponseDirectives::of(&response, options),
            options,
            StoreDespite::default(),
        )
        .map(|names| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>().join(" "))
    };
    let shared = shared();
    assert_eq!(names(&[], &shared), Ok(String::new()));
    assert_eq!(names(&[("vary", "B, a"), ("vary", "c ,, b")], &shared), Ok("a b c".to_owned()));
    for any in ["*", "a, *", "* , a", "a b", "\"a\""] {
        assert_eq!(names(&[("vary", any)], &shared), Err(NotStored::VaryAny), "{any}");
    }
    let private = Options::default();
    assert_eq!(names(&[("vary", "x")], &private), Ok("authorization cookie x".to_owned()));
    assert_eq!(names(&[("cache-control", "public")], &private), Ok("authorization".to_owned()));
    let sets_cookie = [("cache-control", "public"), ("set-cookie", "a=b")];
    assert_eq!(names(&sets_cookie, &private), Ok("authorization cookie".to_owned()));
    let no_cookie = Options { ignore_cookie: true, ..Options::default() };
    assert_eq!(names(&[], &no_cookie), Ok("authorization".to_owned()));
}

#[test]
fn equivalent_values_become_equal() {
    let value = |name: &str, lines: &[&str]| {
        let list: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
        selecting_value(&name.parse().unwrap(), &fields(&list), &Options::default())
    };
    assert_eq!(value("accept-language", &["en, DE"]), value("accept-language", &["en", "de"]));
    assert_eq!(value("accept-encoding", &["gzip ,br"]), value("accept-encoding", &["GZIP, br"]));
    assert_eq!(value("accept-encoding", &["gzip, br"]), value("accept-encoding", &["br, gzip"]));
    assert_eq!(
        value("accept-language", &["de ; q = 0.50, en;q=1.000"]),
        value("accept-language", &["DE;q=0.5", "en"])
    );
    assert_ne!(value("accept-language", &["en, de"]), value("accept-language", &["de, en"]));
    assert_eq!(value("accept", &["a/b ,c/d"]), value("accept", &["a/b", "c/d"]));
    assert_ne!(value("accept-language", &["de;q=0.5, en"]), value("accept-language", &["de, en;q=0.5"]));
    assert_ne!(value("accept-language", &["de;q=0.5"]), value("accept-language", &["de;q=0.50x"]));
    assert_ne!(value("accept-encoding", &["gzip;q=0"]), value("accept-encoding", &["gzip"]));
    assert_eq!(value("accept-encoding", &["gzip;q=0"]), value("accept-encoding", &["gzip;q=0.000"]));
    assert_ne!(value("accept", &["a/b, c/d"]), value("accept", &["c/d, a/b"]));
    assert_ne!(value("x-any", &["a"]), value("x-any", &["A"]));
    assert_ne!(value("x-any", &["\"a, b\""]), value("x-any", &["\"a\", \"b\""]));
    for (one, other) in [("Doe, J", "Doe,J"), ("a,,b", "a,b"), (",a", "a"), ("a,", "a"), ("", ",")] {
        assert_ne!(value("x-any", &[one]), value("x-any", &[other]));
    }
    assert_ne!(value("x-any", &["a, b"]), value("x-any", &["a", "b"]));
    assert_ne!(value("x-any", &[""]), value("x-any", &[]));
    assert_ne!(value("authorization", &["a, b"]), value("authorization", &["a", "b"]));
    assert_eq!(value("x-any", &[]), None);
}

#[test]
fn request_specific_statuses_are_not_stored() {
    let of_one = [401, 406, 407, 408, 411, 412, 413, 415, 416, 417, 421, 425, 426, 428, 429, 431, 505, 511];
    for status in 200..=599_u16 {
        if [206, 304].contains(&status) {
            continue;
        }
        for options in [Options::default(), shared()] {
            let response = [("cache-control", "public, must-understand, max-age=60")];
            let expected = if of_one.contains(&status) { Err(NotStored::StatusOfRequest) } else { Ok(()) };
            let verdict = decide_storing(&[], status, &response[..], &options);
            if verdict != Err(NotStored::StatusNotUnderstood) {
                assert_eq!(verdict, expected, "{status}");
            }
            let response = [("cache-control", "public, max-age=60")];
            assert_eq!(decide_storing(&[], status, &response, &options), expected, "{status}");
        }
    }
}

#[test]
fn heuristic_lifetime_shares_no_cookie() {
    let options = Options { store_set_cookie: true, ..shared() };
    let old = ("last-modified", "Mon, 01 Dec 2025 00:00:00 GMT");
    let tag = ("etag", "\"t\"");
    for (fields, expected) in [
        (vec![old], Err(NotStored::SetCookie)),
        (vec![old, ("cache-control", "public")], Err(NotStored::SetCookie)),
        (vec![tag], Err(NotStored::SetCookie)),
        (vec![tag, ("cache-control", "max-age=0")], Err(NotStored::SetCookie)),
        (vec![tag, ("cache-control", "no-cache, max-age=60")], Err(NotStored::SetCookie)),
        (vec![tag, ("cache-control", "max-age=60"), ("age", "60")], Err(NotStored::SetCookie)),
        (vec![tag, ("cache-control", "max-age=60")], Ok(())),
        (vec![("cache-control", "max-age=0, s-maxage=60")], Ok(())),
        (vec![("expires", "Fri, 02 Jan 2026 00:00:00 GMT")], Ok(())),
    ] {
        let with_cookie = [fields.clone(), vec![("set-cookie", "a=b")]].concat();
        assert_eq!(decide_storing(&[], 200, &with_cookie, &options), expected, "{fields:?}");
        assert_eq!(decide_storing(&[], 200, &fields, &options), Ok(()), "{fields:?}");
    }
    // A lifetime that a rule gives is explicit. One that a rule only limits may still be a heuristic one.
    let minute = std::time::Duration::from_secs(60);
    let by = |decision: RuleDecision, list: &[(&str, &str)]| {
        let response = fields(list);
        let own = Freshness::new(StatusCode::OK, &response, NOW, NOW, &options);
        let directives = ResponseDirectives::of(&response, &options);
        let given = decision.rule_ttl(StatusCode::OK, &response, &directives, &own, &options).unwrap();
        let (request, own) = (HeaderMap::new(), own.with_rule_ttl(given));
        let exchanged = |method, by_content| HttpExchange {
            method,
            by_content,
            request: &request,
            status: StatusCode::OK,
            response: &response,
        };
        let asked = RequestDirectives::default();
        let exchanged = exchanged(&Method::GET, false);
        super::super::storable(exchanged, &asked, &directives, &own, given, &decision, &options)
    };
    let with_cookie = [old, ("set-cookie", "a=b")];
    let limits = RuleDecision {
        min_ttl: Some(minute * 60 * 24 * 30),
        max_ttl: Some(minute * 60 * 24 * 60),
        ..RuleDecision::default()
    };
    assert_eq!(by(limits, &with_cookie), Err(NotStored::SetCookie));
    assert_eq!(
        by(RuleDecision { default_ttl: Some(minute.into()), ..RuleDecision::default() }, &with_cookie),
        Ok(())
    );
    assert_eq!(
        by(RuleDecision { override_ttl: Some(minute.into()), ..RuleDecision::default() }, &with_cookie),
        Ok(())
    );
    assert_eq!(
        by(RuleDecision { override_ttl: Some(Ttl::Revalidate), ..RuleDecision::default() }, &with_cookie),
        Err(NotStored::SetCookie)
    );
}

#[test]
fn trailers_are_filtered_like_the_head() {
    let trailers = fields(&[
        ("x-sum", "1"),
        ("x-sum", "2"),
        ("etag", "\"t\""),
        ("x-private", "alice"),
        ("x-checked", "alice"),
        ("x-hop", "1"),
        ("connection", "x-other"),
        ("transfer-encoding", "chunked"),
        ("set-cookie", "session=alice"),
        ("cache-control", "max-age=99999"),
        ("age", "1"),
        ("vary", "x"),
        ("content-length", "1"),
        ("content-encoding", "gzip"),
    ]);
    let head = fields(&[
        ("cache-control", "max-age=60, private=\"x-private\", no-cache=\"x-checked\""),
        ("connection", "x-hop"),
    ]);
    let passed = |options: &Options| {
        let passed = UnstoredFields::by(&head, &ResponseDirectives::of(&head, options), options)
            .trailers(&trailers)
            .unwrap_or_default();
        passed.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(passed(&shared()), ["x-sum=1", "x-sum=2", "etag=\"t\""]);
    assert_eq!(passed(&Options::default()), ["x-sum=1", "x-sum=2", "etag=\"t\"", "x-private=alice"]);
    assert_eq!(UnstoredFields::default().trailers(&fields(&[("set-cookie", "a=b")])), None);
}

#[test]
fn restricted_field_names_are_deduplicated() {
    let many = ["x-user"; 5000].join(",");
    let both = format!("no-cache=\"{many}\", private=\"x-user, x-other, X-User\"");
    let headers = fields(&[("cache-control", both.as_str())]);
    let names: Vec<_> = UnstoredFields::restricted(&headers, &shared()).into_iter().cloned().collect();
    assert_eq!(names, ["x-other", "x-user"]);
}
