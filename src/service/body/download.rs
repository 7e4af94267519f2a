//! One body on its way from the origin, read by as many as want it.
//!
//! Promises: the body is asked for more by whoever needs the next byte, so that a reader who is slow, stops or goes away
//! never holds up the others, and two readers in one task never wait for each other; each reader gets every byte once and
//! in order, or an error, never less; what is in the store is not kept in memory. Where storing ends early, those who
//! have begun to read go on through a bounded window at the pace of the slowest, and who is too slow for too long fails
//! alone. A reader has the last byte only when the next request finds the response.
//!
//! One lock guards it all. It is held while the body and the store are polled, never across a wait.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, SizeHint};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::commit::Plan;
use super::flights::Registration;
use super::recorder::Recorder;
use super::tasks::after;
use super::wakers::Wakers;
use super::window::Window;
use crate::body::{BodyError, BodyErrorKind};
use crate::error::{Error, ErrorKind};
use crate::storage::Storage;

/// How many bytes the fastest reader may be ahead of the slowest, where they are not in the store.
const AHEAD: u64 = 256 * 1024;

pub(crate) type Incoming = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>;

pub(crate) struct Download<S: Storage> {
    pub(crate) plan: Arc<Plan<S>>,
    /// The announced length.
    pub(crate) expected: Option<u64>,
    pub(crate) wakers: Arc<Wakers>,
    /// Wakes all who wait.
    waker: Waker,
    state: Mutex<State<S>>,
}

pub(crate) struct State<S: Storage> {
    /// `None`: it has ended.
    body: Option<Incoming>,
    pub(crate) window: Window,
    keeping: Keeping<S>,
    pub(crate) end: Option<Result<(), BodyError>>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) places: Places,
    /// Since when the slowest reader has held up the others, and where it is.
    stuck: Option<(Instant, u64)>,
    /// When the origin was heard last.
    heard: Instant,
    /// Others may still come and read from the beginning.
    registration: Option<Registration<S>>,
}

enum Keeping<S: Storage> {
    Recording(Recorder<S>),
    /// It is in the store, or will be there when those who announced it are done.
    Stored,
    /// It is not stored: all there is of it is the window.
    Live,
}

/// How far the readers are.
#[derive(Default)]
pub(crate) struct Places {
    places: Vec<Place>,
    readers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    At(u64),
    /// It needs nothing more.
    Done,
    /// It was too slow for the others.
    Cut,
}

/// What came of asking for more.
pub(crate) enum More {
    /// There is more, or the end.
    Come,
    /// Whoever waits is woken.
    Wait,
    /// Nothing more may come until the slowest reader has gone on, or until then.
    Stuck(Instant),
}

impl<S: Storage> Download<S> {
    pub(crate) fn new(
        plan: Arc<Plan<S>>,
        recorder: Recorder<S>,
        body: Incoming,
        expected: Option<u64>,
        registration: Option<Registration<S>>,
    ) -> Arc<Self> {
        let wakers: Arc<Wakers> = Arc::default();
        let state = State {
            body: Some(body),
            window: Window::default(),
            keeping: Keeping::Recording(recorder),
            end: None,
            trailers: None,
            places: Places::default(),
            stuck: None,
            heard: Instant::now(),
            registration,
        };
        let waker = Waker::from(Arc::clone(&wakers));
        Arc::new(Self { plan, expected, wakers, waker, state: Mutex::new(state) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(|poisoned| {
            // The body panicked while somebody asked it for more. That one's task has the panic.
            let mut state = poisoned.into_inner();
            self.state.clear_poison();
            let error = Error::new(ErrorKind::Other, "the response's body panicked");
            state.end_with(Err(BodyError::new(BodyErrorKind::Inner, Some(error))));
            state
        })
    }

    /// Asks the body for more, on behalf of all who wait.
    pub(crate) fn poll_more(&self, state: &mut State<S>, patience: Duration) -> More {
        let mut cx = Context::from_waker(&self.waker);
        if let Keeping::Recording(recorder) = &mut state.keeping {
            match recorder.poll_room(&mut cx, &mut state.window) {
                Poll::Pending => return More::Wait,
                Poll::Ready(true) => {}
                Poll::Ready(false) => state.end_keeping(Keeping::Live),
            }
        }
        let has_room = match state.keeping {
            Keeping::Recording(_) => true,
            // What comes beyond the announced length is in no store either.
            Keeping::Stored => {
                state.makes_room() || self.expected.is_none_or(|expected| state.window.end() <= expected)
            }
            Keeping::Live => state.makes_room(),
        };
        if !has_room {
            let slowest = state.places.slowest().unwrap_or_default();
            let (since, _) = *state.stuck.get_or_insert_with(|| (Instant::now(), slowest));
            let until = after(patience).min(since.checked_add(patience).unwrap_or_else(|| after(patience)));
            if Instant::now() < until && Handle::try_current().is_ok() {
                return More::Stuck(until);
            }
            tracing::debug!("a reader of a shared body was too slow, and is left behind");
            state.cut_slowest();
            self.waker.wake_by_ref();
            return More::Come;
        }
        match state.poll_body(&mut cx) {
            Poll::Ready(()) => More::Come,
            Poll::Pending => More::Wait,
        }
    }

    /// Returns how much may still come beyond a place.
    ///
    /// The hint is exact only where all has come, or where the origin announced the length and has kept to it so far. A
    /// server frames a response by it: an exact hint of a body that broke off would pass half of it off as the whole.
    pub(crate) fn size_hint(&self, place: u64) -> SizeHint {
        let state = self.lock();
        let total = state.window.end();
        let come = total.saturating_sub(place);
        let mut hint = SizeHint::new();
        hint.set_lower(come);
        let is_contradicted = |expected| total > expected || (state.end.is_some() && total != expected);
        match (&state.end, self.expected) {
            (Some(Err(_)), None) => {}
            (_, Some(expected)) if is_contradicted(expected) => {}
            (_, Some(expected)) => hint.set_exact(expected.saturating_sub(place)),
            (Some(Ok(())), None) => hint.set_exact(come),
            (None, None) => {
                let inner = state.body.as_ref().map(|body| body.size_hint()).unwrap_or_default();
                hint.set_lower(inner.lower().saturating_add(come));
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(come));
                }
            }
        }
        hint
    }

    /// Whether nothing comes after a place.
    pub(crate) fn is_end(&self, place: u64) -> bool {
        let state = self.lock();
        state.window.end() == place
            && state.trailers.is_none()
            && match (&state.end, &state.body) {
                (Some(end), _) => end.is_ok(),
                (None, Some(body)) => body.is_end_stream(),
                (None, None) => true,
            }
    }
}

impl<S: Storage> State<S> {
    /// True while it is being stored.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.keeping, Keeping::Recording(_)) && self.end.is_none()
    }

    /// Whether who comes now can read it from the beginning: while it is being stored and was heard of within this time,
    /// and afterwards if it is short.
    pub(crate) fn takes_readers(&self, patience: Duration) -> bool {
        (self.is_open() && self.heard.elapsed() < patience)
            || (matches!(self.keeping, Keeping::Stored) && self.window.start() == 0)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut has_its_length = false;
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(()) };
            let frame = match body.as_mut().poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending if has_its_length => {
                    // Most callers stop at the announced length, so that there may be no later time to store it.
                    self.finish();
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            };
            self.heard = Instant::now();
            match frame {
                Some(Ok(frame)) => {
                    let has_ended = body.is_end_stream();
                    match frame.into_data() {
                        Ok(data) => self.window.push(data),
                        Err(frame) => self.trailers = frame.into_trailers().ok(),
                    }
                    let total = self.window.end();
                    if let Keeping::Recording(recorder) = &mut self.keeping {
                        if !recorder.accepts(total) {
                            self.end_keeping(Keeping::Live);
                        } else if has_ended || (recorder.is_whole(total) && has_its_length) {
                            self.finish();
                        } else if recorder.is_whole(total) {
                            // The body does not say that it ends here. Where more is at hand, the length was a lie, and
                            // what has come is not the whole.
                            has_its_length = true;
                            continue;
                        }
                    }
                    if has_ended {
                        self.end_with(Ok(()));
                    }
                }
                Some(Err(error)) => self.end_with(Err(error)),
                None => {
                    self.finish();
                    self.end_with(Ok(()));
                }
            }
            return Poll::Ready(());
        }
    }

    /// There is no body.
    pub(crate) fn finish_empty(&mut self) {
        self.finish();
        self.end_with(Ok(()));
    }

    /// The body is whole: what it was is stored.
    fn finish(&mut self) {
        if let Keeping::Recording(recorder) = &mut self.keeping {
            let is_kept = recorder.finish(&self.window, self.trailers.clone());
            self.end_keeping(if is_kept { Keeping::Stored } else { Keeping::Live });
        }
    }

    fn end_with(&mut self, end: Result<(), BodyError>) {
        self.body = None;
        if end.is_err() && self.is_open() {
            self.end_keeping(Keeping::Live);
        }
        self.end.get_or_insert(end);
    }

    /// From now on nobody comes to it any more: what is stored is announced elsewhere.
    fn end_keeping(&mut self, keeping: Keeping<S>) {
        self.keeping = keeping;
        self.registration = None;
    }

    /// Lets go of what everybody has; true: there is room for more.
    fn makes_room(&mut self) -> bool {
        self.window.release(self.places.slowest().unwrap_or(u64::MAX));
        self.window.end() - self.window.start() < AHEAD
    }

    fn cut_slowest(&mut self) {
        self.stuck = None;
        if let Some(slowest) = self.places.slowest() {
            let all = self.places.places.iter_mut();
            all.filter(|place| **place == Place::At(slowest)).for_each(|place| *place = Place::Cut);
        }
    }

    /// Notes that a reader has gone on; true: others may wait for that.
    pub(crate) fn moved(&mut self, reader: usize, to: Option<u64>) -> bool {
        if let Some(place) = self.places.places.get_mut(reader)
            && *place != Place::Cut
        {
            *place = to.map_or(Place::Done, Place::At);
        }
        // Where it was the slowest who went on, there is room now, and whoever is the slowest then has its own time.
        let goes_on =
            self.stuck.is_some_and(|(_, at)| self.places.slowest().is_none_or(|slowest| slowest > at));
        if goes_on {
            self.stuck = None;
        }
        goes_on
    }
}

impl Places {
    /// A number for a reader that begins at this place.
    pub(crate) fn enter(&mut self, place: u64) -> usize {
        self.readers += 1;
        let is_free = |place: &Place| *place == Place::Free;
        // Nobody looks for one where there is none.
        let free = Some(&self.places).filter(|places| self.readers <= places.len());
        let reader = free.and_then(|places| places.iter().position(is_free)).unwrap_or_else(|| {
            self.places.push(Place::Free);
            self.places.len() - 1
        });
        self.places[reader] = Place::At(place);
        reader
    }

    /// Gives the number back; how many readers are left.
    pub(crate) fn leave(&mut self, reader: usize) -> usize {
        if let Some(place) = self.places.get_mut(reader) {
            *place = Place::Free;
        }
        self.readers = self.readers.saturating_sub(1);
        self.readers
    }

    pub(crate) fn is_cut(&self, reader: usize) -> bool {
        self.places.get(reader) == Some(&Place::Cut)
    }

    fn slowest(&self) -> Option<u64> {
        self.places.iter().filter_map(|place| if let Place::At(at) = place { Some(*at) } else { None }).min()
    }
}
