//! The buffers of commands that write records.
//!
//! # Invariants
//!
//! - A command that is taken is empty.
//! - The buffers that wait for their next use have at most [`MAX_POOLED`] times twice [`MAX_POOLED_LEN`] bytes, since a buffer
//!   that is too short for its next use may double.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use deadpool_redis::redis::Cmd;

/// How many buffers are kept. A cache writes the chunks of one body one after another, or a few at a time.
const MAX_POOLED: usize = 8;
/// The longest buffer that is kept. A chunk of 128 KiB and the rest of its command fit into it.
const MAX_POOLED_LEN: usize = 192 << 10;
/// The arguments that a command that writes a record has at most, so that their list is allocated once.
const MAX_ARGUMENTS: usize = 8;

/// Keeps the buffers of commands for the next ones.
///
/// The driver needs every command twice: as arguments, and as the bytes that it sends. This makes the former free.
#[derive(Default)]
pub(super) struct Commands {
    /// A std `Mutex`, since it is never held over an await.
    unused: Mutex<Vec<Cmd>>,
}

/// A command whose buffer is kept when it is dropped.
pub(super) struct PooledCommand<'a> {
    command: Cmd,
    /// `None`: the buffer is too long to be kept.
    pool: Option<&'a Commands>,
}

impl Commands {
    /// Returns an empty command for arguments that have `len` bytes, and a few more.
    pub(super) fn take(&self, len: usize) -> PooledCommand<'_> {
        // The words and numbers beside the name, the script and the value.
        let capacity = len + 64;
        if capacity > MAX_POOLED_LEN {
            return PooledCommand { command: Cmd::with_capacity(MAX_ARGUMENTS, capacity), pool: None };
        }
        let unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let command = unused.unwrap_or_else(|| Cmd::with_capacity(MAX_ARGUMENTS, capacity));
        PooledCommand { command, pool: Some(self) }
    }
}

impl Deref for PooledCommand<'_> {
    type Target = Cmd;

    fn deref(&self) -> &Cmd {
        &self.command
    }
}

impl DerefMut for PooledCommand<'_> {
    fn deref_mut(&mut self) -> &mut Cmd {
        &mut self.command
    }
}

impl Drop for PooledCommand<'_> {
    fn drop(&mut self) {
        let Some(pool) = self.pool else { return };
        self.command.clear();
        let mut unused = pool.unused.lock().unwrap_or_else(PoisonError::into_inner);
        if unused.len() < MAX_POOLED {
            unused.push(self.command.take());
        }
    }
}
