//! Serves connections until a signal to stop.
//!
//! # Invariants
//! - A connection that fails affects no other connection.
//! - A client that waits, idles or dawdles for longer than the limits permit is disconnected.
//! - After the signal no connection is accepted, and idle ones are closed at once.
//! - Requests under way are finished, within the grace period.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::accept::{Accepted, Acceptor};
use crate::access_log::AccessLog;
use crate::activity::{Activity, Expired};
use crate::answer::Answer;
use crate::backlog::Backlog;
use crate::exchange::{Exchange, Recorded};
use crate::interim::Interims;
use crate::limits::Limits;
use crate::meter::{self, OpenConnection};
use crate::report::{Kind, causes, report};
use crate::tls::Tls;
use crate::wire::Wire;

/// How much of a response waits for a client before more of its body is read, and the maximum length of a request's head.
///
/// The last frame may be longer. hyper's default of 400 kB takes four chunks from a file at once, the first of which has left
/// the processor's cache when they are sent. Much less than this is slower for bodies in memory, which are sent as they are.
/// Less of a body from the origin waits: see `backlog`.
const MAX_BUFFERED: usize = 256 * 1024;
/// How much of each response waits for an HTTP/2 client.
const MAX_BUFFERED_HTTP2: usize = 64 * 1024;
/// How much of a response waits in the system for a client, besides what is on its way.
///
/// Without this bound the system takes megabytes for each slow client, and it would take minutes to see that a client reads
/// slowly: a socket is writable again only after half of this has been sent. Half as much is slower for long bodies.
const MAX_UNSENT: u32 = 256 * 1024;
/// How many requests an HTTP/2 client may make at once.
const MAX_STREAMS: u32 = 128;

/// Answers requests.
pub trait Respond: Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Unpin + 'static;
    type Future: Future<Output = Result<Answer<Self::Body>, Infallible>> + Send + Unpin + 'static;

    /// Answers a request of the connection that these interim responses go to.
    fn respond(&self, request: Request<Incoming>, interims: &Arc<Interims>) -> Self::Future;
}

/// How connections are served.
pub struct Server {
    http: auto::Builder<TokioExecutor>,
    tls: Option<Arc<Tls>>,
    log: Option<Arc<AccessLog>>,
    limits: Limits,
}

impl Server {
    pub fn new(limits: Limits, log: Option<Arc<AccessLog>>, tls: Option<Arc<Tls>>) -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        // hyper has one timer for heads and for idle connections, so that `Activity` does it.
        http.http1().header_read_timeout(None).max_buf_size(MAX_BUFFERED);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(MAX_BUFFERED_HTTP2)
            .max_header_list_size(MAX_BUFFERED_HTTP2 as u32);
        Self { http, tls, log, limits }
    }

    /// Serves the listener until `stop` completes, and then for at most the grace period.
    pub async fn serve<R: Respond>(
        self,
        listener: TcpListener,
        responder: Arc<R>,
        stop: impl Future<Output = ()>,
    ) {
        // Nothing is ever sent: dropping the sender tells every connection to stop.
        let (running, stopped) = watch::channel(());
        let server = Arc::new(self);
        let mut acceptor = Acceptor::new(listener, server.limits.connections);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = acceptor.next() => {
                    let (server, responder) = (Arc::clone(&server), Arc::clone(&responder));
                    connections.spawn(connection(server, accepted, responder, stopped.clone()));
                }
                // Reaps connections that have ended: a `JoinSet` keeps them until they are joined.
                Some(_) = connections.join_next() => {}
            }
        }
        drop((acceptor, running));
        let finished = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(server.limits.grace, finished).await.is_err() {
            tracing::warn!(target: "reverse_proxy", connections = connections.len(), "requests are cut off: see --grace");
            connections.shutdown().await;
        }
    }
}

async fn connection<R: Respond>(
    server: Arc<Server>,
    accepted: Accepted,
    responder: Arc<R>,
    stopped: watch::Receiver<()>,
) {
    let Accepted { stream, address, permit: _permit } = accepted;
    let _open = OpenConnection::new();
    tune(&stream);
    let Some(tls) = &server.tls else {
        return http(&server, TokioIo::new(stream), address, responder, stopped).await;
    };
    match tokio::time::timeout(server.limits.head, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => http(&server, TokioIo::new(stream), address, responder, stopped).await,
        Ok(Err(error)) => report(Kind::TlsFailed, || causes(&error)),
        Err(_) => meter::expired("head"),
    }
}

/// Sets options of a socket. Without them responses are late, or take more memory, but are not wrong.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(MAX_UNSENT);
}

async fn http<R: Respond, T: Read + Write + Unpin + Send + 'static>(
    server: &Server,
    io: T,
    address: SocketAddr,
    responder: Arc<R>,
    mut stopped: watch::Receiver<()>,
) {
    let limits = &server.limits;
    let interims = Arc::<Interims>::default();
    let activity = Arc::new(Activity::new());
    let backlog = Arc::<Backlog>::default();
    let wire =
        Wire::new(io, Arc::clone(&interims), Arc::clone(&activity), Arc::clone(&backlog), limits.client);
    let requests = Arc::clone(&activity);
    let log = server.log.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let exchange = Exchange::begin(&request, &requests, &backlog, log.as_ref().map(|log| (log, address)));
        Serving { future: responder.respond(request, &interims), exchange: Some(exchange) }
    });
    let mut serving = pin!(server.http.serve_connection(wire, service));
    let (mut is_stopping, mut closing) = (false, None);
    loop {
        let again = match activity.expired(limits) {
            Err(again) => again,
            // A request may have come just now: it is answered, and then the connection closed. An HTTP/2 client is told,
            // and has some time to acknowledge it.
            Ok(Expired::Idle) if closing.is_none_or(|until| Instant::now() < until) => *closing
                .get_or_insert_with(|| {
                    serving.as_mut().graceful_shutdown();
                    Instant::now() + limits.head
                }),
            Ok(expired) => {
                meter::expired(match expired {
                    Expired::Head => "head",
                    Expired::Idle => "idle",
                    Expired::Stalled => "slow_reader",
                });
                if expired == Expired::Stalled {
                    report(Kind::SlowClient, || "it did not take its response".to_owned());
                }
                return;
            }
        };
        // An error needs no report: the client has gone, or sent no valid HTTP and got a 400 from hyper.
        tokio::select! {
            biased; // a connection that has ended needs no shutdown
            _ = serving.as_mut() => return,
            _ = stopped.changed(), if !is_stopping => {
                is_stopping = true;
                serving.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(again) => {}
        }
    }
}

/// The future of a response that is recorded. A struct, since an async block would hold the request's future twice.
struct Serving<F> {
    future: F,
    exchange: Option<Exchange>,
}

impl<F, B> Future for Serving<F>
where
    F: Future<Output = Result<Answer<B>, Infallible>> + Unpin,
    B: Body<Data = Bytes>,
    Either<B, Full<Bytes>>: Body,
{
    type Output = Result<Response<Recorded<Either<B, Full<Bytes>>>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(Pin::new(&mut self.future).poll(cx));
        match self.exchange.take() {
            Some(exchange) => Poll::Ready(Ok(exchange.answered(response))),
            None => Poll::Pending, // polled again after it was ready, which hyper does not do
        }
    }
}
