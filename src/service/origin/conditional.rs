//! Asks the origin about a stored response: a 304 freshens it, anything else takes its place, and when the origin fails
//! the stale response may have to do (RFC 9111 §4.3, RFC 5861).

use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Method, Request, Response, StatusCode, header, request, response};

use super::commit::Plan;
use super::core::Core;
use super::fetcher::Fetcher;
use super::flights::{Entry, Landed, Lead};
use super::flow::Answered;
use super::judge::{Beside, Judged, is_by_content};
use super::keep::Exchange;
use super::lookup::{Place, variant_in};
use super::respond::{Asked, stored_status};
use super::tasks::Driven;
use super::way::traced;
use crate::body::CacheBody;
use crate::control::{CacheOptions, CacheStatus, MissReason, Outcome, Stored};
use crate::entry::{self, GRACE, Slot, StoredResponse, TOMBSTONE, Variant};
use crate::key::EffectiveUri;
use crate::policy::{self, Freshness, NotStored, StaleReason, ValidateReason, Withheld};
use crate::storage::{Key, Record, Stamp, Storage};

impl<S: Storage> Core<S> {
    #[allow(clippy::too_many_arguments)]
    pub(crate) async fn revalidate<F: Fetcher>(
        self: Arc<Self>,
        mut fetcher: F,
        parts: request::Parts,
        body: F::RequestBody,
        place: Place,
        (key, record): (Key, Record),
        reason: ValidateReason,
        lead: Option<Lead<S>>,
    ) -> Answered<F> {
        let Some(variant) = variant_in(&record) else {
            return self.fetch(fetcher, parts, body, Some(place), MissReason::Absent, lead).await;
        };
        let stored = &variant.response;
        let freshness = stored.freshness(self.number, &self.config.policy);
        let reads_only = self.directives(&parts).read_only;
        let asked = parts.clone();
        let mut parts = parts;
        // A condition on what is no plain reading is one on the origin's state (RFC 9110 §13.2.1).
        let validates = freshness.has_validator && policy::is_reading(&parts.method);
        if validates {
            policy::add_validators(&mut parts.headers, &stored.headers);
        } else if lead.is_some() {
            policy::strip_conditions(&mut parts.headers);
        }
        let requested = self.config.clock.now();
        let result = self.send(&mut fetcher, Request::from_parts(parts, body)).await;
        let now = self.config.clock.now();
        let times = Exchange { requested, responded: now };

        let failed = result.as_ref().map_or(true, |response| policy::is_error_status(response.status()));
        let code = result.as_ref().ok().map(|response| response.status().as_u16());
        let mut lead = lead;
        if failed {
            if let Some(lead) = lead.take() {
                lead.land(Landed::Failed(code));
            }
            if let Some(response) = self.answer_stale(&asked, key, &record, code, StaleReason::OnError).await
            {
                self.failing.add(key, now, code);
                return Ok(response);
            }
        } else {
            self.failing.forget(key);
        }
        let response = result?;
        if asked.method == Method::HEAD && response.status() == StatusCode::OK {
            return self.after_head::<F>(&asked, place, variant, response, times, reason).await;
        }
        if response.status() != StatusCode::NOT_MODIFIED || !validates {
            let outcome = Outcome::Miss(MissReason::Replaced(reason));
            let superseded = asked.method != Method::HEAD && response.status().is_success();
            let response = self.admit(&asked, Some(&place), requested, response).await;
            let answer = self.keep::<F>(&asked, Some(place), response, times, outcome, lead);
            if superseded && is_not_kept(&answer) {
                self.put_out_of_use(key, record.stamp(), reads_only);
            }
            return Ok(answer);
        }
        let not_modified = response.into_parts().0;
        if self.is_about(&place, &not_modified)
            && policy::selects_304(&stored.headers, &not_modified.headers)
            && let Some(answer) =
                self.freshen(&asked, &place, variant, &not_modified, times, reason, &mut lead).await
        {
            if is_not_kept(&answer) {
                self.put_out_of_use(key, record.stamp(), reads_only);
            }
            return Ok(answer);
        }
        // The origin confirmed something that is not here: ask once more, with the caller's own conditions alone.
        {
            let again = fetcher.again();
            self.fetch(fetcher, asked, again, Some(place), MissReason::BodyGone, lead).await
        }
    }

    /// The stale response, where the origin failed (with this status; `None`: it could not be reached) and that allows
    /// it; `None`: it is not allowed, or its body is gone.
    pub(crate) async fn answer_stale<B>(
        self: &Arc<Self>,
        asked: &request::Parts,
        key: Key,
        record: &Record,
        code: Option<u16>,
        reason: StaleReason,
    ) -> Option<Response<CacheBody<B>>> {
        let freshness = variant_in(record)?.response.freshness(self.number, &self.config.policy);
        let directives = self.directives(asked);
        let now = self.config.clock.now();
        if !policy::stale_on_error(&directives, &freshness, now, code.is_none(), &self.config.policy) {
            return None;
        }
        let mut status = stored_status(Outcome::Stale(reason), Stored::Unchanged, &freshness, now);
        status.origin_status = code;
        status.beside = self.is_beside(asked);
        self.answer(Asked::by(asked), key, record, status).await
    }

    /// The 200 to a HEAD freshens what is stored, or tells that it is not what the origin has now (RFC 9111 §4.3.5).
    async fn after_head<F: Fetcher>(
        self: &Arc<Self>,
        asked: &request::Parts,
        place: Place,
        variant: &Variant,
        response: Response<F::Body>,
        times: Exchange,
        reason: ValidateReason,
    ) -> Answered<F> {
        let (head, body) = response.into_parts();
        let about_this = self.is_about(&place, &head);
        let stored = &variant.response;
        if about_this && policy::head_confirms(&stored.headers, stored.body.len(), &head.headers) {
            if let Some(answer) = self.freshen(asked, &place, variant, &head, times, reason, &mut None).await
            {
                return Ok(answer);
            }
        } else if about_this {
            let uri = EffectiveUri::of(asked, &self.config.defaults);
            self.note_invalidation("head", uri.as_ref());
            match self.directives(asked).read_only {
                true => self.outdated.add(place.head, times.responded, None),
                false => drop(self.invalidate(place.head, Some(&place.key_text)).await),
            }
        }
        let outcome = Outcome::Miss(MissReason::Replaced(reason));
        Ok(self.keep::<F>(asked, Some(place), Response::from_parts(head, body), times, outcome, None))
    }

    /// Freshens a stored response by a 304 or the 200 to a HEAD, and answers with it; `None`: its body is gone. Fields
    /// that must not be used without validation are in the answer as they came, and not in what is stored. Those who
    /// follow are told, unless there is nothing to tell.
    #[allow(clippy::too_many_arguments)]
    pub(crate) async fn freshen<B>(
        self: &Arc<Self>,
        asked: &request::Parts,
        place: &Place,
        variant: &Variant,
        from: &response::Parts,
        times: Exchange,
        reason: ValidateReason,
        lead: &mut Option<Lead<S>>,
    ) -> Option<Response<CacheBody<B>>> {
        let options = &self.config.policy;
        let old = &variant.response;
        let mut headers = old.headers.clone();
        policy::freshen(&mut headers, &from.headers, options);
        policy::ensure_date(&mut headers, times.responded);
        let freshness = Freshness::new(old.status, &headers, times.requested, times.responded, options);
        let judged = self.judge(asked, &Method::GET, old.status, &headers, freshness);
        let passes = self.passes_freshened(asked, from, old.status, &headers).await;
        let (is_storable, from_old) = (|| passes && judged.is_ok(), (old.status, &headers));
        let joined = self.join(place, asked, times.requested, from_old, &old.groups, is_storable).await;
        headers.insert(header::AGE, HeaderValue::from_static("0"));
        let (until, initial_age, given) = match &judged {
            Ok(Judged { freshness, given, .. }) => {
                (freshness.retain_until(options), freshness.initial_age, *given)
            }
            Err((freshness, _)) => (freshness.retain_until(options), freshness.initial_age, None),
        };

        let withheld = Withheld::by(&headers, options);
        let trailers = old.trailers.as_ref().and_then(|trailers| withheld.trailers(trailers));
        let groups = joined.as_ref().map_or_else(|_| Arc::default(), Arc::clone);
        let (freshness, storable) = match judged {
            Ok(judged) => (judged.freshness, Ok(judged.names)),
            Err((freshness, reason)) => (freshness, Err(Stored::No(reason))),
        };
        let storable = storable
            .and_then(|names| if passes { Ok(names) } else { Err(Stored::No(NotStored::Filtered)) })
            .and_then(|names| joined.map(|_| names));
        let is_own = storable.as_ref().is_ok_and(|names| self.selection(names, asked) == variant.selection);
        let (body, until, storable) = match storable {
            // Nothing is moved, and the answer looks for itself.
            storable if storable.is_err() || self.directives(asked).read_only => {
                (old.body.clone(), until, storable)
            }
            // Another request's variant: its chunks go with it, so that a second record must not name them.
            Ok(names) if !is_own => match self.copy_of(place.head, &old.body).await {
                Some(body) => (body, until, Ok(names)),
                None => (old.body.clone(), until, Err(Stored::Unchanged)),
            },
            storable => match self.keep_body(place.head, &old.body, until).await {
                Ok(Some(body)) => (body, until, storable),
                Ok(None) if self.in_flight.is_empty() => return None,
                // Nothing must name the chunks for longer than they are known to be kept.
                Ok(None) | Err(_) => (old.body.clone(), until.min(variant.until), storable),
            },
        };
        let response = StoredResponse {
            headers,
            initial_age_ms: u64::try_from(initial_age.as_millis()).unwrap_or(u64::MAX),
            given,
            groups,
            request_time: times.requested,
            response_time: times.responded,
            body: body.clone(),
            trailers: trailers.clone(),
            freshness: OnceLock::new(),
            ..old.clone()
        };
        let mut status =
            stored_status(Outcome::Revalidated(reason), Stored::Freshened, &freshness, times.responded);
        status.origin_status = Some(from.status.as_u16());
        status.beside = self.is_beside(asked);
        let (at, record) = match storable {
            Ok(names) => {
                let lease = lead.as_mut().and_then(|lead| lead.lease.take());
                let (core, at) = (Arc::clone(self), place.clone());
                let plan = Plan::new(core, at, names, asked, (response, withheld), until, lease);
                let (at, record, freshened) = plan.announce_freshened(body, trailers);
                // The body is at hand, whatever becomes of its chunk.
                let shown = if freshened.has_chunk() { plan.whole() } else { record.clone() };
                if let Some(lead) = lead.take() {
                    self.note_use(place.head, &freshness, times.responded);
                    lead.land(Landed::Freshened(at, record.clone()));
                }
                match self.tasks.drive(async move { plan.commit_freshened(freshened).await }) {
                    Driven::Done(stored) => {
                        (status.stored, status.is_stored) = (stored, stored == Stored::Freshened);
                    }
                    Driven::Spawned(_) => {}
                    Driven::NoRuntime => {
                        self.note_unstored("no-runtime");
                        status.stored = Stored::NoRuntime;
                    }
                }
                (at, shown)
            }
            Err(why) => {
                status.stored = why;
                if let Some(lead) = lead.take() {
                    self.alone.add(place.head, times.responded, None);
                    lead.land(Landed::Private);
                }
                let &Variant { selection, personal, apart, .. } = variant;
                let (key_text, variant) =
                    (place.key_text.clone(), Variant { until, selection, personal, apart, response });
                // It is for this caller alone, and of no generation.
                (place.head, entry::record(Slot::Variant { key_text, generation: [0; 16], variant }, until))
            }
        };
        let mut answer = self.answer(Asked::by(asked), at, &record, status).await?;
        for name in &Withheld::restricted(answer.headers(), options) {
            for value in from.headers.get_all(name) {
                let _ = answer.headers_mut().try_append(name.clone(), value.clone());
            }
        }
        Some(answer)
    }

    /// Puts a placeholder in a record's place, unless somebody has replaced it. Where nothing may be written, this process
    /// alone does not use what is there.
    pub(crate) fn put_out_of_use(self: &Arc<Self>, key: Key, stamp: Stamp, reads_only: bool) {
        if reads_only || self.config.read_only {
            return self.outdated.add(key, self.config.clock.now(), None);
        }
        let core = Arc::clone(self);
        self.tasks.drive(async move {
            let now = core.config.clock.now();
            let slot = Slot::Fence { until: now + TOMBSTONE, placeholder: true };
            let _ = core.write_in_order(key, Some(stamp), entry::record(slot, now + GRACE)).await;
        });
    }

    /// Whether the stored response could be stored as an answer to this request: else a refresh with its credentials
    /// would end it.
    fn may_store_for(&self, parts: &request::Parts, record: &Record) -> bool {
        let Some(stored) = variant_in(record).map(|variant| &variant.response) else { return false };
        let freshness = stored.freshness(self.number, &self.config.policy).into_owned();
        self.judge(parts, &parts.method, stored.status, &stored.headers, freshness).is_ok()
    }

    /// Refreshes a record in the background, unless somebody does.
    pub(crate) fn refresh_later<F: Fetcher + 'static>(
        self: &Arc<Self>,
        fetcher: F,
        parts: &request::Parts,
        place: &Place,
        key: Key,
        record: &Record,
    ) {
        let Some(refreshing) = self.begin_refresh(key) else { return };
        let mut parts = parts.clone();
        if !is_by_content(&parts) {
            parts.method = Method::GET;
        }
        policy::strip_conditions(&mut parts.headers);
        // What its caller says of the response that it wants is no matter of those to come.
        parts.headers.remove(header::CACHE_CONTROL);
        parts.headers.remove(header::PRAGMA);
        // It keeps the tags of those who asked before, too.
        let tagged =
            variant_in(record).map(|variant| Arc::clone(&variant.response.groups)).unwrap_or_default();
        let tags: Vec<&str> = tagged.iter().filter(|group| group.is_tag).map(|group| &*group.name).collect();
        match parts.extensions.get_mut::<CacheOptions>() {
            Some(options) => *options = options.for_a_refresh().tags(tags),
            None if tags.is_empty() => {}
            None => drop(parts.extensions.insert(CacheOptions::new().tags(tags))),
        }
        if !self.may_store_for(&parts, record) {
            return;
        }
        parts.extensions.insert(Beside(self.number));
        let (core, place, record) = (Arc::clone(self), place.clone(), record.clone());
        let departures = self.flights.departures();
        let timeout = self.config.refresh_timeout;
        self.tasks.spawn(async move {
            let _refreshing = refreshing;
            let Entry::Lead(_flight, mut lead) =
                core.flights.enter(key, Some(record.stamp()), departures, true)
            else {
                return core.note_refresh("needless"); // somebody asks already
            };
            tracing::debug!("a background refresh began");
            lead.is_background = true;
            let looks_again = lead.looks_again || core.config.lease.is_some();
            if let Some(time) = core.config.lease {
                match core.take_lease(key, time).await {
                    Ok(None) => return core.note_refresh("needless"), // another process asks
                    Ok(lease) => lead.lease = lease,
                    Err(()) => {}
                }
            }
            if looks_again && !core.is_still(key, Some(record.stamp())).await.unwrap_or(true) {
                return core.note_refresh("needless"); // somebody has asked since this was read
            }
            let observed = Arc::clone(&core);
            let refresh = async {
                let body = fetcher.again();
                let (found, reason, span) = ((key, record), ValidateReason::Stale, core.span(&parts));
                let way = core.revalidate(fetcher, parts, body, place, found, reason, Some(lead));
                let response = traced(span, way).await.ok()?;
                let is_answer = !response.body().status().is_some_and(CacheStatus::is_stale);
                drain(response.into_body()).await;
                is_answer.then_some(())
            };
            observed.note_refresh(match tokio::time::timeout(timeout, refresh).await {
                Ok(Some(())) => "done",
                Ok(None) => "failed",
                Err(_) => "timeout",
            });
        });
    }
}

/// Whether what came is newer than what is stored, and may not take its place: who has seen it must not get the old one
/// again.
fn is_not_kept<B>(answer: &Response<CacheBody<B>>) -> bool {
    let stored = answer.body().status().map(CacheStatus::stored);
    matches!(stored, Some(Stored::No(reason)) if reason != NotStored::ReadOnly)
        || stored == Some(Stored::TooLarge)
}

/// Reads a body to its end, so that it is stored.
async fn drain<B>(body: CacheBody<B>)
where
    CacheBody<B>: http_body::Body,
{
    use http_body::Body;
    let mut body = Box::pin(body);
    while let Some(Ok(_)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}
