//! Expiries, which make responses stale before their lifetime has ended.
//!
//! An entry and a group each list their expiries. A response remembers the id of the last one before its fetch, so that one
//! write of the list makes any number of responses stale, and a response that is fetched later is not concerned.
//!
//! # Invariants
//! - A response is current only if it remembers the last expiry of the list.
//! - The list has at most [`Expiries::MAX`] elements. A response whose expiry was forgotten counts as stale since it was
//!   received, so that no stale response is served longer than it permits.

use crate::time::Timestamp;

/// The id of an expiry, which is random. Zero stands for no expiry.
pub(crate) type ExpiryId = [u8; 16];

/// One expiry of an entry or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    pub(crate) id: ExpiryId,
    /// The time, by the clock of the process that made it.
    pub(crate) at: Timestamp,
    /// The id of the cache that made it.
    pub(crate) by: [u8; 16],
}

/// The last expiries of an entry or a group, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expiries(Box<[Expiry]>);

impl Expiries {
    /// How many expiries are remembered. Each takes about forty bytes in a record.
    pub(crate) const MAX: usize = 8;

    /// Returns the list, or `None` if it is longer than any that this crate writes.
    pub(crate) fn from_list(list: Vec<Expiry>) -> Option<Self> {
        (list.len() <= Self::MAX).then(|| Self(list.into()))
    }

    /// Returns the list with one more expiry, and without the oldest if it is full.
    pub(crate) fn with(&self, expiry: Expiry) -> Self {
        let kept = self.0.len().saturating_sub(Self::MAX - 1);
        Self(self.0[kept..].iter().copied().chain([expiry]).collect())
    }

    /// Returns the id of the last expiry.
    pub(crate) fn last(&self) -> ExpiryId {
        self.0.last().map_or([0; 16], |expiry| expiry.id)
    }

    /// Returns since when a response is expired that remembers an id and was received at a time.
    ///
    /// Returns `None` if it is not expired.
    pub(crate) fn since(&self, seen: ExpiryId, received: Timestamp) -> Option<Timestamp> {
        if seen == self.last() {
            return None;
        }
        let next = match self.0.iter().position(|expiry| expiry.id == seen) {
            Some(index) => self.0.get(index + 1),
            // A list that is not full has lost nothing.
            None if seen == [0; 16] && self.0.len() < Self::MAX => self.0.first(),
            None => None,
        };
        Some(next.map_or(received, |expiry| expiry.at))
    }

    /// Returns whether one of the expiries fulfils a condition.
    pub(crate) fn any(&self, condition: impl FnMut(&Expiry) -> bool) -> bool {
        self.0.iter().any(condition)
    }

    /// Returns the expiries, the oldest first.
    pub(crate) fn list(&self) -> &[Expiry] {
        &self.0
    }
}

/// Returns the earlier of two expiries.
pub(crate) fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(times: impl IntoIterator<Item = u8>) -> Expiries {
        times.into_iter().fold(Expiries::default(), |list, n| {
            list.with(Expiry { id: [n; 16], at: Timestamp::from_secs(n.into()), by: [0; 16] })
        })
    }

    #[test]
    fn response_is_stale_since_the_first_expiry_after_its_fetch() {
        let (received, at) = (Timestamp::EPOCH, |secs| Some(Timestamp::from_secs(secs)));
        assert_eq!(list([]).since([0; 16], received), None);
        let expiries = list([1, 2, 3]);
        assert_eq!(expiries.since([0; 16], received), at(1));
        assert_eq!(expiries.since([1; 16], received), at(2));
        assert_eq!(expiries.since([3; 16], received), None);
    }

    #[test]
    fn forgotten_expiry_counts_from_the_reception() {
        let received = Timestamp::from_secs(1);
        let expiries = list(1..=20);
        assert_eq!(expiries.list().len(), Expiries::MAX);
        assert_eq!(expiries.since([0; 16], received), Some(received));
        assert_eq!(expiries.since([5; 16], received), Some(received));
        assert_eq!(expiries.since([13; 16], received), Some(Timestamp::from_secs(14)));
        assert_eq!(list([]).since([9; 16], received), Some(received), "a list that was lost");
    }
}
