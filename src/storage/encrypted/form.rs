//! The stored form of a payload.

use aes_gcm_siv::aead::AeadInOut;
use aes_gcm_siv::{Nonce, Tag};
use bytes::Bytes;

use super::keyring::{KeyId, Keyring, fill_random};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::wrapper::PayloadForm;
use crate::storage::{Key, Stamp};

/// The first bytes of every payload in the storage, with the version of its form. No payload of the cache's own begins with
/// them.
const MAGIC: [u8; 4] = *b"\xf0en\x01";
/// The length of [`MAGIC`] and the id of the key, which are authenticated.
const PREFIX: usize = MAGIC.len() + KeyId::LEN;
const NONCE: usize = 12;
/// The length of everything before the encrypted bytes.
const HEADER: usize = PREFIX + NONCE;
/// The length of the payload's length, which is encrypted.
const LEN: usize = 4;
const TAG: usize = 16;
/// The number of bytes that are added to a payload, besides padding.
const OVERHEAD: usize = HEADER + LEN + TAG;

/// The length of all that is authenticated without being encrypted.
const ASSOCIATED: usize = PREFIX + Key::LEN + Stamp::LEN + CONTEXT;
/// The length of the context's hash.
const CONTEXT: usize = 32;

/// Up to which length `read_now` decrypts payloads. That takes 20 µs at most, less than the answer of a storage that is near.
const QUICK_LEN: usize = 32 << 10;

pub(super) struct EncryptedForm {
    pub(super) keyring: Keyring,
    pub(super) context: [u8; CONTEXT],
    /// In ascending order, without zeros.
    pub(super) padded_lens: Vec<usize>,
}

impl EncryptedForm {
    /// Returns the length to which a payload is padded.
    fn padded_len(&self, len: usize) -> usize {
        match (self.padded_lens.iter().find(|padded| **padded >= len), self.padded_lens.last()) {
            (Some(padded), _) => *padded,
            (None, Some(longest)) => len.checked_next_multiple_of(*longest).unwrap_or(len),
            (None, None) => len,
        }
    }

    /// Returns the bytes that are authenticated with a record.
    fn associated(&self, prefix: &[u8], key: Key, stamp: Stamp) -> [u8; ASSOCIATED] {
        let mut associated = [0; ASSOCIATED];
        // Each part has a fixed length, so that no two records have the same bytes.
        let mut rest = &mut associated[..];
        for part in [prefix, &key.to_bytes(), &stamp.to_bytes(), &self.context] {
            let (place, after) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = after;
        }
        associated
    }
}

impl PayloadForm for EncryptedForm {
    const STORAGE: &'static str = "encrypted";

    fn encode(&self, key: Key, stamp: Stamp, payload: &Bytes) -> Result<Bytes> {
        let failed = || Error::new(ErrorKind::Other, "the record cannot be encrypted");
        let len = u32::try_from(payload.len()).map_err(|_| failed())?.to_be_bytes();
        let padded = self.padded_len(payload.len());
        let writing = self.keyring.writing();
        let mut nonce = Nonce::default();
        fill_random(&mut nonce)?;
        let mut out = Vec::with_capacity(OVERHEAD + padded);
        for part in [&MAGIC[..], &writing.id().to_bytes(), &nonce, &len, payload] {
            out.extend_from_slice(part);
        }
        out.resize(HEADER + LEN + padded, 0);
        let (header, encrypted) = out.split_at_mut(HEADER);
        let associated = self.associated(&header[..PREFIX], key, stamp);
        let tag = writing
            .cipher()
            .encrypt_inout_detached(&nonce, &associated, encrypted.into())
            .map_err(|_| failed())?;
        out.extend_from_slice(&tag);
        Ok(out.into())
    }

    fn decode(&self, key: Key, stamp: Stamp, stored: &Bytes) -> std::result::Result<Bytes, &'static str> {
        const FOREIGN: &str = "it was not written by this wrapper";
        let ends = stored.split_first_chunk::<HEADER>().zip(stored.split_last_chunk::<TAG>());
        let ((header, _), (_, tag)) = ends.filter(|_| stored.len() >= OVERHEAD).ok_or(FOREIGN)?;
        let (prefix, nonce) = header.split_at(PREFIX);
        let id = prefix.strip_prefix(&MAGIC).and_then(|id| id.try_into().ok()).ok_or(FOREIGN)?;
        let found = self.keyring.find(KeyId::from_bytes(id)).ok_or("its key is not in the keyring")?;
        let nonce = Nonce::try_from(nonce).map_err(|_| FOREIGN)?;
        let associated = self.associated(prefix, key, stamp);
        let mut opened = stored[HEADER..stored.len() - TAG].to_vec();
        found
            .cipher()
            .decrypt_inout_detached(&nonce, &associated, opened.as_mut_slice().into(), &Tag::from(*tag))
            .map_err(|_| "it was changed or moved")?;
        // Only a process with the key can write a length, but a wrong one must not panic either.
        let len = opened.first_chunk().map_or(0, |len| u32::from_be_bytes(*len)) as usize;
        match len <= opened.len() - LEN {
            true => Ok(Bytes::from(opened).slice(LEN..LEN + len)),
            false => Err("its length is wrong"),
        }
    }

    fn is_quick(&self, stored: &Bytes) -> bool {
        stored.len() <= OVERHEAD + QUICK_LEN
    }

    fn max_payload_len(&self, len: usize) -> usize {
        let len = len.saturating_sub(OVERHEAD).min(u32::MAX as usize);
        // The longest payload whose padding fits as well.
        match self.padded_lens.last() {
            None => len,
            Some(longest) if *longest <= len => len - len % longest,
            Some(_) => self.padded_lens.iter().copied().rfind(|padded| *padded <= len).unwrap_or(0),
        }
    }
}
