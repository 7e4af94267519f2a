//! The builder of the MongoDB storage.
//!
//! # Invariants
//! - A setting of the builder takes precedence over the option of the same name in the address.
//! - A name that MongoDB does not accept is refused before the server is asked for anything.

use std::fmt;
use std::time::Duration;

use ::mongodb::options::{Acknowledgment, WriteConcern};

use super::connection::Connection;
use super::server::{MongoDbServer, Settings};
use super::storage::MongoDbStorage;
use crate::error::Result;
use crate::storage::address::config;
use crate::storage::remote::answers;

/// A builder of [`MongoDbStorage`].
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::storage::MongoDbStorage;
///
/// # fn build() -> tower_response_cache::Result<MongoDbStorage> {
/// MongoDbStorage::builder("mongodb://cache.internal/?replicaSet=main")
///     .cache_name("app")
///     .response_timeout(Duration::from_secs(5))
///     .build()
/// # }
/// # build().unwrap();
/// ```
#[must_use]
pub struct MongoDbStorageBuilder {
    server: MongoDbServer,
    settings: Settings,
}

impl MongoDbStorageBuilder {
    pub(super) fn new(server: MongoDbServer) -> Self {
        Self { server, settings: Settings::default() }
    }

    /// Sets the name of the cache, which is the name of its database.
    ///
    /// Caches with different names do not see each other's records. A name has at most 63 bytes, none of the
    /// characters `/\. "$*<>:|?`, and is not one of the server's own databases (`admin`, `local`, `config`).
    ///
    /// Default: the database that the address, the driver's options or the ready client names, else `http-cache`.
    pub fn cache_name(mut self, name: impl Into<String>) -> Self {
        self.settings.remote.cache_name = Some(name.into());
        self
    }

    /// Sets the name of the collection in that database.
    ///
    /// The collection must belong to this cache alone, since clearing the cache removes all of its documents.
    /// A name has at most 100 bytes, no `$`, no dot at either end, and does not begin with `system.`.
    ///
    /// Default: `records`.
    pub fn collection(mut self, name: impl Into<String>) -> Self {
        self.settings.collection = Some(name.into());
        self
    }

    /// Sets the time within which a connection must be established.
    ///
    /// The driver's own setting takes precedence, in the address (`connectTimeoutMS`) or in its options. Has
    /// no effect on a ready client.
    ///
    /// Default: 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.connect_timeout = Some(timeout);
        self
    }

    /// Sets the time within which the server must answer an operation.
    ///
    /// This bounds the reading of the chunks of a body. For everything else the cache has deadlines of its
    /// own, which are shorter.
    ///
    /// Default: 10 seconds.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.response_timeout = Some(timeout);
        self
    }

    /// Sets the write concern, which decides when a write counts as done.
    ///
    /// With fewer than the majority, a failover may lose the last writes, which may include an invalidation.
    ///
    /// Default: the write concern of the address, the driver's options or the ready client, else `majority`.
    pub fn write_concern(mut self, concern: WriteConcern) -> Self {
        self.settings.write_concern = Some(concern);
        self
    }

    /// Builds the storage without contacting the server.
    ///
    /// A server that is down is noticed by the first operation.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if the address, an option, the cache name, the
    /// collection, a timeout or the write concern is invalid.
    pub fn build(mut self) -> Result<MongoDbStorage> {
        let client = self.server.0.check(&mut self.settings)?;
        let settings = self.settings;
        let response_timeout = settings.remote.response_timeout();
        if response_timeout.is_zero() {
            return Err(config("the response timeout must be greater than zero"));
        }
        let concern = settings.write_concern.or_else(|| client.write_concern().cloned());
        let concern = concern.unwrap_or_else(WriteConcern::majority);
        // An unacknowledged write tells neither whether it failed nor, to `write_if`, whether the comparison
        // held.
        if concern.w == Some(Acknowledgment::Nodes(0)) {
            return Err(config(
                "the write concern must not be 0: the cache needs mongodb to acknowledge its writes",
            ));
        }
        let database = checked_database_name(settings.remote.cache_name().to_owned())?;
        let collection =
            checked_collection_name(settings.collection.unwrap_or_else(|| "records".to_owned()))?;
        Ok(MongoDbStorage::new(Connection::new(client, database, collection, concern, response_timeout)))
    }

    /// Builds the storage and asks the server whether it can be used.
    ///
    /// A server that cannot be reached now is not an error, since requests are answered without it. An event
    /// reports it.
    ///
    /// # Errors
    /// Returns the errors of [`build`](MongoDbStorageBuilder::build), [`Denied`](crate::ErrorKind::Denied) if
    /// the server refuses the credentials or they do not permit reading, and
    /// [`Config`](crate::ErrorKind::Config) if the server does not accept a setting.
    pub async fn connect(self) -> Result<MongoDbStorage> {
        let storage = self.build()?;
        answers("mongodb", storage.check().await)?;
        Ok(storage)
    }
}

/// Returns the name if a server accepts it on every operating system.
///
/// A server on Windows refuses more characters than one on Linux. A cache name must stay valid when the
/// server moves.
fn checked_database_name(name: String) -> Result<String> {
    let is_refused = |c: char| c == '\0' || r#"/\. "$*<>:|?"#.contains(c);
    // MongoDB: fewer than 64 bytes.
    if name.is_empty() || name.len() > 63 || name.contains(is_refused) {
        return Err(config(
            "a cache name in mongodb is the name of a database: use 1 to 63 bytes, \
             without spaces, dots and /\\\"$*<>:|?",
        ));
    }
    if ["admin", "local", "config"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return Err(config("admin, local and config are mongodb's own databases: choose another cache name"));
    }
    Ok(name)
}

/// Returns the name if it can be the name of a collection.
fn checked_collection_name(name: String) -> Result<String> {
    // MongoDB 4.4 and later limit the database, a dot and the collection together to 235 bytes in a sharded
    // collection, and to 255 in any other. The longest names that are accepted here (63 + 1 + 100) stay below
    // both.
    let is_accepted = !name.is_empty() && name.len() <= 100 && !name.contains(['$', '\0']);
    if !is_accepted || name.starts_with("system.") || name.starts_with('.') || name.ends_with('.') {
        return Err(config(
            "the name of a collection in mongodb must have 1 to 100 bytes, no dollar sign, no dot \
             at either end, and not begin with system.",
        ));
    }
    Ok(name)
}

impl fmt::Debug for MongoDbStorageBuilder {
    /// Omits the address, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoDbStorageBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
