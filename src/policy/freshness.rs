//! Age and freshness of a response (RFC 9111 §4.2).

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::dates;
use super::directives::ResponseDirectives;
use super::list::{delta_seconds, split_list};
use super::options::Options;
use crate::time::Timestamp;

/// A Date that is further in the future than this is not believed.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// What the cache needs to know of a stored response: computed once, so that a hit parses none of its fields.
#[derive(Clone, Debug)]
pub(crate) struct Freshness {
    pub(crate) lifetime: Duration,
    /// `corrected_initial_age` (§4.2.3).
    pub(crate) initial_age: Duration,
    pub(crate) response_time: Timestamp,
    /// Must be validated before each use.
    pub(crate) no_cache: bool,
    /// Must not be used stale: must-revalidate, and in a shared cache proxy-revalidate and s-maxage.
    pub(crate) must_revalidate: bool,
    /// Does not change while it is fresh: a reload (`max-age=0`) needs no validation (RFC 8246 §2.1).
    pub(crate) immutable: bool,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) has_validator: bool,
}

/// A lifetime that a rule gave, kept with the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// From when it was received; [`Duration::MAX`]: for ever.
    pub(crate) lifetime: Duration,
    /// In place of what the response says, so that its `no-cache` does not count either.
    pub(crate) overrides: bool,
}

impl Freshness {
    pub(crate) fn new(
        status: StatusCode,
        headers: &HeaderMap,
        request_time: Timestamp,
        response_time: Timestamp,
        options: &Options,
    ) -> Self {
        let said = ResponseDirectives::of(headers, options);
        let date = dates::single(headers, &header::DATE, response_time).unwrap_or(response_time);
        let from_the_future = date > response_time + CLOCK_SKEW;
        let lifetime = if from_the_future {
            Duration::ZERO
        } else {
            explicit(headers, &said, date, options)
                .unwrap_or_else(|| guessed(status, headers, &said, date, options))
        };
        let corrected = age_field(headers).saturating_add(response_time.since(request_time));
        Self {
            lifetime,
            initial_age: response_time.since(date).max(corrected),
            response_time,
            no_cache: said.no_cache,
            must_revalidate: said.must_revalidate
                || (options.shared && (said.proxy_revalidate || said.s_maxage.is_some())),
            immutable: said.immutable,
            stale_while_revalidate: said.stale_while_revalidate.unwrap_or(options.stale_while_revalidate),
            stale_if_error: said.stale_if_error.or(options.stale_if_error),
            has_validator: entity_tag(headers).is_some()
                || dates::single(headers, &header::LAST_MODIFIED, date).is_some(),
        }
    }

    /// With the lifetime that a rule gave.
    pub(crate) fn with(mut self, given: Option<Given>) -> Self {
        if let Some(given) = given {
            self.lifetime = self.initial_age.saturating_add(given.lifetime);
            self.no_cache &= !given.overrides;
        }
        self
    }

    /// `current_age` (§4.2.3). What was received in the future, by this clock, is of no known age: it counts as older
    /// than any lifetime.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        if self.response_time > now + CLOCK_SKEW {
            return self.lifetime.saturating_add(self.initial_age);
        }
        self.initial_age.saturating_add(now.since(self.response_time))
    }

    /// For how long it has been stale.
    pub(crate) fn staleness(&self, now: Timestamp) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// Whole seconds until it is stale; negative once it is.
    pub(crate) fn ttl(&self, now: Timestamp) -> i64 {
        self.ttl_at(self.age(now))
    }

    /// The same, for who knows the age.
    pub(crate) fn ttl_at(&self, age: Duration) -> i64 {
        // As many digits as an integer of a Structured Field may have (RFC 9651 §3.3.1): for ever.
        let seconds = |time: Duration| time.as_secs().min(999_999_999_999_999) as i64;
        if self.lifetime >= age { seconds(self.lifetime - age) } else { -seconds(age - self.lifetime) }
    }

    /// Until when a store must keep it: while it is fresh, may be served stale, or can be revalidated.
    pub(crate) fn retain_until(&self, options: &Options) -> Timestamp {
        let stale = self.stale_while_revalidate.max(self.stale_if_error.unwrap_or_default());
        let window = if self.has_validator || options.stale_when_disconnected {
            options.stale_retention
        } else {
            Duration::ZERO
        };
        let fresh = self.lifetime.saturating_sub(self.initial_age);
        self.response_time + fresh.saturating_add(stale.max(window))
    }
}

/// The lifetime that the response gives itself (§4.2.1).
pub(crate) fn explicit(
    headers: &HeaderMap,
    said: &ResponseDirectives,
    date: Timestamp,
    options: &Options,
) -> Option<Duration> {
    if options.shared && said.s_maxage.is_some() {
        return said.s_maxage;
    }
    if said.max_age.is_some() {
        return said.max_age;
    }
    if said.targeted {
        return None; // then Expires says nothing (RFC 9213 §2.2)
    }
    // An invalid date counts as past (§5.3), and so do two.
    headers.contains_key(header::EXPIRES).then(|| {
        dates::single(headers, &header::EXPIRES, date).map_or(Duration::ZERO, |expires| expires.since(date))
    })
}

/// The lifetime that is guessed where the response gives none (§4.2.2).
fn guessed(
    status: StatusCode,
    headers: &HeaderMap,
    said: &ResponseDirectives,
    date: Timestamp,
    options: &Options,
) -> Duration {
    if !is_heuristic(status) && !said.public {
        return Duration::ZERO;
    }
    let Some(modified) = dates::single(headers, &header::LAST_MODIFIED, date) else { return Duration::ZERO };
    let since = date.since(modified);
    (since / 100).saturating_mul(u32::from(options.heuristic_percent)).min(options.max_heuristic)
}

/// The statuses whose lifetime may be guessed (RFC 9110 §15.1), without 206.
pub(super) fn is_heuristic(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// The Age field (§5.1): the first of several values; what is not a number is ignored.
fn age_field(headers: &HeaderMap) -> Duration {
    let first = headers.get_all(header::AGE).iter().flat_map(|line| split_list(line.as_bytes())).next();
    Duration::from_secs(first.and_then(delta_seconds).unwrap_or(0))
}

/// The one entity tag of a response, if it is well formed: `"…"` or `W/"…"`.
pub(crate) fn entity_tag(headers: &HeaderMap) -> Option<&[u8]> {
    let tag = single_value(headers, &header::ETAG)?;
    let opaque = tag.strip_prefix(b"W/").unwrap_or(tag);
    let inside = opaque.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (!inside.contains(&b'"')).then_some(tag)
}

fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?.as_bytes().trim_ascii();
    lines.next().is_none().then_some(first)
}
