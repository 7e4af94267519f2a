//! The level that a response came from.

/// The level of a [`TieredStorage`](super::TieredStorage) from which a stored response was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// A copy in the near storage, which was known to be current.
    Near,
    /// A copy in the near storage, while the far one did not answer.
    ///
    /// See [`serve_while_far_is_down`](super::TieredStorageBuilder::serve_while_far_is_down).
    NearUnchecked,
}
