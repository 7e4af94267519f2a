//! Passes a response on, and stores it on its way if it may be stored.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, request};
use http_body::{Body, SizeHint};

use super::commit::Plan;
use super::core::Core;
use super::download::Download;
use super::fetcher::{Fetcher, Unstorable};
use super::flights::{Landed, Lead};
use super::judge::{Joined, Judged};
use super::lookup::Place;
use super::readers::Reader;
use super::recorder::Recorder;
use super::respond::Asked;
use crate::body::CacheBody;
use crate::control::{CacheStatus, Outcome, Stored};
use crate::entry::{Membership, StoredBody, StoredResponse};
use crate::key::EffectiveUri;
use crate::policy::{self, Freshness, NotStored, RequestDirectives, Verdict, Withheld};
use crate::storage::{Key, Storage};
use crate::time::Timestamp;

/// When a request went out and when the head of its response came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    pub(crate) requested: Timestamp,
    pub(crate) responded: Timestamp,
}

/// A response's head as it is stored, and what else storing it needs.
struct Storable {
    names: Vec<HeaderName>,
    response: StoredResponse,
    /// What is left out of its trailers too.
    withheld: Withheld,
    until: Timestamp,
    freshness: Freshness,
}

impl<S: Storage> Core<S> {
    /// Gives the origin's response to the caller. `place` is where it may be stored; `None`: nobody knows.
    pub(crate) fn keep<F: Fetcher>(
        self: &Arc<Self>,
        request: &request::Parts,
        place: Option<Place>,
        response: Response<F::Body>,
        times: Exchange,
        outcome: Outcome,
        mut lead: Option<Lead<S>>,
    ) -> Response<CacheBody<F::Body>> {
        let (mut head, body) = response.into_parts();
        let groups = head.extensions.remove::<Joined>().map(|Joined(groups)| groups).unwrap_or_default();
        let freshness =
            Freshness::new(head.status, &head.headers, times.requested, times.responded, &self.config.policy);
        let mut ttl = None;
        let at = place.as_ref().map(|place| place.head);
        let hint = body.size_hint();
        let expected = content_length(&head.headers).or_else(|| hint.exact());
        let (stored, plan) = match place {
            None => (Stored::Storage, None),
            Some(place) => {
                // One that others wait for is passed on to them as one that is stored is. What replaces something goes
                // first, lest the older one be served again.
                let may_wait =
                    place.usable.is_none() && !lead.as_ref().is_some_and(|lead| lead.is_followed());
                match self.storable(request, &place, (&head, groups), (expected, hint), times, freshness) {
                    Err(reason) => (reason, None),
                    Ok(_) if may_wait && self.store.is_busy() => {
                        self.store.note_shed();
                        (Stored::Busy, None)
                    }
                    Ok(storable) => {
                        let Storable { names, response, withheld, until, freshness } = storable;
                        ttl = Some(freshness.ttl(times.responded));
                        let lease = lead.as_mut().and_then(|lead| lead.lease.take());
                        let core = Arc::clone(self);
                        let about = (response, withheld);
                        let plan = Plan::new(core, place, names, request, about, until, lease);
                        (Stored::Storing, Some(plan))
                    }
                }
            }
        };
        let mut status = CacheStatus::new(outcome, stored);
        status.origin_status = Some(head.status.as_u16());
        status.ttl = ttl;
        status.beside = self.is_beside(request);
        let Some(plan) = plan else {
            match (at, lead) {
                (Some(head), Some(lead)) => self.keep_nothing(head, &status, lead),
                // Nobody knows what stands there, so that nothing is to be found there by who follows.
                (None, Some(lead)) => drop(lead.land(Landed::Private)),
                (_, None) => {}
            }
            return self.finish(Response::from_parts(head, CacheBody::inner(body)), status);
        };
        let awaits_trailers = head.headers.contains_key(header::TRAILER);
        let narrows = head.status == StatusCode::OK && lead.as_ref().is_some_and(|lead| lead.narrows);
        let freshness = plan.response().freshness(self.number, &self.config.policy);
        self.note_use(plan.head(), &freshness, times.responded);
        let plan = Arc::new(plan);
        let recorder = Recorder::new(Arc::clone(&plan), expected, awaits_trailers);
        let is_empty = body.is_end_stream();
        let is_background = lead.as_ref().is_some_and(|lead| lead.is_background);
        let registration = lead.as_ref().map(Lead::registration);
        let incoming = Box::pin(CacheBody::inner(body));
        let download = Download::new(Arc::clone(&plan), recorder, incoming, expected, registration);
        if is_empty {
            download.lock().finish_empty();
        }
        let flight = lead.and_then(|lead| {
            lead.puts(plan.puts());
            lead.land(Landed::Streaming(Arc::clone(&download)))
        });
        let reader = Reader::first(Arc::clone(&download), flight.clone(), is_background);
        if narrows
            && let Some(flight) = flight
            && let Some(response) = self.answer_from(Asked::by(request), download, flight, status)
        {
            // The origin sends all of it, and the next request has use for that.
            self.tasks.spawn(reader.drain());
            return response;
        }
        self.finish(Response::from_parts(head, CacheBody::from_source(Box::new(reader))), status)
    }

    /// Tells those who follow that the response is not for them; from now on nobody waits for another's of this entry,
    /// until one comes that can be shared.
    fn keep_nothing(&self, head: Key, status: &CacheStatus, lead: Lead<S>) {
        match status.origin_status.filter(|code| *code >= 500) {
            // That says nothing about the responses to come.
            failed @ Some(_) => drop(lead.land(Landed::Failed(failed))),
            None if status.stored == Stored::Busy => drop(lead),
            None => {
                self.alone.add(head, self.config.clock.now(), None);
                lead.land(Landed::Private);
            }
        }
    }

    /// Notes whether a response that is stored can answer those who wait for it: not one that is stale at once, or has to
    /// be validated for each.
    pub(super) fn note_use(&self, head: Key, freshness: &Freshness, now: Timestamp) {
        match policy::decide(&RequestDirectives::default(), freshness, now) {
            Verdict::Serve => self.alone.forget(head),
            _ => self.alone.add(head, now, None),
        }
    }

    fn storable(
        &self,
        request: &request::Parts,
        place: &Place,
        (head, groups): (&http::response::Parts, Arc<[Membership]>),
        (expected, hint): (Option<u64>, SizeHint),
        times: Exchange,
        freshness: Freshness,
    ) -> Result<Storable, Stored> {
        let options = &self.config.policy;
        if self.answers_elsewhere(place, head) {
            return Err(Stored::Redirected);
        }
        if let Some(reason) = Unstorable::reason(&head.extensions) {
            return Err(reason);
        }
        let judged = self.judge(request, &request.method, head.status, &head.headers, freshness);
        let Judged { freshness, given, names } = judged.map_err(|(_, reason)| Stored::No(reason))?;
        if expected.is_some_and(|len| hint.lower() > len || hint.upper().is_some_and(|most| most < len)) {
            return Err(Stored::Length);
        }
        if expected.unwrap_or(hint.lower()) > self.config.max_entry_bytes {
            return Err(Stored::TooLarge);
        }
        if expected.or(hint.upper()).is_some_and(|most| most < self.config.min_entry_bytes) {
            return Err(Stored::No(NotStored::TooSmall));
        }
        let withheld = Withheld::by(&head.headers, options);
        let mut headers = policy::stored_headers(&head.headers, &withheld);
        policy::ensure_date(&mut headers, times.responded);
        headers.insert(header::AGE, HeaderValue::from_static("0"));
        let response = StoredResponse {
            status: head.status,
            headers,
            initial_age_ms: u64::try_from(freshness.initial_age.as_millis()).unwrap_or(u64::MAX),
            request_time: times.requested,
            response_time: times.responded,
            given,
            groups,
            body: StoredBody::Inline(bytes::Bytes::new()),
            trailers: None,
            freshness: OnceLock::new(),
        };
        Ok(Storable { names, response, withheld, until: freshness.retain_until(options), freshness })
    }

    /// Whether a response tells something of what is stored here: not one from another URI, and not one of which the
    /// fetcher says that nothing may be kept.
    pub(crate) fn is_about(&self, place: &Place, head: &http::response::Parts) -> bool {
        !self.answers_elsewhere(place, head) && Unstorable::reason(&head.extensions).is_none()
    }

    /// Whether a layer below followed redirects, so that the response is another URI's.
    pub(crate) fn answers_elsewhere(&self, place: &Place, head: &http::response::Parts) -> bool {
        #[cfg(feature = "follow-redirect")]
        if let Some(uri) = head.extensions.get::<tower_http::follow_redirect::RequestUri>()
            && !EffectiveUri::of_uri(&uri.0).is_some_and(|uri| uri.is_text(place.uri_text()))
        {
            return true;
        }
        let uri = self.config.final_uri.as_ref().and_then(|final_uri| final_uri(head));
        uri.is_some_and(|uri| !EffectiveUri::of_uri(&uri).is_some_and(|uri| uri.is_text(place.uri_text())))
    }
}

/// Returns the announced length; `None` where there is none, or no single one.
///
/// Transfer-Encoding overrides Content-Length (RFC 9112 §6.3).
fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next()?.to_str().ok()?.parse().ok()?;
    lengths.next().is_none().then_some(length)
}
