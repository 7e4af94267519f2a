//! The name of a record.

use std::fmt;

use crate::hex;

/// The name of a record: which entry it belongs to, and which of the entry's records it is. Fixed size, `Copy`, and
/// made of hashes and random ids only, so it tells nothing of a URL.
///
/// A storage may keep it as bytes ([`to_bytes`](Key::to_bytes)) or as text ([`Display`](fmt::Display), which
/// [`FromStr`](std::str::FromStr) reads back), or group the records of an entry by [`entry`](Key::entry).
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
    /// Which entry: all records of one URI share it.
    pub entry: [u8; 16],
    /// What the record is.
    pub kind: Kind,
    /// Which variant or which body; zero for a head.
    pub slot: [u8; 16],
    /// Which chunk of a body; zero for everything else.
    pub part: u32,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// The head of an entry: its first variant, a tombstone or a placeholder.
    Head = 0,
    /// A further variant.
    Variant = 1,
    /// A piece of a large body.
    Chunk = 2,
    /// A lease between processes.
    Lease = 3,
    /// The value of a group or tag.
    Group = 4,
    /// The entity tags of an entry's further variants.
    Index = 5,
}

impl Kind {
    /// Every kind there is.
    pub(crate) const ALL: [Self; 6] =
        [Self::Head, Self::Variant, Self::Chunk, Self::Lease, Self::Group, Self::Index];

    /// True for what counts as stored responses: heads and variants.
    pub fn is_listed(self) -> bool {
        matches!(self, Self::Head | Self::Variant)
    }

    /// The kind of this number, as [`Key::to_bytes`] writes it.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// The kind in a word, for storages that name records by text.
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

    /// The kind of this word, as [`name`](Kind::name) gives it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Key {
    /// The length of a key in bytes.
    pub const LEN: usize = 37;

    /// The head of an entry.
    pub const fn head(entry: [u8; 16]) -> Self {
        Self { entry, kind: Kind::Head, slot: [0; 16], part: 0 }
    }

    /// The value of a group of responses.
    pub(crate) const fn group(entry: [u8; 16]) -> Self {
        Self { entry, kind: Kind::Group, slot: [0; 16], part: 0 }
    }

    /// A record of the same entry.
    #[must_use]
    pub const fn sibling(self, kind: Kind, slot: [u8; 16], part: u32) -> Self {
        Self { entry: self.entry, kind, slot, part }
    }

    /// The key as bytes; their order is the order of keys.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(&self.entry);
        bytes[16] = self.kind as u8;
        bytes[17..33].copy_from_slice(&self.slot);
        bytes[33..].copy_from_slice(&self.part.to_be_bytes());
        bytes
    }

    /// The key that [`to_bytes`](Key::to_bytes) wrote; `None` for anything else.
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
    /// The key in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.to_bytes())
    }
}

/// The text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseKeyError;

impl fmt::Display for ParseKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a key of the cache")
    }
}

impl std::error::Error for ParseKeyError {}

impl std::str::FromStr for Key {
    type Err = ParseKeyError;

    /// Reads what [`Display`](fmt::Display) wrote, in lower case.
    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let bytes = hex::read::<{ Self::LEN }>(text).ok_or(ParseKeyError)?;
        Self::from_bytes(&bytes).ok_or(ParseKeyError)
    }
}
