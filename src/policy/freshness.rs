//! The age and the freshness of a response (RFC 9111 §4.2).

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::dates;
use super::directives::ResponseDirectives;
use super::list::{delta_seconds, split_list};
use super::options::Options;
use crate::time::Timestamp;

/// How far in the future a time may be before it is no longer trusted.
///
/// Clocks that NTP sets differ by less than a second, and Date has whole seconds. A greater difference means that one
/// clock is wrong, so that no age can be computed from it.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5);

/// The facts about a stored response that decide on its reuse (RFC 9111 §4.2).
///
/// They are computed once, so that a hit parses none of the response's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// `freshness_lifetime` (RFC 9111 §4.2.1).
    pub(crate) lifetime: Duration,
    /// `corrected_initial_age` (RFC 9111 §4.2.3).
    pub(crate) initial_age: Duration,
    pub(crate) response_time: Timestamp,
    /// The response must be validated before each use (RFC 9111 §5.2.2.4).
    pub(crate) no_cache: bool,
    /// The response must not be used stale.
    ///
    /// `must-revalidate` says so, and in a shared cache also `proxy-revalidate` and `s-maxage` (RFC 9111 §5.2.2).
    pub(crate) must_revalidate: bool,
    /// The response does not change while it is fresh (RFC 8246 §2).
    ///
    /// A reload (`max-age=0`) then needs no validation (§2.1).
    pub(crate) immutable: bool,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) has_validator: bool,
    /// When the response was made stale by hand, if it was.
    ///
    /// Only for the response of a storage: its own fields say nothing about it.
    pub(crate) expired_at: Option<Timestamp>,
}

/// A lifetime that a rule or a request's options gave.
///
/// It is stored with the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuleTtl {
    /// Counts from when the response was received. [`Duration::MAX`] means forever.
    pub(crate) lifetime: Duration,
    /// The lifetime replaces what the response says, so that its `no-cache` does not count either.
    pub(crate) overrides: bool,
}

impl Freshness {
    /// Computes the freshness of a response by its own fields (RFC 9111 §4.2).
    pub(crate) fn new(
        status: StatusCode,
        headers: &HeaderMap,
        request_time: Timestamp,
        response_time: Timestamp,
        options: &Options,
    ) -> Self {
        let directives = ResponseDirectives::of(headers, options);
        Self::by_directives(status, headers, &directives, request_time, response_time, options)
    }

    /// Computes the freshness of a response whose directives are parsed already (RFC 9111 §4.2).
    pub(crate) fn by_directives(
        status: StatusCode,
        headers: &HeaderMap,
        directives: &ResponseDirectives,
        request_time: Timestamp,
        response_time: Timestamp,
        options: &Options,
    ) -> Self {
        let date = dates::single(headers, &header::DATE, response_time).unwrap_or(response_time);
        let is_from_the_future = date > response_time + MAX_CLOCK_SKEW;
        let lifetime = if is_from_the_future {
            Duration::ZERO
        } else {
            explicit_lifetime(headers, directives, date, options)
                .unwrap_or_else(|| heuristic_lifetime(status, headers, directives, date, options))
        };
        let corrected_age = age_field(headers).saturating_add(response_time.since(request_time));
        Self {
            lifetime,
            initial_age: response_time.since(date).max(corrected_age),
            response_time,
            no_cache: directives.no_cache,
            must_revalidate: directives.must_revalidate
                || (options.shared && (directives.proxy_revalidate || directives.s_maxage.is_some())),
            immutable: directives.immutable,
            stale_while_revalidate: directives
                .stale_while_revalidate
                .unwrap_or(options.stale_while_revalidate),
            stale_if_error: directives.stale_if_error.or(options.stale_if_error),
            has_validator: entity_tag(headers).is_some()
                || dates::single(headers, &header::LAST_MODIFIED, date).is_some(),
            expired_at: None,
        }
    }

    /// Replaces the lifetime with one that a rule gave (a cache extension, RFC 9111 §5.2.3).
    ///
    /// The rule's lifetime counts from when the response was received, whatever its Age.
    pub(crate) fn with_rule_ttl(mut self, rule_ttl: Option<RuleTtl>) -> Self {
        if let Some(rule_ttl) = rule_ttl {
            self.lifetime = self.initial_age.saturating_add(rule_ttl.lifetime);
            self.no_cache &= !rule_ttl.overrides;
        }
        self
    }

    /// Returns the `current_age` (RFC 9111 §4.2.3).
    ///
    /// A response that was received in the future by this clock has no known age. It counts as at least as old as its lifetime.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        if self.response_time > now + MAX_CLOCK_SKEW {
            return self.lifetime.saturating_add(self.initial_age);
        }
        self.initial_age.saturating_add(now.since(self.response_time))
    }

    /// Returns the lifetime, which ended when the response was expired, if it was.
    ///
    /// An expiry whose time is in the future comes from a clock that is ahead. It is in force all the same.
    pub(crate) fn lifetime_at(&self, now: Timestamp) -> Duration {
        match self.expired_at {
            None => self.lifetime,
            Some(at) => self.lifetime.min(self.age(at.min(now))),
        }
    }

    /// Returns whether the response would be fresh, had it not been expired.
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expired_at.is_some() && self.lifetime > self.age(now)
    }

    /// Returns the time for which the response has been stale (RFC 9111 §4.2.4).
    pub(crate) fn staleness(&self, now: Timestamp) -> Duration {
        self.age(now).saturating_sub(self.lifetime_at(now))
    }

    /// Returns the whole seconds until the response is stale (RFC 9211 §2.4).
    ///
    /// The number is negative once the response is stale.
    pub(crate) fn ttl(&self, now: Timestamp) -> i64 {
        self.ttl_at(self.age(now), now)
    }

    /// Returns the same as [`ttl`](Self::ttl), from an age that is known already.
    pub(crate) fn ttl_at(&self, age: Duration, now: Timestamp) -> i64 {
        // An integer of a Structured Field has at most fifteen digits (RFC 9651 §3.3.1). So many seconds are forever.
        let seconds = |time: Duration| time.as_secs().min(999_999_999_999_999) as i64;
        let lifetime = self.lifetime_at(now);
        if lifetime >= age { seconds(lifetime - age) } else { -seconds(age - lifetime) }
    }

    /// Returns the time until which a storage has to keep the response (RFC 9111 §4.2.4 and §4.3).
    ///
    /// It is kept while it is fresh, while it may be served stale, and while it can be revalidated.
    pub(crate) fn retain_until(&self, options: &Options) -> Timestamp {
        let stale_window = self.stale_while_revalidate.max(self.stale_if_error.unwrap_or_default());
        let validation_window = if self.has_validator || options.stale_when_disconnected {
            options.stale_retention
        } else {
            Duration::ZERO
        };
        let fresh = self.lifetime.saturating_sub(self.initial_age);
        self.response_time + fresh.saturating_add(stale_window.max(validation_window))
    }
}

/// Returns the lifetime that the response states (RFC 9111 §4.2.1).
pub(crate) fn explicit_lifetime(
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    date: Timestamp,
    options: &Options,
) -> Option<Duration> {
    if options.shared && directives.s_maxage.is_some() {
        return directives.s_maxage;
    }
    if directives.max_age.is_some() {
        return directives.max_age;
    }
    if directives.targeted {
        return None; // a targeted field replaces Expires too (RFC 9213 §2.2)
    }
    // An invalid Expires counts as a time in the past (RFC 9111 §5.3), and so do several.
    headers.contains_key(header::EXPIRES).then(|| {
        dates::single(headers, &header::EXPIRES, date).map_or(Duration::ZERO, |expires| expires.since(date))
    })
}

/// Returns the heuristic lifetime of a response that states none (RFC 9111 §4.2.2).
fn heuristic_lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    date: Timestamp,
    options: &Options,
) -> Duration {
    if !is_heuristic(status) && !directives.public {
        return Duration::ZERO;
    }
    let Some(modified) = dates::single(headers, &header::LAST_MODIFIED, date) else { return Duration::ZERO };
    let unchanged = date.since(modified);
    (unchanged / 100).saturating_mul(u32::from(options.heuristic_percent)).min(options.max_heuristic_ttl)
}

/// Returns whether a status is heuristically cacheable (RFC 9110 §15.1).
///
/// 206 is left out, since no partial response is stored.
pub(super) fn is_heuristic(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Returns the value of the Age field (RFC 9111 §5.1).
///
/// The first of several values counts. A value that is not a number is ignored.
fn age_field(headers: &HeaderMap) -> Duration {
    let first = headers.get_all(header::AGE).iter().flat_map(|line| split_list(line.as_bytes())).next();
    Duration::from_secs(first.and_then(delta_seconds).unwrap_or(0))
}

/// Returns the entity tag of a response (RFC 9110 §8.8.3).
///
/// `None` unless there is exactly one, and it is well formed.
pub(crate) fn entity_tag(headers: &HeaderMap) -> Option<&[u8]> {
    let tag = single_value(headers, &header::ETAG)?;
    let opaque = tag.strip_prefix(b"W/").unwrap_or(tag);
    let inside = opaque.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (!inside.contains(&b'"')).then_some(tag)
}

/// Returns the value of a field that has exactly one line (RFC 9110 §5.3).
fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?.as_bytes().trim_ascii();
    lines.next().is_none().then_some(first)
}
