//! HTTP-dates (RFC 9110 §5.6.7), in any letter case (RFC 9111 §4.2).

use super::super::dates::{format, parse};
use super::*;

fn seconds(date: &str) -> Option<u64> {
    parse(&HeaderValue::from_str(date).unwrap(), NOW).map(Timestamp::as_secs)
}

#[test]
fn only_three_date_forms_are_read() {
    for good in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "sUN, 06 nOV 1994 08:49:37 gMT",
        "SUNDAY, 06-NOV-94 08:49:37 gmt",
        "  Sun, 06 Nov 1994 08:49:37 GMT ",
        "Tue, 06 Nov 1994 08:49:37 GMT", // the wrong day of the week
        "Tue Nov 06 08:49:37 1994",
    ] {
        assert_eq!(seconds(good), Some(784_111_777), "{good}");
    }
    for bad in [
        "",
        "0",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 EST",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov  1994 08:49:37 GMT",
        "Sun, 06 Nov 1994  08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Nov 1994 08:49:37:00 GMT",
        "Xyz, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 29 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, +6 Nov 1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
    ] {
        assert_eq!(seconds(bad), None, "{bad}");
    }
    assert_eq!(parse(&HeaderValue::from_bytes(b"Sun, 06 Nov 1994 08:49:37 \xff").unwrap(), NOW), None);
}

#[test]
fn dates_follow_the_calendar() {
    assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    assert_eq!(seconds("Wed, 31 Dec 1969 23:59:59 GMT"), Some(0)); // every time before 1970 becomes the epoch
    assert_eq!(seconds("Tue, 29 Feb 2000 12:00:00 GMT"), Some(951_825_600));
    assert_eq!(seconds("Mon, 28 Feb 2100 00:00:00 GMT"), Some(4_107_456_000));
    assert_eq!(seconds("Mon, 29 Feb 2100 00:00:00 GMT"), None);
    assert_eq!(seconds("Fri, 31 Dec 9999 23:59:60 GMT"), Some(253_402_300_800));
    for days in (0..80_000).step_by(17) {
        let moment = Timestamp::from_secs(days * 86_400 + days % 86_400);
        assert_eq!(parse(&format(moment).unwrap(), NOW), Some(moment));
    }
}

#[test]
fn two_digit_year_is_at_most_fifty_ahead() {
    let year = |two: &str| {
        parse(&HeaderValue::from_str(&std::format!("Sunday, 01-Jan-{two} 00:00:00 GMT")).unwrap(), NOW)
    };
    let of = |year: &str| seconds(&std::format!("Sun, 01 Jan {year} 00:00:00 GMT")).map(Timestamp::from_secs);
    for (two, four) in
        [("26", "2026"), ("76", "2076"), ("77", "1977"), ("99", "1999"), ("00", "2000"), ("70", "2070")]
    {
        assert_eq!(year(two), of(four), "{two}");
    }
}

#[test]
fn each_second_is_formatted_as_its_own_date() {
    let date = |millis| format(Timestamp::from_millis(millis)).unwrap().to_str().unwrap().to_owned();
    let (first, second) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:38 GMT");
    for (millis, expected) in [
        (784_111_777_000, first),
        (784_111_777_999, first),
        (784_111_778_000, second),
        (784_111_777_500, first), // a clock that was set back
    ] {
        assert_eq!(date(millis), expected);
    }
}
