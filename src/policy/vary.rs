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
