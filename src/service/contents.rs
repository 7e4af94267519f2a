//! Reads the content of a request, and replays it to the origin.
//!
//! # Invariants
//!
//! - The origin gets every byte of the content, and the error if the content fails.
//! - At most `max_content_bytes` are read ahead. The rest is passed on as it arrives.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

use crate::body::Exclusive;
use crate::key::IgnoredFields;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The content of a request that the cache has read, for the inner service.
///
/// Content that is longer than [`max_content_bytes`](crate::CacheLayerBuilder::max_content_bytes) is read only in part, and
/// the rest follows as it arrives.
pub struct ReplayedContent {
    read: Bytes,
    rest: Option<Exclusive<UnsyncBoxBody<Bytes, BoxError>>>,
}

impl ReplayedContent {
    /// Returns content that has been read as a whole.
    pub(crate) fn whole(read: Bytes) -> Self {
        Self { read, rest: None }
    }

    /// Returns the content as bytes, if all of it has been read.
    ///
    /// This always succeeds if the body of the request has an exact length, since a body that is too long goes to the inner
    /// service untouched.
    ///
    /// # Errors
    ///
    /// Returns the content itself if a part of it has not been read: it is longer than
    /// [`max_content_bytes`](crate::CacheLayerBuilder::max_content_bytes), or has trailers. It is a [`Body`] that returns
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

/// Reads bodies of one type, and makes bodies of that type again.
pub(super) struct Replayer<B> {
    pub(super) read: Box<dyn Fn(B, u64) -> ReadFuture<B> + Send + Sync>,
    pub(super) make: Arc<dyn Fn(ReplayedContent) -> B + Send + Sync>,
}

/// Boxed, since replayers of all body types are in one map.
pub(super) type ReadFuture<B> = Pin<Box<dyn Future<Output = ReadContent<B>> + Send>>;

/// Tells how far the content of a request has been read.
pub(super) enum ReadContent<B> {
    /// All of it has been read.
    Whole(Bytes),
    /// It is too long, has trailers, or failed. This body returns what was read, and then the rest.
    Partial(B),
}

/// The settings by which contents are read and compared.
#[derive(Clone)]
pub(crate) struct Contents {
    /// The maximum length of a content that is read.
    pub(crate) max_len: u64,
    /// The parts of a content that are ignored when contents are compared.
    pub(crate) ignored: IgnoredFields,
    /// The replayers, by the type of the body.
    replayers: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Default for Contents {
    fn default() -> Self {
        let mut contents =
            Self { max_len: 256 * 1024, ignored: IgnoredFields::default(), replayers: HashMap::default() };
        contents.replay_full();
        contents.replay(UnsyncBoxBody::<Bytes, BoxError>::new);
        #[cfg(feature = "axum")]
        contents.replay(axum::body::Body::new);
        contents
    }
}

impl Contents {
    /// Adds a replayer for a body type, with the function that makes such a body.
    pub(crate) fn replay<B>(&mut self, make: impl Fn(ReplayedContent) -> B + Send + Sync + 'static)
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let make: Arc<dyn Fn(ReplayedContent) -> B + Send + Sync> = Arc::new(make);
        let maker = Arc::clone(&make);
        let read =
            move |body, max_len| -> ReadFuture<B> { Box::pin(read(body, max_len, Arc::clone(&maker))) };
        self.replayers.insert(TypeId::of::<B>(), Arc::new(Replayer { read: Box::new(read), make }));
    }

    /// Adds the replayer for bodies in memory.
    ///
    /// The length of such a body is known. One that is too long is not read, so that only whole contents are made again.
    fn replay_full(&mut self) {
        let read = |body: Full<Bytes>, max_len| -> ReadFuture<Full<Bytes>> {
            Box::pin(async move {
                if body.size_hint().lower() > max_len {
                    return ReadContent::Partial(body);
                }
                let Ok(whole) = body.collect().await;
                ReadContent::Whole(whole.to_bytes())
            })
        };
        let make = Arc::new(|content: ReplayedContent| Full::new(content.read));
        self.replayers.insert(TypeId::of::<Full<Bytes>>(), Arc::new(Replayer { read: Box::new(read), make }));
    }

    /// Returns the replayer for a body type.
    pub(super) fn replayer<B: 'static>(&self) -> Option<&Replayer<B>> {
        self.replayers.get(&TypeId::of::<B>())?.downcast_ref()
    }
}

/// Reads a body up to a length.
async fn read<B>(
    body: B,
    max_len: u64,
    make: Arc<dyn Fn(ReplayedContent) -> B + Send + Sync>,
) -> ReadContent<B>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    if body.size_hint().lower() > max_len {
        return ReadContent::Partial(body);
    }
    let mut body = Box::pin(body);
    let mut read = BytesMut::new();
    let unread = loop {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            None => return ReadContent::Whole(read.freeze()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    let data = data.copy_to_bytes(data.remaining());
                    if read.len() as u64 + data.len() as u64 > max_len {
                        break Ok(Frame::data(data));
                    }
                    read.extend_from_slice(&data);
                }
                // Trailers are not part of the key, so that a content with trailers is passed on.
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => break Ok(Frame::trailers(trailers)),
                    Err(_) => continue,
                },
            },
            Some(Err(error)) => break Err(error.into()),
        }
    };
    let rest = body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
    let rest = Prepended { first: Some(unread), rest: rest.map_err(Into::into) };
    let rest = Some(Exclusive::new(UnsyncBoxBody::new(rest)));
    ReadContent::Partial(make(ReplayedContent { read: read.freeze(), rest }))
}

/// A body whose first frame was read already.
struct Prepended<B> {
    first: Option<Result<Frame<Bytes>, BoxError>>,
    rest: B,
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Prepended<B> {
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

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").field("max_len", &self.max_len).finish_non_exhaustive()
    }
}
