//! Bytes as hexadecimal digits, two to a byte and in lower case: the one codec of keys, file names and percent signs.

use std::fmt::{self, Write};

/// Writes the digits of these bytes.
pub(crate) fn write(to: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    // Not `{:02x}`: a key's name is written for every operation of a storage.
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().try_for_each(|byte| {
        to.write_char(char::from(DIGITS[usize::from(byte >> 4)]))?;
        to.write_char(char::from(DIGITS[usize::from(byte & 15)]))
    })
}

/// Returns the digits of these bytes.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    let _ = write(&mut text, bytes); // a String takes all
    text
}

/// Reads what [`text`] made of so many bytes; `None` for anything else, capital letters among it, so that no two names
/// are those of one key.
pub(crate) fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = octet(pair[0], pair[1])?;
    }
    Some(bytes)
}

/// Returns the byte of two digits, capital letters or not, as after a percent sign.
pub(crate) fn octet(high: u8, low: u8) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(value(high)? << 4 | value(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_their_digits() {
        let bytes: [u8; 256] = std::array::from_fn(|number| number as u8);
        assert!(text(&bytes).starts_with("000102") && text(&bytes).ends_with("fdfeff"));
        assert_eq!(read(&text(&bytes)), Some(bytes));
        assert_eq!(read(""), Some([]));
    }

    #[test]
    fn other_text_is_not_read() {
        for other in ["", "0", "000", "0000", "0g", "+1", "0A", "A0", " 0", "é"] {
            assert_eq!(read::<1>(other), None, "{other}");
        }
        assert_eq!((octet(b'a', b'F'), octet(b'0', b'g'), octet(b'+', b'1')), (Some(0xaf), None, None));
    }
}
