//! How sizes, times and stored texts are printed.

use std::time::Duration;

use tower_response_cache::Timestamp;

use super::text::{
    align_left, align_right, count, escaped, normal_url, relative, rfc3339, short_duration, short_size,
    shortened, size, timestamp, width,
};

#[test]
fn control_characters_are_escaped() {
    assert_eq!(escaped("https://a.example/"), "https://a.example/");
    assert_eq!(escaped("a\u{1b}[2Jb\nc\td"), "a\\u{1b}[2Jb\\u{a}c\\u{9}d");
    assert_eq!(escaped("exe.\u{202e}gpj"), "exe.\\u{202e}gpj");
}

#[test]
fn long_text_is_shortened_in_middle() {
    assert_eq!(shortened("https://a.example/b", 40), "https://a.example/b");
    assert_eq!(shortened("0123456789", 6), "01…789");
    // Each of these characters takes two columns. One that does not fit is left out.
    let wide = shortened("日本語日本語", 8);
    assert!(width(&wide) <= 8 && wide.contains('…'), "{wide}");
    for columns in 0..4 {
        assert!(width(&shortened("0123456789", columns)) <= columns.max(1));
    }
    assert_eq!((align_left("日", 4), align_right("日", 4)), ("日  ".to_owned(), "  日".to_owned()));
}

#[test]
fn sizes_and_times_are_readable() {
    assert_eq!((size(2048), short_size(2048), size(10)), ("2.0 KiB".into(), "2.0K".into(), "10 B".into()));
    assert_eq!(
        (count(1, "one", "many"), count(1_234_567, "one", "many")),
        ("1 one".into(), "1,234,567 many".into())
    );
    let spans = [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h"),
        (86_400, "1d"),
        (86_400_000, "1000d"),
    ];
    for (seconds, text) in spans {
        assert_eq!(short_duration(Duration::from_secs(seconds)), text);
    }
    let now = Timestamp::from_secs(1_000_000);
    assert_eq!(relative(now + Duration::from_secs(300), now), "in 5m");
    assert_eq!(relative(now, now + Duration::from_secs(7200)), "2h ago");
    assert_eq!((relative(Timestamp::NEVER, now), rfc3339(Timestamp::NEVER)), ("never".to_owned(), None));
    assert_eq!(timestamp(now, now), "1970-01-12T13:46:40.000Z (0s ago)");
}

#[test]
fn urls_are_normalized_like_cache_keys() {
    for (written, normal) in [
        ("HTTPS://A.Example", "https://a.example/"),
        ("https://a.example:443/B?c#d", "https://a.example/B?c"),
        ("http://a.example:8080?q", "http://a.example:8080/?q"),
        ("http://[::1]:80/", "http://[::1]/"),
        ("https://user@a.example/", "https://a.example/"),
        ("a name of the user's", "a name of the user's"),
    ] {
        assert_eq!(normal_url(written), normal, "{written}");
    }
}
