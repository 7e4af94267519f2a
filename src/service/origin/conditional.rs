//! Validates stored responses with the origin (RFC 9111 §4.3).
//!
//! A 304 freshens a stored response, and so does the 200 to a HEAD that agrees with it. Any other response replaces it.
//! When the origin fails, the stale response may be served instead (RFC 5861).
//!
//! # Invariants
//!
//! - A 304 freshens a stored response only if their validators agree, and if it comes from the entry's own URI.
//! - A caller that has seen a newer response does not get the older one afterwards, even if the newer one is not stored.
//! - No record names chunks for longer than the storage is known to keep them.

use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Method, Request, Response, StatusCode, header, request, response};

use super::fetcher::{Fetcher, send};
use super::response::{
    Assessment, assess, filter_and_join, freshened_passes_filters, join_groups, outcome_for_followers,
    store_and_respond, update_coalescing,
};
use super::resume::resumable;
use super::{ConditionalOutcome, FetchContext, FetchResult, Times};
use crate::body::CacheBody;
use crate::control::{CacheStatus, MissReason, Outcome, Stored};
use crate::entry::{self, DecodedRecord, StoredContent, StoredResponse, Variant};
use crate::key::EffectiveUri;
use crate::policy::{
    self, Freshness, NotStored, ResponseDirectives, StaleReason, UnstoredFields, ValidateReason,
};
use crate::rules::RuledResponse;
use crate::service::coalesce::FlightOutcome;
use crate::service::directives::is_background;
use crate::service::records::{RetainedBody, Snapshot, Writer, variant_in};
use crate::service::respond::{self, RequestView, stored_status};
use crate::service::shared::Shared;
use crate::service::tasks::Driven;
use crate::service::telemetry;
use crate::storage::{Key, Record, Storage};

/// The state that is needed to apply the origin's answer to a stored response.
struct Revalidation<'a, S: Storage> {
    shared: &'a Arc<Shared<S>>,
    request: &'a request::Parts,
    snapshot: &'a Snapshot,
    times: Times,
    /// Why the origin was asked.
    reason: ValidateReason,
    context: &'a mut FetchContext<S>,
}

/// Asks the origin whether the stored response in a record is still current.
pub(super) async fn validate<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    request: &request::Parts,
    body: &mut Option<F::RequestBody>,
    snapshot: &Snapshot,
    (key, record, reason): (Key, &Record, ValidateReason),
    context: &mut FetchContext<S>,
) -> Result<ConditionalOutcome<S, F::Body>, F::Error> {
    let (config, records) = (&shared.config, &shared.records);
    let Some(variant) = variant_in(record) else { return Ok(ConditionalOutcome::Fetch(MissReason::Absent)) };
    let stored = &variant.response;
    let freshness = stored.freshness(records.number, &config.policy);
    let reads_only = config.directives(request).read_only;
    let mut parts = request.clone();
    // In a request that changes something, a condition would be one on the change itself (RFC 9110 §13.2.1).
    let validates = freshness.has_validator && policy::is_reading(&parts.method);
    if validates {
        policy::add_validators(&mut parts.headers, &stored.headers);
        // Those of the caller are left out, so that they are evaluated on what the origin sends in place of a 304.
        context.strips_conditions = true;
    } else if context.is_led {
        // The caller's own conditions are about the caller's copy. A 304 to them would answer no follower.
        policy::strip_conditions(&mut parts.headers);
    }
    let body = body.take().unwrap_or_else(|| fetcher.repeated_body());
    let requested = config.clock.now();
    let result = send(shared, fetcher, Request::from_parts(parts, body)).await;
    let now = config.clock.now();
    let times = Times { requested, responded: now };

    let failed = result.as_ref().map_or(true, |response| policy::is_error_status(response.status()));
    let code = result.as_ref().ok().map(|response| response.status().as_u16());
    if failed {
        if let Some(response) = stale_on_error(shared, request, key, record, code, StaleReason::IfError).await
        {
            // The next requests get the stale response for a while without asking the origin.
            shared.failing_origins.add(key, now, code);
            return Ok(ConditionalOutcome::Done(FetchResult::new(response, FlightOutcome::Failed(code))));
        }
    } else {
        shared.failing_origins.forget(key);
    }
    let response = result?;
    if request.method == Method::HEAD && response.status() == StatusCode::OK {
        let revalidation = Revalidation { shared, request, snapshot, times, reason, context };
        let fetched = revalidation.after_head(variant, response).await;
        return Ok(ConditionalOutcome::Done(fetched));
    }
    if response.status() != StatusCode::NOT_MODIFIED || !validates {
        let outcome = Outcome::Miss(MissReason::Replaced(reason));
        let supersedes = request.method != Method::HEAD && response.status().is_success();
        if failed {
            // The error is only for this caller, and a range or precondition of the request does not apply to it.
            context.strips_conditions = false;
        }
        let response = filter_and_join(shared, request, Some(snapshot), requested, response).await;
        let response = resumable(shared, fetcher, request, response);
        let mut fetched =
            store_and_respond(shared, request, Some(snapshot.clone()), response, times, outcome, context);
        if failed {
            // Each follower then looks for a stale response by its own directives, or fetches for itself.
            fetched.flight_outcome = FlightOutcome::Failed(code);
        }
        if supersedes && ends_stored_response(&fetched.response) {
            records.put_out_of_use(key, record.stamp(), reads_only);
        }
        outdate_behind_range(shared, key, stored, times, code, &fetched.response);
        return Ok(ConditionalOutcome::Done(fetched));
    }
    let not_modified = response.into_parts().0;
    let mut revalidation = Revalidation { shared, request, snapshot, times, reason, context };
    if config.is_about(snapshot, &not_modified)
        && policy::selects_304(&stored.headers, &not_modified.headers)
        && let Some(fetched) = revalidation.freshen(variant, &not_modified).await
    {
        if ends_stored_response(&fetched.response) {
            records.put_out_of_use(key, record.stamp(), reads_only);
        }
        return Ok(ConditionalOutcome::Done(fetched));
    }
    // The 304 is about another response than the stored one, the stored body is gone, or the response no longer answers all
    // queries of its key. The request is sent again without the cache's conditions.
    if snapshot.is_for_queries() {
        // Otherwise every equivalent request would be sent twice.
        records.put_out_of_use(key, record.stamp(), reads_only);
    }
    Ok(ConditionalOutcome::Fetch(MissReason::BodyGone))
}

/// Keeps a stored response from being served while the whole one that replaces it is on its way, of which a caller has got a range.
///
/// Otherwise the caller's next range could be one of the stored response.
pub(super) fn outdate_behind_range<S: Storage, B>(
    shared: &Shared<S>,
    key: Key,
    stored: &StoredResponse,
    times: Times,
    code: Option<u16>,
    response: &Response<B>,
) {
    let is_range = code == Some(200) && response.status() == StatusCode::PARTIAL_CONTENT;
    if is_range && stored.response_time < times.responded {
        shared.records.outdated.add(key, stored.response_time, None);
    }
}

/// Fetches for a request that selects none of the stored variants.
///
/// The request names the entity tags of the variants, so that the origin can answer with a 304 if one of them is its
/// response nevertheless (RFC 9111 §4.1).
pub(super) async fn select<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    request: &request::Parts,
    body: &mut Option<F::RequestBody>,
    snapshot: &Snapshot,
    context: &mut FetchContext<S>,
) -> Result<ConditionalOutcome<S, F::Body>, F::Error> {
    let (config, records) = (&shared.config, &shared.records);
    let known = records.known_tags(snapshot, request).await;
    if known.is_empty() {
        return Ok(ConditionalOutcome::Fetch(MissReason::Vary));
    }
    let mut parts = request.clone();
    let tags: Vec<_> = known.iter().map(|known| known.tag.clone()).collect();
    policy::add_entity_tags(&mut parts.headers, &tags);
    let body = body.take().unwrap_or_else(|| fetcher.repeated_body());
    let requested = config.clock.now();
    let response = send(shared, fetcher, Request::from_parts(parts, body)).await?;
    let times = Times { requested, responded: config.clock.now() };
    if response.status() != StatusCode::NOT_MODIFIED {
        let outcome = Outcome::Miss(MissReason::Vary);
        let response = filter_and_join(shared, request, Some(snapshot), requested, response).await;
        let response = resumable(shared, fetcher, request, response);
        let fetched =
            store_and_respond(shared, request, Some(snapshot.clone()), response, times, outcome, context);
        return Ok(ConditionalOutcome::Done(fetched));
    }
    let not_modified = response.into_parts().0;
    let reason = ValidateReason::Vary;
    let mut revalidation = Revalidation { shared, request, snapshot, times, reason, context };
    if config.is_about(snapshot, &not_modified)
        && let Some(record) = records.named_by(&known, &snapshot.key_text, &not_modified.headers).await
        && let Some(variant) = variant_in(&record)
        && let Some(fetched) = revalidation.freshen(variant, &not_modified).await
    {
        return Ok(ConditionalOutcome::Done(fetched));
    }
    Ok(ConditionalOutcome::Fetch(MissReason::Vary))
}

/// Returns the stale response after the origin has failed.
///
/// `code` is the status of the failure, or `None` if the origin could not be reached. Returns `None` if a stale response is
/// not allowed, or its body is gone.
pub(crate) async fn stale_on_error<S: Storage, B>(
    shared: &Shared<S>,
    request: &request::Parts,
    key: Key,
    record: &Record,
    code: Option<u16>,
    reason: StaleReason,
) -> Option<Response<CacheBody<B>>> {
    let config = &shared.config;
    let freshness = variant_in(record)?.response.freshness(shared.records.number, &config.policy);
    let directives = config.directives(request);
    let now = config.clock.now();
    if !policy::stale_on_error(&directives, &freshness, now, code.is_none(), &config.policy) {
        return None;
    }
    let mut status = stored_status(Outcome::Stale(reason), Stored::Unchanged, &freshness, now);
    status.origin_status = code;
    status.level = record.level();
    status.is_background = is_background(request, shared.records.number);
    respond::from_record(shared, RequestView::of(request), key, record, status).await
}

impl<S: Storage> Revalidation<'_, S> {
    /// Handles the 200 to a HEAD (RFC 9111 §4.3.5).
    ///
    /// It freshens the stored response if the two agree. Otherwise the origin has another response now, and the stored one is
    /// invalidated.
    async fn after_head<B>(mut self, variant: &Variant, response: Response<B>) -> FetchResult<S, B>
    where
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
    {
        let (shared, request, snapshot) = (self.shared, self.request, self.snapshot);
        let (config, records) = (&shared.config, &shared.records);
        let (head, body) = response.into_parts();
        let is_about_stored = config.is_about(snapshot, &head);
        let stored = &variant.response;
        if is_about_stored && policy::head_confirms(&stored.headers, stored.body().len(), &head.headers) {
            if let Some(fetched) = self.freshen(variant, &head).await {
                return fetched;
            }
        } else if is_about_stored {
            let uri = EffectiveUri::of(request, &config.defaults);
            telemetry::invalidated(&shared.observer, "head", uri.as_ref());
            match config.directives(request).read_only {
                true => records.outdated.add(snapshot.head, self.times.responded, None),
                false => drop(records.invalidate(snapshot.head, Some(&snapshot.key_text)).await),
            }
        }
        let outcome = Outcome::Miss(MissReason::Replaced(self.reason));
        let response = Response::from_parts(head, CacheBody::inner(body));
        store_and_respond(
            shared,
            request,
            Some(snapshot.clone()),
            response,
            self.times,
            outcome,
            self.context,
        )
    }

    /// Freshens a stored response, and answers with it.
    ///
    /// `from` is the head of a 304, or of the 200 to a HEAD. Fields that must not be used without validation are in the
    /// answer as they came, and not in what is stored. Returns `None` if the stored body is gone, or if the response would
    /// no longer answer all queries of its key.
    async fn freshen<B>(&mut self, variant: &Variant, from: &response::Parts) -> Option<FetchResult<S, B>> {
        let (shared, request, snapshot, times) = (self.shared, self.request, self.snapshot, self.times);
        let (config, records) = (&shared.config, &shared.records);
        let options = &config.policy;
        let old = &variant.response;
        let mut headers = old.headers.clone();
        policy::freshen(&mut headers, &from.headers, options);
        if !snapshot.keeps(&headers) {
            return None;
        }
        policy::ensure_date(&mut headers, times.responded);
        let directives = ResponseDirectives::of(&headers, options);
        let Times { requested, responded } = times;
        let freshness =
            Freshness::by_directives(old.status, &headers, &directives, requested, responded, options);
        // Assessed as a new response is: the fields of the 304 may forbid to store it any longer.
        let ruled =
            RuledResponse { request, status: old.status, headers: &headers, len: Some(old.body().len()) };
        let assessment = assess(shared, &Method::GET, &ruled, &directives, freshness);
        let passes = freshened_passes_filters(shared, request, from, old.status, &headers).await;
        let is_storable = || passes && assessment.is_ok();
        let joined = join_groups(shared, snapshot, times.requested, &ruled, &old.groups, is_storable).await;
        headers.insert(header::AGE, HeaderValue::from_static("0"));
        let (until, initial_age, given) = match &assessment {
            Ok(Assessment { freshness, given, .. }) => {
                (freshness.retain_until(options), freshness.initial_age, *given)
            }
            Err((freshness, _)) => (freshness.retain_until(options), freshness.initial_age, None),
        };

        let unstored = UnstoredFields::by(&headers, &directives, options);
        let trailers = old.trailers().and_then(|trailers| unstored.trailers(trailers));
        let groups = joined.as_ref().map_or_else(|_| Arc::default(), Arc::clone);
        let (freshness, storable) = match assessment {
            Ok(assessment) => (assessment.freshness, Ok(assessment.names)),
            Err((freshness, reason)) => (freshness, Err(reason)),
        };
        let storable = storable
            .and_then(|names| if passes { Ok(names) } else { Err(NotStored::Filtered) })
            .and_then(|names| joined.map(|_| names))
            .map_err(Stored::No);
        let is_own = storable
            .as_ref()
            .is_ok_and(|names| records.selection(&names.names, request) == variant.selection);
        let (body, until, storable) = match storable {
            // No record is written, so that the chunks need not be kept longer. The answer checks that they are there.
            storable if storable.is_err() || config.directives(request).read_only => {
                (old.body().clone(), until, storable)
            }
            // The body belongs to the record of another variant, whose chunks are deleted with it. A second record must not
            // name them.
            Ok(names) if !is_own => match records.copy_body(snapshot.head, old.body()).await {
                Some(body) => (body, until, Ok(names)),
                None => (old.body().clone(), until, Err(Stored::Unchanged)),
            },
            storable => {
                match records.retain_body(snapshot.head, old.body(), records.limited_by_idleness(until)).await
                {
                    Ok(RetainedBody::Retained(body)) => (body, until, storable),
                    Ok(RetainedBody::Gone) => return None,
                    // No record may name the chunks for longer than they are known to be kept.
                    Ok(RetainedBody::InFlight) | Err(_) => {
                        (old.body().clone(), until.min(variant.until), storable)
                    }
                }
            }
        };
        let mut response = StoredResponse {
            headers,
            initial_age_ms: u64::try_from(initial_age.as_millis()).unwrap_or(u64::MAX),
            given,
            groups,
            expired_at: None,
            request_time: times.requested,
            response_time: times.responded,
            content: OnceLock::new(),
            freshness: OnceLock::new(),
            ..old.clone()
        };
        response.pack();
        let mut status =
            stored_status(Outcome::Revalidated(self.reason), Stored::Freshened, &freshness, times.responded);
        status.origin_status = Some(from.status.as_u16());
        status.is_background = is_background(request, records.number);
        let (at, record, flight_outcome) = match storable {
            Ok(names) => {
                let (lease, at) = (self.context.lease.take(), snapshot.clone());
                let about = (response, unstored);
                let writer = Writer::new(Arc::clone(records), at, names, request, about, until, lease);
                // Of the same bytes, but a tag is of one variant alone.
                let made_tag = old.made_tag().filter(|_| is_own);
                let content = StoredContent::new(body, trailers).with_made_tag(made_tag);
                let (at, record, freshened) = writer.announce_freshened(content.clone());
                // A body that is moved into a chunk is served from memory, since the write of the chunk may fail.
                let answer_record =
                    if freshened.has_chunk() { writer.unstored_record(content) } else { record.clone() };
                if self.context.is_led {
                    update_coalescing(shared, snapshot.head, &freshness, times.responded);
                }
                // The response does not wait for the storage. The write is announced, so that the next lookup finds it, and
                // a spawned task waits for the storage if necessary.
                match records.tasks.drive(async move { writer.commit_freshened(freshened).await }) {
                    Driven::Done(stored) => {
                        (status.stored, status.is_stored) = (stored, stored == Stored::Freshened);
                    }
                    Driven::Spawned(_) => {}
                    Driven::NoRuntime => {
                        telemetry::unstored(&shared.observer, "no-runtime");
                        status.stored = Stored::No(NotStored::NoRuntime);
                    }
                }
                (at, answer_record, FlightOutcome::Freshened(at, record))
            }
            Err(stored) => {
                status.stored = stored;
                let entry = Some(snapshot.head).filter(|_| self.context.is_led);
                let flight_outcome = outcome_for_followers(shared, entry, &status, times.responded);
                let &Variant { selection, is_personal, has_hidden_selector, expiry, .. } = variant;
                let response =
                    response.with_content(StoredContent::new(body, trailers).with_made_tag(old.made_tag()));
                let (key_text, variant) = (
                    snapshot.key_text.clone(),
                    Variant { until, selection, is_personal, has_hidden_selector, expiry, response },
                );
                // This record is only for the caller and is not written, so that its generation does not matter.
                let slot = DecodedRecord::Variant { key_text, generation: [0; 16], variant };
                (snapshot.head, entry::record(slot, until), flight_outcome)
            }
        };
        let mut answer = respond::from_record(shared, RequestView::of(request), at, &record, status).await?;
        for name in &UnstoredFields::restricted(answer.headers(), options) {
            for value in from.headers.get_all(name) {
                // A response that has the maximum number of fields is sent without them.
                let _ = answer.headers_mut().try_append(name.clone(), value.clone());
            }
        }
        Some(FetchResult::new(answer, flight_outcome))
    }
}

/// Returns whether a response is not stored for a reason that puts the stored response out of use.
pub(super) fn ends_stored_response<B>(answer: &Response<CacheBody<B>>) -> bool {
    let stored = answer.body().status().map(CacheStatus::stored);
    matches!(stored, Some(Stored::No(reason)) if reason.ends_stored_response())
}
