//! What a storage keeps: bytes, how long, and a stamp.
//!
//! Promises: a record is one pointer and a time, cheap to clone; a record read from bytes is exactly the record that
//! was written, or an error, whatever bytes are given; what was decoded once is not decoded again.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;

/// Tells one write from another: random, and new with each record that is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp([u8; 16]);

impl Stamp {
    /// The length of a stamp in bytes.
    pub const LEN: usize = 16;

    /// A stamp that no other record has.
    pub fn random() -> Self {
        Self(random_id())
    }

    /// The stamp as bytes.
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }

    /// The stamp of these bytes.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::text(&self.0[..4]))
    }
}

/// How many ids a thread fetches from the system at once: a stored response takes four or five, and a call into the kernel for
/// each was a sixth of the time of a miss.
const POOLED: usize = 32;

/// Random ids that no other id was made of.
struct Pool {
    ids: [[u8; 16]; POOLED],
    left: usize,
    /// The process that fetched them. A child has the memory of its parent, and must not have its ids.
    process: u32,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { ids: [[0; 16]; POOLED], left: 0, process: 0 }) };
}

/// Returns 128 random bits from the system, or (where it has none to give) from the hasher's seeds, the time and a counter.
pub(crate) fn random_id() -> [u8; 16] {
    let pooled = POOL.try_with(|pool| {
        let mut pool = pool.try_borrow_mut().ok()?;
        let process = std::process::id();
        if pool.left == 0 || pool.process != process {
            getrandom::fill(pool.ids.as_flattened_mut()).ok()?;
            (pool.left, pool.process) = (POOLED, process);
        }
        pool.left -= 1;
        let left = pool.left;
        pool.ids.get_mut(left).map(std::mem::take)
    });
    // Without a pool while a thread ends.
    pooled.ok().flatten().unwrap_or_else(unpooled_id)
}

fn unpooled_id() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let mut id = [0; 16];
    if getrandom::fill(&mut id).is_err() {
        for half in id.chunks_mut(8) {
            let moment = (std::time::SystemTime::now(), std::thread::current().id());
            half.copy_from_slice(&RandomState::new().hash_one(moment).to_be_bytes());
        }
    }
    id
}

/// The decoded form of a record, which it keeps beside its bytes, or instead of them until a store asks for them.
pub(crate) trait Decoded: Any + Send + Sync {
    /// Appends the payload's bytes.
    fn encode(&self, out: &mut BytesMut);
    /// How many bytes [`encode`](Decoded::encode) writes, or nearly: what a bounded store counts.
    fn weight(&self) -> usize;
    /// How many bytes the form has allocated, its own place included. `within_payload`: it was decoded from a payload that
    /// is counted already, and shares its bytes.
    fn memory(&self, within_payload: bool) -> usize;
}

/// Returns how many bytes an allocator takes for an allocation of `len`: a size before it, and multiples of sixteen
/// (glibc's malloc on 64 bits; others take about as much).
pub(crate) const fn heap_bytes(len: usize) -> usize {
    match len {
        0 => 0,
        1..=24 => 32,
        _ => len.saturating_add(8).div_ceil(16).saturating_mul(16),
    }
}

/// What a storage keeps under a [`Key`](super::Key): a payload that it does not look into, the time until which it
/// must keep it, and a [`Stamp`].
///
/// A storage either keeps the record as it is (in memory), or its [bytes](Record::to_bytes). The bytes hold the time
/// that the record was written with; a storage that moves the time later keeps it beside the bytes and gives it back
/// by [`with_retain_until`](Record::with_retain_until).
///
/// ```
/// use tower_response_cache::{Timestamp, storage::Record};
///
/// let record = Record::new("payload", Timestamp::from_secs(60));
/// let read = Record::from_bytes(record.to_bytes()).unwrap();
/// assert_eq!(read.payload(), "payload");
/// assert_eq!(read.stamp(), record.stamp());
/// assert_eq!(read.retain_until(), Timestamp::from_secs(60));
/// ```
#[derive(Clone)]
pub struct Record {
    shared: Arc<Shared>,
    retain_until: Timestamp,
}

struct Shared {
    stamp: Stamp,
    payload: Option<Bytes>,
    decoded: OnceLock<Arc<dyn Decoded>>,
}

/// The first byte of a payload that has a decoded form: no other is ever decoded.
pub(crate) const FORM_VERSION: u8 = 7;

/// The first byte of a record's bytes.
pub(super) const VERSION: u8 = 1;
/// Version, checksum, stamp, retain_until; the payload follows.
pub(super) const HEADER: usize = 1 + 4 + Stamp::LEN + 8;

impl Record {
    /// How many bytes [`to_bytes`](Record::to_bytes) adds to the payload.
    pub const OVERHEAD: usize = HEADER;

    /// A new record, with a stamp of its own.
    pub fn new(payload: impl Into<Bytes>, retain_until: Timestamp) -> Self {
        let shared =
            Shared { stamp: Stamp::random(), payload: Some(payload.into()), decoded: OnceLock::new() };
        Self { shared: Arc::new(shared), retain_until }
    }

    /// A new record that is not encoded before a store asks for its bytes.
    pub(crate) fn from_decoded(decoded: Arc<dyn Decoded>, retain_until: Timestamp) -> Self {
        let shared = Shared { stamp: Stamp::random(), payload: None, decoded: OnceLock::from(decoded) };
        Self { shared: Arc::new(shared), retain_until }
    }

    /// The stamp of this write.
    pub fn stamp(&self) -> Stamp {
        self.shared.stamp
    }

    /// Until when a storage must keep the record; [`Timestamp::NEVER`]: it does not expire.
    pub fn retain_until(&self) -> Timestamp {
        self.retain_until
    }

    /// The same record (payload and stamp), kept until another time.
    #[must_use]
    pub fn with_retain_until(mut self, retain_until: Timestamp) -> Self {
        self.retain_until = retain_until;
        self
    }

    /// Moves the time in place.
    #[cfg_attr(not(feature = "memory"), allow(dead_code))]
    pub(crate) fn set_retain_until(&mut self, retain_until: Timestamp) {
        self.retain_until = retain_until;
    }

    /// The payload: what the stamp and the time stand beside.
    pub fn payload(&self) -> Bytes {
        match (&self.shared.payload, self.shared.decoded.get()) {
            (Some(payload), _) => payload.clone(),
            (None, Some(decoded)) => {
                let mut out = BytesMut::with_capacity(decoded.weight());
                decoded.encode(&mut out);
                out.freeze()
            }
            (None, None) => Bytes::new(),
        }
    }

    /// About how many bytes the record takes: the payload and its envelope.
    pub fn weight(&self) -> usize {
        HEADER
            + match (&self.shared.payload, self.shared.decoded.get()) {
                (Some(payload), _) => payload.len(),
                (None, Some(decoded)) => decoded.weight(),
                (None, None) => 0,
            }
    }

    /// About how many bytes the record has allocated.
    #[cfg_attr(not(feature = "memory"), allow(dead_code))]
    pub(crate) fn memory(&self) -> usize {
        // Two counters stand before what an `Arc` points to; `Bytes` has one of its own when it is cloned.
        let shared = heap_bytes(2 * size_of::<usize>() + size_of::<Shared>());
        let payload = self.shared.payload.as_ref().map_or(0, |payload| heap_bytes(payload.len()) + 32);
        let decoded = self.shared.decoded.get();
        shared + payload + decoded.map_or(0, |decoded| decoded.memory(self.shared.payload.is_some()))
    }

    /// Whether the record has its decoded form.
    #[cfg_attr(not(feature = "memory"), allow(dead_code))]
    pub(crate) fn is_decoded(&self) -> bool {
        self.shared.decoded.get().is_some()
    }

    /// Whether the record may get a decoded form when it is read, which it then keeps.
    #[cfg_attr(not(feature = "memory"), allow(dead_code))]
    pub(crate) fn awaits_form(&self) -> bool {
        let is_form = |payload: &Bytes| payload.first() == Some(&FORM_VERSION);
        self.shared.decoded.get().is_none() && self.shared.payload.as_ref().is_some_and(is_form)
    }

    /// The whole record as bytes: a version, a checksum, the stamp, the time and the payload.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.weight());
        out.put_u8(VERSION);
        out.put_u32(0);
        out.put_slice(&self.shared.stamp.0);
        out.put_u64(self.retain_until.as_millis());
        match (&self.shared.payload, self.shared.decoded.get()) {
            (Some(payload), _) => out.put_slice(payload),
            (None, Some(decoded)) => decoded.encode(&mut out),
            (None, None) => {}
        }
        let checksum = crc32fast::hash(&out[5..]);
        out[1..5].copy_from_slice(&checksum.to_be_bytes());
        out.freeze()
    }

    /// The record of these bytes, without copying the payload.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for bytes of another version, damaged or cut short. A storage gives that as an absent
    /// record, not as an error.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        let corrupt = |what| Error::new(ErrorKind::Corrupt, what);
        let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(corrupt("the record is cut short"));
        };
        if header[0] != VERSION {
            return Err(corrupt("the record is of another version"));
        }
        let read = |from: usize| -> [u8; 8] { std::array::from_fn(|i| header[from + i]) };
        let checksum = (u64::from_be_bytes(read(1)) >> 32) as u32;
        if crc32fast::hash(&bytes[5..]) != checksum {
            return Err(corrupt("the record's checksum is wrong"));
        }
        let stamp = Stamp(std::array::from_fn(|i| header[5 + i]));
        let retain_until = Timestamp::from_millis(u64::from_be_bytes(read(5 + Stamp::LEN)));
        let shared = Shared { stamp, payload: Some(bytes.slice(HEADER..)), decoded: OnceLock::new() };
        Ok(Self { shared: Arc::new(shared), retain_until })
    }

    /// The decoded form, if the record has one of this type.
    pub(crate) fn decoded<T: Decoded>(&self) -> Option<&T> {
        let decoded: &dyn Any = self.shared.decoded.get()?.as_ref();
        decoded.downcast_ref()
    }

    /// Keeps the decoded form for the record and all its clones.
    pub(crate) fn set_decoded(&self, decoded: Arc<dyn Decoded>) {
        let _ = self.shared.decoded.set(decoded); // somebody else was first: the same form
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("stamp", &self.shared.stamp)
            .field("retain_until", &self.retain_until)
            .field("weight", &self.weight())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn random_ids_are_never_the_same() {
        let made = || (0..10 * POOLED).map(|_| random_id()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(made)).collect();
        let ids: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect();
        let apart: HashSet<_> = ids.iter().collect();
        assert_eq!(apart.len(), ids.len());
        assert!(ids.iter().all(|id| *id != [0; 16]));
    }
}
