//! Futures that a test polls by hand.
//!
//! A task is polled only when it was woken, so that a lost wake-up leaves it unfinished.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub struct Task<T> {
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    woken: Arc<Flag>,
    output: Option<T>,
}

impl<T> Task<T> {
    pub fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        // Without tokio's cooperative budget, which could keep a future that is ready waiting until the test itself is
        // polled again.
        let future = tokio::task::unconstrained(future);
        Self { future: Some(Box::pin(future)), woken, output: None }
    }

    pub fn is_woken(&self) -> bool {
        self.future.is_some() && self.woken.0.load(Ordering::SeqCst)
    }

    /// Polls the future once, whether it was woken or not.
    pub fn poll(&mut self) {
        let Some(future) = &mut self.future else { return };
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.woken));
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.future = None;
            self.output = Some(output);
        }
    }

    pub fn is_done(&self) -> bool {
        self.future.is_none()
    }

    /// Polls for as long as the task is woken. Returns the output, once.
    pub fn run(&mut self) -> Option<T> {
        while self.is_woken() {
            self.poll();
        }
        self.output.take()
    }
}

/// Polls all tasks for as long as any is woken.
///
/// Spawned tasks run in between.
pub async fn settle<T>(tasks: &mut [Task<T>]) {
    for _ in 0..1000 {
        tasks.iter_mut().filter(|task| task.is_woken()).for_each(Task::poll);
        tokio::task::yield_now().await;
        if !tasks.iter().any(Task::is_woken) {
            // A spawned task may have spawned another.
            tokio::task::yield_now().await;
            if !tasks.iter().any(Task::is_woken) {
                return;
            }
        }
    }
    panic!("the tasks wake each other for ever");
}
