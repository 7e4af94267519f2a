//! Decides which requests are permitted.
//!
//! # Invariants
//! - A secret is compared in a time that does not depend on how much of it is right.
//! - A refusal says nothing but that it is one.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use sha2::{Digest, Sha256};

use super::problem::Problem;

/// The field that a request to the API needs if it changes something.
const FIELD: HeaderName = HeaderName::from_static("x-cache-admin");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns a function that permits requests with a secret.
///
/// A request has it as `Authorization: Bearer secret`, or as the password of any user (`Basic`), as browsers send it. It has
/// to be long and random, since nothing limits how often it may be guessed. An empty secret permits nothing.
///
/// ```
/// use tower_response_cache::admin;
///
/// let permits = admin::token("correct horse battery staple");
/// let request = http::Request::get("/").header("authorization", "Bearer correct horse battery staple");
/// let (parts, ()) = request.body(()).unwrap().into_parts();
/// assert!(permits(&parts));
/// ```
pub fn token(secret: impl AsRef<str>) -> impl Fn(&Parts) -> bool + Clone + Send + Sync + 'static {
    let secret = secret.as_ref();
    // Without the secret itself, which could show in a dump of the memory.
    let expected = (!secret.is_empty()).then(|| digest(secret.as_bytes()));
    move |parts| {
        let mut lines = parts.headers.get_all(header::AUTHORIZATION).iter();
        let (Some(line), None, Some(expected)) = (lines.next(), lines.next(), &expected) else {
            return false;
        };
        presented(line.as_bytes()).is_some_and(|presented| equals(expected, &digest(&presented)))
    }
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Compares digests. Those of two secrets have nothing in common, so that even their first difference tells nothing.
fn equals(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
}

/// Returns the secret in a field Authorization.
fn presented(field: &[u8]) -> Option<Vec<u8>> {
    let space = field.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&field[..space], field[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = decode_base64(rest)?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Decodes base64 with padding (RFC 4648 §4).
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let unpadded = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in unpadded.chunks(4) {
        let mut bits = 0_u32;
        for letter in group {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        let [_, all @ ..] = bits.to_be_bytes();
        bytes.extend_from_slice(all.get(..group.len().checked_sub(1)?)?);
    }
    Some(bytes)
}

/// Returns the refusal of a request that is not permitted.
///
/// It names Basic, for which a browser asks for a password.
pub(super) fn refusal() -> axum::response::Response {
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, "authorisation is required").into_response();
    for challenge in ["Basic realm=\"cache administration\", charset=\"UTF-8\"", "Bearer"] {
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

/// Refuses requests that a page of another site makes a browser send.
///
/// `is_api` is false for the files of the page, which may be linked to.
pub(super) fn check_site(parts: &Parts, is_api: bool) -> Result<(), Problem> {
    let is_safe = matches!(parts.method, Method::GET | Method::HEAD);
    if is_safe && !is_api {
        return Ok(());
    }
    let foreign = || Problem::new(StatusCode::FORBIDDEN, "the request comes from a page of another site");
    match parts.headers.get(&FETCH_SITE).map(HeaderValue::as_bytes) {
        Some(b"same-origin" | b"none") => {}
        Some(_) => return Err(foreign()),
        // Browsers that do not send it, and programs. A proxy in front may have changed Host, so that Origin is only the second choice.
        None if !has_own_origin(parts) => return Err(foreign()),
        None => {}
    }
    let is_standard = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    if is_standard && !parts.headers.contains_key(&FIELD) {
        let detail = "a request that changes something needs the field X-Cache-Admin, with any value";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    Ok(())
}

fn has_own_origin(parts: &Parts) -> bool {
    let Some(origin) = parts.headers.get(header::ORIGIN) else { return true };
    let host = match parts.uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => parts.headers.get(header::HOST).map(HeaderValue::as_bytes),
    };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    authority.zip(host).is_some_and(|(authority, host)| authority.as_bytes().eq_ignore_ascii_case(host))
}

/// Adds the fields that every response has.
pub(super) fn protect(headers: &mut HeaderMap) {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let fields = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fields {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(secret: &str, fields: &[&str]) -> bool {
        let mut request = http::Request::get("/");
        for field in fields {
            request = request.header(header::AUTHORIZATION, *field);
        }
        token(secret)(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn only_the_secret_is_permitted() {
        // "a:secret", "a:b:secret", ":secret", "secret"
        let basic = ["Basic YTpzZWNyZXQ=", "basic OnNlY3JldA==", "Bearer secret", "BEARER  secret"];
        for field in basic {
            assert!(permits("secret", &[field]), "{field}");
        }
        let others = [
            "Bearer Secret",
            "Bearer secret1",
            "Bearer ",
            "Bearer",
            "",
            "secret",
            "Basic YTpiOnNlY3JldA==",
            "Basic c2VjcmV0",
            "Basic YTpzZWNyZXQ",
            "Basic YTpzZWNy*XQ=",
            "Basic =",
            "Basic ====",
            "Digest secret",
        ];
        for field in others {
            assert!(!permits("secret", &[field]), "{field}");
        }
        assert!(!permits("secret", &[]) && !permits("secret", &["Bearer secret", "Bearer secret"]));
        assert!(!permits("", &["Bearer "]) && !permits("", &["Basic Og=="]) && !permits("", &[]));
        assert!(permits("b:secret", &["Basic YTpiOnNlY3JldA=="]));
    }
}
