//! Serves connections until it is told to stop.
//!
//! Promises: one connection's failure is its own; when it is told to stop, it accepts no more, and requests under way
//! are finished, within a time; idle connections are closed at once.

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

/// How long a client may take for the head of a request, and how long its connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after a connection could not be accepted: most likely too many are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers requests.
pub trait Respond: Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static;
    type Future: Future<Output = Result<Answer<Self::Body>, Infallible>> + Send;

    /// `interims` are the connection's.
    fn respond(&self, request: Request<Incoming>, interims: &Arc<Interims>) -> Self::Future;
}

pub async fn serve<R: Respond>(
    listener: TcpListener,
    responder: Arc<R>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) {
    let (going, stopped) = watch::channel(());
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
            Some(_) = connections.join_next() => {}
        }
    }
    drop((listener, going));
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, finished).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection<R: Respond>(stream: TcpStream, responder: Arc<R>, mut stopped: watch::Receiver<()>) {
    let _ = stream.set_nodelay(true); // slower without, but right
    let interims = Arc::<Interims>::default();
    let wire = Wire::new(TokioIo::new(stream), Arc::clone(&interims));
    let service = service_fn(move |request| responder.respond(request, &interims));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut serving = pin!(http.serve_connection(wire, service));
    // An error is the client's own: it went away or sent no HTTP, and hyper has told it so.
    tokio::select! {
        biased;
        _ = serving.as_mut() => return,
        _ = stopped.changed() => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}
