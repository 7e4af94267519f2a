//! No-Vary-Search (draft-ietf-httpbis-no-vary-search).

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn parsed(value: &str) -> Option<NoVarySearch> {
    NoVarySearch::of(&fields(&[("no-vary-search", value)]))
}

fn value(ignores_order: bool, is_except: bool, names: &[&str]) -> Option<NoVarySearch> {
    Some(NoVarySearch {
        ignores_order,
        is_except,
        names: names.iter().map(|&name| name.to_owned()).collect(),
    })
}

#[test]
fn examples_of_the_draft_are_parsed() {
    for (field, expected) in [
        // "Introduction".
        ("key-order", value(true, false, &[])),
        (
            "params=(\"utm_source\" \"utm_medium\" \"utm_campaign\")",
            value(false, false, &["utm_campaign", "utm_medium", "utm_source"]),
        ),
        ("except=(\"productId\")", value(false, true, &["productId"])),
        // "Obtain a URL variation config".
        ("params=(\"a\")", value(false, false, &["a"])),
        ("except=(\"x\")", value(false, true, &["x"])),
        ("params=()", None),
        ("except=()", value(false, true, &[])),
        ("key-order=\"not a boolean\"", None),
        ("params=\"not an inner list\"", None),
        ("params=(not-a-string)", None),
        ("params=(\"a\"), except=(\"x\")", None),
        ("params=(), except=()", None),
        ("except=\"not an inner list\"", None),
        ("except=(not-a-string)", None),
        ("except=?1", None),
        ("key-order=?1", value(true, false, &[])),
        ("except=(\"x\"), key-order", value(true, true, &["x"])),
        ("key-order, except=(\"x\")", value(true, true, &["x"])),
        ("key-order=?0", None),
        // "Parse a key".
        ("params=(\"%C3%A9+%E6%B0%97\")", value(false, false, &["é 気"])),
    ] {
        assert_eq!(parsed(field), expected, "{field}");
    }
}

/// The draft refuses these. Browsers have implemented an earlier one, in which they mean this.
#[test]
fn params_may_be_a_boolean() {
    for (field, expected) in [
        ("params", value(false, true, &[])),
        ("params=?1", value(false, true, &[])),
        ("params=?0", None),
        ("params, except=(\"x\")", value(false, true, &["x"])),
        ("params=?1, except=(\"x\")", value(false, true, &["x"])),
        ("params=?0, except=(\"x\")", None),
        ("params, except=x", None),
        ("params=?0, key-order", value(true, false, &[])),
    ] {
        assert_eq!(parsed(field), expected, "{field}");
    }
}

#[test]
fn other_fields_have_no_effect() {
    let names = |many: usize| (0..many).map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" ");
    assert!(parsed(&format!("params=({})", names(64))).is_some());
    for field in [
        "",
        "a=1",
        "params=(\"a\"",
        "params=(\"a\" 1)",
        "params=(\"é\")",
        "Params=(\"a\")",
        "key-order, params=1",
        &format!("params=({})", names(65)),
        &format!("params=(\"{}\")", "a".repeat(1024)),
    ] {
        assert_eq!(parsed(field), None, "{field}");
    }
    assert_eq!(NoVarySearch::of(&HeaderMap::new()), None);
    // A member that is not known is ignored, and so are parameters. Lines form one dictionary, whose last member counts.
    assert_eq!(parsed("params=(\"b\" \"a\";x \"b\");y, z=(1)"), value(false, false, &["a", "b"]));
    let lines =
        fields(&[("no-vary-search", "params=(\"a\")"), ("no-vary-search", "key-order, params=(\"b\")")]);
    assert_eq!(NoVarySearch::of(&lines), value(true, false, &["b"]));
}

#[test]
fn examples_of_the_draft_are_equivalent() {
    let key = parsed("params=(\"%C3%A9+%E6%B0%97\")").unwrap();
    for query in ["é 気=1", "é+気=2", "%C3%A9%20気=3", "%C3%A9+%E6%B0%97=4"] {
        assert_eq!(key.normalized(query).as_deref(), Some(""), "{query}");
    }
    for field in ["key-order", "params=(\"b\")", "except=(\"a\")"] {
        let value = parsed(field).unwrap();
        for (one, other) in [
            ("a=x", "%61=%78"),
            ("a=é", "a=%C3%A9"),
            ("a=%f6", "a=%ef%bf%bd"),
            ("a=x&&&&", "a=x"),
            ("a=", "a"),
            ("a=%20", "a= &"),
            ("a=+", "a= &"),
        ] {
            assert_eq!(value.normalized(one), value.normalized(other), "{field}: {one} {other}");
            assert_ne!(value.normalized(one), value.normalized("a=z"), "{field}: {one}");
        }
    }
}

#[test]
fn normal_form_contains_what_counts() {
    for (field, query, expected) in [
        ("key-order", "b=1&a=2&b=0&a", "a=2&a=&b=1&b=0"),
        ("params=(\"t\")", "b=1&t=2&a", "b=1&a="),
        ("except=(\"id\")", "b=1&id=2&a&id=3", "id=2&id=3"),
        ("except=()", "b=1", ""),
        ("key-order", "=&=v&a=b=c", "=&=v&a=b%3Dc"),
        ("key-order", "a=%26%3D%2B%25%23%3b+%0a%ff", "a=%26%3D%2B%25%23%3B%20%0A%EF%BF%BD"),
        // A server could read any of these as `id`.
        ("except=(\"id\")", "ID=1&id%5B%5D=2&+id=3&x%00=4&y", "ID=1&id[]=2&%20id=3&x%00=4"),
        ("except=(\"a.b\")", "a_b=1&a%20b=2&ab=3", "a_b=1&a%20b=2"),
        ("except=(\"50%25\")", "50%25=1&x", "50%25=1"),
    ] {
        let value = parsed(field).unwrap();
        assert_eq!(value.normalized(query).as_deref(), Some(expected), "{field} {query}");
        assert_eq!(value.normalized(expected).as_deref(), Some(expected), "{field} {expected}");
    }
    assert_eq!(parsed("except=()").unwrap().normalized("a=1;b=2"), None);
}

/// Parses as the URL Standard does, byte by byte.
fn form(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let (text, mut decoded, mut at) = (text.as_bytes(), Vec::new(), 0);
        while at < text.len() {
            let digits = text.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
            let octet = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
            match (text[at], octet) {
                (b'%', Some(digits)) => {
                    decoded.push(u8::from_str_radix(digits, 16).unwrap());
                    at += 3;
                    continue;
                }
                (b'+', _) => decoded.push(b' '),
                (byte, _) => decoded.push(byte),
            }
            at += 1;
        }
        String::from_utf8_lossy(&decoded).into_owned()
    };
    let mut list = Vec::new();
    for sequence in query.split('&') {
        if !sequence.is_empty() {
            let (name, value) = sequence.split_once('=').unwrap_or((sequence, ""));
            list.push((decode(name), decode(value)));
        }
    }
    list
}

/// The steps of "Comparing", for URLs that differ in their queries alone.
fn is_equivalent(value: &NoVarySearch, one: &str, other: &str) -> bool {
    let significant = |query: &str| {
        let mut list = form(query);
        list.retain(|pair| value.names.contains(&pair.0) == value.is_except);
        if value.ignores_order {
            list.sort_by(|one, other| one.0.encode_utf16().cmp(other.0.encode_utf16()));
        }
        list
    };
    significant(one) == significant(other)
}

fn name() -> impl Strategy<Value = String> {
    "[abé\u{ffff}\u{10000}]{0,2}"
}

fn query() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "(a|b|%61|%62|aa|%C3%A9|é|%e9|%f0%90%80%80|\u{10000}|\u{ffff})",
        1 => "(=|==|%3D|%26|\\+|%20|%|%6|%zz|)",
    ];
    let pair = (vec(piece.clone(), 0..3), proptest::option::of(vec(piece, 0..2)));
    let pair = pair.prop_map(|(name, value)| match value {
        Some(value) => format!("{}={}", name.concat(), value.concat()),
        None => name.concat(),
    });
    vec(pair, 0..5).prop_map(|pairs| pairs.join("&"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn normal_form_is_equal_where_the_draft_says_equivalent(
        (ignores_order, is_except) in any::<(bool, bool)>(),
        names in proptest::collection::btree_set(name(), 0..3),
        (one, other) in (query(), query()),
        shuffle in any::<bool>(),
    ) {
        let value = NoVarySearch { ignores_order, is_except, names: names.into_iter().collect() };
        // Two queries at random are seldom equivalent.
        let other = if shuffle { one.split('&').rev().collect::<Vec<_>>().join("&") } else { other };
        let normal = |query: &str| value.normalized(query).unwrap();
        let is_equal = normal(&one) == normal(&other);
        prop_assert!(!is_equal || is_equivalent(&value, &one, &other), "{value:?} {one} {other}");
        // Parameters that servers could take for a named one count as well.
        let is_plain = |query: &str| form(query).iter().all(|(name, _)| {
            let is_plain = |name: &str| name.chars().all(char::is_alphanumeric);
            value.names.contains(name) || is_plain(name) && !value.names.iter().any(|known| !is_plain(known))
        });
        if !is_except || (is_plain(&one) && is_plain(&other)) {
            prop_assert_eq!(is_equal, is_equivalent(&value, &one, &other), "{:?} {} {}", value, one, other);
        }
        // The normal form stands for its queries.
        prop_assert!(is_equivalent(&value, &one, &normal(&one)), "{value:?} {one}");
        prop_assert_eq!(normal(&normal(&one)), normal(&one));
        prop_assert_eq!(normal(&value.reduced(&one).unwrap()), normal(&one));
    }

    #[test]
    fn any_field_and_query_is_read(field in "[ -~]{0,80}", text in ".{0,60}") {
        if let Some(value) = parsed(&field)
            && let Some(normal) = value.normalized(&text)
        {
            prop_assert_eq!(value.normalized(&normal), Some(normal));
        }
    }
}
