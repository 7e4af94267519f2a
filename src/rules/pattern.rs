//! URL patterns, and the matching of URLs.
//!
//! A glob is split into the parts of a URL. Each part is matched on its own: the host by labels, the path by segments,
//! the query as one text.
//!
//! # Invariants
//! - Text in one part of a URL never matches the pattern of another part.
//! - Matching a glob allocates nothing, and takes at most the pattern's length times the URL's.
//! - An error does not repeat the pattern, which may contain a secret.

use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::hex;

/// A pattern of URLs.
///
/// It is a glob, or with the feature `regex` a regular expression. A glob has the form
/// `[scheme://]host[:port][/path][?query]`. A part that it leaves out may be anything: `example.com` matches every page
/// of that host, over http or https, at any port. A part that it has is compared as a whole: `example.com/api` matches
/// that one path, with any query.
///
/// | pattern | matches | does not match |
/// |---|---|---|
/// | `example.com` | `https://example.com/a/b?c` | `https://www.example.com/`, `https://example.com.evil.org/` |
/// | `*.example.com` | subdomains: `a.example.com`, `a.b.example.com` | `example.com`, `notexample.com` |
/// | `**.example.com` | `example.com` and its subdomains | `notexample.com` |
/// | `api-*.example.com` | `api-eu.example.com` | `api-eu.west.example.com` |
/// | `api.*.example.com` | `api.eu.example.com` | `api.eu.west.example.com` |
/// | `*/login`, `/login` | `/login` on every host | `/login/` |
/// | `example.com:8080` | `http://example.com:8080/` | `https://example.com/` |
/// | `example.com/api/*` | `/api/`, `/api/a` | `/api`, `/api/a/b` |
/// | `example.com/api/**` | `/api`, `/api/`, `/api/a/b` | `/apis` |
/// | `example.com/**/*.png` | `/a.png`, `/a/b.png` | `/a.png/c` |
/// | `example.com/?q=*` | `/?q=`, `/?q=a&b=/c` | `/`, `/?a&q=b` |
/// | `example.com/?` | `/`, `/?` | `/?a` |
///
/// - **Scheme**: without one, `http` and `https` match. Scheme and host are compared in any letter case.
/// - **Host**: a lone `*` matches every host. A first label `*` stands for one or more labels, `**` for none or more,
///   and any other star stays within its label. An IPv6 address is written in brackets and compared as text, in its
///   usual short form. A name that is not ASCII is written as in the URL (`xn--…`). A trailing dot makes a different
///   host.
/// - **Port**: without one, or with `:*`, any port matches. `:443` also matches https without a port, and `:80` http.
/// - **Path**: a star stays within its segment and may stand for nothing. `**` between slashes stands for any number of
///   segments, also none. Dot segments (`..`) are not resolved.
/// - **Query**: a star stands for any text. A lone `?` matches no query and an empty one.
/// - **Escapes**: `%7E` equals `~`, and `%c3%a9` equals `%C3%A9` and `é`, but `%2F` does not equal `/` (RFC 3986
///   §6.2.2). A literal star is written `%2A`, and a percent sign `%25`.
///
/// Patterns of requests-cache and aiohttp-client-cache differ in these points:
/// - Their `site.com/static` matches every URL that begins with it. That is `site.com/static/**` here.
/// - Their star also matches slashes and dots. Their `*.site.com/*` is `*.site.com/**` or `*.site.com` here.
/// - Their `site.com` also matches `site.company`.
/// - They ignore the scheme.
#[derive(Clone, Debug)]
pub struct UrlPattern(Form);

/// The form of a pattern.
#[derive(Clone, Debug)]
enum Form {
    Glob(Arc<UrlGlob>),
    #[cfg(feature = "regex")]
    Regex(regex::Regex),
}

/// A glob, split into the parts of a URL.
///
/// A part that is `None` matches anything, unless its field says otherwise.
#[derive(Debug)]
struct UrlGlob {
    /// In lower case. `None` for http and https.
    scheme: Option<Box<str>>,
    host: HostPattern,
    port: Option<u16>,
    path: Option<PathPattern>,
    query: Option<Glob>,
}

impl UrlPattern {
    /// Parses a glob, in the form that [`UrlPattern`] describes.
    ///
    /// # Errors
    /// Returns an error of the kind [`Config`](crate::ErrorKind::Config) if the pattern is malformed. It is if it is
    /// empty, if it has a space, a control character or a fragment, an empty label, a bad port or scheme, or `**` as a
    /// part of a segment.
    pub fn glob(text: &str) -> Result<Self> {
        UrlGlob::new(text).map(|glob| Self(Form::Glob(Arc::new(glob))))
    }

    /// Returns whether the pattern is about the query too, as far as can be told.
    pub(crate) fn has_query(&self) -> bool {
        match &self.0 {
            Form::Glob(glob) => glob.query.is_some(),
            #[cfg(feature = "regex")]
            Form::Regex(_) => false,
        }
    }

    /// Returns whether a URL matches.
    ///
    /// `url` is absolute and normalized: scheme and host in lower case, no default port, a path, no user, no fragment.
    /// No glob matches any other text.
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

#[cfg(feature = "regex")]
impl From<regex::Regex> for UrlPattern {
    /// Converts a regular expression, which is searched for in the whole URL.
    ///
    /// The URL is normalized: scheme and host in lower case, no default port, at least `/` as the path, the query if
    /// there is one, neither user nor fragment. `^` and `$` match its begin and its end. Without them the expression
    /// matches a part of the URL, so that `example\.com/` also matches `https://evil.org/?example.com/`.
    fn from(regex: regex::Regex) -> Self {
        Self(Form::Regex(regex))
    }
}

impl UrlGlob {
    /// Parses a glob.
    fn new(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(malformed("URL pattern: it is empty; write `*` to match every URL"));
        }
        if text.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
            return Err(malformed(
                "URL pattern: it has white space or a control character; write it as an escape such as %20",
            ));
        }
        if text.contains('#') {
            return Err(malformed(
                "URL pattern: it has a fragment, which is never part of a request; write %23 for a literal `#`",
            ));
        }
        let (before_query, query) = match text.split_once('?') {
            Some((before, query)) => (before, Some(Glob::new(query)?)),
            None => (text, None),
        };
        let (scheme, rest) = match before_query.split_once("://") {
            // `://` may also be a part of the path, as in `/redirect/http://b/`.
            Some((scheme, rest)) if !scheme.contains('/') => (Some(parse_scheme(scheme)?), rest),
            _ => (None, before_query),
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(PathPattern::new(path)?)),
            None => (rest, None),
        };
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are before its closing bracket.
            Some((host, port)) if !port.contains(']') => (host, parse_port(port)?),
            _ => (authority, None),
        };
        let host = match host {
            "" if scheme.is_none() && authority.is_empty() && path.is_some() => HostPattern::Any,
            host => HostPattern::new(host)?,
        };
        Ok(Self { scheme, host, port, path, query })
    }

    /// Returns whether a URL matches.
    ///
    /// `None` if the URL is not normalized.
    fn matches(&self, url: &str) -> Option<bool> {
        let (scheme, rest) = url.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/')?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
            _ => (authority, None),
        };
        // A user before the host would let another host look like the wanted one.
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

/// Parses a scheme (RFC 3986 §3.1), and converts it to lower case.
fn parse_scheme(text: &str) -> Result<Box<str>> {
    let follows = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
    if text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.chars().all(follows) {
        return Ok(text.to_ascii_lowercase().into());
    }
    Err(malformed("URL pattern: bad scheme before `://`; write http, https, or none to match both"))
}

/// Parses a port.
///
/// `None` for any port.
fn parse_port(text: &str) -> Result<Option<u16>> {
    if text == "*" {
        return Ok(None);
    }
    // `parse` alone would accept a sign.
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if is_digits => Ok(Some(port)),
        _ => Err(malformed("URL pattern: bad port; write a number up to 65535, or `*` for any port")),
    }
}

/// A pattern of hosts.
///
/// Whole labels are compared, from the last one on, so that no name matches because its text ends in another domain.
#[derive(Clone, Debug)]
enum HostPattern {
    /// Every host.
    Any,
    /// An IPv6 address with its brackets.
    Address(Box<str>),
    /// A name.
    Name {
        prefix: Prefix,
        /// The labels, from the last to the first.
        labels: Box<[Glob]>,
    },
}

/// The labels that may stand before those of the pattern.
#[derive(Clone, Copy, Debug)]
enum Prefix {
    None,
    /// One or more labels, written `*`.
    OneOrMore,
    /// Any number of labels, written `**`.
    Any,
}

impl HostPattern {
    /// Parses the host of a glob.
    fn new(host: &str) -> Result<Self> {
        let host = host.to_ascii_lowercase();
        if let Some(inside) = host.strip_prefix('[') {
            let address = inside.strip_suffix(']').map(str::parse::<Ipv6Addr>);
            return match address {
                Some(Ok(_)) => Ok(Self::Address(host.into())),
                _ => Err(malformed("URL pattern: bad IPv6 address in brackets; write it as in [::1]:8080")),
            };
        }
        if host.contains(['[', ']', ':']) {
            return Err(malformed("URL pattern: IPv6 address without brackets; write it as in [::1]:8080"));
        }
        if host.contains('@') {
            return Err(malformed(
                "URL pattern: it has a user or password, which no URL is matched with; remove it",
            ));
        }
        if host.contains(['%', '\\', '"', '<', '>', '^', '`', '{', '|', '}']) {
            return Err(malformed(
                "URL pattern: the host has a character that no host name has; the only wildcard is `*`",
            ));
        }
        if host == "*" || host == "**" {
            return Ok(Self::Any);
        }
        let (prefix, rest) = match host.split_once('.') {
            Some(("*", rest)) => (Prefix::OneOrMore, rest),
            Some(("**", rest)) => (Prefix::Any, rest),
            _ => (Prefix::None, &*host),
        };
        if rest.split('.').any(str::is_empty) {
            return Err(malformed(
                "URL pattern: the host is missing or has an empty label; write `*` to match every host",
            ));
        }
        Ok(Self::Name { prefix, labels: rest.rsplit('.').map(Glob::new).collect::<Result<_>>()? })
    }

    /// Returns whether a host matches.
    ///
    /// `host` is in lower case.
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Address(address) => **address == *host,
            // A name with an empty label is not the name without it, and a star does not stand for an empty label.
            Self::Name { .. } if host.starts_with('[') || host.split('.').any(str::is_empty) => false,
            Self::Name { prefix, labels } => {
                let mut found = host.rsplit('.');
                labels.iter().all(|label| found.next().is_some_and(|found| label.matches(found.as_bytes())))
                    && match prefix {
                        Prefix::None => found.next().is_none(),
                        Prefix::OneOrMore => found.next().is_some(),
                        Prefix::Any => true,
                    }
            }
        }
    }
}

/// A pattern of paths, in whole segments.
#[derive(Clone, Debug)]
struct PathPattern(Box<[Segment]>);

/// A segment of a path pattern.
#[derive(Clone, Debug)]
enum Segment {
    /// Any number of segments, also none, written `**`.
    Any,
    /// One segment.
    One(Glob),
}

impl PathPattern {
    /// Parses the path of a glob, without its first slash.
    fn new(path: &str) -> Result<Self> {
        let segment = |text| if text == "**" { Ok(Segment::Any) } else { Glob::new(text).map(Segment::One) };
        Ok(Self(path.split('/').map(segment).collect::<Result<_>>()?))
    }

    /// Returns whether a path matches.
    ///
    /// `path` is without its first slash.
    fn matches(&self, path: &str) -> bool {
        let (mut at, mut rest) = (0, path.split('/'));
        // As in `Glob::matches`, only the last `**` may have to match more segments.
        let mut retry = None;
        loop {
            let here = rest.clone();
            match (self.0.get(at), rest.next()) {
                (Some(Segment::Any), _) => {
                    at += 1;
                    if at == self.0.len() {
                        return true;
                    }
                    rest = here.clone();
                    retry = Some((at, here));
                }
                (None, None) => return true,
                (Some(Segment::One(glob)), Some(segment)) if glob.matches(segment.as_bytes()) => at += 1,
                _ => {
                    let Some((from, taken)) = &mut retry else { return false };
                    if taken.next().is_none() {
                        return false;
                    }
                    at = *from;
                    rest = taken.clone();
                }
            }
        }
    }
}

/// An octet, or a wildcard in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Any number of octets, also none. Only a pattern has it.
    Star,
    Octet(u8),
    /// An escaped octet that does not equal the unescaped one: `%2F` is not `/`.
    Escaped(u8),
}

/// A pattern of one part of a URL, in which `*` matches any text.
///
/// Texts are compared octet by octet, as RFC 3986 §6.2.2 says of URLs.
#[derive(Clone, Debug)]
struct Glob(Box<[Unit]>);

impl Glob {
    /// Parses a pattern.
    fn new(text: &str) -> Result<Self> {
        let mut units = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((unit, after)) = split_first(rest) {
            units.push(match rest {
                [b'*', b'*', ..] => {
                    return Err(malformed(
                        "URL pattern: misplaced `**`; it has to be a whole segment of the path or the first label of \
                         the host",
                    ));
                }
                [b'*', ..] => Unit::Star,
                [b'%', ..] if after.len() + 1 == rest.len() => {
                    return Err(malformed(
                        "URL pattern: percent sign without two hexadecimal digits; write %25 for a literal one",
                    ));
                }
                _ => unit,
            });
            rest = after;
        }
        Ok(Self(units.into()))
    }

    /// Returns whether the pattern matches the whole text.
    fn matches(&self, text: &[u8]) -> bool {
        let (mut at, mut rest) = (0, text);
        // The position after the last star in the pattern, and the text after what that star has matched so far. If the
        // rest does not match, this star matches one octet more. Earlier stars are never tried again, since each of
        // them has left the longest rest that it can. So the time is at most the product of both lengths.
        let mut retry: Option<(usize, &[u8])> = None;
        loop {
            match (self.0.get(at), split_first(rest)) {
                (Some(Unit::Star), _) => {
                    at += 1;
                    if at == self.0.len() {
                        return true;
                    }
                    retry = Some((at, rest));
                }
                (None, None) => return true,
                (Some(wanted), Some((found, after))) if *wanted == found => {
                    at += 1;
                    rest = after;
                }
                _ => {
                    let Some((from, taken)) = retry else { return false };
                    let Some((_, after)) = split_first(taken) else { return false };
                    at = from;
                    rest = after;
                    retry = Some((from, after));
                }
            }
        }
    }
}

/// Splits a text after its first octet, and decodes that octet (RFC 3986 §6.2.2).
///
/// An unreserved character equals its escape. So do characters that a URL cannot contain unescaped: every one outside
/// ASCII, and a percent sign that begins no escape. A star counts as unreserved, so that a pattern can name a literal
/// one by its escape.
fn split_first(text: &[u8]) -> Option<(Unit, &[u8])> {
    if let [b'%', high, low, rest @ ..] = text
        && let Some(octet) = hex::octet(*high, *low)
    {
        let is_unreserved = octet.is_ascii_alphanumeric() || b"-._~*".contains(&octet);
        return Some((if is_unreserved { Unit::Octet(octet) } else { Unit::Escaped(octet) }, rest));
    }
    let (first, rest) = text.split_first()?;
    let is_plain = first.is_ascii() && *first != b'%';
    Some((if is_plain { Unit::Octet(*first) } else { Unit::Escaped(*first) }, rest))
}

/// Returns an error about a pattern.
///
/// It says what is wrong without the pattern's text, which may contain a secret.
fn malformed(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, message)
}
