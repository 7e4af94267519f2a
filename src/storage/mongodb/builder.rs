//! How a store in MongoDB is set up.
//!
//! Promises: what the program says comes before what the address says; a name that MongoDB would not take is refused
//! before anything is asked of the server.

use std::fmt;
use std::time::Duration;

use ::mongodb::options::{Acknowledgment, WriteConcern};

use super::link::Link;
use super::server::{MongoDbServer, Settings};
use super::store::MongoDbStorage;
use crate::error::Result;
use crate::storage::address::config;
use crate::storage::remote::answers;

/// Sets up a [`MongoDbStorage`].
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

    /// The database: caches with different names do not see each other. At most 63 bytes, without `/\. "$*<>:|?`, and
    /// none of the server's own (`admin`, `local`, `config`). Default: the database in the address or the driver's
    /// options or the ready client, else `http-cache`.
    pub fn cache_name(mut self, name: impl Into<String>) -> Self {
        self.settings.remote.cache_name = Some(name.into());
        self
    }

    /// The collection in that database. It is this cache's alone. At most 100 bytes, without `$`, and not beginning
    /// with `system.`. Default: `records`.
    pub fn collection(mut self, name: impl Into<String>) -> Self {
        self.settings.collection = Some(name.into());
        self
    }

    /// How long a connection may take to be made, unless the address (`connectTimeoutMS`) or the driver's options say.
    /// No effect on a ready client. Default: 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.connect_timeout = Some(timeout);
        self
    }

    /// How long an answer may take: the time that a body's chunk has. The cache's own deadlines are shorter for
    /// everything else. Default: 10 seconds.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.response_timeout = Some(timeout);
        self
    }

    /// When a write counts as done. With one that waits for fewer than the majority, a failover may lose the last
    /// writes, and an invalidation among them. Default: that of the address, the driver's options or the ready client,
    /// else `majority`.
    pub fn write_concern(mut self, concern: WriteConcern) -> Self {
        self.settings.write_concern = Some(concern);
        self
    }

    /// The store. Nothing is asked of the server before the first operation, so one that is down is noticed then.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): the address, an option, the cache name, the collection, a timeout or the write concern is wrong.
    pub fn build(mut self) -> Result<MongoDbStorage> {
        let target = self.server.0.target(&mut self.settings)?;
        let settings = self.settings;
        let response = settings.remote.response_timeout();
        if response.is_zero() {
            return Err(config("the response timeout must be above zero"));
        }
        let concern = settings.write_concern.or_else(|| target.write_concern().cloned());
        let concern = concern.unwrap_or_else(WriteConcern::majority);
        if concern.w == Some(Acknowledgment::Nodes(0)) {
            return Err(config("mongodb must acknowledge what is written: its write concern cannot be 0"));
        }
        let database = database(settings.remote.cache_name().to_owned())?;
        let collection = collection(settings.collection.unwrap_or_else(|| "records".to_owned()))?;
        Ok(MongoDbStorage::new(Link::new(target, database, collection, concern, response)))
    }

    /// The store, once the server was asked. A server that cannot be reached now is no error, since requests go on
    /// without it: an event tells of it.
    ///
    /// # Errors
    /// As [`build`](MongoDbStorageBuilder::build); [`Denied`](crate::ErrorKind::Denied): the server refuses the credentials or
    /// gives them no rights.
    pub async fn connect(self) -> Result<MongoDbStorage> {
        let storage = self.build()?;
        answers("mongodb", storage.check().await)?;
        Ok(storage)
    }
}

/// The signs that a server on any system refuses, so that a name is good wherever it moves to.
fn database(name: String) -> Result<String> {
    let is_bad = |c: char| c == '\0' || r#"/\. "$*<>:|?"#.contains(c);
    if name.is_empty() || name.len() > 63 || name.contains(is_bad) {
        return Err(config(
            "a cache name in mongodb is a database's: 1 to 63 bytes, without blanks, dots and the signs /\\\"$*<>:|?",
        ));
    }
    if ["admin", "local", "config"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return Err(config("this cache name is that of one of mongodb's own databases"));
    }
    Ok(name)
}

fn collection(name: String) -> Result<String> {
    let is_ours = !name.is_empty() && name.len() <= 100 && !name.contains(['$', '\0']);
    if !is_ours || name.starts_with("system.") || name.starts_with('.') || name.ends_with('.') {
        return Err(config(
            "a collection in mongodb has 1 to 100 bytes, no dollar sign, and is none of the server's own",
        ));
    }
    Ok(name)
}

impl fmt::Debug for MongoDbStorageBuilder {
    /// Without the address, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoDbStorageBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
