//! One fetch for many: how a request that needs the origin follows another's fetch, or leads one.
//!
//! Promises: a response answers a request here if it would from the store, and only if it was made for the same place,
//! where nothing was written since; who cannot use it goes on at once, and waits for nobody a second time but a new
//! leader; waiting is bounded; whoever leads looks in the store once more if something may have been stored since it
//! looked.
//!
//! On a cold key, a request with a range fetches for itself, for it gets only a part, and one with preconditions may
//! follow but not lead, for it may get nothing; HEAD likewise. What validates a stored response sends the cache's own
//! conditions, so that all may lead, and each is answered from the result by its own.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Method, Response, header, request};
use tokio::time::timeout_at;
use tracing::Instrument;

use super::commit::Plan;
use super::core::Core;
use super::download::Download;
use super::fetcher::Fetcher;
use super::flights::{Entry, Flight, Landed, Lead, Seen};
use super::flow::{Answered, Need, Served};
use super::judge::is_by_content;
use super::lease::Leased;
use super::lookup::{Found, Place, variant_in};
use super::respond::{Asked, stored_status};
use super::tasks::after;
use crate::body::CacheBody;
use crate::control::{MissReason, Outcome, Stored};
use crate::entry::StoredResponse;
use crate::policy::{self, RequestDirectives, StaleReason, ValidateReason, Verdict};
use crate::storage::{Key, Record, Storage};
use crate::time::Timestamp;

/// A request that looked so often gives up following.
const ROUNDS: usize = 8;

/// Whether a response that has just come answers a request that follows it.
enum Fit {
    Yes,
    /// It is another variant; the request's own would be here.
    Other(Key),
    No,
}

/// Who may take which part.
struct Part {
    may_lead: bool,
    /// The range and the conditions are answered from the whole response.
    narrows: bool,
}

impl<S: Storage> Core<S> {
    /// Gets from the origin what a request needs: by a fetch of its own, or by another's.
    pub(crate) async fn obtain<F: Fetcher>(
        self: Arc<Self>,
        fetcher: F,
        parts: request::Parts,
        body: F::RequestBody,
        place: Place,
        need: Need,
        departures: u64,
    ) -> Answered<F> {
        self.obtain_within(ROUNDS, fetcher, parts, body, place, need, departures).await
    }

    #[allow(clippy::too_many_arguments)]
    async fn obtain_within<F: Fetcher>(
        self: Arc<Self>,
        rounds: usize,
        mut fetcher: F,
        parts: request::Parts,
        body: F::RequestBody,
        place: Place,
        need: Need,
        departures: u64,
    ) -> Answered<F> {
        let (mut place, mut need, mut departures) = (place, need, departures);
        // The place that the lookup gave, while this request is beside another variant that is not stored yet.
        let mut looked = None;
        let asked_at = self.config.clock.now();
        let (mut until, mut has_waited) = (after(self.config.flight_timeout), false);
        for round in 0..rounds {
            let Some(part) = self.part(&parts, &place, &need) else { break };
            let (at, seen) = spot(&place, &need);
            match self.flights.enter(at, seen, departures, part.may_lead) {
                Entry::Alone => break,
                Entry::Lead(flight, mut lead) => {
                    lead.narrows = part.narrows;
                    let left = rounds - round - 1;
                    match looked.take() {
                        None => {
                            let lead = (flight, lead);
                            return self.lead(left, fetcher, parts, body, place, need, lead).await;
                        }
                        // A lookup would find nothing here before the other variant is stored.
                        Some(_) if !lead.looks_again || self.is_vacant(at).await => {
                            (lead.looks_again, lead.is_beside) = (false, true);
                            let lead = (flight, lead);
                            return self.lead(left, fetcher, parts, body, place, need, lead).await;
                        }
                        Some(before) => place = before,
                    }
                }
                Entry::Follow(flight) => {
                    let followed = match timeout_at(until, flight.landed()).await {
                        Ok(landed) => self.follow(&parts, &need, flight, landed, asked_at).await,
                        Err(_) => {
                            let (slow, failed) = (Arc::clone(&flight), Landed::Failed(None));
                            match self.follow(&parts, &need, flight, failed, asked_at).await {
                                Followed::Answered(response) => return Ok(response),
                                _ if has_waited => break,
                                _ => {}
                            }
                            // It takes too long: one of those who waited fetches as well, and the others follow that.
                            slow.retire();
                            (until, has_waited) = (after(self.config.flight_timeout), true);
                            Followed::Looks
                        }
                    };
                    match followed {
                        Followed::Answered(response) => return Ok(response),
                        Followed::Elsewhere(key, plan) => {
                            looked = Some(place.clone());
                            place = plan.beside(place, key);
                            need = Need::Fetch(MissReason::Vary);
                            continue;
                        }
                        Followed::Alone => break,
                        Followed::Looks => {}
                    }
                }
            }
            departures = self.flights.departures();
            looked = None;
            match self.look_again(&mut fetcher, &parts, place).await {
                Again::Answered(response) => return Ok(response),
                Again::Needs(there, what) => (place, need) = (there, what),
            }
        }
        self.go(fetcher, parts, body, place, need, None).await
    }

    /// The same for who calls it from within: its future is of no type that has a name.
    #[allow(clippy::too_many_arguments)]
    fn obtain_boxed<'a, F: Fetcher + 'a>(
        self: Arc<Self>,
        rounds: usize,
        fetcher: F,
        parts: request::Parts,
        body: F::RequestBody,
        place: Place,
        need: Need,
        departures: u64,
    ) -> Pin<Box<dyn Future<Output = Answered<F>> + Send + 'a>> {
        Box::pin(self.obtain_within(rounds, fetcher, parts, body, place, need, departures))
    }

    /// Whether nothing is in a place, or on its way there.
    async fn is_vacant(&self, at: Key) -> bool {
        matches!(self.read_slot(at, None).await, Ok(None))
    }

    /// Looks in the store once more, where something may have been stored meanwhile.
    async fn look_again<F: Fetcher>(
        self: &Arc<Self>,
        fetcher: &mut F,
        parts: &request::Parts,
        place: Place,
    ) -> Again<F::Body> {
        let (place, found) = match self.identify(parts) {
            Some(uri) => self.lookup(place.head, &uri, parts, None).await,
            None => (place, Found::Nothing(MissReason::Absent)),
        };
        match self.serve(fetcher, parts, &place, found).await {
            Served::Answered(response) => Again::Answered(response),
            Served::Needs(need) => Again::Needs(place, need),
        }
    }

    /// Which part a request may take; `None`: it goes by itself.
    fn part(&self, parts: &request::Parts, place: &Place, need: &Need) -> Option<Part> {
        if !self.config.coalesce
            || self.alone.since(place.head).is_some()
            || tokio::runtime::Handle::try_current().is_err()
        {
            return None;
        }
        let has = |name| parts.headers.contains_key(name);
        let (is_get, has_range) = (parts.method == Method::GET || is_by_content(parts), has(header::RANGE));
        let conditional = has(header::IF_NONE_MATCH) || has(header::IF_MODIFIED_SINCE);
        let directives = self.directives(parts);
        match need {
            Need::Fetch(MissReason::Storage) => None,
            // Nothing that was asked for before may answer it.
            _ if directives.no_cache => None,
            Need::Validate(_, _, ValidateReason::NoCache) => None,
            Need::Validate(..) => Some(Part { may_lead: is_get && !directives.no_store, narrows: true }),
            Need::Fetch(_) | Need::Select if has_range && !self.config.fetch_whole => None,
            Need::Fetch(_) | Need::Select => {
                Some(Part { may_lead: is_get && !conditional && !directives.no_store, narrows: has_range })
            }
        }
    }

    /// Fetches, so that others can follow, and go on with it where that is possible: with all of it, from the lease to
    /// the head, so that nothing waits for a leader that is not polled.
    #[allow(clippy::too_many_arguments)]
    async fn lead<F: Fetcher>(
        self: Arc<Self>,
        rounds: usize,
        fetcher: F,
        parts: request::Parts,
        body: F::RequestBody,
        place: Place,
        need: Need,
        (flight, lead): (Arc<Flight<S>>, Lead<S>),
    ) -> Answered<F> {
        let fetcher = match fetcher.detach() {
            Ok(detached) => detached,
            Err(fetcher) => return self.led(rounds, fetcher, parts, body, place, need, lead).await,
        };
        let outcome = Arc::new(Mutex::new(None));
        let brought = Arc::clone(&outcome);
        let fetch = async move {
            let answer = AssertUnwindSafe(self.led(rounds, fetcher, parts, body, place, need, lead));
            let answer = answer.catch_unwind().await;
            *brought.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        };
        let take = || outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Others who go on with it do so within the leader's span.
        match flight.lead(Box::pin(fetch.in_current_span()), take).await {
            Ok(answer) => answer,
            // Whoever was just driving it, the panic is the leader's.
            Err(panic) => resume_unwind(panic),
        }
    }

    /// The way of a leader: looks again if something may have been stored since it looked, and for as long as another
    /// process fetches; then fetches.
    #[allow(clippy::too_many_arguments)]
    async fn led<F: Fetcher>(
        self: Arc<Self>,
        rounds: usize,
        mut fetcher: F,
        parts: request::Parts,
        body: F::RequestBody,
        place: Place,
        need: Need,
        mut lead: Lead<S>,
    ) -> Answered<F> {
        let (mut place, mut need) = (place, need);
        let (at, seen) = spot(&place, &need);
        // Half of what those who follow wait, so that they need not fetch beside this one.
        let until = after(self.config.flight_timeout / 2);
        loop {
            if lead.lease.is_some() || lead.is_beside {
                return self.go(fetcher, parts, body, place, need, Some(lead)).await;
            }
            if !std::mem::take(&mut lead.looks_again) {
                match self.lease(at, seen, until).await {
                    Leased::Fetch(lease) => {
                        lead.lease = lease;
                        return self.go(fetcher, parts, body, place, need, Some(lead)).await;
                    }
                    Leased::Look(lease) => lead.lease = lease,
                }
            }
            let departures = self.flights.departures();
            (place, need) = match self.look_again(&mut fetcher, &parts, place).await {
                Again::Answered(response) => {
                    lead.land(Landed::Look);
                    return Ok(response);
                }
                Again::Needs(place, need) => (place, need),
            };
            let leads = self.part(&parts, &place, &need).is_some_and(|part| part.may_lead);
            if !leads || spot(&place, &need) != (at, seen) {
                drop(lead); // what it leads is another place's
                return self.obtain_boxed(rounds, fetcher, parts, body, place, need, departures).await;
            }
        }
    }

    /// Fetches.
    async fn go<F: Fetcher>(
        self: Arc<Self>,
        fetcher: F,
        parts: request::Parts,
        body: F::RequestBody,
        place: Place,
        need: Need,
        lead: Option<Lead<S>>,
    ) -> Answered<F> {
        match need {
            Need::Validate(key, record, reason) => {
                Box::pin(self.revalidate(fetcher, parts, body, place, (key, record), reason, lead)).await
            }
            Need::Select => Box::pin(self.select(fetcher, parts, body, place, lead)).await,
            Need::Fetch(reason) => {
                // Where the store failed, nobody knows what stands there: nothing may be stored.
                let place = match reason {
                    MissReason::Storage => None,
                    _ if self.directives(&parts).read_only => Some(place),
                    _ => self.claim(place).await,
                };
                if let (Some(lead), Some(place)) = (&lead, &place) {
                    lead.puts(place.seen);
                }
                Box::pin(self.fetch(fetcher, parts, body, place, reason, lead)).await
            }
        }
    }

    /// What another's fetch is good for.
    async fn follow<B>(
        self: &Arc<Self>,
        parts: &request::Parts,
        need: &Need,
        flight: Arc<Flight<S>>,
        landed: Landed<S>,
        asked_at: Timestamp,
    ) -> Followed<S, B> {
        match landed {
            Landed::Look | Landed::Abandoned => Followed::Looks,
            Landed::Private => Followed::Alone,
            Landed::Failed(code) => {
                if let Need::Validate(key, record, _) = need
                    && let Some(response) =
                        self.answer_stale(parts, *key, record, code, StaleReason::OnError).await
                {
                    return Followed::Answered(response);
                }
                Followed::Alone
            }
            Landed::Streaming(download) => match self.fits(parts, &download, asked_at).await {
                Fit::Other(key) => Followed::Elsewhere(key, Arc::clone(&download.plan)),
                Fit::No => Followed::Alone,
                Fit::Yes => {
                    let now = self.config.clock.now();
                    let freshness = download.plan.response().freshness(self.number, &self.config.policy);
                    let outcome = Outcome::Miss(match need {
                        Need::Fetch(reason) => *reason,
                        Need::Select => MissReason::Vary,
                        Need::Validate(_, _, reason) => MissReason::Replaced(*reason),
                    });
                    let mut status = stored_status(outcome, Stored::Unchanged, &freshness, now);
                    status.origin_status = Some(download.plan.response().status.as_u16());
                    status.collapsed = true;
                    match self.answer_from(Asked::by(parts), download, Arc::clone(&flight), status) {
                        Some(response) => Followed::Answered(response),
                        None => {
                            flight.retire(); // it has ended, or nothing comes of it
                            Followed::Looks
                        }
                    }
                }
            },
            Landed::Freshened(key, record) => {
                let Need::Validate(at, old, reason) = need else { return Followed::Looks };
                let (Some(variant), Some(old)) = (variant_in(&record), variant_in(old)) else {
                    return Followed::Looks;
                };
                if key != *at || variant.selection != old.selection {
                    return Followed::Looks;
                }
                let now = self.config.clock.now();
                let freshness = variant.response.freshness(self.number, &self.config.policy);
                let asked = since_asked(self.directives(parts), &variant.response, asked_at);
                if policy::decide(&asked, &freshness, now) != Verdict::Serve
                    || !self.belongs(&variant.response.groups).await.unwrap_or(false)
                {
                    return Followed::Alone;
                }
                let outcome = Outcome::Revalidated(*reason);
                let mut status = stored_status(outcome, Stored::Unchanged, &freshness, now);
                status.collapsed = true;
                match self.answer(Asked::by(parts), key, &record, status).await {
                    Some(response) => Followed::Answered(response),
                    None => Followed::Looks,
                }
            }
        }
    }

    async fn fits(&self, parts: &request::Parts, download: &Download<S>, asked_at: Timestamp) -> Fit {
        let plan = &download.plan;
        let selection = self.selection(plan.names(), parts);
        if selection != plan.selection() {
            return Fit::Other(plan.sibling(selection));
        }
        // Whether it was this that was deleted shows when it is whole.
        if plan.deletes_since() {
            return Fit::No;
        }
        let freshness = plan.response().freshness(self.number, &self.config.policy);
        let asked = since_asked(self.directives(parts), plan.response(), asked_at);
        match policy::decide(&asked, &freshness, self.config.clock.now()) {
            Verdict::Serve if self.belongs(&plan.response().groups).await.unwrap_or(false) => Fit::Yes,
            _ => Fit::No,
        }
    }
}

/// What came of following.
enum Followed<S: Storage, B> {
    Answered(Response<CacheBody<B>>),
    /// Its own variant is beside the one that this plan stores.
    Elsewhere(Key, Arc<Plan<S>>),
    Alone,
    Looks,
}

/// What came of looking again.
enum Again<B> {
    Answered(Response<CacheBody<B>>),
    Needs(Place, Need),
}

/// The place of a flight, and what was seen there.
fn spot(place: &Place, need: &Need) -> (Key, Seen) {
    match need {
        Need::Validate(key, record, _) => (*key, Some(record.stamp())),
        Need::Fetch(_) | Need::Select => match &place.variant {
            Some((key, there)) => (*key, there.as_ref().map(Record::stamp)),
            None => (place.head, place.seen),
        },
    }
}

/// A request that limits the age of what it takes (`max-age=0`) is content with what was made for it: what came after it
/// had asked, however long the origin took, if it was not old by then.
fn since_asked(
    mut asked: RequestDirectives,
    came: &StoredResponse,
    asked_at: Timestamp,
) -> RequestDirectives {
    // Dates have no more than seconds.
    const SECOND: Duration = Duration::from_secs(1);
    let age = Duration::from_millis(came.initial_age_ms);
    let age = age.saturating_sub(came.response_time.since(came.request_time)).saturating_sub(SECOND);
    if came.response_time >= asked_at && asked.max_age.is_some_and(|most| age <= most) {
        asked.max_age = None;
    }
    asked
}
