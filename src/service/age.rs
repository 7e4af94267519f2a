//! The value of Age, without allocating for an age that is usual.

use http::HeaderValue;

/// Ages below this are written down beforehand: some hours.
const COUNT: usize = 10_000;
const DIGITS: usize = 4;

/// `0000` to `9999`.
static WRITTEN: [u8; COUNT * DIGITS] = written();

const fn written() -> [u8; COUNT * DIGITS] {
    let mut all = [0; COUNT * DIGITS];
    let mut number = 0;
    while number < COUNT {
        let (mut left, mut digit) = (number, DIGITS);
        while digit > 0 {
            digit -= 1;
            all[number * DIGITS + digit] = b'0' + (left % 10) as u8;
            left /= 10;
        }
        number += 1;
    }
    all
}

pub(super) fn age_value(seconds: u64) -> HeaderValue {
    let digits = match seconds {
        0..10 => 1,
        10..100 => 2,
        100..1000 => 3,
        _ => DIGITS,
    };
    let end = usize::try_from(seconds).unwrap_or(COUNT).saturating_add(1).saturating_mul(DIGITS);
    match WRITTEN.get(end - digits..end).map(std::str::from_utf8) {
        Some(Ok(text)) => HeaderValue::from_static(text),
        _ => HeaderValue::from(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_age_is_its_number() {
        for age in (0..20_000).chain([1 << 31, u64::from(u32::MAX), u64::MAX - 1, u64::MAX]) {
            assert_eq!(age_value(age), age.to_string().as_str());
        }
    }
}
