//! What the storages on servers have in common: some settings, and how they begin.

use std::time::Duration;

use super::address::Options;
use crate::error::{ErrorKind, Result};

/// What an address may say too; what the program says comes first.
#[derive(Debug, Default)]
pub(super) struct Remote {
    pub(super) cache_name: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) response_timeout: Option<Duration>,
}

impl Remote {
    /// What these settings are called in an address.
    #[cfg(feature = "mongodb")]
    pub(super) const NAMES: [&str; 3] = ["cache_name", "connect_timeout", "response_timeout"];

    /// Takes from an address what the program did not say.
    pub(super) fn read(&mut self, options: &mut Options) -> Result<()> {
        self.or_name(options.take("cache_name"));
        let (connect, response) = (options.seconds("connect_timeout")?, options.seconds("response_timeout")?);
        self.connect_timeout = self.connect_timeout.or(connect);
        self.response_timeout = self.response_timeout.or(response);
        Ok(())
    }

    /// Sets the name of a cache that has none yet.
    pub(super) fn or_name(&mut self, name: Option<String>) {
        self.cache_name = self.cache_name.take().or(name);
    }

    pub(super) fn cache_name(&self) -> &str {
        self.cache_name.as_deref().unwrap_or("http-cache")
    }

    #[cfg(any(feature = "redis", feature = "mongodb"))]
    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(CONNECT)
    }

    #[cfg(any(feature = "redis", feature = "mongodb"))]
    pub(super) fn response_timeout(&self) -> Duration {
        self.response_timeout.unwrap_or(RESPONSE)
    }
}

/// How long a connection may take to be made, unless something else is said.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// How long an answer may take, unless something else is said: a body's chunk has as long, which has no way back.
pub(super) const RESPONSE: Duration = Duration::from_secs(10);

/// Up to this length the round trip of a second read takes longer than the bytes.
#[cfg(any(feature = "redis", feature = "mongodb"))]
pub(super) const INLINE: usize = 32 << 10;

/// Returns whether a server that was asked is there. One that cannot be reached is no error, since requests go on
/// without it: an event tells of it.
///
/// # Errors
/// Returns what the server answered if trying again does not help: a wrong setting, or no rights.
pub(super) fn is_there(storage: &'static str, answer: Result<()>) -> Result<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::Denied) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "{storage} is not there yet: requests go on without it");
            Ok(false)
        }
    }
}
