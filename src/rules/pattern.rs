//! Patterns of URLs, as users write them.

use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

use super::glob::{Glob, malformed};
use super::host::HostPattern;
use super::path::PathPattern;

/// Which URLs a rule is about: a glob, or with the feature `regex` a regular expression.
///
/// A glob is `[scheme://]host[:port][/path][?query]`, and what it leaves out may be anything: `example.com` is every
/// page of that host, by http or https, at any port. What it names is compared whole: `example.com/api` is that one
/// path, with any query.
///
/// | pattern | matches | does not match |
/// |---|---|---|
/// | `example.com` | `https://example.com/a/b?c` | `https://www.example.com/`, `https://example.com.evil.org/` |
/// | `*.example.com` | subdomains: `a.example.com`, `a.b.example.com` | `example.com`, `notexample.com` |
/// | `**.example.com` | `example.com` and its subdomains | `notexample.com` |
/// | `api-*.example.com` | `api-eu.example.com` | `api-eu.west.example.com` |
/// | `api.*.example.com` | `api.eu.example.com`: a star is one label, unless first | `api.eu.west.example.com` |
/// | `*/login`, `/login` | `/login` of every host | `/login/` |
/// | `example.com:8080` | that port (`:443` is also https without a port) | `https://example.com/` |
/// | `example.com/api/*` | `/api/`, `/api/a` | `/api`, `/api/a/b` |
/// | `example.com/api/**` | `/api`, `/api/` and everything below | `/apis` |
/// | `example.com/**/*.png` | `/a.png`, `/a/b.png` | `/a.png/c` |
/// | `example.com/?q=*` | `/?q=`, `/?q=a&b=/c`: a star is any text in a query | `/`, `/?a&q=b` |
/// | `example.com/?` | `/` without a query, or with an empty one | `/?a` |
///
/// - Scheme: `http` and `https` if none is named. Scheme and host are compared without regard to letter case.
/// - Host: a lone `*` is every host. IPv6 addresses stand in brackets and are compared as written, in their usual
///   short form. Names other than ASCII are written as in the URL (`xn--…`). A trailing dot makes another host.
/// - Port: any if none is named; `:*` says so.
/// - Path: a star stays within its segment and may be nothing; `**` between slashes is any number of segments, also
///   none. Dot segments (`..`) are not resolved.
/// - Escapes: `%7E` is `~`, `%c3%a9` is `%C3%A9` and `é`, but `%2F` is not `/` (RFC 3986 §6.2.2). A star itself is
///   written `%2A`, a percent sign `%25`.
///
/// Patterns for requests-cache and aiohttp-client-cache mean nearly the same here, with these differences: there
/// `site.com/static` is everything that begins so, which is `site.com/static/**` here; a star crosses slashes and dots
/// there, so that their `*.site.com/*` is `*.site.com/**` or `*.site.com`; `site.com` is `site.company` as well there;
/// and a scheme is without meaning there.
#[derive(Clone, Debug)]
pub struct UrlPattern(Form);

#[derive(Clone, Debug)]
enum Form {
    Glob(Arc<UrlGlob>),
    #[cfg(feature = "regex")]
    Regex(regex::Regex),
}

#[derive(Debug)]
struct UrlGlob {
    /// In lower case; `None`: http or https.
    scheme: Option<Box<str>>,
    host: HostPattern,
    port: Option<u16>,
    path: Option<PathPattern>,
    query: Option<Glob>,
}

impl UrlPattern {
    /// A pattern of this form; see the [type](UrlPattern).
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the pattern is malformed: empty, with spaces, control characters or a
    /// fragment, an empty label, a bad port or scheme, or `**` as part of a segment.
    pub fn glob(text: &str) -> Result<Self> {
        UrlGlob::new(text).map(|glob| Self(Form::Glob(Arc::new(glob))))
    }

    /// `url` is absolute and normalised: scheme and host in lower case, no default port, a path, no user, no fragment.
    /// Any other text is matched by no glob.
    pub(crate) fn matches(&self, url: &str) -> bool {
        match &self.0 {
            Form::Glob(glob) => glob.matches(url).unwrap_or(false),
            #[cfg(feature = "regex")]
            Form::Regex(regex) => regex.is_match(url),
        }
    }
}

impl FromStr for UrlPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::glob(text)
    }
}

/// Searched for in the whole URL, in its normalised form: scheme and host in lower case, no default port, at least `/`
/// as the path, the query if there is one, neither user nor fragment. `^` and `$` are the URL's begin and end; without
/// them a part of it is enough, so that `example\.com/` is found in `https://evil.org/?example.com/` too.
#[cfg(feature = "regex")]
impl From<regex::Regex> for UrlPattern {
    fn from(regex: regex::Regex) -> Self {
        Self(Form::Regex(regex))
    }
}

impl UrlGlob {
    fn new(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(malformed("URL pattern: it is empty; a lone `*` is every URL"));
        }
        if text.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
            return Err(malformed(
                "URL pattern: white space or a control character, which are written as escapes",
            ));
        }
        if text.contains('#') {
            return Err(malformed(
                "URL pattern: a fragment, which is never part of a request; a `#` itself is %23",
            ));
        }
        let (before_query, query) = match text.split_once('?') {
            Some((before, query)) => (before, Some(Glob::new(query)?)),
            None => (text, None),
        };
        let (scheme, rest) = match before_query.split_once("://") {
            // Not a scheme where a path has this in it.
            Some((scheme, rest)) if !scheme.contains('/') => (Some(scheme_of(scheme)?), rest),
            _ => (None, before_query),
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(PathPattern::new(path)?)),
            None => (rest, None),
        };
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are inside its brackets.
            Some((host, port)) if !port.contains(']') => (host, port_of(port)?),
            _ => (authority, None),
        };
        let host = match host {
            "" if scheme.is_none() && authority.is_empty() && path.is_some() => HostPattern::Any,
            host => HostPattern::new(host)?,
        };
        Ok(Self { scheme, host, port, path, query })
    }

    /// `None`: the URL is not in its normalised form.
    fn matches(&self, url: &str) -> Option<bool> {
        let (scheme, rest) = url.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/')?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
            _ => (authority, None),
        };
        if host.is_empty() || host.contains('@') {
            return None;
        }
        let default_port = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let scheme_matches = match &self.scheme {
            Some(wanted) => **wanted == *scheme,
            None => scheme == "http" || scheme == "https",
        };
        Some(
            scheme_matches
                && (self.port.is_none() || self.port == port.or(default_port))
                && self.host.matches(host)
                && self.path.as_ref().is_none_or(|wanted| wanted.matches(path))
                && self.query.as_ref().is_none_or(|wanted| wanted.matches(query.as_bytes())),
        )
    }
}

fn scheme_of(text: &str) -> Result<Box<str>> {
    let follows = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
    if text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.chars().all(follows) {
        return Ok(text.to_ascii_lowercase().into());
    }
    Err(malformed("URL pattern: a bad scheme before `://`; expected http, https or none, for both of them"))
}

/// `None`: any port.
fn port_of(text: &str) -> Result<Option<u16>> {
    if text == "*" {
        return Ok(None);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits => Ok(Some(port)),
        _ => Err(malformed("URL pattern: a bad port; expected a number up to 65535, or `*` for any")),
    }
}
