//! Requests with content (POST, QUERY) that the user made cacheable: the content tells them apart.
//!
//! # Invariants
//!
//! - A request whose content is too long, or of a type that cannot be made again, goes to the origin untouched; its response
//!   is not stored, and it invalidates nothing.
//! - A request that a filter leaves out is treated as any other of its method.

use std::sync::Arc;

#[cfg(feature = "reqwest")]
use bytes::Bytes;
use http::{Method, Request, header, request};
use tower_service::Service;

use super::exchange::run;
use super::route::{Route, bypass};
use crate::control::BypassReason;
use crate::key;
use crate::policy;
use crate::service::config::Config;
use crate::service::contents::{Read, ReplayedContent};
use crate::service::origin::{Answered, Fetcher, ServiceFetcher};
use crate::service::records::ContentKey;
use crate::service::shared::Shared;
use crate::storage::Storage;

impl Config {
    /// Returns whether the user made a request's method cacheable by its content.
    pub(super) fn reads_content(&self, parts: &request::Parts) -> bool {
        let of_itself = matches!(parts.method, Method::GET | Method::HEAD);
        !of_itself && self.methods.contains(&parts.method)
    }

    /// Which way such a request takes.
    pub(super) fn route_by_content(&self, parts: &request::Parts, bypass: Option<BypassReason>) -> Route {
        let is_left_out = !self.passes_filters(parts);
        // A request that the user leaves out may change something.
        if is_left_out && !policy::is_reading(&parts.method) {
            return Route::Unsafe;
        }
        // These are on the origin's state, or on one that no content tells apart.
        let conditions = [
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
            header::RANGE,
        ];
        let has_conditions = conditions.iter().any(|name| parts.headers.contains_key(name));
        match bypass {
            Some(reason) => Route::Bypass(reason),
            None if is_left_out => Route::Bypass(BypassReason::Filtered),
            None if parts.headers.contains_key(header::UPGRADE) => Route::Bypass(BypassReason::Upgrade),
            None if has_conditions => Route::Bypass(BypassReason::Condition),
            None => Route::Content,
        }
    }

    /// Takes the content into the request, if it is not too long. Returns whether it did.
    #[cfg(feature = "reqwest")]
    pub(crate) fn take_short_content(&self, parts: &mut request::Parts, content: &Bytes) -> bool {
        let fits = content.len() as u64 <= self.contents.most;
        if fits {
            self.take_content(parts, content);
        }
        fits
    }

    /// Takes the content into the request as what tells it apart.
    fn take_content(&self, parts: &mut request::Parts, content: &Bytes) {
        let joined = |name| {
            let lines: Vec<_> = parts.headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
            match lines.len() {
                0 => None,
                _ => http::HeaderValue::from_bytes(&lines.join(&b", "[..])).ok(),
            }
        };
        let (media_type, coding) = (joined(header::CONTENT_TYPE), joined(header::CONTENT_ENCODING));
        let ignored = &self.contents.ignored;
        let digest = key::digest(media_type.as_ref(), coding.as_ref(), content, ignored);
        parts.extensions.insert(ContentKey(digest));
    }
}

/// Reads the content of a request, and answers it by that.
pub(crate) async fn run_with_content<S, T, B>(
    shared: Arc<Shared<S>>,
    inner: T,
    mut parts: request::Parts,
    body: B,
) -> Answered<ServiceFetcher<T, B>>
where
    S: Storage,
    ServiceFetcher<T, B>: Fetcher<RequestBody = B>,
    T: Service<Request<B>> + Clone + Send + 'static,
    B: Send + 'static,
{
    let config = Arc::clone(&shared.config);
    let Some(replayer) = config.contents.replayer::<B>() else {
        let request = Request::from_parts(parts, body);
        return bypass(shared, ServiceFetcher::new(inner), request, BypassReason::NotReplayable).await;
    };
    let content = match (replayer.read)(body, config.contents.most).await {
        Read::Whole(content) => content,
        Read::Sent(body) => {
            let request = Request::from_parts(parts, body);
            return bypass(shared, ServiceFetcher::new(inner), request, BypassReason::ContentTooLong).await;
        }
    };
    config.take_content(&mut parts, &content);
    let make = Arc::clone(&replayer.make);
    let body = make(ReplayedContent::whole(content.clone()));
    let again = Arc::new(move || make(ReplayedContent::whole(content.clone())));
    let departures = shared.flights.departures();
    run(shared, ServiceFetcher::again_with(inner, again), parts, body, None, departures).await
}
