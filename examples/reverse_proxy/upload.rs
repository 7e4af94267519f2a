//! The content of a request on its way to the origin.
//!
//! # Invariants
//! - Each frame is forwarded when it arrives, unchanged, trailers included.
//! - A client that sends too slowly ends the request. While the origin does not take the content, the client is not slow.
//! - The default is empty, for the requests that the cache makes itself.
//! - Nothing is boxed.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::meter;
use crate::pace::{Pace, Slowest};
use crate::report::{Kind, report};

#[derive(Default)]
pub enum Upload {
    #[default]
    Empty,
    Streamed {
        body: Incoming,
        pace: Pace,
        progress: Progress,
    },
}

impl Upload {
    pub fn of(body: Incoming, slowest: Slowest) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else {
            Self::Streamed { body, pace: Pace::new(slowest), progress: Progress::new() }
        }
    }

    pub fn progress(&self) -> Option<Progress> {
        match self {
            Self::Empty => None,
            Self::Streamed { progress, .. } => Some(progress.clone()),
        }
    }
}

/// How far the content has come.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<State>>);

struct State {
    /// When the latest frame was forwarded.
    latest: Instant,
    failed: Option<UploadError>,
}

/// Why the client's content did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadError {
    Slow,
    /// The client has gone, or has sent what is no content.
    BrokenOff,
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slow => "the client sent the content too slowly",
            Self::BrokenOff => "the client broke off the content",
        })
    }
}

impl std::error::Error for UploadError {}

impl Progress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State { latest: Instant::now(), failed: None })))
    }

    /// Returns the time when the latest frame was forwarded.
    ///
    /// The timeout for the response starts there, because an origin is not late while it is still receiving the request.
    pub fn latest(&self) -> Instant {
        self.lock().latest
    }

    /// Returns why the content ended early, if the client is the reason.
    pub fn failed(&self) -> Option<UploadError> {
        self.lock().failed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Self::Streamed { body, pace, progress } = self.get_mut() else { return Poll::Ready(None) };
        let failed = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                meter::received(bytes);
                pace.moved(bytes);
                progress.lock().latest = Instant::now();
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(None) => {
                progress.lock().latest = Instant::now();
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(_))) => UploadError::BrokenOff,
            Poll::Pending if pace.poll_late(cx).is_pending() => return Poll::Pending,
            Poll::Pending => {
                meter::expired("slow_content");
                report(Kind::SlowClient, || UploadError::Slow.to_string());
                UploadError::Slow
            }
        };
        progress.lock().failed = Some(failed);
        Poll::Ready(Some(Err(failed)))
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
