//! Encrypted payloads in any storage.
//!
//! [`EncryptedStorage`] encrypts the payload of each record before the storage inside gets it. The payload is everything that a
//! response consists of: its URL, its fields and its body. The storage inside, and everyone who can read or change it, see only
//! the [keys](super::Key) of records, their stamps, their retention times and how long they are.
//!
//! ```
//! # #[cfg(feature = "memory")] {
//! use tower_response_cache::storage::encrypted::{EncryptionKey, Keyring};
//! use tower_response_cache::storage::{EncryptedStorage, MemoryStorage};
//!
//! # fn main() -> tower_response_cache::Result<()> {
//! // In a program: Keyring::from_env("CACHE_KEY")?
//! let keyring = Keyring::new(EncryptionKey::random()?);
//! let storage = EncryptedStorage::new(MemoryStorage::new(), keyring)?;
//! # Ok(())
//! # }
//! # main().unwrap();
//! # }
//! ```
//!
//! # The cipher
//!
//! The cipher is AES-256-GCM-SIV (RFC 8452), in the implementation of the RustCrypto project (`aes-gcm-siv`). These are the
//! reasons:
//!
//! - A cache encrypts very many records, in many processes that do not know each other's nonces. So nonces are random, and one
//!   may repeat: by chance, or because a virtual machine was copied together with its random numbers. In this mode a repeated
//!   nonce reveals only whether two records are the same. Records never are, since each has a random stamp of 128 bits, which
//!   is authenticated. XChaCha20-Poly1305 avoids repetition by a longer nonce, but a copied machine breaks it.
//! - With the AES instructions of a processor it is about twice as fast as the XChaCha20-Poly1305 of the same project.
//! - It needs no C compiler, unlike aws-lc-rs and ring. It is maintained, and checked with the vectors of the RFC.
//!
//! Without AES instructions it is several times slower, and as safe: its run time does not depend on the key or the bytes.
//!
//! # Attacks that are defended against
//!
//! The attacker can read the storage inside and change it as they like, but has none of the keys. A record that they have
//! changed is a miss. It is never served and never an error, and an event reports such records, at most one in 30 seconds.
//!
//! | attack | test |
//! |---|---|
//! | reading a response, or a key, from what is stored | `stored_bytes_reveal_no_payload` |
//! | comparing records to find equal responses | `equal_payloads_are_stored_differently` |
//! | changing any byte of a payload | `changed_byte_is_a_miss` |
//! | cutting a payload off, or adding to it | `truncated_or_extended_payload_is_a_miss` |
//! | moving a record to another key, or swapping two | `swapped_records_are_misses` |
//! | putting an earlier payload under a later stamp | `payload_of_another_write_is_a_miss` |
//! | moving a record to another cache with the same key | `record_of_another_context_is_a_miss` |
//! | naming another key or format in the header | `changed_byte_is_a_miss` |
//! | writing a record without a key, or with one of their own | `plain_or_foreign_record_is_a_miss` |
//! | blocking a key by a record that cannot be read | `unreadable_record_is_replaced` |
//! | finding out the length of a response, with `pad_to` | `padded_payloads_have_few_lengths` |
//! | making the reader panic or allocate by arbitrary bytes | `any_stored_bytes_are_a_miss` |
//!
//! # What is not defended against
//!
//! - **Rollback.** Someone who keeps a record, and later puts all of it back at its own key, brings back an older response.
//!   Its freshness is encrypted with it, so it is served only while it would have been fresh, or may be served stale. An
//!   invalidation can be undone in this way.
//! - **Deletion.** Records can be removed, or made unreadable. Both are misses. The chunks of a long body are not read before
//!   its head is served, so a body of which a chunk is missing ends with an error, as in any storage.
//! - **Retention times.** They are not encrypted or authenticated, since the storage inside changes them. A changed one keeps a
//!   record longer or shorter, and does not make it fresher.
//! - **What can be seen.** How many records there are, when they are read and written, how long they are unless they are
//!   padded, and which records belong to one entry.
//! - **URLs that can be guessed.** The keys of records are keyed hashes. Without a
//!   [key secret](crate::CacheLayerBuilder::key_secret) of your own, someone can find out whether a guessed URL is stored.
//! - **The memory of this process.** It holds the keys, and the responses that it serves. A `MemoryStorage` around this one
//!   holds responses as they are.
//!
//! # Keys and their rotation
//!
//! A [`Keyring`] has one key that writes, and any number of others that only read. A record names its key by an
//! [id](EncryptionKey::id), which is derived from the key and reveals nothing about it. To change the key without a miss:
//!
//! 1. Give every process the new key as a [readable](Keyring::readable) one.
//! 2. Let the new key write in every process, and keep the old one readable.
//! 3. Remove the old key once the records have expired that it wrote. Those that are left are misses.
//!
//! The records of a key that a process does not have are absent for it, also the tombstones of invalidations. A process that
//! lacks the key of another one may store a response that the other one has invalidated while it was fetched. It is the same
//! as if the tombstone had been evicted, so [`reserve_on_miss`](crate::CacheLayerBuilder::reserve_on_miss) prevents it.
//!
//! A key is overwritten in memory when the last clone of its keyring is dropped. The texts of keys that this module reads are
//! overwritten as well, but not the environment of the process. Debug output shows ids only.
//!
//! # Cost
//!
//! Payloads are encrypted and decrypted in the task that writes or reads: 2 µs for 1 KiB, 11 µs for 16 KiB and 80 µs for a chunk
//! of 128 KiB (1.6 GB/s) with the AES instructions of the processor. A record becomes 44 bytes longer, plus padding.
//!
//! Encrypted bytes cannot be compressed. A program that wants both writes `CompressedStorage<EncryptedStorage<S>>`, in which a
//! payload is compressed first. The other order is refused when it is built.
//!
//! # The stored form
//!
//! | bytes | content |
//! |---|---|
//! | 4 | three fixed bytes, and the version of this form |
//! | 8 | the id of the key |
//! | 12 | the nonce |
//! | 4 | encrypted: the length of the payload |
//! | … | encrypted: the payload, and zeros up to the padded length |
//! | 16 | the tag of AES-256-GCM-SIV |
//!
//! Authenticated with them are the first twelve bytes, the 37 bytes of the record's key, its stamp, and a hash of the
//! [context](EncryptedStorageBuilder::context). The mode itself authenticates the padded length.
//!
//! # Invariants
//! - A payload that is read was written by a process with one of the keys, in the same context, at the same key and with the same
//!   stamp.
//! - No key, and nothing that is derived from one except its id, is in debug output, an error or an event.

mod builder;
mod form;
mod keyring;

use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

pub use self::builder::EncryptedStorageBuilder;
use self::form::EncryptedForm;
pub use self::keyring::{EncryptionKey, KeyId, Keyring};
use super::wrapper::{Wrapper, impl_storage};
use super::{Hold, Key, Record, Retain, Stamp, Storage, Usage};
use crate::error::Result;
use crate::time::Timestamp;

/// A [`Storage`] that encrypts the payloads of the records in another one.
///
/// Its listings, retention and comparisons are those of the storage inside. The [module](self) says what it protects, and what
/// it cannot.
#[derive(Clone)]
pub struct EncryptedStorage<S>(Wrapper<S, EncryptedForm>);

impl<S: Storage> EncryptedStorage<S> {
    /// Creates an encrypted storage with the default settings.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if the storage inside compresses, which encrypted bytes would prevent.
    pub fn new(inner: S, keyring: Keyring) -> Result<Self> {
        Self::builder(inner, keyring).build()
    }

    /// Returns a builder, to change settings.
    pub fn builder(inner: S, keyring: Keyring) -> EncryptedStorageBuilder<S> {
        EncryptedStorageBuilder::new(inner, keyring)
    }
}

impl<S> std::fmt::Debug for EncryptedStorage<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EncryptedStorage").field(&self.0.form().keyring).finish()
    }
}

impl_storage!(EncryptedStorage, compresses = false);
