//! A wrapper that makes any value `Sync`: [`Exclusive`].

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Makes a value `Sync` by giving access to it only through `&mut`.
///
/// A [`CacheBody`](super::CacheBody) is `Sync`, while the futures in it are only `Send`. The mutex is never locked: it
/// proves to the compiler that no two threads use the value at once.
pub(crate) struct Exclusive<T>(Mutex<T>);

impl<T> Exclusive<T> {
    /// Wraps a value.
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Returns the value.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Exclusive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exclusive")
    }
}
