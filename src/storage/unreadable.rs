//! Reports records that a wrapper cannot read.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::key::Kind;

/// The minimum time between two events of one wrapper. After a key or a dictionary was lost, every read finds such a record.
const EVENT_INTERVAL: Duration = Duration::from_secs(30);

/// Sends an event about records that cannot be read, at most once per [`EVENT_INTERVAL`].
#[derive(Debug, Default)]
pub(super) struct UnreadableRecords(Mutex<Events>);

#[derive(Debug, Default)]
struct Events {
    last: Option<Instant>,
    /// The number of records that were found since the last event.
    unreported: u64,
}

impl UnreadableRecords {
    /// Counts a record that cannot be read, and reports it unless another one was reported shortly before.
    pub(super) fn found(&self, storage: &'static str, kind: Kind, reason: &'static str) {
        // A std `Mutex`, locked only here. Its guard is dropped before the event is sent, since a subscriber is the user's code.
        let unreported = {
            let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if events.last.is_some_and(|last| now.saturating_duration_since(last) < EVENT_INTERVAL) {
                events.unreported += 1;
                return;
            }
            events.last = Some(now);
            std::mem::take(&mut events.unreported)
        };
        let kind = kind.name();
        tracing::warn!(
            storage,
            kind,
            reason,
            unreported,
            "a stored record cannot be read: it counts as absent"
        );
    }
}
