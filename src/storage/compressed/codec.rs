//! The codecs of a [`CompressedStorage`](super::CompressedStorage).

use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// How payloads are compressed.
///
/// A storage reads what any codec has written that is compiled in.
///
/// The text of a codec, which [`FromStr`] reads, is `zstd`, `zstd:LEVEL` or `lz4`:
///
/// ```
/// # #[cfg(feature = "zstd")] {
/// use tower_response_cache::storage::compressed::Codec;
///
/// assert_eq!("zstd:9".parse::<Codec>().unwrap(), Codec::Zstd { level: 9 });
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// Zstandard (RFC 8878), which compresses best.
    #[cfg(feature = "zstd")]
    Zstd {
        /// The level, from -7 (fastest) to 22 (smallest).
        level: i32,
    },
    /// LZ4, which is fastest.
    #[cfg(feature = "lz4")]
    Lz4,
}

/// The default level of zstd. Level 3, the default of zstd itself, takes twice the time for a chunk of 128 KiB of JSON and saves
/// only one more byte in a hundred.
#[cfg(feature = "zstd")]
pub(super) const DEFAULT_LEVEL: i32 = 1;

impl Default for Codec {
    /// Returns zstd at level 1, or LZ4 if zstd is not compiled in.
    fn default() -> Self {
        #[cfg(feature = "zstd")]
        return Self::Zstd { level: DEFAULT_LEVEL };
        #[cfg(not(feature = "zstd"))]
        Self::Lz4
    }
}

impl FromStr for Codec {
    type Err = Error;

    /// Reads a codec from its text.
    ///
    /// # Errors
    /// Returns [`ErrorKind::Config`] if the text is not that of a codec which is compiled in. Whether the level exists is checked
    /// when the storage is built.
    fn from_str(text: &str) -> Result<Self, Error> {
        let error = |message| Err(Error::new(ErrorKind::Config, message));
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        match (name, level) {
            #[cfg(feature = "zstd")]
            ("zstd", None) => Ok(Self::Zstd { level: DEFAULT_LEVEL }),
            #[cfg(feature = "zstd")]
            ("zstd", Some(level)) => match level.parse() {
                Ok(level) => Ok(Self::Zstd { level }),
                Err(_) => error("the level of zstd must be a number"),
            },
            #[cfg(not(feature = "zstd"))]
            ("zstd", _) => error("this codec needs the feature zstd of this crate, which is off: enable it"),
            #[cfg(feature = "lz4")]
            ("lz4", None) => Ok(Self::Lz4),
            #[cfg(not(feature = "lz4"))]
            ("lz4", None) => error("this codec needs the feature lz4 of this crate, which is off: enable it"),
            _ => error("the codec must be zstd, zstd:LEVEL or lz4"),
        }
    }
}
