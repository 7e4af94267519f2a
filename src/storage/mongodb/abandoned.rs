//! Commands whose caller went away while they were under way.
//!
//! Promises: such a command is carried through, and who comes after it to the same keys waits for it, since another
//! connection could overtake it; nobody waits longer than a moment, and no connection is held longer by one that hangs.

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

/// A command that takes longer than this from its beginning is given up with its caller: the server hangs, and may
/// carry it out later, as it may any whose connection breaks.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Abandoned {
    /// Whether to look at the commands at all.
    any: AtomicBool,
    commands: Mutex<Vec<Arc<Command>>>,
}

struct Command {
    /// None: all.
    keys: Box<[Key]>,
    /// Closed when it has ended.
    ended: Semaphore,
}

impl Abandoned {
    /// Until those that touch these keys (none: all) have ended.
    pub(super) async fn wait(&self, keys: &[Key]) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let before: Vec<Arc<Command>> = {
            let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            commands.retain(|command| !command.ended.is_closed());
            self.any.store(!commands.is_empty(), Ordering::Release);
            commands.iter().filter(|command| overlap(&command.keys, keys)).cloned().collect()
        };
        for command in before {
            let _ = command.ended.acquire().await; // there never is a permit
        }
    }

    /// A command that touches these keys (none: all).
    pub(super) fn keep<T: Send + 'static>(
        self: &Arc<Self>,
        keys: &[Key],
        command: BoxFuture<'static, T>,
    ) -> Kept<T> {
        let abandoned = Arc::clone(self);
        Kept { command: Some(command), keys: keys.into(), begun: Instant::now(), abandoned }
    }
}

fn overlap(one: &[Key], other: &[Key]) -> bool {
    let is_long = one.len().saturating_mul(other.len()) > 1_000_000; // to wait is cheaper than to compare
    is_long || one.is_empty() || other.is_empty() || one.iter().any(|key| other.contains(key))
}

/// Goes on when it is dropped.
pub(super) struct Kept<T: Send + 'static> {
    command: Option<BoxFuture<'static, T>>,
    keys: Box<[Key]>,
    begun: Instant,
    abandoned: Arc<Abandoned>,
}

impl<T: Send + 'static> Future for Kept<T> {
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

impl<T: Send + 'static> Drop for Kept<T> {
    fn drop(&mut self) {
        let left = PATIENCE.saturating_sub(self.begun.elapsed());
        let (Some(command), Ok(runtime)) = (self.command.take(), Handle::try_current()) else { return };
        if left.is_zero() {
            return;
        }
        let entry = Arc::new(Command { keys: std::mem::take(&mut self.keys), ended: Semaphore::new(0) });
        let end = End(Arc::clone(&entry));
        self.abandoned.commands.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        self.abandoned.any.store(true, Ordering::Release);
        runtime.spawn(async move {
            let _end = end;
            let _ = tokio::time::timeout(left, command).await;
        });
    }
}

/// Says so, when a runtime ends with it too.
struct End(Arc<Command>);

impl Drop for End {
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
    async fn who_comes_after_a_command_that_was_dropped_waits_for_its_end() {
        let abandoned = Arc::new(Abandoned::default());
        let (end, ended) = oneshot::channel::<()>();
        let mut command = abandoned.keep(&[ONE], Box::pin(ended));
        assert!((&mut command).now_or_never().is_none());
        assert!(abandoned.wait(&[ONE]).now_or_never().is_some(), "its caller is still there");
        drop(command);
        assert!(abandoned.wait(&[OTHER]).now_or_never().is_some(), "another key");
        assert!(abandoned.wait(&[OTHER, ONE]).now_or_never().is_none());
        assert!(abandoned.wait(&[]).now_or_never().is_none());
        end.send(()).unwrap();
        abandoned.wait(&[ONE]).await;
        assert!(abandoned.commands.lock().unwrap().iter().all(|command| command.ended.is_closed()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_given_up() {
        let abandoned = Arc::new(Abandoned::default());
        drop(abandoned.keep(&[], Box::pin(std::future::pending::<()>())));
        abandoned.wait(&[ONE]).await;
    }

    #[test]
    fn without_a_runtime_nothing_goes_on() {
        let abandoned = Arc::new(Abandoned::default());
        drop(abandoned.keep(&[ONE], Box::pin(std::future::pending::<()>())));
        assert!(abandoned.wait(&[ONE]).now_or_never().is_some());
    }
}
