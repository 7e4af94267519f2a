//! Asks the origin about stored responses: a 304 freshens one, anything else takes its place, and when the origin fails the
//! stale response may have to do (RFC 9111 §4.3, RFC 5861).

use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Method, Request, Response, StatusCode, header, request, response};

use super::super::coalesce::Landed;
use super::super::directives::is_background;
use super::super::records::{Snapshot, Writer, variant_in};
use super::super::respond::{self, Asked, stored_status};
use super::super::shared::Shared;
use super::super::tasks::Driven;
use super::super::telemetry;
use super::fetcher::{Fetcher, send};
use super::response::{
    Judged, accept, admit, freshened_passes_filters, join_groups, judge, landed_unstored, note_use,
};
use super::{Conditional, Errand, Obtained, Times};
use crate::body::CacheBody;
use crate::control::{CacheStatus, MissReason, Outcome, Stored};
use crate::entry::{self, Slot, StoredResponse, Variant};
use crate::key::EffectiveUri;
use crate::policy::{self, Freshness, NotStored, StaleReason, ValidateReason, Withheld};
use crate::storage::{Key, Record, Storage};

/// Asks the origin about the stored response in a record.
pub(super) async fn validate<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    asked: &request::Parts,
    body: &mut Option<F::RequestBody>,
    snapshot: &Snapshot,
    (key, record, reason): (Key, &Record, ValidateReason),
    errand: &mut Errand<S>,
) -> Result<Conditional<S, F::Body>, F::Error> {
    let (config, records) = (&shared.config, &shared.records);
    let Some(variant) = variant_in(record) else { return Ok(Conditional::Fetch(MissReason::Absent)) };
    let stored = &variant.response;
    let freshness = stored.freshness(records.number, &config.policy);
    let reads_only = config.directives(asked).read_only;
    let mut parts = asked.clone();
    // A condition on a request that changes something is one on the origin's state (RFC 9110 §13.2.1).
    let validates = freshness.has_validator && policy::is_reading(&parts.method);
    if validates {
        policy::add_validators(&mut parts.headers, &stored.headers);
    } else if errand.is_led {
        policy::strip_conditions(&mut parts.headers);
    }
    let body = body.take().unwrap_or_else(|| fetcher.again());
    let requested = config.clock.now();
    let result = send(shared, fetcher, Request::from_parts(parts, body)).await;
    let now = config.clock.now();
    let times = Times { requested, responded: now };

    let failed = result.as_ref().map_or(true, |response| policy::is_error_status(response.status()));
    let code = result.as_ref().ok().map(|response| response.status().as_u16());
    if failed {
        if let Some(response) = stale_on_error(shared, asked, key, record, code, StaleReason::OnError).await {
            shared.failing_origins.add(key, now, code);
            return Ok(Conditional::Done(Obtained::new(response, Landed::Failed(code))));
        }
    } else {
        shared.failing_origins.forget(key);
    }
    let response = result?;
    if asked.method == Method::HEAD && response.status() == StatusCode::OK {
        let obtained = after_head(shared, asked, snapshot, variant, response, times, reason, errand).await;
        return Ok(Conditional::Done(obtained));
    }
    if response.status() != StatusCode::NOT_MODIFIED || !validates {
        let outcome = Outcome::Miss(MissReason::Replaced(reason));
        let supersedes = asked.method != Method::HEAD && response.status().is_success();
        if failed {
            errand.narrows = false; // the error is its caller's alone, who gets it as it came
        }
        let response = admit(shared, asked, Some(snapshot), requested, response).await;
        let mut obtained = accept(shared, asked, Some(snapshot.clone()), response, times, outcome, errand);
        if failed {
            obtained.landed = Landed::Failed(code);
        }
        if supersedes && is_not_kept(&obtained.response) {
            records.put_out_of_use(key, record.stamp(), reads_only);
        }
        return Ok(Conditional::Done(obtained));
    }
    let not_modified = response.into_parts().0;
    if config.is_about(snapshot, &not_modified)
        && policy::selects_304(&stored.headers, &not_modified.headers)
        && let Some(obtained) =
            freshen(shared, asked, snapshot, variant, &not_modified, times, reason, errand).await
    {
        if is_not_kept(&obtained.response) {
            records.put_out_of_use(key, record.stamp(), reads_only);
        }
        return Ok(Conditional::Done(obtained));
    }
    // The origin confirmed a response that is not here: it is asked once more, with the caller's own conditions alone.
    Ok(Conditional::Fetch(MissReason::BodyGone))
}

/// Fetches for a request that selects none of the stored responses, and asks whether one of them is the answer
/// nevertheless.
pub(super) async fn select<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    fetcher: &mut F,
    asked: &request::Parts,
    body: &mut Option<F::RequestBody>,
    snapshot: &Snapshot,
    errand: &mut Errand<S>,
) -> Result<Conditional<S, F::Body>, F::Error> {
    let (config, records) = (&shared.config, &shared.records);
    let known = records.known_tags(snapshot, asked).await;
    if known.is_empty() {
        return Ok(Conditional::Fetch(MissReason::Vary));
    }
    let mut parts = asked.clone();
    let tags: Vec<_> = known.iter().map(|known| known.tag.clone()).collect();
    policy::add_entity_tags(&mut parts.headers, &tags);
    let body = body.take().unwrap_or_else(|| fetcher.again());
    let requested = config.clock.now();
    let response = send(shared, fetcher, Request::from_parts(parts, body)).await?;
    let times = Times { requested, responded: config.clock.now() };
    if response.status() != StatusCode::NOT_MODIFIED {
        let outcome = Outcome::Miss(MissReason::Vary);
        let response = admit(shared, asked, Some(snapshot), requested, response).await;
        let obtained = accept(shared, asked, Some(snapshot.clone()), response, times, outcome, errand);
        return Ok(Conditional::Done(obtained));
    }
    let head = response.into_parts().0;
    if config.is_about(snapshot, &head)
        && let Some(record) = records.named_by(&known, &snapshot.key_text, &head.headers).await
        && let Some(variant) = variant_in(&record)
        && let Some(obtained) =
            freshen(shared, asked, snapshot, variant, &head, times, ValidateReason::Vary, errand).await
    {
        return Ok(Conditional::Done(obtained));
    }
    Ok(Conditional::Fetch(MissReason::Vary))
}

/// Answers with the stale response, where the origin failed (with this status; `None`: it could not be reached). Returns
/// `None` if that is not allowed, or its body is gone.
pub(crate) async fn stale_on_error<S: Storage, B>(
    shared: &Shared<S>,
    asked: &request::Parts,
    key: Key,
    record: &Record,
    code: Option<u16>,
    reason: StaleReason,
) -> Option<Response<CacheBody<B>>> {
    let config = &shared.config;
    let freshness = variant_in(record)?.response.freshness(shared.records.number, &config.policy);
    let directives = config.directives(asked);
    let now = config.clock.now();
    if !policy::stale_on_error(&directives, &freshness, now, code.is_none(), &config.policy) {
        return None;
    }
    let mut status = stored_status(Outcome::Stale(reason), Stored::Unchanged, &freshness, now);
    status.origin_status = code;
    status.beside = is_background(asked, shared.records.number);
    respond::from_record(shared, Asked::by(asked), key, record, status).await
}

/// Handles the 200 to a HEAD: it freshens what is stored, or shows that the origin has another response now (RFC 9111
/// §4.3.5).
#[allow(clippy::too_many_arguments)]
async fn after_head<S, B>(
    shared: &Arc<Shared<S>>,
    asked: &request::Parts,
    snapshot: &Snapshot,
    variant: &Variant,
    response: Response<B>,
    times: Times,
    reason: ValidateReason,
    errand: &mut Errand<S>,
) -> Obtained<S, B>
where
    S: Storage,
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let (config, records) = (&shared.config, &shared.records);
    let (head, body) = response.into_parts();
    let about_this = config.is_about(snapshot, &head);
    let stored = &variant.response;
    if about_this && policy::head_confirms(&stored.headers, stored.body.len(), &head.headers) {
        let freshened = freshen(shared, asked, snapshot, variant, &head, times, reason, errand).await;
        if let Some(obtained) = freshened {
            return obtained;
        }
    } else if about_this {
        let uri = EffectiveUri::of(asked, &config.defaults);
        telemetry::invalidated(&shared.observer, "head", uri.as_ref());
        match config.directives(asked).read_only {
            true => records.outdated.add(snapshot.head, times.responded, None),
            false => drop(records.invalidate(snapshot.head, Some(&snapshot.key_text)).await),
        }
    }
    let outcome = Outcome::Miss(MissReason::Replaced(reason));
    accept(shared, asked, Some(snapshot.clone()), Response::from_parts(head, body), times, outcome, errand)
}

/// Freshens a stored response by a 304 or the 200 to a HEAD, and answers with it. Returns `None` if its body is gone.
///
/// Fields that must not be used without validation are in the answer as they came, and not in what is stored.
#[allow(clippy::too_many_arguments)]
async fn freshen<S: Storage, B>(
    shared: &Arc<Shared<S>>,
    asked: &request::Parts,
    snapshot: &Snapshot,
    variant: &Variant,
    from: &response::Parts,
    times: Times,
    reason: ValidateReason,
    errand: &mut Errand<S>,
) -> Option<Obtained<S, B>> {
    let (config, records) = (&shared.config, &shared.records);
    let options = &config.policy;
    let old = &variant.response;
    let mut headers = old.headers.clone();
    policy::freshen(&mut headers, &from.headers, options);
    policy::ensure_date(&mut headers, times.responded);
    let freshness = Freshness::new(old.status, &headers, times.requested, times.responded, options);
    let judged = judge(shared, asked, &Method::GET, old.status, &headers, freshness);
    let passes = freshened_passes_filters(shared, asked, from, old.status, &headers).await;
    let (is_storable, from_old) = (|| passes && judged.is_ok(), (old.status, &headers));
    let joined =
        join_groups(shared, snapshot, asked, times.requested, from_old, &old.groups, is_storable).await;
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
    let is_own = storable.as_ref().is_ok_and(|names| records.selection(names, asked) == variant.selection);
    let (body, until, storable) = match storable {
        // Nothing is moved, and the answer looks for itself.
        storable if storable.is_err() || config.directives(asked).read_only => {
            (old.body.clone(), until, storable)
        }
        // Another request's variant: its chunks go with it, so that a second record must not name them.
        Ok(names) if !is_own => match records.copy_body(snapshot.head, &old.body).await {
            Some(body) => (body, until, Ok(names)),
            None => (old.body.clone(), until, Err(Stored::Unchanged)),
        },
        storable => match records.keep_body(snapshot.head, &old.body, until).await {
            Ok(Some(body)) => (body, until, storable),
            Ok(None) if records.in_flight.is_empty() => return None,
            // No record may name the chunks for longer than they are known to be kept.
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
    status.beside = is_background(asked, records.number);
    let (at, record, landed) = match storable {
        Ok(names) => {
            let (lease, at) = (errand.lease.take(), snapshot.clone());
            let about = (response, withheld);
            let writer = Writer::new(Arc::clone(records), at, names, asked, about, until, lease);
            let (at, record, freshened) = writer.announce_freshened(body, trailers);
            // The body is at hand, whatever becomes of its chunk.
            let shown = if freshened.has_chunk() { writer.whole() } else { record.clone() };
            if errand.is_led {
                note_use(shared, snapshot.head, &freshness, times.responded);
            }
            match records.tasks.drive(async move { writer.commit_freshened(freshened).await }) {
                Driven::Done(stored) => {
                    (status.stored, status.is_stored) = (stored, stored == Stored::Freshened);
                }
                Driven::Spawned(_) => {}
                Driven::NoRuntime => {
                    telemetry::unstored(&shared.observer, "no-runtime");
                    status.stored = Stored::NoRuntime;
                }
            }
            (at, shown, Landed::Freshened(at, record))
        }
        Err(why) => {
            status.stored = why;
            let entry = Some(snapshot.head).filter(|_| errand.is_led);
            let landed = landed_unstored(shared, entry, &status, times.responded);
            let &Variant { selection, personal, apart, .. } = variant;
            let (key_text, variant) =
                (snapshot.key_text.clone(), Variant { until, selection, personal, apart, response });
            // It is for this caller alone, and of no generation.
            let slot = Slot::Variant { key_text, generation: [0; 16], variant };
            (snapshot.head, entry::record(slot, until), landed)
        }
    };
    let mut answer = respond::from_record(shared, Asked::by(asked), at, &record, status).await?;
    for name in &Withheld::restricted(answer.headers(), options) {
        for value in from.headers.get_all(name) {
            let _ = answer.headers_mut().try_append(name.clone(), value.clone());
        }
    }
    Some(Obtained::new(answer, landed))
}

/// Whether a response is newer than the stored one, and may not take its place: a caller that has seen it must not get the
/// old one again. A response that is for one caller's credentials alone says nothing about the stored one.
fn is_not_kept<B>(answer: &Response<CacheBody<B>>) -> bool {
    let stored = answer.body().status().map(CacheStatus::stored);
    matches!(stored, Some(Stored::No(reason)) if !matches!(reason, NotStored::ReadOnly | NotStored::Authorization))
        || stored == Some(Stored::TooLarge)
}
