//! How much of a body is stored.

use std::fmt;
use std::num::NonZeroU64;

/// How much of a body is stored, if it was stored in [parts](crate::CacheLayerBuilder::store_parts).
///
/// As text it is `12.5 of 700 MiB in 3 parts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialBody {
    stored: u64,
    /// The length of the body above the number of parts, so that a status, which each response has, is short.
    len_and_parts: NonZeroU64,
}

/// The number of bits for the number of parts, of which a body has at most 4,096.
const PARTS_BITS: u32 = 13;
const MAX_LEN: u64 = u64::MAX >> PARTS_BITS;

impl PartialBody {
    /// Returns `None` if no part is stored.
    pub(crate) fn new(stored: u64, len: u64, parts: usize) -> Option<Self> {
        let parts = (parts as u64).min((1 << PARTS_BITS) - 1);
        let len_and_parts = NonZeroU64::new(len.min(MAX_LEN) << PARTS_BITS | parts).filter(|_| parts > 0)?;
        Some(Self { stored: stored.min(MAX_LEN), len_and_parts })
    }

    /// Returns the number of bytes that are stored.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Returns the length of the complete body in bytes. Never zero, and at most 2 PiB.
    #[allow(clippy::len_without_is_empty)] // no part of an empty body is stored
    pub fn len(&self) -> u64 {
        self.len_and_parts.get() >> PARTS_BITS
    }

    /// Returns the number of contiguous parts that are stored.
    pub fn parts(&self) -> u32 {
        (self.len_and_parts.get() & ((1 << PARTS_BITS) - 1)) as u32
    }
}

impl fmt::Display for PartialBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
        // The largest unit in which the length is at least one.
        let power = (self.len().max(1).ilog2() / 10).min(UNITS.len() as u32 - 1);
        let text = |bytes: u64| {
            // Rounded down, so that a body of which a byte is missing does not look complete.
            let tenths = (u128::from(bytes) * 10) >> (10 * power);
            match tenths % 10 {
                0 => (tenths / 10).to_string(),
                rest => format!("{}.{rest}", tenths / 10),
            }
        };
        let (stored, len, unit) = (text(self.stored), text(self.len()), UNITS[power as usize]);
        let noun = if self.parts() == 1 { "part" } else { "parts" };
        write!(f, "{stored} of {len} {unit} in {} {noun}", self.parts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_the_unit_of_the_length() {
        const MIB: u64 = 1 << 20;
        for (stored, len, parts, text) in [
            (25 * MIB / 2, 700 * MIB, 3, "12.5 of 700 MiB in 3 parts"),
            (1, 999, 1, "1 of 999 bytes in 1 part"),
            (1, 1024, 1, "0 of 1 KiB in 1 part"),
            (700 * MIB - 1, 700 * MIB, 2, "699.9 of 700 MiB in 2 parts"),
            (4 * MIB, 10 << 30, 1, "0 of 10 GiB in 1 part"),
            (u64::MAX, u64::MAX, 4096, "2047.9 of 2047.9 TiB in 4096 parts"),
        ] {
            assert_eq!(PartialBody::new(stored, len, parts).unwrap().to_string(), text);
        }
    }
}
