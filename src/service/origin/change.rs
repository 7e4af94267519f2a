//! Sends unsafe requests, and invalidates the stored responses that their success makes doubtful (RFC 9111 §4.4).
//!
//! # Invariants
//!
//! - An unsafe request is sent once, as it came.
//! - Its response is with the caller only after this process serves none of the invalidated responses.
//! - A response that answers a GET as well is stored only behind the tombstone of its own invalidation.

use std::sync::Arc;

use http::{Method, Request, Response, Uri, header, request};

use super::fetcher::{Fetcher, send};
use super::{Answered, Errand, Times, response};
use crate::body::CacheBody;
use crate::control::{CacheStatus, MissReason, Outcome, Stored};
use crate::policy;
use crate::service::config::{Config, Recording};
use crate::service::records::Snapshot;
use crate::service::respond;
use crate::service::shared::Shared;
use crate::service::telemetry::{self, traced};
use crate::storage::Storage;

/// Sends an unsafe request, and invalidates.
///
/// `bypasses` says that the request bypasses the cache, so that its response is not stored. It invalidates nevertheless.
pub(crate) async fn change<S: Storage, F: Fetcher>(
    shared: Arc<Shared<S>>,
    fetcher: F,
    parts: request::Parts,
    body: F::RequestBody,
    bypasses: bool,
) -> Answered<F> {
    if shared.config.recording() == Some(Recording::Replay) {
        // A replay never reaches the origin.
        return Ok(respond::refuse_request(&shared, &parts));
    }
    let span = telemetry::span(&parts, &shared.config.defaults, false);
    traced(span, send_change(shared, fetcher, parts, body, bypasses)).await
}

async fn send_change<S: Storage, F: Fetcher>(
    shared: Arc<Shared<S>>,
    mut fetcher: F,
    parts: request::Parts,
    body: F::RequestBody,
    bypasses: bool,
) -> Answered<F> {
    let (config, records) = (&shared.config, &shared.records);
    let mut request = parts.clone();
    // Before the request goes out: a deletion that comes in between must keep its response from being stored.
    let (requested, changes) = (config.clock.now(), records.changes.mark());
    let response = send(&shared, &mut fetcher, Request::from_parts(parts, body)).await?;
    let times = Times { requested, responded: config.clock.now() };
    records.invalidate_named(&request, response.headers()).await;
    let uri = config.plain_uri(&request).and_then(|text| text.parse::<Uri>().ok());
    if let Some(uri) = uri
        // A recording keeps every response, whatever comes after it.
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
            && config.admits(&request).await
        {
            let head = records.keyer.head(&effective);
            let plain = config.plain_text(&effective, &request);
            let snapshot = Snapshot::behind(head, (&effective, plain), seen, times.responded, changes);
            // From here on it is the response to a GET for the same URI (RFC 9110 §9.3.3).
            request.method = Method::GET;
            let response = response::admit(&shared, &request, Some(&snapshot), requested, response).await;
            // No flight: the requests that wait for this key asked before the change.
            let (outcome, mut errand) = (Outcome::Miss(MissReason::Method), Errand::alone());
            let obtained =
                response::accept(&shared, &request, Some(snapshot), response, times, outcome, &mut errand);
            return Ok(obtained.response);
        }
    }
    Ok(pass_on(&shared, response, Outcome::Miss(MissReason::Method), policy::NotStored::MethodNotCacheable))
}

/// Gives its caller a response that is not stored, with the reason.
pub(crate) fn pass_on<S: Storage, B>(
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
    /// Returns whether the filters that answer at once leave a request to the cache.
    pub(crate) fn passes_filters(&self, parts: &request::Parts) -> bool {
        self.filters.iter().all(|filter| filter(parts))
    }

    /// Returns whether the filters that have to wait leave a request to the cache.
    ///
    /// The future does not borrow the request, so that the request may be changed or moved meanwhile.
    pub(crate) fn admits(&self, parts: &request::Parts) -> impl Future<Output = bool> + Send + use<> {
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
