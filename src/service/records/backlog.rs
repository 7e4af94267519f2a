//! A bound on the records of new responses that wait for the storage.
//!
//! If responses arrive faster than the storage writes them, every write would be late in the end, and none would be stored
//! within its deadline. So a response beyond the bound is not stored, and the writes of the others are in time. The limit
//! adapts like a TCP congestion window: it is halved when a write is late, and grows by one record after
//! [`WRITES_PER_STEP`] writes in time.
//!
//! # Invariants
//!
//! - At most [`MAX_RECORDS`] records hold a permit, and together at most [`MAX_BYTES`]. A longer record is written when no
//!   other waits.
//! - The limit is never below [`MIN_RECORDS`], so that a storage that recovers is noticed.
//! - A permit is returned when its [`BacklogPermit`] is dropped, also when the write is cancelled.
//! - A response waits for [`PATIENCE`] at most, and at most [`MAX_WAITING`] of them wait. Each permit that is returned lets
//!   one of them go on.
//!
//! Only new responses and the chunks of bodies need a permit. Tombstones, placeholders and groups do not: they are small,
//! and correctness depends on them. Nor do freshened responses, of which there is one for each 304.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::breaker::EVENT_INTERVAL;
use crate::error::{Error, ErrorKind};
use crate::time::{Clock, Timestamp};

/// The maximum of the limit. A storage on the same machine writes this many small records in a twentieth of the deadline of
/// an operation.
const MAX_RECORDS: u32 = 512;
/// The minimum of the limit. It is small enough that a slow storage writes as many records within one deadline, and large
/// enough to notice that it has recovered.
const MIN_RECORDS: u32 = 8;
/// The maximum of all waiting records, in bytes, which bounds their memory. A single record may be longer if no other waits.
const MAX_BYTES: u64 = 64 << 20;
/// How many responses may wait for room. A storage on the same machine has room for all of them within [`PATIENCE`].
const MAX_WAITING: u32 = 1024;
/// The longest time for which a response waits for room, before it is passed on without being stored.
///
/// It is back-pressure: a program that fetches faster than its storage writes is slowed down to that rate, and loses nothing.
/// At the rates of the storages on one machine it is far longer than the wait of the last response, and it is short beside
/// the time in which an origin answers under such a load.
const PATIENCE: Duration = Duration::from_millis(100);
/// How many writes in time raise the limit by one. Slow growth keeps a storage at its limit from being overloaded again.
const WRITES_PER_STEP: u32 = 16;

/// Counts the records that wait for the storage.
///
/// The counters are Relaxed: each is a bound by itself, none of them publishes other memory, and a task that reads an old
/// value admits or refuses one record too many.
pub(crate) struct Backlog {
    clock: Clock,
    count: AtomicU32,
    bytes: AtomicU64,
    /// The limit, in units of one [`WRITES_PER_STEP`]th of a record.
    limit: AtomicU32,
    /// The number of responses that wait for room.
    waiting: AtomicU32,
    /// Notified once for each permit that is returned while responses wait.
    room: Notify,
    /// The number of responses that were not stored since the last event.
    shed: AtomicU64,
    /// The time of the last event. A std `Mutex`, held for a comparison, and only after a response was shed. It keeps two
    /// tasks from sending the same event.
    last_event: Mutex<Option<Timestamp>>,
}

/// Permits the write of one record, until the storage has answered.
pub(crate) struct BacklogPermit {
    backlog: Arc<Backlog>,
    bytes: u64,
}

impl Backlog {
    /// Returns an empty backlog with the maximum limit.
    pub(crate) fn new(clock: Clock) -> Self {
        let (count, bytes, shed, last_event) = Default::default();
        let (limit, waiting) = (AtomicU32::new(MAX_RECORDS * WRITES_PER_STEP), AtomicU32::new(0));
        Self { clock, count, bytes, limit, waiting, room: Notify::new(), shed, last_event }
    }

    /// Returns the limit, in records.
    fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed) / WRITES_PER_STEP
    }

    /// Returns whether no permit is left.
    pub(crate) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.limit() || self.bytes.load(Ordering::Relaxed) >= MAX_BYTES
    }

    /// Returns whether a further response should wait for [room](Self::room).
    ///
    /// While the storage is late, none should: the wait would not help it.
    pub(crate) fn makes_wait(&self) -> bool {
        // Those that wait come first.
        self.limit() >= MAX_RECORDS && (self.is_crowded() || self.waiting.load(Ordering::Relaxed) > 0)
    }

    /// Returns whether many records wait.
    ///
    /// This is before no permit is left, since responses that are under way have not acquired theirs yet.
    fn is_crowded(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= MAX_RECORDS - MAX_RECORDS / 4
            || self.bytes.load(Ordering::Relaxed) >= MAX_BYTES - MAX_BYTES / 4
    }

    /// Waits until there is room for a further response, for [`PATIENCE`] at most.
    ///
    /// Returns whether there is. It does not wait if many wait already, so that the wait stays short and the memory bounded, nor
    /// outside a runtime.
    pub(crate) async fn room(&self) -> bool {
        let waiting = Waiting::new(&self.waiting);
        if waiting.before >= MAX_WAITING || tokio::runtime::Handle::try_current().is_err() {
            return !self.is_crowded();
        }
        // Between the two counts, as in the drop of a permit: either this sees the permit that is returned, or the permit sees
        // that this waits.
        fence(Ordering::SeqCst);
        let until_room = async {
            loop {
                let mut returned = pin!(self.room.notified());
                // Registered before the counts are read: a permit that is returned between the two would notify no task.
                returned.as_mut().enable();
                if !self.is_crowded() {
                    return;
                }
                returned.await;
            }
        };
        tokio::time::timeout(PATIENCE, until_room).await.is_ok()
    }

    /// Acquires the permit for a record of a length.
    ///
    /// # Errors
    ///
    /// Returns `Busy` if no permit is left.
    pub(crate) fn acquire(self: &Arc<Self>, bytes: usize) -> Result<BacklogPermit, Error> {
        let bytes = bytes as u64;
        // Counted first and checked afterwards: two tasks that checked first could both take the last permit.
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Made before the check: when it is dropped, it takes back what was counted.
        let permit = BacklogPermit { backlog: Arc::clone(self), bytes };
        let is_over_limit = count >= self.limit();
        if is_over_limit || (all > 0 && all.saturating_add(bytes) > MAX_BYTES) {
            drop(permit);
            return Err(Error::new(
                ErrorKind::Busy,
                "responses arrive faster than the storage writes them: this one is not stored",
            ));
        }
        Ok(permit)
    }

    /// Raises the limit by a step after a write in time.
    pub(crate) fn write_in_time(&self) {
        // Several tasks may pass this check at once, each of which raises the limit a step above its maximum. That does no
        // harm.
        if self.limit.load(Ordering::Relaxed) < MAX_RECORDS * WRITES_PER_STEP {
            self.limit.fetch_add(1, Ordering::Relaxed);
        }
        // A burst may have ended before its last event was due. It is sent now, with the rest of the number.
        if self.shed.load(Ordering::Relaxed) > 0 {
            self.report_shed();
        }
    }

    /// Halves the limit after a write that was late or refused for load.
    pub(crate) fn write_late(&self) {
        let half = |limit: u32| Some((limit / 2).max(MIN_RECORDS * WRITES_PER_STEP));
        let _ = self.limit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
    }

    /// Counts a response that is not stored because no permit was left.
    pub(crate) fn count_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
        self.report_shed();
    }

    /// Sends an event with the number of responses that were not stored.
    ///
    /// Does nothing if the last event is recent.
    fn report_shed(&self) {
        let now = self.clock.now();
        let mut last_event = self.last_event.lock().unwrap_or_else(PoisonError::into_inner);
        // If the clock was set back, the event is sent: otherwise none would be sent until the clock has caught up.
        if last_event.is_some_and(|at| now >= at && now.since(at) < EVENT_INTERVAL) {
            return;
        }
        let shed = self.shed.swap(0, Ordering::Relaxed);
        if shed == 0 {
            return;
        }
        *last_event = Some(now);
        drop(last_event); // a tracing subscriber is the user's code, and must not run under the lock
        tracing::warn!(shed, "more responses come than the storage takes: some are not stored");
    }
}

impl Drop for BacklogPermit {
    fn drop(&mut self) {
        self.backlog.count.fetch_sub(1, Ordering::Relaxed);
        self.backlog.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        fence(Ordering::SeqCst); // see `Backlog::room`
        if self.backlog.waiting.load(Ordering::Relaxed) > 0 {
            self.backlog.room.notify_one();
        }
    }
}

/// Counts a response that waits for room, until it is dropped.
struct Waiting<'a> {
    count: &'a AtomicU32,
    /// How many waited before it.
    before: u32,
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_halves_when_late_and_recovers() {
        let backlog = Arc::new(Backlog::new(Clock::system()));
        let fill = || {
            let mut waiting = Vec::new();
            while let Ok(one) = backlog.acquire(10) {
                waiting.push(one);
            }
            assert!(backlog.is_full());
            waiting.len() as u32
        };
        assert_eq!(fill(), MAX_RECORDS);
        assert!(!backlog.is_full());
        (0..100).for_each(|_| backlog.write_late());
        assert_eq!(fill(), MIN_RECORDS);
        (0..WRITES_PER_STEP).for_each(|_| backlog.write_in_time());
        assert_eq!(fill(), MIN_RECORDS + 1);
        (0..WRITES_PER_STEP * 2 * MAX_RECORDS).for_each(|_| backlog.write_in_time());
        assert_eq!(fill(), MAX_RECORDS);
        assert_eq!((backlog.count.load(Ordering::Relaxed), backlog.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn waiting_bytes_are_bounded() {
        let backlog = Arc::new(Backlog::new(Clock::system()));
        let long = backlog.acquire(usize::MAX / 4).map_err(drop).expect("no other record waits");
        assert_eq!(backlog.acquire(1).map(drop).map_err(|error| error.kind()), Err(ErrorKind::Busy));
        drop(long);
        let mib = || backlog.acquire(1 << 20).ok();
        let waiting: Vec<_> = std::iter::from_fn(mib).collect();
        assert_eq!(waiting.len() as u64, MAX_BYTES >> 20);
    }

    #[tokio::test(start_paused = true)]
    async fn returned_permit_lets_a_waiting_response_go_on() {
        let backlog = Arc::new(Backlog::new(Clock::system()));
        let mut permits: Vec<_> =
            (0..MAX_RECORDS - MAX_RECORDS / 4).filter_map(|_| backlog.acquire(1).ok()).collect();
        assert!(backlog.makes_wait());
        let began = tokio::time::Instant::now();
        let waits = |backlog: &Arc<Backlog>| {
            let backlog = Arc::clone(backlog);
            tokio::spawn(async move { backlog.room().await })
        };
        let (first, second) = (waits(&backlog), waits(&backlog));
        tokio::task::yield_now().await;
        assert!(!first.is_finished() && !second.is_finished());
        permits.pop();
        assert!(first.await.expect("no panic"));
        assert_eq!(began.elapsed(), Duration::ZERO);
        // The first has not acquired a permit yet, so that the second sees the same room when the next one is returned.
        permits.pop();
        assert!(second.await.expect("no panic"));
        assert_eq!((began.elapsed(), backlog.waiting.load(Ordering::Relaxed)), (Duration::ZERO, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn wait_for_room_is_short_and_bounded() {
        let backlog = Arc::new(Backlog::new(Clock::system()));
        let permits: Vec<_> = (0..MAX_RECORDS).filter_map(|_| backlog.acquire(1).ok()).collect();
        let began = tokio::time::Instant::now();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(backlog.room())).collect();
        for room in &mut waiting {
            assert!(futures_util::poll!(room.as_mut()).is_pending());
        }
        // One more does not wait.
        assert!(!backlog.room().await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(futures_util::future::join_all(waiting).await.iter().all(|has_room| !has_room));
        // As precise as the timer of tokio.
        assert!((PATIENCE..PATIENCE + Duration::from_millis(2)).contains(&began.elapsed()));
        // Nor does any while the storage is late.
        backlog.write_late();
        assert!(backlog.is_full() && !backlog.makes_wait());
        drop(permits);
    }
}
