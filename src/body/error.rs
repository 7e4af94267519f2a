//! Why a body ended before its end.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The error of a [`CacheBody`](super::CacheBody). Cheap to clone; the inner body's error is its source.
#[derive(Clone, Debug)]
pub struct BodyError {
    kind: BodyErrorKind,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// Where the error of a body comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyErrorKind {
    /// The inner service's body failed.
    Inner,
    /// The storage could not give the rest of a stored body that had begun.
    Storage,
    /// The body was not as long as was announced.
    Length,
    /// The response could not be stored while several callers read it, and this one was too slow for the others.
    TooSlow,
}

impl BodyError {
    pub(crate) fn new(
        kind: BodyErrorKind,
        source: Option<impl Into<Box<dyn StdError + Send + Sync>>>,
    ) -> Self {
        Self { kind, source: source.map(|source| Arc::from(source.into())) }
    }

    /// Where the error comes from.
    pub fn kind(&self) -> BodyErrorKind {
        self.kind
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            BodyErrorKind::Inner => "the response's body failed",
            BodyErrorKind::Storage => "the rest of the stored body could not be read",
            BodyErrorKind::Length => "the body is not as long as was announced",
            BodyErrorKind::TooSlow => "this reader was too slow for the others that share its download",
        })
    }
}

impl StdError for BodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
