//! The loop of one request.
//!
//! In each round, the request looks in the storage, decides, and joins a flight or fetches.
//!
//! # Which requests share a fetch
//!
//! - A request with a range for something that is not stored fetches for itself, since its response is only a part.
//! - A request with preconditions, or a HEAD, may follow but not lead such a fetch, since its response may have no body.
//! - Any request may lead a validation. It sends the cache's own conditions, and the conditions and the range of each
//!   request are evaluated on the result.

use std::future::Future;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Either;
use http::{Method, Request, Response, StatusCode, header, request};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::decision::{Decision, decide, draws_refresh};
use super::refresh::refresh_later;
use super::route::{bypass, why_unidentified};
use super::slow::{Impatient, Patience, is_deserted, resort_to};
use crate::body::CacheBody;
use crate::control::{BypassReason, MissReason, Outcome, Stored};
use crate::entry::StoredResponse;
use crate::key::EffectiveUri;
use crate::policy::{self, RequestDirectives, StaleReason, ValidateReason};
use crate::service::coalesce::{Flight, FlightOutcome, Joined, SeenStamp, Ticket};
use crate::service::directives::is_background;
use crate::service::origin::{
    Answered, FetchContext, FetchResult, Fetcher, Need, exchange, forward_unsafe, from_stored, publish,
    ranges_from_stored, slice_key, stale_on_error,
};
use crate::service::records::{
    Found, Leased, PriorRead, Snapshot, Writer, forget_content, is_by_content, variant_in,
};
use crate::service::respond::{self, RequestView, stored_status};
use crate::service::shared::Shared;
use crate::service::tasks::after;
use crate::service::telemetry::{self, traced};
use crate::storage::{Key, Record, Storage};
use crate::time::Timestamp;

/// How many rounds of the loop a request takes before it fetches for itself. An entry that changes all the time must not
/// hold a request for ever.
const MAX_ROUNDS: usize = 8;
/// How long after a failure the origin is not asked again.
///
/// Requests get the stale response meanwhile, if it may be served, so that a failing origin does not get all of them.
const ORIGIN_PAUSE: Duration = Duration::from_secs(1);
/// How long after a failure the origin is only asked in the background.
///
/// Requests get the stale response meanwhile, if it may be served. Later, a request waits for the origin again.
const FAILING_PERIOD: Duration = Duration::from_secs(10);

/// A request that needs the origin, with everything that its loop needs.
pub(super) struct Exchange<S: Storage, F: Fetcher> {
    /// Boxed, since it moves from the loop into the future of a leader and back.
    pub(super) state: Box<ExchangeState<S>>,
    fetcher: F,
    /// `None` once it has been sent.
    body: Option<F::RequestBody>,
}

/// The part of an exchange that does not depend on its fetcher.
pub(super) struct ExchangeState<S: Storage> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) parts: request::Parts,
    pub(super) snapshot: Snapshot,
    pub(super) need: Need,
    /// The directives of the request. Parsed once, since no round changes the request.
    pub(super) directives: RequestDirectives,
    /// When the request arrived. A response that was fetched later is new enough for `max-age=0`.
    pub(super) began_at: Timestamp,
    /// The number of ended flights before the last lookup.
    ended_flights: u64,
    /// The key of the request's variant, and the writer of another variant.
    ///
    /// Until that one is stored, no lookup finds the key, because its head does not exist yet.
    sibling: Option<(Key, Arc<Writer<S>>)>,
    /// How many rounds are left.
    rounds: usize,
    /// The deadline for waiting for another request's fetch.
    pub(super) until: Instant,
    /// Until when it waits for the origin. `None` if that has no limit.
    patience: Option<Box<Patience>>,
    /// The deadline was extended once, for a second leader. It is not extended again.
    has_waited: bool,
    /// A leader's own request has kept its response from being shared with this one.
    pub(super) was_refused: bool,
    /// The response of a flight was stale. Another flight is joined once, since its response may be stale as well.
    pub(super) has_met_stale: bool,
}

/// Tells what a lookup has led to.
enum Evaluated<B> {
    /// A response, which needs no origin.
    Answered(Response<CacheBody<B>>),
    /// The origin is needed.
    Needs(Need),
}

/// Tells how a request goes on after a round.
pub(super) enum Step<S: Storage, B> {
    /// It is answered.
    Answer(Response<CacheBody<B>>),
    /// It looks in the storage again, and takes another round.
    LookAgain,
    /// It takes another round at this key.
    ///
    /// The key is that of a sibling of the variant that the writer is storing.
    LookAtSibling(Key, Arc<Writer<S>>),
    /// It fetches for itself.
    Fetch,
    /// It looks in the storage again, and then fetches for itself.
    ///
    /// It has waited, and an invalidation since its last lookup would keep its response from being stored.
    LookThenFetch,
}

/// Tells how a request may take part in a flight.
struct FlightRole {
    may_lead: bool,
    /// The conditions and the range are not sent, but evaluated on the whole response.
    strips_conditions: bool,
}

/// Answers a request that the cache may answer.
///
/// `prior_read` is what was read for it already, and `ended_flights` the number of ended flights before that. The part that
/// needs the origin is boxed, so that the future of a lookup stays small.
pub(crate) async fn run<S: Storage, F: Fetcher>(
    shared: Arc<Shared<S>>,
    mut fetcher: F,
    mut parts: request::Parts,
    body: F::RequestBody,
    prior_read: Option<PriorRead>,
    ended_flights: u64,
) -> Answered<F> {
    let config = &shared.config;
    // The task that writes the pending invalidations ends with its runtime. This request may be in another runtime, where
    // that task has to be spawned again.
    if !shared.records.pending.is_empty() {
        shared.records.settle_later();
    }
    let (snapshot, found) = {
        let Some(uri) = config.identify(&parts) else {
            let reason = why_unidentified(&parts);
            let request = Request::from_parts(parts, body);
            return Box::pin(bypass(Arc::clone(&shared), fetcher, request, reason)).await;
        };
        if !config.passes_async_filters(&parts).await {
            // A request that the user excludes from the cache may change the resource, as its method does elsewhere.
            if forget_content(&mut parts) && !policy::is_reading(&parts.method) {
                return Box::pin(forward_unsafe(Arc::clone(&shared), fetcher, parts, body, true)).await;
            }
            let request = Request::from_parts(parts, body);
            return Box::pin(bypass(Arc::clone(&shared), fetcher, request, BypassReason::Filtered)).await;
        }
        let head = match &prior_read {
            Some(PriorRead { head, .. }) if head.is_certain => head.key,
            _ => shared.records.keyer.head(&uri),
        };
        let prior_read = prior_read.filter(|read| read.head.key == head);
        let (own, found) = shared.records.lookup(head, &uri, &parts, prior_read).await;
        match found {
            // Boxed, so that the future of a hit has no room for it.
            Found::Nothing(reason) => {
                Box::pin(shared.records.find_equivalent(own, reason, &uri, &parts)).await
            }
            found => (own, found),
        }
    };
    let directives = config.directives(&parts);
    match evaluate(&shared, &mut fetcher, &parts, &directives, &snapshot, found).await {
        Evaluated::Answered(response) => Ok(response),
        Evaluated::Needs(need) => {
            Box::pin(ask(shared, fetcher, parts, body, snapshot, need, directives, ended_flights)).await
        }
    }
}

/// A request for which a lookup has found nothing, without waiting.
pub(crate) struct Absent {
    snapshot: Snapshot,
    directives: RequestDirectives,
}

/// Returns whether nothing is stored for a request, from a read that was made already.
///
/// Returns `None` if that is not known, or if the request accepts only a stored response.
pub(crate) fn absent<S: Storage>(
    shared: &Shared<S>,
    parts: &request::Parts,
    uri: &EffectiveUri<'_>,
    prior_read: &PriorRead,
) -> Option<Absent> {
    let snapshot = shared.records.lookup_absent(uri, parts, prior_read)?;
    let directives = shared.config.directives(parts);
    (!directives.only_if_cached).then_some(Absent { snapshot, directives })
}

/// Answers a request for which nothing is stored.
///
/// It is what [`run`] does in this case, without the room that a lookup needs.
pub(crate) fn run_absent<S: Storage, F: Fetcher>(
    shared: Arc<Shared<S>>,
    fetcher: F,
    parts: request::Parts,
    body: F::RequestBody,
    absent: Absent,
    ended_flights: u64,
) -> impl Future<Output = Answered<F>> + Send {
    let Absent { snapshot, directives } = absent;
    let need = Need::Fetch(MissReason::Absent);
    ask(shared, fetcher, parts, body, snapshot, need, directives, ended_flights)
}

/// Asks the origin for what a request needs.
#[allow(clippy::too_many_arguments)]
fn ask<S: Storage, F: Fetcher>(
    shared: Arc<Shared<S>>,
    fetcher: F,
    parts: request::Parts,
    body: F::RequestBody,
    snapshot: Snapshot,
    need: Need,
    directives: RequestDirectives,
    ended_flights: u64,
) -> impl Future<Output = Answered<F>> + Send {
    let config = &shared.config;
    let is_background = is_background(&parts, shared.records.number);
    let span = telemetry::span(&parts, &config.defaults, is_background);
    let (began_at, until) = (config.clock.now(), after(config.coalesce_timeout));
    let patience = Patience::new(config);
    let state = ExchangeState {
        shared,
        parts,
        snapshot,
        need,
        directives,
        began_at,
        ended_flights,
        sibling: None,
        rounds: MAX_ROUNDS,
        until,
        patience,
        has_waited: false,
        was_refused: false,
        has_met_stale: false,
    };
    traced(span, Exchange { state: Box::new(state), fetcher, body: Some(body) }.run_loop())
}

impl<S: Storage, F: Fetcher> Exchange<S, F> {
    /// Runs the loop until the request has its response.
    #[allow(clippy::manual_async_fn)] // an async function has room for its arguments twice
    fn run_loop(mut self) -> impl Future<Output = Answered<F>> + Send {
        async move {
            while self.state.rounds > 0 {
                self.state.rounds -= 1;
                let Some(role) = self.flight_role() else { break };
                let (at, seen) = self.flight_key();
                let (flights, before) = (&self.state.shared.flights, self.state.ended_flights);
                // A response that is for its own query alone is stored there.
                let keys = (at, self.state.snapshot.own().head);
                match flights.join(keys, seen, before, role.may_lead, FlightOutcome::is_joinable) {
                    Joined::Independent => break,
                    // Returns instead of continuing the loop: the exchange that leads may have a fetcher of another type.
                    Joined::Lead(flight, mut ticket) => {
                        // The list of a path changes with the responses to its other queries.
                        ticket.looks_again |=
                            self.state.snapshot.is_for_queries() && flights.ended_flights() != before;
                        let impatient = self.impatient();
                        // Boxed, so that the loop of an exchange in the usual case has no room for the others.
                        let leading = match (self.detach(), impatient) {
                            (Ok(detached), None) => {
                                Either::Left(detached.lead_shared(flight, ticket, role.strips_conditions))
                            }
                            (Ok(detached), Some(impatient)) => {
                                let leading = detached.lead_shared(flight, ticket, role.strips_conditions);
                                Either::Right(impatient.wait_for::<F::Detached>(leading).boxed())
                            }
                            (Err(own), _) => {
                                Either::Right(own.lead_alone(ticket, role.strips_conditions).boxed())
                            }
                        };
                        return leading.await;
                    }
                    Joined::Follow(flight) => {
                        // Boxed, as the lookups are, so that the future of a leader has no room for them.
                        let (sibling, is_last) = match Box::pin(self.wait_for(flight)).await {
                            Step::Answer(response) => return Ok(response),
                            Step::Fetch => break,
                            Step::LookAtSibling(key, writer) => (Some((key, writer)), false),
                            Step::LookAgain => (None, false),
                            Step::LookThenFetch => (None, true),
                        };
                        // Taken before the lookup: a response that is stored after it ends a flight, and changes the count.
                        self.state.ended_flights = self.state.shared.flights.ended_flights();
                        self.state.sibling = sibling;
                        if let Some(response) = Box::pin(self.look_again()).await {
                            return Ok(response);
                        }
                        if is_last {
                            break;
                        }
                    }
                }
            }
            // Boxed, so that it does not enlarge the future of a leader, which never comes here.
            let impatient = self.impatient();
            match (self.detach(), impatient) {
                (Ok(detached), Some(impatient)) => {
                    impatient.wait_for::<F::Detached>(detached.fetch_alone()).boxed().await
                }
                (Ok(detached), None) => detached.fetch_alone().boxed().await,
                (Err(own), _) => own.fetch_alone().boxed().await,
            }
        }
    }

    /// Fetches for this request alone, and answers it.
    async fn fetch_alone(mut self) -> Answered<F> {
        Ok(self.fetch_from_origin(&mut FetchContext::unshared(), None).await?.response)
    }

    /// Returns the request as one that leaves its fetch when the origin is slow.
    ///
    /// Returns `None` if no setting limits how long it waits.
    fn impatient(&mut self) -> Option<Box<Impatient<S>>> {
        let ExchangeState { shared, parts, snapshot, need, patience, .. } = &mut *self.state;
        let patience = patience.as_deref()?;
        let (key, _) = flight_key(snapshot, need);
        Some(Box::new(Impatient::new(shared, parts, need, key, *patience)))
    }

    /// Runs the loop in a box, for a caller inside the loop.
    fn run_loop_boxed<'a>(self) -> futures_util::future::BoxFuture<'a, Answered<F>>
    where
        Self: 'a,
    {
        Box::pin(self.run_loop())
    }

    /// Returns how the request may take part in a flight.
    ///
    /// Returns `None` if it must fetch for itself.
    fn flight_role(&self) -> Option<FlightRole> {
        let config = &self.state.shared.config;
        if !config.coalesce
            || self.state.shared.records.uncoalescable.since(self.state.snapshot.head).is_some()
            || (self.is_authorized()
                && self.state.shared.records.uncoalescable_authorized.since(self.state.snapshot.head).is_some())
            // Without a runtime there is no timer to bound the waiting.
            || Handle::try_current().is_err()
        {
            return None;
        }
        let has = |name| self.state.parts.headers.contains_key(name);
        // The response to a HEAD has no body, and that to a conditional request may have none: it would answer no follower.
        let is_get = self.state.parts.method == Method::GET || is_by_content(&self.state.parts);
        let has_range = has(header::RANGE);
        let conditional = has(header::IF_NONE_MATCH) || has(header::IF_MODIFIED_SINCE);
        let may_lead = is_get && config.may_fetch_for_others(&self.state.parts, &self.state.directives);
        if self.slice_key().is_some() && !self.state.directives.no_cache {
            return Some(FlightRole { may_lead, strips_conditions: false });
        }
        match self.state.need {
            // A download is shared by storing it, and nothing may be stored after the storage failed.
            Need::Fetch(MissReason::StorageFailed) => None,
            // Other requests want other bytes.
            Need::Complete(..) => None,
            // No response whose fetch began before this request may answer it.
            _ if self.state.directives.no_cache => None,
            Need::Validate(_, _, ValidateReason::NoCache) => None,
            Need::Validate(..) => Some(FlightRole { may_lead, strips_conditions: true }),
            Need::Fetch(_) | Need::Select if has_range && !config.fetch_whole_for_range => None,
            Need::Fetch(_) | Need::Select => {
                Some(FlightRole { may_lead: may_lead && !conditional, strips_conditions: has_range })
            }
        }
    }

    /// Returns the key of the flight of the slice that the request needs, if it is fetched in slices.
    fn slice_key(&self) -> Option<Key> {
        let ExchangeState { shared, parts, snapshot, need, .. } = &*self.state;
        slice_key(shared, parts, &snapshot.head, need)
    }

    /// Returns the key of the request's flight, and the stamp that the lookup saw there.
    fn flight_key(&self) -> (Key, SeenStamp) {
        match self.slice_key() {
            Some(key) => (key, None),
            None => flight_key(&self.state.snapshot, &self.state.need),
        }
    }

    /// Returns whether the request has credentials that keep its response from being shared.
    ///
    /// In a shared cache, a response to a request with Authorization is shared only if it says so (RFC 9111 §3.5).
    pub(super) fn is_authorized(&self) -> bool {
        self.state.shared.config.policy.shared && self.state.parts.headers.contains_key(header::AUTHORIZATION)
    }

    /// Looks in the storage again, where a response may have been stored meanwhile.
    ///
    /// Returns the response if the request can be answered now. Otherwise it updates the snapshot and the need.
    async fn look_again(&mut self) -> Option<Response<CacheBody<F::Body>>> {
        let (shared, parts) = (&self.state.shared, &self.state.parts);
        let records = &shared.records;
        let found = match shared.config.identify(parts) {
            Some(uri) => {
                let (snapshot, mut found) = records.find(self.state.snapshot.own().head, &uri, parts).await;
                // The head is read first, as in every lookup: an invalidation of the head concerns the sibling as well.
                let sibling = self.state.sibling.take().filter(|_| !matches!(found, Found::Failed));
                let sibling = sibling.and_then(|(key, writer)| {
                    let seen = snapshot.at(writer.key_text())?;
                    writer.matches_seen(seen.seen).then(|| (seen.clone(), key, writer))
                });
                self.state.snapshot = snapshot;
                if let Some((seen, key, writer)) = sibling {
                    self.state.snapshot = writer.sibling_snapshot(seen, key);
                    let selection = records.selection(self.state.snapshot.names(), parts);
                    found = records.lookup_variant(&mut self.state.snapshot, key, selection).await;
                    self.state.sibling = Some((key, writer));
                }
                found
            }
            None => Found::Nothing(MissReason::Absent),
        };
        match evaluate(shared, &mut self.fetcher, parts, &self.state.directives, &self.state.snapshot, found)
            .await
        {
            Evaluated::Answered(response) => Some(response),
            Evaluated::Needs(need) => {
                self.state.need = match need {
                    // The only known entity tags are those of responses that are not stored yet.
                    Need::Select if self.state.sibling.is_some() => Need::Fetch(MissReason::Vary),
                    need => need,
                };
                None
            }
        }
    }

    /// Waits for the outcome of a flight, and returns the next step.
    async fn wait_for(&mut self, flight: Arc<Flight<FlightOutcome<S>>>) -> Step<S, F::Body> {
        let ExchangeState { shared, parts, need, patience, until, .. } = &*self.state;
        // Its leader has left it, since the origin is slow. The others need not find that out again.
        if let Some(patience) = patience
            && is_deserted(shared, need)
            && let Some(response) = resort_to(shared, parts, need, patience.at_once()).await
        {
            return Step::Answer(response);
        }
        let (patience, until) = (patience.as_deref().copied(), *until);
        let ends = patience.into_iter().flat_map(Patience::ends);
        for (end, resort) in ends.filter(|(end, _)| *end < until) {
            if let Ok(flight_outcome) = timeout_at(end, flight.outcome()).await {
                return self.follow(flight, flight_outcome).await;
            }
            let ExchangeState { shared, parts, need, .. } = &*self.state;
            if let Some(response) = resort_to(shared, parts, need, resort).await {
                return Step::Answer(response);
            }
        }
        if let Ok(flight_outcome) = timeout_at(self.state.until, flight.outcome()).await {
            return self.follow(flight, flight_outcome).await;
        }
        // An origin that is too slow counts as one that failed, if a stale response may be served then.
        if let step @ Step::Answer(_) = self.follow(Arc::clone(&flight), FlightOutcome::Failed(None)).await {
            return step;
        }
        if self.state.has_waited {
            return Step::LookThenFetch;
        }
        // One of the followers now leads a flight of its own, which the others follow: if all fetched, the origin would be
        // overrun just when it is slow.
        flight.retire();
        (self.state.until, self.state.has_waited) = (after(self.state.shared.config.coalesce_timeout), true);
        Step::LookAgain
    }

    /// Detaches the exchange from its request, so that followers can drive it.
    ///
    /// # Errors
    ///
    /// Returns the exchange as it is if its fetcher cannot leave its request.
    fn detach(self) -> Result<Exchange<S, F::Detached>, Self> {
        let Self { state, fetcher, body } = self;
        match fetcher.detach() {
            Ok(fetcher) => Ok(Exchange { state, fetcher, body }),
            Err(fetcher) => Err(Self { state, fetcher, body }),
        }
    }

    /// Leads a flight by a future that all its followers can drive, and answers the request.
    ///
    /// The future takes the lease, fetches, and ends with the head of the response. No follower depends on a leader whose
    /// task is not polled.
    fn lead_shared(
        mut self,
        flight: Arc<Flight<FlightOutcome<S>>>,
        mut ticket: Ticket<S>,
        strips_conditions: bool,
    ) -> impl Future<Output = Answered<F>> + Send
    where
        F: 'static,
    {
        // Shared with the future, because another task may complete it. A std `Mutex`, held for one assignment.
        let outcome = Arc::new(Mutex::new(None));
        let result = Arc::clone(&outcome);
        let fetch = async move {
            let led = AssertUnwindSafe(self.lead(&mut ticket, strips_conditions)).catch_unwind().await;
            drop(ticket); // ends the flight of a request that goes on without it, before that request joins another
            let led = led.map(|answer| answer.ok_or(self));
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(led);
        };
        // In the leader's span, whichever task polls it.
        flight.set_fetch(Box::pin(fetch.in_current_span()));
        // Not the whole function, since an async function has room for its arguments twice.
        async move {
            let take = || outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
            let moved = match flight.wait(take).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(exchange)) => exchange.run_loop_boxed(),
                // A panic is the leader's, whichever task polled the future. It is caught there, so as not to end a follower.
                Err(panic) => resume_unwind(panic),
            };
            moved.await
        }
    }

    /// Leads a flight that only this request can drive, and answers the request.
    async fn lead_alone(mut self, mut ticket: Ticket<S>, strips_conditions: bool) -> Answered<F> {
        let answer = self.lead(&mut ticket, strips_conditions).await;
        drop(ticket); // as in `lead_shared`
        match answer {
            Some(answer) => answer,
            None => self.run_loop_boxed().await,
        }
    }

    /// Leads a flight, and publishes its outcome.
    ///
    /// Looks in the storage again if a response may have been stored since the last lookup, and whenever another process
    /// may have stored one. Then it asks the origin. Returns `None` if the request goes on with its loop: it needs another key
    /// now, or a record was written at its key.
    async fn lead(&mut self, ticket: &mut Ticket<S>, strips_conditions: bool) -> Option<Answered<F>> {
        let (at, seen) = self.flight_key();
        // Half of the time that followers wait: the other half is left for the fetch, before they stop waiting for it.
        let until = after(self.state.shared.config.coalesce_timeout / 2);
        let flight = ticket.token();
        let mut context =
            FetchContext { is_led: true, strips_conditions, is_background: false, lease: None, flight };
        loop {
            if !std::mem::take(&mut ticket.looks_again) {
                // No other process can fetch for this key yet: the head by which it is found is not stored.
                // Nor for a slice, since the lease is that of a whole record.
                if self.state.sibling.is_some() || self.slice_key().is_some() {
                    break;
                }
                match self.state.shared.records.lease(at, seen, until).await {
                    Leased::Fetch(taken) => {
                        context.lease = taken;
                        break;
                    }
                    Leased::Look(taken) => context.lease = taken,
                }
            }
            self.state.ended_flights = self.state.shared.flights.ended_flights();
            if let Some(response) = Box::pin(self.look_again()).await {
                ticket.publish(FlightOutcome::LookAgain, false);
                return Some(Ok(response));
            }
            let may_lead = self.flight_role().is_some_and(|role| role.may_lead);
            if !may_lead || self.flight_key() != (at, seen) {
                return None; // the flight is another key's
            }
            if context.lease.is_some() {
                break;
            }
        }
        let result = self.fetch_from_origin(&mut context, Some(ticket)).await;
        Some(publish(ticket, result))
    }

    /// Sends the request to the origin. Nothing else may be done with the exchange afterwards.
    async fn fetch_from_origin(
        &mut self,
        context: &mut FetchContext<S>,
        ticket: Option<&Ticket<S>>,
    ) -> Result<FetchResult<S, F::Body>, F::Error> {
        let (state, body) = (&mut *self.state, self.body.take());
        let may_store = match state.need {
            // The storage failed, so that it is not known what a write would have to be compared with.
            Need::Fetch(MissReason::StorageFailed) => false,
            Need::Fetch(_) if !state.directives.read_only => {
                // Requests that see the placeholder of this reservation may follow this flight.
                let announce = |stamp| ticket.into_iter().for_each(|ticket| ticket.add_seen(stamp));
                state.shared.records.reserve(&mut state.snapshot, announce).await
            }
            _ => true,
        };
        let snapshot = may_store.then_some(&mut state.snapshot);
        exchange(&state.shared, &mut self.fetcher, &state.parts, body, snapshot, &state.need, context).await
    }
}

/// Returns the key of a request's flight, and the stamp that the lookup saw there.
fn flight_key(snapshot: &Snapshot, need: &Need) -> (Key, SeenStamp) {
    match need {
        Need::Validate(key, record, _) | Need::Complete(key, record, _) => (*key, Some(record.stamp())),
        Need::Fetch(_) | Need::Select => match &snapshot.variant {
            Some((key, existing)) => (*key, existing.as_ref().map(Record::stamp)),
            None => (snapshot.head, snapshot.seen),
        },
    }
}

/// Answers from what a lookup found, or returns what is needed from the origin.
async fn evaluate<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    parts: &request::Parts,
    directives: &RequestDirectives,
    snapshot: &Snapshot,
    found: Found,
) -> Evaluated<F::Body> {
    let reason = match found {
        Found::Candidate(key, record) => {
            return evaluate_candidate(shared, fetcher, parts, snapshot, key, record, directives).await;
        }
        Found::Failed if shared.config.fail_closed => {
            let code = StatusCode::SERVICE_UNAVAILABLE;
            return Evaluated::Answered(respond::refuse(shared, parts, code, Outcome::Failed));
        }
        Found::Failed => MissReason::StorageFailed,
        Found::Nothing(reason) => reason,
    };
    if directives.only_if_cached {
        return Evaluated::Answered(respond::refuse_request(shared, parts));
    }
    let need = match reason {
        MissReason::Vary if may_select(parts) => Need::Select,
        reason => Need::Fetch(reason),
    };
    Evaluated::Needs(need)
}

/// Returns whether the origin may be asked which of the stored responses answers this request.
///
/// It may not if the request has conditions of its own, which are about the copies of its caller.
fn may_select(request: &request::Parts) -> bool {
    let has = |name| request.headers.contains_key(name);
    request.method == Method::GET
        && !has(header::IF_NONE_MATCH)
        && !has(header::IF_MODIFIED_SINCE)
        && !has(header::RANGE)
}

/// Answers with a stored response, or returns what is needed from the origin.
async fn evaluate_candidate<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    parts: &request::Parts,
    snapshot: &Snapshot,
    key: Key,
    record: Record,
    directives: &RequestDirectives,
) -> Evaluated<F::Body> {
    let (config, now) = (&shared.config, shared.config.clock.now());
    let Some(variant) = variant_in(&record) else {
        return match directives.only_if_cached {
            true => Evaluated::Answered(respond::refuse_request(shared, parts)),
            false => Evaluated::Needs(Need::Fetch(MissReason::Absent)),
        };
    };
    if !directives.read_only {
        shared.records.note_use((key, &record), snapshot.usable.as_ref(), variant.until, now);
    }
    let freshness = variant.response.freshness(shared.records.number, &config.policy);
    let decision = decide(config, directives, &freshness, now);
    if let Some(wanted) = wants_more(shared, parts, &variant.response) {
        return match decision {
            Decision::Reload => Evaluated::Needs(Need::Fetch(MissReason::Reload)),
            Decision::Refuse => Evaluated::Answered(respond::refuse_request(shared, parts)),
            _ if directives.only_if_cached => Evaluated::Answered(respond::refuse_request(shared, parts)),
            decision => {
                let is_usable = matches!(decision, Decision::Serve { .. } | Decision::ServeStale(_));
                // Boxed, since few responses are stored in parts.
                Box::pin(evaluate_parts(shared, fetcher, parts, snapshot, (key, record), wanted, is_usable))
                    .await
            }
        };
    }
    let outcome = match decision {
        Decision::Reload => return Evaluated::Needs(Need::Fetch(MissReason::Reload)),
        Decision::Refuse => return Evaluated::Answered(respond::refuse_request(shared, parts)),
        Decision::Validate(reason) => {
            if let Some(since) = shared.failing_origins.since(key)
                && let Some(response) =
                    answer_while_failing(shared, fetcher, parts, snapshot, key, &record, directives, since)
                        .await
            {
                return Evaluated::Answered(response);
            }
            return Evaluated::Needs(Need::Validate(key, record, reason));
        }
        Decision::Serve { may_refresh } => {
            // Not for the response to another query, which only requests for that query validate.
            if may_refresh
                && key.entry == snapshot.head.entry
                && draws_refresh(config.refresh_early, &freshness, now)
                && let Some(background) = background_fetcher(fetcher, directives)
            {
                refresh_later(shared, background, parts, snapshot, key, &record);
            }
            Outcome::Hit
        }
        Decision::ServeStale(reason) => {
            if reason == StaleReason::WhileRevalidate {
                match background_fetcher(fetcher, directives) {
                    Some(background) => refresh_later(shared, background, parts, snapshot, key, &record),
                    // This fetcher cannot refresh in the background, so that the request validates before it is answered.
                    None if !directives.only_if_cached => {
                        return Evaluated::Needs(Need::Validate(key, record, ValidateReason::Stale));
                    }
                    None => {}
                }
            }
            Outcome::Stale(reason)
        }
    };
    if respond::continues(config, &variant.response)
        && let Some(background) = background_fetcher(fetcher, directives)
        // Boxed, since few bodies are so long.
        && let Some(response) =
            Box::pin(answer_and_continue(shared, background, parts, snapshot, (key, &record), outcome)).await
    {
        return Evaluated::Answered(response);
    }
    let mut status = stored_status(outcome, Stored::Unchanged, &freshness, now);
    status.level = record.level();
    status.partial = variant.response.body().partial();
    match respond::from_record(shared, RequestView::of(parts), key, &record, status).await {
        Some(response) => Evaluated::Answered(response),
        None if directives.only_if_cached => Evaluated::Answered(respond::refuse_request(shared, parts)),
        None => Evaluated::Needs(Need::Fetch(MissReason::BodyGone)),
    }
}

/// Answers from a response of which not all wanted bytes are stored, or returns what is needed from the origin.
///
/// The origin is asked for the missing bytes on condition that the representation is the same, which validates it. `is_usable`
/// says that the stored ones may be sent before that.
async fn evaluate_parts<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    parts: &request::Parts,
    snapshot: &Snapshot,
    (key, record): (Key, Record),
    wanted: Vec<Range<u64>>,
    is_usable: bool,
) -> Evaluated<F::Body> {
    let fetch = Evaluated::Needs(Need::Fetch(MissReason::Partial));
    let Some(variant) = variant_in(&record) else { return fetch };
    if policy::strong_validator(&variant.response.headers).is_none() {
        return fetch;
    }
    let background = fetcher.background().filter(|_| is_usable);
    match <[_; 1]>::try_from(wanted) {
        Ok([wanted]) => {
            let outcome = Outcome::Miss(MissReason::Partial);
            let answered = match background {
                Some(background) => {
                    let about = (key, &record, wanted.clone());
                    from_stored(shared, background, parts, snapshot, about, outcome).await
                }
                None => None,
            };
            let complete = || Evaluated::Needs(Need::Complete(key, record, wanted));
            answered.map_or_else(complete, Evaluated::Answered)
        }
        Err(ranges) => {
            let answered = match background {
                Some(background) => {
                    ranges_from_stored(shared, background, parts, snapshot, (key, &record, &ranges)).await
                }
                None => None,
            };
            // Otherwise the origin answers it itself.
            answered.map_or(fetch, Evaluated::Answered)
        }
    }
}

/// Answers from a stored body, and fetches the bytes that the storage loses before the caller has come to them.
///
/// Returns `None` if the request does not want one range of it, or the first bytes cannot be read.
async fn answer_and_continue<S: Storage, F: Fetcher + 'static>(
    shared: &Arc<Shared<S>>,
    fetcher: F,
    parts: &request::Parts,
    snapshot: &Snapshot,
    (key, record): (Key, &Record),
    outcome: Outcome,
) -> Option<Response<CacheBody<F::Body>>> {
    let stored = &variant_in(record)?.response;
    let wanted = respond::wanted(shared, RequestView::of(parts), stored, stored.body().len());
    let [wanted] = <[_; 1]>::try_from(wanted).ok()?;
    from_stored(shared, fetcher, parts, snapshot, (key, record, wanted), outcome).await
}

/// Returns the ranges of bytes that answer a request, if not all of them are stored.
fn wants_more<S: Storage>(
    shared: &Shared<S>,
    parts: &request::Parts,
    stored: &StoredResponse,
) -> Option<Vec<Range<u64>>> {
    let of_body = stored.body().parts()?;
    let wanted = respond::wanted(shared, RequestView::of(parts), stored, of_body.len);
    wanted.iter().any(|range| of_body.first_gap(range.clone()).is_some()).then_some(wanted)
}

/// Answers with the stale response that was served when the origin failed a moment ago.
///
/// After a pause, one request at a time asks the origin again in the background. Returns `None` if this request has to ask
/// the origin itself.
#[allow(clippy::too_many_arguments)]
async fn answer_while_failing<S: Storage, F: Fetcher>(
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
    if ago >= FAILING_PERIOD {
        return None;
    }
    let pauses = ago < ORIGIN_PAUSE;
    let background = background_fetcher(fetcher, directives);
    if !pauses && background.is_none() {
        return None; // no refresh is possible, so that this request asks the origin
    }
    let response = stale_on_error(shared, parts, key, record, code, StaleReason::Failing).await?;
    if let Some(background) = background.filter(|_| !pauses) {
        refresh_later(shared, background, parts, snapshot, key, record);
    }
    Some(response)
}

/// Returns a fetcher for a background refresh.
///
/// Returns `None` if the request accepts only stored responses, if its response would not be stored, or if its fetcher
/// cannot outlive it.
fn background_fetcher<F: Fetcher>(fetcher: &F, directives: &RequestDirectives) -> Option<F::Background> {
    if directives.only_if_cached || directives.read_only { None } else { fetcher.background() }
}
