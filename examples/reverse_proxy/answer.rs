//! The responses that the proxy makes itself.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};

/// A response with a body from the cache, or with one of the proxy's own.
pub type Answer<B> = Response<Either<B, Full<Bytes>>>;

/// Returns a response that says its reason as plain text.
pub fn plain<B>(status: StatusCode, reason: &str) -> Answer<B> {
    let text = format!("{} {reason}\n", status.as_str());
    let mut response = Response::new(Either::Right(Full::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
