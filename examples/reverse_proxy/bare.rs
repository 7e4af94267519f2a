//! A server of the same bytes for every request: the origin of the bench, and what the proxy's hits are compared with.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue};
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
    type Body = UnsyncBoxBody<Bytes, Infallible>; // never made

    async fn respond(self: Arc<Self>, _: Request<Incoming>, _: Arc<Interims>) -> Answer<Self::Body> {
        let mut response = Response::new(Either::Right(Full::new(self.body.clone())));
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(ETAG, HeaderValue::from_static("\"0123456789abcdef\""));
        response
    }
}
