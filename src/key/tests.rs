//! Equivalent URIs share a key, and no others do.

use http::{HeaderName, Request, Uri, uri::Scheme};

use super::*;

fn keyer() -> Keyer {
    Keyer::new(b"secret", "", false)
}

fn key(uri: &str) -> Key {
    keyer().head(&EffectiveUri::of_uri(&uri.parse::<Uri>().unwrap()).unwrap())
}

const DISTINCT: [&str; 20] = [
    "http://a/",
    "https://a/",
    "http://a/b",
    "http://ab/",
    "http://a:81/",
    "http://a:8/1/",
    "http://a:443/",
    "https://a:80/",
    "http://a/?",
    "http://a/?b",
    "http://a//",
    "http://a/b/",
    "http://a/B",
    "http://a/%62",
    "http://a.b/",
    "http://[::1]/",
    "http://[::1]:81/",
    "http://[::1:81]/",
    "http://a/b?c=http://a/b",
    "x://a:80/",
];

#[test]
fn uri_is_read_back_from_its_text() {
    for text in DISTINCT {
        let uri = text.parse::<Uri>().unwrap();
        let text = EffectiveUri::of_uri(&uri).unwrap().to_text();
        assert_eq!(keyer().head(&EffectiveUri::of_text(&text).unwrap()), key(&text), "{text}");
    }
    for text in ["cache-key:///", "cache-key:///a b/http://c"] {
        let named = EffectiveUri::of_text(text).unwrap();
        assert!(named.is_named() && named.to_text() == text);
    }
    for text in [
        "",
        "a",
        "http:",
        "http://",
        "http://a",
        "http:///a",
        "http://a:/",
        "http://a:x/",
        "http://a:080/",
        "cache-key://a/",
    ] {
        assert!(EffectiveUri::of_text(text).is_none(), "{text}");
    }
}

#[test]
fn different_uris_have_different_keys_and_texts() {
    for one in DISTINCT {
        let one_uri: Uri = one.parse().unwrap();
        let one_effective = EffectiveUri::of_uri(&one_uri).unwrap();
        for other in DISTINCT {
            let other_uri: Uri = other.parse().unwrap();
            let text = EffectiveUri::of_uri(&other_uri).unwrap().to_text();
            assert_eq!(key(one) == key(other), one == other, "{one} {other}");
            assert_eq!(one_effective.is_text(&text), one == other, "{one} {other}");
        }
    }
}

#[test]
fn spellings_of_one_uri_have_one_key() {
    for (one, other) in [
        ("http://a/", "HTTP://A:80"),
        ("https://a.example/b", "https://A.Example:443/b"),
        ("http://[::1]/", "http://[::1]:80"),
        ("http://a/", "http://user:password@a/"),
        ("http://a/?q", "http://a?q"),
    ] {
        assert_eq!(key(one), key(other), "{one} {other}");
        let text = EffectiveUri::of_uri(&other.parse().unwrap()).unwrap().to_text();
        assert!(EffectiveUri::of_uri(&one.parse().unwrap()).unwrap().is_text(&text));
        assert!(!text.contains("password"));
    }
}

#[test]
fn origin_form_takes_its_host_from_a_valid_host_field() {
    let of = |uri: &str, hosts: &[&str]| {
        let mut request = Request::get(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        EffectiveUri::of(&parts, &Defaults { scheme: Scheme::HTTPS, authority: None })
            .map(|uri| uri.to_text())
    };
    assert_eq!(of("/b?c", &["A:443"]), Some("https://a/b?c".to_owned()));
    assert_eq!(of("/b", &["[::1]:81"]), Some("https://[::1]:81/b".to_owned()));
    assert_eq!(of("http://x/b", &["a"]), Some("http://x/b".to_owned())); // RFC 9112 §3.2.2
    for hosts in [&[][..], &["a", "b"], &["a/b"], &["u@a"], &["a:x"], &[""], &["a b"]] {
        assert_eq!(of("/b", hosts), None, "{hosts:?}");
    }
    assert_eq!(of("*", &["a"]), None);
}

#[test]
fn secret_and_partition_are_part_of_every_key() {
    let uri: Uri = "http://a/".parse().unwrap();
    let of = |secret: &[u8], partition: &str| {
        Keyer::new(secret, partition, false).head(&EffectiveUri::of_uri(&uri).unwrap())
    };
    let long = "p".repeat(200);
    let keys = [
        of(b"s", ""),
        of(b"", "s"),
        of(b"sp", ""),
        of(b"s", "p"),
        of(b"", "sp"),
        of(b"s", &long),
        of(b"s\0", ""),
    ];
    for (at, one) in keys.iter().enumerate() {
        assert!(keys[at + 1..].iter().all(|other| other != one));
    }
    assert_eq!(of(b"s", "p"), of(b"s", "p"));
}

#[test]
fn selections_distinguish_values_names_and_absence() {
    let names: [HeaderName; 2] = [HeaderName::from_static("x"), HeaderName::from_static("y")];
    let of = |x: Option<&str>, y: Option<&str>| {
        keyer().selection(&names, |name| {
            let value = if name.as_str() == "x" { x } else { y };
            value.map(|value| value.as_bytes().to_vec())
        })
    };
    let all = [
        of(None, None),
        of(Some(""), None),
        of(None, Some("")),
        of(Some("a"), None),
        of(None, Some("a")),
        of(Some("a"), Some("b")),
        of(Some("ab"), Some("")),
        of(Some("ay"), Some("b")),
    ];
    assert_eq!(all[0], [0; 16]);
    for (at, one) in all.iter().enumerate() {
        assert!(all[at + 1..].iter().all(|other| other != one));
    }
    let generations = [
        keyer().variant(key("http://a/"), [1; 16], [2; 16]),
        keyer().variant(key("http://a/"), [2; 16], [2; 16]),
    ];
    assert_ne!(generations[0], generations[1]);
}

#[test]
fn guess_equals_the_computed_key() {
    let caches = [keyer(), Keyer::new(b"secret", "other", false), Keyer::new(b"other", "", true)];
    // More than are remembered, so that they replace each other. Twice, so that some are found.
    for _ in 0..2 {
        for number in 0..1000 {
            let uri: Uri = format!("http://a/{number}").parse().unwrap();
            let uri = EffectiveUri::of_uri(&uri).unwrap();
            for cache in &caches {
                assert_eq!(cache.guess(&uri).0, cache.head(&uri));
                assert_eq!(cache.guess(&uri).0, cache.head(&uri));
            }
        }
    }
    for uri in DISTINCT {
        let uri: Uri = uri.parse().unwrap();
        let uri = EffectiveUri::of_uri(&uri).unwrap();
        assert_eq!(caches[0].guess(&uri).0, caches[0].head(&uri));
    }
}

#[test]
fn ports_are_written_in_decimal_digits() {
    for port in [0, 1, 9, 10, 81, 443, 8080, 65535] {
        let uri: Uri = format!("http://a:{port}/b").parse().unwrap();
        let uri = EffectiveUri::of_uri(&uri).unwrap();
        assert_eq!(uri.to_text(), format!("http://a:{port}/b"));
        assert!(uri.is_text(&uri.to_text()), "{port}");
        assert!(!uri.is_text(&format!("http://a:{port}0/b")), "{port}");
        assert!(!uri.is_text("http://a/b"), "{port}");
    }
}
