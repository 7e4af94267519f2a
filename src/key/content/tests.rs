//! Contents with the same meaning share a digest, and no others do.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::error::ErrorKind;

use super::*;

fn digest_of(
    media_type: Option<&HeaderValue>,
    coding: Option<&HeaderValue>,
    content: &[u8],
    ignored: &IgnoredFields,
) -> [u8; 32] {
    let fields = ContentFields {
        media_type: media_type.cloned(),
        coding: coding.cloned(),
        ..ContentFields::default()
    };
    digest(&fields, content, Some(ignored))
}

#[test]
fn language_and_location_of_content_count() {
    let with = |names: &[(http::HeaderName, &str)]| {
        let headers = names.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        let mut headers: HeaderMap = headers.collect();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
        digest(&ContentFields::of(&headers), b"[1]", Some(&IgnoredFields::default()))
    };
    let digests = [
        of(JSON, "[1]", &[]),
        with(&[(header::CONTENT_LANGUAGE, "de")]),
        with(&[(header::CONTENT_LANGUAGE, "en")]),
        with(&[(header::CONTENT_LOCATION, "de")]),
        with(&[(header::CONTENT_LOCATION, "de"), (header::CONTENT_LANGUAGE, "de")]),
    ];
    assert_eq!(with(&[]), digests[0]);
    for (at, digest) in digests.iter().enumerate() {
        assert!(!digests[..at].contains(digest), "{at}");
    }
}

#[test]
fn content_as_it_is_has_a_digest_of_its_own() {
    let fields =
        ContentFields { media_type: Some(HeaderValue::from_static(JSON)), ..ContentFields::default() };
    assert_ne!(digest(&fields, b"[1]", None), digest(&fields, b"[ 1]", None));
    assert_ne!(digest(&fields, b"[1]", None), of(JSON, "[1]", &[]));
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=B";

fn of(media_type: &str, content: impl AsRef<[u8]>, ignored: &[&str]) -> [u8; 32] {
    let media_type = HeaderValue::from_bytes(media_type.as_bytes()).unwrap();
    digest_of(Some(&media_type), None, content.as_ref(), &IgnoredFields::new(ignored).unwrap())
}

/// Asserts that contents share a digest within each row, and only there.
fn check(media_type: &str, ignored: &[&str], rows: &[&[&[u8]]]) {
    let digests: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(|content| (of(media_type, content, ignored), content)).collect())
        .collect();
    for (at, row) in digests.iter().enumerate() {
        for (digest, content) in row {
            for (other_at, other_row) in digests.iter().enumerate() {
                for (other, other_content) in other_row {
                    let texts = [content, other_content].map(|text| String::from_utf8_lossy(text));
                    assert_eq!(digest == other, at == other_at, "{texts:?}");
                }
            }
        }
    }
}

#[test]
fn json_is_compared_by_its_values() {
    let deep = |depth| [vec![b'['; depth], vec![b']'; depth]].concat();
    let spaced = |depth| [vec![b'['; depth], b" ".to_vec(), vec![b']'; depth]].concat();
    check(
        JSON,
        &[],
        &[
            &[br#"{"a":1,"b":[1,2]}"#, b" { \"b\" : [ 1 ,\r\n2 ] , \"a\":\t1 } "],
            &[br#"{"a":1,"b":[2,1]}"#],
            &[br#"{"a":1.0,"b":[1,2]}"#],
            &[br#"{"a":"1","b":[1,2]}"#],
            &[br#"{"A":1,"b":[1,2]}"#],
            &[br#"{"a":{"b":[1,2]}}"#],
            &[br#""\u0061\u00e9\ud83d\ude00\/""#, "\"aé😀/\"".as_bytes()],
            &[br#""\\""#, br#""\u005c""#],
            &[br#""\"""#],
            &[br#""\\\"""#],
            &[br#""""#],
            &[b"0"],
            &[b"-0"],
            &[b"1e2"],
            &[b"100"],
            &[b"12345678901234567890123"],
            &[b"12345678901234567890124"],
            &[b"1e999"],
            &[b"0.1"],
            &[b"0.1000000000000000000001"],
            &[b"true", b" true "],
            &[b"\"true\""],
            &[b"null"],
            &[b"{}", b"{ }"],
            &[b"[]", b"[\n]"],
            &[b"[[]]"],
            &[b"[{}]"],
            &[br#"{"a":null}"#],
            &[br#"["a","b"]"#],
            &[br#"["ab"]"#],
            &[br#"["a,b"]"#],
            &[br#"{"a":"b"}"#],
            // Compared by their bytes.
            &[br#"{"a":1,"a":2}"#],
            &[br#"{"a":2,"a":1}"#],
            &[br#"{"a":1, "a":2}"#],
            &[br#"{"a":1,"\u0061":2}"#],
            &[br#"{"x":[{"a":1,"a":1}]}"#],
            &[br#"{"a":1"#],
            &[br#"{"a":1} x"#],
            &[br#"{"a":01}"#],
            &[br#"{"a" 1}"#],
            &[b"[1,]"],
            &[b"[1, ]"],
            &[b"[1 2]"],
            &[b"[1,2]"],
            &[b"NaN"],
            &[b"\"a\nb\""],
            &[br#""\ud800""#],
            &[br#" "\ud800""#],
            &[b"\"\xff\""],
            &[b"\"\xfe\""],
            &[b"\xef\xbb\xbf[]"],
            &[b""],
            &[b" "],
            &[&deep(128), &spaced(128)],
            &[&deep(129)],
            &[&spaced(129)],
            &[&vec![b'['; 100_000]],
        ],
    );
}

#[test]
fn ignored_members_of_json_do_not_count() {
    check(
        JSON,
        &["token", "auth.at", "items.*.id", r"a\.b", "x.*", "*.n", r"\*"],
        &[
            &[
                br#"{"q":1}"#,
                br#"{"q":1,"token":"a"}"#,
                br#"{"\u0074oken":{"z":[1,2]},"q":1}"#,
                br#"{"q":1,"a.b":2}"#,
                br#"{"q":1,"*":2,"token":3}"#,
            ],
            &[br#"{"q":[{"r":{}}]}"#, br#"{"q":[{"r":{"token":1},"token":2}]}"#],
            &[br#"{"auth":{}}"#, br#"{"auth":{"at":1}}"#, br#"{"auth":{"at":{"x":1},"token":1}}"#],
            &[br#"{"at":1}"#],
            &[br#"{"q":{"auth":{"at":1}}}"#],
            &[br#"{"q":{"auth":{"at":2}}}"#],
            &[br#"{"auth":[{"at":1}]}"#],
            &[br#"{"auth":{"at ":1}}"#],
            &[br#"{"items":[{"v":1},{}]}"#, br#"{"items":[{"v":1,"id":2},{"id":3}]}"#],
            &[br#"{"items":{"y":{}}}"#, br#"{"items":{"y":{"id":1}}}"#],
            &[br#"{"items":[[{"id":3}]]}"#],
            &[br#"{"items":[{"v":1}]}"#],
            &[br#"{"id":3}"#],
            &[br#"{"a":{"b":1}}"#],
            &[br#"{"x":{}}"#, br#"{"x":{"a":1,"c":{"d":2}}}"#],
            &[br#"{"x":[]}"#, br#"{"x":[1,[2]]}"#],
            &[br#"{"x":1}"#],
            &[br#"{"y":{}}"#, br#"{"y":{"n":1}}"#],
            &[br#"[{}]"#, br#"[{"n":1}]"#],
            // Compared by their bytes: an ignored field may hide another one.
            &[br#"{"q":1,"token":1,"token":2}"#],
            &[br#"{"q":1,"token":{"a":1,"a":2}}"#],
            &[br#"{"q":1,"token":}"#],
            &[br#""token""#],
            &[br#"["token"]"#],
        ],
    );
}

#[test]
fn forms_are_compared_by_their_fields() {
    check(
        FORM,
        &["token", "a.b", r"c\.d"],
        &[
            &[
                b"a=1&b=2",
                b"&a=1&&b=2&",
                b"%61=%31&b=2",
                b"token=x&a=1&b=2",
                b"a=1&t%6Fken&b=2&token=",
                b"a=1&b=2&c.d=3",
            ],
            &[b"b=2&a=1"],
            // Rack reads different items in each.
            &[b"a[][x]=1&a[][y]=9&a[][x]=2"],
            &[b"a[][x]=1&a[][x]=2&a[][y]=9"],
            &[b"a=1&b=2&c=3"],
            &[b"a=2&b=1"],
            &[b"a=1&a=2", b"a=1&token=3&a=2"],
            &[b"a=2&a=1"],
            &[b"a=1%26a=2"],
            &[b"a=1=a%3D2", b"a=1%3da=2"],
            &[b"a=x+y", b"a=x%20y", b"a=x y"],
            &[b"a=x%2By"],
            &[b"a=%FF", b"a=%ff", b"a=\xff"],
            &[b"a=%FE"],
            &[b"a=%EF%BF%BD"],
            &["a=é".as_bytes(), b"a=%c3%a9"],
            &[b"a="],
            &[b"a"],
            &[b"="],
            &[b"", b"&", b"token=1"],
            &[b"a.b=1"],
            &[b"Token=1"],
            // Compared by their bytes.
            &[b"token=1;a=2"],
            &[b"token=2;a=2"],
            &[b"a=1;b=2"],
            &[b"b=2;a=1"],
            &[b"a=%"],
            &[b"a=%25%"],
            &[b"a=%zz&token=1"],
            &[b"a=%zz"],
            &[b"a=%+1"],
        ],
    );
}

/// Writes a form of these fields with this boundary.
fn multipart(boundary: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let parts = fields.iter().map(|(name, value)| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    });
    (parts.collect::<String>() + &format!("--{boundary}--\r\n")).into_bytes()
}

#[test]
fn multipart_forms_are_compared_by_their_parts() {
    let plain = multipart("B", &[("a", "1"), ("b", "2")]);
    let text = String::from_utf8(plain.clone()).unwrap();
    let but = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to).into_bytes()
    };
    let token = |name: &str| multipart("B", &[("a", "1"), (name, "x"), ("b", "2")]);
    let in_token = |inside: &str| multipart("B", &[("a", "1"), ("token", inside), ("b", "2")]);
    check(
        MULTIPART,
        &["token", "a.b"],
        &[
            &[
                &plain,
                &token("token"),
                &in_token("\r\n\r\nB --\r\n"),
                &but("Content-Disposition:", "content-disposition:  "),
                &but("B--\r\n", "B--"),
            ],
            &[&multipart("B", &[("b", "2"), ("a", "1")])],
            &[&multipart("B", &[("a", "2"), ("b", "2")])],
            &[&multipart("B", &[("a", "1")])],
            &[&multipart("B", &[("a", "1\r\n"), ("b", "2")])],
            &[&multipart("B", &[("a", ""), ("b", "2")])],
            &[&multipart("B", &[])],
            &[&multipart("B", &[("a.b", "1")])],
            &[
                &but("name=\"a\"", "name=\"a\"\r\nContent-Type: text/plain"),
                &but("name=\"a\"", "name=\"a\"\r\nCONTENT-TYPE:text/plain "),
            ],
            &[&but("name=\"a\"", "name=\"a\"; filename=\"f\"")],
            &[b"--B\r\n\r\nx\r\n--B--"],
            // Parts whose name parsers disagree on count.
            &[&token("token\\")],
            &[&token("to\\ken")],
            &[&token("token\"; name=\"y")],
            &[&token("token\"; name*=\"y")],
            &[&token("token\"; filename=\"\\")],
            &[&token("token\"\r\nContent-Disposition: form-data; name=\"y")],
            &[&token("Token")],
            // Compared by their bytes.
            &[&[b"x\r\n".as_slice(), &plain].concat()],
            &[&[b"\r\n".as_slice(), &plain].concat()],
            &[&[plain.as_slice(), b"x"].concat()],
            &[&[plain.as_slice(), b"--B--"].concat()],
            &[&in_token("--B")],
            &[&in_token("\n--B\nContent-Disposition: form-data; name=admin\n\n1")],
            &[&in_token("\r\n--Bx")],
            &[&but("--B\r\n", "--B \r\n")],
            &[&but("\r\n", "\n")],
            &[&but("--B--\r\n", "")],
            &[&but("--B--\r\n", "--B\r\n")],
            &[&but("Content-Disposition:", "Content-Disposition :")],
            &[&but("name=\"a\"", "name=\"a\"\r\n x")],
            &[&but("name=\"a\"", "name=\"a\"\nX: y")],
            &[b"--B\r\nContent-Disposition: form-data; name=\"token\"\r\n--B--\r\n"],
            &[b"--B--x"],
            &[b"--B"],
            &[b""],
        ],
    );
}

#[test]
fn boundary_counts_only_in_forms_that_are_not_strict() {
    let fields = [("a", "1"), ("token", "2")];
    let same = of(MULTIPART, multipart("B", &fields), &["token"]);
    for (field, boundary) in [
        ("multipart/form-data; boundary=CC", "CC"),
        ("Multipart/Form-Data;BOUNDARY=\"C c:\"", "C c:"),
        ("multipart/form-data; boundary=\"\\C\";", "C"),
        ("multipart/form-data; ; boundary=----x-y", "----x-y"),
    ] {
        assert_eq!(of(field, multipart(boundary, &fields[..1]), &[]), same, "{field}");
    }
    let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
    let mut others = vec![same];
    for field in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=\"B",
        "multipart/form-data; boundary=B; boundary=B",
        "multipart/form-data; boundary=C",
        "multipart/form-data; boundary=B; charset=utf-16",
        "multipart/form-data; boundary=\"B \"",
        "multipart/form-data; boundary=\"B{\"",
        "multipart/mixed; boundary=B",
        &long,
    ] {
        others.push(of(field, multipart("B", &fields[..1]), &[]));
    }
    let count = others.len();
    others.sort_unstable();
    others.dedup();
    assert_eq!(others.len(), count);
}

#[test]
fn too_many_parameters_are_told_apart_by_their_bytes() {
    let parameters = |count: usize| (0..count).map(|number| format!(";p{number}=x")).collect::<String>();
    let part = |count, value: &str| {
        let field = format!("Content-Disposition: form-data; name=token{}", parameters(count));
        format!("--B\r\n{field}\r\n\r\n{value}\r\n--B--")
    };
    for (count, understood) in [(31, true), (33, false), (100_000, false)] {
        let same = of(MULTIPART, part(count, "1"), &["token"]) == of(MULTIPART, part(count, "2"), &["token"]);
        assert_eq!(same, understood, "{count}");
        let json = format!("{JSON}{}", parameters(count));
        assert_eq!(of(&json, "[1]", &[]) == of(&json, "[ 1]", &[]), understood, "{count}");
    }
}

#[test]
fn the_media_type_counts() {
    let same = of(JSON, "[1]", &[]);
    for field in ["Application/JSON", " application/json ;", "application/json"] {
        assert_eq!(of(field, "[ 1 ]", &[]), same, "{field}");
    }
    let of_charset = |field| of(field, "[ 1 ]", &[]);
    assert_eq!(
        of_charset("application/json; charset=utf-8"),
        of_charset("application/json;Charset=\"UTF-8\"")
    );
    assert_eq!(of("application/vnd.a+json", "[1]", &[]), of("application/vnd.A+JSON", "[ 1 ]", &[]));
    assert_eq!(of("a/b; c=d; e=f", "x", &[]), of("A/B;e=\"f\";c=d", "x", &[]));
    let mut all = vec![same, digest_of(None, None, b"[1]", &IgnoredFields::default())];
    for field in [
        "application/vnd.a+json",
        "application/vnd.b+json",
        "application/json; charset=utf-8",
        "application/json; charset=utf-16",
        "application/json; charset=us-ascii",
        "application/json; profile=a",
        "application/json; profile=A",
        "application/json, text/plain",
        "application/json text",
        "application/json; a",
        "application/json; a=\"",
        "application/json; a=\"\\",
        "application/",
        "/",
        "json",
        "",
        "text/plain",
        "application/x-ndjson",
        "application/octet-stream",
        FORM,
        MULTIPART,
    ] {
        all.push(of(field, "[1]", &[]));
    }
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn other_types_and_codings_are_compared_by_bytes() {
    for field in [
        "text/plain",
        "application/x-ndjson",
        "application/jsonx",
        "application/x x+json",
        "application/json, text/plain",
        "application/json; charset=utf-7",
        "",
    ] {
        assert_ne!(of(field, "{\"token\":1}", &["token"]), of(field, "{\"token\":2}", &["token"]), "{field}");
        assert_ne!(of(field, "[1]", &[]), of(field, "[ 1]", &[]), "{field}");
        assert_eq!(of(field, "[1]", &["token"]), of(field, "[1]", &[]), "{field}");
    }
    let json = HeaderValue::from_static(JSON);
    let coded = |coding: &str, content: &[u8]| {
        digest_of(
            Some(&json),
            Some(&HeaderValue::from_str(coding).unwrap()),
            content,
            &IgnoredFields::default(),
        )
    };
    for coding in ["identity", " Identity ", ""] {
        assert_eq!(coded(coding, b"[ 1]"), of(JSON, "[1]", &[]), "{coding}");
    }
    for coding in ["gzip", "br", "identity, gzip", "gzip, gzip"] {
        assert_ne!(coded(coding, b"[ 1]"), coded(coding, b"[1]"));
        assert_ne!(coded(coding, b"[1]"), coded("zstd", b"[1]"));
        assert_ne!(coded(coding, b"[1]"), of(JSON, "[1]", &[]));
        assert_eq!(coded(&coding.to_uppercase(), b"[1]"), coded(coding, b"[1]"));
    }
}

#[test]
fn malformed_names_are_refused() {
    for text in
        ["", ".", "a.", ".a", "a..b", "*", "a*", "*a", "a.b*", "**", "a.**", "\\", "a\\", "\\a", "a.\\"]
    {
        let error = IgnoredFields::new([text]).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
    }
    for text in ["a", "a.b", "a.*", "*.a", "*.*", r"\*", r"a\*.b", r"\\", r"\.", "a b", "é"] {
        assert!(IgnoredFields::new([text]).is_ok(), "{text}");
    }
    assert!(IgnoredFields::new(["a", "b."]).is_err());
}

/// Names and values.
type Fields = Vec<(String, String)>;

/// Writes a document with its members in this order, and with this white space.
fn written(members: &[(String, String)], space: &str) -> String {
    let members = members.iter().map(|(name, value)| format!("{space}\"{name}\"{space}:{value}{space}"));
    format!("{{{}}}{space}", members.collect::<Vec<_>>().join(","))
}

fn value() -> impl Strategy<Value = String> {
    select(vec![
        "1",
        "-1.5e3",
        "true",
        "null",
        "\"a\\nb\"",
        "[]",
        "{\"y\":[1,{\"x\":2}]}",
        "\"\"",
        "[[1],\"}\"]",
    ])
    .prop_map(str::to_owned)
}

/// Generates fields with distinct names in two orders.
fn shuffled() -> impl Strategy<Value = (Fields, Fields)> {
    let members = prop::collection::btree_map("[a-d]{1,2}", value(), 1..6);
    members.prop_flat_map(|members| {
        let members: Vec<_> = members.into_iter().collect();
        (Just(members.clone()), Just(members).prop_shuffle())
    })
}

fn form(fields: &[(String, String)]) -> String {
    let escaped = |text: &String| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&")
}

proptest! {
    #[test]
    fn order_counts_only_in_forms_and_values_everywhere(
        (members, others) in shuffled(),
        space in select(vec!["", " ", "\r\n\t "]),
        at in any::<Index>(),
    ) {
        prop_assert_eq!(of(JSON, written(&members, ""), &[]), of(JSON, written(&others, space), &[]));
        prop_assert_eq!(of(FORM, form(&members), &[]) == of(FORM, form(&others), &[]), members == others);

        let mut changed = others.clone();
        let (name, value) = &mut changed[at.index(others.len())];
        *value = if value == "1" { "2".to_owned() } else { "1".to_owned() };
        let name = name.clone();
        prop_assert_ne!(of(JSON, written(&members, ""), &[]), of(JSON, written(&changed, space), &[]));
        prop_assert_ne!(of(FORM, form(&members), &[]), of(FORM, form(&changed), &[]));
        let parts = |fields: &[(String, String)]| {
            multipart("B", &fields.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>())
        };
        prop_assert_ne!(of(MULTIPART, parts(&others), &[]), of(MULTIPART, parts(&changed), &[]));

        let ignored = [&*name];
        prop_assert_eq!(of(JSON, written(&members, ""), &ignored), of(JSON, written(&changed, space), &ignored));
        prop_assert_eq!(of(FORM, form(&others), &ignored), of(FORM, form(&changed), &ignored));
        prop_assert_eq!(of(MULTIPART, parts(&others), &ignored), of(MULTIPART, parts(&changed), &ignored));
    }

    #[test]
    fn nothing_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        near in "[\\[\\]{},:\"\\\\u0-9a&=;%+ é\r\n-]{0,24}",
        parts in "(--B|\r\n|:|Content-Disposition: form-data; name=|\"|a|;|--){0,12}",
        field in "[a-z/+;=\"\\\\ ]{0,16}",
        ignored in "[a*.\\\\]{0,6}",
    ) {
        let fields = [JSON, FORM, MULTIPART, "text/plain", &format!("{MULTIPART};{field}"), &field];
        let ignored = IgnoredFields::new([&ignored]).or_else(|_| IgnoredFields::new(["a", "a.*", "*.a"])).unwrap();
        for field in fields {
            let field = HeaderValue::from_bytes(field.as_bytes()).unwrap();
            for content in [&bytes[..], near.as_bytes(), parts.as_bytes()] {
                digest_of(Some(&field), None, content, &ignored);
                digest_of(None, Some(&field), content, &ignored);
            }
        }
    }

    #[test]
    fn different_bytes_are_the_same_json_only_if_their_values_are(
        one in "[\\[\\]{},:\"\\\\01a ]{0,10}",
        other in "[\\[\\]{},:\"\\\\01a ]{0,10}",
    ) {
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        let same = one == other || (read(&one).is_some() && read(&one) == read(&other));
        prop_assert!(same || of(JSON, &one, &[]) != of(JSON, &other, &[]));
    }
}
