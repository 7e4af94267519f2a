//! Answers requests while the origin is slow, with a stale response or that of the user's function.
//!
//! # Invariants
//!
//! - No stale response is served that may not be served when the origin fails.
//! - A fetch whose caller got another response goes on in the background, where it is bounded in number and time.
//! - While a stored response is read, the fetch goes on. Reading ends when it is the turn of the user's function; where it
//!   begins only then, it has a tenth of that limit.

use std::future::Future;
use std::sync::{Arc, PoisonError};

use futures_util::future::{Either, select};
use http::{Response, request};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

use super::refresh::{Refreshing, drain};
use crate::body::CacheBody;
use crate::policy::{StaleReason, ValidateReason};
use crate::service::config::Config;
use crate::service::directives::Deserted;
use crate::service::origin::{Answered, Fetcher, Need, stale_on_error};
use crate::service::respond;
use crate::service::shared::{Begun, Shared};
use crate::service::tasks::after;
use crate::service::telemetry;
use crate::storage::{Key, Storage};

/// Until when a request waits for the origin.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// From then on it gets a stale response, if that may be served.
    stale_at: Option<Instant>,
    /// From then on it gets the response of the user's function.
    fallback_at: Option<Instant>,
}

/// The kinds of response that may end the waiting.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Resort {
    /// Only a stale one, if it is read until then.
    Stale { until: Option<Instant> },
    /// A stale one, or that of the user's function.
    ///
    /// Only the latter if reading a stale one has been tried in vain.
    Any { has_tried: bool },
}

impl Patience {
    /// Returns until when a request waits that has just arrived.
    ///
    /// Returns `None` if it waits without a limit. It does so without a runtime, where there is no timer. In a box, so that a
    /// request without a limit has hardly any room for it.
    pub(super) fn new(config: &Config) -> Option<Box<Self>> {
        let has_limit = config.stale_after.is_some() || config.fallback_after.is_some();
        if !has_limit || Handle::try_current().is_err() {
            return None;
        }
        Some(Box::new(Self {
            stale_at: config.stale_after.map(after),
            fallback_at: config.fallback_after.as_ref().map(|(limit, _)| after(*limit)),
        }))
    }

    /// Returns the resort of a request that need not wait for its own time.
    pub(super) fn at_once(self) -> Resort {
        Resort::Stale { until: self.fallback_at }
    }

    /// Returns the instants at which the waiting may end, in their order.
    pub(super) fn ends(self) -> impl Iterator<Item = (Instant, Resort)> {
        let stale = self.stale_at.filter(|stale| self.fallback_at.is_none_or(|fallback| *stale < fallback));
        let fallback = self.fallback_at.map(|at| (at, Resort::Any { has_tried: stale.is_some() }));
        let stale = stale.map(|at| (at, Resort::Stale { until: self.fallback_at }));
        stale.into_iter().chain(fallback)
    }
}

/// Returns the response that a request gets instead of that of the origin.
///
/// Returns `None` if it has to wait.
pub(super) async fn resort_to<S: Storage, B>(
    shared: &Shared<S>,
    parts: &request::Parts,
    need: &Need,
    resort: Resort,
) -> Option<Response<CacheBody<B>>> {
    let fallback = shared.config.fallback_after.as_ref();
    // A request or a response that demands a validation gets no stale response.
    if let Need::Validate(key, record, ValidateReason::Stale | ValidateReason::Expired) = need
        && resort != (Resort::Any { has_tried: true })
    {
        let reading = stale_on_error(shared, parts, *key, record, None, StaleReason::Slow);
        let until = match resort {
            Resort::Stale { until } => until,
            Resort::Any { .. } => fallback.map(|(limit, _)| after(*limit / 10)),
        };
        let read = match until {
            None => reading.await,
            Some(until) => timeout_at(until, reading).await.ok().flatten(),
        };
        if read.is_some() {
            return read;
        }
    }
    let (_, fallback) = fallback.filter(|_| matches!(resort, Resort::Any { .. }))?;
    Some(respond::fallback(shared, parts, fallback(parts)))
}

/// Returns whether a fetch goes on in the background for a stored response that is to be validated.
pub(super) fn is_deserted<S: Storage>(shared: &Shared<S>, need: &Need) -> bool {
    let Need::Validate(key, ..) = need else { return false };
    shared.refreshing.lock().unwrap_or_else(PoisonError::into_inner).get(key) == Some(&Begun::Deserted)
}

/// A request that leaves its fetch when the origin is slow.
pub(super) struct Impatient<S: Storage> {
    shared: Arc<Shared<S>>,
    parts: request::Parts,
    need: Need,
    /// The key at which the fetch is to store its response.
    key: Key,
    patience: Patience,
    deserted: Deserted,
}

impl<S: Storage> Impatient<S> {
    pub(super) fn new(
        shared: &Arc<Shared<S>>,
        parts: &mut request::Parts,
        need: &Need,
        key: Key,
        patience: Patience,
    ) -> Self {
        // In the request of the fetch, so that its response is not counted as that of a caller.
        let deserted = Deserted::new(shared.records.number);
        parts.extensions.insert(deserted.clone());
        Self { shared: Arc::clone(shared), parts: parts.clone(), need: need.clone(), key, patience, deserted }
    }

    /// Waits for the answer of a fetch, but not longer than the request has patience.
    pub(super) async fn wait_for<F: Fetcher>(
        self: Box<Self>,
        fetching: impl Future<Output = Answered<F>> + Send + 'static,
    ) -> Answered<F> {
        let mut fetching = Box::pin(fetching);
        let mut has_skipped = false;
        for (end, mut resort) in self.patience.ends() {
            if let Ok(answer) = timeout_at(end, &mut fetching).await {
                return answer;
            }
            let place = Refreshing::begin(&self.shared, self.key, Begun::Deserted);
            match &mut resort {
                Resort::Stale { .. } if place.is_none() => {
                    has_skipped = true;
                    continue;
                }
                Resort::Any { has_tried } => *has_tried &= !has_skipped,
                Resort::Stale { .. } => {}
            }
            let resorting = Box::pin(resort_to(&self.shared, &self.parts, &self.need, resort));
            let response = match select(&mut fetching, resorting).await {
                Either::Left((answer, _)) => return answer,
                Either::Right((response, _)) => response,
            };
            let Some(response) = response else { continue };
            if let Some(place) = place {
                self.deserted.set();
                let shared = Arc::clone(&self.shared);
                self.shared.records.tasks.spawn(async move {
                    let _place = place;
                    let finishing = async {
                        drain(fetching.await.ok()?.into_body()).await;
                        Some(())
                    };
                    let result = match timeout(shared.config.refresh_timeout, finishing).await {
                        Ok(Some(())) => "done",
                        Ok(None) => "failed",
                        Err(_) => "timeout",
                    };
                    telemetry::refreshed(&shared.observer, result);
                });
            }
            return Ok(response);
        }
        fetching.await
    }
}
