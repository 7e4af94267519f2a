//! The request's content on its way to the origin.
//!
//! Promises: each piece is forwarded as it comes, unchanged, trailers included; nothing is boxed; the default is empty,
//! for the requests that the cache makes itself.

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

/// When the latest piece was sent on: an origin is not late while it is still being told what it is asked.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub fn latest(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) {
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
                progress.made();
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
