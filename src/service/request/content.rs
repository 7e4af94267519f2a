//! Requests that are cached by their content, such as POST and QUERY.
//!
//! The user makes a method cacheable; the content of a request is then part of what selects its response.
//!
//! # Invariants
//!
//! - A request whose content is too long, or whose body type cannot be replayed, goes to the origin untouched. Its response
//!   is not stored, and it invalidates nothing.
//! - A request that a filter excludes is handled like any other request of its method.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, header, request};

use super::exchange::run;
use super::route::{Route, bypass};
use crate::control::BypassReason;
use crate::key::{self, ContentFields};
use crate::policy;
use crate::service::config::Config;
use crate::service::contents::{ReadContent, ReplayedContent};
use crate::service::origin::{Answered, Fetcher, ServiceFetcher};
use crate::service::records::ContentKey;
use crate::service::shared::Shared;
use crate::storage::Storage;

impl Config {
    /// Returns whether the user made a request's method cacheable by its content.
    pub(super) fn reads_content(&self, parts: &request::Parts) -> bool {
        let has_no_content = matches!(parts.method, Method::GET | Method::HEAD);
        !has_no_content && self.methods.contains(&parts.method)
    }

    /// Returns how a request is handled whose method is cached by its content.
    pub(super) fn route_by_content(&self, parts: &request::Parts, bypass: Option<BypassReason>) -> Route {
        let is_excluded = !self.passes_filters(parts);
        // An excluded request may change the resource, as its method does elsewhere.
        if is_excluded && !policy::is_reading(&parts.method) {
            return Route::Unsafe;
        }
        // The first two are about the state at the origin. The others are about a response that content selects only for
        // QUERY (RFC 10008 §2.6, §2.8).
        let of_origin = [header::IF_MATCH, header::IF_UNMODIFIED_SINCE];
        let of_response = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE];
        let has = |name| parts.headers.contains_key(name);
        let has_conditions =
            of_origin.iter().any(has) || (!policy::is_query(&parts.method) && of_response.iter().any(has));
        match bypass {
            Some(reason) => Route::Bypass(reason),
            None if is_excluded => Route::Bypass(BypassReason::Filtered),
            None if parts.headers.contains_key(header::UPGRADE) => Route::Bypass(BypassReason::Upgrade),
            None if has_conditions => Route::Bypass(BypassReason::Condition),
            None => Route::Content,
        }
    }

    /// Adds the digest of the content to the request, if it is not too long.
    ///
    /// Returns whether it did.
    #[cfg(feature = "reqwest")]
    pub(crate) fn take_short_content(&self, parts: &mut request::Parts, content: &Bytes) -> bool {
        let fits = content.len() as u64 <= self.contents.max_len;
        if fits {
            self.take_content(parts, content);
        }
        fits
    }

    /// Adds the digest of the content to the request, where it selects the response.
    fn take_content(&self, parts: &mut request::Parts, content: &Bytes) {
        // A client may ask that no other spelling of its content shares the response (RFC 10008 §2.7).
        let ignored = (!policy::forbids_transforming(&parts.headers)).then_some(&self.contents.ignored);
        let digest = key::digest(&ContentFields::of(&parts.headers), content, ignored);
        parts.extensions.insert(ContentKey(digest));
    }
}

/// Reads the content of a request, and answers the request.
pub(crate) async fn run_with_content<S, T, M, B>(
    shared: Arc<Shared<S>>,
    fetcher: ServiceFetcher<T, M, B>,
    mut parts: request::Parts,
    body: B,
) -> Answered<ServiceFetcher<T, M, B>>
where
    S: Storage,
    ServiceFetcher<T, M, B>: Fetcher<RequestBody = B>,
    T: Send + 'static,
    M: Send + 'static,
    B: Send + 'static,
{
    let config = Arc::clone(&shared.config);
    let Some(replayer) = config.contents.replayer::<B>() else {
        let request = Request::from_parts(parts, body);
        return bypass(shared, fetcher, request, BypassReason::NotReplayable).await;
    };
    let content = match (replayer.read)(body, config.contents.max_len).await {
        ReadContent::Whole(content) => content,
        ReadContent::Partial(body) => {
            let request = Request::from_parts(parts, body);
            return bypass(shared, fetcher, request, BypassReason::ContentTooLong).await;
        }
    };
    config.take_content(&mut parts, &content);
    let make = Arc::clone(&replayer.make);
    let body = make(ReplayedContent::whole(content.clone()));
    let again = Arc::new(move || make(ReplayedContent::whole(content.clone())));
    let ended_flights = shared.flights.ended_flights();
    run(shared, fetcher.with_content(again), parts, body, None, ended_flights).await
}
