//! Which request fields select a stored response, and their values (RFC 9111 §4.1).

use http::{HeaderMap, HeaderName, header};

use super::directives::ResponseDirectives;
use super::interest::Interest;
use super::list::split_list;
use super::not_stored::NotStored;
use super::options::Options;
use super::store::{allows_authorization, is_of_connection};
use super::terms::Despite;

/// Stands among the names for all fields of a request that are not about the connection or the cache.
pub(crate) const ALL_FIELDS: HeaderName = HeaderName::from_static("*");
/// Stands among the names for the method and content of a request that is not a GET.
pub(crate) const CONTENT: HeaderName = HeaderName::from_static("*content");

/// The fields that select a stored response, and those that the settings keep from doing so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selecting {
    pub(crate) names: Vec<HeaderName>,
    pub(crate) left_out: Option<Box<LeftOut>>,
}

/// The fields that would select a response if it were not for the settings of the cache that stores it. A cache that does not
/// leave them all out cannot know which request the response answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Those that Vary names, sorted.
    pub(crate) named: Vec<HeaderName>,
    /// The credentials, in a private cache.
    pub(crate) credentials: Vec<HeaderName>,
}

impl LeftOut {
    /// Returns the fields that these settings leave out of a response's selecting fields, which are `names`.
    ///
    /// `None` if they leave out none, which is usual.
    pub(crate) fn by(
        options: &Options,
        response: &HeaderMap,
        despite: Despite,
        names: &[HeaderName],
    ) -> Option<Box<Self>> {
        let Options { ignored_fields, vary_on_credentials, ignore_cookie, ignore_vary, .. } = options;
        if ignored_fields.is_empty() && *vary_on_credentials && !ignore_cookie && !ignore_vary {
            return None;
        }
        let plain = Options {
            vary_on_credentials: true,
            ignore_cookie: false,
            ignore_vary: true,
            ignored_fields: Vec::new(),
            key_fields: Vec::new(),
            ..*options
        };
        let mut credentials = selecting_names(response, &plain, despite).unwrap_or_default();
        let members = response.get_all(header::VARY).iter().flat_map(|line| split_list(line.as_bytes()));
        let mut named: Vec<_> = members.filter_map(|member| HeaderName::from_bytes(member).ok()).collect();
        // A star is left out by `ignore_vary`, and else by a rule, which is no matter of these.
        named.retain(|name| *ignore_vary || *name != ALL_FIELDS);
        let counts = |name: &HeaderName| {
            names.contains(name) || (names.contains(&ALL_FIELDS) && !ignored_fields.contains(name))
        };
        named.retain(|name| !counts(name));
        credentials.retain(|name| !counts(name));
        // Where all fields count, and of the target, Vary need not name what is ignored.
        let beside = |name: &&HeaderName| names.contains(&ALL_FIELDS) || **name == header::HOST;
        named.extend(ignored_fields.iter().filter(beside).cloned());
        named.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        named.dedup();
        let left_out = Self { named, credentials };
        (left_out != Self::default()).then(|| Box::new(left_out))
    }

    /// Whether these settings leave all of them out as well.
    pub(crate) fn is_within(&self, options: &Options) -> bool {
        let ignores = |name: &HeaderName| options.ignored_fields.contains(name);
        let no_cookie = |name: &HeaderName| options.ignore_cookie && *name == header::COOKIE;
        self.named.iter().all(|name| options.ignore_vary || ignores(name))
            && self
                .credentials
                .iter()
                .all(|name| !options.vary_on_credentials || no_cookie(name) || ignores(name))
    }
}

/// The fields that a response was selected by, sorted: those that Vary names, and in a private cache the credentials
/// (one process often speaks for many users), Cookie only where the response is not public, or sets one.
pub(crate) fn selecting_names(
    response: &HeaderMap,
    options: &Options,
    despite: Despite,
) -> Result<Vec<HeaderName>, NotStored> {
    let mut names = Vec::new();
    for member in response.get_all(header::VARY).iter().flat_map(|line| split_list(line.as_bytes())) {
        // `*` is a token as well, so that it would make a field name.
        match HeaderName::from_bytes(member) {
            _ if options.ignore_vary => {}
            Ok(name) if member != b"*" => names.push(name),
            _ if despite.vary_any => {}
            _ => return Err(NotStored::VaryAny),
        }
    }
    if !options.shared && options.vary_on_credentials {
        names.push(header::AUTHORIZATION);
        // A response that sets a cookie is one user's, even if it says that it is for all.
        let for_all =
            || ResponseDirectives::of(response, options).public && !response.contains_key(header::SET_COOKIE);
        if !options.ignore_cookie && !for_all() {
            names.push(header::COOKIE);
        }
    }
    // What is stored though it was for one user's credentials is still for that user alone.
    if options.shared
        && despite.authorization
        && !allows_authorization(&ResponseDirectives::of(response, options))
    {
        names.push(header::AUTHORIZATION);
    }
    names.retain(|name| !options.ignored_fields.contains(name));
    names.extend(options.key_fields.iter().cloned());
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    Ok(names)
}

/// The request's value of a selecting field; `None`: it has none. Requests of the same meaning share it where the field's
/// own syntax says what means the same (RFC 9111 §4.1); any other is compared as it came.
pub(crate) fn selecting_value(
    name: &HeaderName,
    request: &HeaderMap,
    ignored: &[HeaderName],
) -> Option<Vec<u8>> {
    if *name == ALL_FIELDS {
        return Some(all_fields(request, ignored));
    }
    let ordered = [header::ACCEPT, header::ACCEPT_LANGUAGE];
    let unordered = [header::ACCEPT_ENCODING, header::ACCEPT_CHARSET];
    if !ordered.contains(name) && !unordered.contains(name) {
        return lines(request, name);
    }
    if !request.contains_key(name) {
        return None;
    }
    let members = request.get_all(name).iter().flat_map(|line| split_list(line.as_bytes()));
    if *name == header::ACCEPT {
        return Some(members.collect::<Vec<_>>().join(&b','));
    }
    // Letter case says nothing (RFC 9110 §12.4.2, §12.5), and neither does the order, but for languages: servers take
    // it for their priority (§12.5.4).
    let mut preferences: Vec<_> = members.map(preference).collect();
    if unordered.contains(name) {
        preferences.sort_unstable();
    }
    Some(preferences.join(&b','))
}

/// The lines of a field as they came, told from one line with a comma.
pub(crate) fn lines(request: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = request.get_all(name).iter();
    let first = lines.next()?.as_bytes().to_vec();
    Some(lines.fold(first, |mut joined, line| {
        joined.push(0); // no field value has one
        joined.extend_from_slice(line.as_bytes());
        joined
    }))
}

/// All fields of a request, in an order of their own, each with its length.
fn all_fields(request: &HeaderMap, ignored: &[HeaderName]) -> Vec<u8> {
    let counts = |name: &&HeaderName| {
        !ignored.contains(name)
            && !is_of_connection(name)
            && !Interest::is_control(name)
            && *name != header::HOST
    };
    let mut names: Vec<_> = request.keys().filter(counts).collect();
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    let mut all = Vec::new();
    for name in names {
        let value = selecting_value(name, request, ignored).unwrap_or_default();
        for piece in [name.as_str().as_bytes(), &value] {
            all.extend_from_slice(&(piece.len() as u64).to_be_bytes());
            all.extend_from_slice(piece);
        }
    }
    all
}

/// Whether a response says that it is for all users.
#[cfg(feature = "reqwest")]
pub(crate) fn is_public(response: &HeaderMap) -> bool {
    ResponseDirectives::of(response, &Options::default()).public
}

/// Whether credentials are among the values that select a response to this request.
pub(crate) fn is_personal(names: &[HeaderName], request: &HeaderMap) -> bool {
    let credentials = [header::AUTHORIZATION, header::COOKIE];
    credentials
        .iter()
        .any(|name| (names.contains(name) || names.contains(&ALL_FIELDS)) && request.contains_key(name))
}

/// Whether a response in this coding may be what the origin would choose for a request, where it chooses by
/// Accept-Encoding. Origins are known to confirm by a 304 what the caller could not read, or would not have been sent.
pub(crate) fn suits_coding(names: &[HeaderName], coding: &[u8], request: &HeaderMap) -> bool {
    if !names.contains(&header::ACCEPT_ENCODING) {
        return true;
    }
    let lines = request.get_all(header::ACCEPT_ENCODING).iter();
    let mut wanted = lines.flat_map(|line| split_list(line.as_bytes())).map(preference);
    let coding = coding.trim_ascii();
    if coding.is_empty() {
        return wanted.all(|wanted| wanted == b"identity");
    }
    wanted.any(|wanted| {
        let weight = wanted.strip_prefix(&*coding.to_ascii_lowercase());
        weight.is_some_and(|weight| weight.is_empty() || (weight.starts_with(b";q=") && weight != b";q=0"))
    })
}

/// One preference in the form that all its spellings share: `DE ; q=0.50` is `de;q=0.5`, and `q=1` says nothing.
fn preference(member: &[u8]) -> Vec<u8> {
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
