//! One request and its response, as the access log and the metrics see them.
//!
//! # Invariants
//! - Each request is recorded once: when its response has ended, or is dropped.
//! - The bytes are those of the content that was given to the client's connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::access_log::{AccessLog, Entry};
use crate::activity::Activity;
use crate::backlog::{Backlog, FromOrigin};
use crate::meter;

/// A request in progress.
pub struct Exchange {
    activity: Arc<Activity>,
    backlog: Arc<Backlog>,
    /// The body comes from the origin, and HTTP/1 bounds nothing of it.
    is_held_back: bool,
    began: Instant,
    is_head: bool,
    is_http2: bool,
    status: StatusCode,
    bytes: u64,
    /// The response was given to the connection to its end.
    is_complete: bool,
    /// A frame was given to the connection, which has not asked for the next one.
    waits_for_client: bool,
    log: Option<(Arc<AccessLog>, Box<Entry>)>,
}

impl Exchange {
    pub fn begin<B>(
        request: &Request<B>,
        activity: &Arc<Activity>,
        backlog: &Arc<Backlog>,
        log: Option<(&Arc<AccessLog>, std::net::SocketAddr)>,
    ) -> Self {
        let is_http2 = request.version() == Version::HTTP_2;
        activity.begin(is_http2);
        Self {
            activity: Arc::clone(activity),
            backlog: Arc::clone(backlog),
            is_held_back: false,
            began: Instant::now(),
            is_head: request.method() == Method::HEAD,
            is_http2,
            // The status that is logged if the client goes away before its answer, as nginx does it.
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            bytes: 0,
            is_complete: false,
            waits_for_client: false,
            log: log.map(|(log, client)| (Arc::clone(log), Box::new(Entry::of(request, client)))),
        }
    }

    /// Attaches itself to the response.
    pub fn answered<B: Body>(mut self, response: Response<B>) -> Response<Recorded<B>> {
        self.status = response.status();
        self.is_held_back = !self.is_http2 && response.extensions().get::<FromOrigin>().is_some();
        self.is_complete = self.is_head || response.body().is_end_stream();
        if let Some((_, entry)) = &mut self.log {
            entry.answered(&response);
        }
        response.map(|body| Recorded { body, exchange: self })
    }

    fn waits(&mut self, waits: bool) {
        if self.is_http2 && self.waits_for_client != waits {
            self.waits_for_client = waits;
            self.activity.waits(waits);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.waits(false);
        self.activity.end();
        let took = self.began.elapsed();
        meter::answered(self.status, self.bytes, took, self.is_complete);
        if let Some((log, entry)) = self.log.take() {
            log.add(&entry, self.status, self.bytes, took, self.is_complete);
        }
    }
}

/// The body of a response that is recorded.
pub struct Recorded<B> {
    body: B,
    exchange: Exchange,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Recorded<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.exchange.waits(false);
        if self.exchange.is_held_back {
            ready!(self.exchange.backlog.poll_room(cx));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.exchange.bytes += bytes as u64;
                if self.exchange.is_held_back {
                    self.exchange.backlog.add(bytes);
                }
                self.exchange.is_complete = self.body.is_end_stream();
                let has_more = !self.exchange.is_complete;
                self.exchange.waits(has_more);
            }
            Some(Err(_)) => {}
            None => self.exchange.is_complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
