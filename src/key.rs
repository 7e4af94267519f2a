//! Which stored entry a request refers to.
//!
//! An entry is found by the effective URI of a request, and stored at a key that is a hash of this URI.
//!
//! # Invariants
//! - Equivalent URIs have equal keys. They may differ in the letter case of scheme and host, a default port,
//!   an empty path or a fragment (RFC 9110 §4.2.3).
//! - Whatever else a request says of its target, and sends on, is among the values that select a response.
//! - Parts are hashed with their lengths, so no two lists of parts collide by concatenation.
//! - Keys are the same in every process with the same secret and partition.
//! - A URI that is already in normal form allocates nothing.

#[cfg(feature = "content-keys")]
mod content;
mod identity;
mod memo;
mod query;
mod search;
mod target;

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderName, Uri, request, uri::Scheme};
use sha2::{Digest, Sha256};

#[cfg(feature = "content-keys")]
pub(crate) use self::content::{ContentFields, IgnoredFields, digest};
pub(crate) use self::identity::Identity;
use self::identity::NAMED_SCHEME;
pub(crate) use self::query::{Named, number_of};
pub(crate) use self::search::split_id;
pub(crate) use self::target::{
    HOST_BESIDE, NoUriReason, REWRITTEN, has_other_query, has_scheme, no_uri_reason, rewritten,
};
use self::target::{HostField, asked_uri, host_field, split_authority};
use crate::storage::{Key, Kind};

/// The parts of an effective URI that a request may leave out (RFC 9110 §7.1).
#[derive(Clone, Debug)]
pub(crate) struct Defaults {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Option<String>,
}

impl Defaults {
    /// Returns whether the authority, if any, is a host with or without a port.
    pub(crate) fn is_valid(&self) -> bool {
        self.authority.as_ref().is_none_or(|authority| {
            let is_host = split_authority(authority).is_some_and(|(host, _)| !host.is_empty());
            is_host && !authority.contains('@') && authority.parse::<http::uri::Authority>().is_ok()
        })
    }
}

/// The effective request URI (RFC 9110 §7.1), in parts and normalized (RFC 9110 §4.2.3).
///
/// It can also hold a name that the user gives to requests in place of their URI (see [`identity`]).
#[derive(Clone, Debug)]
pub(crate) struct EffectiveUri<'a> {
    scheme: &'a str,
    host: Cow<'a, str>,
    port: Option<u16>,
    path_and_query: Cow<'a, str>,
    /// Whether the request has this host and port in its Host field.
    ///
    /// Letter case does not count.
    ///
    /// Computed once, since the hit path asks for it with each request.
    is_host_field: bool,
}

impl<'a> EffectiveUri<'a> {
    /// Returns the effective URI of a request.
    ///
    /// Its authority is that of the URI, else the Host field, else the default. Returns `None` if there is
    /// none, or a malformed one.
    pub(crate) fn of(parts: &'a request::Parts, defaults: &'a Defaults) -> Option<Self> {
        let uri = asked_uri(parts);
        let with_authority = |uri: &'a Uri| Some((uri.scheme(), uri.authority()?.as_str()));
        if let Some((scheme, authority)) = with_authority(uri).or_else(|| with_authority(&parts.uri)) {
            let scheme = scheme.unwrap_or(&defaults.scheme);
            return Self::new(scheme, split_authority(without_user(authority))?, uri);
        }
        let scheme = uri.scheme().unwrap_or(&defaults.scheme);
        match host_field(parts) {
            HostField::Absent => Self::new(scheme, split_authority(defaults.authority.as_deref()?)?, uri),
            HostField::Malformed => None,
            HostField::Valid(text, split) => {
                let effective = Self::new(scheme, split, uri)?;
                // Both have the same host, and the same port unless that is left out or has zeros before it.
                let is_host_field =
                    text.len() == effective.host.len() + effective.port_text(&mut [0; 6]).len();
                Some(Self { is_host_field, ..effective })
            }
        }
    }

    /// Returns the effective URI of an absolute URI, or `None` for any other URI.
    pub(crate) fn of_uri(uri: &'a Uri) -> Option<Self> {
        Self::new(uri.scheme()?, split_authority(without_user(uri.authority()?.as_str()))?, uri)
    }

    /// Reads the [text](EffectiveUri::to_text) of an effective URI, or returns `None` for any other text.
    ///
    /// Also reads names that the user gives to requests.
    pub(crate) fn of_text(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (authority, path_and_query) = rest.split_at(rest.find('/')?);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
            _ => (authority, None),
        };
        let (host_text, path_and_query) = (Cow::Borrowed(host), Cow::Borrowed(path_and_query));
        let of = Self { scheme, host: host_text, port, path_and_query, is_host_field: false };
        // `is_text` refuses other spellings, such as a port with leading zeros. Only a user's name has an
        // empty host.
        (of.is_text(text) && host.is_empty() == (scheme == NAMED_SCHEME)).then_some(of)
    }

    /// Normalizes a URI whose authority is this host with or without a port.
    fn new(scheme: &'a Scheme, (host, port): (&'a str, Option<u16>), uri: &'a Uri) -> Option<Self> {
        let path_and_query = Cow::Borrowed(uri.path_and_query().map_or("/", |path| path.as_str()));
        // The key holds the length of the host in 16 bits. `*` and other forms of a target name no resource.
        if host.is_empty()
            || host.len() > usize::from(u16::MAX)
            || !(path_and_query.starts_with('/') || path_and_query.starts_with('?'))
        {
            return None;
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
        Some(Self { scheme: scheme.as_str(), host, port, path_and_query, is_host_field: false })
    }

    /// Returns the path and query in two pieces.
    ///
    /// The first piece is the slash that an empty path stands for, or empty.
    fn path_pieces(&self) -> [&str; 2] {
        [if self.path_and_query.starts_with('/') { "" } else { "/" }, &self.path_and_query]
    }

    /// Returns the host, without user information and port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the path without the query.
    pub(crate) fn path_alone(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }

    /// Returns the URI as text.
    pub(crate) fn to_text(&self) -> String {
        let [slash, path] = self.path_pieces();
        let port_len = if self.port.is_some() { ":65535".len() } else { 0 };
        let len = self.scheme.len() + "://".len() + self.host.len() + port_len + slash.len() + path.len();
        let mut text = String::with_capacity(len);
        text.extend([self.scheme, "://", &self.host]);
        if let Some(port) = self.port {
            let _ = write!(text, ":{port}");
        }
        text.extend([slash, path]);
        text
    }

    /// Returns whether `text` is the [text](EffectiveUri::to_text) of this URI, without building it.
    pub(crate) fn is_text(&self, text: &str) -> bool {
        let rest = strip(text.as_bytes(), self.scheme).and_then(|rest| strip(rest, "://"));
        let Some(mut rest) = rest.and_then(|rest| strip(rest, &self.host)) else { return false };
        match rest.strip_prefix(self.port_text(&mut [0; 6])) {
            Some(path) => rest = path,
            None => return false,
        }
        let [slash, path] = self.path_pieces();
        strip(rest, slash).and_then(|rest| strip(rest, path)).is_some_and(<[u8]>::is_empty)
    }

    /// Writes the port with its colon into a buffer.
    ///
    /// Returns the text, which is empty if there is no port.
    ///
    /// The buffer has room for five digits and the colon. Nothing is allocated, because every hit compares the text.
    fn port_text<'t>(&self, text: &'t mut [u8; 6]) -> &'t [u8] {
        let Some(mut left) = self.port else { return &[] };
        let mut start = text.len();
        // Port 0 has a digit, too.
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

/// Returns what follows the prefix, or `None` if the text does not begin with it.
///
/// Compares word by word: for texts as short as these, calling `memcmp` costs several times as much as comparing.
fn strip<'a>(text: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    let (words, bytes) = start.as_chunks::<8>();
    let (other_words, other_bytes) = prefix.as_bytes().as_chunks::<8>();
    let same = words.iter().zip(other_words).all(|(one, other)| one == other)
        && bytes.iter().zip(other_bytes).all(|(one, other)| one == other);
    same.then_some(rest)
}

/// Returns an authority without its user information, which does not identify a resource.
fn without_user(authority: &str) -> &str {
    match authority.bytes().rposition(|byte| byte == b'@') {
        Some(at) => &authority[at + 1..],
        None => authority,
    }
}

/// Computes the keys of a cache.
///
/// A key is the first 128 bits of SHA-256 over a secret, the partition of the cache and the parts of what the
/// key is for.
#[derive(Clone)]
pub(crate) struct Keyer {
    /// The hash of the secret, the partition and the mode, from which every key continues.
    seeded: Sha256,
    /// A number that no other keyer of this process has. It tells apart the keys that a thread has memoized.
    number: u64,
}

impl Keyer {
    /// Makes the keyer of a cache.
    ///
    /// `shared` is part of every key, because a cache for many users must not find what a cache for one user
    /// has stored.
    pub(crate) fn new(secret: &[u8], partition: &str, shared: bool) -> Self {
        let mut seeded = Sha256::new();
        update_with_length(&mut seeded, secret);
        update_with_length(&mut seeded, partition.as_bytes());
        seeded.update([u8::from(shared)]);
        // Padded to whole blocks of SHA-256 (64 bytes), which are then hashed once and not for every key.
        let len = 17 + secret.len() + partition.len();
        seeded.update(&[0; 64][..(64 - len % 64) % 64]);
        static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);
        // Relaxed, because only the uniqueness of the numbers matters.
        Self { seeded, number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed) }
    }

    /// Guesses the key of the head of an entry.
    ///
    /// A URI that this thread has used recently is not hashed again.
    ///
    /// The guess is right except when two cheap hashes collide. Use it only to read a record: the URI in the
    /// record is compared with that of the request, as after every lookup.
    ///
    /// Returns also whether the key was computed, so that it is certainly right.
    pub(crate) fn guess(&self, uri: &EffectiveUri<'_>) -> (Key, bool) {
        memo::guess(self.number, uri, || self.head(uri))
    }

    /// Computes the key of the head of an entry.
    pub(crate) fn head(&self, uri: &EffectiveUri<'_>) -> Key {
        let mut hash = self.seeded.clone();
        let [slash, path] = uri.path_pieces();
        // The path comes last and needs no length: it is whatever follows the other parts. Short lengths keep
        // a typical URI within one or two blocks of SHA-256.
        let mut prefix = [0; 6];
        let numbers = [uri.scheme.len() as u16, uri.host.len() as u16, uri.port.unwrap_or(0)];
        for (bytes, number) in prefix.chunks_exact_mut(2).zip(numbers) {
            bytes.copy_from_slice(&number.to_be_bytes());
        }
        hash.update(prefix);
        for piece in [uri.scheme, &uri.host, slash, path] {
            hash.update(piece.as_bytes());
        }
        Key::head(truncate(hash))
    }

    /// Computes the hash of the values that a request has for the selecting fields.
    ///
    /// The hash is zero, and nothing is hashed, if the request has none of these fields.
    pub(crate) fn selection<'n>(
        &self,
        names: impl IntoIterator<Item = &'n HeaderName>,
        value: impl Fn(&HeaderName) -> Option<Vec<u8>>,
    ) -> [u8; 16] {
        let mut hash: Option<Sha256> = None;
        for name in names {
            if let Some(value) = value(name) {
                let hash = hash.get_or_insert_with(|| self.seeded.clone());
                update_with_length(hash, name.as_str().as_bytes());
                update_with_length(hash, &value);
            }
        }
        hash.map_or([0; 16], truncate)
    }

    /// Computes the key of the value of a group or a tag.
    ///
    /// A tag has an empty `origin`.
    pub(crate) fn group(&self, origin: &str, name: &str) -> Key {
        let mut hash = self.seeded.clone();
        update_with_length(&mut hash, origin.as_bytes());
        update_with_length(&mut hash, name.as_bytes());
        Key::group(truncate(hash))
    }

    /// Computes the key of a variant other than the first one.
    pub(crate) fn variant(&self, head: Key, generation: [u8; 16], selection: [u8; 16]) -> Key {
        let mut hash = self.seeded.clone();
        update_with_length(&mut hash, &generation);
        update_with_length(&mut hash, &selection);
        head.sibling(Kind::Variant, truncate(hash), 0)
    }
}

impl std::fmt::Debug for Keyer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyer")
    }
}

/// Hashes bytes after their length.
///
/// Without the length, different lists of parts could hash the same bytes.
fn update_with_length(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn truncate(hash: Sha256) -> [u8; 16] {
    let digest = hash.finalize();
    std::array::from_fn(|i| digest[i])
}

#[cfg(test)]
mod tests;
