//! The keys of an [`EncryptedStorage`](super::EncryptedStorage).
//!
//! # Invariants
//! - A key is never copied after it was made. Clones of a keyring share it.
//! - Nothing but the id of a key can be shown.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aes::Aes256;
use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use base64ct::{Base64, Base64Unpadded, Base64Url, Base64UrlUnpadded, Encoding};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::hex;

/// The id of an [`EncryptionKey`], which is stored with every record that the key wrote.
///
/// It is derived from the key, so that it is the same in every process. It reveals nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    pub(super) const LEN: usize = 8;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }

    pub(super) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for KeyId {
    /// Writes the id as hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key of 256 bits for an [`EncryptedStorage`](super::EncryptedStorage).
///
/// The text of a key, which [`FromStr`] reads, is its 32 bytes in 64 hexadecimal digits or in Base64, as `openssl rand -hex 32`
/// or `openssl rand -base64 32` print them. The bytes must be random: a password is no key.
///
/// The key is overwritten in memory when the last clone is dropped. Debug output shows its id only.
#[derive(Clone)]
pub struct EncryptionKey {
    id: KeyId,
    /// In an allocation of its own, so that moving the key leaves no copy behind.
    cipher: Arc<Aes256GcmSiv>,
}

/// The bytes that are authenticated to derive the id of a key. No record has these bytes.
const ID_OF_KEY: &[u8] = b"tower-response-cache: id of an encryption key";

impl EncryptionKey {
    /// The length of a key in bytes.
    pub const LEN: usize = 32;

    /// Creates a key of these bytes, which must be random and secret.
    ///
    /// The caller overwrites the bytes, if they should not stay in memory.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let cipher = Arc::new(Aes256GcmSiv::from(Aes256::new(bytes.into())));
        // The tag of an empty text, which only the key can make and from which it cannot be computed. It never fails for so few
        // bytes.
        let tag: Tag = cipher
            .encrypt_inout_detached(&Nonce::default(), ID_OF_KEY, (&mut [][..]).into())
            .unwrap_or_default();
        Self { id: KeyId(std::array::from_fn(|at| tag[at])), cipher }
    }

    /// Creates a random key.
    ///
    /// # Errors
    /// Returns [`ErrorKind::Other`] if the system has no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        fill_random(&mut bytes[..])?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Returns the id of the key, which may be shown.
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn cipher(&self) -> &Aes256GcmSiv {
        &self.cipher
    }
}

/// Fills a buffer with random bytes of the system.
///
/// Nothing else will do for a key or a nonce: the crate's pool of random ids falls back to the time if the system has none.
pub(super) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    let error = |_| Error::new(ErrorKind::Other, "the system has no random numbers to encrypt with");
    getrandom::fill(bytes).map_err(error)
}

impl FromStr for EncryptionKey {
    type Err = Error;

    /// Reads a key from hexadecimal digits or Base64.
    ///
    /// # Errors
    /// Returns [`ErrorKind::Config`] if the text is not one of 32 bytes. The message does not repeat it.
    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        let digits = text.as_bytes();
        let is_read = if digits.len() == 2 * Self::LEN {
            bytes
                .iter_mut()
                .zip(digits.chunks_exact(2))
                .all(|(byte, pair)| hex::octet(pair[0], pair[1]).inspect(|read| *byte = *read).is_some())
        } else {
            // Decoders whose run time does not depend on the text. Of 32 bytes, Base64 has a padding of one letter.
            let decoders =
                [Base64::decode, Base64Url::decode, Base64Unpadded::decode, Base64UrlUnpadded::decode];
            decoders
                .iter()
                .any(|decode| decode(text, &mut bytes[..]).is_ok_and(|read| read.len() == Self::LEN))
        };
        if !is_read {
            let message = "an encryption key must be 32 bytes in hexadecimal digits or in Base64";
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(Self::from_bytes(&bytes))
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The keys of an [`EncryptedStorage`](super::EncryptedStorage): one that writes, and others that only read.
///
/// The text of a keyring, which [`FromStr`] reads, is the texts of its keys, separated by commas. The first one writes.
///
/// ```
/// use tower_response_cache::storage::encrypted::Keyring;
///
/// let (new, old) = ("8f".repeat(32), "3a".repeat(32));
/// let keyring: Keyring = format!("{new},{old}").parse().unwrap();
/// assert_eq!(keyring.ids().count(), 2);
/// ```
#[derive(Clone)]
pub struct Keyring {
    writing: EncryptionKey,
    readable: Vec<EncryptionKey>,
}

impl Keyring {
    /// Creates a keyring with a key that writes and reads.
    pub fn new(writing: EncryptionKey) -> Self {
        Self { writing, readable: Vec::new() }
    }

    /// Adds a key that only reads.
    #[must_use]
    pub fn readable(mut self, key: EncryptionKey) -> Self {
        self.readable.push(key);
        self
    }

    /// Reads a keyring from a variable of the environment.
    ///
    /// # Errors
    /// Returns [`ErrorKind::Config`] if the variable is not set, or is not the text of a keyring. The message repeats neither.
    pub fn from_env(variable: &str) -> Result<Self> {
        let unset =
            |_| Error::new(ErrorKind::Config, "the environment variable with the encryption keys is not set");
        std::env::var(variable).map(Zeroizing::new).map_err(unset)?.parse()
    }

    /// Returns the ids of the keys. That of the key which writes comes first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys().map(EncryptionKey::id)
    }

    pub(super) fn writing(&self) -> &EncryptionKey {
        &self.writing
    }

    /// Returns the key with this id.
    pub(super) fn find(&self, id: KeyId) -> Option<&EncryptionKey> {
        self.keys().find(|key| key.id == id)
    }

    fn keys(&self) -> impl Iterator<Item = &EncryptionKey> {
        std::iter::once(&self.writing).chain(&self.readable)
    }
}

impl FromStr for Keyring {
    type Err = Error;

    /// Reads a keyring from the texts of its keys, which are separated by commas.
    ///
    /// White space around a key is ignored.
    ///
    /// # Errors
    /// Returns [`ErrorKind::Config`] if one of them is not the text of a key. The message does not repeat it.
    fn from_str(text: &str) -> Result<Self> {
        let (writing, readable) = text.split_once(',').unwrap_or((text, ""));
        let mut keyring = Self::new(writing.trim().parse()?);
        for key in readable.split(',').map(str::trim).filter(|key| !key.is_empty()) {
            keyring = keyring.readable(key.parse()?);
        }
        Ok(keyring)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    #[test]
    fn keys_are_zeroized_on_drop() {
        // Overwritten memory cannot be read without unsafe code, so this relies on the marker of the crate that has the key.
        // The keys that are derived for each record are in `polyval`, which overwrites them as well, but has no marker.
        const fn is_zeroized<T: ZeroizeOnDrop>() {}
        const { is_zeroized::<Aes256>() };
    }

    #[test]
    fn id_does_not_depend_on_the_process() {
        let id = EncryptionKey::from_bytes(&[7; 32]).id();
        assert_eq!(id, EncryptionKey::from_bytes(&[7; 32]).id());
        assert_ne!(id, EncryptionKey::from_bytes(&[8; 32]).id());
        assert_eq!(id.to_string(), "b40deda395909f92");
    }
}
