//! One request and its loop: look, decide, and get from the origin whatever is needed, alone or with others.
//!
//! On a cold key, a request with a range fetches for itself, since it gets only a part; one with preconditions may follow
//! but not lead, since it may get nothing; HEAD likewise. A validation sends the cache's own conditions, so that any request
//! may lead it, and each is answered from the result by its own.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Method, Request, Response, StatusCode, header, request};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::decision::{Decision, decide, draws_refresh};
use super::refresh::refresh_later;
use super::route::{bypass, why_unidentified};
use crate::body::CacheBody;
use crate::control::{BypassReason, MissReason, Outcome, Stored};
use crate::policy::{RequestDirectives, StaleReason, ValidateReason};
use crate::service::coalesce::{Flight, Joined, Landed, Seen, Ticket};
use crate::service::directives::is_background;
use crate::service::origin::{
    Answered, Errand, Fetcher, Need, Obtained, change, exchange, publish, stale_on_error,
};
use crate::service::records::{
    First, Found, Leased, Snapshot, Writer, forget_content, is_by_content, variant_in,
};
use crate::service::respond::{self, Asked, stored_status};
use crate::service::shared::Shared;
use crate::service::tasks::after;
use crate::service::telemetry::{self, traced};
use crate::storage::{Key, Record, Storage};
use crate::time::Timestamp;

/// A request that looked so often stops following: entries that change all the time must not hold it for ever.
const ROUNDS: usize = 8;
/// For so long after it failed, the origin is not asked again while stale responses do.
const PAUSE: Duration = Duration::from_secs(1);
/// For so long, one request asks it in the background for the others, which are answered at once.
const LATELY: Duration = Duration::from_secs(10);

/// A request that needs the origin.
pub(super) struct Exchange<S: Storage, F: Fetcher> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) parts: request::Parts,
    pub(super) snapshot: Snapshot,
    pub(super) need: Need,
    /// What it asks of the cache. Parsed once: no round changes the request.
    pub(super) directives: RequestDirectives,
    fetcher: F,
    body: F::RequestBody,
    /// When it began: a response that was made for it later is new enough for a request that limits the age.
    pub(super) asked_at: Timestamp,
    /// The count of ended flights, taken before the last lookup.
    departures: u64,
    /// The key of its own variant, and the writer that stores another one: until that is stored, no lookup finds the key.
    beside: Option<(Key, Arc<Writer<S>>)>,
    rounds: usize,
    /// Until when it waits for another request's fetch. It waits a second time at most, for a new leader.
    until: Instant,
    has_waited: bool,
    /// A leader's response was for the leader alone, because of the leader's own request.
    pub(super) was_refused: bool,
}

/// The outcome of a lookup and of the decision on it.
enum Looked<B> {
    Answered(Response<CacheBody<B>>),
    Needs(Need),
}

/// How a request goes on after a round.
pub(super) enum Step<S: Storage, B> {
    Answer(Response<CacheBody<B>>),
    /// Another round, after another lookup.
    Look,
    /// Another round at this key: its own variant is beside the one that this writer stores.
    Beside(Key, Arc<Writer<S>>),
    /// A fetch of its own.
    Alone,
    /// The same, after another lookup: it has waited, and an invalidation since its last lookup would keep its response from
    /// being stored.
    LookThenAlone,
}

/// The outcome of leading a flight.
#[allow(clippy::large_enum_variant)] // moved once; a box would cost each response an allocation
enum Led<S: Storage, F: Fetcher> {
    Answered(Answered<F>),
    /// The need is at another key now, or its key was written to meanwhile: the exchange goes on with its loop.
    Moved(Box<Exchange<S, F>>),
}

/// Which part a request may take.
struct Part {
    may_lead: bool,
    /// Its range and conditions are answered from the whole response.
    narrows: bool,
}

/// Answers a request that the cache may answer. `first` is what was read for it already, and `departures` the count of ended
/// flights before that. What goes to the origin has a box of its own, so that the future of a lookup stays small.
pub(crate) async fn run<S: Storage, F: Fetcher>(
    shared: Arc<Shared<S>>,
    mut fetcher: F,
    mut parts: request::Parts,
    body: F::RequestBody,
    first: First,
    departures: u64,
) -> Answered<F> {
    let config = &shared.config;
    // The task that writes them ends with its runtime, and this may be another one.
    if !shared.records.pending.is_empty() {
        shared.records.settle_later();
    }
    let (snapshot, found) = {
        let Some(uri) = config.identify(&parts) else {
            let reason = why_unidentified(&parts);
            let request = Request::from_parts(parts, body);
            return Box::pin(bypass(Arc::clone(&shared), fetcher, request, reason)).await;
        };
        if !config.admits(&parts).await {
            if forget_content(&mut parts) && !crate::policy::is_reading(&parts.method) {
                return Box::pin(change(Arc::clone(&shared), fetcher, parts, body, true)).await;
            }
            let request = Request::from_parts(parts, body);
            return Box::pin(bypass(Arc::clone(&shared), fetcher, request, BypassReason::Filtered)).await;
        }
        let head = shared.records.keyer.head(&uri);
        let first = first.filter(|(at, _)| *at == head).map(|(_, read)| read);
        shared.records.lookup(head, &uri, &parts, first).await
    };
    let directives = config.directives(&parts);
    match consider(&shared, &mut fetcher, &parts, &directives, &snapshot, found).await {
        Looked::Answered(response) => Ok(response),
        Looked::Needs(need) => {
            let is_background = is_background(&parts, shared.records.number);
            let span = telemetry::span(&parts, &config.defaults, is_background);
            let (asked_at, until) = (config.clock.now(), after(config.coalesce_timeout));
            let exchange = Exchange {
                shared,
                parts,
                snapshot,
                need,
                directives,
                fetcher,
                body,
                asked_at,
                departures,
                beside: None,
                rounds: ROUNDS,
                until,
                has_waited: false,
                was_refused: false,
            };
            Box::pin(traced(span, exchange.obtain())).await
        }
    }
}

impl<S: Storage, F: Fetcher> Exchange<S, F> {
    /// Gets from the origin what is needed: the loop.
    async fn obtain(mut self) -> Answered<F> {
        while self.rounds > 0 {
            self.rounds -= 1;
            let Some(part) = self.part() else { break };
            let (at, seen) = spot(&self.snapshot, &self.need);
            let flights = &self.shared.flights;
            let step = match flights.join(at, seen, self.departures, part.may_lead, Landed::is_joinable) {
                Joined::Alone => Step::Alone,
                Joined::Follow(flight) => self.wait_for(flight).await,
                Joined::Lead(flight, ticket) => match self.detach() {
                    // Boxed, since the exchange goes on with a fetcher of another type.
                    Ok(detached) => {
                        return match detached.drive(flight, ticket, part.narrows).await {
                            Led::Answered(answer) => answer,
                            Led::Moved(exchange) => exchange.obtain_boxed().await,
                        };
                    }
                    Err(own) => match own.lead(ticket, part.narrows).await {
                        Led::Answered(answer) => return answer,
                        Led::Moved(exchange) => {
                            self = *exchange;
                            continue;
                        }
                    },
                },
            };
            match step {
                Step::Answer(response) => return Ok(response),
                Step::Alone => break,
                Step::Beside(key, writer) => {
                    self.departures = self.shared.flights.departures();
                    self.beside = Some((key, writer));
                    if let Some(response) = self.look_again().await {
                        return Ok(response);
                    }
                }
                Step::Look | Step::LookThenAlone => {
                    // Taken before the lookup: a response that is stored after it ends a flight, and changes the count.
                    self.departures = self.shared.flights.departures();
                    self.beside = None;
                    if let Some(response) = self.look_again().await {
                        return Ok(response);
                    }
                    if matches!(step, Step::LookThenAlone) {
                        break;
                    }
                }
            }
        }
        // Boxed, so that the future of a leader, which never comes here, has no room for it.
        let obtained = Box::pin(self.go(Errand::alone(), None)).await?;
        Ok(obtained.response)
    }

    /// The same, for a caller whose own future must not contain this one.
    fn obtain_boxed<'a>(self) -> futures_util::future::BoxFuture<'a, Answered<F>>
    where
        Self: 'a,
    {
        Box::pin(self.obtain())
    }

    /// Returns which part the request may take in a flight; `None`: it fetches by itself.
    fn part(&self) -> Option<Part> {
        let config = &self.shared.config;
        if !config.coalesce
            || self.shared.records.uncoalescable.since(self.snapshot.head).is_some()
            || (self.is_authorized()
                && self.shared.records.uncoalescable_authorized.since(self.snapshot.head).is_some())
            // Without a runtime there is no timer that would bound the waiting.
            || Handle::try_current().is_err()
        {
            return None;
        }
        let has = |name| self.parts.headers.contains_key(name);
        // The response to a HEAD has no body, and to a conditional request perhaps none: others could not be answered from it.
        let is_get = self.parts.method == Method::GET || is_by_content(&self.parts);
        let has_range = has(header::RANGE);
        let conditional = has(header::IF_NONE_MATCH) || has(header::IF_MODIFIED_SINCE);
        let may_lead = is_get && config.may_fetch_for_others(&self.parts, &self.directives);
        match self.need {
            // The storage failed, so that nothing may be stored, and a download is shared by way of being stored.
            Need::Fetch(MissReason::StorageFailed) => None,
            // No response that was asked for before this request may answer it.
            _ if self.directives.no_cache => None,
            Need::Validate(_, _, ValidateReason::NoCache) => None,
            Need::Validate(..) => Some(Part { may_lead, narrows: true }),
            Need::Fetch(_) | Need::Select if has_range && !config.fetch_whole_for_range => None,
            Need::Fetch(_) | Need::Select => {
                Some(Part { may_lead: may_lead && !conditional, narrows: has_range })
            }
        }
    }

    /// Returns whether the request has credentials that keep its response from others, unless the response allows it.
    pub(super) fn is_authorized(&self) -> bool {
        self.shared.config.policy.shared && self.parts.headers.contains_key(header::AUTHORIZATION)
    }

    /// Looks in the storage once more, where a response may have been stored meanwhile. Returns the answer, if that is one.
    async fn look_again(&mut self) -> Option<Response<CacheBody<F::Body>>> {
        let (shared, parts) = (&self.shared, &self.parts);
        let records = &shared.records;
        let found = match shared.config.identify(parts) {
            Some(uri) => {
                let (snapshot, mut found) = records.lookup(self.snapshot.head, &uri, parts, None).await;
                self.snapshot = snapshot;
                // The head is looked at first, as always: an invalidation since then ends what is beside it, too.
                let beside = self.beside.take().filter(|(_, writer)| {
                    !matches!(found, Found::Failed) && writer.stands_at(self.snapshot.seen)
                });
                if let Some((key, writer)) = beside {
                    self.snapshot = writer.beside(self.snapshot.clone(), key);
                    let selection = records.selection(self.snapshot.names(), parts);
                    found = records.lookup_variant(&mut self.snapshot, key, &uri, selection).await;
                    self.beside = Some((key, writer));
                }
                found
            }
            None => Found::Nothing(MissReason::Absent),
        };
        match consider(shared, &mut self.fetcher, parts, &self.directives, &self.snapshot, found).await {
            Looked::Answered(response) => Some(response),
            Looked::Needs(need) => {
                self.need = match need {
                    // The tags that are known here are of responses that no 304 can name yet.
                    Need::Select if self.beside.is_some() => Need::Fetch(MissReason::Vary),
                    need => need,
                };
                None
            }
        }
    }

    /// Waits for the outcome of a flight, and returns what it is good for.
    async fn wait_for(&mut self, flight: Arc<Flight<Landed<S>>>) -> Step<S, F::Body> {
        if let Ok(landed) = timeout_at(self.until, flight.landed()).await {
            return self.follow(flight, landed).await;
        }
        // A slow origin is as good as one that failed, where a stale response may answer then.
        if let step @ Step::Answer(_) = self.follow(Arc::clone(&flight), Landed::Failed(None)).await {
            return step;
        }
        if self.has_waited {
            return Step::LookThenAlone;
        }
        // One of those that waited fetches as well, and the others follow that one.
        flight.retire();
        (self.until, self.has_waited) = (after(self.shared.config.coalesce_timeout), true);
        Step::Look
    }

    /// Detaches the exchange from its caller, so that followers can drive it.
    fn detach(self) -> Result<Exchange<S, F::Detached>, Box<Self>> {
        macro_rules! with {
            ($fetcher:expr) => {
                Exchange {
                    shared: self.shared,
                    parts: self.parts,
                    snapshot: self.snapshot,
                    need: self.need,
                    directives: self.directives,
                    fetcher: $fetcher,
                    body: self.body,
                    asked_at: self.asked_at,
                    departures: self.departures,
                    beside: self.beside,
                    rounds: self.rounds,
                    until: self.until,
                    has_waited: self.has_waited,
                    was_refused: self.was_refused,
                }
            };
        }
        match self.fetcher.detach() {
            Ok(fetcher) => Ok(with!(fetcher)),
            Err(fetcher) => Err(Box::new(with!(fetcher))),
        }
    }

    /// Leads a flight by a future that all its followers can drive: from another look and the lease to the head of the
    /// response, so that no follower waits for a leader that is not polled.
    async fn drive(self, flight: Arc<Flight<Landed<S>>>, ticket: Ticket<S>, narrows: bool) -> Led<S, F>
    where
        F: 'static,
    {
        // Shared with the future, which may be polled, and finished, by another task. A std mutex, held for one assignment.
        let outcome = Arc::new(Mutex::new(None));
        let brought = Arc::clone(&outcome);
        let fetch = async move {
            let led = AssertUnwindSafe(self.lead(ticket, narrows)).catch_unwind().await;
            *brought.lock().unwrap_or_else(PoisonError::into_inner) = Some(led);
        };
        let take = || outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A follower drives it within the leader's span.
        match flight.lead(Box::pin(fetch.in_current_span()), take).await {
            Ok(led) => led,
            // Whichever task was driving, the panic is the leader's.
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Leads a flight: looks again if a response may have been stored since it looked, and for as long as another process
    /// fetches; then asks the origin and publishes what came of it.
    async fn lead(mut self, mut ticket: Ticket<S>, narrows: bool) -> Led<S, F> {
        let (at, seen) = spot(&self.snapshot, &self.need);
        // Half of the time that followers wait, so that they need not fetch beside this one.
        let until = after(self.shared.config.coalesce_timeout / 2);
        let mut lease = None;
        loop {
            if !std::mem::take(&mut ticket.looks_again) {
                // No other process knows the key beside a variant that is not stored yet.
                if self.beside.is_some() {
                    break;
                }
                match self.shared.records.lease(at, seen, until).await {
                    Leased::Fetch(taken) => {
                        lease = taken;
                        break;
                    }
                    Leased::Look(taken) => lease = taken,
                }
            }
            self.departures = self.shared.flights.departures();
            if let Some(response) = self.look_again().await {
                ticket.publish(Landed::Look, false);
                return Led::Answered(Ok(response));
            }
            let may_lead = self.part().is_some_and(|part| part.may_lead);
            if !may_lead || spot(&self.snapshot, &self.need) != (at, seen) {
                return Led::Moved(Box::new(self)); // the flight is another key's, and the dropped ticket ends it
            }
            if lease.is_some() {
                break;
            }
        }
        let errand = Errand { is_led: true, narrows, is_background: false, lease, flight: ticket.token() };
        let result = self.go(errand, Some(&ticket)).await;
        Led::Answered(publish(ticket, result))
    }

    /// Asks the origin.
    async fn go(
        self,
        errand: Errand<S>,
        ticket: Option<&Ticket<S>>,
    ) -> Result<Obtained<S, F::Body>, F::Error> {
        let Self { shared, fetcher, parts, body, snapshot, need, directives, .. } = self;
        let snapshot = match need {
            // The storage failed: it is not known what is stored there.
            Need::Fetch(MissReason::StorageFailed) => None,
            Need::Fetch(_) if !directives.read_only => {
                // A request that sees the reservation follows this one.
                let announce = |stamp| ticket.into_iter().for_each(|ticket| ticket.add_seen(stamp));
                shared.records.reserve(snapshot, announce).await
            }
            _ => Some(snapshot),
        };
        exchange(&shared, fetcher, parts, body, snapshot, need, errand).await
    }
}

/// Returns the key of a flight, and what the lookup saw there.
fn spot(snapshot: &Snapshot, need: &Need) -> (Key, Seen) {
    match need {
        Need::Validate(key, record, _) => (*key, Some(record.stamp())),
        Need::Fetch(_) | Need::Select => match &snapshot.variant {
            Some((key, there)) => (*key, there.as_ref().map(Record::stamp)),
            None => (snapshot.head, snapshot.seen),
        },
    }
}

/// Answers from what a lookup found, if that may be; otherwise says what is needed from the origin.
async fn consider<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    parts: &request::Parts,
    directives: &RequestDirectives,
    snapshot: &Snapshot,
    found: Found,
) -> Looked<F::Body> {
    let reason = match found {
        Found::Candidate(key, record) => {
            return consider_stored(shared, fetcher, parts, snapshot, key, record, directives).await;
        }
        Found::Failed if shared.config.fail_closed => {
            let code = StatusCode::SERVICE_UNAVAILABLE;
            return Looked::Answered(respond::refuse(shared, parts, code, Outcome::Failed));
        }
        Found::Failed => MissReason::StorageFailed,
        Found::Nothing(reason) => reason,
    };
    if directives.only_if_cached {
        return Looked::Answered(respond::refuse_request(shared, parts));
    }
    let need = match reason {
        MissReason::Vary if may_select(parts) => Need::Select,
        reason => Need::Fetch(reason),
    };
    Looked::Needs(need)
}

/// Returns whether the origin may be asked which stored response answers this request.
///
/// Not where the request has conditions of its own, which are about its caller's copies.
fn may_select(request: &request::Parts) -> bool {
    let has = |name| request.headers.contains_key(name);
    request.method == Method::GET
        && !has(header::IF_NONE_MATCH)
        && !has(header::IF_MODIFIED_SINCE)
        && !has(header::RANGE)
}

/// Serves the response that is stored for a request, or says that the origin is needed.
async fn consider_stored<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    parts: &request::Parts,
    snapshot: &Snapshot,
    key: Key,
    record: Record,
    directives: &RequestDirectives,
) -> Looked<F::Body> {
    let (config, now) = (&shared.config, shared.config.clock.now());
    let Some(variant) = variant_in(&record) else {
        return match directives.only_if_cached {
            true => Looked::Answered(respond::refuse_request(shared, parts)),
            false => Looked::Needs(Need::Fetch(MissReason::Absent)),
        };
    };
    let freshness = variant.response.freshness(shared.records.number, &config.policy);
    let outcome = match decide(config, directives, &freshness, now) {
        Decision::Reload => return Looked::Needs(Need::Fetch(MissReason::Reload)),
        Decision::Refuse => return Looked::Answered(respond::refuse_request(shared, parts)),
        Decision::Validate(reason) => {
            if let Some(since) = shared.failing_origins.since(key)
                && let Some(response) =
                    answer_failing(shared, fetcher, parts, snapshot, key, &record, directives, since).await
            {
                return Looked::Answered(response);
            }
            return Looked::Needs(Need::Validate(key, record, reason));
        }
        Decision::Serve { may_refresh } => {
            if may_refresh
                && draws_refresh(config.refresh_early, &freshness, now)
                && let Some(background) = background(fetcher, directives)
            {
                refresh_later(shared, background, parts, snapshot, key, &record);
            }
            Outcome::Hit
        }
        Decision::ServeStale(reason) => {
            if reason == StaleReason::WhileRevalidate {
                match background(fetcher, directives) {
                    Some(background) => refresh_later(shared, background, parts, snapshot, key, &record),
                    // Nothing would ever refresh it, so this request does, before it is answered.
                    None if !directives.only_if_cached => {
                        return Looked::Needs(Need::Validate(key, record, ValidateReason::Stale));
                    }
                    None => {}
                }
            }
            Outcome::Stale(reason)
        }
    };
    let status = stored_status(outcome, Stored::Unchanged, &freshness, now);
    match respond::from_record(shared, Asked::by(parts), key, &record, status).await {
        Some(response) => Looked::Answered(response),
        None if directives.only_if_cached => Looked::Answered(respond::refuse_request(shared, parts)),
        None => Looked::Needs(Need::Fetch(MissReason::BodyGone)),
    }
}

/// Answers while the origin fails: a stale response that did a moment ago still does, and one request at a time asks the
/// origin again.
#[allow(clippy::too_many_arguments)]
async fn answer_failing<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    parts: &request::Parts,
    snapshot: &Snapshot,
    key: Key,
    record: &Record,
    directives: &RequestDirectives,
    (since, code): (Timestamp, Option<u16>),
) -> Option<Response<CacheBody<F::Body>>> {
    let ago = shared.config.clock.now().since(since);
    if ago >= LATELY {
        return None;
    }
    let pauses = ago < PAUSE;
    let background = background(fetcher, directives);
    if !pauses && background.is_none() {
        return None; // this one asks
    }
    let response = stale_on_error(shared, parts, key, record, code, StaleReason::Failing).await?;
    if let Some(background) = background.filter(|_| !pauses) {
        refresh_later(shared, background, parts, snapshot, key, record);
    }
    Some(response)
}

/// Returns the fetcher of a background refresh; `None` where there must be none: the request wants only what is stored, or
/// its response would not be kept.
fn background<F: Fetcher>(fetcher: &F, directives: &RequestDirectives) -> Option<F::Background> {
    if directives.only_if_cached || directives.read_only { None } else { fetcher.background() }
}
