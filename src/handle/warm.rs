//! Fetches responses in advance.

use std::future::poll_fn;
use std::pin::pin;

use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::CacheHandle;
use crate::control::{CacheStatus, Outcome, Stored};
use crate::service::Warming;
use crate::storage::Storage;

/// The results of the requests of [`CacheHandle::warm`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmReport {
    /// Responses that were fetched and stored.
    pub stored: u64,
    /// Responses that were stored already, fresh or stale.
    pub hits: u64,
    /// Responses that were stored already, and confirmed by the origin.
    pub revalidated: u64,
    /// Responses that were fetched and not stored.
    ///
    /// The reason is in [`CacheStatus::stored`] if you send the request yourself, or in the event `not stored` if the storage
    /// did not take the response.
    pub not_stored: u64,
    /// Requests for which the service or the body failed.
    pub failed: u64,
}

impl<S: Storage> CacheHandle<S> {
    /// Sends requests through a service that contains this cache, and waits until the responses are stored.
    ///
    /// `at_once` is how many requests are under way at a time, at least one. The bodies are read to their end.
    ///
    /// Fields, Cache-Control and [`CacheOptions`](crate::CacheOptions) of the requests count as usual. Fields that select a
    /// variant (Accept, Accept-Encoding, Authorization …) should be those of the requests to come.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # use http::{Request, Response};
    /// # use http_body_util::{Empty, Full};
    /// # use bytes::Bytes;
    /// # use tower::{Layer, service_fn};
    /// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
    /// # let client = service_fn(|_: Request<Empty<Bytes>>| async {
    /// #     Ok::<_, http::Error>(Response::builder().header("cache-control", "max-age=60").body(Full::new(Bytes::from("hello")))?)
    /// # });
    ///
    /// let layer = CacheLayer::new(MemoryStorage::new());
    /// let service = layer.layer(client); // and layers above it, if you like
    /// let requests = ["/a", "/b"].map(|path| {
    ///     Request::get(format!("https://example.com{path}")).body(Empty::<Bytes>::new()).unwrap()
    /// });
    /// let warmed = layer.handle().warm(service, requests, 8).await;
    /// assert_eq!((warmed.stored, warmed.failed), (2, 0));
    /// # });
    /// # }
    /// ```
    #[allow(clippy::future_not_send)] // the future is Send if the service and the requests are
    pub async fn warm<Svc, ReqB, ResB>(
        &self,
        service: Svc,
        requests: impl IntoIterator<Item = Request<ReqB>>,
        at_once: usize,
    ) -> WarmReport
    where
        Svc: Service<Request<ReqB>, Response = Response<ResB>> + Clone,
        ResB: Body,
    {
        let mut warmed = WarmReport::default();
        let mut storing = Vec::new();
        let answers = stream::iter(requests).map(|mut request| {
            let warming = Warming::new(self.shared.records.number);
            request.extensions_mut().insert(warming.clone());
            let answer = answer(service.clone(), request);
            async move { (answer.await, warming) }
        });
        let mut answers = pin!(answers.buffer_unordered(at_once.max(1)));
        while let Some((answer, warming)) = answers.next().await {
            *(match answer {
                None => &mut warmed.failed,
                Some(status) => match status.map(|status| (status.outcome(), status.stored())) {
                    Some((Outcome::Hit | Outcome::Stale(_), _)) => &mut warmed.hits,
                    Some((Outcome::Revalidated(_), _)) => &mut warmed.revalidated,
                    Some((_, Stored::Storing)) => {
                        storing.push(warming);
                        continue;
                    }
                    _ => &mut warmed.not_stored,
                },
            }) += 1;
        }
        self.shared.records.tasks.idle().await;
        // The storage may have refused a response in the end, or another writer may have been faster.
        let failed = storing.iter().filter(|warming| warming.has_failed()).count() as u64;
        warmed.stored += storing.len() as u64 - failed;
        warmed.not_stored += failed;
        warmed
    }
}

/// Reads a response to its end; returns `None` if it failed, and `Some(None)` if it went through no cache.
#[allow(clippy::future_not_send)]
async fn answer<Svc, ReqB, ResB>(mut service: Svc, request: Request<ReqB>) -> Option<Option<CacheStatus>>
where
    Svc: Service<Request<ReqB>, Response = Response<ResB>>,
    ResB: Body,
{
    poll_fn(|cx| service.poll_ready(cx)).await.ok()?;
    let (head, body) = service.call(request).await.ok()?.into_parts();
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        frame.ok()?;
    }
    Some(head.extensions.get().copied())
}
