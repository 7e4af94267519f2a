//! Continues bodies that break off (RFC 9110 §13.1.5 and §14).
//!
//! The readers of such a body do not see that it broke off: the origin is asked for the bytes that are missing, and they follow
//! the ones that have arrived.
//!
//! # Invariants
//!
//! - Each byte reaches the reader once and in order.
//! - Bytes of two responses are joined only if both belong to the same representation, by a strong validator, its complete length
//!   and its coding. The request says so too (If-Range).
//! - A body that is not continued ends as it would have without an attempt.
//! - Dropping the body drops the attempt.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request, response};
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::fetcher::{Fetcher, Unstorable, send};
use super::response::content_length;
use crate::body::{BodyError, CacheBody, Exclusive, Source};
use crate::policy::{self, ContentRange};
use crate::service::shared::Shared;
use crate::service::telemetry;
use crate::storage::{Storage, random_id};

/// The longest pause before the first attempt, in milliseconds. A connection that broke can usually be replaced at once.
const FIRST_PAUSE_MS: u64 = 100;
/// The longest pause before an attempt, in milliseconds. Callers wait for the rest of a body meanwhile.
const MAX_PAUSE_MS: u64 = 5_000;
/// How many bytes have to arrive before the attempts count anew.
///
/// A body of many gigabytes may break off more often than there are attempts. An origin that sends a few bytes each time must
/// not be asked for ever.
const PROGRESS: u64 = 1024 * 1024;

/// Returns a response whose body is continued if it breaks off.
///
/// Returns it unchanged if that is switched off or not possible.
pub(super) fn resumable<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &F,
    request: &request::Parts,
    response: Response<F::Body>,
) -> Response<CacheBody<F::Body>> {
    if shared.config.resume == 0 {
        return response.map(CacheBody::inner);
    }
    let (head, body) = response.into_parts();
    let body = match Extent::of(&head, &body.size_hint()) {
        Some(extent) if is_resumable(request, &head) => match fetcher.background() {
            Some(background) => {
                let resumption = Resumption::new(shared, background, request, &head, &extent);
                CacheBody::from_source(Box::new(Resuming::new(body, extent, resumption)))
            }
            None => CacheBody::inner(body),
        },
        _ => CacheBody::inner(body),
    };
    Response::from_parts(head, body)
}

/// Returns whether the rest of a response can be asked for.
fn is_resumable(request: &request::Parts, head: &response::Parts) -> bool {
    request.method == Method::GET
        && policy::is_resumable(&head.headers)
        // It depends on more than the request that the fetcher would send again.
        && Unstorable::reason(&head.extensions).is_none()
}

/// The bytes of a representation that a response contains.
struct Extent {
    start: u64,
    end: u64,
    /// The length of the complete representation.
    complete: u64,
}

impl Extent {
    /// Returns the extent of a response.
    ///
    /// Returns `None` if it is empty or not known, or if the fields or the hint of the body contradict each other.
    fn of(head: &response::Parts, hint: &SizeHint) -> Option<Self> {
        let announced = content_length(&head.headers);
        let extent = match head.status {
            StatusCode::OK => Self { start: 0, end: announced?, complete: announced? },
            StatusCode::PARTIAL_CONTENT => {
                let ContentRange { first, last, complete } = ContentRange::of(&head.headers)?;
                Self { start: first, end: last + 1, complete: complete? }
            }
            _ => return None,
        };
        let len = extent.end - extent.start;
        let agrees = announced.is_none_or(|announced| announced == len)
            && hint.lower() <= len
            && hint.upper().is_none_or(|most| most >= len);
        (len > 0 && agrees).then_some(extent)
    }
}

/// The body of one response. Boxed, since a body need not be `Unpin`.
type BoxedBody<B> = Pin<Box<CacheBody<B>>>;

/// A body that is continued if it breaks off.
struct Resuming<S: Storage, F: Fetcher> {
    /// `None` while it is being continued, and once it has ended.
    ///
    /// Exclusive, since a body need not be `Sync`.
    body: Option<Exclusive<BoxedBody<F::Body>>>,
    /// Whether the body has said that it is at its end. Kept here, since it can only be asked exclusively.
    body_is_end: bool,
    /// The offset after the bytes that the origin says the current response has.
    body_end: u64,
    /// The body is the one of a further response.
    is_continued: bool,
    state: Exclusive<State<S, F>>,
    /// The offset of the next byte in the representation.
    offset: u64,
    /// The offset after the last byte that is wanted.
    end: u64,
    /// How the body broke off, which is how it ends if it cannot be continued. `None` if it ended early without an error.
    broken: Option<BodyError>,
    /// Trailers that came too early.
    early_trailers: Option<Frame<Bytes>>,
    is_done: bool,
}

/// Tells what a body waits for.
enum State<S: Storage, F: Fetcher> {
    /// For its next frame.
    Reading(Box<Resumption<S, F>>),
    /// For a response that continues it.
    Attempting(Attempting<S, F>),
    /// For nothing, since it is not continued any more.
    Final,
}

/// The future of [`Resumption::resume`]. Boxed, since few bodies break off.
type Attempting<S, F> =
    Pin<Box<dyn Future<Output = (Box<Resumption<S, F>>, Option<Continued<<F as Fetcher>::Body>>)> + Send>>;

/// The body of a response that continues another one.
struct Continued<B> {
    body: BoxedBody<B>,
    /// The offset after its last byte.
    end: u64,
}

impl<S: Storage, F: Fetcher + 'static> Resuming<S, F> {
    fn new(body: F::Body, extent: Extent, resumption: Resumption<S, F>) -> Self {
        let Extent { start, end, .. } = extent;
        let body = Box::pin(CacheBody::inner(body));
        Self {
            body_is_end: body.is_end_stream(),
            body: Some(Exclusive::new(body)),
            body_end: end,
            is_continued: false,
            state: Exclusive::new(State::Reading(Box::new(resumption))),
            offset: start,
            end,
            broken: None,
            early_trailers: None,
            is_done: false,
        }
    }

    /// Begins to continue the body, which has broken off.
    ///
    /// Returns `false` if there is no attempt left, or no runtime to wait in.
    fn begin_attempt(&mut self) -> bool {
        // Dropped now, which releases its connection.
        self.body = None;
        let offset = self.offset;
        let state = self.state.get_mut();
        match std::mem::replace(state, State::Final) {
            State::Reading(mut resumption) => {
                let may_try = resumption.may_try(offset);
                if may_try {
                    *state = State::Attempting(Box::pin(resumption.resume(offset)));
                }
                may_try
            }
            State::Attempting(_) | State::Final => false,
        }
    }

    /// Ends the body as it had broken off.
    fn give_up(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.body = None;
        *self.state.get_mut() = State::Final;
        self.is_done = true;
        let error = self.broken.take().map(Err);
        Poll::Ready(error.or_else(|| self.early_trailers.take().map(Ok)))
    }
}

impl<S: Storage, F: Fetcher + 'static> Source for Resuming<S, F> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let State::Attempting(attempt) = self.state.get_mut() {
                let (resumption, continued) = ready!(attempt.as_mut().poll(cx));
                let Some(Continued { body, end }) = continued else { return self.give_up() };
                *self.state.get_mut() = State::Reading(resumption);
                (self.body_is_end, self.body_end, self.is_continued) = (body.is_end_stream(), end, true);
                self.body = Some(Exclusive::new(body));
            }
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            let body = body.get_mut();
            let polled = ready!(body.as_mut().poll_frame(cx));
            self.body_is_end = body.is_end_stream();
            match polled {
                Some(Ok(frame)) => match frame.data_ref() {
                    Some(data) => {
                        let offset = self.offset + data.len() as u64;
                        // The origin sends something else than it says, so that none of it can be trusted.
                        if self.is_continued && offset > self.body_end {
                            return self.give_up();
                        }
                        self.offset = offset;
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    // They would be followed by data.
                    None if self.offset < self.end => self.early_trailers = Some(frame),
                    None => return Poll::Ready(Some(Ok(frame))),
                },
                // No byte is missing, so that there is nothing to ask for.
                end if self.offset >= self.end => {
                    (self.body, self.is_done) = (None, true);
                    return Poll::Ready(end);
                }
                end => {
                    // Of several breaks, the last one that has an error tells most.
                    if let Some(Err(error)) = end {
                        self.broken = Some(error);
                    }
                    if !self.begin_attempt() {
                        return self.give_up();
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_done || (self.body_is_end && self.offset >= self.end)
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_done {
            true => SizeHint::with_exact(0),
            false => SizeHint::with_exact(self.end.saturating_sub(self.offset)),
        }
    }
}

/// Asks the origin for the rest of a body.
struct Resumption<S: Storage, F: Fetcher> {
    shared: Arc<Shared<S>>,
    fetcher: F,
    /// The request for the rest, without its range.
    request: request::Parts,
    /// The fields of the response that broke off first.
    fields: HeaderMap,
    /// Where that response came from.
    origin: [Option<Uri>; 2],
    end: u64,
    /// The length of the complete representation.
    complete: u64,
    /// How many attempts are left.
    left: u32,
    /// The offset of the first break since the attempts were counted anew.
    counted_from: u64,
}

/// Tells what an attempt has led to.
enum Attempt<B> {
    Continued(Continued<B>),
    /// The origin does not have the rest of the body.
    Refused,
    /// The origin could not answer, and may say when it can.
    Failed(Option<Duration>),
}

impl<S: Storage, F: Fetcher> Resumption<S, F> {
    fn new(
        shared: &Arc<Shared<S>>,
        fetcher: F,
        request: &request::Parts,
        head: &response::Parts,
        extent: &Extent,
    ) -> Self {
        let mut request = request.clone();
        policy::strip_conditions(&mut request.headers);
        if let Some(validator) = policy::strong_validator(&head.headers) {
            request.headers.insert(header::IF_RANGE, validator.clone());
        }
        Self {
            shared: Arc::clone(shared),
            fetcher,
            request,
            fields: head.headers.clone(),
            origin: shared.config.final_uris(head),
            end: extent.end,
            complete: extent.complete,
            left: shared.config.resume,
            counted_from: extent.start,
        }
    }

    /// Returns whether an attempt may be made after a break at an offset.
    fn may_try(&mut self, offset: u64) -> bool {
        if offset - self.counted_from >= PROGRESS {
            self.left = self.shared.config.resume;
        }
        if self.left == self.shared.config.resume {
            self.counted_from = offset;
        }
        self.left > 0 && Handle::try_current().is_ok()
    }

    /// Makes attempts until one succeeds, the origin refuses, or none is left.
    async fn resume(mut self: Box<Self>, offset: u64) -> (Box<Self>, Option<Continued<F::Body>>) {
        let (mut made, mut asked_to_wait) = (0, None);
        let (result, continued) = loop {
            // The reader may have moved to a thread without a runtime, where there is no timer.
            if self.left == 0 || Handle::try_current().is_err() {
                break ("failed", None);
            }
            self.left -= 1;
            sleep(pause(made, asked_to_wait)).await;
            made = made.saturating_add(1);
            tracing::debug!(offset, attempt = made, "asking for the rest of a body that broke off");
            match self.attempt(offset).await {
                Attempt::Continued(continued) => break ("done", Some(continued)),
                Attempt::Refused => break ("changed", None),
                Attempt::Failed(time) => asked_to_wait = time,
            }
        };
        telemetry::resumed(&self.shared.observer, result, offset);
        (self, continued)
    }

    /// Asks the origin for the bytes from an offset on.
    async fn attempt(&mut self, offset: u64) -> Attempt<F::Body> {
        let mut parts = self.request.clone();
        // Open where it can be: origins that know no other ranges exist.
        let range = match self.end == self.complete {
            true => format!("bytes={offset}-"),
            false => format!("bytes={offset}-{}", self.end - 1),
        };
        let Ok(range) = HeaderValue::try_from(range) else { return Attempt::Refused };
        parts.headers.insert(header::RANGE, range);
        let body = self.fetcher.repeated_body();
        match send(&self.shared, &mut self.fetcher, Request::from_parts(parts, body)).await {
            Ok(response) => self.judge(response, offset),
            Err(_) => Attempt::Failed(None),
        }
    }

    /// Returns what a response means for the body, which broke off at an offset.
    fn judge(&self, response: Response<F::Body>, offset: u64) -> Attempt<F::Body> {
        let (head, body) = response.into_parts();
        let status = head.status;
        if status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
        {
            return Attempt::Failed(policy::retry_after(&head.headers, self.shared.config.clock.now()));
        }
        let extent = Extent::of(&head, &body.size_hint());
        match extent.filter(|_| status == StatusCode::PARTIAL_CONTENT) {
            Some(Extent { start, end, complete })
                if start == offset
                    && end <= self.end
                    && complete == self.complete
                    && policy::is_continued_by(&self.fields, &head.headers)
                    && Unstorable::reason(&head.extensions).is_none()
                    // Two resources may have the same entity tag.
                    && self.shared.config.final_uris(&head) == self.origin =>
            {
                Attempt::Continued(Continued { body: Box::pin(CacheBody::inner(body)), end })
            }
            _ => Attempt::Refused,
        }
    }
}

/// Returns the pause before an attempt, if this many were made for the same break.
///
/// It is between half and all of a limit that doubles with each attempt, so that bodies that broke off together are not asked for
/// together. It is longer if the origin asks for that, and never longer than [`MAX_PAUSE_MS`].
fn pause(made: u32, asked: Option<Duration>) -> Duration {
    // The shift is bounded so that it cannot overflow; the limit is reached before.
    let longest = MAX_PAUSE_MS.min(FIRST_PAUSE_MS << made.min(10));
    let [byte, ..] = random_id();
    let pause = Duration::from_millis(longest / 2 + longest / 2 * u64::from(byte) / 256);
    pause.max(asked.unwrap_or_default().min(Duration::from_millis(MAX_PAUSE_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit() {
        for (made, longest) in [100, 200, 400, 800, 1600, 3200, 5000, 5000].into_iter().enumerate() {
            let pause = pause(made as u32, None).as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{pause} of {longest}");
        }
        let asked = |seconds| pause(0, Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!((asked(3), asked(u64::MAX)), (3, 5));
        assert!(pause(u32::MAX, Some(Duration::ZERO)) >= Duration::from_millis(2500));
    }
}
