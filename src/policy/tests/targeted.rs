//! Targeted fields (RFC 9213), such as CDN-Cache-Control.

use std::time::Duration;

use http::StatusCode;

use super::super::directives::ResponseDirectives;
use super::*;

fn said(list: &[(&str, &str)]) -> ResponseDirectives {
    ResponseDirectives::of(&fields(list), &shared())
}

#[test]
fn targeted_field_replaces_cache_control_if_shared() {
    let list = [
        ("cdn-cache-control", "max-age=60"),
        ("cache-control", "no-store, max-age=3600"),
        ("expires", "Fri, 01 Jan 2027 00:00:00 GMT"),
    ];
    let targeted = said(&list);
    assert!(targeted.targeted && !targeted.no_store);
    assert_eq!(freshness(&list, &shared()).lifetime, Duration::from_secs(60));
    assert!(ResponseDirectives::of(&fields(&list), &Options::default()).no_store);
    // Expires does not count, even where the targeted field states no lifetime (RFC 9213 §2.2).
    let list = [("cdn-cache-control", "must-revalidate"), ("expires", "Fri, 01 Jan 2027 00:00:00 GMT")];
    assert_eq!(freshness(&list, &shared()).lifetime, Duration::ZERO);
}

#[test]
fn invalid_targeted_field_is_ignored() {
    for invalid in [
        "",
        " ",
        "MaX-Age=60",
        "max-age=60,",
        "max-age= 60",
        "max-age =60",
        "max-age=60 s",
        "max-age=60, &",
        "\"a\"",
    ] {
        let said = said(&[("cdn-cache-control", invalid), ("cache-control", "no-store")]);
        assert!(said.no_store && !said.targeted, "{invalid}");
    }
}

#[test]
fn targeted_lines_form_one_dictionary() {
    let both = said(&[("cdn-cache-control", "max-age=60"), ("cdn-cache-control", "no-cache;x=1, max-age=5")]);
    assert!(both.no_cache);
    assert_eq!(both.max_age, Some(Duration::from_secs(5)));
}

#[test]
fn wrong_types_are_most_restrictive() {
    for wrong in [
        "max-age=6.0",
        "max-age=\"60\"",
        "max-age=sixty",
        "max-age",
        "max-age=?1",
        "max-age=-1",
        "max-age=(60)",
    ] {
        assert_eq!(said(&[("cdn-cache-control", wrong)]).max_age, Some(Duration::ZERO), "{wrong}");
    }
    assert!(!said(&[("cdn-cache-control", "no-store=?0, max-age=1")]).no_store);
    assert!(said(&[("cdn-cache-control", "no-store=1, max-age=1")]).no_store);
    assert!(said(&[("cdn-cache-control", "no-cache=x, max-age=1")]).no_cache);
    assert!(!said(&[("cdn-cache-control", "public=1, max-age=1")]).public);
    let qualified = said(&[("cdn-cache-control", "private=\"a, b\", no-cache=\"c\"")]);
    assert!(!qualified.private && !qualified.no_cache);
    assert_eq!((qualified.private_fields.len(), qualified.no_cache_fields.len()), (2, 1));
}

#[test]
fn targeted_field_decides_on_storing() {
    let storable = |list: &[(&str, &str)]| {
        let (response, options) = (fields(list), shared());
        let freshness = Freshness::new(StatusCode::OK, &response, NOW, NOW, &options);
        storable(&http::Method::GET, &HeaderMap::new(), StatusCode::OK, &response, &freshness, &options)
    };
    assert_eq!(storable(&[("cdn-cache-control", "max-age=9"), ("cache-control", "private")]), Ok(()));
    assert_eq!(
        storable(&[("cdn-cache-control", "private"), ("cache-control", "max-age=9")]),
        Err(NotStored::Private)
    );
    assert_eq!(
        storable(&[("cdn-cache-control", "no-store"), ("cache-control", "max-age=9")]),
        Err(NotStored::ResponseNoStore)
    );
}

#[test]
fn trailers_hold_no_targeted_field() {
    let trailers =
        fields(&[("example-cache-control", "max-age=9"), ("cdn-cache-control", "no-store"), ("x-sum", "1")]);
    let unstored = UnstoredFields::by(&HeaderMap::new(), &ResponseDirectives::default(), &shared());
    assert_eq!(unstored.trailers(&trailers), Some(fields(&[("x-sum", "1")])));
}
