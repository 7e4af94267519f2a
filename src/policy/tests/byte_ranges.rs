use std::ops::Range;

use super::*;
use crate::policy::byte_ranges::{ByteRanges, Resolved};

fn resolve(range: &str, len: u64) -> Resolved {
    ByteRanges::parse(&fields(&[("range", range)])).map_or(Resolved::Whole, |ranges| ranges.resolve(len))
}

fn several(ranges: &[(u64, u64)]) -> Resolved {
    Resolved::Several(ranges.iter().map(|(first, last)| *first..last + 1).collect())
}

#[test]
fn field_is_parsed_strictly() {
    // §14.1.1: one invalid member makes the whole field invalid. §5.6.1: empty members of a list are skipped.
    for valid in [
        "bytes=0-0",
        "BYTES=0-0",
        "bytes= 0-0",
        "bytes=,0-0",
        "bytes=0-0,",
        "bytes=, ,0-0 ,\t,",
        "bytes=000-0000",
        " bytes=0-0 ",
    ] {
        assert_eq!(resolve(valid, 1000), Resolved::One(0..1), "{valid}");
    }
    for invalid in [
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=0",
        "bytes=0--1",
        "bytes=--1",
        "bytes=0-0-",
        "bytes=0 -0",
        "bytes=0- 0",
        "bytes=+0-0",
        "bytes=0x0-1",
        "bytes=1-0",
        "bytes=0-0,1-0",
        "bytes=0-0,a-b",
        "bytes=0-0;500-600",
        "bytes=0-0 500-600",
        "bytes=\"0-0\"",
        "bytes=\"0-0,500-600\"",
        "bytes =0-0",
        "byte=0-0",
        "lines=0-0",
        "=0-0",
        "bytes:0-0",
        "",
    ] {
        assert_eq!(resolve(invalid, 1000), Resolved::Whole, "{invalid}");
    }
    let twice = fields(&[("range", "bytes=0-0"), ("range", "bytes=500-600")]);
    assert_eq!(ByteRanges::parse(&twice), None);
    assert_eq!(ByteRanges::parse(&fields(&[])), None);
    let bytes = HeaderValue::from_bytes(b"bytes=0-\xff").unwrap();
    assert_eq!(ByteRanges::parse(&HeaderMap::from_iter([(http::header::RANGE, bytes)])), None);
}

#[test]
fn numbers_of_any_size_are_compared() {
    // §14.1.2: large numerals must not overflow.
    for (range, expected) in [
        ("bytes=0-18446744073709551615", Resolved::One(0..1000)),
        ("bytes=0-18446744073709551616", Resolved::One(0..1000)),
        ("bytes=-18446744073709551616", Resolved::One(0..1000)),
        ("bytes=18446744073709551616-", Resolved::Unsatisfiable),
        ("bytes=18446744073709551615-18446744073709551616", Resolved::Unsatisfiable),
        ("bytes=99999999999999999998-99999999999999999999", Resolved::Unsatisfiable),
        ("bytes=99999999999999999999-99999999999999999998", Resolved::Whole),
        ("bytes=99999999999999999999-0", Resolved::Whole),
        ("bytes=00000000000000000000000000000001-2", Resolved::One(1..3)),
        ("bytes=500-99999999999999999999,0-0", several(&[(500, 999), (0, 0)])),
    ] {
        assert_eq!(resolve(range, 1000), expected, "{range}");
    }
    assert_eq!(resolve("bytes=0-0,-1", u64::MAX), several(&[(0, 0), (u64::MAX - 1, u64::MAX - 1)]));
    assert_eq!(resolve("bytes=18446744073709551614-", u64::MAX), Resolved::One(u64::MAX - 1..u64::MAX));
}

#[test]
fn unsatisfiable_ranges_are_dropped() {
    for (range, len, expected) in [
        ("bytes=1000-", 1000, Resolved::Unsatisfiable),
        ("bytes=-0", 1000, Resolved::Unsatisfiable),
        ("bytes=1000-1001,-0,2000-", 1000, Resolved::Unsatisfiable),
        ("bytes=5-6,1000-", 1000, Resolved::One(5..7)),
        ("bytes=-0,5-6,500-", 1000, several(&[(5, 6), (500, 999)])),
        // Of an empty body, a suffix alone is satisfiable (§14.1.2).
        ("bytes=0-", 0, Resolved::Unsatisfiable),
        ("bytes=0-,-0", 0, Resolved::Unsatisfiable),
        ("bytes=-1", 0, Resolved::Whole),
        ("bytes=0-,-1", 0, Resolved::Whole),
    ] {
        assert_eq!(resolve(range, len), expected, "{range} of {len}");
    }
}

#[test]
fn close_ranges_are_joined_and_others_keep_their_order() {
    for (range, expected) in [
        // The examples of §14.1.2, of a body of 10,000 bytes.
        ("bytes=0-0,-1", several(&[(0, 0), (9999, 9999)])),
        ("bytes= 0-999, 4500-5499, -1000", several(&[(0, 999), (4500, 5499), (9000, 9999)])),
        ("bytes=500-600,601-999", Resolved::One(500..1000)),
        ("bytes=500-700,601-999", Resolved::One(500..1000)),
        ("bytes=601-999,500-600", Resolved::One(500..1000)),
        ("bytes=500-999,600-700", Resolved::One(500..1000)),
        ("bytes=0-,-500", Resolved::One(0..10_000)),
        // §15.3.7.2: a gap that is shorter than the head of a part.
        ("bytes=0-9,89-99", Resolved::One(0..100)),
        ("bytes=0-9,90-99", several(&[(0, 9), (90, 99)])),
        ("bytes=90-99,0-9", several(&[(90, 99), (0, 9)])),
        ("bytes=9000-9099,0-99,4000-4099", several(&[(9000, 9099), (0, 99), (4000, 4099)])),
        // Joined ranges come where the first of them stood.
        ("bytes=4000-4099,0-99,4050-4199", several(&[(4000, 4199), (0, 99)])),
        ("bytes=0-99,4050-4199,9000-9099,4000-4099", several(&[(0, 99), (4000, 4199), (9000, 9099)])),
    ] {
        assert_eq!(resolve(range, 10_000), expected, "{range}");
    }
}

#[test]
fn egregious_sets_are_ignored() {
    // §14.2 and §17.15.
    let apart = |count: u64, len: u64| -> Vec<String> {
        (0..count).map(|number| format!("{}-{}", number * 1000, number * 1000 + len - 1)).collect()
    };
    let ask = |ranges: &[String]| resolve(&format!("bytes={}", ranges.join(",")), 10_000_000);
    let count = |resolved: Resolved| match resolved {
        Resolved::Several(ranges) => ranges.len(),
        Resolved::Whole => 0,
        other => panic!("{other:?}"),
    };
    let backwards = |count, len| apart(count, len).into_iter().rev().collect::<Vec<_>>();
    assert_eq!(count(ask(&apart(16, 100))), 16);
    assert_eq!(count(ask(&apart(17, 100))), 0);
    assert_eq!(count(ask(&apart(1000, 1))), 0);
    assert_eq!(count(ask(&vec!["0-0".to_owned(); 1000])), 0);
    assert_eq!(count(ask(&apart(16, 1))), 16);
    assert_eq!(count(ask(&backwards(16, 80))), 16);
    assert_eq!(count(ask(&backwards(16, 79))), 0);
    assert_eq!(count(ask(&backwards(5, 1))), 0);
    assert_eq!(count(ask(&backwards(4, 1))), 4);
    // Two may overlap, and not three, whether with one another or with others.
    assert_eq!(resolve("bytes=0-9,5-14,500-509", 1000), several(&[(0, 14), (500, 509)]));
    assert_eq!(resolve("bytes=0-9,5-14,7-500", 1000), Resolved::Whole);
    assert_eq!(resolve("bytes=0-9,5-14,500-509,505-", 1000), Resolved::Whole);
    assert_eq!(resolve("bytes=0-,0-,0-", 1000), Resolved::Whole);
}

#[test]
fn random_sets_cover_exactly_what_was_asked() {
    let mut random = fastrand::Rng::with_seed(0x51A7_0B5E_ED00_0001);
    let mut seen = [0; 2];
    for _ in 0..2_000 {
        let len = random.u64(1..5000);
        let asked: Vec<Range<u64>> = (0..random.usize(1..6))
            .map(|_| (random.u64(..6000), random.u64(..600)))
            .map(|(start, count)| start..start + count + 1)
            .collect();
        let text: Vec<_> = asked.iter().map(|range| format!("{}-{}", range.start, range.end - 1)).collect();
        let text = format!("bytes={}", text.join(","));
        let is_asked = |byte: u64| byte < len && asked.iter().any(|range| range.contains(&byte));
        let sent = match resolve(&text, len) {
            Resolved::Whole => continue,
            Resolved::Unsatisfiable => vec![],
            Resolved::One(range) => vec![range],
            Resolved::Several(ranges) => ranges,
        };
        seen[usize::from(sent.len() > 1)] += 1;
        assert!(sent.iter().all(|range| range.start < range.end && range.end <= len), "{text} of {len}");
        let times = |byte: u64| sent.iter().filter(|range| range.contains(&byte)).count();
        // Only gaps of fewer than 80 bytes are sent without having been asked for.
        let mut gap = 0;
        for byte in 0..len {
            assert!(times(byte) <= 1 && (times(byte) == 1 || !is_asked(byte)), "{byte} in {text} of {len}");
            gap = if times(byte) == 1 && !is_asked(byte) { gap + 1 } else { 0 };
            assert!(gap < 80, "{byte} in {text} of {len}");
        }
    }
    assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
}
