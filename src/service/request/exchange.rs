//! The way of a request: look up, decide, and serve, validate or fetch.
//!
//! Promises: decides nothing itself (that is the policy's) and keeps to what it is told; the inner error reaches the
//! caller untouched; whatever the store does, the request goes on.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, Request, Response, StatusCode, Uri, header, request};
use http_body::Body;

use super::config::Tape;
use super::core::Core;
use super::fetcher::Fetcher;
use super::flights::{Landed, Lead};
use super::judge::forget_content;
use super::keep::Exchange;
use super::lookup::{Found, Place, variant_in};
use super::respond::{Asked, stored_status};
use super::way::traced;
use crate::body::CacheBody;
use crate::control::{BypassReason, CacheStatus, MissReason, Outcome, Stored};
use crate::entry::{self, Slot};
use crate::error::Result as StoreResult;
use crate::key::{self, EffectiveUri, Lacks};
use crate::policy::{self, Interest, RequestDirectives, StaleReason, ValidateReason, Verdict};
use crate::storage::{Key, Record, Storage};
use crate::time::Timestamp;

pub(crate) type Answered<F> = Result<Response<CacheBody<<F as Fetcher>::Body>>, <F as Fetcher>::Error>;

/// Which way a request takes.
pub(crate) enum Route {
    /// No cache answers or stores it.
    Bypass(BypassReason),
    /// Straight to the origin; if that succeeds, what is stored for its URI is invalidated.
    Unsafe,
    /// The cache may answer.
    Lookup,
    /// The cache may answer, once the content is known.
    #[cfg(feature = "content-keys")]
    Content,
}

/// What a request's body says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    None,
    Some,
    /// The body does not say whether there is any.
    Unknown,
}

impl Content {
    #[inline]
    pub(crate) fn of(body: &impl Body) -> Self {
        if body.is_end_stream() {
            return Self::None;
        }
        let hint = body.size_hint();
        match hint.exact() {
            Some(0) => Self::None,
            None if hint.lower() == 0 => Self::Unknown,
            _ => Self::Some,
        }
    }
}

/// How far the store's answer goes.
pub(crate) enum Served<B> {
    Answered(Response<CacheBody<B>>),
    Needs(Need),
}

/// What a request needs from the origin.
#[derive(Clone)]
pub(crate) enum Need {
    /// A response: nothing stored can be used.
    Fetch(MissReason),
    /// A response, or word which of the stored ones it is.
    Select,
    /// Word about the stored response in this record.
    Validate(Key, Record, ValidateReason),
}

/// For so long after it failed, the origin is not asked again while stale responses do.
const PAUSE: Duration = Duration::from_secs(1);
/// For so long, one request asks it beside the others, which are answered at once.
const LATELY: Duration = Duration::from_secs(10);

/// What was read already: where, and what the store said.
pub(crate) type First = Option<(Key, StoreResult<Option<Record>>)>;

impl<S: Storage> Core<S> {
    /// `uri` is the request's effective URI.
    pub(crate) fn route(
        &self,
        parts: &request::Parts,
        content: Content,
        interest: Interest,
        uri: Option<&EffectiveUri<'_>>,
        bypasses: bool,
    ) -> Route {
        let bypass = match bypasses {
            true => Some(BypassReason::Disabled),
            false if interest.host && uri.is_some_and(|uri| uri.is_host_malformed(parts)) => {
                Some(BypassReason::MalformedHost)
            }
            false => None,
        };
        #[cfg(feature = "content-keys")]
        if self.reads_content(parts) {
            return self.route_by_content(parts, bypass);
        }
        let safe = matches!(parts.method, Method::GET | Method::HEAD);
        if matches!(parts.method, Method::CONNECT | Method::OPTIONS | Method::TRACE) {
            return Route::Bypass(BypassReason::Method);
        }
        if interest.control {
            let has = |name: HeaderName| parts.headers.contains_key(name);
            let has_content = has(header::TRANSFER_ENCODING)
                || parts.headers.get(header::CONTENT_LENGTH).is_some_and(|len| len.as_bytes() != b"0");
            // These two are conditions on the origin's state, which a cache cannot evaluate (RFC 9111 §4.3.2).
            let of_origin = has(header::IF_MATCH) || has(header::IF_UNMODIFIED_SINCE);
            if has(header::UPGRADE) {
                return Route::Bypass(BypassReason::Upgrade);
            }
            if safe && has_content {
                return Route::Bypass(BypassReason::Content);
            }
            if safe && of_origin {
                return Route::Bypass(BypassReason::Condition);
            }
        }
        match (safe, content) {
            (true, Content::Some) => return Route::Bypass(BypassReason::Content),
            (true, Content::Unknown) => {
                return Route::Bypass(bypass.unwrap_or(BypassReason::UnknownBody));
            }
            _ => {}
        }
        match uri {
            None => Route::Bypass(bypass.unwrap_or_else(|| why_unidentified(parts))),
            Some(_) if !safe => Route::Unsafe,
            Some(_) if !self.config.methods.contains(&parts.method) => Route::Bypass(BypassReason::Method),
            Some(_) => match bypass {
                Some(reason) => Route::Bypass(reason),
                None if !self.passes_filters(parts) => Route::Bypass(BypassReason::Filtered),
                None => Route::Lookup,
            },
        }
    }

    /// Whether the user's filters leave a request to the cache: those that need no waiting.
    pub(super) fn passes_filters(&self, parts: &request::Parts) -> bool {
        self.config.filters.iter().all(|filter| filter(parts))
    }

    /// Sends a request that is none of the cache's business; one that wants only what is stored is refused.
    pub(crate) async fn bypass<F: Fetcher>(
        self: Arc<Self>,
        mut fetcher: F,
        request: Request<F::RequestBody>,
        reason: BypassReason,
    ) -> Answered<F> {
        self.warn_of(reason);
        let (parts, body) = request.into_parts();
        let answered = self.config.methods.contains(&parts.method);
        // What is not safe goes out all the same, unless the user made its method one that only reads.
        let reads = answered || policy::is_safe(&parts.method);
        if self.config.tape == Some(Tape::Replay) || (reads && self.directives(&parts).only_if_cached) {
            return Ok(self.refuse_request(&parts));
        }
        traced(self.span(&parts), async {
            let response = self.send(&mut fetcher, Request::from_parts(parts, body)).await?;
            let unstored = match answered {
                true => policy::NotStored::Bypassed,
                false => policy::NotStored::MethodNotCacheable,
            };
            let status = CacheStatus::new(Outcome::Bypass(reason), Stored::No(unstored));
            let status = CacheStatus { origin_status: Some(response.status().as_u16()), ..status };
            Ok(self.finish(response.map(CacheBody::inner), status))
        })
        .await
    }

    /// Sends an unsafe request, and invalidates what its success makes doubtful. `bypasses`: it passes the cache by, so
    /// that its response is not stored.
    pub(crate) async fn change<F: Fetcher>(
        self: Arc<Self>,
        fetcher: F,
        parts: request::Parts,
        body: F::RequestBody,
        bypasses: bool,
    ) -> Answered<F> {
        if self.config.tape == Some(Tape::Replay) {
            return Ok(self.refuse_request(&parts));
        }
        let span = self.span(&parts);
        traced(span, self.send_change(fetcher, parts, body, bypasses)).await
    }

    async fn send_change<F: Fetcher>(
        self: Arc<Self>,
        mut fetcher: F,
        parts: request::Parts,
        body: F::RequestBody,
        bypasses: bool,
    ) -> Answered<F> {
        let mut asked = parts.clone();
        let (requested, changes) = (self.config.clock.now(), self.changes.mark());
        let response = self.send(&mut fetcher, Request::from_parts(parts, body)).await?;
        let times = Exchange { requested, responded: self.config.clock.now() };
        self.invalidate_named(&asked, response.headers()).await;
        let uri = self.plain_uri(&asked).and_then(|text| text.parse::<Uri>().ok());
        if let Some(uri) = uri
            // What is recorded stays.
            && self.config.tape.is_none()
            && policy::invalidates(&asked.method, response.status())
            && let Some(effective) = self.identify(&asked)
        {
            let mut named = policy::invalidated(&uri, response.headers());
            if let Some(other) = self.other_scheme(&asked, &uri) {
                named.extend(policy::invalidated(&other, response.headers()));
                named.push(other);
            }
            let tombstone = self.invalidate_all(&effective, &named, &asked).await;
            if let Some(seen) = tombstone
                && policy::answers_get(&asked.method, &uri, response.headers(), &self.config.policy)
                && !bypasses
                && self.passes_filters(&asked)
                && self.admits(&asked).await
            {
                let head = self.keyer.head(&effective);
                let plain = self.plain_text(&effective, &asked);
                let place = Place::behind(head, (&effective, plain), seen, times.responded, changes);
                asked.method = Method::GET;
                let response = self.admit(&asked, Some(&place), requested, response).await;
                let outcome = Outcome::Miss(MissReason::Method);
                return Ok(self.keep::<F>(&asked, Some(place), response, times, outcome, None));
            }
        }
        let status = CacheStatus::new(
            Outcome::Miss(MissReason::Method),
            Stored::No(policy::NotStored::MethodNotCacheable),
        );
        let status = CacheStatus { origin_status: Some(response.status().as_u16()), ..status };
        Ok(self.finish(response.map(CacheBody::inner), status))
    }

    /// Answers a request that may be answered from the store; `departures` as they were before `first` was read. What
    /// goes to the origin has a box of its own, so that the one for the lookup stays small.
    pub(crate) async fn run<F: Fetcher>(
        self: Arc<Self>,
        mut fetcher: F,
        mut parts: request::Parts,
        body: F::RequestBody,
        first: First,
        departures: u64,
    ) -> Answered<F> {
        let (place, found) = {
            let Some(uri) = self.identify(&parts) else {
                let reason = why_unidentified(&parts);
                return Box::pin(self.bypass(fetcher, Request::from_parts(parts, body), reason)).await;
            };
            if !self.admits(&parts).await {
                if forget_content(&mut parts) && !policy::is_reading(&parts.method) {
                    return Box::pin(self.change(fetcher, parts, body, true)).await;
                }
                let request = Request::from_parts(parts, body);
                return Box::pin(self.bypass(fetcher, request, BypassReason::Filtered)).await;
            }
            let head = self.keyer.head(&uri);
            let first = first.filter(|(at, _)| *at == head).map(|(_, read)| read);
            self.lookup(head, &uri, &parts, first).await
        };
        match self.serve(&mut fetcher, &parts, &place, found).await {
            Served::Answered(response) => Ok(response),
            Served::Needs(need) => {
                let span = self.span(&parts);
                Box::pin(traced(span, self.obtain(fetcher, parts, body, place, need, departures))).await
            }
        }
    }

    /// Answers from what a lookup found, if that may be; else says what is needed from the origin.
    pub(crate) async fn serve<F: Fetcher>(
        self: &Arc<Self>,
        fetcher: &mut F,
        parts: &request::Parts,
        place: &Place,
        found: Found,
    ) -> Served<F::Body> {
        let asked = self.directives(parts);
        let reason = match found {
            Found::Candidate(..) if asked.reload && !asked.only_if_cached => MissReason::Reload,
            Found::Candidate(key, record) => {
                return self.serve_stored(fetcher, parts, place, key, record, &asked).await;
            }
            Found::Failed if self.config.fail_closed => {
                return Served::Answered(self.refuse(
                    parts,
                    StatusCode::SERVICE_UNAVAILABLE,
                    Outcome::Failed,
                ));
            }
            Found::Failed => MissReason::Storage,
            Found::Nothing(reason) => reason,
        };
        if asked.only_if_cached {
            return Served::Answered(self.refuse_request(parts));
        }
        Served::Needs(match reason {
            MissReason::Vary if self.may_select(parts) => Need::Select,
            reason => Need::Fetch(reason),
        })
    }

    /// A response is stored for the request: serve it, or ask the origin about it.
    async fn serve_stored<F: Fetcher>(
        self: &Arc<Self>,
        fetcher: &mut F,
        parts: &request::Parts,
        place: &Place,
        key: Key,
        record: Record,
        asked: &RequestDirectives,
    ) -> Served<F::Body> {
        let now = self.config.clock.now();
        let Some(variant) = variant_in(&record) else {
            return match asked.only_if_cached {
                true => Served::Answered(self.refuse_request(parts)),
                false => Served::Needs(Need::Fetch(MissReason::Absent)),
            };
        };
        let freshness = variant.response.freshness(self.number, &self.config.policy);
        let outcome = match policy::decide(asked, &freshness, now) {
            Verdict::Refuse => {
                return Served::Answered(self.refuse_request(parts));
            }
            Verdict::Validate(reason) => {
                if let Some(since) = self.failing.since(key)
                    && let Some(response) =
                        self.answer_failing(fetcher, parts, place, key, &record, since).await
                {
                    return Served::Answered(response);
                }
                return Served::Needs(Need::Validate(key, record, reason));
            }
            Verdict::Serve => {
                if self.draws_refresh(&freshness, now)
                    && let Some(beside) = background(fetcher, asked)
                {
                    self.refresh_later(beside, parts, place, key, &record);
                }
                Outcome::Hit
            }
            Verdict::ServeStale(reason) => {
                if reason == StaleReason::WhileRevalidate {
                    match background(fetcher, asked) {
                        Some(beside) => self.refresh_later(beside, parts, place, key, &record),
                        // Nobody would ever refresh it, so this request does, before it is answered.
                        None if !asked.only_if_cached => {
                            return Served::Needs(Need::Validate(key, record, ValidateReason::Stale));
                        }
                        None => {}
                    }
                }
                Outcome::Stale(reason)
            }
        };
        let status = stored_status(outcome, Stored::Unchanged, &freshness, now);
        match self.answer(Asked::by(parts), key, &record, status).await {
            Some(response) => Served::Answered(response),
            None if asked.only_if_cached => Served::Answered(self.refuse_request(parts)),
            None => Served::Needs(Need::Fetch(MissReason::BodyGone)),
        }
    }

    /// The origin failed lately while a stale response would do: it still does, and one at a time asks the origin again.
    async fn answer_failing<F: Fetcher>(
        self: &Arc<Self>,
        fetcher: &mut F,
        parts: &request::Parts,
        place: &Place,
        key: Key,
        record: &Record,
        (since, code): (Timestamp, Option<u16>),
    ) -> Option<Response<CacheBody<F::Body>>> {
        let ago = self.config.clock.now().since(since);
        if ago >= LATELY {
            return None;
        }
        let pauses = ago < PAUSE;
        let beside = background(fetcher, &self.directives(parts));
        if !pauses && beside.is_none() {
            return None; // this one asks
        }
        let response = self.answer_stale(parts, key, record, code, StaleReason::Failing).await?;
        if let Some(beside) = beside.filter(|_| !pauses && !self.directives(parts).read_only) {
            self.refresh_later(beside, parts, place, key, record);
        }
        Some(response)
    }

    /// In strict mode, a place where nothing stood is taken before the request goes out.
    pub(crate) async fn claim(&self, mut place: Place) -> Option<Place> {
        if self.config.strict && place.seen.is_none() {
            let now = self.config.clock.now();
            let slot = Slot::Fence { until: now, placeholder: true };
            let placeholder = entry::record(slot, now + entry::TOMBSTONE);
            let stamp = placeholder.stamp();
            match self.write_in_order(place.head, None, placeholder).await {
                Ok(true) => place.seen = Some(stamp),
                _ => return None,
            }
        }
        Some(place)
    }

    /// Asks the origin, and stores what it says where the lookup looked.
    pub(crate) async fn fetch<F: Fetcher>(
        self: Arc<Self>,
        mut fetcher: F,
        parts: request::Parts,
        body: F::RequestBody,
        place: Option<Place>,
        reason: MissReason,
        mut lead: Option<Lead<S>>,
    ) -> Answered<F> {
        let asked = parts.clone();
        let mut parts = parts;
        if lead.as_ref().is_some_and(|lead| lead.narrows) {
            policy::strip_conditions(&mut parts.headers);
        }
        let requested = self.config.clock.now();
        let response = self.ask(&mut fetcher, Request::from_parts(parts, body), &mut lead).await?;
        let times = Exchange { requested, responded: self.config.clock.now() };
        let response = self.admit(&asked, place.as_ref(), requested, response).await;
        Ok(self.keep::<F>(&asked, place, response, times, Outcome::Miss(reason), lead))
    }

    /// Asks the origin; if that fails, those who follow are told.
    pub(crate) async fn ask<F: Fetcher>(
        &self,
        fetcher: &mut F,
        request: Request<F::RequestBody>,
        lead: &mut Option<Lead<S>>,
    ) -> Result<Response<F::Body>, F::Error> {
        let result = self.send(fetcher, request).await;
        if result.is_err()
            && let Some(lead) = lead.take()
        {
            lead.land(Landed::Failed(None));
        }
        result
    }
}

/// Why a request that has no effective URI passes the cache by.
fn why_unidentified(parts: &request::Parts) -> BypassReason {
    match key::lacks(parts) {
        Lacks::Resource => BypassReason::NoResource,
        Lacks::Host => BypassReason::NoHost,
        Lacks::GoodHost => BypassReason::MalformedHost,
    }
}

/// What refreshes beside a request; `None` where nothing may be refreshed: the request wants only what is stored, or what
/// came would not be kept.
fn background<F: Fetcher>(fetcher: &F, asked: &RequestDirectives) -> Option<F::Background> {
    if asked.only_if_cached || asked.read_only { None } else { fetcher.background() }
}
