//! The cache as a middleware of `reqwest-middleware`.

use std::fmt;
use std::sync::Arc;

use ::reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use ::reqwest_middleware::{ClientWithMiddleware, Middleware, Next, Result};
#[cfg(feature = "content-keys")]
use bytes::Bytes;
use http::{Extensions, HeaderMap, Uri, header, request};

use super::fetcher::{ChainFetcher, FinalUrl, RequestTemplate};
use crate::body::CacheBody;
#[cfg(feature = "content-keys")]
use crate::control::BypassReason;
use crate::control::CacheOptions;
use crate::layer::CacheLayer;
use crate::policy::HeaderHints;
use crate::service::{Content, HiddenFields, Route, Shared, bypass, forward_unsafe, route, run};
use crate::storage::Storage;

/// A middleware of [`reqwest_middleware`](super::reqwest_middleware) that caches responses.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use tower_response_cache::reqwest::{CacheMiddleware, FollowRedirects, reqwest_client, reqwest_middleware};
/// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
///
/// let layer = CacheLayer::new(MemoryStorage::new());
/// // The cache has to know which fields the client adds to each request.
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
/// The response's extensions have a [`CacheStatus`](crate::CacheStatus), which says what the cache did. Await
/// [`CacheLayer::idle`] before the program ends, so that no write is lost.
///
/// The middleware needs reqwest 0.13 and reqwest-middleware 0.5. Both are re-exported, so that a program can use the
/// same versions.
///
/// # Fields that the client adds
/// A client adds fields below the cache: its default headers, the cookies of a jar, and the fields of middlewares
/// below. The cache does not see them, but a response may depend on them. So tell the cache about them:
/// - [`client_headers`](CacheMiddleware::client_headers) names fields that are the same in each request. An empty map
///   says that there are none.
/// - [`partition`](CacheMiddleware::partition) gives one name to all other fields, for example to one user's cookie
///   jar.
///
/// Otherwise the cache stores only responses that say `public` and do not vary on Cookie or Authorization. The others
/// are [`NotStored::ClientHeaders`](crate::NotStored::ClientHeaders), and the first of them is logged as a warning. The
/// cache also does not answer such a client with a response that was stored for a client whose fields it knows.
///
/// # The Host field
/// A request is for its URL: the client connects to that server and authenticates it. If a request has a Host field
/// that differs from the URL, its responses are stored apart from those to other requests for the URL. An invalidation
/// of the URL invalidates them too.
///
/// # Redirects
/// A client that follows redirects by itself returns the response of the last URL to the request for the first one.
/// Such a response is not stored ([`NotStored::Redirected`](crate::NotStored::Redirected)). Switch that off and use
/// [`FollowRedirects`](super::FollowRedirects) above the cache. A response that a middleware below made without a URL
/// counts as redirected too.
///
/// # Stale while revalidate
/// A chain of middlewares ends with its request, so that no response can be refreshed through it afterwards. By default
/// the request itself therefore revalidates a response within its `stale-while-revalidate` window, before it is served.
/// With [`refresh_with`](CacheMiddleware::refresh_with) the response is served at once, and the given client refreshes
/// it in the background.
///
/// # Many requests at once
/// Requests for the same entry share one fetch, as they do with a service. But the rest of the chain belongs to the
/// request that fetches. While that request's task is not polled, the requests that wait for the head cannot drive the
/// fetch in its place. They wait for [`coalesce_timeout`](crate::CacheLayerBuilder::coalesce_timeout) at most. So do
/// not start two requests for the same entry in one task and then await one after the other. Once the head has arrived,
/// each request reads the body independently.
///
/// # Errors
/// Returns the errors of the client and of the middlewares below as they are. A failing storage does not fail a
/// request, unless [`fail_closed`](crate::CacheLayerBuilder::fail_closed) is set, which answers 503.
pub struct CacheMiddleware<S: Storage> {
    shared: Arc<Shared<S>>,
    client_headers: HeaderMap,
    /// `client_headers` or `partition` was set, so that responses for one client may be stored.
    knows_client_headers: bool,
    refresh_client: Option<ClientWithMiddleware>,
}

impl<S: Storage> CacheMiddleware<S> {
    /// Creates a middleware over a layer.
    ///
    /// All middlewares and services of one layer are one cache. Until
    /// [`client_headers`](CacheMiddleware::client_headers) or [`partition`](CacheMiddleware::partition) is set, it
    /// stores only responses that say `public`.
    pub fn new<M>(layer: CacheLayer<S, M>) -> Self {
        Self {
            shared: Arc::clone(layer.shared()),
            client_headers: HeaderMap::new(),
            knows_client_headers: false,
            refresh_client: None,
        }
    }

    /// Sets the default headers of the client below.
    ///
    /// The client adds each of them to every request without a field of that name. The middleware adds them before it
    /// looks up the response, so that they select it like the request's own fields. An empty map says that the client
    /// adds none.
    ///
    /// Default: unknown. Only responses that say `public` are stored.
    #[must_use]
    pub fn client_headers(mut self, headers: &HeaderMap) -> Self {
        self.client_headers.clone_from(headers);
        self.knows_client_headers = true;
        self
    }

    /// Stores responses in a partition of this name, apart from all others in the storage.
    ///
    /// The name stands for all fields that the client adds below, for example for one user's cookie jar. Clients that
    /// add different fields need different names. The layer's own partition still applies.
    ///
    /// Default: none. Only responses that say `public` are stored, unless
    /// [`client_headers`](CacheMiddleware::client_headers) is set.
    #[must_use]
    pub fn partition(mut self, name: impl AsRef<str>) -> Self {
        self.shared = self.shared.partitioned(name.as_ref());
        self.knows_client_headers = true;
        self
    }

    /// Sets the client that refreshes responses in the background (RFC 5861 §3).
    ///
    /// Use a plain client, or one with the middlewares that are below this cache. It should add the same fields as the
    /// client below.
    ///
    /// Default: none. The request itself revalidates a stale response before it is served.
    #[must_use]
    pub fn refresh_with(mut self, client: impl Into<ClientWithMiddleware>) -> Self {
        self.refresh_client = Some(client.into());
        self
    }

    /// Adds the fields to a request that the client would add.
    fn add_client_headers(&self, headers: &mut HeaderMap) {
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
        // The client sends no fragment, and `Response::url()` has none either.
        url.set_fragment(None);
        if url.as_str().parse::<Uri>().is_err() {
            return next.run(request, extensions).await; // the client reports what is wrong with it
        }
        let (mut parts, body) = into_parts(request)?;
        self.add_client_headers(&mut parts.headers);
        if !self.knows_client_headers {
            parts.extensions.insert(HiddenFields);
        }
        let template = RequestTemplate {
            url: url.clone(),
            has_hidden_fields: !self.knows_client_headers,
            content: None,
        };
        #[cfg_attr(not(feature = "content-keys"), allow(unused_mut))]
        let mut fetcher =
            ChainFetcher { next, extensions, template, refresh_client: self.refresh_client.clone() };
        let shared = Arc::clone(&self.shared);
        if let Some(options) = fetcher.extensions.get::<CacheOptions>() {
            parts.extensions.insert(options.clone());
        }
        let bypasses = shared.config.enter(&mut parts) || shared.is_disabled();
        let route = {
            let uri = shared.config.identify(&parts);
            route(
                &shared,
                &parts,
                content_of(body.as_ref()),
                HeaderHints::of(&parts.headers),
                uri.as_ref(),
                bypasses,
            )
        };
        let response = match route {
            Route::Bypass(reason) => {
                bypass(shared, fetcher, http::Request::from_parts(parts, body), reason).await?
            }
            Route::Unsafe => forward_unsafe(shared, fetcher, parts, body, bypasses).await?,
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
                    None => bypass(shared, fetcher, http::Request::from_parts(parts, body), reason).await?,
                    Some(content) => {
                        fetcher.template.content = Some(content);
                        let ended_flights = shared.flights.ended_flights();
                        run(shared, fetcher, parts, body, None, ended_flights).await?
                    }
                }
            }
            Route::Lookup => {
                let ended_flights = shared.flights.ended_flights();
                run(shared, fetcher, parts, body, None, ended_flights).await?
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
            knows_client_headers: self.knows_client_headers,
            refresh_client: self.refresh_client.clone(),
        }
    }
}

impl<S: Storage> fmt::Debug for CacheMiddleware<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMiddleware")
            .field("knows_client_headers", &self.knows_client_headers)
            .finish_non_exhaustive()
    }
}

/// Splits a request into its parts and its body.
///
/// The body is taken first, since reqwest's conversion replaces an absent body with an empty one.
fn into_parts(mut request: Request) -> Result<(request::Parts, Option<Body>)> {
    let body = request.body_mut().take();
    let (parts, _) = http::Request::<Body>::try_from(request)?.into_parts();
    Ok((parts, body))
}

/// Returns whether a request has content, as far as its body tells.
///
/// A stream does not tell, since the size hint of reqwest's body says nothing about a stream that it wraps.
fn content_of(body: Option<&Body>) -> Content {
    match body.map(Body::as_bytes) {
        None | Some(Some(&[])) => Content::None,
        Some(Some(_)) => Content::Some,
        Some(None) => Content::Unknown,
    }
}

/// Converts a response of the cache into one of reqwest.
///
/// A hit has no URL of its own, so that it gets the URL of its request.
fn into_response(response: http::Response<CacheBody<Body>>, requested: Url) -> Response {
    let (mut head, body) = response.into_parts();
    let url = head.extensions.remove::<FinalUrl>().map_or(requested, |FinalUrl(url)| url);
    // reqwest reads the URL from a private extension, which only its extension of `http::response::Builder` can set.
    if let Ok(with_url) = http::Response::builder().url(url).body(()) {
        head.extensions.extend(with_url.into_parts().0.extensions);
    }
    Response::from(http::Response::from_parts(head, Body::wrap(body)))
}
