//! Which request fields select a stored response, and their values (RFC 9111 §4.1).

use http::{HeaderMap, HeaderName, header};

use super::directives::{ResponseDirectives, split_list};
use super::options::Options;
use super::store::NotStored;

/// The fields that a response was selected by, sorted: those that Vary names, and in a private cache the credentials
/// (one process often speaks for many users), Cookie only where the response is not public.
pub(crate) fn selecting_names(response: &HeaderMap, options: &Options) -> Result<Vec<HeaderName>, NotStored> {
    let mut names = Vec::new();
    for member in response.get_all(header::VARY).iter().flat_map(|line| split_list(line.as_bytes())) {
        // `*` is a token as well, so that it would make a field name.
        match HeaderName::from_bytes(member) {
            Ok(name) if member != b"*" => names.push(name),
            _ => return Err(NotStored::VaryAny),
        }
    }
    if !options.shared && options.vary_on_credentials {
        names.push(header::AUTHORIZATION);
        if !options.ignore_cookie && !ResponseDirectives::of(response).public {
            names.push(header::COOKIE);
        }
    }
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    Ok(names)
}

/// The request's value of a selecting field, in a form that requests of the same meaning share; `None`: it has none.
pub(crate) fn selecting_value(name: &HeaderName, request: &HeaderMap) -> Option<Vec<u8>> {
    let mut lines = request.get_all(name).iter();
    let first = lines.next()?;
    // Credentials are no lists: their lines are told from one line with a comma.
    if *name == header::AUTHORIZATION || *name == header::COOKIE {
        return Some(lines.fold(first.as_bytes().to_vec(), |mut joined, line| {
            joined.push(0);
            joined.extend_from_slice(line.as_bytes());
            joined
        }));
    }
    let any_case = [header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE, header::ACCEPT_CHARSET].contains(name);
    let mut joined = Vec::new();
    for member in std::iter::once(first).chain(lines).flat_map(|line| split_list(line.as_bytes())) {
        if !joined.is_empty() {
            joined.push(b',');
        }
        let start = joined.len();
        joined.extend_from_slice(member);
        if any_case {
            joined.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
        }
    }
    Some(joined)
}
