//! Which stored entry a request is about: its effective URI, and the hash of it.
//!
//! Promises: equal URIs (letter case of scheme and host, default port, empty path, fragment) have equal keys; what else
//! of its target a request sends on is among the values that select a response; parts are
//! hashed with their lengths, so that no two lists of parts collide by concatenation; keys are the same in every
//! process with the same secret and partition; nothing is allocated for a URI that is in its usual form already.

#[cfg(feature = "content-keys")]
mod content;
mod identity;
mod recent;
mod target;

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderName, Uri, header, request, uri::Scheme};
use sha2::{Digest, Sha256};

#[cfg(feature = "content-keys")]
pub(crate) use self::content::{Ignored, digest};
pub(crate) use self::identity::Identity;
use self::identity::NAMED;
pub(crate) use self::target::{HOST_BESIDE, Lacks, REWRITTEN, has_scheme, lacks, rewritten};
use self::target::{asked_uri, host_field, split_authority};
use crate::storage::{Key, Kind};

/// What a request's effective URI is made of where the request does not say it (RFC 9110 §7.1).
#[derive(Clone, Debug)]
pub(crate) struct Defaults {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Option<String>,
}

impl Defaults {
    /// Whether the authority is a host, with a port or without.
    pub(crate) fn is_valid(&self) -> bool {
        self.authority.as_ref().is_none_or(|authority| {
            let is_host = split_authority(authority).is_some_and(|(host, _)| !host.is_empty());
            is_host && !authority.contains('@') && authority.parse::<http::uri::Authority>().is_ok()
        })
    }
}

/// The effective request URI (RFC 9110 §7.1) in its parts, normalised (RFC 9110 §4.2.3).
#[derive(Clone, Debug)]
pub(crate) struct EffectiveUri<'a> {
    scheme: &'a str,
    host: Cow<'a, str>,
    port: Option<u16>,
    path_and_query: Cow<'a, str>,
    /// Host and port are those of the Host field, which spells them as they are here, letter case aside.
    exact: bool,
}

impl<'a> EffectiveUri<'a> {
    /// Of a request: the URI's authority, else the Host field, else the default. `None`: there is none, or a malformed one.
    pub(crate) fn of(parts: &'a request::Parts, defaults: &'a Defaults) -> Option<Self> {
        let uri = asked_uri(parts);
        let with_authority = |uri: &'a Uri| Some((uri.scheme(), uri.authority()?.as_str()));
        if let Some((scheme, authority)) = with_authority(uri).or_else(|| with_authority(&parts.uri)) {
            let scheme = scheme.unwrap_or(&defaults.scheme);
            return Self::new(scheme, without_user(authority), uri);
        }
        let scheme = uri.scheme().unwrap_or(&defaults.scheme);
        if !parts.headers.contains_key(header::HOST) {
            return Self::new(scheme, defaults.authority.as_deref()?, uri);
        }
        let host = host_field(parts)?;
        let effective = Self::new(scheme, host, uri)?;
        let exact = effective.is_authority(host.as_bytes());
        Some(Self { exact, ..effective })
    }

    /// Of an absolute URI; `None` for any other.
    pub(crate) fn of_uri(uri: &'a Uri) -> Option<Self> {
        Self::new(uri.scheme()?, without_user(uri.authority()?.as_str()), uri)
    }

    /// Of its own [text](EffectiveUri::to_text), a name of the user's too; `None` for any other text.
    pub(crate) fn of_text(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (authority, path_and_query) = rest.split_at(rest.find('/')?);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
            _ => (authority, None),
        };
        let (host_text, path_and_query) = (Cow::Borrowed(host), Cow::Borrowed(path_and_query));
        let of = Self { scheme, host: host_text, port, path_and_query, exact: false };
        (of.is_text(text) && host.is_empty() == (scheme == NAMED)).then_some(of)
    }

    /// `authority` is a host, with a port or without.
    fn new(scheme: &'a Scheme, authority: &'a str, uri: &'a Uri) -> Option<Self> {
        let (host, port) = split_authority(authority)?;
        let path_and_query = Cow::Borrowed(uri.path_and_query().map_or("/", |path| path.as_str()));
        if host.is_empty()
            || host.len() > usize::from(u16::MAX)
            || !(path_and_query.starts_with('/') || path_and_query.starts_with('?'))
        {
            return None; // `*` and other forms that are about no resource
        }
        let default_port = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        let port = port.filter(|port| Some(*port) != default_port);
        Some(Self { scheme: scheme.as_str(), host, port, path_and_query, exact: false })
    }

    /// The path and query with the slash that an empty path stands for.
    fn path(&self) -> [&str; 2] {
        [if self.path_and_query.starts_with('/') { "" } else { "/" }, &self.path_and_query]
    }

    /// The host, without user information and port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The path without the query.
    pub(crate) fn path_alone(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }

    /// The URI as text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{}://{}", self.scheme, self.host);
        if let Some(port) = self.port {
            let _ = write!(text, ":{port}");
        }
        text.extend(self.path());
        text
    }

    /// Whether this is the URI of that [text](EffectiveUri::to_text).
    pub(crate) fn is_text(&self, text: &str) -> bool {
        let rest = after(text.as_bytes(), self.scheme).and_then(|rest| after(rest, "://"));
        let Some(mut rest) = rest.and_then(|rest| after(rest, &self.host)) else { return false };
        match rest.strip_prefix(self.port_text(&mut [0; 6])) {
            Some(path) => rest = path,
            None => return false,
        }
        let [slash, path] = self.path();
        after(rest, slash).and_then(|rest| after(rest, path)).is_some_and(<[u8]>::is_empty)
    }

    /// The port with its colon, or nothing.
    fn port_text<'t>(&self, text: &'t mut [u8; 6]) -> &'t [u8] {
        let Some(mut left) = self.port else { return &[] };
        let mut start = text.len();
        while left > 0 || start == text.len() {
            start -= 1;
            text[start] = b'0' + (left % 10) as u8;
            left /= 10;
        }
        start -= 1;
        text[start] = b':';
        &text[start..]
    }
}

/// What follows the prefix. Compared word by word: for texts as short as these, a call of memcmp costs several times
/// the comparison.
fn after<'a>(text: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    let (words, bytes) = start.as_chunks::<8>();
    let (other_words, other_bytes) = prefix.as_bytes().as_chunks::<8>();
    let same = words.iter().zip(other_words).all(|(one, other)| one == other)
        && bytes.iter().zip(other_bytes).all(|(one, other)| one == other);
    same.then_some(rest)
}

fn without_user(authority: &str) -> &str {
    match authority.bytes().rposition(|byte| byte == b'@') {
        Some(at) => &authority[at + 1..],
        None => authority,
    }
}

/// Makes keys: SHA-256 over a secret, the cache's partition and the parts of what is named, 128 bits of it.
#[derive(Clone)]
pub(crate) struct Keyer {
    seeded: Sha256,
    /// Tells its keys from another's.
    number: u64,
}

impl Keyer {
    /// `shared`: a cache for many users must not find what one for a single user keeps.
    pub(crate) fn new(secret: &[u8], partition: &str, shared: bool) -> Self {
        let mut seeded = Sha256::new();
        part(&mut seeded, secret);
        part(&mut seeded, partition.as_bytes());
        seeded.update([u8::from(shared)]);
        // Filled up to whole blocks, which are then hashed once and not for every key.
        let len = 17 + secret.len() + partition.len();
        seeded.update(&[0; 64][..(64 - len % 64) % 64]);
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Self { seeded, number: NUMBER.fetch_add(1, Ordering::Relaxed) }
    }

    /// Most likely the key of the head of an entry, without hashing for a URI that was asked for lately. To be read by,
    /// and for nothing else: what is found is compared with the URI.
    pub(crate) fn guess(&self, uri: &EffectiveUri<'_>) -> Key {
        recent::guess(self.number, uri, || self.head(uri))
    }

    /// The key of the head of an entry.
    pub(crate) fn head(&self, uri: &EffectiveUri<'_>) -> Key {
        let mut hash = self.seeded.clone();
        let [slash, path] = uri.path();
        // The path comes last, so that its length follows from the others'. A short lead keeps a usual URI within one
        // or two blocks.
        let mut lead = [0; 6];
        let numbers = [uri.scheme.len() as u16, uri.host.len() as u16, uri.port.unwrap_or(0)];
        for (place, number) in lead.chunks_exact_mut(2).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        hash.update(lead);
        for piece in [uri.scheme, &uri.host, slash, path] {
            hash.update(piece.as_bytes());
        }
        Key::head(truncate(hash))
    }

    /// The hash of the values that a request has for the selecting fields. Zero when it has none of them, which
    /// needs no hashing.
    pub(crate) fn selection<'n>(
        &self,
        names: impl IntoIterator<Item = &'n HeaderName>,
        value: impl Fn(&HeaderName) -> Option<Vec<u8>>,
    ) -> [u8; 16] {
        let mut hash: Option<Sha256> = None;
        for name in names {
            if let Some(value) = value(name) {
                let hash = hash.get_or_insert_with(|| self.seeded.clone());
                part(hash, name.as_str().as_bytes());
                part(hash, &value);
            }
        }
        hash.map_or([0; 16], truncate)
    }

    /// The key of the value of a group; a tag's has no origin.
    pub(crate) fn group(&self, origin: &str, name: &str) -> Key {
        let mut hash = self.seeded.clone();
        part(&mut hash, origin.as_bytes());
        part(&mut hash, name.as_bytes());
        Key::group(truncate(hash))
    }

    /// The key of a further variant.
    pub(crate) fn variant(&self, head: Key, generation: [u8; 16], selection: [u8; 16]) -> Key {
        let mut hash = self.seeded.clone();
        part(&mut hash, &generation);
        part(&mut hash, &selection);
        head.sibling(Kind::Variant, truncate(hash), 0)
    }
}

impl std::fmt::Debug for Keyer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyer")
    }
}

fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn truncate(hash: Sha256) -> [u8; 16] {
    let digest = hash.finalize();
    std::array::from_fn(|i| digest[i])
}

#[cfg(test)]
mod tests;
