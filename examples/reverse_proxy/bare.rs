//! A server that answers every request with the same bytes.
//!
//! For the bench: it is the origin, and also what the proxy's hits are compared with.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, VIA};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Either, Full};
use hyper::body::Incoming;

use crate::answer::Answer;
use crate::interim::Interims;
use crate::server::Respond;

pub struct Bare {
    body: Bytes,
}

impl Bare {
    pub fn new(len: usize) -> Self {
        Self { body: Bytes::from(vec![b'x'; len]) }
    }
}

impl Respond for Bare {
    type Body = UnsyncBoxBody<Bytes, Infallible>; // `Respond` needs a type, but every body here is whole
    type Future = Ready<Result<Answer<Self::Body>, Infallible>>;

    fn respond(&self, request: Request<Incoming>, _: &Arc<Interims>) -> Self::Future {
        let mut response = Response::new(Either::Right(Full::new(self.body.clone())));
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(ETAG, HeaderValue::from_static("\"0123456789abcdef\""));
        if request.uri().path() == "/as-a-hit" {
            // The fields that the proxy adds to a hit, so that both send the same number of bytes.
            headers.insert(VIA, HeaderValue::from_static("1.1 tower-response-cache"));
            headers.insert(AGE, HeaderValue::from_static("10"));
            let status = HeaderValue::from_static("tower-response-cache; hit; ttl=3590");
            headers.insert("cache-status", status);
        }
        ready(Ok(response))
    }
}
