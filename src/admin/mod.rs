//! A service to administer a cache while it runs: a JSON API, PURGE and BAN, and a page for a browser.
//!
//! [`router`] makes an axum router from a [`CacheHandle`] and a function that decides which requests are permitted. Serve it
//! at an address of its own, which only administrators reach, and by TLS unless that is the local machine.
//!
//! ```
//! # #[cfg(feature = "memory")] {
//! use tower_response_cache::{CacheLayer, admin, storage::MemoryStorage};
//!
//! let layer = CacheLayer::new(MemoryStorage::new());
//! let secret = "read from a file, at least 128 random bits"; // not in the program
//! let router = admin::router(layer.handle(), admin::token(secret));
//! // axum::serve(tokio::net::TcpListener::bind("127.0.0.1:9200").await?, router).await?;
//! # let _: axum::Router = router;
//! # }
//! ```
//!
//! # The page
//! `GET /` answers with a page that works without any other host: the share of hits and the times of the origin and the
//! storage since it was opened, the stored responses to search and sort, one of them with all that is known of it, and
//! buttons that ask before they remove anything. The README has pictures of it.
//!
//! # Who may do what
//! Every request is put to the function that you give: also those for the page's own files, and those for paths that do not
//! exist. A refused request gets 401 and learns nothing else. [`token`] makes such a function from a secret, which a program
//! sends as `Authorization: Bearer …` and a browser as the password of any user. Whoever is permitted may do everything.
//!
//! A browser sends a password to this service also when a page of another site makes it send a request. Therefore:
//! - A request of another site, by Sec-Fetch-Site or Origin, is refused with 403. Only the page itself may be linked to.
//! - A request to the API that changes something needs the field `X-Cache-Admin`, with any value. A form cannot send it, and
//!   a script of another site may not, since the service permits no cross-origin requests.
//! - The methods PURGE, BAN, PURGEKEYS and PURGETAGS need no such field: neither can a form send them.
//!
//! The page runs no script and loads nothing but its own files (Content-Security-Policy), shows URLs and fields as text only, and
//! cannot be put into a frame. Values of Set-Cookie and of fields that usually hold credentials are never sent. URLs are shown
//! whole, with their queries. Responses are never cached.
//!
//! # The API
//! Its paths begin with `/api/v1/`. `GET /api/v1/openapi.json` describes it (OpenAPI 3.1). An error is a problem document
//! (RFC 9457). Times are milliseconds since the Unix epoch, or `null` for never; durations are seconds; lengths are bytes.
//!
//! | request | does |
//! |---|---|
//! | `GET entries` | lists stored responses: filtered, sorted, by pages |
//! | `GET entries/{key}` | describes a stored response, and says whether it is served |
//! | `GET entry?url=…` | the same for the first response of a URL, or says why there is none |
//! | `GET tags` | counts the responses of each tag and group |
//! | `GET statistics` | numbers since the cache was built |
//! | `GET storage` | the bytes in the storage, and whether it works |
//! | `POST purge/url` | deletes the responses of a URL: `{"url": "https://example.com/a"}` |
//! | `POST purge/matching` | … those that match conditions as for `entries`: `{"matching": {"url": "example.com/**"}}` |
//! | `POST purge/tag` | … those with a tag: `{"tag": "news"}` |
//! | `POST purge/group` | … those in a group of an origin: `{"origin": "https://example.com", "name": "g"}` |
//! | `POST purge/all` | … all of them: `{"confirm": true}` |
//! | `POST warm` | fetches `{"urls": ["https://example.com/a"]}`, if [`Admin::warm_with`] was called |
//! | `POST verify`, `GET verify` | begins to check all stored responses, and says how far that is |
//!
//! With `"soft": true` the requests to `purge` make responses stale instead of deleting them.
//!
//! Tags are those that the cache knows: without [`tag_fields`](crate::CacheLayerBuilder::tag_fields),
//! [`tags_of`](crate::CacheLayerBuilder::tags_of), [`Rule::tag`](crate::Rule::tag) or
//! [`CacheOptions::tags`](crate::CacheOptions::tags) no response has one, and a purge of a tag reaches nothing. Its answer does not
//! say so, since the responses of a tag are not counted.
//!
//! A page of `entries` or `tags` reads the heads of the whole storage once, and holds no more of them than it returns. At most
//! four such requests read at once; others wait.
//!
//! ```sh
//! curl -H "Authorization: Bearer $TOKEN" "http://127.0.0.1:9200/api/v1/entries?url=example.com/news/**&state=stale"
//! curl -H "Authorization: Bearer $TOKEN" -H "X-Cache-Admin: 1" --json '{"tag": "news", "soft": true}' \
//!   http://127.0.0.1:9200/api/v1/purge/tag
//! ```
//!
//! # PURGE and BAN
//! For clients of Varnish, Fastly, Souin and Symfony's cache. The URL is that of the request: its path, and its Host or the
//! authority of an absolute target. A Host without a scheme counts as in the cache's own requests
//! ([`default_scheme`](crate::CacheLayerBuilder::default_scheme)).
//!
//! | request | does |
//! |---|---|
//! | `PURGE /path` | deletes all responses of this URL |
//! | … with `Fastly-Soft-Purge: 1` | makes them stale |
//! | `PURGE` with `Surrogate-Key`, `Cache-Tag`, `Cache-Tags`, `X-Cache-Tags`, `xkey` or `xkey-purge` | invalidates these tags, and no URL |
//! | `PURGEKEYS`, `PURGETAGS` | the same, and refused without such a field |
//! | … with `xkey-softpurge` or `Fastly-Soft-Purge: 1` | makes the responses with these tags stale |
//! | `PURGE` with `Clear-Cache: true`, or `PURGE /souin-api/souin/flush` | deletes all responses |
//! | `BAN /path` | deletes all responses of this URL, as in the manual of Varnish |
//! | `BAN` with `X-Ban-Url` and `X-Ban-Host`, or `X-Url`, `X-Host`, `X-Content-Type` and `X-Cache-Tags` (FOSHttpCache) | deletes the responses that match these regular expressions |
//! | `BAN` or `PURGE` with `X-Invalidate-Pattern`, or `PURGE` with `X-Purge-Method: regex` | the same, for the path and query of this host's URLs |
//!
//! Tags in a request are separated by spaces or commas. Regular expressions need the feature `regex`; look-around and
//! back-references do not exist in it. A ban holds for what is stored when it comes, and costs one reading of the storage. A
//! request that asks for anything else is answered with 501 or 400 and changes nothing: among them the keys of
//! Souin's own API, and the pattern of Magento.
//!
//! # Invariants
//! - No handler runs, no content is read and no path is compared before the request is permitted.
//! - A request that changes something has an unsafe method.
//! - Memory does not grow with the number of entries, tags or requests so far. A request's content is at most 64 KiB, or 1 MiB
//!   of URLs to warm.
//! - At most one verification runs at a time.
//!
//! Its files: `access` (who is permitted), `routes` (paths), `conditions` (filters), `pages` and `entry` (listing and
//! describing), `purge` and `purge_methods` (removing), `statistics`, `verify`, `warm`, `problem` (errors). They call the
//! crate's `handle`, and nothing calls them.

mod access;
mod conditions;
mod entry;
mod pages;
mod problem;
mod purge;
mod purge_methods;
mod routes;
mod statistics;
mod verify;
mod warm;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use http::request::Parts;
use http::{Response, header};
use http_body::Body;
use tokio::sync::Semaphore;
use tower_service::Service;

pub use self::access::token;
use self::routes::respond;
use self::verify::Verification;
use self::warm::Warm;
use crate::handle::CacheHandle;
use crate::storage::Storage;

/// How many requests may read the whole storage at once: the cache needs it too.
const SCANS: usize = 4;

/// Returns the router of the administration service.
///
/// `authorise` is asked about every request, and returns whether it is permitted. See [`token`].
pub fn router<S: Storage>(
    handle: CacheHandle<S>,
    authorise: impl Fn(&Parts) -> bool + Send + Sync + 'static,
) -> Router {
    Admin::new(handle, authorise).router()
}

/// Makes the router of the administration service, with settings.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// # use http::{Request, Response};
/// # use http_body_util::{Empty, Full};
/// # use bytes::Bytes;
/// # use tower::{Layer, service_fn};
/// use tower_response_cache::{CacheLayer, admin, admin::Admin, storage::MemoryStorage};
/// # let client = service_fn(|_: Request<Empty<Bytes>>| async {
/// #     Ok::<_, http::Error>(Response::new(Full::new(Bytes::from("hello"))))
/// # });
///
/// let layer = CacheLayer::new(MemoryStorage::new());
/// let service = layer.layer(client);
/// let router = Admin::new(layer.handle(), admin::token("a long secret")).warm_with(service).router();
/// # }
/// ```
#[must_use]
pub struct Admin<S: Storage> {
    handle: CacheHandle<S>,
    authorise: Arc<dyn Fn(&Parts) -> bool + Send + Sync>,
    warm: Option<Arc<Warm<S>>>,
}

impl<S: Storage> Admin<S> {
    /// Returns the service of a cache, with the function that permits requests.
    ///
    /// A handle [`across_partitions`](CacheHandle::across_partitions) makes it one for all entries in the storage.
    pub fn new(handle: CacheHandle<S>, authorise: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        Self { handle, authorise: Arc::new(authorise), warm: None }
    }

    /// Sets the service through which URLs are warmed.
    ///
    /// It contains the cache of the handle. An administrator can make it send GET requests for any URL.
    ///
    /// A service that takes several kinds of request bodies, such as axum's `Router`, needs one of them to be named:
    /// `warm_with::<_, axum::body::Body, _>(router)`.
    ///
    /// Default: none, and `POST /api/v1/warm` is answered with 501.
    pub fn warm_with<T, Q, B>(mut self, service: T) -> Self
    where
        T: Service<http::Request<Q>, Response = Response<B>> + Clone + Send + Sync + 'static,
        T::Future: Send,
        T::Error: Send,
        Q: Default + Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Send,
    {
        self.warm = Some(Arc::new(move |handle, requests, at_once| {
            let service = service.clone();
            let requests: Vec<_> =
                requests.into_iter().map(|request| request.map(|()| Q::default())).collect();
            Box::pin(async move { handle.warm(service).at_once(at_once).requests(requests).await })
        }));
        self
    }

    /// Returns the router.
    ///
    /// It may be nested in another router, which then passes its own path on. PURGE and BAN need an address of their own.
    pub fn router(self) -> Router {
        let Self { handle, authorise, warm } = self;
        let shared = Arc::new(Shared {
            handle,
            authorise,
            warm,
            scans: Semaphore::new(SCANS),
            verification: Verification::default(),
        });
        Router::new().fallback(move |request: Request| {
            let shared = Arc::clone(&shared);
            async move {
                let mut response = respond(&shared, request).await;
                access::protect(response.headers_mut());
                response
            }
        })
    }
}

impl<S: Storage> fmt::Debug for Admin<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("warms", &self.warm.is_some()).finish_non_exhaustive()
    }
}

/// The state that all requests share.
struct Shared<S: Storage> {
    handle: CacheHandle<S>,
    authorise: Arc<dyn Fn(&Parts) -> bool + Send + Sync>,
    warm: Option<Arc<Warm<S>>>,
    /// Held while the whole storage is read for one request.
    scans: Semaphore,
    verification: Verification,
}

/// Returns a response of JSON.
fn json(value: &impl serde::Serialize) -> axum::response::Response {
    match serde_json::to_vec(value) {
        Ok(text) => response_of("application/json", text),
        Err(_) => problem::Problem::internal("the response cannot be written as JSON").into_response(),
    }
}

fn response_of(content_type: &'static str, body: impl Into<axum::body::Body>) -> axum::response::Response {
    let mut response = Response::new(body.into());
    let value = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
