//! Unsafe requests: sent as they are, and what their success makes doubtful is invalidated (RFC 9111 §4.4).

use std::sync::Arc;

use http::{Method, Request, Response, Uri, header, request};

use super::super::config::{Config, Tape};
use super::super::records::Snapshot;
use super::super::respond;
use super::super::shared::Shared;
use super::super::telemetry::{self, traced};
use super::fetcher::{Fetcher, send};
use super::{Answered, Errand, Times, response};
use crate::body::CacheBody;
use crate::control::{CacheStatus, MissReason, Outcome, Stored};
use crate::policy;
use crate::storage::Storage;

/// Sends an unsafe request, and invalidates. `bypasses`: it bypasses the cache, so that its response is not stored.
pub(crate) async fn change<S: Storage, F: Fetcher>(
    shared: Arc<Shared<S>>,
    fetcher: F,
    parts: request::Parts,
    body: F::RequestBody,
    bypasses: bool,
) -> Answered<F> {
    if shared.config.tape == Some(Tape::Replay) {
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
    let mut asked = parts.clone();
    let (requested, changes) = (config.clock.now(), records.changes.mark());
    let response = send(&shared, &mut fetcher, Request::from_parts(parts, body)).await?;
    let times = Times { requested, responded: config.clock.now() };
    records.invalidate_named(&asked, response.headers()).await;
    let uri = config.plain_uri(&asked).and_then(|text| text.parse::<Uri>().ok());
    if let Some(uri) = uri
        // A recording keeps every response for ever.
        && config.tape.is_none()
        && policy::invalidates(&asked.method, response.status())
        && let Some(effective) = config.identify(&asked)
    {
        let mut named = policy::invalidated(&uri, response.headers());
        if let Some(other) = records.other_scheme(&asked, &uri) {
            named.extend(policy::invalidated(&other, response.headers()));
            named.push(other);
        }
        let tombstone = records.invalidate_all(&effective, &named, &asked).await;
        if let Some(seen) = tombstone
            && policy::answers_get(&asked.method, &uri, response.headers(), &config.policy)
            && !bypasses
            && !asked.headers.contains_key(header::UPGRADE)
            && config.passes_filters(&asked)
            && config.admits(&asked).await
        {
            let head = records.keyer.head(&effective);
            let plain = config.plain_text(&effective, &asked);
            let snapshot = Snapshot::behind(head, (&effective, plain), seen, times.responded, changes);
            asked.method = Method::GET;
            let response = response::admit(&shared, &asked, Some(&snapshot), requested, response).await;
            let (outcome, mut errand) = (Outcome::Miss(MissReason::Method), Errand::alone());
            let obtained =
                response::accept(&shared, &asked, Some(snapshot), response, times, outcome, &mut errand);
            return Ok(obtained.response);
        }
    }
    Ok(pass_on(&shared, response, Outcome::Miss(MissReason::Method), policy::NotStored::MethodNotCacheable))
}

/// Gives a response that is not stored to its caller.
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
    /// Whether the user's filters leave a request to the cache: those that need no waiting.
    pub(crate) fn passes_filters(&self, parts: &request::Parts) -> bool {
        self.filters.iter().all(|filter| filter(parts))
    }

    /// Whether the filters that have to wait leave a request to the cache.
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
