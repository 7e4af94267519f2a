//! The error type of storages and of building a cache: [`Error`].
//!
//! # Invariants
//!
//! - A message says what happened and what to do about it.
//! - A message contains no URL, no header value and no key, so that it may be logged.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of a storage operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error type of storages and of building a cache.
///
/// It has a [kind](ErrorKind), a message, and perhaps a [source](StdError::source). It is cheap to clone.
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

/// The kind of an [`Error`], which a program can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The storage cannot be reached, or failed in a way that may be temporary.
    Unavailable,
    /// The storage refuses the credentials, or they do not permit the operation.
    Denied,
    /// The storage did not answer within the deadline.
    Timeout,
    /// A record is longer than the storage accepts.
    ///
    /// See [`Storage::max_record_len`](crate::storage::Storage::max_record_len).
    TooLarge,
    /// The storage has too many operations to do, and did not do this one.
    Busy,
    /// The storage accepts no writes, but can still be read.
    ///
    /// Examples are a read-only file, a replica, and a user without the permission to write.
    ReadOnly,
    /// The storage has no room for more, but can still be read.
    ///
    /// Examples are a full disk and a server that is out of memory.
    Full,
    /// The storage holds data that is damaged, or that another program wrote.
    Corrupt,
    /// A setting is wrong. Nothing was opened.
    Config,
    /// Any other failure.
    Other,
}

impl Error {
    /// Creates an error with a kind and a message.
    ///
    /// The message should begin in lower case, and contain no URL, header value or key.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Sets the cause of the error, which [`source`](StdError::source) returns.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Returns the kind of the error.
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
