//! The content of a request on its way to the origin.
//!
//! # Invariants
//! - Each frame is forwarded when it arrives, unchanged, trailers included.
//! - The default is empty, for the requests that the cache makes itself.
//! - Nothing is boxed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

#[derive(Default)]
pub enum Upload {
    #[default]
    Empty,
    Streamed {
        body: Incoming,
        progress: Progress,
    },
}

impl Upload {
    pub fn of(body: Incoming) -> Self {
        if body.is_end_stream() { Self::Empty } else { Self::Streamed { body, progress: Progress::new() } }
    }

    pub fn progress(&self) -> Option<Progress> {
        match self {
            Self::Empty => None,
            Self::Streamed { progress, .. } => Some(progress.clone()),
        }
    }
}

/// The time when the latest frame was forwarded.
///
/// The timeout for the response starts there, because an origin is not late while it is still receiving the request.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub fn latest(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed { body, progress } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                progress.record();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed { body, .. } => body.size_hint(),
        }
    }
}
