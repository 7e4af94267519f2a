//! The settings of an [`EncryptedStorage`].

use std::fmt;

use sha2::{Digest, Sha256};

use super::form::EncryptedForm;
use super::{EncryptedStorage, Keyring};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::storage::wrapper::Wrapper;

/// A builder for [`EncryptedStorage`].
///
/// Created by [`EncryptedStorage::builder`].
#[must_use]
pub struct EncryptedStorageBuilder<S> {
    inner: S,
    keyring: Keyring,
    context: Vec<u8>,
    padded_lens: Vec<usize>,
}

impl<S: Storage> EncryptedStorageBuilder<S> {
    pub(super) fn new(inner: S, keyring: Keyring) -> Self {
        Self { inner, keyring, context: Vec::new(), padded_lens: Vec::new() }
    }

    /// Sets a text that is authenticated with every record, such as the name of the cache.
    ///
    /// A record is readable only in the context in which it was written. So caches that use the same key, such as those of tests
    /// and of production, cannot be given each other's records. It need not be secret.
    ///
    /// Default: empty.
    pub fn context(mut self, context: impl Into<Vec<u8>>) -> Self {
        self.context = context.into();
        self
    }

    /// Sets the lengths in bytes to which payloads are padded, so that a length reveals less.
    ///
    /// A payload is padded to the next of these lengths. One that is longer than all of them is padded to the next multiple of
    /// the longest. So a single length makes all shorter payloads equally long. Zeros are ignored.
    ///
    /// A body above [`inline_len`](Storage::inline_len) is stored in chunks. A length equal to that of a chunk (128 KiB by
    /// default) pads only the last one. How many chunks there are remains visible.
    ///
    /// Default: none.
    pub fn pad_to(mut self, lens: impl IntoIterator<Item = usize>) -> Self {
        self.padded_lens = lens.into_iter().filter(|len| *len > 0).collect();
        self.padded_lens.sort_unstable();
        self
    }

    /// Creates the storage.
    ///
    /// # Errors
    /// Returns [`ErrorKind::Config`] if the storage inside compresses, which encrypted bytes would prevent.
    pub fn build(self) -> Result<EncryptedStorage<S>> {
        if self.inner.compresses() {
            let message = "encrypted records cannot be compressed: put the EncryptedStorage inside of the CompressedStorage";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let form = EncryptedForm {
            keyring: self.keyring,
            context: Sha256::digest(&self.context).into(),
            padded_lens: self.padded_lens,
        };
        Ok(EncryptedStorage(Wrapper::new(self.inner, form)))
    }
}

impl<S> fmt::Debug for EncryptedStorageBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStorageBuilder")
            .field("keyring", &self.keyring)
            .field("padded_lens", &self.padded_lens)
            .finish_non_exhaustive()
    }
}
