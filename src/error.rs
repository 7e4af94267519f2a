//! Why an operation of a storage, or the building of a cache, failed.
//!
//! One opaque struct with a [kind](ErrorKind), a message and a source. Messages say what happened and what to do, and
//! never hold a URL, a header value or a key.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of an operation of a storage.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a storage, or of building a cache. Cheap to clone.
///
/// ```
/// use tower_response_cache::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Unavailable, "the disk is gone");
/// assert_eq!(error.kind(), ErrorKind::Unavailable);
/// assert_eq!(error.to_string(), "the disk is gone");
/// ```
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What kind of failure an [`Error`] is: what a program can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store cannot be reached, or failed in a way that may pass.
    Unavailable,
    /// The store refuses our credentials, or they give no right to what was asked.
    Denied,
    /// The store did not answer within the deadline.
    Timeout,
    /// A record is longer than the store takes ([`Storage::max_record_len`](crate::storage::Storage::max_record_len)).
    TooLarge,
    /// More is asked of the store at once than it does, and this was not done.
    Busy,
    /// The store takes no writes (a read-only file, a replica, a user without the right to write). It may still be read.
    ReadOnly,
    /// The store has no room for more (a full disk, a server out of memory). It may still be read.
    Full,
    /// The store holds something that is not this crate's, or is damaged.
    Corrupt,
    /// A setting is wrong: nothing was opened.
    Config,
    /// Anything else.
    Other,
}

impl Error {
    /// An error of this kind. The message is lower case and names no URL, header value or key.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error with what caused it, for [`source`](StdError::source).
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
