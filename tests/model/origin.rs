//! An origin whose every answer and every piece of a body the schedule gives.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};
use tower::Service;

use super::support::ReqBody;

/// A body whose frames the schedule gives.
pub struct Given {
    frames: mpsc::UnboundedReceiver<io::Result<Bytes>>,
    /// How much is left, for a body that knows its length, as one with Content-Length does in hyper.
    left: Option<u64>,
}

impl Body for Given {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(self.frames.poll_recv(cx));
        if let (Some(Ok(data)), Some(left)) = (&frame, &mut self.left) {
            *left -= data.len() as u64;
        }
        Poll::Ready(frame.map(|frame| frame.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// The other end of a [`Given`].
pub struct Sending {
    frames: Option<mpsc::UnboundedSender<io::Result<Bytes>>>,
}

impl Sending {
    /// A body, and what gives it its frames.
    pub fn new(known_len: Option<u64>) -> (Self, Given) {
        let (sender, frames) = mpsc::unbounded_channel();
        (Self { frames: Some(sender) }, Given { frames, left: known_len })
    }

    pub fn data(&self, data: Bytes) {
        if let Some(frames) = &self.frames {
            let _ = frames.send(Ok(data)); // nobody reads it any more
        }
    }

    pub fn end(&mut self) {
        self.frames = None;
    }

    pub fn break_off(&mut self) {
        if let Some(frames) = self.frames.take() {
            let _ = frames.send(Err(io::Error::other("scripted")));
        }
    }

    /// Whether the cache has let go of the body before its end.
    pub fn is_dropped(&self) -> bool {
        self.frames.as_ref().is_none_or(mpsc::UnboundedSender::is_closed)
    }
}

type Reply = io::Result<Response<Given>>;

/// A request that has reached the origin.
pub struct Call {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    reply: Option<oneshot::Sender<Reply>>,
}

impl Call {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn answer(&mut self, status: u16, headers: HeaderMap, body: Given) {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        *response.headers_mut() = headers;
        let _ = self.reply.take().unwrap().send(Ok(response)); // nobody waits any more
    }

    pub fn fail(&mut self) {
        let _ = self.reply.take().unwrap().send(Err(io::Error::other("scripted")));
    }

    /// Whether it waits for its answer, and somebody for that.
    pub fn is_waiting(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }
}

/// The service; those who come are in `arrived` until the schedule takes them.
#[derive(Clone, Default)]
pub struct Origin(Arc<Mutex<Vec<Call>>>);

impl Origin {
    pub fn arrived(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Service<Request<ReqBody>> for Origin {
    type Response = Response<Given>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (reply, answer) = oneshot::channel();
        let (parts, _) = request.into_parts();
        self.0.lock().unwrap().push(Call {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            headers: parts.headers,
            reply: Some(reply),
        });
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(io::Error::other("given up"))) })
    }
}
