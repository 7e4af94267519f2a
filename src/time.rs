//! The time of the cache.
//!
//! A [`Timestamp`] in milliseconds is read from a [`Clock`], which a test can control.
//!
//! # Invariants
//!
//! - Arithmetic saturates, and never panics.
//! - [`Timestamp::NEVER`] is later than every other timestamp, so that the longer of two retentions is their maximum.
//! - A clone of a mock clock shows the same time as its original.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time, in milliseconds since the Unix epoch.
///
/// A time before the epoch becomes the epoch.
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::Timestamp;
///
/// let moment = Timestamp::from_millis(1_500) + Duration::from_secs(2);
/// assert_eq!(moment.as_millis(), 3_500);
/// assert_eq!(Timestamp::NEVER + Duration::from_secs(1), Timestamp::NEVER);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch, which is the earliest timestamp.
    pub const EPOCH: Self = Self(0);
    /// A timestamp later than all others.
    ///
    /// A record that never expires is retained until then.
    pub const NEVER: Self = Self(u64::MAX);

    /// Creates a timestamp from milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Creates a timestamp from seconds since the epoch.
    ///
    /// Saturates at [`NEVER`](Self::NEVER).
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Returns the milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Returns whether this is [`NEVER`](Self::NEVER).
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }

    /// Returns the duration since an earlier timestamp.
    ///
    /// Returns zero if `earlier` is later than this one.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, after: Duration) -> Self {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, before: Duration) -> Self {
        if self.is_never() {
            return self;
        }
        let millis = u64::try_from(before.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self::EPOCH + time.duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

impl From<Timestamp> for SystemTime {
    /// Converts to the same time, but not later than the end of the year 9999.
    fn from(time: Timestamp) -> Self {
        // `SystemTime` panics on overflow, whose limit depends on the platform. Every platform can represent the year 9999.
        let latest = Duration::from_secs(253_402_300_799);
        UNIX_EPOCH + Duration::from_millis(time.0).min(latest)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_never() { f.write_str("never") } else { write!(f, "{}ms", self.0) }
    }
}

/// A source of the current time.
///
/// It is the system's clock, or in tests a clock that a [`MockClock`] moves.
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::Clock;
///
/// let (clock, mock) = Clock::mock();
/// let before = clock.now();
/// mock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(before), Duration::from_secs(60));
/// ```
#[derive(Clone, Default)]
pub struct Clock(TimeSource);

#[derive(Clone, Default)]
enum TimeSource {
    #[default]
    System,
    Mock(MockClock),
}

impl Clock {
    /// Returns the system's clock, which is the default.
    pub fn system() -> Self {
        Self(TimeSource::System)
    }

    /// Returns a clock for tests, and a handle that moves it.
    ///
    /// The clock starts at 2026-01-01T00:00:00Z, and stands still until the handle moves it.
    pub fn mock() -> (Self, MockClock) {
        let mock = MockClock(Arc::new(AtomicU64::new(1_767_225_600_000)));
        (Self(TimeSource::Mock(mock.clone())), mock)
    }

    /// Returns whether this is the system's clock.
    pub(crate) fn is_system(&self) -> bool {
        matches!(self.0, TimeSource::System)
    }

    /// Returns the current time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            TimeSource::System => SystemTime::now().into(),
            TimeSource::Mock(mock) => mock.now(),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            TimeSource::System => f.write_str("Clock::System"),
            TimeSource::Mock(mock) => f.debug_tuple("Clock").field(mock).finish(),
        }
    }
}

/// A handle that moves the [`Clock`] returned together with it by [`Clock::mock`].
#[derive(Clone, Debug)]
pub struct MockClock(Arc<AtomicU64>);

impl MockClock {
    /// Returns the time that the clock shows.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        // SeqCst, so that a test may move the clock in one task and rely on the new time in any other.
        self.0.store((self.now() + by).0, Ordering::SeqCst);
    }

    /// Sets the clock, forward or back.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.0, Ordering::SeqCst);
    }
}
