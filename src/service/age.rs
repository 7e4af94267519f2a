//! The value of the Age field.
//!
//! Each hit has an Age field. The usual values are not allocated: their digits are in a table in the binary. Without the
//! table, a hit in memory takes nine allocations instead of eight (`benches/allocations.rs`, "memory, no extensions").

use http::HeaderValue;

/// The number of ages in the table. It covers nearly three hours, and takes 40 kB.
const COUNT: usize = 10_000;
/// The number of digits of each age in the table.
const DIGITS: usize = 4;

/// The digits of the ages `0000` to `9999`.
static TABLE: [u8; COUNT * DIGITS] = table();

/// Makes the table at compile time.
const fn table() -> [u8; COUNT * DIGITS] {
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

/// Returns the value of the Age field for a number of seconds.
pub(super) fn age_value(seconds: u64) -> HeaderValue {
    let digits = match seconds {
        0..10 => 1,
        10..100 => 2,
        100..1000 => 3,
        _ => DIGITS,
    };
    // Read backwards from the end of the number's digits, so that leading zeros are left out.
    let end = usize::try_from(seconds).unwrap_or(COUNT).saturating_add(1).saturating_mul(DIGITS);
    match TABLE.get(end - digits..end).map(std::str::from_utf8) {
        Some(Ok(text)) => HeaderValue::from_static(text),
        _ => HeaderValue::from(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_decimal_numbers() {
        for age in (0..20_000).chain([1 << 31, u64::from(u32::MAX), u64::MAX - 1, u64::MAX]) {
            assert_eq!(age_value(age), age.to_string().as_str());
        }
    }
}
