//! The threads that access the disk, so that no thread of a runtime blocks.
//!
//! # Invariants
//! - Changes of one shard are made in the order of their calls.
//! - A read whose caller is gone is skipped. A change whose caller is gone is made.
//! - When [`Workers`] is dropped, the threads finish what they were asked for, and end.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::error::closed_error;
use crate::error::{Error, ErrorKind, Result};

type Job = Box<dyn FnOnce() + Send>;

/// The greatest number of threads of each kind, far above what makes any disk faster.
const MAX_THREADS: usize = 64;

pub(super) struct Workers {
    /// One queue for all reading threads. Reads need no order, so any free thread takes the next one.
    readers: Sender<Job>,
    /// A queue for each writing thread. A shard always uses the same one, which keeps its changes in order.
    writers: Vec<Sender<Job>>,
    maintenance: Sender<Job>,
}

impl Workers {
    /// Starts so many reading threads, as many writing threads, and one for maintenance.
    pub(super) fn start(threads: usize) -> Result<Self> {
        let threads = threads.clamp(1, MAX_THREADS);
        let (readers, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..threads {
            spawn("directory-reader", Arc::clone(&jobs))?;
        }
        let spawn_with_queue = |name| {
            let (queue, jobs) = channel();
            spawn(name, Arc::new(Mutex::new(jobs))).map(|()| queue)
        };
        let writers = (0..threads).map(|_| spawn_with_queue("directory-writer")).collect::<Result<_>>()?;
        Ok(Self { readers, writers, maintenance: spawn_with_queue("directory-maintenance")? })
    }

    /// Runs an operation on a reading thread, and waits for its answer.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        operation: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = move || {
            // A caller that has gone needs no answer. This way a slow disk does not work through requests that timed out.
            if !reply.is_closed() {
                let _ = reply.send(operation()); // the caller may have gone since
            }
        };
        self.readers.send(Box::new(job)).map_err(|_| closed_error())?;
        await_answer(answer).await
    }

    /// Queues a change for the thread of a shard. It is made whether or not the caller waits for the answer.
    pub(super) fn change<T: Send + 'static>(
        &self,
        shard: u8,
        change: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> oneshot::Receiver<Result<T>> {
        enqueue(&self.writers[usize::from(shard) % self.writers.len()], change)
    }

    /// Queues an operation for the maintenance thread. It is run whether or not the caller waits for the answer.
    pub(super) fn maintain<T: Send + 'static>(
        &self,
        operation: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> oneshot::Receiver<Result<T>> {
        enqueue(&self.maintenance, operation)
    }
}

fn enqueue<T: Send + 'static>(
    queue: &Sender<Job>,
    operation: impl FnOnce() -> Result<T> + Send + 'static,
) -> oneshot::Receiver<Result<T>> {
    let (reply, answer) = oneshot::channel();
    // If the thread is gone, the job is dropped with its `reply`, and the caller gets the error from `await_answer`.
    let _ = queue.send(Box::new(move || {
        let _ = reply.send(operation()); // the caller may have gone
    }));
    answer
}

/// Waits for the answer of a queued operation.
///
/// # Errors
/// Returns the operation's error, or that the storage is closed if its thread has ended.
pub(super) async fn await_answer<T>(answer: oneshot::Receiver<Result<T>>) -> Result<T> {
    answer.await.unwrap_or_else(|_| Err(closed_error()))
}

fn spawn(name: &str, jobs: Arc<Mutex<Receiver<Job>>>) -> Result<()> {
    let run = move || {
        // The lock is held while a thread waits for its next job, and released before it runs the job.
        while let Ok(job) = { jobs.lock().unwrap_or_else(PoisonError::into_inner).recv() } {
            job();
        }
    };
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map(drop).map_err(|error| {
        let message = "no thread can be started for the storage: check the limit on threads";
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    })
}
