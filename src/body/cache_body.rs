//! The body itself.

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
use crate::observe::Tally;

/// Where a body comes from that is not the inner service's alone: the store, or a download that several may read.
pub(crate) trait Source: Send + Sync {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;
    fn is_end_stream(&self) -> bool;
    fn size_hint(&self) -> SizeHint;
}

pin_project! {
    /// The body of a response that went through the cache: the inner service's (kept or not on its way), or a stored
    /// one. Data comes as [`Bytes`]; errors as [`BodyError`].
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
        kind: Kind<B>,
        status: Option<CacheStatus>,
        tally: Tally,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        /// In memory: what remains of it.
        Whole { data: Option<Bytes>, trailers: Option<Box<HeaderMap>> },
        Source { source: Box<dyn Source> },
        Inner { #[pin] body: B },
    }
}

impl<B> CacheBody<B> {
    /// What the cache did about this response; `None` for a body that no cache made. The same value is in the
    /// response's extensions, unless that is switched off.
    pub fn status(&self) -> Option<&CacheStatus> {
        self.status.as_ref()
    }

    pub(crate) fn set_status(&mut self, status: CacheStatus) {
        self.status = Some(status);
    }

    /// Has the bytes counted that the caller gets.
    pub(crate) fn set_tally(&mut self, tally: Tally) {
        self.tally = tally;
    }

    fn of(kind: Kind<B>) -> Self {
        Self { kind, status: None, tally: Tally::none() }
    }

    pub(crate) fn empty() -> Self {
        Self::of(Kind::Whole { data: None, trailers: None })
    }

    pub(crate) fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        let data = Some(data).filter(|data| !data.is_empty());
        Self::of(Kind::Whole { data, trailers: trailers.map(Box::new) })
    }

    pub(crate) fn from_source(source: Box<dyn Source>) -> Self {
        Self::of(Kind::Source { source })
    }

    pub(crate) fn inner(body: B) -> Self {
        Self::of(Kind::Inner { body })
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
        let polled = match this.kind.project() {
            KindProj::Whole { data, trailers } => {
                let frame = data.take().map(Frame::data);
                Poll::Ready(frame.or_else(|| trailers.take().map(|map| Frame::trailers(*map))).map(Ok))
            }
            KindProj::Source { source } => source.poll_frame(cx),
            KindProj::Inner { body } => body.poll_frame(cx).map(|frame| frame.map(into_bytes)),
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            this.tally.add(data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole { data, trailers } => data.is_none() && trailers.is_none(),
            Kind::Source { source } => source.is_end_stream(),
            Kind::Inner { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
            Kind::Source { source } => source.size_hint(),
            Kind::Inner { body } => body.size_hint(),
        }
    }
}

/// The frame with its data as one piece (without copying, if it is [`Bytes`] already).
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
        let kind = match &self.kind {
            Kind::Whole { .. } => "whole",
            Kind::Source { .. } => "source",
            Kind::Inner { .. } => "inner",
        };
        f.debug_struct("CacheBody").field("kind", &kind).field("status", &self.status).finish()
    }
}

impl<B> Default for CacheBody<B> {
    /// An empty body.
    fn default() -> Self {
        Self::empty()
    }
}
