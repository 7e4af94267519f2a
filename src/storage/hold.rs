//! The guard of an entry whose body is being read.

use std::any::Any;
use std::fmt;

/// A guard that keeps an entry from being evicted before others.
///
/// It comes from [`Storage::hold`](super::Storage::hold), and ends the hold when it is dropped. The default value holds
/// nothing.
#[derive(Default)]
#[must_use = "the entry is held only until this is dropped"]
pub struct Hold(#[allow(dead_code)] Option<Box<dyn Any + Send + Sync>>);

impl Hold {
    /// Creates a hold from a value that releases the entry when it is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Some(Box::new(guard)))
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.0.is_some()).finish()
    }
}
