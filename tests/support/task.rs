//! Futures that a test polls by hand, and only when they were woken: a wake-up that is lost leaves one unfinished.

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
        // Without tokio's budget, which would make what is ready wait for the test's own next poll.
        let future = tokio::task::unconstrained(future);
        Self { future: Some(Box::pin(future)), woken, output: None }
    }

    pub fn is_woken(&self) -> bool {
        self.future.is_some() && self.woken.0.load(Ordering::SeqCst)
    }

    /// One poll, woken or not.
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

    /// Polls for as long as it is woken; what came of it, once.
    pub fn run(&mut self) -> Option<T> {
        while self.is_woken() {
            self.poll();
        }
        self.output.take()
    }
}

/// Polls all of them for as long as any is woken, and what was spawned beside them.
pub async fn settle<T>(tasks: &mut [Task<T>]) {
    for _ in 0..1000 {
        tasks.iter_mut().filter(|task| task.is_woken()).for_each(Task::poll);
        tokio::task::yield_now().await;
        if !tasks.iter().any(Task::is_woken) {
            // Once more, for what is spawned by what was spawned.
            tokio::task::yield_now().await;
            if !tasks.iter().any(Task::is_woken) {
                return;
            }
        }
    }
    panic!("they wake each other for ever");
}
