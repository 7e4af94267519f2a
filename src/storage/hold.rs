//! A hold of an entry whose body is being read.

use std::any::Any;
use std::fmt;

/// Holds an entry in a storage while it lives: see [`Storage::hold`](super::Storage::hold). The default holds nothing.
#[derive(Default)]
#[must_use = "it holds the entry until it is dropped"]
pub struct Hold(#[allow(dead_code)] Option<Box<dyn Any + Send + Sync>>);

impl Hold {
    /// Makes a hold of a value that lets go of the entry when it is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Some(Box::new(guard)))
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.0.is_some()).finish()
    }
}
