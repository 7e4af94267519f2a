//! One rule: which responses it is about, and how long these are fresh.

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use super::pattern::UrlPattern;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::Ttl;

/// A rule for some responses: all of its conditions must hold. Of a list of rules, the first that matches says how long.
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
    pub(super) override_ttl: Option<Ttl>,
    pub(super) default_ttl: Option<Ttl>,
    pub(super) tags: Vec<String>,
    /// A mistake in a condition, told when the cache is built.
    mistake: Option<Error>,
}

impl Rule {
    /// A rule for every response.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only responses of URLs of this pattern: a glob as text, or a [`UrlPattern`]. A malformed glob is an error when
    /// the cache is built. Default: any URL.
    pub fn url(mut self, pattern: impl IntoUrlPattern) -> Self {
        match pattern.into_url_pattern() {
            Ok(pattern) => self.url = Some(pattern),
            Err(error) => self.mistake = Some(error),
        }
        self
    }

    /// Only responses of these statuses: a range or a list. They are then stored also where a cache would not store
    /// them by itself, if they have a lifetime, by whatever rule. 206 and 304 never are; see [`Rules::statuses`](crate::Rules::statuses) for those
    /// that say something of one request. Default: any status.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.statuses = Some(statuses.into_iter().collect());
        self
    }

    /// Only responses of this media type: `image/png`, `image/*` or `*/*`, in any letter case; parameters do not count.
    /// Default: any, and none.
    pub fn content_type(mut self, media_type: impl Into<String>) -> Self {
        self.content_type = Some(media_type.into().to_ascii_lowercase());
        self
    }

    /// How long they are fresh, whatever the responses say. Default: these, and the layer's, say it.
    pub fn override_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.override_ttl = Some(ttl.into());
        self
    }

    /// How long they are fresh where the responses give no lifetime. Default: the layer says it.
    pub fn default_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.default_ttl = Some(ttl.into());
        self
    }

    /// A name that they are stored with; all that were stored with it are
    /// [invalidated](crate::CacheLayer::invalidate_tag) together. The tags of all rules that match add up; a rule with
    /// tags alone does not keep a later one from saying how long. Default: none.
    pub fn tag(mut self, name: impl Into<String>) -> Self {
        self.tags.push(name.into());
        self
    }

    /// Whether it says how long.
    pub(super) fn gives_ttl(&self) -> bool {
        self.override_ttl.is_some() || self.default_ttl.is_some()
    }

    /// Whether it is about some URLs only.
    pub(super) fn looks_at_url(&self) -> bool {
        self.url.is_some()
    }

    pub(super) fn names_status(&self) -> bool {
        self.statuses.is_some()
    }

    pub(super) fn matches(&self, url: &str, status: StatusCode, headers: &HeaderMap) -> bool {
        self.url.as_ref().is_none_or(|pattern| pattern.matches(url))
            && self.statuses.as_ref().is_none_or(|statuses| statuses.contains(&status.as_u16()))
            && self.content_type.as_ref().is_none_or(|wanted| is_of_type(wanted, headers))
    }

    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(mistake) = &self.mistake {
            return Err(mistake.clone());
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
        let is_type = |text: &String| {
            text.split_once('/').is_some_and(|(kind, sub)| {
                !kind.is_empty()
                    && !sub.is_empty()
                    && !text.contains([';', ' ', ','])
                    && (kind != "*" || sub == "*")
            })
        };
        if !self.content_type.as_ref().is_none_or(is_type) {
            return Err(config("a rule's content_type is a media type like image/png or image/*"));
        }
        Ok(())
    }
}

/// Statuses that can be stored at all, at least one.
pub(super) fn check_statuses(statuses: &[u16]) -> Result<()> {
    if !statuses.iter().any(|status| (200..600).contains(status) && !matches!(status, 206 | 304)) {
        return Err(config(
            "none of the statuses named can be stored: they are 200 to 599 without 206 and 304",
        ));
    }
    Ok(())
}

pub(super) fn config(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn is_of_type(wanted: &str, headers: &HeaderMap) -> bool {
    let Some(Ok(given)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let given = given.split(';').next().unwrap_or_default().trim();
    match wanted.strip_suffix('*') {
        Some("*/") => true,
        Some(kind) => given.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind)),
        None => given.eq_ignore_ascii_case(wanted),
    }
}

/// What a rule takes as a pattern of URLs: a glob as text, or a [`UrlPattern`].
pub trait IntoUrlPattern {
    /// The pattern.
    ///
    /// # Errors
    /// The text is no glob.
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
            .field("override_ttl", &self.override_ttl)
            .field("default_ttl", &self.default_ttl)
            .finish_non_exhaustive()
    }
}
