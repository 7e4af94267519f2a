//! The usual hit: one read, and a fresh response that the request selects.
//!
//! It is answered without the loop of an [`Exchange`](super::exchange), whose future is large. If the storage returns the head
//! at once, [`look_now`] needs no future at all. Otherwise [`look_then_run`] waits for the head in a small one. Whatever is
//! not such a hit goes on with what was read.
//!
//! # Invariants
//!
//! - Both decide by one function, from a read that began while no write to its key was in flight and no invalidation pending.
//! - A response is served only if that still holds for its key after the read. Otherwise the loop's lookup decides.
//! - The head is not read again, unless it was changed by this process during the read.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::Either;
use http::{HeaderName, Response, header, request};

use super::decision::{Decision, decide};
use super::exchange::{Absent, absent, run, run_absent};
use crate::body::CacheBody;
use crate::control::{Outcome, Stored};
use crate::key::{self, EffectiveUri};
use crate::policy::HeaderHints;
use crate::service::origin::{Answered, Fetcher};
use crate::service::records::{HeadKey, PriorRead, usable_head};
use crate::service::respond::{self, RequestView, stored_status};
use crate::service::shared::Shared;
use crate::storage::{Key, Record, Storage};
use crate::time::Timestamp;

/// Tells what a first look in the storage has led to.
pub(crate) enum FirstLook<B> {
    /// It is answered.
    Answer(Response<CacheBody<B>>),
    /// Nothing is stored for the request.
    Absent(Absent),
    /// The loop has to look, with what was read already.
    Unclear(Option<PriorRead>),
}

/// Looks for the usual hit without waiting.
///
/// # Errors
///
/// Returns the key of the head if it has to be read, which takes waiting.
pub(crate) fn look_now<S: Storage, B>(
    shared: &Shared<S>,
    view: RequestView<'_>,
    uri: Option<&EffectiveUri<'_>>,
) -> Result<FirstLook<B>, HeadKey> {
    let (config, records) = (&shared.config, &shared.records);
    let Some(uri) = uri.filter(|_| records.pending.is_empty() && config.async_filters.is_empty()) else {
        return Ok(FirstLook::Unclear(None));
    };
    let (key, is_certain) = records.keyer.guess(uri);
    let head = HeadKey { key, is_certain };
    // With a write in flight, the storage's record may be older than the response that this process has answered with already.
    if !records.in_flight.is_empty() {
        return Err(head);
    }
    let at = config.clock.now();
    let Some(result) = records.storage.read_now(key) else { return Err(head) };
    if let Ok(Some(record)) = &result
        && let Some(response) = plain_hit(shared, view, uri, key, record, at)
    {
        return Ok(FirstLook::Answer(response));
    }
    // Marked after the read, since it takes a lock that a hit does not need. A change between the two came before the fetch,
    // whose response therefore does not lack it.
    let prior_read = PriorRead { head, at, changes: records.changes.mark(), result };
    Ok(not_answered(shared, view, uri, prior_read))
}

/// Waits for the head of a request, and answers the usual hit with it.
///
/// Any other request goes on with [`run`], which is boxed, so that this future is small: it is allocated for each hit.
#[allow(clippy::manual_async_fn)] // an async function has room for its arguments twice
pub(crate) fn look_then_run<S: Storage, F: Fetcher>(
    shared: Arc<Shared<S>>,
    fetcher: F,
    parts: request::Parts,
    interest: HeaderHints,
    body: F::RequestBody,
    head: HeadKey,
    ended_flights: u64,
) -> impl Future<Output = Answered<F>> + Send {
    async move {
        let records = &shared.records;
        // Decided here and not by the caller, since this future may be polled for the first time much later. The chain is read
        // before the storage, as in every lookup.
        let prior_read = if records.pending.is_empty() && records.in_flight.chain(head.key).is_none() {
            let (at, changes) = (shared.config.clock.now(), records.changes.mark());
            let result = records.storage.read(head.key).await;
            Some(PriorRead { head, at, changes, result })
        } else {
            None
        };
        let look = match prior_read {
            Some(prior_read) => look_at(&shared, &parts, interest, prior_read),
            None => FirstLook::Unclear(None),
        };
        // Awaited at one place, so that this future has no room for what was found.
        let rest = match look {
            FirstLook::Answer(response) => return Ok(response),
            FirstLook::Absent(absent) => {
                Either::Left(Box::pin(run_absent(shared, fetcher, parts, body, absent, ended_flights)))
            }
            FirstLook::Unclear(prior_read) => {
                Either::Right(Box::pin(run(shared, fetcher, parts, body, prior_read, ended_flights)))
            }
        };
        rest.await
    }
}

/// Looks for the usual hit in what was read.
fn look_at<S: Storage, B>(
    shared: &Shared<S>,
    parts: &request::Parts,
    interest: HeaderHints,
    prior_read: PriorRead,
) -> FirstLook<B> {
    let view = RequestView::with_hints(parts, interest);
    // Not kept over the read, since it borrows the request.
    let Some(uri) = shared.config.identify(parts) else { return FirstLook::Unclear(Some(prior_read)) };
    // The time of the decision: the read may have taken long.
    let (key, now) = (prior_read.head.key, shared.config.clock.now());
    match &prior_read.result {
        Ok(Some(record)) => match plain_hit(shared, view, &uri, key, record, now) {
            Some(response) => FirstLook::Answer(response),
            None => FirstLook::Unclear(Some(prior_read)),
        },
        _ => not_answered(shared, view, &uri, prior_read),
    }
}

/// Tells how a request goes on that what was read does not answer.
fn not_answered<S: Storage, B>(
    shared: &Shared<S>,
    view: RequestView<'_>,
    uri: &EffectiveUri<'_>,
    prior_read: PriorRead,
) -> FirstLook<B> {
    match absent(shared, view.parts, uri, &prior_read) {
        Some(absent) => FirstLook::Absent(absent),
        None => FirstLook::Unclear(Some(prior_read)),
    }
}

/// Answers from the record of a head, if that is the usual hit.
///
/// It is if the head's inline variant is the one that the request selects and is fresh, and the storage returns its body at
/// once.
fn plain_hit<S: Storage, B>(
    shared: &Shared<S>,
    view: RequestView<'_>,
    uri: &EffectiveUri<'_>,
    key: Key,
    record: &Record,
    now: Timestamp,
) -> Option<Response<CacheBody<B>>> {
    let (config, records, parts) = (&shared.config, &shared.records, view.parts);
    // As in `read_slot`: a chain that began since the read says that the storage may have changed.
    if records.in_flight.chain(key).is_some() {
        return None;
    }
    let head = usable_head(record, uri, now).filter(|head| config.covers_key_fields(head))?;
    let (variant, stored) = (&head.inline, &head.inline.response);
    if variant.until <= now
        || records.is_idle_behind_fence(record, head, now)
        || !records.is_not_invalidated(key, &head.key_text, variant)
    {
        return None;
    }
    // The selection of a request that has none of the selecting fields is zero, and no field needs to be looked up.
    let by_credentials = |name: &HeaderName| *name == header::AUTHORIZATION || *name == header::COOKIE;
    let has_no_selectors = !view.interest.credentials
        && head.names.iter().all(by_credentials)
        && !(view.interest.host && uri.host_selects(parts))
        && key::rewritten(parts).is_none();
    let selection = if has_no_selectors { [0; 16] } else { records.selection(&head.names, parts) };
    if selection != variant.selection {
        return None;
    }
    if !records.has_its_tags(stored)
        || head.expiries.last() != variant.expiry
        || (!stored.groups.is_empty() && records.is_current_now(&stored.groups, now) != Some(true))
    {
        return None;
    }
    // Only the loop has a fetcher, which fetches what the storage loses.
    if respond::continues(config, stored) {
        return None;
    }
    let freshness = stored.freshness(records.number, &config.policy);
    let directives = config.directives_of(parts, view.interest);
    // A refresh needs a fetcher.
    let Decision::Serve { may_refresh: false } = decide(config, &directives, &freshness, now) else {
        return None;
    };
    let mut status = stored_status(Outcome::Hit, Stored::Unchanged, &freshness, now);
    status.level = record.level();
    if !directives.read_only {
        records.note_use((key, record), None, variant.until, now);
    }
    respond::from_record_now(shared, view, key, record, stored, status)
}
