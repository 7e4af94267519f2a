//! The threads that wait for the disk, so that no thread of a runtime does.
//!
//! Promises: changes of one shard happen in the order in which they were asked for; a look that nobody waits for any
//! more is not taken, a change is; the threads end when this is dropped and what was asked for is done.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::failure::closed;
use crate::error::{Error, ErrorKind, Result};

type Work = Box<dyn FnOnce() + Send>;

/// How many threads of each kind there may be.
const MOST: usize = 64;

pub(super) struct Workers {
    /// One queue for all who read.
    readers: Sender<Work>,
    /// A queue for each who writes.
    writers: Vec<Sender<Work>>,
    upkeep: Sender<Work>,
}

impl Workers {
    /// Starts as many threads that read, as many that write, and one for upkeep.
    pub(super) fn start(threads: usize) -> Result<Self> {
        let threads = threads.clamp(1, MOST);
        let (readers, work) = channel();
        let work = Arc::new(Mutex::new(work));
        for _ in 0..threads {
            spawn("directory-reader", Arc::clone(&work))?;
        }
        let own_queue = |name| {
            let (queue, work) = channel();
            spawn(name, Arc::new(Mutex::new(work))).map(|()| queue)
        };
        let writers = (0..threads).map(|_| own_queue("directory-writer")).collect::<Result<_>>()?;
        Ok(Self { readers, writers, upkeep: own_queue("directory-upkeep")? })
    }

    /// Asks a thread that reads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let work = move || {
            if !reply.is_closed() {
                let _ = reply.send(look()); // nobody waits any more
            }
        };
        self.readers.send(Box::new(work)).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Has the thread of a shard change something; the answer comes later, and need not be waited for.
    pub(super) fn change<T: Send + 'static>(
        &self,
        shard: u8,
        change: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> oneshot::Receiver<Result<T>> {
        ask(&self.writers[usize::from(shard) % self.writers.len()], change)
    }

    /// Has the thread for upkeep do something.
    pub(super) fn upkeep<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> oneshot::Receiver<Result<T>> {
        ask(&self.upkeep, work)
    }
}

fn ask<T: Send + 'static>(
    queue: &Sender<Work>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> oneshot::Receiver<Result<T>> {
    let (reply, answer) = oneshot::channel();
    // A thread that is gone answers nothing, which its asker notices.
    let _ = queue.send(Box::new(move || {
        let _ = reply.send(work()); // nobody waits any more
    }));
    answer
}

/// What a change came to.
pub(super) async fn done<T>(answer: oneshot::Receiver<Result<T>>) -> Result<T> {
    answer.await.unwrap_or_else(|_| Err(closed()))
}

fn spawn(name: &str, work: Arc<Mutex<Receiver<Work>>>) -> Result<()> {
    let run = move || {
        // Who takes the next piece holds the queue, and lets go of it before the piece is done.
        while let Ok(next) = { work.lock().unwrap_or_else(PoisonError::into_inner).recv() } {
            next();
        }
    };
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map(drop).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "no thread can be started for the store").with_source(error)
    })
}
