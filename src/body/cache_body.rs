//! The body itself.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{BodyError, BodyErrorKind};
use crate::control::CacheStatus;

/// Where the pieces of a stored body come from.
pub(crate) trait Source: Send + Sync {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>>;
    /// How many bytes are still to come.
    fn remaining(&self) -> u64;
}

/// Where the frames of a body that is being stored go as well.
pub(crate) trait Tee: Send + Sync {
    /// Ready when another frame may come: a store slower than the body slows it down, within a deadline.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    fn data(&mut self, data: &Bytes);
    fn trailers(&mut self, trailers: &HeaderMap);
    /// Whether this is all that the response announced.
    fn is_whole(&self) -> bool;
    /// The body ended cleanly: what it was is stored.
    fn finish(&mut self);
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
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        /// In memory: what remains of it.
        Whole { data: Option<Bytes>, trailers: Option<Box<HeaderMap>> },
        Stored { source: Box<dyn Source>, trailers: Option<Box<HeaderMap>>, failed: bool },
        Inner { #[pin] body: B },
        Kept { #[pin] body: B, tee: Option<Box<dyn Tee>>, done: bool },
        Pumped { frames: tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, BodyError>>, hint: SizeHint, ended: bool },
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

    fn of(kind: Kind<B>) -> Self {
        Self { kind, status: None }
    }

    pub(crate) fn empty() -> Self {
        Self::of(Kind::Whole { data: None, trailers: None })
    }

    pub(crate) fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        let data = Some(data).filter(|data| !data.is_empty());
        Self::of(Kind::Whole { data, trailers: trailers.map(Box::new) })
    }

    pub(crate) fn stored(source: Box<dyn Source>, trailers: Option<HeaderMap>) -> Self {
        Self::of(Kind::Stored { source, trailers: trailers.map(Box::new), failed: false })
    }

    pub(crate) fn inner(body: B) -> Self {
        Self::of(Kind::Inner { body })
    }

    pub(crate) fn kept(body: B, tee: Box<dyn Tee>) -> Self {
        Self::of(Kind::Kept { body, tee: Some(tee), done: false })
    }

    pub(crate) fn pumped(
        frames: tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, BodyError>>,
        hint: SizeHint,
    ) -> Self {
        Self::of(Kind::Pumped { frames, hint, ended: false })
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
        match self.project().kind.project() {
            KindProj::Whole { data, trailers } => {
                let frame = data.take().map(Frame::data);
                Poll::Ready(frame.or_else(|| trailers.take().map(|map| Frame::trailers(*map))).map(Ok))
            }
            KindProj::Stored { failed: true, .. } => Poll::Ready(None),
            KindProj::Stored { source, trailers, failed } => {
                Poll::Ready(match ready!(source.poll_piece(cx)) {
                    Some(Ok(data)) => Some(Ok(Frame::data(data))),
                    Some(Err(error)) => {
                        *failed = true;
                        Some(Err(error))
                    }
                    None => trailers.take().map(|map| Ok(Frame::trailers(*map))),
                })
            }
            KindProj::Inner { body } => body.poll_frame(cx).map(|frame| frame.map(into_bytes)),
            KindProj::Kept { body, tee, done } => poll_kept(body, tee, done, cx),
            KindProj::Pumped { frames, ended, .. } => {
                let frame = ready!(frames.poll_recv(cx));
                *ended |= frame.is_none();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole { data, trailers } => data.is_none() && trailers.is_none(),
            Kind::Stored { source, trailers, failed } => {
                *failed || (source.remaining() == 0 && trailers.is_none())
            }
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Kept { body, done, .. } => *done || body.is_end_stream(),
            Kind::Pumped { ended, .. } => *ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
            Kind::Stored { source, .. } => SizeHint::with_exact(source.remaining()),
            Kind::Inner { body } | Kind::Kept { body, .. } => body.size_hint(),
            Kind::Pumped { hint, .. } => *hint,
        }
    }
}

/// Gives the frame on and keeps it; the last one only once the store has been told, so that whoever has the last byte
/// finds the response stored.
fn poll_kept<B>(
    mut body: Pin<&mut B>,
    tee: &mut Option<Box<dyn Tee>>,
    done: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    if let Some(tee) = tee {
        ready!(tee.poll_room(cx));
    }
    let frame = ready!(body.as_mut().poll_frame(cx)).map(into_bytes);
    *done = frame.is_none();
    if let Some(storing) = tee {
        let ended = match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    storing.data(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    storing.trailers(trailers);
                }
                body.is_end_stream() || storing.is_whole()
            }
            Some(Err(_)) => {
                *tee = None;
                return Poll::Ready(frame);
            }
            None => true,
        };
        if ended && let Some(mut tee) = tee.take() {
            tee.finish();
        }
    }
    Poll::Ready(frame)
}

/// The frame with its data as one piece (without copying, if it is [`Bytes`] already).
pub(crate) fn into_bytes<D: Buf, E: Into<Box<dyn StdError + Send + Sync>>>(
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
            Kind::Stored { .. } => "stored",
            Kind::Inner { .. } => "inner",
            Kind::Kept { .. } => "kept",
            Kind::Pumped { .. } => "pumped",
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
