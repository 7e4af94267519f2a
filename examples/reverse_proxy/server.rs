//! Serves connections until a signal to stop.
//!
//! # Invariants
//! - A connection that fails affects no other connection.
//! - After the signal no connection is accepted, and idle ones are closed at once.
//! - Requests under way are finished, within the grace period.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::answer::Answer;
use crate::interim::Interims;
use crate::wire::Wire;

/// How long a client may take to send the head of a request, and how long its connection may be idle.
///
/// hyper has one timer for both. The value is nginx's default for a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a response waits for a client before more of its body is read, and the maximum length of a request's head.
///
/// The last frame may be longer. hyper's default of 400 kB takes four chunks from a file at once, the first of which has left
/// the processor's cache when they are sent. Much less than this is slower for bodies in memory, which are sent as they are.
const MAX_BUFFERED: usize = 256 * 1024;
/// The pause after a failed accept. Most likely too many files are open: without a pause the loop would spin until one is
/// closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers requests.
pub trait Respond: Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static;
    type Future: Future<Output = Result<Answer<Self::Body>, Infallible>> + Send;

    /// Answers a request of the connection that these interim responses go to.
    fn respond(&self, request: Request<Incoming>, interims: &Arc<Interims>) -> Self::Future;
}

/// Serves the listener until `stop` completes, and then for at most `grace`.
pub async fn serve<R: Respond>(
    listener: TcpListener,
    responder: Arc<R>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) {
    // Nothing is ever sent: dropping the sender tells every connection to stop.
    let (running, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&responder), stopped.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            // Reaps connections that have ended: a `JoinSet` keeps them until they are joined.
            Some(_) = connections.join_next() => {}
        }
    }
    drop((listener, running));
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, finished).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection<R: Respond>(stream: TcpStream, responder: Arc<R>, mut stopped: watch::Receiver<()>) {
    let _ = stream.set_nodelay(true); // without it responses are late, not wrong
    let interims = Arc::<Interims>::default();
    let wire = Wire::new(TokioIo::new(stream), Arc::clone(&interims));
    let service = service_fn(move |request| responder.respond(request, &interims));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_BUFFERED);
    let mut serving = pin!(http.serve_connection(wire, service));
    // An error needs no report: the client has gone, or sent no valid HTTP and got a 400 from hyper.
    tokio::select! {
        biased; // a connection that has ended needs no shutdown
        _ = serving.as_mut() => return,
        _ = stopped.changed() => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}
