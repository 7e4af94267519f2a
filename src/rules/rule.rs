//! A rule for the responses that meet its conditions.

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

use super::condition::{Condition, RuledResponse};
use super::pattern::UrlPattern;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::Ttl;

/// A rule for the responses that meet all of its conditions.
///
/// It gives them a lifetime, or [tags](Self::tag), or both. Of the [rules](crate::Rules) of a layer that give a lifetime,
/// the first one that matches a response decides.
///
/// # Conditions on the request
/// A response is stored for every request with the same key. If a rule depends on something of the request that is not in
/// the key, the request that fetches the response decides for all of them: a client can then choose the lifetime and the
/// tags of what others get, though never the body. To tell the requests apart, put the field or cookie into the key by
/// [`key_headers`](crate::CacheLayerBuilder::key_headers), unless the origin names it in Vary.
///
/// Rules are applied when a response is fetched, and again when the origin confirms it, each time with the request that is
/// sent. A stored response keeps what it was given then:
/// [rules that are replaced](crate::CacheLayer::set_rules), [new lifetimes](crate::CacheHandle::reset_expiry) and copies to
/// another storage ask for no request again. What a client adds below the cache, such as reqwest's default headers and
/// cookies, is not seen by rules.
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::{Rule, Ttl};
///
/// let images = Rule::new().content_type("image/*").default_ttl(Duration::from_secs(86_400));
/// let errors = Rule::new().statuses(500..=599).override_ttl(Duration::from_secs(5));
/// let login = Rule::new().url("*.example.com/login/**").override_ttl(Ttl::DoNotStore);
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Rule {
    url: Option<UrlPattern>,
    statuses: Option<Vec<u16>>,
    content_type: Option<String>,
    conditions: Vec<Condition>,
    pub(super) override_ttl: Option<Ttl>,
    pub(super) default_ttl: Option<Ttl>,
    pub(super) tags: Vec<String>,
    /// The error of a malformed condition.
    ///
    /// It is kept until the cache is built, since a setter cannot return it.
    error: Option<Error>,
}

impl Rule {
    /// Creates a rule without conditions, for every response.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the rule to URLs that match a pattern.
    ///
    /// The pattern is a glob as text, or a [`UrlPattern`]. A malformed glob is an error when the cache is built.
    ///
    /// Default: any URL.
    pub fn url(mut self, pattern: impl IntoUrlPattern) -> Self {
        match pattern.into_url_pattern() {
            Ok(pattern) => self.url = Some(pattern),
            Err(error) => self.error = Some(error),
        }
        self
    }

    /// Limits the rule to responses with one of these statuses.
    ///
    /// `statuses` is a range or a list. Responses with these statuses are then stored even where RFC 9111 §3 would not
    /// permit it, if this or another rule gives them a lifetime, or if they have one. 206 and 304 are never stored. See
    /// [`Rules::statuses`](crate::Rules::statuses) for the risk with statuses that are about one request.
    ///
    /// Default: any status.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.statuses = Some(statuses.into_iter().collect());
        self
    }

    /// Limits the rule to responses of this media type.
    ///
    /// It is a type such as `image/png`, or a range such as `image/*` or `*/*`, in any letter case. Parameters of the
    /// response's Content-Type do not count.
    ///
    /// Default: any media type, and responses without Content-Type.
    pub fn content_type(mut self, media_type: impl Into<String>) -> Self {
        self.content_type = Some(media_type.into().to_ascii_lowercase());
        self
    }

    /// Limits the rule to URLs with a query parameter whose value matches a pattern.
    ///
    /// In the pattern `*` is any text, also none, so that `*` alone matches each value. Name and value are compared as they
    /// are after decoding, in which `+` is a space. A parameter without `=` has an empty value. Parameters that the cache
    /// [ignores](crate::CacheLayerBuilder::ignore_query_params) never match. Several calls add up: each needs a parameter.
    ///
    /// Default: any query.
    pub fn query_param(self, name: impl Into<String>, value: impl AsRef<str>) -> Self {
        self.and(Condition::query_param(name.into(), value.as_ref()))
    }

    /// Limits the rule to requests with a cookie whose value matches a pattern.
    ///
    /// In the pattern `*` is any text, also none. The value is compared as it was sent, with quotes and escapes. Several
    /// calls add up. [`Rule`] says what depends on a cookie that is not in the key.
    ///
    /// Default: any cookies, and none.
    pub fn cookie(self, name: impl Into<String>, value: impl AsRef<str>) -> Self {
        self.and(Condition::cookie(name.into(), value.as_ref()))
    }

    /// Limits the rule to requests with a field of which a line matches a pattern.
    ///
    /// In the pattern `*` is any text, also none. The name is compared in any letter case, the value as it was sent: as a
    /// whole line, so that a member of a list needs stars. Several calls add up. [`Rule`] says what depends on a field that
    /// is not in the key.
    ///
    /// Default: any fields.
    pub fn request_header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.and(Condition::header(name.as_ref(), value.as_ref(), true))
    }

    /// Limits the rule to responses with a field of which a line matches a pattern.
    ///
    /// The pattern is as in [`request_header`](Self::request_header). When the origin confirms a stored response, the fields
    /// count that the response then has. For Content-Type, [`content_type`](Self::content_type) ignores letter case and
    /// parameters. Several calls add up.
    ///
    /// Default: any fields.
    pub fn response_header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.and(Condition::header(name.as_ref(), value.as_ref(), false))
    }

    /// Limits the rule to requests with one of these methods.
    ///
    /// HEAD counts as GET, since it is answered from the response to GET. Other methods are cached only if the layer's
    /// `methods` name them.
    ///
    /// Default: any method.
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.and(Condition::methods(methods))
    }

    /// Limits the rule to responses whose body is longer than this, in bytes.
    ///
    /// The length is the response's Content-Length, or else what the body of the inner service says exactly. A response
    /// that is stored without a length in advance, such as one in chunks, matches neither this nor
    /// [`smaller_than`](Self::smaller_than) when it is fetched. When the origin confirms it, its length is known.
    ///
    /// Default: any length.
    pub fn larger_than(self, bytes: u64) -> Self {
        self.and(Ok(Condition::LargerThan(bytes)))
    }

    /// Limits the rule to responses whose body is shorter than this, in bytes.
    ///
    /// A response of unknown length does not match, see [`larger_than`](Self::larger_than).
    ///
    /// Default: any length.
    pub fn smaller_than(self, bytes: u64) -> Self {
        self.and(Ok(Condition::SmallerThan(bytes)))
    }

    /// Adds a condition, or keeps its error until the cache is built.
    fn and(mut self, condition: Result<Condition>) -> Self {
        match condition {
            Ok(condition) => self.conditions.push(condition),
            Err(error) => self.error = Some(error),
        }
        self
    }

    /// Sets how long the responses are fresh, whatever lifetime they state.
    ///
    /// Default: [`Rules::override_ttl`](crate::Rules::override_ttl), or else the response decides.
    pub fn override_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.override_ttl = Some(ttl.into());
        self
    }

    /// Sets how long those responses are fresh that state no lifetime.
    ///
    /// Default: [`Rules::default_ttl`](crate::Rules::default_ttl).
    pub fn default_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.default_ttl = Some(ttl.into());
        self
    }

    /// Adds a tag that the responses are stored with.
    ///
    /// All responses with one tag are [invalidated](crate::CacheLayer::invalidate_tag) together. A response gets the
    /// tags of every rule that matches it. A rule with tags alone does not keep a later rule from giving the lifetime.
    ///
    /// Default: none.
    pub fn tag(mut self, name: impl Into<String>) -> Self {
        self.tags.push(name.into());
        self
    }

    /// Returns whether the rule gives a lifetime.
    pub(super) fn gives_ttl(&self) -> bool {
        self.override_ttl.is_some() || self.default_ttl.is_some()
    }

    /// Returns whether the rule has a condition on the URL.
    pub(super) fn has_url_condition(&self) -> bool {
        self.url.is_some() || self.conditions.iter().any(Condition::is_of_url)
    }

    /// Returns whether the rule has a condition on the status.
    pub(super) fn has_status_condition(&self) -> bool {
        self.statuses.is_some()
    }

    /// Returns whether a response meets every condition.
    pub(super) fn matches(&self, url: &str, response: &RuledResponse<'_>) -> bool {
        let status = response.status.as_u16();
        self.url.as_ref().is_none_or(|pattern| pattern.matches(url))
            && self.statuses.as_ref().is_none_or(|statuses| statuses.contains(&status))
            && self.content_type.as_ref().is_none_or(|wanted| is_of_media_type(wanted, response.headers))
            && self.conditions.iter().all(|condition| condition.holds(url, response))
    }

    /// Returns whether some length is within the limits of the rule.
    fn has_possible_len(&self) -> bool {
        let larger = self.conditions.iter().filter_map(|condition| match condition {
            Condition::LargerThan(bytes) => Some(bytes.saturating_add(1)),
            _ => None,
        });
        let smaller = self.conditions.iter().filter_map(|condition| match condition {
            Condition::SmallerThan(bytes) => Some(*bytes),
            _ => None,
        });
        larger.max().unwrap_or_default() < smaller.min().unwrap_or(u64::MAX)
    }

    /// Checks that the rule can have an effect and that its conditions are well formed.
    ///
    /// # Errors
    /// Returns an error of the kind [`Config`](ErrorKind::Config) if not.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        if !self.gives_ttl() && self.tags.is_empty() {
            return Err(config("a rule says nothing: give it an override_ttl, a default_ttl or a tag"));
        }
        if self.tags.iter().any(String::is_empty) {
            return Err(config("a rule's tag is empty: give it a name, or remove it"));
        }
        if let Some(statuses) = &self.statuses {
            check_statuses(statuses)?;
        }
        let is_media_type = |text: &String| {
            text.split_once('/').is_some_and(|(kind, subtype)| {
                !kind.is_empty()
                    && !subtype.is_empty()
                    && !text.contains([';', ' ', ','])
                    && (kind != "*" || subtype == "*")
            })
        };
        if !self.content_type.as_ref().is_none_or(is_media_type) {
            return Err(config(
                "a rule's content_type is malformed: write a media type such as image/png or image/*",
            ));
        }
        if !self.has_possible_len() {
            return Err(config(
                "a rule's larger_than and smaller_than leave no length: raise smaller_than, or remove one",
            ));
        }
        Ok(())
    }
}

/// Checks that at least one of the statuses can be stored.
pub(super) fn check_statuses(statuses: &[u16]) -> Result<()> {
    if !statuses.iter().any(|status| (200..600).contains(status) && !matches!(status, 206 | 304)) {
        return Err(config(
            "none of the given statuses can be stored: name at least one from 200 to 599, other than 206 and 304",
        ));
    }
    Ok(())
}

/// Returns an error about the settings of the cache.
pub(super) fn config(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Returns whether a response's Content-Type is this media type, or in this range (RFC 9110 §8.3.1 and §12.5.1).
///
/// `wanted` is in lower case.
fn is_of_media_type(wanted: &str, headers: &HeaderMap) -> bool {
    let Some(Ok(content_type)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    match wanted.strip_suffix('*') {
        Some("*/") => true,
        Some(kind) => media_type.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind)),
        None => media_type.eq_ignore_ascii_case(wanted),
    }
}

/// A conversion into a [`UrlPattern`], from a glob as text or from a pattern.
///
/// With the feature `regex` also from a regular expression.
pub trait IntoUrlPattern {
    /// Converts into a pattern.
    ///
    /// # Errors
    /// Returns an error of the kind [`Config`](crate::ErrorKind::Config) if the text is not a glob.
    fn into_url_pattern(self) -> Result<UrlPattern>;
}

impl IntoUrlPattern for UrlPattern {
    fn into_url_pattern(self) -> Result<UrlPattern> {
        Ok(self)
    }
}

impl IntoUrlPattern for &str {
    fn into_url_pattern(self) -> Result<UrlPattern> {
        UrlPattern::glob(self)
    }
}

impl IntoUrlPattern for String {
    fn into_url_pattern(self) -> Result<UrlPattern> {
        UrlPattern::glob(&self)
    }
}

#[cfg(feature = "regex")]
impl IntoUrlPattern for regex::Regex {
    fn into_url_pattern(self) -> Result<UrlPattern> {
        Ok(self.into())
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("url", &self.url)
            .field("content_type", &self.content_type)
            .field("conditions", &self.conditions)
            .field("override_ttl", &self.override_ttl)
            .field("default_ttl", &self.default_ttl)
            .finish_non_exhaustive()
    }
}
