//! The middleware itself.

use std::fmt;
use std::sync::Arc;

use ::reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use ::reqwest_middleware::{ClientWithMiddleware, Middleware, Next, Result};
#[cfg(feature = "content-keys")]
use bytes::Bytes;
use http::{Extensions, HeaderMap, Uri, header, request};

use super::below::{Chain, Question, Source};
use crate::body::CacheBody;
use crate::control::{BypassReason, CacheOptions};
use crate::layer::CacheLayer;
use crate::policy::Interest;
use crate::service::{Content, HiddenFields, Route, Shared, bypass, forward_unsafe, route, run};
use crate::storage::Storage;

/// A cache as a middleware of [`reqwest_middleware`](super::reqwest_middleware).
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use tower_response_cache::reqwest::{CacheMiddleware, FollowRedirects, reqwest_client, reqwest_middleware};
/// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
///
/// let layer = CacheLayer::new(MemoryStorage::new());
/// // What the client adds to each request, the cache has to know.
/// let headers = reqwest_client::header::HeaderMap::new();
/// // Redirects are followed above the cache, so that each hop is cached by its own rules.
/// let client = reqwest_client::Client::builder()
///     .redirect(reqwest_client::redirect::Policy::none())
///     .default_headers(headers.clone())
///     .build()
///     .expect("a client");
/// let client = reqwest_middleware::ClientBuilder::new(client)
///     .with(FollowRedirects::new())
///     .with(CacheMiddleware::new(layer.clone()).client_headers(&headers))
///     .build();
/// # drop(client);
/// # }
/// ```
///
/// What the cache did is in the response's extensions: [`CacheStatus`](crate::CacheStatus). Await
/// [`CacheLayer::idle`] before the program ends.
///
/// It needs reqwest 0.13 and reqwest-middleware 0.5; both are re-exported, so that the types always fit.
///
/// # What the client adds below
/// A client adds fields that the cache does not see: its default headers, a cookie jar, what a middleware below puts
/// in. A response may depend on them, so the cache is told: of constant fields by
/// [`client_headers`](CacheMiddleware::client_headers), also that there are none; of anything else by one name for all
/// of it, [`partition`](CacheMiddleware::partition).
///
/// Untold, it keeps only responses that say `public` and do not vary on Cookie or Authorization;
/// [`NotStored::ClientHeaders`](crate::NotStored::ClientHeaders) says so of the others, and a warning once. Nor is an untold
/// client answered with what was stored for a client of which the cache was told.
///
/// # The Host field
/// A request is about its URL: that server is connected to, and authenticated. A Host field of the request's own that is
/// not the URL's tells its responses from those to others, and an invalidation of the URL ends them too.
///
/// # Redirects
/// A client that follows redirects itself gives the last hop's response for the first hop's URL. Such a response is
/// not stored ([`NotStored::Redirected`](crate::NotStored::Redirected)). Use [`FollowRedirects`](super::FollowRedirects) above
/// the cache. A response that some middleware below made without a URL counts as redirected as well.
///
/// # Stale while revalidate
/// A chain of middlewares ends with its request, so nothing can be refreshed through it afterwards. By default a response
/// within its `stale-while-revalidate` window is therefore revalidated by the request itself, before it is served. With
/// [`refresh_with`](CacheMiddleware::refresh_with) it is served at once, and refreshed beside through the client given.
///
/// # Many callers at once
/// They share one fetch, as with a service. But the rest of the chain is its request's own: where the task that fetches
/// is not polled, those who wait for the head cannot go on in its place, and wait for
/// [`coalesce_timeout`](crate::CacheLayerBuilder::coalesce_timeout) at most. So two requests for the same should not be awaited
/// one after the other in one task while both are under way. Once the head is there, each reads on by itself.
///
/// # Errors
/// Those of the client and of the middlewares below, as they came. The storage never fails a request.
pub struct CacheMiddleware<S: Storage> {
    shared: Arc<Shared<S>>,
    client_headers: HeaderMap,
    told: bool,
    refresher: Option<ClientWithMiddleware>,
}

impl<S: Storage> CacheMiddleware<S> {
    /// A middleware over this layer. All middlewares and services of one layer are one cache. Say what the client adds by
    /// [`client_headers`](CacheMiddleware::client_headers) or [`partition`](CacheMiddleware::partition): until then only
    /// what is `public` is kept.
    pub fn new(layer: CacheLayer<S>) -> Self {
        Self {
            shared: Arc::clone(layer.shared()),
            client_headers: HeaderMap::new(),
            told: false,
            refresher: None,
        }
    }

    /// The fields that the client below adds to each request that has none of that name: its default headers. They
    /// count as the request's own when the cache tells requests apart; an empty map says that nothing is added. They
    /// are also put into the request that goes out, as the client would. Default: untold, so that only what is `public`
    /// is kept.
    #[must_use]
    pub fn client_headers(mut self, headers: &HeaderMap) -> Self {
        self.client_headers.clone_from(headers);
        self.told = true;
        self
    }

    /// Keeps what is stored through this middleware apart from all else in the store, under this name, and takes
    /// whatever the client adds below as belonging to it: one identity, say one user's cookie jar. It comes on top of
    /// the layer's own partition. Default: untold, so that only what is `public` is kept.
    #[must_use]
    pub fn partition(mut self, name: impl AsRef<str>) -> Self {
        self.shared = self.shared.partitioned(name.as_ref());
        self.told = true;
        self
    }

    /// The client by which a response is refreshed beside the requests (RFC 5861 §3): a plain one, or one with the
    /// middlewares that stand below this cache. It should add the same fields as the client below. Default: none, and
    /// the request itself revalidates.
    #[must_use]
    pub fn refresh_with(mut self, client: impl Into<ClientWithMiddleware>) -> Self {
        self.refresher = Some(client.into());
        self
    }

    /// Adds to a request what the client would.
    fn complete(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.client_headers {
            if let header::Entry::Vacant(vacant) = headers.entry(name) {
                vacant.insert(value.clone());
            }
        }
    }
}

#[async_trait::async_trait]
impl<S: Storage> Middleware for CacheMiddleware<S> {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let mut url = request.url().clone();
        url.set_fragment(None);
        if url.as_str().parse::<Uri>().is_err() {
            return next.run(request, extensions).await; // the client says what is wrong with it
        }
        let (mut parts, body) = into_parts(request)?;
        self.complete(&mut parts.headers);
        if !self.told {
            parts.extensions.insert(HiddenFields);
        }
        let question = Question { url: url.clone(), untold: !self.told, content: None };
        #[cfg_attr(not(feature = "content-keys"), allow(unused_mut))]
        let mut chain = Chain { next, extensions, question, refresher: self.refresher.clone() };
        let shared = Arc::clone(&self.shared);
        if let Some(options) = chain.extensions.get::<CacheOptions>() {
            parts.extensions.insert(options.clone());
        }
        let bypasses = shared.config.enter(&mut parts) || shared.is_disabled();
        let route = {
            let uri = shared.config.identify(&parts);
            route(
                &shared,
                &parts,
                content_of(body.as_ref()),
                Interest::of(&parts.headers),
                uri.as_ref(),
                bypasses,
            )
        };
        let response = match route {
            Route::Bypass(reason) => {
                bypass(shared, chain, http::Request::from_parts(parts, body), reason).await?
            }
            Route::Unsafe => forward_unsafe(shared, chain, parts, body, bypasses).await?,
            #[cfg(feature = "content-keys")]
            Route::Content => {
                let content = match &body {
                    None => Some(Bytes::new()),
                    Some(body) => body.as_bytes().map(Bytes::copy_from_slice),
                };
                let reason = match &content {
                    None => BypassReason::NotReplayable,
                    Some(_) => BypassReason::ContentTooLong,
                };
                match content.filter(|content| shared.config.take_short_content(&mut parts, content)) {
                    None => bypass(shared, chain, http::Request::from_parts(parts, body), reason).await?,
                    Some(content) => {
                        chain.question.content = Some(content);
                        let ended_flights = shared.flights.ended_flights();
                        run(shared, chain, parts, body, None, ended_flights).await?
                    }
                }
            }
            Route::Lookup => {
                let ended_flights = shared.flights.ended_flights();
                run(shared, chain, parts, body, None, ended_flights).await?
            }
        };
        Ok(into_response(response, url))
    }
}

impl<S: Storage> Clone for CacheMiddleware<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            client_headers: self.client_headers.clone(),
            told: self.told,
            refresher: self.refresher.clone(),
        }
    }
}

impl<S: Storage> fmt::Debug for CacheMiddleware<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMiddleware").field("told", &self.told).finish_non_exhaustive()
    }
}

fn into_parts(mut request: Request) -> Result<(request::Parts, Option<Body>)> {
    let body = request.body_mut().take();
    let (parts, _) = http::Request::<Body>::try_from(request)?.into_parts();
    Ok((parts, body))
}

/// What a body that is not in memory says of its content: reqwest's own hint is of no use where it wraps a stream.
fn content_of(body: Option<&Body>) -> Content {
    match body.map(Body::as_bytes) {
        None | Some(Some(&[])) => Content::None,
        Some(Some(_)) => Content::Some,
        Some(None) => Content::Unknown,
    }
}

fn into_response(response: http::Response<CacheBody<Body>>, asked: Url) -> Response {
    let (mut head, body) = response.into_parts();
    let url = head.extensions.remove::<Source>().map_or(asked, |Source(url)| url);
    // Only a builder can be given a URL.
    if let Ok(with_url) = http::Response::builder().url(url).body(()) {
        head.extensions.extend(with_url.into_parts().0.extensions);
    }
    Response::from(http::Response::from_parts(head, Body::wrap(body)))
}
