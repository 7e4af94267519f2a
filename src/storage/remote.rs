//! The settings and the first connection of the storages on servers.

use std::time::Duration;

use super::address::Options;
use crate::error::{ErrorKind, Result};

/// The settings that a program or an address can give.
///
/// The program's value takes precedence.
#[derive(Debug, Default)]
pub(super) struct Remote {
    pub(super) cache_name: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) response_timeout: Option<Duration>,
}

impl Remote {
    /// The names of these settings in an address.
    #[cfg(feature = "mongodb")]
    pub(super) const NAMES: [&str; 3] = ["cache_name", "connect_timeout", "response_timeout"];

    /// Takes the settings that the program did not give from an address.
    pub(super) fn read(&mut self, options: &mut Options) -> Result<()> {
        self.or_name(options.take("cache_name"));
        let (connect, response) = (options.seconds("connect_timeout")?, options.seconds("response_timeout")?);
        self.connect_timeout = self.connect_timeout.or(connect);
        self.response_timeout = self.response_timeout.or(response);
        Ok(())
    }

    /// Sets the name of the cache, if it has none yet.
    pub(super) fn or_name(&mut self, name: Option<String>) {
        self.cache_name = self.cache_name.take().or(name);
    }

    pub(super) fn cache_name(&self) -> &str {
        self.cache_name.as_deref().unwrap_or("http-cache")
    }

    #[cfg(any(feature = "redis", feature = "mongodb"))]
    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT)
    }

    #[cfg(any(feature = "redis", feature = "mongodb"))]
    pub(super) fn response_timeout(&self) -> Duration {
        self.response_timeout.unwrap_or(DEFAULT_RESPONSE_TIMEOUT)
    }
}

/// How long connecting to the server may take, by default.
///
/// Short, because requests wait for it and can be served without the storage.
pub(super) const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the server may take to answer, by default.
///
/// The chunk of a body that is being served has this long: the response cannot be taken back any more.
pub(super) const DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns whether the server of a new storage answered its first call.
///
/// A server that cannot be reached is not an error, since requests are served without it. It is logged.
///
/// # Errors
/// Returns the server's error if trying again does not help: a wrong setting, or missing rights.
pub(super) fn answers(storage: &'static str, answer: Result<()>) -> Result<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::Denied) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "{storage} cannot be reached yet: requests are served without it");
            Ok(false)
        }
    }
}
