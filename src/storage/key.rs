//! The key of a record.

use std::fmt;

use crate::hex;

/// The key of a [`Record`](super::Record).
///
/// A key says which entry the record belongs to, and which of the entry's records it is. It has a fixed size, is `Copy`, and
/// consists of hashes and random ids, so it reveals nothing about a URL.
///
/// A storage may write keys as bytes ([`to_bytes`](Key::to_bytes)) or as text ([`Display`](fmt::Display), which
/// [`FromStr`](std::str::FromStr) reads). It may keep the records of an entry together by [`entry`](Key::entry).
///
/// ```
/// use tower_response_cache::storage::{Key, Kind};
///
/// let key = Key { entry: [7; 16], kind: Kind::Chunk, slot: [1; 16], part: 3 };
/// assert_eq!(Key::from_bytes(&key.to_bytes()), Some(key));
/// assert_eq!(key.to_string().parse::<Key>(), Ok(key));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The entry, which all records of one effective URI share.
    pub entry: [u8; 16],
    /// The part of the entry that the record is.
    pub kind: Kind,
    /// The variant, or the body that a chunk belongs to.
    ///
    /// Zero for a head.
    pub slot: [u8; 16],
    /// The position of a chunk in its body, from zero.
    ///
    /// Zero for every other kind.
    pub part: u32,
}

/// The part of an entry that a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// The head of an entry, which is its first variant, a tombstone or a placeholder.
    Head = 0,
    /// A further variant of the response.
    Variant = 1,
    /// A part of a long body.
    Chunk = 2,
    /// The lease of the process that fetches the entry.
    Lease = 3,
    /// The current value of a group or tag, which its members remember.
    Group = 4,
    /// The entity tags of an entry's further variants, or the last values of No-Vary-Search of a path.
    Index = 5,
}

impl Kind {
    /// All kinds.
    pub(crate) const ALL: [Self; 6] =
        [Self::Head, Self::Variant, Self::Chunk, Self::Lease, Self::Group, Self::Index];

    /// Returns whether a record of this kind is listed and counted as a response.
    ///
    /// True for heads and variants.
    pub fn is_listed(self) -> bool {
        matches!(self, Self::Head | Self::Variant)
    }

    /// Returns the kind that [`Key::to_bytes`] writes as this number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Returns the kind as a word, for storages that name records by text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Variant => "variant",
            Self::Chunk => "chunk",
            Self::Lease => "lease",
            Self::Group => "group",
            Self::Index => "index",
        }
    }

    /// Returns the kind whose [`name`](Kind::name) this is.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Key {
    /// The length of a key in bytes.
    pub const LEN: usize = 37;

    /// Returns the key of an entry's head.
    pub const fn head(entry: [u8; 16]) -> Self {
        Self { entry, kind: Kind::Head, slot: [0; 16], part: 0 }
    }

    /// Returns the key of a group's value.
    pub(crate) const fn group(entry: [u8; 16]) -> Self {
        Self { entry, kind: Kind::Group, slot: [0; 16], part: 0 }
    }

    /// Returns the key of another record of the same entry.
    #[must_use]
    pub const fn sibling(self, kind: Kind, slot: [u8; 16], part: u32) -> Self {
        Self { entry: self.entry, kind, slot, part }
    }

    /// Returns the key as bytes.
    ///
    /// The bytes are in the same order as the keys.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(&self.entry);
        bytes[16] = self.kind as u8;
        bytes[17..33].copy_from_slice(&self.slot);
        bytes[33..].copy_from_slice(&self.part.to_be_bytes());
        bytes
    }

    /// Reads a key that [`to_bytes`](Key::to_bytes) wrote.
    ///
    /// Returns `None` for all other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (entry, rest) = bytes.split_first_chunk::<16>()?;
        let (kind, rest) = rest.split_first()?;
        let (slot, part) = rest.split_first_chunk::<16>()?;
        let part = u32::from_be_bytes(part.try_into().ok()?);
        Some(Self { entry: *entry, kind: Kind::from_u8(*kind)?, slot: *slot, part })
    }
}

impl fmt::Display for Key {
    /// Writes the key as hexadecimal digits in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.to_bytes())
    }
}

/// The error of a text that is not a [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseKeyError;

impl fmt::Display for ParseKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text is not the key of a record")
    }
}

impl std::error::Error for ParseKeyError {}

impl std::str::FromStr for Key {
    type Err = ParseKeyError;

    /// Reads a key that [`Display`](fmt::Display) wrote.
    ///
    /// # Errors
    /// Returns [`ParseKeyError`] for any other text, upper case digits included.
    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let bytes = hex::read::<{ Self::LEN }>(text).ok_or(ParseKeyError)?;
        Self::from_bytes(&bytes).ok_or(ParseKeyError)
    }
}
