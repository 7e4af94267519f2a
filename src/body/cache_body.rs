//! The body of a response that went through the cache: [`CacheBody`].

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{BodyError, BodyErrorKind};
use crate::control::CacheStatus;
use crate::observe::ByteCounter;

/// A reader of a stored body, or of a download that several requests share.
///
/// The methods are those of [`Body`], without its generics and pins: [`CacheBody`] holds it as a trait object.
pub(crate) trait Source: Send + Sync {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;
    fn is_end_stream(&self) -> bool;
    fn size_hint(&self) -> SizeHint;
}

pin_project! {
    /// The body of a response that went through the cache.
    ///
    /// It is the inner service's body, which may be stored while it is read, or a stored body. Its data is [`Bytes`], its
    /// error is [`BodyError`].
    ///
    /// ```
    /// use http_body_util::{BodyExt, Full};
    /// use tower_response_cache::CacheBody;
    ///
    /// async fn read(body: CacheBody<Full<bytes::Bytes>>) -> usize {
    ///     if body.status().is_some_and(|status| status.is_hit()) {
    ///         println!("served from the storage");
    ///     }
    ///     body.collect().await.map_or(0, |body| body.to_bytes().len())
    /// }
    /// ```
    pub struct CacheBody<B> {
        #[pin]
        content: BodyContent<B>,
        status: Option<CacheStatus>,
        byte_counter: ByteCounter,
    }
}

pin_project! {
    #[project = BodyContentProj]
    enum BodyContent<B> {
        /// A whole body in memory, or what remains of it. The trailers are boxed, since few bodies have any.
        Whole { data: Option<Bytes>, trailers: Option<Box<HeaderMap>> },
        /// A reader, boxed because its type depends on the storage.
        Source { source: Box<dyn Source> },
        /// The body of the inner service.
        Inner { #[pin] body: B },
    }
}

impl<B> CacheBody<B> {
    /// Returns how the cache answered the request.
    ///
    /// Returns `None` for a body that no cache made, such as the default one. The same value is in the extensions of the
    /// response, unless [`status_in_extensions(false)`](crate::CacheLayerBuilder::status_in_extensions) is set.
    pub fn status(&self) -> Option<&CacheStatus> {
        self.status.as_ref()
    }

    /// Sets the status.
    pub(crate) fn set_status(&mut self, status: CacheStatus) {
        self.status = Some(status);
    }

    /// Sets the counter for the bytes that the caller gets.
    pub(crate) fn set_byte_counter(&mut self, byte_counter: ByteCounter) {
        self.byte_counter = byte_counter;
    }

    fn of(content: BodyContent<B>) -> Self {
        Self { content, status: None, byte_counter: ByteCounter::none() }
    }

    /// Returns a body without data.
    pub(crate) fn empty() -> Self {
        Self::of(BodyContent::Whole { data: None, trailers: None })
    }

    /// Returns a body that is in memory as a whole.
    pub(crate) fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        let data = Some(data).filter(|data| !data.is_empty());
        Self::of(BodyContent::Whole { data, trailers: trailers.map(Box::new) })
    }

    /// Returns a body that a reader provides.
    pub(crate) fn from_source(source: Box<dyn Source>) -> Self {
        Self::of(BodyContent::Source { source })
    }

    /// Returns a body that passes on the one of the inner service.
    pub(crate) fn inner(body: B) -> Self {
        Self::of(BodyContent::Inner { body })
    }
}

impl<B> Body for CacheBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.project();
        let polled = match this.content.project() {
            BodyContentProj::Whole { data, trailers } => {
                let frame = data.take().map(Frame::data);
                Poll::Ready(frame.or_else(|| trailers.take().map(|map| Frame::trailers(*map))).map(Ok))
            }
            BodyContentProj::Source { source } => source.poll_frame(cx),
            BodyContentProj::Inner { body } => body.poll_frame(cx).map(|frame| frame.map(into_bytes)),
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            this.byte_counter.add(data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            BodyContent::Whole { data, trailers } => data.is_none() && trailers.is_none(),
            BodyContent::Source { source } => source.is_end_stream(),
            BodyContent::Inner { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            BodyContent::Whole { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
            BodyContent::Source { source } => source.size_hint(),
            BodyContent::Inner { body } => body.size_hint(),
        }
    }
}

/// Converts the data of a frame to [`Bytes`].
///
/// Data that is [`Bytes`] already is not copied.
fn into_bytes<D: Buf, E: Into<Box<dyn StdError + Send + Sync>>>(
    frame: Result<Frame<D>, E>,
) -> Result<Frame<Bytes>, BodyError> {
    match frame {
        Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
        Err(error) => Err(BodyError::new(BodyErrorKind::Inner, Some(error))),
    }
}

impl<B> fmt::Debug for CacheBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.content {
            BodyContent::Whole { .. } => "whole",
            BodyContent::Source { .. } => "source",
            BodyContent::Inner { .. } => "inner",
        };
        f.debug_struct("CacheBody").field("kind", &kind).field("status", &self.status).finish()
    }
}

impl<B> Default for CacheBody<B> {
    /// Returns an empty body without a status.
    fn default() -> Self {
        Self::empty()
    }
}
