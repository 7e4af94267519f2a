//! The content of a response from the origin.
//!
//! # Invariants
//! - Each frame is passed on when it arrives, unchanged.
//! - An origin that sends nothing for too long while it is waited for ends the content with an error, so that no client
//!   takes a part for the whole, and nothing is stored.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::meter;
use crate::multiplex::Place;
use crate::pace::{Pace, Slowest};
use crate::report::{Kind, causes, report};

pub struct Download {
    body: Incoming,
    pace: Pace,
    /// The place on an HTTP/2 connection, which another request may take after the end of this body.
    place: Option<Place>,
}

impl Download {
    pub fn new(body: Incoming, slowest: Slowest, place: Option<Place>) -> Self {
        let place = place.filter(|_| !body.is_end_stream());
        Self { body, pace: Pace::new(slowest), place }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.pace.moved(frame.data_ref().map_or(1, |data| data.len() as u64));
                // A frame of HTTP/2 keeps a read buffer alive that it shares with frames of other streams, for as long as a
                // slow client or a chunk that is gathered needs it.
                let frame = match self.place {
                    Some(_) => frame.map_data(|data| Bytes::copy_from_slice(&data)),
                    None => frame,
                };
                if self.body.is_end_stream() {
                    self.place = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.place = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                meter::origin_failed("broken_off");
                report(Kind::OriginBrokenOff, || causes(&error));
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Pending if self.pace.poll_late(cx).is_pending() => Poll::Pending,
            Poll::Pending => {
                meter::origin_failed("stalled");
                report(Kind::OriginStalled, String::new);
                Poll::Ready(Some(Err("the origin stopped in the middle of the body".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
