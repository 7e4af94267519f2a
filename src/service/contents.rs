//! Reading the content of a request, and making it again to be sent on.
//!
//! # Invariants
//!
//! - The origin gets every byte, and the error where the content fails.
//! - At most the set length is read ahead; the rest is sent on as it comes.

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
pub(super) struct Replayer<B> {
    pub(super) read: Box<dyn Fn(B, u64) -> Reading<B> + Send + Sync>,
    pub(super) make: Arc<dyn Fn(ReplayedContent) -> B + Send + Sync>,
}

pub(super) type Reading<B> = Pin<Box<dyn Future<Output = Read<B>> + Send>>;

/// The outcome of reading a content.
pub(super) enum Read<B> {
    Whole(Bytes),
    /// Too long, or it failed: it is sent on as it came.
    Sent(B),
}

/// How contents are read.
#[derive(Clone)]
pub(crate) struct Contents {
    /// The longest that is read.
    pub(crate) most: u64,
    pub(crate) ignored: IgnoredFields,
    /// By the type of the body.
    replayers: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Default for Contents {
    fn default() -> Self {
        let mut contents =
            Self { most: 256 * 1024, ignored: IgnoredFields::default(), replayers: HashMap::default() };
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

    pub(super) fn replayer<B: 'static>(&self) -> Option<&Replayer<B>> {
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

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").field("most", &self.most).finish_non_exhaustive()
    }
}
