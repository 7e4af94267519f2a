//! The error that ends a body early: [`BodyError`].

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The error type of a [`CacheBody`](super::CacheBody).
///
/// It is cheap to clone, because several readers of one body may get the same error. Its
/// [`source`](StdError::source) is the error of the inner service's body, or of the storage.
#[derive(Clone, Debug)]
pub struct BodyError {
    kind: BodyErrorKind,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kind of a [`BodyError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyErrorKind {
    /// The inner service's body failed.
    Inner,
    /// The storage could not read the rest of a stored body that had begun.
    Storage,
    /// The body does not have its announced length.
    Length,
    /// This reader was too slow for the other readers of the same download.
    ///
    /// Several requests share the download, and it could not be stored, so that they must read at the same pace.
    TooSlow,
    /// The origin has another representation now, or does not send the rest of this one.
    ///
    /// Parts of the body were stored, and only the others were asked for.
    Changed,
}

impl BodyError {
    /// Creates an error with a kind, and with what caused it.
    pub(crate) fn new(
        kind: BodyErrorKind,
        source: Option<impl Into<Box<dyn StdError + Send + Sync>>>,
    ) -> Self {
        Self { kind, source: source.map(|source| Arc::from(source.into())) }
    }

    /// Returns the kind of this error.
    pub fn kind(&self) -> BodyErrorKind {
        self.kind
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            BodyErrorKind::Inner => "the body of the response failed",
            BodyErrorKind::Storage => "the rest of the stored body could not be read",
            BodyErrorKind::Length => "the body does not have its announced length",
            BodyErrorKind::Changed => "the origin does not send the rest of a body of which parts are stored",
            BodyErrorKind::TooSlow => "this reader was too slow for the others that share its download",
        })
    }
}

impl StdError for BodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
