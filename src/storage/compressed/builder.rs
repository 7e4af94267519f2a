//! The settings of a [`CompressedStorage`].

use std::fmt;

use super::form::CompressedForm;
use super::{Codec, CompressedStorage};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::storage::wrapper::Wrapper;

/// A builder for [`CompressedStorage`].
///
/// Created by [`CompressedStorage::builder`].
#[must_use]
pub struct CompressedStorageBuilder<S> {
    inner: S,
    codec: Codec,
    min_len: usize,
    #[cfg(feature = "zstd")]
    dictionary: Option<Vec<u8>>,
    #[cfg(feature = "zstd")]
    readable_dictionaries: Vec<Vec<u8>>,
}

/// The default of [`min_len`](CompressedStorageBuilder::min_len). JSON of 256 bytes still becomes a third smaller. Below that,
/// the time to read a record is not that of its bytes.
const DEFAULT_MIN_LEN: usize = 256;

impl<S: Storage> CompressedStorageBuilder<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            codec: Codec::default(),
            min_len: DEFAULT_MIN_LEN,
            #[cfg(feature = "zstd")]
            dictionary: None,
            #[cfg(feature = "zstd")]
            readable_dictionaries: Vec::new(),
        }
    }

    /// Sets how payloads are compressed.
    ///
    /// Records that were written with another codec remain readable.
    ///
    /// Default: zstd at level 1, or LZ4 if zstd is not compiled in.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Sets the length in bytes below which a payload is stored as it is.
    ///
    /// Default: 256.
    pub fn min_len(mut self, len: usize) -> Self {
        self.min_len = len;
        self
    }

    /// Sets a dictionary for the payloads that are written.
    ///
    /// A dictionary holds bytes that are typical of the responses. `zstd --train` makes one from samples; a few responses joined
    /// together serve as well. Every process that shares the storage needs the same one. Needs [`Codec::Zstd`].
    ///
    /// Default: none.
    #[cfg(feature = "zstd")]
    pub fn dictionary(mut self, dictionary: impl Into<Vec<u8>>) -> Self {
        self.dictionary = Some(dictionary.into());
        self
    }

    /// Adds a dictionary for the payloads that are read.
    ///
    /// Records that were written with this dictionary remain readable after another one, or none, was set for writing.
    ///
    /// Default: none.
    #[cfg(feature = "zstd")]
    pub fn readable_dictionary(mut self, dictionary: impl Into<Vec<u8>>) -> Self {
        self.readable_dictionaries.push(dictionary.into());
        self
    }

    /// Creates the storage.
    ///
    /// # Errors
    /// Returns [`ErrorKind::Config`] if the storage inside compresses already, if the level does not exist, or if a dictionary
    /// cannot be used.
    pub fn build(self) -> Result<CompressedStorage<S>> {
        if self.inner.compresses() {
            let message = "the storage inside CompressedStorage compresses already: remove one of the two";
            return Err(Error::new(ErrorKind::Config, message));
        }
        #[cfg(feature = "zstd")]
        let zstd = super::zstd::Zstd::new(self.codec, self.dictionary, self.readable_dictionaries)?;
        let form = CompressedForm {
            codec: self.codec,
            min_len: self.min_len,
            #[cfg(feature = "zstd")]
            zstd,
        };
        Ok(CompressedStorage(Wrapper::new(self.inner, form)))
    }
}

impl<S> fmt::Debug for CompressedStorageBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompressedStorageBuilder")
            .field("codec", &self.codec)
            .field("min_len", &self.min_len)
            .finish_non_exhaustive()
    }
}
