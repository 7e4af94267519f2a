//! Unit tests of the policy, each with the section of the RFC that it is about.

mod byte_ranges;
mod conditions;
mod dates;
mod freshness;
mod hostile;
mod no_vary_search;
mod parts;
mod storing;
mod targeted;
mod validation;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::time::Timestamp;

/// 2026-01-01T00:00:00Z.
const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

fn fields(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    map
}

fn shared() -> Options {
    Options { shared: true, ..Options::default() }
}

fn freshness(list: &[(&str, &str)], options: &Options) -> Freshness {
    Freshness::new(http::StatusCode::OK, &fields(list), NOW, NOW, options)
}

/// Decides on storing the response to a request, without rules.
fn storable(
    method: &http::Method,
    request: &HeaderMap,
    status: http::StatusCode,
    response: &HeaderMap,
    freshness: &Freshness,
    options: &Options,
) -> Result<(), NotStored> {
    let exchanged = HttpExchange { method, by_content: false, request, status, response };
    super::storable(
        exchanged,
        &RequestDirectives::of(request),
        &ResponseDirectives::of(response, options),
        freshness,
        None,
        &RuleDecision::default(),
        options,
    )
}
