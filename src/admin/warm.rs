//! Fetching URLs in advance.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::problem::Problem;
use crate::handle::{CacheHandle, WarmReport};
use crate::storage::Storage;

/// The most requests that are under way at a time.
const MAX_AT_ONCE: usize = 64;
/// The number of them if the request does not say.
const AT_ONCE: usize = 4;

type Warming = Pin<Box<dyn Future<Output = WarmReport> + Send>>;

/// Sends requests through the service that was given. The types of its bodies end here.
pub(super) type Warm<S> = dyn Fn(CacheHandle<S>, Vec<Request<()>>, usize) -> Warming + Send + Sync;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Urls {
    urls: Vec<String>,
    /// The fields of the requests, such as Accept-Encoding, which select what is fetched.
    #[serde(default)]
    fields: BTreeMap<String, String>,
    at_once: Option<usize>,
}

/// The results of the requests.
#[derive(Debug, Serialize)]
pub(super) struct Warmed {
    stored: u64,
    hits: u64,
    revalidated: u64,
    not_stored: u64,
    failed: u64,
}

pub(super) async fn warm<S: Storage>(shared: &Shared<S>, urls: Urls) -> Result<Warmed, Problem> {
    let Some(warm) = &shared.warm else {
        let detail = "this service has no way to fetch: the program did not call Admin::warm_with";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, detail));
    };
    let Urls { urls, fields, at_once } = urls;
    let at_once = at_once.unwrap_or(AT_ONCE);
    if !(1..=MAX_AT_ONCE).contains(&at_once) {
        return Err(Problem::bad(format!("at_once has to be from 1 to {MAX_AT_ONCE}")));
    }
    let mut requests = Vec::with_capacity(urls.len());
    for (number, url) in urls.iter().enumerate() {
        let request = request(url, &fields);
        requests.push(request.ok_or_else(|| {
            Problem::bad(format!("element {number} of urls is no http or https URL, or a field is malformed"))
        })?);
    }
    let WarmReport { stored, hits, revalidated, not_stored, failed } =
        warm(shared.handle.clone(), requests, at_once).await;
    Ok(Warmed { stored, hits, revalidated, not_stored, failed })
}

fn request(url: &str, fields: &BTreeMap<String, String>) -> Option<Request<()>> {
    let uri: Uri = url.split('#').next()?.parse().ok()?;
    let host = HeaderValue::from_str(uri.authority()?.as_str()).ok()?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority()?.as_str().contains('@') {
        return None;
    }
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    request.headers_mut().insert(http::header::HOST, host);
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        request.headers_mut().insert(name, HeaderValue::from_str(value).ok()?);
    }
    Some(request)
}
