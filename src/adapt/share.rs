//! A service that is not `Clone`, shared by clones.
//!
//! # Invariants
//!
//! - The inner service is called right after it was ready, under one lock, so that no other call takes its readiness.
//! - The lock is never held while a task waits. A task that stops polling its request delays no other request.
//! - Every task that waits for readiness is woken when the inner service may have become ready.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tower_layer::Layer;
use tower_service::Service;

use crate::wakers::{WakerSlot, Wakers};

/// Makes an inner service that is not `Clone` usable below the cache.
///
/// The clones of the service share the one below, and call it in turn. Their responses are awaited side by side, so that
/// only `poll_ready` and `call` of the service below exclude each other. A service that does much work in `call` itself, and
/// not in its future, is better made `Clone`.
///
/// In contrast to `tower::buffer`, it has no task and no bound of its own, and errors are those of the service below. There is an
/// example at [`adapt`](crate::adapt).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ShareLayer {}

impl ShareLayer {
    /// Returns the layer.
    pub fn new() -> Self {
        Self {}
    }
}

impl<T> Layer<T> for ShareLayer {
    type Service = Share<T>;

    fn layer(&self, inner: T) -> Share<T> {
        Share::new(inner)
    }
}

/// A service that shares one inner service among its clones.
///
/// It is always ready: the response future waits until the inner service is.
pub struct Share<T> {
    shared: Arc<Shared<T>>,
}

/// The state that all clones share.
struct Shared<T> {
    /// A std `Mutex`, since it is held for `poll_ready` and `call` only, which do not wait.
    inner: Mutex<T>,
    /// The tasks that wait until the inner service is ready. The inner service keeps one waker, which wakes all of them.
    waiting: Arc<Wakers>,
}

impl<T> Share<T> {
    /// Returns a service around an inner service.
    pub fn new(inner: T) -> Self {
        Self { shared: Arc::new(Shared { inner: Mutex::new(inner), waiting: Arc::default() }) }
    }
}

impl<T> Clone for Share<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Share<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").finish_non_exhaustive()
    }
}

impl<T: Service<R>, R> Service<R> for Share<T> {
    type Response = T::Response;
    type Error = T::Error;
    type Future = ShareFuture<T, R>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), T::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> ShareFuture<T, R> {
        ShareFuture {
            state: State::Waiting { shared: Arc::clone(&self.shared), request: Some(request), slot: None },
        }
    }
}

pin_project_lite::pin_project! {
    /// The response future of a [`Share`].
    pub struct ShareFuture<T, R>
    where
        T: Service<R>,
    {
        #[pin]
        state: State<T, R, T::Future>,
    }
}

pin_project_lite::pin_project! {
    #[project = StateProjection]
    enum State<T, R, F> {
        Waiting { shared: Arc<Shared<T>>, request: Option<R>, slot: Option<WakerSlot> },
        Called { #[pin] response: F },
    }
}

impl<T: Service<R>, R> Future for ShareFuture<T, R> {
    type Output = Result<T::Response, T::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        if let StateProjection::Waiting { shared, request, slot } = state.as_mut().project() {
            // Registered before the inner service is asked: it may become ready right after it has answered.
            drop(slot.get_or_insert_with(|| shared.waiting.slot()).register(cx.waker()));
            let called = {
                // A panic in the inner service is its own affair: it is called again, as it would be without this lock.
                let mut inner = shared.inner.lock().unwrap_or_else(PoisonError::into_inner);
                let waker = Waker::from(Arc::clone(&shared.waiting));
                ready!(inner.poll_ready(&mut Context::from_waker(&waker)))
                    .map(|()| inner.call(request.take().expect("`ShareFuture` is not polled after a panic")))
            };
            // The wait is over. Released first, so that this task is not woken again.
            *slot = None;
            // The inner service may have dropped the waker when it became ready. The other tasks have to ask again.
            shared.waiting.wake_all();
            match called {
                Ok(response) => state.set(State::Called { response }),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        match state.project() {
            StateProjection::Called { response } => response.poll(cx),
            StateProjection::Waiting { .. } => Poll::Pending,
        }
    }
}

impl<T: Service<R>, R> fmt::Debug for ShareFuture<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareFuture").finish_non_exhaustive()
    }
}
