//! Sends unsafe requests, and invalidates what they may have changed (RFC 9111 §4.4).
//!
//! # Invariants
//!
//! - An unsafe request is sent once, and unchanged.
//! - When the caller gets the response, this process no longer serves any of the invalidated responses.
//! - A response that answers a GET as well is stored only if its write is compared with the tombstone of its own
//!   invalidation.

use std::sync::Arc;

use http::{Method, Request, Response, Uri, header, request};

use super::fetcher::{Fetcher, send};
use super::{Answered, FetchContext, Times, response};
use crate::body::CacheBody;
use crate::control::{CacheStatus, MissReason, Outcome, Stored};
use crate::policy;
use crate::service::config::{Config, Recording};
use crate::service::records::Snapshot;
use crate::service::respond;
use crate::service::shared::Shared;
use crate::service::telemetry::{self, traced};
use crate::storage::Storage;

/// Sends an unsafe request, and invalidates what it may have changed.
///
/// `bypasses` says that the request bypasses the cache, so that its response is not stored. It invalidates nevertheless.
pub(crate) async fn forward_unsafe<S: Storage, F: Fetcher>(
    shared: Arc<Shared<S>>,
    fetcher: F,
    parts: request::Parts,
    body: F::RequestBody,
    bypasses: bool,
) -> Answered<F> {
    if shared.config.recording() == Some(Recording::Replay) {
        // A replay must not reach the origin.
        return Ok(respond::refuse_request(&shared, &parts));
    }
    let span = telemetry::span(&parts, &shared.config.defaults, false);
    traced(span, forward_and_invalidate(shared, fetcher, parts, body, bypasses)).await
}

/// Sends the request within its span.
///
/// Stores the response if it answers a GET as well.
async fn forward_and_invalidate<S: Storage, F: Fetcher>(
    shared: Arc<Shared<S>>,
    mut fetcher: F,
    parts: request::Parts,
    body: F::RequestBody,
    bypasses: bool,
) -> Answered<F> {
    let (config, records) = (&shared.config, &shared.records);
    let mut request = parts.clone();
    // Taken before the request is sent: a deletion during the fetch must keep the response from being stored.
    let (requested, changes) = (config.clock.now(), records.changes.mark());
    let response = send(&shared, &mut fetcher, Request::from_parts(parts, body)).await?;
    let times = Times { requested, responded: config.clock.now() };
    records.invalidate_named(&request, response.headers()).await;
    let uri = config.plain_uri(&request).and_then(|text| text.parse::<Uri>().ok());
    if let Some(uri) = uri
        // A recording keeps every response, and later requests do not invalidate it.
        && config.recording().is_none()
        && policy::invalidates(&request.method, response.status())
        && let Some(effective) = config.identify(&request)
    {
        let mut named = policy::invalidated(&uri, response.headers());
        // Where the scheme was assumed, the response may be stored under the other one.
        if let Some(other) = records.other_scheme(&request, &uri) {
            named.extend(policy::invalidated(&other, response.headers()));
            named.push(other);
        }
        let tombstone = records.invalidate_all(&effective, &named, &request).await;
        if let Some(seen) = tombstone
            && policy::answers_get(&request.method, &uri, response.headers(), &config.policy)
            && !bypasses
            && !request.headers.contains_key(header::UPGRADE)
            && config.passes_filters(&request)
            && config.passes_async_filters(&request).await
        {
            let head = records.keyer.head(&effective);
            let plain = config.plain_text(&effective, &request);
            let snapshot = Snapshot::behind(head, (&effective, plain), seen, times.responded, changes);
            // From here on it is treated as the response to a GET for the same URI (RFC 9110 §9.3.3).
            request.method = Method::GET;
            let response =
                response::filter_and_join(&shared, &request, Some(&snapshot), requested, response).await;
            // It is not shared by a flight: the requests that wait for this key began before the change.
            let (outcome, mut context) = (Outcome::Miss(MissReason::Method), FetchContext::unshared());
            let fetched = response::store_and_respond(
                &shared,
                &request,
                Some(snapshot),
                response.map(CacheBody::inner),
                times,
                outcome,
                &mut context,
            );
            return Ok(fetched.response);
        }
    }
    Ok(respond_unstored(
        &shared,
        response,
        Outcome::Miss(MissReason::Method),
        policy::NotStored::MethodNotCacheable,
    ))
}

/// Returns the response for the caller, with the reason why it is not stored.
pub(crate) fn respond_unstored<S: Storage, B>(
    shared: &Shared<S>,
    response: Response<B>,
    outcome: Outcome,
    reason: policy::NotStored,
) -> Response<CacheBody<B>> {
    let status = CacheStatus::new(outcome, Stored::No(reason));
    let status = CacheStatus { origin_status: Some(response.status().as_u16()), ..status };
    respond::finish(shared, response.map(CacheBody::inner), status)
}

impl Config {
    /// Returns whether the synchronous filters let the cache handle a request.
    pub(crate) fn passes_filters(&self, parts: &request::Parts) -> bool {
        self.filters.iter().all(|filter| filter(parts))
    }

    /// Returns whether the asynchronous filters let the cache handle a request.
    ///
    /// The future does not borrow the request, so that the request may be changed or moved meanwhile.
    pub(crate) fn passes_async_filters(
        &self,
        parts: &request::Parts,
    ) -> impl Future<Output = bool> + Send + use<> {
        let waiting: Vec<_> = self.async_filters.iter().map(|filter| filter(parts)).collect();
        async move {
            for answer in waiting {
                if !answer.await {
                    return false;
                }
            }
            true
        }
    }
}
