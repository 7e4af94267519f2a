//! Compressed payloads in any storage.
//!
//! [`CompressedStorage`] compresses the payload of each record before the storage inside gets it, and restores it when the
//! record is read. What the cache serves is byte for byte what it stored. Chunks of a long body are records, so they are
//! restored one by one while the body is served.
//!
//! ```
//! # #[cfg(all(feature = "memory", feature = "zstd"))] {
//! use tower_response_cache::storage::{CompressedStorage, MemoryStorage, compressed::Codec};
//!
//! # fn main() -> tower_response_cache::Result<()> {
//! let storage = CompressedStorage::new(MemoryStorage::new())?;
//! let smaller = CompressedStorage::builder(MemoryStorage::new()).codec(Codec::Zstd { level: 9 }).build()?;
//! # Ok(())
//! # }
//! # main().unwrap();
//! # }
//! ```
//!
//! # What is compressed
//!
//! A payload is compressed only if that saves an eighth of it. It is stored as it is in these cases:
//!
//! - It is shorter than [`min_len`](CompressedStorageBuilder::min_len), or longer than 4 MiB.
//! - It does not become an eighth smaller. That is so for images, video and archives, and for bodies with a
//!   Content-Encoding. A storage knows nothing of HTTP, so the bytes decide, and not the fields of the response.
//!
//! Bytes that cannot be compressed cost little, since both codecs give up on them early. For a level above 3, which would take
//! longer, a sample from the middle of a payload of 16 KiB or more is compressed first. If that does not pay, the payload is
//! not tried.
//!
//! # What it costs
//!
//! Payloads are compressed and restored in the task that writes or reads, without another thread. These are figures of one
//! core for JSON, in MB/s of uncompressed bytes, and the share that remains:
//!
//! | codec | compresses 1 KiB | 128 KiB | restores 1 KiB | 128 KiB | remains of 1 KiB | 128 KiB |
//! |---|---|---|---|---|---|---|
//! | zstd, level 1 (default) | 170 | 380 | 460 | 1700 | 0.41 | 0.21 |
//! | zstd, level 3 | 150 | 180 | 440 | 810 | 0.41 | 0.20 |
//! | zstd, level 9 | 60 | 60 | 380 | 1300 | 0.41 | 0.17 |
//! | LZ4 | 690 | 530 | 5500 | 2000 | 0.55 | 0.32 |
//!
//! So a chunk of 128 KiB takes about 0.35 ms to compress by default, and 0.1 ms to restore. Bytes that cannot be compressed
//! pass at 6 GB/s. A level above 9 takes milliseconds for a chunk, during which other tasks of the thread wait.
//!
//! A record in memory loses its decoded form, so a hit on `CompressedStorage<MemoryStorage>` decodes the response each time.
//! Put a small `MemoryStorage` in front of the compressed storage instead, where hits should be fastest.
//!
//! # Dictionaries
//!
//! A [dictionary](CompressedStorageBuilder::dictionary) of typical bytes lets zstd compress short responses about as well as
//! long ones. A record names its dictionary by a hash. A record whose dictionary was not given is a miss, so an old dictionary
//! has to remain [readable](CompressedStorageBuilder::readable_dictionary) until the records that need it have expired.
//!
//! # With encryption
//!
//! Encrypted bytes cannot be compressed. So a program writes `CompressedStorage<EncryptedStorage<S>>`, in which a payload is
//! compressed and then encrypted. The other order is refused when it is built.
//!
//! An attacker who chooses a part of a response, and sees how long its record is, can find out about the rest of the same
//! response by trying. Give such responses constant sizes, by `EncryptedStorageBuilder::pad_to`, or do not compress them.
//!
//! # The stored form
//!
//! A payload begins with three fixed bytes and a tag. The tag says that the bytes follow as they are, or that four bytes with
//! the length come first, and for a dictionary eight bytes with its hash. A record without this header, such as one that was
//! written without the wrapper, is absent. So is a record that is damaged, whose codec is not compiled in, or that claims to be
//! longer than 4 MiB before compression. An event reports such records, at most one in 30 seconds.
//!
//! # Invariants
//! - The payload that is read is the one that was written, byte for byte, or the record is absent.
//! - No bytes in the storage make a read allocate more than 4 MiB beyond the stored bytes.

mod builder;
mod codec;
mod form;
#[cfg(feature = "zstd")]
mod zstd;

use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

pub use self::builder::CompressedStorageBuilder;
pub use self::codec::Codec;
use self::form::CompressedForm;
use super::wrapper::{Wrapper, impl_storage};
use super::{Hold, Key, Record, Retain, Stamp, Storage, Usage};
use crate::error::Result;
use crate::time::Timestamp;

/// A [`Storage`] that compresses the payloads of the records in another one.
///
/// Its limits, listings, retention and comparisons are those of the storage inside. The [module](self) says what is compressed
/// and what it costs.
#[derive(Clone)]
pub struct CompressedStorage<S>(Wrapper<S, CompressedForm>);

impl<S: Storage> CompressedStorage<S> {
    /// Creates a compressed storage with the default settings.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if the storage inside compresses already.
    pub fn new(inner: S) -> Result<Self> {
        Self::builder(inner).build()
    }

    /// Returns a builder, to change settings.
    pub fn builder(inner: S) -> CompressedStorageBuilder<S> {
        CompressedStorageBuilder::new(inner)
    }
}

impl<S> std::fmt::Debug for CompressedStorage<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CompressedStorage").finish_non_exhaustive()
    }
}

impl_storage!(CompressedStorage, compresses = true);
