//! Dates in fields (RFC 9110 §5.6.7).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::time::Timestamp;

/// A date in a field's value.
pub(crate) fn parse(value: &HeaderValue) -> Option<Timestamp> {
    httpdate::parse_http_date(value.to_str().ok()?.trim()).ok().map(Timestamp::from)
}

/// The date of a field that has one line and a date in it.
pub(crate) fn single(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.next().is_some() { None } else { parse(first) }
}

/// A date as a field's value.
pub(crate) fn format(time: Timestamp) -> Option<HeaderValue> {
    HeaderValue::try_from(httpdate::fmt_http_date(time.into())).ok()
}
