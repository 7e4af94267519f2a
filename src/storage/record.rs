//! Records, which consist of a payload, a retention time and a stamp.
//!
//! # Invariants
//! - A record is a shared pointer and a time, so that a clone copies no payload.
//! - Bytes are read as exactly the record that they were written from, or they are an error. This holds for any bytes.
//! - A payload is decoded at most once for a record and all its clones, unless two tasks begin at the same time.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

use super::tiered::Level;
use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;

/// A random identifier, by which two writes to one key can be told apart.
///
/// Every [`Record`] that is created gets a stamp of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp([u8; 16]);

impl Stamp {
    /// The length of a stamp in bytes.
    pub const LEN: usize = 16;

    /// Creates a stamp that no other record has.
    pub fn random() -> Self {
        Self(random_id())
    }

    /// Returns the stamp as bytes.
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }

    /// Returns the stamp of these bytes.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::text(&self.0[..4]))
    }
}

/// How many ids a thread fetches from the system at once. A stored response needs four, and a system call for each of them
/// took a sixth of the time of a miss.
const POOL_LEN: usize = 32;

/// Random ids of a thread that are not used yet.
struct IdPool {
    ids: [[u8; 16]; POOL_LEN],
    unused: usize,
    /// The process that fetched them. A forked child has the memory of its parent, and must not use its ids.
    process: u32,
}

thread_local! {
    static ID_POOL: RefCell<IdPool> = const { RefCell::new(IdPool { ids: [[0; 16]; POOL_LEN], unused: 0, process: 0 }) };
}

/// Returns 128 random bits from the system.
///
/// If the system has none to give, they are made of the hasher's random seeds, the time and the thread.
pub(crate) fn random_id() -> [u8; 16] {
    let [id] = random_ids();
    id
}

/// Returns several [random ids](random_id).
///
/// That costs less than to draw them one by one, since the number of the process is asked for each time, by a system call.
pub(crate) fn random_ids<const N: usize>() -> [[u8; 16]; N] {
    const { assert!(N <= POOL_LEN) };
    let pooled = ID_POOL.try_with(|pool| {
        let mut pool = pool.try_borrow_mut().ok()?;
        let process = std::process::id();
        if pool.unused < N || pool.process != process {
            getrandom::fill(pool.ids.as_flattened_mut()).ok()?;
            (pool.unused, pool.process) = (POOL_LEN, process);
        }
        pool.unused -= N;
        let next = pool.unused;
        let ids = pool.ids.get_mut(next..)?.first_chunk_mut()?;
        Some(std::mem::replace(ids, [[0; 16]; N]))
    });
    // A thread that ends has no pool any more, but the destructors of its other values may still need ids.
    pooled.ok().flatten().unwrap_or_else(|| std::array::from_fn(|_| unpooled_id()))
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

/// The decoded form of a record's payload.
///
/// A record keeps it beside the bytes, or instead of them until a storage asks for the bytes.
pub(crate) trait Decoded: Any + Send + Sync {
    /// Appends the bytes of the payload.
    fn encode(&self, out: &mut BytesMut);
    /// Returns about how many bytes [`encode`](Decoded::encode) writes, which storages with a bound count.
    fn weight(&self) -> usize;
    /// Returns how many bytes the form has allocated, including itself.
    ///
    /// With `within_payload` the bytes that it shares with the payload are not counted, since the caller counts them.
    fn memory(&self, within_payload: bool) -> usize;
}

/// Returns how many bytes an allocator uses for an allocation of `len` bytes.
///
/// This is what glibc's malloc uses on 64 bits: it stores the size before the allocation, and rounds up to a multiple of
/// sixteen bytes, at least 32. Other allocators use about as much.
pub(crate) const fn heap_bytes(len: usize) -> usize {
    match len {
        0 => 0,
        1..=24 => 32,
        _ => len.saturating_add(8).div_ceil(16).saturating_mul(16),
    }
}

/// The value that a storage keeps at a [`Key`](super::Key).
///
/// A record has a payload that the storage does not look into, a retention time until which the storage keeps it, and a
/// [`Stamp`]. Cloning a record is cheap.
///
/// A storage keeps either the record itself (in memory) or its [bytes](Record::to_bytes). The bytes contain the retention
/// time that the record was written with. A storage that changes the time afterwards keeps the new time beside the bytes, and
/// sets it with [`with_retain_until`](Record::with_retain_until) when it reads the record.
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
    /// The mark of a tiered storage's copy. `None` for every other record.
    copy: Option<CopyMark>,
}

/// The counts and times at which a copy of a tiered storage was current.
///
/// It is part of the copy, so that it needs no map beside the near storage, and is as exact for a million copies as for one.
#[derive(Debug)]
pub(super) struct CopyMark {
    /// The number of changes by this process for which the copy is current.
    pub(super) own_changes: AtomicU64,
    /// The far storage's change count for which the copy is current.
    pub(super) far_changes: AtomicU64,
    /// When the copy was last known to be current, in milliseconds of the tiered storage's own time, as is `expires_at`.
    pub(super) checked_at: AtomicU64,
    pub(super) expires_at: u64,
    /// The tiered storage whose numbers these are.
    pub(super) tier: u32,
    /// The copy is served although the far storage cannot be asked.
    pub(super) is_unchecked: bool,
}

impl CopyMark {
    /// Returns a mark of the same copy, which no longer follows this one.
    fn duplicate(&self) -> Self {
        // Relaxed, since no other data is read by these numbers.
        let same = |number: &AtomicU64| AtomicU64::new(number.load(Ordering::Relaxed));
        Self {
            own_changes: same(&self.own_changes),
            far_changes: same(&self.far_changes),
            checked_at: same(&self.checked_at),
            ..*self
        }
    }

    pub(super) fn new(
        tier: u32,
        own_changes: u64,
        far_changes: u64,
        checked_at: u64,
        expires_at: u64,
    ) -> Self {
        let [own_changes, far_changes, checked_at] =
            [own_changes, far_changes, checked_at].map(AtomicU64::new);
        Self { own_changes, far_changes, checked_at, expires_at, tier, is_unchecked: false }
    }

    /// Sets the counts and the time before a comparison that has found the copy current.
    ///
    /// If two tasks compare at the same time, the numbers may be those of either, each of which is true.
    pub(super) fn confirm(&self, own_changes: u64, far_changes: u64, checked_at: u64) {
        self.own_changes.store(own_changes, Ordering::Release);
        self.far_changes.store(far_changes, Ordering::Release);
        self.checked_at.fetch_max(checked_at, Ordering::Release);
    }
}

/// The first byte of a payload that has a decoded form.
///
/// No other payload is ever decoded.
pub(crate) const FORM_VERSION: u8 = 10;

/// The first byte of a record's bytes. Bytes with another version are not read as a record.
pub(super) const VERSION: u8 = 1;
/// The length of the version, checksum, stamp and retention time before the payload.
pub(super) const HEADER: usize = 1 + 4 + Stamp::LEN + 8;

impl Record {
    /// The number of bytes that [`to_bytes`](Record::to_bytes) adds to the payload.
    pub const OVERHEAD: usize = HEADER;

    /// Creates a record with a new stamp.
    pub fn new(payload: impl Into<Bytes>, retain_until: Timestamp) -> Self {
        let shared = Shared {
            stamp: Stamp::random(),
            payload: Some(payload.into()),
            decoded: OnceLock::new(),
            copy: None,
        };
        Self { shared: Arc::new(shared), retain_until }
    }

    /// Creates a record that is not encoded before a storage asks for its bytes.
    ///
    /// `stamp` must be a new one.
    pub(crate) fn from_decoded(decoded: Arc<dyn Decoded>, stamp: Stamp, retain_until: Timestamp) -> Self {
        let shared = Shared { stamp, payload: None, decoded: OnceLock::from(decoded), copy: None };
        Self { shared: Arc::new(shared), retain_until }
    }

    /// Returns the stamp.
    pub fn stamp(&self) -> Stamp {
        self.shared.stamp
    }

    /// Returns the time until which a storage must keep the record.
    ///
    /// [`Timestamp::NEVER`] means that the record does not expire.
    pub fn retain_until(&self) -> Timestamp {
        self.retain_until
    }

    /// Returns the same payload and stamp with another retention time.
    #[must_use]
    pub fn with_retain_until(mut self, retain_until: Timestamp) -> Self {
        self.retain_until = retain_until;
        self
    }

    /// Returns the same record with another decoded form, for the caller alone: it must not be written.
    pub(crate) fn with_decoded(&self, decoded: Arc<dyn Decoded>) -> Self {
        let (stamp, copy) = (self.shared.stamp, self.shared.copy.as_ref().map(CopyMark::duplicate));
        let shared = Shared { stamp, payload: None, decoded: OnceLock::from(decoded), copy };
        Self { shared: Arc::new(shared), retain_until: self.retain_until }
    }

    /// Returns the same record as a copy that a tiered storage marks.
    pub(super) fn with_mark(&self, copy: CopyMark) -> Self {
        let decoded = self.shared.decoded.get().cloned().map_or_else(OnceLock::new, OnceLock::from);
        let payload = self.shared.payload.clone();
        let shared = Shared { stamp: self.shared.stamp, payload, decoded, copy: Some(copy) };
        Self { shared: Arc::new(shared), retain_until: self.retain_until }
    }

    /// Returns the mark of a tiered storage's copy.
    pub(super) fn mark(&self) -> Option<&CopyMark> {
        self.shared.copy.as_ref()
    }

    /// Returns the level of a tiered storage that a copy was served from. Returns `None` for every other record.
    pub(crate) fn level(&self) -> Option<Level> {
        let mark = self.shared.copy.as_ref()?;
        Some(if mark.is_unchecked { Level::NearUnchecked } else { Level::Near })
    }

    /// Returns a record with another payload, and the same stamp and retention time.
    ///
    /// A storage that wraps another one and changes payloads, such as one that encrypts them, makes the record that it writes
    /// and the record that it returns by this method. The new record has no decoded form.
    ///
    /// The new payload must follow from the old one: a stamp stands for one content. Other content needs a record with a stamp of
    /// its own, by [`Record::new`].
    ///
    /// ```
    /// use tower_response_cache::{Timestamp, storage::Record};
    ///
    /// let record = Record::new("payload", Timestamp::from_secs(60));
    /// let packed = record.with_payload("packed".into());
    /// assert_eq!(packed.payload(), "packed");
    /// assert_eq!((packed.stamp(), packed.retain_until()), (record.stamp(), record.retain_until()));
    /// ```
    #[must_use]
    pub fn with_payload(&self, payload: Bytes) -> Self {
        let shared =
            Shared { stamp: self.shared.stamp, payload: Some(payload), decoded: OnceLock::new(), copy: None };
        Self { shared: Arc::new(shared), retain_until: self.retain_until }
    }

    /// Sets the retention time of this clone.
    #[cfg_attr(not(feature = "memory"), allow(dead_code))]
    pub(crate) fn set_retain_until(&mut self, retain_until: Timestamp) {
        self.retain_until = retain_until;
    }

    /// Returns the payload.
    ///
    /// A record that was created from its decoded form encodes it on every call.
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

    /// Returns about how many bytes the record takes.
    ///
    /// Counts the payload and the [overhead](Record::OVERHEAD).
    pub fn weight(&self) -> usize {
        HEADER
            + match (&self.shared.payload, self.shared.decoded.get()) {
                (Some(payload), _) => payload.len(),
                (None, Some(decoded)) => decoded.weight(),
                (None, None) => 0,
            }
    }

    /// Returns about how many bytes the record has allocated.
    #[cfg_attr(not(feature = "memory"), allow(dead_code))]
    pub(crate) fn memory(&self) -> usize {
        // An `Arc` allocates two counters before its value. `Bytes` allocates a counter (32 bytes) when it is first cloned.
        let shared = heap_bytes(2 * size_of::<usize>() + size_of::<Shared>());
        let payload = self.shared.payload.as_ref().map_or(0, |payload| heap_bytes(payload.len()) + 32);
        let decoded = self.shared.decoded.get();
        shared + payload + decoded.map_or(0, |decoded| decoded.memory(self.shared.payload.is_some()))
    }

    /// Returns whether the record has its decoded form.
    #[cfg_attr(not(feature = "memory"), allow(dead_code))]
    pub(crate) fn is_decoded(&self) -> bool {
        self.shared.decoded.get().is_some()
    }

    /// Returns whether the record may get a decoded form when it is read.
    #[cfg_attr(not(feature = "memory"), allow(dead_code))]
    pub(crate) fn awaits_form(&self) -> bool {
        let can_be_decoded = |payload: &Bytes| payload.first() == Some(&FORM_VERSION);
        self.shared.decoded.get().is_none() && self.shared.payload.as_ref().is_some_and(can_be_decoded)
    }

    /// Returns the whole record as bytes.
    ///
    /// The bytes are a version, a checksum, the stamp, the retention time and the payload.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.weight());
        out.put_u8(VERSION);
        out.put_u32(0); // the checksum, which is not known before the rest is written
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

    /// Returns the header and the payload, which together are the record's [bytes](Record::to_bytes).
    ///
    /// A storage that writes them one after the other copies the payload once less.
    #[cfg(feature = "redis")]
    pub(crate) fn to_parts(&self) -> ([u8; HEADER], Bytes) {
        let payload = self.payload();
        let time = self.retain_until.as_millis().to_be_bytes();
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&self.shared.stamp.0);
        checksum.update(&time);
        checksum.update(&payload);
        let mut header = [VERSION; HEADER];
        header[1..5].copy_from_slice(&checksum.finalize().to_be_bytes());
        header[5..5 + Stamp::LEN].copy_from_slice(&self.shared.stamp.0);
        header[5 + Stamp::LEN..].copy_from_slice(&time);
        (header, payload)
    }

    /// Returns whether the payload is these bytes.
    ///
    /// Returns false for a record that was created from its decoded form.
    #[cfg(any(feature = "sqlite", feature = "redis", feature = "mongodb", feature = "dynamodb"))]
    pub(super) fn has_payload(&self, bytes: &[u8]) -> bool {
        self.shared.payload.as_ref().is_some_and(|payload| payload == bytes)
    }

    /// Reads a record from its bytes, without copying the payload.
    ///
    /// # Errors
    /// Returns [`ErrorKind::Corrupt`] if the bytes are damaged, truncated or of another version. A storage must report such
    /// bytes as an absent record, not as an error.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        let corrupt = |what| Error::new(ErrorKind::Corrupt, what);
        let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(corrupt("the bytes of the record are truncated"));
        };
        if header[0] != VERSION {
            return Err(corrupt("the record was written by another version"));
        }
        let read = |from: usize| -> [u8; 8] { std::array::from_fn(|i| header[from + i]) };
        let checksum = (u64::from_be_bytes(read(1)) >> 32) as u32;
        if crc32fast::hash(&bytes[5..]) != checksum {
            return Err(corrupt("the checksum of the record does not match"));
        }
        let stamp = Stamp(std::array::from_fn(|i| header[5 + i]));
        let retain_until = Timestamp::from_millis(u64::from_be_bytes(read(5 + Stamp::LEN)));
        let shared =
            Shared { stamp, payload: Some(bytes.slice(HEADER..)), decoded: OnceLock::new(), copy: None };
        Ok(Self { shared: Arc::new(shared), retain_until })
    }

    /// Returns the decoded form, if the record has one of this type.
    pub(crate) fn decoded<T: Decoded>(&self) -> Option<&T> {
        let decoded: &dyn Any = self.shared.decoded.get()?.as_ref();
        decoded.downcast_ref()
    }

    /// Sets the decoded form of the record and all its clones.
    pub(crate) fn set_decoded(&self, decoded: Arc<dyn Decoded>) {
        // Another task may have decoded the same payload first: its form is equal.
        let _ = self.shared.decoded.set(decoded);
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
    fn random_ids_are_unique_across_threads() {
        let made = || (0..10 * POOL_LEN).map(|_| random_id()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(made)).collect();
        let ids: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect();
        let distinct: HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert!(ids.iter().all(|id| *id != [0; 16]));
    }

    #[test]
    fn damaged_bytes_are_no_record() {
        let whole = Record::new("text", Timestamp::NEVER).to_bytes().to_vec();
        assert!(Record::from_bytes(whole.clone()).is_ok());
        let mut damaged = whole;
        *damaged.last_mut().expect("a record has bytes") ^= 1;
        for bytes in [damaged, Vec::new(), b"not a record".to_vec(), vec![0xff; 64]] {
            assert!(Record::from_bytes(bytes).is_err());
        }
    }
}
