//! Errors, as problem documents (RFC 9457).

use std::borrow::Cow;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::response_of;
use crate::error::{Error, ErrorKind};

/// The reason why a request was not carried out.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) detail: Cow<'static, str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into() }
    }

    /// Returns the problem of a request that says something wrong.
    pub(super) fn bad(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn internal(detail: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    pub(super) fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Document<'a> {
            title: &'static str,
            status: u16,
            detail: &'a str,
        }
        let title = self.status.canonical_reason().unwrap_or("Error");
        let document = Document { title, status: self.status.as_u16(), detail: &self.detail };
        let text = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = response_of("application/problem+json", Body::from(text));
        *response.status_mut() = self.status;
        response
    }
}

impl From<Error> for Problem {
    /// Converts an error of the cache, whose message has no URL, no field and no key.
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Config => StatusCode::BAD_REQUEST,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}
