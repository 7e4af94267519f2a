//! The zstd library's contexts and dictionaries.
//!
//! A context owns the memory in which zstd works, some hundred kilobytes. Creating one takes several times as long as compressing
//! a short payload, so contexts are used again.

use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use zstd::zstd_safe::{CCtx, CDict, DCtx, DDict, max_c_level};

use super::Codec;
use super::codec::DEFAULT_LEVEL;
use super::form::DICTIONARY_ID_LEN;
use crate::error::{Error, ErrorKind, Result};

/// The fastest level that is accepted. Faster ones save nearly nothing.
const MIN_LEVEL: i32 = -7;
/// The highest level that gives up on bytes that cannot be compressed about as early as level 1 does: it passes them at 4 GB/s,
/// level 9 at 1.6 GB/s. Above it a sample is compressed first.
const MAX_LEVEL_WITHOUT_SAMPLE: i32 = 3;
/// The length of a payload from which on a sample is worth it.
const SAMPLED_LEN: usize = 16 << 10;
/// The length of the sample, which takes 10 µs at most.
const SAMPLE_LEN: usize = 4 << 10;
/// The most contexts of each kind that are kept while they are not used. As many payloads as cores are compressed at the same
/// time, and a machine with more cores than this creates some contexts anew.
const MAX_IDLE: usize = 16;

type DictionaryId = [u8; DICTIONARY_ID_LEN];

pub(super) struct Zstd {
    level: i32,
    /// The dictionary for writing.
    dictionary: Option<(DictionaryId, CDict<'static>)>,
    /// The dictionaries for reading, of which there are few.
    readable: Vec<(DictionaryId, DDict<'static>)>,
    compressing: Contexts<CCtx<'static>>,
    decompressing: Contexts<DCtx<'static>>,
}

impl Zstd {
    /// # Errors
    /// Returns `Config` if the level does not exist, or a dictionary cannot be used.
    pub(super) fn new(codec: Codec, dictionary: Option<Vec<u8>>, others: Vec<Vec<u8>>) -> Result<Self> {
        let config = |message| Error::new(ErrorKind::Config, message);
        let level = match codec {
            Codec::Zstd { level } => level,
            #[cfg(feature = "lz4")]
            Codec::Lz4 if dictionary.is_some() => return Err(config("only zstd writes with a dictionary")),
            #[cfg(feature = "lz4")]
            Codec::Lz4 => DEFAULT_LEVEL,
        };
        if !(MIN_LEVEL..=max_c_level()).contains(&level) {
            return Err(config("the level of zstd must be from -7 to 22"));
        }
        let unusable = || config("a dictionary is empty, or zstd cannot use it");
        let mut readable = Vec::new();
        for bytes in dictionary.iter().chain(&others) {
            let prepared = DDict::try_create(bytes).filter(|_| !bytes.is_empty()).ok_or_else(unusable)?;
            readable.push((dictionary_id(bytes), prepared));
        }
        let dictionary = match dictionary {
            Some(bytes) => {
                let prepared = CDict::try_create(&bytes, level).ok_or_else(unusable)?;
                Some((dictionary_id(&bytes), prepared))
            }
            None => None,
        };
        let (compressing, decompressing) = (Contexts::default(), Contexts::default());
        Ok(Self { level, dictionary, readable, compressing, decompressing })
    }

    pub(super) fn dictionary_id(&self) -> Option<DictionaryId> {
        self.dictionary.as_ref().map(|(id, _)| *id)
    }

    /// Compresses into `out`, and returns how many bytes were written.
    ///
    /// Returns `None` if there is too little room, or a sample shows that compressing does not pay.
    pub(super) fn compress(&self, payload: &[u8], out: &mut [u8]) -> Option<usize> {
        self.compressing.with(CCtx::try_create, |context| {
            if self.level > MAX_LEVEL_WITHOUT_SAMPLE && payload.len() >= SAMPLED_LEN {
                // From the middle, since the fields of a response come first, and can always be compressed.
                let middle = payload.len() / 2;
                let sample = &payload[middle..middle + SAMPLE_LEN];
                let mut sink = [0; SAMPLE_LEN - SAMPLE_LEN / 32];
                context.compress(&mut sink[..], sample, DEFAULT_LEVEL).ok()?;
            }
            match &self.dictionary {
                Some((_, dictionary)) => context.compress_using_cdict(out, payload, dictionary).ok(),
                None => context.compress(out, payload, self.level).ok(),
            }
        })?
    }

    /// Restores bytes that were compressed without a dictionary, and returns how many were written.
    pub(super) fn decompress(&self, compressed: &[u8], out: &mut [u8]) -> Option<usize> {
        self.decompressing.with(DCtx::try_create, |context| context.decompress(out, compressed).ok())?
    }

    /// Restores bytes that were compressed with a dictionary, and returns how many were written.
    ///
    /// The outer value is `None` if the dictionary was not given.
    pub(super) fn decompress_with(
        &self,
        id: &DictionaryId,
        compressed: &[u8],
        out: &mut [u8],
    ) -> Option<Option<usize>> {
        let (_, dictionary) = self.readable.iter().find(|(readable, _)| readable == id)?;
        let decompress =
            |context: &mut DCtx<'_>| context.decompress_using_ddict(out, compressed, dictionary).ok();
        Some(self.decompressing.with(DCtx::try_create, decompress).flatten())
    }
}

/// Returns the name of a dictionary: its hash, so that two dictionaries never have one name.
fn dictionary_id(dictionary: &[u8]) -> DictionaryId {
    let hash = Sha256::digest(dictionary);
    std::array::from_fn(|at| hash[at])
}

/// Contexts that are not in use.
struct Contexts<T>(Mutex<Vec<T>>);

impl<T> Default for Contexts<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Contexts<T> {
    /// Calls a function with a context that no other task uses.
    ///
    /// Returns `None` if there is no memory for another context.
    fn with<R>(&self, create: impl FnOnce() -> Option<T>, call: impl FnOnce(&mut T) -> R) -> Option<R> {
        // A std `Mutex`, held only to take a context or to give it back.
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = match idle {
            Some(context) => context,
            None => create()?,
        };
        let result = call(&mut context);
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(context);
        }
        Some(result)
    }
}
