//! An origin whose answers, body frames and errors the test gives one by one.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};
use tower::Service;

use super::ReqBody;

/// A body whose frames the test gives.
pub struct Given {
    frames: mpsc::UnboundedReceiver<io::Result<Frame<Bytes>>>,
    /// The number of bytes left, if the body knows its length.
    ///
    /// A body with Content-Length does in hyper.
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
        if let (Some(Ok(frame)), Some(left)) = (&frame, &mut self.left) {
            *left -= frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// Sends the frames of a [`Given`] body, which ends when this is dropped.
pub struct Sender(Option<mpsc::UnboundedSender<io::Result<Frame<Bytes>>>>);

impl Sender {
    /// Creates a body, and the sender of its frames.
    pub fn new(known_len: Option<u64>) -> (Self, Given) {
        let (sender, frames) = mpsc::unbounded_channel();
        (Self(Some(sender)), Given { frames, left: known_len })
    }

    fn send(&self, frame: io::Result<Frame<Bytes>>) {
        if let Some(frames) = &self.0 {
            let _ = frames.send(frame); // the cache may have dropped the body
        }
    }

    pub fn data(&self, data: impl Into<Bytes>) {
        self.send(Ok(Frame::data(data.into())));
    }

    pub fn trailers(&self, trailers: HeaderMap) {
        self.send(Ok(Frame::trailers(trailers)));
    }

    pub fn end(&mut self) {
        self.0 = None;
    }

    /// Ends the body with an error.
    pub fn break_off(&mut self) {
        self.send(Err(io::Error::other("scripted")));
        self.end();
    }

    pub fn fail(mut self) {
        self.break_off();
    }

    /// Returns whether the cache has dropped the body, or the body has ended.
    pub fn is_dropped(&self) -> bool {
        self.0.as_ref().is_none_or(mpsc::UnboundedSender::is_closed)
    }
}

pub type Reply = io::Result<Response<Given>>;

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

    pub fn respond(&mut self, status: u16, headers: HeaderMap, body: Given) {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        *response.headers_mut() = headers;
        self.reply(Ok(response));
    }

    /// Answers with the head alone, and returns the sender of the body.
    pub fn head(mut self, status: u16, fields: &[(&str, &str)]) -> Sender {
        let (sender, body) = Sender::new(None);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        self.respond(status, headers, body);
        sender
    }

    /// Answers with a whole response.
    pub fn answer(self, status: u16, fields: &[(&str, &str)], body: &'static str) {
        let sender = self.head(status, fields);
        if !body.is_empty() {
            sender.data(body);
        }
    }

    pub fn fail(&mut self) {
        self.reply(Err(io::Error::other("scripted")));
    }

    fn reply(&mut self, reply: Reply) {
        let _ = self.reply.take().unwrap().send(reply); // the caller may have gone away
    }

    /// Returns whether the call is unanswered, and was not dropped.
    pub fn is_waiting(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// Returns whether the cache has dropped the call before it was answered.
    pub fn is_dropped(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

/// The origin as a service. Each request waits here until the test takes it.
#[derive(Clone, Default)]
pub struct Upstream(Arc<Mutex<(VecDeque<Call>, usize)>>);

impl Upstream {
    /// Returns the number of all requests that have arrived.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().1
    }

    /// Takes the oldest request.
    pub fn call(&self) -> Call {
        self.0.lock().unwrap().0.pop_front().expect("a request has reached the origin")
    }

    /// Takes all requests.
    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().0.drain(..).collect()
    }

    /// Returns the number of requests that the test has not taken yet.
    pub fn waiting(&self) -> usize {
        self.0.lock().unwrap().0.len()
    }
}

impl Service<Request<ReqBody>> for Upstream {
    type Response = Response<Given>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (reply, answer) = oneshot::channel();
        let (parts, _) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let mut calls = self.0.lock().unwrap();
        calls.0.push_back(Call { method: parts.method, path, headers: parts.headers, reply: Some(reply) });
        calls.1 += 1;
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(io::Error::other("given up"))) })
    }
}
