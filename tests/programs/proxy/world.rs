//! A proxy in this process, and an origin whose responses the test sends.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tower::Layer;
use tower_response_cache::CacheLayer;
use tower_response_cache::storage::MemoryStorage;

use super::peer::{Head, Peer, patiently};
use crate::front::{Front, Ranges, cache_layer};
use crate::limits::Limits;
use crate::origin::{Origin, Speaks};
use crate::server::Server;

type Http2 = http2::Connection<TokioIo<TcpStream>, Empty<Bytes>, TokioExecutor>;

pub struct Proxy {
    pub port: u16,
    pub layer: CacheLayer<MemoryStorage>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn before(origin: &RawOrigin) -> Self {
        Self::within(origin.port, Limits::default()).await
    }

    /// Starts a proxy that waits this long for the origin.
    pub async fn start(origin_port: u16, timeout: Duration) -> Self {
        Self::within(origin_port, Limits { origin: timeout, ..Limits::default() }).await
    }

    pub async fn within(origin_port: u16, limits: Limits) -> Self {
        Self::speaking(Speaks::Http1, origin_port, limits).await
    }

    pub async fn speaking(speaks: Speaks, origin_port: u16, limits: Limits) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{origin_port}").parse().unwrap();
        let origin = Origin::new(&url, limits.origin, speaks, None).unwrap();
        let host = origin.host();
        let layer = cache_layer(MemoryStorage::new(), true, Ranges::default(), &[]).unwrap();
        let front = std::sync::Arc::new(Front::new(layer.layer(origin), host, limits.client));
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let limits = Limits { grace: Duration::from_secs(20), ..limits };
        let server = Server::new(limits, None, None);
        let task = tokio::spawn(async move { server.serve(listener, front, stopped).await });
        Self { port, layer, stop: Some(stop), task }
    }

    pub async fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(("127.0.0.1", self.port)).await.unwrap())
    }

    /// Connects a client that speaks HTTP/2 without TLS.
    pub async fn connect_http2(&self) -> (SendRequest<Empty<Bytes>>, Http2) {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap()
    }

    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub async fn stopped(self) {
        patiently(self.task).await.unwrap();
    }

    pub async fn refuses(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).await.is_err()
    }
}

/// Starts an origin and a proxy before it, and connects a client to the proxy.
pub async fn started() -> (RawOrigin, Proxy, Peer) {
    let origin = RawOrigin::start().await;
    let proxy = Proxy::before(&origin).await;
    let client = proxy.connect().await;
    (origin, proxy, client)
}

/// An origin that hands each request to the test, which answers it.
pub struct RawOrigin {
    pub port: u16,
    asked: mpsc::UnboundedReceiver<Asked>,
    accepting: JoinHandle<()>,
}

/// A request at the origin, and the connection that it came over.
///
/// Dropping it closes the connection.
pub struct Asked {
    pub head: Head,
    pub body: Vec<u8>,
    /// The number of the connection, counted from 0.
    pub connection: usize,
    pub peer: Peer,
    back: oneshot::Sender<Peer>,
}

impl RawOrigin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, asked) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(Peer::new(stream), number, sender.clone()));
                number += 1;
            }
        });
        Self { port, asked, accepting }
    }

    /// Waits for the next request.
    pub async fn next(&mut self) -> Asked {
        patiently(self.asked.recv()).await.unwrap()
    }

    /// Waits for the next request, however long. Returns `None` if there will be none.
    pub async fn try_next(&mut self) -> Option<Asked> {
        self.asked.recv().await
    }

    /// Answers the next request, and leaves the connection open. Returns the head of the request.
    pub async fn answer(&mut self, response: impl AsRef<[u8]>) -> Head {
        let mut asked = self.next().await;
        asked.peer.send(response).await;
        let head = asked.head.clone();
        asked.keep();
        head
    }

    /// Returns whether a request has come that the test did not take.
    pub fn was_asked(&mut self) -> bool {
        self.asked.try_recv().is_ok()
    }

    /// Stops listening.
    pub async fn shut(self) {
        self.accepting.abort();
        let _ = self.accepting.await; // cancelled: the listener is closed
    }
}

impl Asked {
    /// Leaves the connection open for the next request.
    pub fn keep(self) {
        let _ = self.back.send(self.peer); // an error only if the origin is gone
    }
}

async fn connection(mut peer: Peer, number: usize, asked: mpsc::UnboundedSender<Asked>) {
    while let Some(head) = peer.try_head().await {
        let (body, cut) = peer.content(&head).await;
        let (back, returned) = oneshot::channel();
        if cut || asked.send(Asked { head, body, connection: number, peer, back }).is_err() {
            return;
        }
        let Ok(returned) = returned.await else { return };
        peer = returned;
    }
}

/// Returns a port without a listener.
pub async fn refusing() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port()
}

/// Returns a whole response with these fields, each of which ends in CRLF.
pub fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}
