//! Encodes and decodes hexadecimal digits, for the names of keys and files and for percent-encoding.
//!
//! # Invariants
//!
//! - Each byte is encoded as two lower-case digits.
//! - Only one text is decoded to the same bytes, so that no two names belong to one key.

use std::fmt::{self, Write};

/// Writes the digits of some bytes.
pub(crate) fn write(to: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    // One text is faster than single characters. The name of a key is written for every operation of a storage, and an id in
    // it has 16 bytes.
    bytes.chunks(16).try_for_each(|bytes| {
        let mut text = [b'0'; 32];
        fill(&mut text, bytes);
        to.write_str(str::from_utf8(&text[..2 * bytes.len()]).map_err(|_| fmt::Error)?)
    })
}

/// Writes the digits of some bytes to the beginning of a text, which has room for them.
pub(crate) fn fill(text: &mut [u8], bytes: &[u8]) {
    // A table is faster than `{:02x}`.
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Returns the digits of some bytes.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    let _ = write(&mut text, bytes); // writing to a String never fails
    text
}

/// Decodes the digits of `N` bytes, as [`text`] encodes them.
///
/// Returns `None` for any other text. Capital letters are refused as well: with them, two names would belong to one key.
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

/// Decodes the byte of two digits, in lower or upper case.
///
/// Such digits follow a percent sign in a URI.
pub(crate) fn octet(high: u8, low: u8) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(value(high)? << 4 | value(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_restores_encoded_bytes() {
        let bytes: [u8; 256] = std::array::from_fn(|number| number as u8);
        assert!(text(&bytes).starts_with("000102") && text(&bytes).ends_with("fdfeff"));
        assert_eq!(read(&text(&bytes)), Some(bytes));
        assert_eq!(read(""), Some([]));
    }

    #[test]
    fn other_text_is_refused() {
        for other in ["", "0", "000", "0000", "0g", "+1", "0A", "A0", " 0", "é"] {
            assert_eq!(read::<1>(other), None, "{other}");
        }
        assert_eq!((octet(b'a', b'F'), octet(b'0', b'g'), octet(b'+', b'1')), (Some(0xaf), None, None));
    }
}
