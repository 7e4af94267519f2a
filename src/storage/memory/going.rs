//! What leaves the cache.

use quick_cache::Lifecycle;

use super::group::Group;
use crate::storage::evictions::evicted;

/// Counts what is evicted, and lets go of it only when the cache has let go of its lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evicting;

/// What went in one step.
#[derive(Default)]
pub(super) struct Gone {
    entries: u64,
    /// One or two go at a time, as a rule; others are dropped where they are.
    groups: [Option<Group>; 2],
}

impl Lifecycle<[u8; 16], Group> for Evicting {
    type RequestState = Gone;

    /// Not called for what is replaced.
    fn before_evict(&self, gone: &mut Gone, _: &[u8; 16], _: &mut Group) {
        gone.entries += 1;
    }

    fn on_evict(&self, gone: &mut Gone, _: [u8; 16], group: Group) {
        if let Some(place) = gone.groups.iter_mut().find(|place| place.is_none()) {
            *place = Some(group);
        }
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        evicted("memory", self.entries);
    }
}
