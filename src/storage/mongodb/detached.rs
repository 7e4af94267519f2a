//! Commands that outlive the caller that dropped them.
//!
//! The driver sends commands of one process over several connections, so a later command can overtake an
//! earlier one that is still on its way. If a caller drops the future of a write (a cancelled request, or a
//! deadline that has passed), the write could otherwise arrive after the next write to the same key.
//!
//! # Invariants
//! - Inside a tokio runtime, a command whose future is dropped continues in the background, until
//!   [`MAX_COMMAND_TIME`] after its beginning.
//! - A later command on one of its keys waits until the dropped command has ended.
//! - A command that hangs delays later commands, and holds its connection, for no longer than
//!   [`MAX_COMMAND_TIME`].

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::storage::key::Key;

/// The time after which a command is given up once its caller is gone.
///
/// A command that takes this long hangs. The server may still carry it out later, as it may with any command
/// whose connection breaks. Half a second is also the cache's own deadline for an operation: a healthy
/// command has ended by then.
const MAX_COMMAND_TIME: Duration = Duration::from_millis(500);

/// The commands of one storage whose callers are gone.
#[derive(Default)]
pub(super) struct DetachedCommands {
    /// Whether `commands` may contain a running command.
    ///
    /// Dropped futures are rare. The flag spares all other commands the lock.
    has_any: AtomicBool,
    commands: Mutex<Vec<Arc<DetachedCommand>>>,
}

struct DetachedCommand {
    /// The keys that the command touches, or none for all keys.
    keys: Box<[Key]>,
    /// Closed when the command has ended. It never has a permit.
    ended: Semaphore,
}

impl DetachedCommands {
    /// Waits until the detached commands that touch one of these keys have ended.
    ///
    /// No keys stand for all keys.
    pub(super) async fn wait(&self, keys: &[Key]) {
        // Acquire pairs with the Release in `drop`: a task that sees the flag also sees the command.
        if !self.has_any.load(Ordering::Acquire) {
            return;
        }
        let earlier: Vec<Arc<DetachedCommand>> = {
            let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            commands.retain(|command| !command.ended.is_closed());
            // Under the lock, so that this does not overwrite the flag of a command that was added in
            // between: `drop` sets the flag after it has added the command.
            self.has_any.store(!commands.is_empty(), Ordering::Release);
            commands.iter().filter(|command| overlap(&command.keys, keys)).cloned().collect()
        };
        for command in earlier {
            // Fails when the semaphore is closed, which is the event waited for.
            let _ = command.ended.acquire().await;
        }
    }

    /// Wraps a command so that it continues when its future is dropped.
    ///
    /// The command touches these keys.
    ///
    /// No keys stand for all keys.
    pub(super) fn detach_on_drop<T: Send + 'static>(
        self: &Arc<Self>,
        keys: &[Key],
        command: BoxFuture<'static, T>,
    ) -> DetachOnDrop<T> {
        let commands = Arc::clone(self);
        DetachOnDrop { command: Some(command), keys: keys.into(), begun: Instant::now(), commands }
    }
}

/// Returns whether two commands may touch the same key.
fn overlap(one: &[Key], other: &[Key]) -> bool {
    // Each pair of keys is compared: beyond a million pairs waiting is cheaper than comparing.
    let is_long = one.len().saturating_mul(other.len()) > 1_000_000;
    is_long || one.is_empty() || other.is_empty() || one.iter().any(|key| other.contains(key))
}

/// A command that continues in the background when this future is dropped.
pub(super) struct DetachOnDrop<T: Send + 'static> {
    /// `None` once the command has returned.
    command: Option<BoxFuture<'static, T>>,
    keys: Box<[Key]>,
    begun: Instant,
    commands: Arc<DetachedCommands>,
}

impl<T: Send + 'static> Future for DetachOnDrop<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(command) = &mut self.command else { return Poll::Pending };
        let answer = command.as_mut().poll(context);
        if answer.is_ready() {
            self.command = None;
        }
        answer
    }
}

impl<T: Send + 'static> Drop for DetachOnDrop<T> {
    fn drop(&mut self) {
        let left = MAX_COMMAND_TIME.saturating_sub(self.begun.elapsed());
        // Outside a runtime there is no task that could finish the command: it ends here, as without this
        // wrapper.
        let (Some(command), Ok(runtime)) = (self.command.take(), Handle::try_current()) else { return };
        if left.is_zero() {
            return;
        }
        let entry =
            Arc::new(DetachedCommand { keys: std::mem::take(&mut self.keys), ended: Semaphore::new(0) });
        let end = EndGuard(Arc::clone(&entry));
        // Before the task is spawned, so that an operation that begins after this drop waits for the command.
        self.commands.commands.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        self.commands.has_any.store(true, Ordering::Release);
        runtime.spawn(async move {
            let _end = end;
            let _ = tokio::time::timeout(left, command).await;
        });
    }
}

/// Marks a detached command as ended when it is dropped.
///
/// A guard, because the runtime may end before the command and then drops its task: later operations must not
/// wait for it.
struct EndGuard(Arc<DetachedCommand>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.ended.close();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    const ONE: Key = Key::head([1; 16]);
    const OTHER: Key = Key::head([2; 16]);

    #[tokio::test]
    async fn later_command_waits_for_the_dropped_one() {
        let commands = Arc::new(DetachedCommands::default());
        let (end, ended) = oneshot::channel::<()>();
        let mut command = commands.detach_on_drop(&[ONE], Box::pin(ended));
        assert!((&mut command).now_or_never().is_none());
        assert!(commands.wait(&[ONE]).now_or_never().is_some(), "the caller is still there");
        drop(command);
        assert!(commands.wait(&[OTHER]).now_or_never().is_some(), "another key");
        assert!(commands.wait(&[OTHER, ONE]).now_or_never().is_none());
        assert!(commands.wait(&[]).now_or_never().is_none());
        end.send(()).unwrap();
        commands.wait(&[ONE]).await;
        assert!(commands.commands.lock().unwrap().iter().all(|command| command.ended.is_closed()));
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_command_is_given_up() {
        let commands = Arc::new(DetachedCommands::default());
        drop(commands.detach_on_drop(&[], Box::pin(std::future::pending::<()>())));
        commands.wait(&[ONE]).await;
    }

    #[test]
    fn command_dropped_outside_a_runtime_ends() {
        let commands = Arc::new(DetachedCommands::default());
        drop(commands.detach_on_drop(&[ONE], Box::pin(std::future::pending::<()>())));
        assert!(commands.wait(&[ONE]).now_or_never().is_some());
    }
}
