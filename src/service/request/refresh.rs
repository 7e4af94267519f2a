//! Background refreshes: a stored response is validated while requests are still answered with it.
//!
//! # Invariants
//!
//! - No hit waits for a refresh.
//! - There is at most one refresh for a record, a bounded number in all, and each has a time limit.

use std::sync::{Arc, PoisonError};

use http::{Method, header, request};
use http_body::Body;

use crate::body::CacheBody;
use crate::control::{CacheOptions, CacheStatus};
use crate::observe::{Gauge, GaugeGuard};
use crate::policy::{self, ValidateReason};
use crate::service::coalesce::{FlightOutcome, Joined};
use crate::service::directives::Background;
use crate::service::origin::{FetchContext, Fetcher, Need, exchange, may_store_for, publish};
use crate::service::records::{Snapshot, is_by_content, variant_in};
use crate::service::shared::{Begun, Shared};
use crate::service::telemetry::{self, traced};
use crate::storage::{Key, Record, Storage};

/// Marks a record as being refreshed until it is dropped.
pub(super) struct Refreshing<S: Storage> {
    shared: Arc<Shared<S>>,
    key: Key,
    _gauge: GaugeGuard,
}

impl<S: Storage> Refreshing<S> {
    /// Marks a record as being refreshed.
    ///
    /// Returns `None` if it is being refreshed already, or if too many records are.
    pub(super) fn begin(shared: &Arc<Shared<S>>, key: Key, begun: Begun) -> Option<Self> {
        // A std `Mutex`, held for one operation on the set. The bound is checked under it, so that it holds exactly.
        let mut refreshing = shared.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        if refreshing.len() >= shared.config.max_background_refreshes || refreshing.contains_key(&key) {
            return None;
        }
        refreshing.insert(key, begun);
        let gauge = shared.observer.raise(Gauge::Refreshes);
        Some(Self { shared: Arc::clone(shared), key, _gauge: gauge })
    }
}

impl<S: Storage> Drop for Refreshing<S> {
    fn drop(&mut self) {
        self.shared.refreshing.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Refreshes a record in the background, unless it is being refreshed already.
pub(super) fn refresh_later<S: Storage, F: Fetcher + 'static>(
    shared: &Arc<Shared<S>>,
    fetcher: F,
    parts: &request::Parts,
    snapshot: &Snapshot,
    key: Key,
    record: &Record,
) {
    let Some(refreshing) = Refreshing::begin(shared, key, Begun::Early) else { return };
    let parts = refresh_request(parts, record);
    if !may_store_for(shared, &parts, record) {
        return;
    }
    let (shared, snapshot, record) = (Arc::clone(shared), snapshot.clone(), record.clone());
    let tasks = shared.records.tasks.clone();
    // The request that begins the refresh is answered with the stale response, and does not wait for this task.
    tasks.spawn(async move {
        let _refreshing = refreshing;
        let result = refresh(&shared, fetcher, parts, snapshot, key, record).await;
        telemetry::refreshed(&shared.observer, result);
    });
}

/// Returns the request of a refresh, from a request that the record answered.
fn refresh_request(parts: &request::Parts, record: &Record) -> request::Parts {
    let mut parts = parts.clone();
    if !is_by_content(&parts) {
        parts.method = Method::GET;
    }
    policy::strip_conditions(&mut parts.headers);
    // These say which response this caller accepts, which does not concern later requests.
    parts.headers.remove(header::CACHE_CONTROL);
    parts.headers.remove(header::PRAGMA);
    // The response keeps the tags that earlier requests gave it.
    let tagged = variant_in(record).map(|variant| Arc::clone(&variant.response.groups)).unwrap_or_default();
    let tags: Vec<&str> = tagged.iter().filter(|group| group.is_tag).map(|group| &*group.name).collect();
    match parts.extensions.get_mut::<CacheOptions>() {
        Some(options) => *options = options.for_a_refresh().tags(tags),
        None if tags.is_empty() => {}
        None => drop(parts.extensions.insert(CacheOptions::new().tags(tags))),
    }
    parts
}

/// Validates a record, and returns the result as the word that the statistics count.
async fn refresh<S: Storage, F: Fetcher>(
    shared: &Arc<Shared<S>>,
    mut fetcher: F,
    mut parts: request::Parts,
    snapshot: Snapshot,
    key: Key,
    record: Record,
) -> &'static str {
    let (config, records) = (&shared.config, &shared.records);
    parts.extensions.insert(Background(records.number));
    let (seen, ended_flights) = (Some(record.stamp()), shared.flights.ended_flights());
    let Joined::Lead(_flight, mut ticket) =
        shared.flights.join((key, key), seen, ended_flights, true, FlightOutcome::is_joinable)
    else {
        return "needless"; // a request is validating it already
    };
    tracing::debug!("a background refresh began");
    let mut lease = None;
    if let Some(time) = config.lease {
        match records.take_lease(key, time).await {
            Ok(None) => return "needless", // another process is validating it
            Ok(taken) => lease = taken,
            // The lease is only an optimization, so that a failing storage does not prevent the refresh.
            Err(()) => {}
        }
    }
    let looks_again = ticket.looks_again || config.lease.is_some();
    if looks_again && !records.is_still(key, seen).await.unwrap_or(true) {
        return "needless"; // another request has replaced it since this one read it
    }
    let exchanging = async {
        let need = Need::Validate(key, record, ValidateReason::Stale);
        let flight = ticket.token();
        let mut context =
            FetchContext { is_led: true, strips_conditions: false, is_background: true, lease, flight };
        let span = telemetry::span(&parts, &config.defaults, true);
        let exchanging = async {
            let mut snapshot = snapshot;
            let snapshot = Some(&mut snapshot);
            let result = exchange(shared, &mut fetcher, &parts, None, snapshot, &need, &mut context).await;
            publish(&mut ticket, result)
        };
        let response = traced(span, exchanging).await.ok()?;
        let is_answer = !response.body().status().is_some_and(CacheStatus::is_stale);
        drain(response.into_body()).await;
        is_answer.then_some(())
    };
    // Bounded, since an origin that never ends its response would hold one of the places for refreshes for ever.
    match tokio::time::timeout(config.refresh_timeout, exchanging).await {
        Ok(Some(())) => "done",
        Ok(None) => "failed",
        Err(_) => "timeout",
    }
}

/// Reads a body to its end, because only a body that is read is stored.
pub(super) async fn drain<B>(body: CacheBody<B>)
where
    CacheBody<B>: Body,
{
    let mut body = Box::pin(body);
    while let Some(Ok(_)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}
