//! A glob matches the URLs that it describes, and none that only looks like them.

use proptest::prelude::*;

use crate::error::ErrorKind;

use super::UrlPattern;

fn matches(pattern: &str, url: &str) -> bool {
    UrlPattern::glob(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).matches(url)
}

const MATCHING: [(&str, &[&str]); 46] = [
    ("example.com", &["https://example.com/", "http://example.com/a/b?c", "https://example.com:8443/"]),
    ("EXAMPLE.com", &["https://example.com/"]),
    ("HTTPS://example.com", &["https://example.com/", "https://example.com:1/"]),
    ("ws://example.com", &["ws://example.com/"]),
    ("*", &["https://example.com/a?b", "http://[::1]/", "http://a./", "http://127.0.0.1:81/"]),
    ("**", &["https://example.com/"]),
    ("*:8080", &["http://a:8080/"]),
    ("localhost", &["http://localhost:3000/"]),
    ("*.example.com", &["https://a.example.com/", "https://a.b.example.com/x", "https://com.example.com/"]),
    ("**.example.com", &["https://example.com/", "https://a.example.com/", "https://a.b.example.com/"]),
    ("**.example.*", &["https://example.com/", "https://a.example.org/"]),
    ("*.*", &["https://a.b/", "https://a.b.c/"]),
    ("api-*.example.com", &["https://api-eu.example.com/", "https://api-.example.com/"]),
    ("api.*.example.com", &["https://api.eu.example.com/"]),
    ("*-a*b-*.c", &["http://-ab-.c/", "http://x-aab-ab-y.c/"]),
    ("10.0.*.*", &["http://10.0.3.4/"]),
    ("[::1]", &["http://[::1]/", "http://[::1]:81/a"]),
    ("[2001:DB8::1]:8080/a", &["http://[2001:db8::1]:8080/a"]),
    ("example.com:*", &["https://example.com/", "https://example.com:8443/"]),
    ("example.com:443", &["https://example.com/", "http://example.com:443/"]),
    ("example.com:80", &["http://example.com/", "https://example.com:80/"]),
    ("example.com:08080", &["http://example.com:8080/"]),
    ("example.com/", &["https://example.com/", "https://example.com/?a=/b"]),
    ("example.com/api", &["https://example.com/api", "https://example.com/api?x"]),
    ("example.com/api/", &["https://example.com/api/"]),
    (
        "example.com/api/*",
        &["https://example.com/api/a", "https://example.com/api/", "http://example.com/api/a%2Fb"],
    ),
    (
        "example.com/api/**",
        &["https://example.com/api", "http://example.com/api/", "http://example.com/api/a//b"],
    ),
    ("example.com/**", &["https://example.com/", "https://example.com/a", "https://example.com/a/b/?c"]),
    ("example.com/**/*.png", &["http://example.com/a.png", "http://example.com/b.png/a/c.png?d"]),
    (
        "example.com/**/a/**/b",
        &["http://example.com/a/b", "http://example.com/x/a/y/a/z/b", "http://example.com/a/a/b/b"],
    ),
    ("example.com/a*b*c", &["http://example.com/abc", "http://example.com/abbcbcc"]),
    ("*/*", &["http://a/", "http://a/b"]),
    ("/login", &["https://a/login", "http://b.c:81/login?d"]),
    ("/**/login/*", &["https://a/login/x", "https://a/b/c/login/x"]),
    ("//a", &["https://b//a"]),
    ("/a?u=http://b/", &["https://c/a?u=http://b/"]),
    ("/http://b/", &["https://c/http://b/"]),
    ("*?a=*&b=*", &["https://c/?a=1&b=2", "https://c/d/e?a=/?&b="]),
    ("example.com/?", &["http://example.com/", "http://example.com/?"]),
    ("example.com/?*", &["http://example.com/", "http://example.com/?", "http://example.com/?a/b?c"]),
    ("/?a?b", &["http://c/?a?b"]),
    ("/%7ea/%c3%a9/é", &["http://b/~a/%C3%A9/%c3%a9", "http://b/%7Ea/é/é"]),
    ("/~a%2fb", &["http://b/%7ea%2Fb"]),
    ("/%2A/a*", &["http://b/*/a", "http://b/%2a/ab"]),
    ("/100%25", &["http://b/100%25", "http://b/100%"]),
    ("/a?*%2A", &["http://b/a?*", "http://b/a?**"]),
];

const NOT_MATCHING: [(&str, &[&str]); 34] = [
    (
        "example.com",
        &[
            "https://www.example.com/",
            "https://example.com.evil.org/",
            "https://example.company/",
            "https://notexample.com/",
            "https://evil.org/example.com",
            "https://evil.org/?example.com",
            "https://example.com@evil.org/",
            "https://example.com:x@evil.org/",
            "https://example.com./",
            "https://.example.com/",
            "https://example%2Ecom/",
            "https://exampleécom/",
            "https://example.com\\.evil.org/",
            "ftp://example.com/",
            "wss://example.com/",
            "example.com/",
            "https:/example.com/",
            "https://example.com",
            "https://example.com:99999/",
            "",
        ],
    ),
    (
        "example.com/**",
        &["https://example.com.evil.org/", "https://example.com@evil.org/", "https://evil.org/example.com/"],
    ),
    ("https://example.com", &["http://example.com/", "https://evil.org/https://example.com/"]),
    ("*", &["ftp://a/", "https:///", "https://user@a/", ""]),
    ("*:8080", &["http://a/", "http://a:80801/", "http://[::8080]/"]),
    (
        "*.example.com",
        &[
            "https://example.com/",
            "https://notexample.com/",
            "https://.example.com/",
            "https://a..example.com/",
            "https://example.com.evil.org/",
            "https://a.example.com.evil.org/",
            "https://evil.org/a.example.com",
            "https://evil.org/?a.example.com",
            "https://a.example.com./",
        ],
    ),
    (
        "**.example.com",
        &["https://notexample.com/", "https://example.com.evil.org/", "https://.example.com/"],
    ),
    (
        "example.*",
        &["https://example/", "https://example./", "https://example.co.uk/", "https://a.example.com/"],
    ),
    ("*.*", &["https://a/", "https://a./", "http://[::ffff:1.2.3.4]/"]),
    (
        "api-*.example.com",
        &["https://api-a.b.example.com/", "https://api.example.com/", "https://x.api-a.example.com/"],
    ),
    ("api.*.example.com", &["https://api.example.com/", "https://api.a.b.example.com/"]),
    ("*a*b.c", &["http://ba.c/", "http://x.ab.c/"]),
    ("10.0.*.*", &["http://10.0.3/", "http://10.0.3.4.evil.org/"]),
    ("[::1]", &["http://[::2]/", "http://[0:0:0:0:0:0:0:1]/", "http://a/[::1]"]),
    ("example.com:443", &["http://example.com/", "https://example.com:80/"]),
    ("example.com:80", &["https://example.com/", "http://example.com:8080/"]),
    ("ws://example.com:80", &["ws://example.com/"]),
    ("example.com/", &["https://example.com/a", "https://example.com//"]),
    (
        "example.com/api",
        &[
            "https://example.com/api/",
            "https://example.com/apis",
            "http://example.com/api/x",
            "http://example.com/API",
        ],
    ),
    (
        "example.com/api/*",
        &["https://example.com/api", "https://example.com/api/a/", "http://example.com/api/a/b"],
    ),
    (
        "example.com/api/**",
        &["https://example.com/apis", "https://example.com/", "https://example.com/x/api/"],
    ),
    ("example.com/**/*.png", &["http://example.com/a.png/b", "http://example.com/a.pngs"]),
    ("example.com/**/a/**/b", &["http://example.com/b/a", "http://example.com/a/b/c"]),
    ("example.com/a*b*c", &["http://example.com/ab/c", "http://example.com/acb"]),
    ("*/*", &["http://a/b/c", "http://a/b/"]),
    ("/login", &["https://a/login/", "https://a/b/login"]),
    ("//a", &["https://a/"]),
    ("example.com/?", &["http://example.com/?a"]),
    (
        "example.com/?a",
        &[
            "http://example.com/",
            "http://example.com/?A",
            "http://example.com/?a&b",
            "http://example.com/?b=?a",
        ],
    ),
    ("*?a=*&b", &["https://c/?a=1&b=2", "https://c/a=1&b"]),
    ("/a/b", &["http://c/a%2Fb", "http://c/a%2fb"]),
    ("/a%2Fb", &["http://c/a/b"]),
    ("/%2A", &["http://a/b", "http://a/"]),
    ("/100%25", &["http://b/100", "http://b/10025"]),
];

#[test]
fn globs_match_the_listed_urls() {
    for (pattern, urls) in MATCHING {
        for url in urls {
            assert!(matches(pattern, url), "{pattern} {url}");
        }
    }
    for (pattern, urls) in NOT_MATCHING {
        for url in urls {
            assert!(!matches(pattern, url), "{pattern} {url}");
        }
    }
}

#[test]
fn malformed_pattern_error_hides_the_pattern() {
    const MALFORMED: [&str; 44] = [
        "",
        " ",
        "example.com ",
        "example.com/a b",
        "example.com/a\u{a0}b",
        "example.com/\n",
        "example.com/\u{7f}",
        "\0",
        "***",
        "a**.example.com",
        "**a.example.com",
        "a.**.example.com",
        "example.com/***",
        "example.com/a**",
        "example.com/a/**.png",
        "example.com/?**",
        ".example.com",
        "example.com.",
        "example..com",
        "*.",
        ".",
        "https://",
        "https:///a",
        "?a",
        ":80",
        ":80/a",
        "example.com:",
        "example.com:x",
        "example.com:+80",
        "example.com:-1",
        "example.com:65536",
        "example.com:8*",
        "[::1",
        "[::1]a",
        "[::1]a:80",
        "[*]",
        "::1",
        "a]",
        "://example.com",
        "1a://example.com",
        "*://example.com",
        "hunter2@example.com",
        "example.com/%zz",
        "example.com/#a",
    ];
    for pattern in MALFORMED.iter().chain(&["user:hunter2@example.com", "a%2Eb", "a|b", "%", "/%4"]) {
        let error = UrlPattern::glob(pattern).expect_err(pattern);
        assert_eq!(error.kind(), ErrorKind::Config, "{pattern}");
        assert!(!error.to_string().contains("hunter2"), "{pattern}");
        assert!(pattern.parse::<UrlPattern>().is_err());
    }
}

#[test]
fn hostile_pattern_matches_in_bounded_time() {
    let stars = "a*".repeat(60);
    let long = format!("https://example.com/{}", "a".repeat(2_000));
    assert!(!matches(&format!("example.com/{stars}b"), &long));
    assert!(!matches(&format!("example.com/?{stars}b"), &long.replace(".com/", ".com/?")));
    let folders = format!("https://example.com/{}", "a/".repeat(1_000));
    assert!(!matches(&format!("example.com{}/b", "/**/a".repeat(60)), &folders));
    let labels = format!("https://{}.example.com/", "a".repeat(2_000));
    assert!(!matches(&format!("{stars}b.example.com"), &labels));
}

#[test]
fn matching_allocates_nothing() {
    for (pattern, urls) in MATCHING.iter().chain(&NOT_MATCHING) {
        let pattern = UrlPattern::glob(pattern).unwrap();
        let counted = allocation_counter::measure(|| {
            urls.iter().for_each(|url| {
                std::hint::black_box(pattern.matches(url));
            });
        });
        assert_eq!(counted.count_total, 0, "{pattern:?}");
    }
}

#[cfg(feature = "regex")]
#[test]
fn regex_searches_the_whole_url() {
    let pattern = UrlPattern::from(regex::Regex::new("^https://example[.]com/[a-z]+[?]b$").unwrap());
    assert!(pattern.matches("https://example.com/a?b"));
    assert!(!pattern.matches("https://evil.org/https://example.com/a?b"));
}

/// Returns a glob that matches this URL alone.
fn escaped(url: &str) -> String {
    let mut pattern = String::new();
    for (at, letter) in url.char_indices() {
        let escape =
            url.as_bytes().get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match letter {
            '*' => pattern.push_str("%2A"),
            '%' if !escape => pattern.push_str("%25"),
            other => pattern.push(other),
        }
    }
    pattern
}

proptest! {
    #[test]
    fn arbitrary_input_never_panics(
        pattern in "[a*./:?%é\\[\\]@# h-]{0,24}",
        url in "(https?://)?[a*./:?%é\\[\\]@]{0,24}",
        any in any::<String>(),
    ) {
        for pattern in [&pattern, &any] {
            if let Ok(pattern) = UrlPattern::glob(pattern) {
                pattern.matches(&url);
                pattern.matches(&any);
            }
        }
    }

    #[test]
    fn escaped_url_matches_only_itself(
        host in "[a-c]{1,3}([.][a-c-]{1,3}){0,2}(:[1-9][0-9]{1,3})?",
        path in "(/[a*%./é~2Af]{0,6}){1,4}",
        query in "([?][a*%/?&=é~2A]{0,8})?",
    ) {
        let url = format!("https://{host}{path}{query}");
        let pattern = escaped(&url);
        prop_assert!(matches(&pattern, &url), "{}", pattern);
        // Neither a longer host nor a longer path or query matches.
        let prefixed = format!("https://a.{}", &url[8..]);
        prop_assert!(!matches(&pattern, &prefixed), "{}", prefixed);
        let longer = if query.is_empty() { format!("{url}/b") } else { format!("{url}b") };
        prop_assert!(!matches(&pattern, &longer), "{}", longer);
    }

    #[test]
    fn star_matches_any_text_in_its_segment(
        before in "[g-h]{0,4}",
        gone in "[g-h%é]{0,6}",
        after in "[g-h]{0,4}",
    ) {
        let url = format!("https://x/{before}{gone}{after}/y?{before}{gone}{after}");
        let star = format!("{before}*{after}");
        let pattern = format!("/{star}/y?{star}");
        prop_assert!(matches(&pattern, &url), "{}", pattern);
    }
}
