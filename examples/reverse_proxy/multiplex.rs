//! HTTP/2 connections to the origin, each of which many requests share.
//!
//! hyper-util's client has these as well, but it sends the origin's name as `:authority`, and not the client's Host.
//!
//! # Invariants
//! - A connection carries at most [`MAX_STREAMS`] requests, or fewer if the origin permits fewer. Further requests open
//!   another connection.
//! - A client that reads slowly holds up no other one: a connection's window is as long as those of all its streams.
//! - A request is sent again at most once, and only if the origin has certainly not begun with it.
//! - A connection that fails, or that the origin is about to close, gets no new request. One without requests is closed.
//! - One connection is opened at a time, for all requests that wait for one. If that fails, it fails for all that waited when
//!   it began.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use h2::Reason;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{Request, Response, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;
use tower::ServiceExt;

use crate::connect::Connector;
use crate::upload::Upload;

/// How many requests share a connection at most.
const MAX_STREAMS: usize = 100;
/// How many requests are sent before the origin has told how many it permits.
///
/// The origin tells first of all, so that the others wait for one round trip. No origin is known to permit this number, from
/// which it can be told that it has not said anything yet.
const STREAMS_AT_FIRST: usize = 7;
/// How much of a response waits for a slow client. An origin far away sends this much in each round trip.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The connection's window must not be filled by slow clients while another one waits.
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW;
/// How much of a request's content waits for the origin.
const MAX_BUFFERED: usize = 64 * 1024;
/// The maximum length of a response's fields.
const MAX_HEAD: u32 = 32 * 1024;
/// A connection without requests is closed after this time, or after at most twice as long.
const MAX_IDLE: Duration = Duration::from_secs(45);
/// How long nothing may come while requests wait, before the origin is asked whether it is still there, and then for its
/// answer. Otherwise all requests would go to a connection that is lost until the system gives it up, after minutes.
const MAX_SILENCE: Duration = Duration::from_secs(15);

pub struct Multiplexer {
    connector: Connector,
    url: Uri,
    /// TLS has to choose HTTP/2. Otherwise the origin is known to speak it.
    is_negotiated: bool,
    /// TLS has not chosen HTTP/2, and is not asked again.
    is_refused: AtomicBool,
    open: Arc<Mutex<Vec<Open>>>,
    /// Held while a connection is opened. A request that is dropped meanwhile leaves that to the next one.
    opening: tokio::sync::Mutex<Opening>,
}

/// The results of opening connections.
#[derive(Default)]
struct Opening {
    /// How many there have been, which is the number of the latest one.
    count: u64,
    /// When the latest failure began, and its reason.
    failed: Option<(Instant, Arc<dyn StdError + Send + Sync>)>,
}

/// A connection that takes requests.
struct Open {
    number: u64,
    sender: SendRequest<Upload>,
    users: Arc<Users>,
}

/// The requests of one connection. Each holds a reference, besides those of [`Open`] and of the task that drives it.
struct Users {
    /// How many there have been.
    total: AtomicU64,
    /// How many the origin permits at once.
    permitted: AtomicUsize,
}

impl Users {
    fn now(self: &Arc<Self>) -> usize {
        Arc::strong_count(self).saturating_sub(2)
    }
}

/// The place of a request on its connection, until it is dropped.
pub struct Place(#[expect(dead_code, reason = "its references are counted")] Arc<Users>);

/// The result of sending a request.
pub enum Sent {
    Response(Response<Incoming>, Place),
    /// The origin speaks HTTP/1 only. The request was not sent.
    Http1(Request<Upload>),
}

/// Why there is no response.
#[derive(Debug)]
pub enum SendError {
    Unreachable(Arc<dyn StdError + Send + Sync>),
    Http(hyper::Error),
    /// The Host field is no authority of a URI.
    Host,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable(_) => "cannot connect",
            Self::Http(_) => "HTTP/2 failed",
            Self::Host => "the Host field is no authority",
        })
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unreachable(error) => Some(&**error),
            Self::Http(error) => Some(error),
            Self::Host => None,
        }
    }
}

impl Multiplexer {
    pub fn new(connector: Connector, url: Uri, is_negotiated: bool) -> Self {
        let is_refused = AtomicBool::new(false);
        Self {
            connector,
            url,
            is_negotiated,
            is_refused,
            open: Arc::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a request that is addressed as for HTTP/1, and waits for the head of the response.
    ///
    /// # Errors
    /// Returns why there is no response.
    pub async fn send(&self, mut request: Request<Upload>) -> Result<Sent, SendError> {
        let Some((number, mut sender, place)) = self.connection(0).await? else {
            return Ok(Sent::Http1(request));
        };
        translate(&mut request)?;
        let copy = copy(&request);
        let error = match sender.try_send_request(request).await {
            Ok(response) => return Ok(Sent::Response(response, place)),
            Err(mut error) => match error.take_message() {
                Some(unsent) => Ok(unsent),
                None if is_unprocessed(error.error()) => copy.ok_or_else(|| error.into_error()),
                None => Err(error.into_error()),
            },
        };
        let request = error.map_err(SendError::Http)?;
        drop((sender, place));
        self.retire(number);
        let Some((_, mut sender, place)) = self.connection(number + 1).await? else {
            let error = Box::<dyn StdError + Send + Sync>::from("the origin does not speak HTTP/2 any more");
            return Err(SendError::Unreachable(error.into()));
        };
        let response = sender.send_request(request).await.map_err(SendError::Http)?;
        Ok(Sent::Response(response, place))
    }

    /// Returns a place on a connection with this number or a higher one, or `None` if the origin speaks HTTP/1 only.
    async fn connection(&self, least: u64) -> Result<Option<(u64, SendRequest<Upload>, Place)>, SendError> {
        // Relaxed: a request that does not see it yet finds it under the lock.
        if self.is_refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some(found) = self.find(least) {
            return Ok(Some(found));
        }
        let since = Instant::now();
        let mut opening = self.opening.lock().await;
        if let Some(found) = self.find(least) {
            return Ok(Some(found)); // another request has opened it meanwhile
        }
        if self.is_refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // Requests that wait for an origin that fails slowly would otherwise find that out one after another.
        if let Some((began, error)) = &opening.failed
            && *began >= since
        {
            return Err(SendError::Unreachable(Arc::clone(error)));
        }
        let began = Instant::now();
        let stream = match self.connector.clone().oneshot(self.url.clone()).await {
            Ok(stream) => stream,
            Err(error) => {
                let error = Arc::from(error);
                opening.failed = Some((began, Arc::clone(&error)));
                return Err(SendError::Unreachable(error));
            }
        };
        if self.is_negotiated && !stream.connected().is_negotiated_h2() {
            self.is_refused.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(STREAMS_AT_FIRST)
            .max_header_list_size(MAX_HEAD)
            .max_send_buf_size(MAX_BUFFERED)
            .keep_alive_interval(MAX_SILENCE)
            .keep_alive_timeout(MAX_SILENCE)
            .handshake(stream)
            .await
            .map_err(SendError::Http)?;
        opening.count += 1;
        let number = opening.count;
        let users =
            Arc::new(Users { total: AtomicU64::new(0), permitted: AtomicUsize::new(STREAMS_AT_FIRST) });
        let driven = Arc::clone(&users);
        let found = (number, sender.clone(), take(&users));
        lock(&self.open).push(Open { number, sender, users });
        tokio::spawn(drive(connection, driven, number, Arc::clone(&self.open)));
        Ok(Some(found))
    }

    fn find(&self, least: u64) -> Option<(u64, SendRequest<Upload>, Place)> {
        let mut open = lock(&self.open);
        open.retain(|open| !open.sender.is_closed());
        // The first one with room, so that those behind it become idle.
        let open = open.iter().find(|open| open.number >= least && open.has_room())?;
        Some((open.number, open.sender.clone(), take(&open.users)))
    }

    /// Gives a connection no further requests.
    fn retire(&self, number: u64) {
        lock(&self.open).retain(|open| open.number != number);
    }
}

impl Open {
    fn has_room(&self) -> bool {
        let permitted = match self.users.permitted.load(Ordering::Relaxed) {
            STREAMS_AT_FIRST => MAX_STREAMS,
            permitted => permitted.clamp(1, MAX_STREAMS),
        };
        self.users.now() < permitted
    }
}

fn take(users: &Arc<Users>) -> Place {
    users.total.fetch_add(1, Ordering::Relaxed); // under the lock of the list
    Place(Arc::clone(users))
}

fn lock(open: &Mutex<Vec<Open>>) -> MutexGuard<'_, Vec<Open>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the requests of a connection until it ends, and gives it up once it is idle.
async fn drive<T>(
    mut connection: http2::Connection<T, Upload, TokioExecutor>,
    users: Arc<Users>,
    number: u64,
    list: Arc<Mutex<Vec<Open>>>,
) where
    T: Read + Write + Send + Unpin + 'static,
{
    let mut total = 0;
    let mut look = Box::pin(tokio::time::sleep(MAX_IDLE));
    let ended = poll_fn(|cx| {
        // hyper polls this future for each request. An error is that of the requests.
        let ended = Pin::new(&mut connection).poll(cx);
        users.permitted.store(connection.current_max_send_streams(), Ordering::Relaxed);
        if ended.is_ready() {
            return Poll::Ready(());
        }
        while look.as_mut().poll(cx).is_ready() {
            look.as_mut().reset(Instant::now() + MAX_IDLE);
            let latest = users.total.load(Ordering::Relaxed);
            let mut list = lock(&list);
            if users.now() == 0 && latest == total {
                list.retain(|open| open.number != number); // hyper closes a connection that has no sender
            }
            total = latest;
        }
        Poll::Pending
    });
    ended.await;
    lock(&list).retain(|open| open.number != number);
}

/// Makes an HTTP/2 request of an HTTP/1 one.
///
/// Fields that concern the connection are malformed in HTTP/2 (RFC 9113 §8.2.2). TE stays, which says `trailers` at most.
fn translate(request: &mut Request<Upload>) -> Result<(), SendError> {
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    let host = headers.remove(HOST).ok_or(SendError::Host)?;
    let mut parts = request.uri().clone().into_parts();
    parts.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| SendError::Host)?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| SendError::Host)?;
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

/// Returns the same request, unless it has content, which can be read only once.
fn copy(request: &Request<Upload>) -> Option<Request<Upload>> {
    if !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Upload::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Returns whether the origin has said that it did not begin with the request (RFC 9113 §8.7).
///
/// A GOAWAY is the error only of the requests that it names as unprocessed. One because of an error may have been caused by
/// the request itself.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let expected = if error.is_go_away() { Reason::NO_ERROR } else { Reason::REFUSED_STREAM };
            return error.is_remote() && error.reason() == Some(expected);
        }
        source = error.source();
    }
    false
}
