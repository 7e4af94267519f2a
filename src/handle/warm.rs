//! Fetches responses in advance.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, Request, Response, Uri};
use http_body::Body;
use tokio::time::{Instant, sleep_until};
use tower_service::Service;

use super::CacheHandle;
use crate::control::{CacheStatus, Outcome, Stored};
use crate::policy;
use crate::service::Warming;
use crate::storage::Storage;

/// How many requests are under way at a time, by default.
const AT_ONCE: usize = 8;
/// The most links that one run follows, so that an origin which links on and on does not keep it busy for ever.
const MAX_LINKS: usize = 10_000;
/// How many writes under way are remembered before those that have ended are counted.
const MAX_STORING: usize = 1024;

/// The results of the requests of a [`Warmer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmReport {
    /// Responses that were fetched and stored.
    ///
    /// In a report of progress, also those that are being stored.
    pub stored: u64,
    /// Responses that were stored already, fresh or stale.
    pub hits: u64,
    /// Responses that were stored already, and confirmed by the origin.
    pub revalidated: u64,
    /// Responses that were fetched and not stored.
    ///
    /// The reason is in [`CacheStatus::stored`] if you send the request yourself, or in the event `not stored` if the storage
    /// did not take the response.
    pub not_stored: u64,
    /// Requests for which the service or the body failed, and URLs that are none.
    pub failed: u64,
}

impl WarmReport {
    /// Returns the number of requests that were answered or failed.
    pub fn total(&self) -> u64 {
        self.stored + self.hits + self.revalidated + self.not_stored + self.failed
    }
}

type Progress<'h> = Box<dyn FnMut(&WarmReport) + Send + 'h>;

/// Sends requests through a service that contains a cache, so that their responses are stored.
///
/// It is made by [`CacheHandle::warm`]. Say how fast it goes, then what it requests:
/// [`requests`](Self::requests), [`urls`](Self::urls) or a [`sitemap`](Self::sitemap). The bodies are read to their end, and
/// the futures complete when the responses are stored.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use http::{Request, Response};
/// # use http_body_util::{Empty, Full};
/// # use bytes::Bytes;
/// # use tower::{Layer, service_fn};
/// use std::time::Duration;
/// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
/// # let client = service_fn(|_: Request<Empty<Bytes>>| async {
/// #     Ok::<_, http::Error>(Response::builder().header("cache-control", "max-age=60").body(Full::new(Bytes::from("hello")))?)
/// # });
///
/// let layer = CacheLayer::new(MemoryStorage::new());
/// let service = layer.layer(client); // and layers above it, if you like
/// let handle = layer.handle();
/// let warmed = handle
///     .warm(service)
///     .at_once(4)
///     .rate(100, Duration::from_secs(1))
///     .progress(|report| println!("{} of 2", report.total()))
///     .urls(["https://example.com/a", "https://example.com/b"])
///     .await;
/// assert_eq!((warmed.stored, warmed.failed), (2, 0));
/// # });
/// # }
/// ```
#[must_use = "nothing is requested before `requests`, `urls` or `sitemap`"]
pub struct Warmer<'h, S: Storage, Svc, ReqB> {
    handle: &'h CacheHandle<S>,
    pub(super) service: Svc,
    at_once: usize,
    /// The time between the starts of two requests.
    spacing: Duration,
    pub(super) headers: HeaderMap,
    /// Makes the body of a request for a link. `None` if links are not followed.
    link_body: Option<fn() -> ReqB>,
    progress: Option<Progress<'h>>,
}

impl<S: Storage> CacheHandle<S> {
    /// Returns a [`Warmer`], which sends requests through a service that contains this cache.
    ///
    /// Layers above the cache count as for any request. What became of a response is read from the status in its extensions:
    /// without one, as with [`status_in_extensions(false)`](crate::CacheLayerBuilder::status_in_extensions) or where a request
    /// does not pass the cache, it counts as not stored.
    ///
    /// A service that takes several kinds of request bodies, such as axum's `Router`, needs one of them to be named:
    /// `handle.warm::<_, axum::body::Body>(router)`.
    pub fn warm<Svc, ReqB>(&self, service: Svc) -> Warmer<'_, S, Svc, ReqB>
    where
        Svc: Service<Request<ReqB>> + Clone,
    {
        Warmer {
            handle: self,
            service,
            at_once: AT_ONCE,
            spacing: Duration::ZERO,
            headers: HeaderMap::new(),
            link_body: None,
            progress: None,
        }
    }
}

impl<'h, S, Svc, ReqB, ResB> Warmer<'h, S, Svc, ReqB>
where
    S: Storage,
    Svc: Service<Request<ReqB>, Response = Response<ResB>> + Clone,
    ResB: Body,
{
    /// Sets how many requests are under way at a time, at least one.
    ///
    /// Default: 8.
    pub fn at_once(mut self, requests: usize) -> Self {
        self.at_once = requests.max(1);
        self
    }

    /// Limits how many requests are begun in a time. They are spread evenly over it, without bursts.
    ///
    /// Hits count too, since it is not known before that they are hits.
    ///
    /// Default: no limit.
    pub fn rate(mut self, requests: u32, per: Duration) -> Self {
        self.spacing = per / requests.max(1);
        self
    }

    /// Sets the fields of the requests that are made from URLs and links.
    ///
    /// Fields that select a variant (Accept, Accept-Encoding, Authorization …) should be those of the requests to come.
    ///
    /// Default: none.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// Sets a function that is called after each request, with the results so far.
    ///
    /// It should return at once, since requests wait for it.
    pub fn progress(mut self, report: impl FnMut(&WarmReport) + Send + 'h) -> Self {
        self.progress = Some(Box::new(report));
        self
    }

    /// Sets whether links are followed: those that a response of a run names in the field Link as `preload` or `prefetch`.
    ///
    /// A page thereby brings its styles, scripts and fonts. Links of responses that are not stored are not followed, nor are
    /// links to another origin. Each is requested once in a run, and at most 10,000 are. The requests have the fields of
    /// [`headers`](Self::headers).
    ///
    /// Default: `false`.
    pub fn follow_links(mut self, follow: bool) -> Self
    where
        ReqB: Default,
    {
        self.link_body = follow.then_some(ReqB::default as fn() -> ReqB);
        self
    }

    /// Sends these requests.
    ///
    /// Fields, Cache-Control and [`CacheOptions`](crate::CacheOptions) of the requests count as usual.
    #[allow(clippy::future_not_send)] // the future is Send if the service and the requests are
    pub async fn requests(mut self, requests: impl IntoIterator<Item = Request<ReqB>>) -> WarmReport {
        let mut run = Run::default();
        self.send_all(&mut run, requests.into_iter().map(Some)).await;
        self.finish(run).await
    }

    /// Requests these URLs with GET and the fields of [`headers`](Self::headers).
    ///
    /// The iterator is read as far as requests are sent, so that a list may be long. A text that is not a URL counts as
    /// failed.
    #[allow(clippy::future_not_send)] // as above
    pub async fn urls<U: AsRef<str>>(mut self, urls: impl IntoIterator<Item = U>) -> WarmReport
    where
        ReqB: Default,
    {
        let mut run = Run::default();
        let headers = self.headers.clone();
        let requests = urls.into_iter().map(|url| {
            let uri = url.as_ref().trim().parse().ok()?;
            Some(get(uri, &headers, ReqB::default()))
        });
        self.send_all(&mut run, requests).await;
        self.finish(run).await
    }

    /// Sends requests, and those for the links of their responses. `None` is one that failed already.
    #[allow(clippy::future_not_send)] // as above
    pub(super) async fn send_all(
        &mut self,
        run: &mut Run,
        mut requests: impl Iterator<Item = Option<Request<ReqB>>>,
    ) {
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.at_once {
                let link =
                    self.link_body.and_then(|body| Some(get(run.links.pop_front()?, &self.headers, body())));
                let Some(next) = link.map(Some).or_else(|| requests.next()) else { break };
                let Some(mut request) = next else {
                    self.fail(run);
                    continue;
                };
                let warming = Warming::new(self.handle.shared.records.number);
                request.extensions_mut().insert(warming.clone());
                let start = run.next_start(self.spacing);
                let answer = answer(self.service.clone(), request, start, self.link_body.is_some());
                running.push(async move { (answer.await, warming) });
            }
            let Some((answer, warming)) = running.next().await else { return };
            run.count(answer, warming);
            if let Some(progress) = &mut self.progress {
                progress(&run.warmed);
            }
        }
    }

    /// Counts a request that could not be sent.
    pub(super) fn fail(&mut self, run: &mut Run) {
        run.warmed.failed += 1;
        if let Some(progress) = &mut self.progress {
            progress(&run.warmed);
        }
    }

    /// Waits for the writes of a run, and returns its results.
    pub(super) async fn finish(self, mut run: Run) -> WarmReport {
        self.handle.shared.records.tasks.idle().await;
        // The storage may have refused a response in the end, or another writer may have been faster.
        run.settle(|_| true);
        run.warmed
    }
}

impl<S: Storage, Svc, ReqB> fmt::Debug for Warmer<'_, S, Svc, ReqB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warmer")
            .field("at_once", &self.at_once)
            .field("spacing", &self.spacing)
            .finish_non_exhaustive()
    }
}

/// The results of a run, and the requests that it has still to send.
#[derive(Default)]
pub(super) struct Run {
    warmed: WarmReport,
    /// Responses that counted as stored when their writes began.
    storing: Vec<Warming>,
    /// Links to be requested.
    links: VecDeque<Uri>,
    /// All links that were found.
    seen: HashSet<Uri>,
    /// When the next request may begin.
    next: Option<Instant>,
}

impl Run {
    fn next_start(&mut self, spacing: Duration) -> Option<Instant> {
        if spacing.is_zero() {
            return None;
        }
        let now = Instant::now();
        let start = self.next.map_or(now, |next| next.max(now));
        self.next = Some(start + spacing);
        Some(start)
    }

    fn count(&mut self, answer: Option<Answer>, warming: Warming) {
        let Some(answer) = answer else {
            self.warmed.failed += 1;
            return;
        };
        *(match answer.status.map(|status| (status.outcome(), status.stored())) {
            Some((Outcome::Hit | Outcome::Stale(_), _)) => &mut self.warmed.hits,
            Some((Outcome::Revalidated(_), _)) => &mut self.warmed.revalidated,
            Some((_, Stored::Storing)) => {
                self.storing.push(warming);
                if self.storing.len() > MAX_STORING {
                    self.settle(Warming::is_settled);
                }
                &mut self.warmed.stored
            }
            _ => {
                self.warmed.not_stored += 1;
                return;
            }
        }) += 1;
        for link in answer.links {
            if self.seen.len() < MAX_LINKS && self.seen.insert(link.clone()) {
                self.links.push_back(link);
            }
        }
    }

    /// Forgets the writes that have ended, and counts those of them that failed as not stored.
    fn settle(&mut self, has_ended: impl Fn(&Warming) -> bool) {
        let mut failed = 0;
        self.storing.retain(|warming| {
            let has_ended = has_ended(warming);
            failed += u64::from(has_ended && warming.has_failed());
            !has_ended
        });
        self.warmed.stored -= failed;
        self.warmed.not_stored += failed;
    }
}

struct Answer {
    /// `None` if the request went through no cache.
    status: Option<CacheStatus>,
    links: Vec<Uri>,
}

/// Returns a GET request.
pub(super) fn get<ReqB>(uri: Uri, headers: &HeaderMap, body: ReqB) -> Request<ReqB> {
    let mut request = Request::new(body);
    *request.uri_mut() = uri;
    *request.headers_mut() = headers.clone();
    request
}

/// Sends a request when its time has come, and reads the response to its end. Returns `None` if it failed.
#[allow(clippy::future_not_send)]
async fn answer<Svc, ReqB, ResB>(
    mut service: Svc,
    request: Request<ReqB>,
    start: Option<Instant>,
    follows_links: bool,
) -> Option<Answer>
where
    Svc: Service<Request<ReqB>, Response = Response<ResB>>,
    ResB: Body,
{
    if let Some(start) = start {
        sleep_until(start).await;
    }
    let uri = follows_links.then(|| request.uri().clone());
    poll_fn(|cx| service.poll_ready(cx)).await.ok()?;
    let (head, body) = service.call(request).await.ok()?.into_parts();
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        frame.ok()?;
    }
    let links = uri.map_or_else(Vec::new, |uri| policy::hinted(&uri, &head.headers));
    Some(Answer { status: head.extensions.get().copied(), links })
}
