//! Time as the cache sees it: a [`Timestamp`] in milliseconds, read from a [`Clock`] that a test can hold.
//!
//! Promises: arithmetic saturates and never panics; [`Timestamp::NEVER`] is later than every other moment, so that the
//! longest of two retentions is their maximum; a clone of a mock clock shows the same time as its original.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since the Unix epoch. Moments before the epoch count as the epoch.
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
    /// The epoch itself, the earliest moment.
    pub const EPOCH: Self = Self(0);
    /// Later than every moment: what never expires is retained until then.
    pub const NEVER: Self = Self(u64::MAX);

    /// A moment from milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// A moment from whole seconds since the epoch; saturates.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// True for [`Timestamp::NEVER`].
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }

    /// How long after `earlier` this is; zero when it is before.
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
    /// The same moment, or the latest that the platform can tell.
    fn from(time: Timestamp) -> Self {
        let latest = Duration::from_secs(253_402_300_799); // the end of the year 9999
        UNIX_EPOCH + Duration::from_millis(time.0).min(latest)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_never() { f.write_str("never") } else { write!(f, "{}ms", self.0) }
    }
}

/// Where the time comes from: the system, or a [`MockClock`] in tests.
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
pub struct Clock(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    Mock(MockClock),
}

impl Clock {
    /// The system's clock. Default.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands until its handle moves it. It begins at 2026-01-01T00:00:00Z.
    pub fn mock() -> (Self, MockClock) {
        let mock = MockClock(Arc::new(AtomicU64::new(1_767_225_600_000)));
        (Self(Source::Mock(mock.clone())), mock)
    }

    /// Whether it is the system's, which nobody holds.
    #[cfg(feature = "redis")]
    pub(crate) fn is_system(&self) -> bool {
        matches!(self.0, Source::System)
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => SystemTime::now().into(),
            Source::Mock(mock) => mock.now(),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::System => f.write_str("Clock::System"),
            Source::Mock(mock) => f.debug_tuple("Clock").field(mock).finish(),
        }
    }
}

/// Moves the [`Clock`] that it was made with.
#[derive(Clone, Debug)]
pub struct MockClock(Arc<AtomicU64>);

impl MockClock {
    /// The time that the clock shows.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.0.store((self.now() + by).0, Ordering::SeqCst);
    }

    /// Sets the clock, backwards too.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.0, Ordering::SeqCst);
    }
}
