//! Requests with content (POST, QUERY) that the user made cacheable: the content is read, so that it can tell requests
//! apart, and sent on.
//!
//! Promises: the origin gets every byte, and the error where the content fails; what is too long, or of a type that cannot
//! be made anew, goes to the origin untouched, and its response is not stored; such a request invalidates nothing. One that
//! a filter leaves out is as any other of its method.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, header, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tower_service::Service;

use super::super::config::Config;
use super::super::origin::{Answered, Fetcher, ServiceFetcher};
use super::super::records::ContentKey;
use super::super::shared::Shared;
use super::exchange::run;
use super::route::{Route, bypass};
use crate::body::Exclusive;
use crate::control::BypassReason;
use crate::key::{self, Ignored};
use crate::policy;
use crate::storage::Storage;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The content of a request that the cache has read, to be sent on: what was read, and what is still to come where that
/// was too long.
pub struct ReplayedContent {
    read: Bytes,
    rest: Option<Exclusive<UnsyncBoxBody<Bytes, BoxError>>>,
}

impl ReplayedContent {
    pub(crate) fn whole(read: Bytes) -> Self {
        Self { read, rest: None }
    }

    /// Returns the content as bytes, where that is all of it.
    ///
    /// It is, if the request's body has an exact length: one that is too long goes to the inner service untouched.
    ///
    /// # Errors
    /// Returns the content itself if more of it is still to come: it was longer than
    /// [`max_content_bytes`](crate::CacheLayerBuilder::max_content_bytes), or has trailers. It is a [`Body`], and gives
    /// every byte.
    pub fn into_bytes(self) -> Result<Bytes, Self> {
        match self.rest {
            None => Ok(self.read),
            Some(_) => Err(self),
        }
    }
}

impl fmt::Debug for ReplayedContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayedContent").field("read", &self.read.len()).finish_non_exhaustive()
    }
}

impl Body for ReplayedContent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.read)))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest.get_mut()).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest {
            Some(_) => SizeHint::new(),
            None => SizeHint::with_exact(self.read.len() as u64),
        }
    }
}

/// Reads a body of one type, and makes one again.
struct Replayer<B> {
    read: Box<dyn Fn(B, u64) -> Reading<B> + Send + Sync>,
    make: Arc<dyn Fn(ReplayedContent) -> B + Send + Sync>,
}

type Reading<B> = Pin<Box<dyn Future<Output = Read<B>> + Send>>;

/// What came of reading.
enum Read<B> {
    Whole(Bytes),
    /// Too long, or it failed: it is sent on as it came.
    Sent(B),
}

/// How contents are read.
#[derive(Clone)]
pub(crate) struct Contents {
    /// The longest that is read.
    pub(crate) most: u64,
    pub(crate) ignored: Ignored,
    /// By the type of the body.
    replayers: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Default for Contents {
    fn default() -> Self {
        let mut contents =
            Self { most: 256 * 1024, ignored: Ignored::default(), replayers: HashMap::default() };
        contents.replay_full();
        contents.replay(UnsyncBoxBody::<Bytes, BoxError>::new);
        #[cfg(feature = "axum")]
        contents.replay(axum::body::Body::new);
        contents
    }
}

impl Contents {
    pub(crate) fn replay<B>(&mut self, make: impl Fn(ReplayedContent) -> B + Send + Sync + 'static)
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let make: Arc<dyn Fn(ReplayedContent) -> B + Send + Sync> = Arc::new(make);
        let maker = Arc::clone(&make);
        let read = move |body, most| -> Reading<B> { Box::pin(read(body, most, Arc::clone(&maker))) };
        self.replayers.insert(TypeId::of::<B>(), Arc::new(Replayer { read: Box::new(read), make }));
    }

    /// A body in memory tells its length: what is too long is not begun, so that only whole contents are made anew.
    fn replay_full(&mut self) {
        let read = |body: Full<Bytes>, most| -> Reading<Full<Bytes>> {
            Box::pin(async move {
                if body.size_hint().lower() > most {
                    return Read::Sent(body);
                }
                let Ok(whole) = body.collect().await;
                Read::Whole(whole.to_bytes())
            })
        };
        let make = Arc::new(|content: ReplayedContent| Full::new(content.read));
        self.replayers.insert(TypeId::of::<Full<Bytes>>(), Arc::new(Replayer { read: Box::new(read), make }));
    }

    fn replayer<B: 'static>(&self) -> Option<&Replayer<B>> {
        self.replayers.get(&TypeId::of::<B>())?.downcast_ref()
    }
}

/// Reads a body up to a length.
async fn read<B>(body: B, most: u64, make: Arc<dyn Fn(ReplayedContent) -> B + Send + Sync>) -> Read<B>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    if body.size_hint().lower() > most {
        return Read::Sent(body);
    }
    let mut body = Box::pin(body);
    let mut read = BytesMut::new();
    let unread = loop {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            None => return Read::Whole(read.freeze()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    let data = data.copy_to_bytes(data.remaining());
                    if read.len() as u64 + data.len() as u64 > most {
                        break Ok(Frame::data(data));
                    }
                    read.extend_from_slice(&data);
                }
                // Trailers are none of what a key is made of, and are sent on.
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => break Ok(Frame::trailers(trailers)),
                    Err(_) => continue,
                },
            },
            Some(Err(error)) => break Err(error.into()),
        }
    };
    let rest = body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
    let rest = Ahead { first: Some(unread), rest: rest.map_err(Into::into) };
    let rest = Some(Exclusive::new(UnsyncBoxBody::new(rest)));
    Read::Sent(make(ReplayedContent { read: read.freeze(), rest }))
}

/// A frame that was taken from a body, and the rest of it.
struct Ahead<B> {
    first: Option<Result<Frame<Bytes>, BoxError>>,
    rest: B,
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Ahead<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

impl Config {
    /// Whether a request is of a method that is told apart by content, and that the user made cacheable.
    pub(super) fn reads_content(&self, parts: &request::Parts) -> bool {
        let of_itself = matches!(parts.method, Method::GET | Method::HEAD);
        !of_itself && self.methods.contains(&parts.method)
    }

    /// Which way such a request takes.
    pub(super) fn route_by_content(&self, parts: &request::Parts, bypass: Option<BypassReason>) -> Route {
        let is_left_out = !self.passes_filters(parts);
        // What the user leaves out may be what changes something.
        if is_left_out && !policy::is_reading(&parts.method) {
            return Route::Unsafe;
        }
        // These are on the origin's state, or on one that no content tells apart.
        let conditions = [
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
            header::RANGE,
        ];
        let has_conditions = conditions.iter().any(|name| parts.headers.contains_key(name));
        match bypass {
            Some(reason) => Route::Bypass(reason),
            None if is_left_out => Route::Bypass(BypassReason::Filtered),
            None if parts.headers.contains_key(header::UPGRADE) => Route::Bypass(BypassReason::Upgrade),
            None if has_conditions => Route::Bypass(BypassReason::Condition),
            None => Route::Content,
        }
    }

    /// Takes the content into the request, if it is not too long. Returns whether it did.
    #[cfg(feature = "reqwest")]
    pub(crate) fn take_short_content(&self, parts: &mut request::Parts, content: &Bytes) -> bool {
        let fits = content.len() as u64 <= self.contents.most;
        if fits {
            self.take_content(parts, content);
        }
        fits
    }

    /// Takes the content into the request as what tells it apart.
    fn take_content(&self, parts: &mut request::Parts, content: &Bytes) {
        let joined = |name| {
            let lines: Vec<_> = parts.headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
            match lines.len() {
                0 => None,
                _ => http::HeaderValue::from_bytes(&lines.join(&b", "[..])).ok(),
            }
        };
        let (media_type, coding) = (joined(header::CONTENT_TYPE), joined(header::CONTENT_ENCODING));
        let ignored = &self.contents.ignored;
        let digest = key::digest(media_type.as_ref(), coding.as_ref(), content, ignored);
        parts.extensions.insert(ContentKey(digest));
    }
}

/// Reads the content of a request, and answers it by that.
pub(crate) async fn run_with_content<S, T, B>(
    shared: Arc<Shared<S>>,
    inner: T,
    mut parts: request::Parts,
    body: B,
) -> Answered<ServiceFetcher<T, B>>
where
    S: Storage,
    ServiceFetcher<T, B>: Fetcher<RequestBody = B>,
    T: Service<Request<B>> + Clone + Send + 'static,
    B: Send + 'static,
{
    let config = Arc::clone(&shared.config);
    let Some(replayer) = config.contents.replayer::<B>() else {
        let request = Request::from_parts(parts, body);
        return bypass(shared, ServiceFetcher::new(inner), request, BypassReason::NotReplayable).await;
    };
    let content = match (replayer.read)(body, config.contents.most).await {
        Read::Whole(content) => content,
        Read::Sent(body) => {
            let request = Request::from_parts(parts, body);
            return bypass(shared, ServiceFetcher::new(inner), request, BypassReason::ContentTooLong).await;
        }
    };
    config.take_content(&mut parts, &content);
    let make = Arc::clone(&replayer.make);
    let body = make(ReplayedContent::whole(content.clone()));
    let again = Arc::new(move || make(ReplayedContent::whole(content.clone())));
    let departures = shared.flights.departures();
    run(shared, ServiceFetcher::again_with(inner, again), parts, body, None, departures).await
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").field("most", &self.most).finish_non_exhaustive()
    }
}
