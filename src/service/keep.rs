//! Passes a response on, and stores it on its way if it may be stored.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue, Response, header, request};
use http_body::Body;
use tokio::sync::mpsc;

use super::commit::Plan;
use super::core::Core;
use super::fetcher::{Fetcher, Unstorable};
use super::lookup::Place;
use super::recorder::Recorder;
use crate::body::{CacheBody, Tee, into_bytes};
use crate::control::{CacheStatus, Outcome, Stored};
use crate::entry::{StoredBody, StoredResponse};
use crate::key::EffectiveUri;
use crate::policy::{self, Freshness};
use crate::storage::Storage;
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
    until: Timestamp,
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
    ) -> Response<CacheBody<F::Body>> {
        let (head, body) = response.into_parts();
        let freshness =
            Freshness::new(head.status, &head.headers, times.requested, times.responded, &self.config.policy);
        let (stored, plan) = match place {
            None => (Stored::Storage, None),
            Some(place) => match self.storable(request, &place, &head, times, &freshness) {
                Err(reason) => (reason, None),
                Ok(storable) => {
                    let Storable { names, response, until } = storable;
                    let plan = Plan::new(Arc::clone(self), place, names, &request.headers, response, until);
                    (Stored::Storing, Some(plan))
                }
            },
        };
        let mut status = CacheStatus::new(outcome, stored);
        status.origin_status = Some(head.status.as_u16());
        if plan.is_some() {
            status.ttl = Some(freshness.ttl(times.responded));
        }
        let body = match plan {
            None => CacheBody::inner(body),
            Some(plan) => self.record::<F>(plan, &head.headers, body),
        };
        self.finish(Response::from_parts(head, body), status)
    }

    fn storable(
        &self,
        request: &request::Parts,
        place: &Place,
        head: &http::response::Parts,
        times: Exchange,
        freshness: &Freshness,
    ) -> Result<Storable, Stored> {
        let options = &self.config.policy;
        if self.answers_elsewhere(place, head) {
            return Err(Stored::Redirected);
        }
        if let Some(reason) = Unstorable::reason(&head.extensions) {
            return Err(reason);
        }
        policy::storable(&request.method, &request.headers, head.status, &head.headers, freshness, options)
            .map_err(Stored::No)?;
        let names = policy::selecting_names(&head.headers, options).map_err(Stored::No)?;
        if content_length(&head.headers).is_some_and(|len| len > self.config.max_entry_bytes) {
            return Err(Stored::TooLarge);
        }
        let mut headers = policy::stored_headers(&head.headers, options);
        policy::ensure_date(&mut headers, times.responded);
        headers.insert(header::AGE, HeaderValue::from_static("0"));
        let response = StoredResponse {
            status: head.status,
            headers,
            initial_age_ms: u64::try_from(freshness.initial_age.as_millis()).unwrap_or(u64::MAX),
            request_time: times.requested,
            response_time: times.responded,
            body: StoredBody::Inline(bytes::Bytes::new()),
            trailers: None,
            freshness: OnceLock::new(),
        };
        Ok(Storable { names, response, until: freshness.retain_until(options) })
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
            && !EffectiveUri::of_uri(&uri.0).is_some_and(|uri| uri.is_text(&place.key_text))
        {
            return true;
        }
        let uri = self.config.final_uri.as_ref().and_then(|final_uri| final_uri(head));
        uri.is_some_and(|uri| !EffectiveUri::of_uri(&uri).is_some_and(|uri| uri.is_text(&place.key_text)))
    }

    fn record<F: Fetcher>(
        self: &Arc<Self>,
        plan: Plan<S>,
        headers: &HeaderMap,
        body: F::Body,
    ) -> CacheBody<F::Body> {
        let expected = content_length(headers).or_else(|| body.size_hint().exact());
        let mut recorder = Recorder::new(plan, expected, headers.contains_key(header::TRAILER));
        if body.is_end_stream() {
            recorder.finish();
            return CacheBody::inner(body);
        }
        if self.config.finish_on_drop && tokio::runtime::Handle::try_current().is_ok() {
            return self.pump(CacheBody::kept(body, Box::new(recorder)));
        }
        CacheBody::kept(body, Box::new(recorder))
    }

    /// Lets a task drive the body, so that it is stored even if the caller drops it.
    fn pump<B>(&self, body: CacheBody<B>) -> CacheBody<B>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let hint = body.size_hint();
        let (sender, frames) = mpsc::channel(1);
        self.tasks.spawn(async move {
            let mut body = Box::pin(body);
            while let Some(frame) = std::future::poll_fn(|cx| Pin::as_mut(&mut body).poll_frame(cx)).await {
                let failed = frame.is_err();
                let _ = sender.send(into_bytes(frame)).await; // nobody listens any more: it is read for the store
                if failed {
                    return;
                }
            }
        });
        CacheBody::pumped(frames, hint)
    }
}

/// The announced length; `None` where there is none, or no single one.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next()?.to_str().ok()?.parse().ok()?;
    lengths.next().is_none().then_some(length)
}
