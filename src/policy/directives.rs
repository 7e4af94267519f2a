//! Cache-Control of requests and responses (RFC 9111 §5.2), in any letter case, over any number of lines.
//!
//! Promises: of several values of one directive the most restrictive counts; a malformed value counts as the most
//! restrictive one; a line whose quotes are not closed allows nothing without validation.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use super::list::{Argument, MOST, delta_seconds, directives, is_balanced, split_list};
use super::options::Options;
use super::targeted;

/// What a request asks of a cache (RFC 9111 §5.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestDirectives {
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<Duration>,
    /// How stale a response may be; `Duration::MAX` for any.
    pub(crate) max_stale: Option<Duration>,
    pub(crate) min_fresh: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    /// What a program may ask for beside the fields: the origin's response, whatever is stored.
    pub(crate) reload: bool,
    /// What is stored, however stale.
    pub(crate) force: bool,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) read_only: bool,
}

impl RequestDirectives {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut asked = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            // Pragma counts only where there is no Cache-Control (RFC 9111 §5.4).
            let pragma = headers.get_all(header::PRAGMA).iter();
            asked.no_cache =
                pragma.flat_map(|line| directives(line.as_bytes())).any(|(name, _)| is(name, "no-cache"));
            return asked;
        }
        for line in headers.get_all(header::CACHE_CONTROL) {
            asked.no_cache |= !is_balanced(line.as_bytes());
            for (name, argument) in directives(line.as_bytes()) {
                asked.apply(name, &argument);
            }
        }
        asked
    }

    fn apply(&mut self, name: &[u8], argument: &Argument<'_>) {
        if is(name, "no-store") {
            self.no_store = true;
        } else if is(name, "no-cache") {
            self.no_cache = true;
        } else if is(name, "only-if-cached") {
            self.only_if_cached = true;
        } else if is(name, "max-age") {
            lower(&mut self.max_age, seconds(argument).unwrap_or_default());
        } else if is(name, "max-stale") {
            // Without a value: any staleness. Malformed: none.
            let most = match argument {
                Argument::Absent => Duration::MAX,
                _ => seconds(argument).unwrap_or_default(),
            };
            lower(&mut self.max_stale, most);
        } else if is(name, "min-fresh") {
            let least = seconds(argument).unwrap_or(Duration::from_secs(MOST));
            self.min_fresh = Some(self.min_fresh.unwrap_or_default().max(least));
        } else if is(name, "stale-if-error") {
            lower(&mut self.stale_if_error, seconds(argument).unwrap_or_default());
        }
    }
}

/// What a response says to caches (RFC 9111 §5.2.2, RFC 5861, RFC 8246).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseDirectives {
    pub(crate) no_store: bool,
    /// Overrides no-store for statuses that the cache understands (§5.2.2.3).
    pub(crate) must_understand: bool,
    pub(crate) no_cache: bool,
    /// Only these fields must not be used without validation (§5.2.2.4).
    pub(crate) no_cache_fields: Vec<HeaderName>,
    pub(crate) private: bool,
    /// Only these fields are for one user (§5.2.2.7).
    pub(crate) private_fields: Vec<HeaderName>,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    /// It does not change while it is fresh (RFC 8246).
    pub(crate) immutable: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    /// They come from a targeted field (RFC 9213), which speaks in place of Cache-Control and Expires.
    pub(crate) targeted: bool,
}

impl ResponseDirectives {
    pub(crate) fn of(headers: &HeaderMap, options: &Options) -> Self {
        let mut said = Self::default();
        if options.shared && targeted::directives(headers, |name, argument| said.apply(name, &argument)) {
            said.targeted = true;
            return said;
        }
        for line in headers.get_all(header::CACHE_CONTROL) {
            said.no_cache |= !is_balanced(line.as_bytes());
            for (name, argument) in directives(line.as_bytes()) {
                said.apply(name, &argument);
            }
        }
        said
    }

    fn apply(&mut self, name: &[u8], argument: &Argument<'_>) {
        if is(name, "no-store") {
            self.no_store = true;
        } else if is(name, "must-understand") {
            self.must_understand |= *argument == Argument::Absent;
        } else if is(name, "no-cache") {
            match fields(argument) {
                Some(fields) if !fields.iter().any(is_essential) => self.no_cache_fields.extend(fields),
                _ => self.no_cache = true,
            }
        } else if is(name, "private") {
            match fields(argument) {
                Some(fields) if !fields.iter().any(is_essential) => self.private_fields.extend(fields),
                _ => self.private = true,
            }
        } else if is(name, "public") {
            self.public |= *argument == Argument::Absent;
        } else if is(name, "must-revalidate") {
            self.must_revalidate = true;
        } else if is(name, "proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is(name, "immutable") {
            self.immutable = true;
        } else if is(name, "max-age") {
            // Malformed counts as stale (RFC 9111 §4.2.1); of several, the least.
            lower(&mut self.max_age, seconds(argument).unwrap_or_default());
        } else if is(name, "s-maxage") {
            lower(&mut self.s_maxage, seconds(argument).unwrap_or_default());
        } else if is(name, "stale-while-revalidate") {
            lower(&mut self.stale_while_revalidate, seconds(argument).unwrap_or_default());
        } else if is(name, "stale-if-error") {
            lower(&mut self.stale_if_error, seconds(argument).unwrap_or_default());
        }
    }
}

fn is(name: &[u8], directive: &str) -> bool {
    name.eq_ignore_ascii_case(directive.as_bytes())
}

fn lower(least: &mut Option<Duration>, value: Duration) {
    *least = Some(least.map_or(value, |before| before.min(value)));
}

/// Digits, bare or quoted; `None` for anything else.
fn seconds(argument: &Argument<'_>) -> Option<Duration> {
    match argument {
        Argument::Value(digits) => delta_seconds(digits).map(Duration::from_secs),
        _ => None,
    }
}

/// The field names of a qualified directive; `None` where it has none, or what is none: then it is unqualified.
fn fields(argument: &Argument<'_>) -> Option<Vec<HeaderName>> {
    let Argument::Value(list) = argument else { return None };
    let names: Option<Vec<_>> = split_list(list).map(|name| HeaderName::from_bytes(name).ok()).collect();
    names.filter(|names| !names.is_empty())
}

/// The fields without which a response is another one, or cannot be judged: no response is served without them.
fn is_essential(name: &HeaderName) -> bool {
    [
        header::AGE,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::DATE,
        header::EXPIRES,
        header::LOCATION,
        header::VARY,
    ]
    .contains(name)
}
