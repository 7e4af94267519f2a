//! The request fields that select a stored response, and their values (RFC 9111 §4.1).
//!
//! # Invariants
//! - Two requests select the same response only if each selecting field has the same value, or the same meaning by the
//!   syntax of that field.
//! - A response whose Vary cannot be read is not stored, unless a setting or a rule says so.
//! - A private cache keeps the responses to different credentials apart, unless a setting says otherwise.

use http::{HeaderMap, HeaderName, header};

use super::directives::ResponseDirectives;
use super::header_hints::HeaderHints;
use super::list::split_list;
use super::loose_name::loose_name;
use super::not_stored::NotStored;
use super::options::Options;
use super::rule_decision::StoreDespite;
use super::storing::{allows_authorization, is_connection_field};

/// Stands for every field among the selecting names.
///
/// Fields about the connection or the cache are left out, and Host, which is a part of the effective URI.
///
/// No field of this name can be stored by accident: a member `*` of Vary is treated on its own.
pub(crate) const ALL_FIELDS: HeaderName = HeaderName::from_static("*");
/// Stands for the method and content of a request among the selecting names.
///
/// Requests that are not a GET are selected by it.
///
/// The asterisk tells it from the fields in use.
pub(crate) const CONTENT: HeaderName = HeaderName::from_static("*content");

/// The fields that select a stored response, and those that settings keep from doing so (RFC 9111 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SelectingFields {
    pub(crate) names: Vec<HeaderName>,
    pub(crate) ignored_selectors: Option<Box<IgnoredSelectors>>,
}

/// The fields that settings keep from selecting a response (RFC 9111 §4.1).
///
/// They are the settings of the cache that stored it.
///
/// A cache with other settings must not use the response unless it leaves out all of these fields too: their values are
/// not stored, so that it could not tell which request the response answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IgnoredSelectors {
    /// The fields that Vary names, sorted.
    pub(crate) named: Vec<HeaderName>,
    /// The fields with credentials, in a private cache.
    pub(crate) credentials: Vec<HeaderName>,
    /// The fingerprint of the settings on query parameters for the URL, which the writer of the response sets.
    ///
    /// 0 if there are none. The response then answers a request for exactly its key, whatever parameters another cache
    /// ignores.
    pub(crate) query: u64,
    /// The fingerprint of the cookies that alone select, or 0 if Cookie selects as a whole or not at all.
    pub(crate) cookies: u64,
}

impl IgnoredSelectors {
    /// Returns the fields that these settings leave out of a response's selecting fields (RFC 9111 §4.1).
    ///
    /// `names` are the selecting fields that remain. `None` if the settings leave out none, which is usual.
    pub(crate) fn by(
        options: &Options,
        response: &HeaderMap,
        despite: StoreDespite,
        names: &[HeaderName],
    ) -> Option<Box<Self>> {
        let Options { ignored_fields, vary_on_credentials, ignore_cookie, ignore_vary, .. } = options;
        let selects_by_cookie = names.contains(&header::COOKIE) || names.contains(&ALL_FIELDS);
        let cookies =
            options.key_cookies.as_ref().filter(|_| selects_by_cookie).map_or(0, |of| of.fingerprint);
        if ignored_fields.is_empty() && *vary_on_credentials && !ignore_cookie && !ignore_vary {
            return (cookies != 0).then(|| Box::new(Self { cookies, ..Self::default() }));
        }
        // Under these settings nothing but credentials selects. The names of Vary are read apart, below.
        let without_exceptions = Options {
            vary_on_credentials: true,
            ignore_cookie: false,
            ignore_vary: true,
            ignored_fields: Vec::new(),
            key_fields: Vec::new(),
            targeted_fields: options.targeted_fields.clone(),
            key_cookies: None,
            tag_fields: Vec::new(),
            ..*options
        };
        let directives = ResponseDirectives::of(response, &without_exceptions);
        let mut credentials =
            selecting_names(response, &directives, &without_exceptions, despite).unwrap_or_default();
        let members = response.get_all(header::VARY).iter().flat_map(|line| split_list(line.as_bytes()));
        let mut named: Vec<_> = members.filter_map(|member| HeaderName::from_bytes(member).ok()).collect();
        // A star is left out by `ignore_vary`, which is such a setting, or by a rule, which is not.
        named.retain(|name| *ignore_vary || *name != ALL_FIELDS);
        let selects = |name: &HeaderName| {
            names.contains(name) || (names.contains(&ALL_FIELDS) && !ignored_fields.contains(name))
        };
        named.retain(|name| !selects(name));
        credentials.retain(|name| !selects(name));
        // An ignored field would also have selected the response without being named by Vary if all fields select, or
        // if it is Host, which is a part of the target.
        let selects_unnamed = |name: &&HeaderName| names.contains(&ALL_FIELDS) || **name == header::HOST;
        named.extend(ignored_fields.iter().filter(selects_unnamed).cloned());
        named.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        named.dedup();
        let ignored_selectors = Self { named, credentials, query: 0, cookies };
        (ignored_selectors != Self::default()).then(|| Box::new(ignored_selectors))
    }

    /// Returns whether these settings leave out all of the fields too (RFC 9111 §4.1).
    ///
    /// `query` is the fingerprint of the settings on query parameters for the URL.
    pub(crate) fn is_within(&self, options: &Options, query: u64) -> bool {
        let cookies = options.key_cookies.as_ref().map_or(0, |of| of.fingerprint);
        // The values that were left out are unknown, so that other settings might tell the requests apart.
        let is_same = |stored, now| stored == 0 || stored == now;
        if !is_same(self.query, query) || !is_same(self.cookies, cookies) {
            return false;
        }
        let ignores = |name: &HeaderName| options.ignored_fields.contains(name);
        let is_ignored_cookie = |name: &HeaderName| options.ignore_cookie && *name == header::COOKIE;
        self.named.iter().all(|name| options.ignore_vary || ignores(name))
            && self
                .credentials
                .iter()
                .all(|name| !options.vary_on_credentials || is_ignored_cookie(name) || ignores(name))
    }
}

/// Returns the fields that select a response, sorted (RFC 9111 §4.1).
///
/// These are the fields that Vary names, and those of the settings. In a private cache also Authorization, since one
/// process often acts for many users, and Cookie unless the response is `public` and sets no cookie.
///
/// # Errors
/// Returns [`NotStored::VaryAny`] if Vary has a star or a member that is not a field name, unless a setting or a rule
/// says that it does not matter.
pub(crate) fn selecting_names(
    response: &HeaderMap,
    directives: &ResponseDirectives,
    options: &Options,
    despite: StoreDespite,
) -> Result<Vec<HeaderName>, NotStored> {
    // The credentials alone, for most responses of a private cache.
    let mut names = Vec::with_capacity(2);
    for member in response.get_all(header::VARY).iter().flat_map(|line| split_list(line.as_bytes())) {
        // A star has the syntax of a field name, so that it has to be told from one.
        match HeaderName::from_bytes(member) {
            _ if options.ignore_vary => {}
            Ok(name) if member != b"*" => names.push(name),
            _ if despite.vary_any => {}
            _ => return Err(NotStored::VaryAny),
        }
    }
    if !options.shared && options.vary_on_credentials {
        names.push(header::AUTHORIZATION);
        // A response that sets a cookie is for one user, even if it says `public`.
        let is_for_all_users = directives.public && !response.contains_key(header::SET_COOKIE);
        if !options.ignore_cookie && !is_for_all_users {
            names.push(header::COOKIE);
        }
    }
    // A response that is stored only because of a rule, although it answers Authorization, is still for these
    // credentials alone (RFC 9111 §3.5).
    if options.shared && despite.authorization && !allows_authorization(directives) {
        names.push(header::AUTHORIZATION);
    }
    names.retain(|name| !options.ignored_fields.contains(name));
    names.extend(options.key_fields.iter().cloned());
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    names.shrink_to_fit(); // it is stored
    Ok(names)
}

/// Returns a request's value of a selecting field, normalized so that it can be compared (RFC 9111 §4.1).
///
/// Values of the same meaning become equal where the field's own syntax defines that. Any other field is compared as it
/// came. `None` if the request does not have the field.
pub(crate) fn selecting_value(name: &HeaderName, request: &HeaderMap, options: &Options) -> Option<Vec<u8>> {
    if *name == ALL_FIELDS {
        return Some(all_fields(request, options));
    }
    if let Some(of) = options.key_cookies.as_ref().filter(|_| *name == header::COOKIE) {
        return key_cookies(request, &of.names);
    }
    let ordered = [header::ACCEPT, header::ACCEPT_LANGUAGE];
    let unordered = [header::ACCEPT_ENCODING, header::ACCEPT_CHARSET];
    if !ordered.contains(name) && !unordered.contains(name) {
        return raw_value(request, name);
    }
    if !request.contains_key(name) {
        return None;
    }
    let members = request.get_all(name).iter().flat_map(|line| split_list(line.as_bytes()));
    if *name == header::ACCEPT {
        return Some(members.collect::<Vec<_>>().join(&b','));
    }
    // These fields are case-insensitive (RFC 9110 §12.4.2 and §12.5). Their order has no meaning either, except that
    // servers take the order of languages for a priority (§12.5.4).
    let mut preferences: Vec<_> = members.map(normalized_preference).collect();
    if unordered.contains(name) {
        preferences.sort_unstable();
    }
    Some(preferences.join(&b','))
}

/// Returns all lines of a request's field, as they came (RFC 9111 §4.1).
///
/// `None` if the request does not have the field.
pub(crate) fn raw_value(request: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = request.get_all(name).iter();
    let first = lines.next()?.as_bytes().to_vec();
    Some(lines.fold(first, |mut joined, line| {
        joined.push(0); // no field value contains a NUL, so that two lines differ from one line with a comma
        joined.extend_from_slice(line.as_bytes());
        joined
    }))
}

/// Returns the cookies of a request that have one of these names, as they came and in their order.
///
/// `None` if there are none. The whole field is returned if servers may find other cookies in it, since they differ in how
/// they read quotes and commas.
fn key_cookies(request: &HeaderMap, names: &[Option<String>]) -> Option<Vec<u8>> {
    let is_named = |cookie: &[u8]| {
        let name = cookie.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name = loose_name(name.trim_ascii());
        name.is_none() || names.iter().any(|of| of.is_none() || *of == name)
    };
    let mut found: Option<Vec<u8>> = None;
    // HTTP/2 may split the field into lines at its semicolons (RFC 9113 §8.2.3).
    for line in request.get_all(header::COOKIE) {
        for segment in line.as_bytes().split(|byte| *byte == b';') {
            let cookie = segment.trim_ascii();
            let quotes = cookie.iter().filter(|byte| **byte == b'"').count();
            // A semicolon within quotes does not end a cookie, as some servers read it; nor does a quote after a backslash
            // end the quotes. By RFC 2965 a comma ends a cookie. A cookie may have no name, and some servers then take the
            // value for one.
            let is_ambiguous = quotes % 2 == 1
                || (quotes > 0 && cookie.contains(&b'\\'))
                || cookie.split(|byte| *byte == b',').skip(1).any(is_named)
                || cookie.starts_with(b"=");
            if is_ambiguous {
                // No field has a NUL, so that the whole never equals a part.
                return raw_value(request, &header::COOKIE).map(|whole| [b"\0", &*whole].concat());
            }
            if !cookie.is_empty() && is_named(cookie) {
                let found = found.get_or_insert_default();
                if !found.is_empty() {
                    found.extend_from_slice(b"; ");
                }
                found.extend_from_slice(cookie);
            }
        }
    }
    found
}

/// Returns all fields of a request that may select a response, sorted by name (RFC 9111 §4.1).
///
/// Each name and value follows its length, so that no two sets of fields give the same bytes.
fn all_fields(request: &HeaderMap, options: &Options) -> Vec<u8> {
    let selects = |name: &&HeaderName| {
        // Host is a part of the effective URI, which selects the entry.
        !options.ignored_fields.contains(name)
            && !is_connection_field(name)
            && !HeaderHints::is_control(name)
            && *name != header::HOST
    };
    let mut names: Vec<_> = request.keys().filter(selects).collect();
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    let mut all = Vec::new();
    for name in names {
        // Cookie has no value if none of its cookies counts, and is then as good as absent.
        let Some(value) = selecting_value(name, request, options) else { continue };
        for piece in [name.as_str().as_bytes(), &value] {
            all.extend_from_slice(&(piece.len() as u64).to_be_bytes());
            all.extend_from_slice(piece);
        }
    }
    all
}

/// Returns whether a response says `public` (RFC 9111 §5.2.2.9).
#[cfg(feature = "reqwest")]
pub(crate) fn is_public(response: &HeaderMap) -> bool {
    ResponseDirectives::of(response, &Options::default()).public
}

/// Returns whether the request's credentials are among the values that select its response (RFC 9111 §4.1).
pub(crate) fn is_personal(names: &[HeaderName], request: &HeaderMap, options: &Options) -> bool {
    [header::AUTHORIZATION, header::COOKIE].iter().any(|name| {
        (names.contains(name) || names.contains(&ALL_FIELDS))
            && request.contains_key(name)
            && selecting_value(name, request, options).is_some()
    })
}

/// Returns whether a request accepts a content coding, where the response varies on Accept-Encoding (RFC 9110 §12.5.3).
///
/// A 304 alone does not prove it: origins are known to confirm a response that the caller cannot decode, or that they
/// would not have sent to it.
pub(crate) fn accepts_coding(names: &[HeaderName], coding: &[u8], request: &HeaderMap) -> bool {
    if !names.contains(&header::ACCEPT_ENCODING) {
        return true;
    }
    let lines = request.get_all(header::ACCEPT_ENCODING).iter();
    let mut wanted = lines.flat_map(|line| split_list(line.as_bytes())).map(normalized_preference);
    let coding = coding.trim_ascii();
    if coding.is_empty() {
        return wanted.all(|wanted| wanted == b"identity");
    }
    wanted.any(|wanted| {
        let weight = wanted.strip_prefix(&*coding.to_ascii_lowercase());
        weight.is_some_and(|weight| weight.is_empty() || (weight.starts_with(b";q=") && weight != b";q=0"))
    })
}

/// Normalizes a preference with its weight (RFC 9110 §12.4.2).
///
/// `DE ; q=0.50` becomes `de;q=0.5`. A weight of 1 is the default and is left out.
fn normalized_preference(member: &[u8]) -> Vec<u8> {
    let mut plain = member.to_ascii_lowercase();
    plain.retain(|byte| !matches!(byte, b' ' | b'\t'));
    let weight = plain.windows(3).position(|bytes| bytes == b";q=");
    let Some((name, weight)) = weight.and_then(|at| plain.split_at_checked(at)) else { return plain };
    let number = weight.get(3..).unwrap_or_default();
    if !number.contains(&b'.') || !number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        return if number == b"1" { name.to_vec() } else { plain };
    }
    let zeros = number.iter().rev().take_while(|byte| **byte == b'0').count();
    let number = number.get(..number.len() - zeros).unwrap_or_default();
    let number = number.strip_suffix(b".").unwrap_or(number);
    match number {
        b"1" => name.to_vec(),
        _ => [name, b";q=", number].concat(),
    }
}
