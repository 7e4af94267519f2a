//! Which MongoDB: an address, the driver's own options, or a ready client.
//!
//! Promises: an address is checked before anything is connected; this store's options are taken out of it and every
//! other one is left to the driver as it was written; options that a program made itself lose nothing.

use std::time::Duration;

use ::mongodb::Client;
use ::mongodb::options::{ClientOptions, ConnectionString, WriteConcern};

use crate::error::{Error, Result};
use crate::storage::address::{Address, Options, config};
use crate::storage::remote::Remote;

/// Which MongoDB a [`MongoDbStorage`](super::MongoDbStorage) is in. Made from
/// - an address: `mongodb://[USER[:PASSWORD]@]HOST[:PORT],…[/CACHE_NAME][?OPTIONS]`, or `mongodb+srv://…`, as
///   [`connect`](crate::storage::connect) takes it;
/// - the driver's [`ClientOptions`], whole;
/// - a ready [`Client`], whose timeouts are then the ones in force.
pub struct MongoDbServer(pub(super) Kind);

pub(super) enum Kind {
    Url(String),
    Options(Box<ClientOptions>),
    Client(Client),
}

/// How the client is made, once a runtime is there to make it on.
pub(super) enum Target {
    Address(Box<ConnectionString>),
    Options(Box<ClientOptions>),
    Client(Client),
}

impl From<&str> for MongoDbServer {
    fn from(url: &str) -> Self {
        Self(Kind::Url(url.to_owned()))
    }
}

impl From<String> for MongoDbServer {
    fn from(url: String) -> Self {
        Self(Kind::Url(url))
    }
}

impl From<ClientOptions> for MongoDbServer {
    fn from(options: ClientOptions) -> Self {
        Self(Kind::Options(Box::new(options)))
    }
}

impl From<Client> for MongoDbServer {
    fn from(client: Client) -> Self {
        Self(Kind::Client(client))
    }
}

impl std::fmt::Debug for MongoDbServer {
    /// Without the address, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MongoDbServer").finish_non_exhaustive()
    }
}

/// What an address may say too; what the program says comes first.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) remote: Remote,
    pub(super) collection: Option<String>,
    pub(super) write_concern: Option<WriteConcern>,
}

impl Settings {
    /// Whether an option is ours, not the driver's.
    fn has(name: &str) -> bool {
        name == "collection" || Remote::NAMES.contains(&name)
    }

    /// Takes from an address what the program did not say.
    fn read(&mut self, options: &mut Options) -> Result<()> {
        let collection = options.take("collection");
        self.collection = self.collection.take().or(collection);
        self.remote.read(options)
    }
}

fn unusable() -> Error {
    config(
        "the address of mongodb cannot be used: write mongodb://HOST/CACHE_NAME, with the driver's options alone",
    )
}

impl Kind {
    pub(super) fn target(self, settings: &mut Settings) -> Result<Target> {
        match self {
            Self::Url(url) => {
                if !url.starts_with("mongodb://") && !url.starts_with("mongodb+srv://") {
                    return Err(unusable());
                }
                let (rest, own) = split(&url);
                let mut own = Address::parse(&own).ok_or_else(unusable)??.options;
                settings.read(&mut own)?;
                let mut address = ConnectionString::parse(&rest).map_err(|_| unusable())?;
                settings.remote.or_name(address.default_database.clone());
                address.connect_timeout.get_or_insert(settings.remote.connect_timeout());
                address.server_selection_timeout.get_or_insert(SELECTION);
                Ok(Target::Address(Box::new(address)))
            }
            Self::Options(mut options) => {
                settings.remote.or_name(options.default_database.clone());
                options.connect_timeout.get_or_insert(settings.remote.connect_timeout());
                options.server_selection_timeout.get_or_insert(SELECTION);
                Ok(Target::Options(options))
            }
            Self::Client(client) => {
                settings.remote.or_name(client.default_database().map(|database| database.name().to_owned()));
                Ok(Target::Client(client))
            }
        }
    }
}

impl Target {
    pub(super) fn write_concern(&self) -> Option<&WriteConcern> {
        match self {
            Self::Address(address) => address.write_concern.as_ref(),
            Self::Options(options) => options.write_concern.as_ref(),
            Self::Client(client) => client.write_concern(),
        }
    }
}

/// How long a server is looked for: the driver's half a minute would hold up who asks.
const SELECTION: Duration = Duration::from_secs(1);

/// The address without this store's options, and these as an address of their own.
fn split(url: &str) -> (String, String) {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let is_own = |pair: &&str| Settings::has(pair.split('=').next().unwrap_or(""));
    let (own, others): (Vec<&str>, Vec<&str>) =
        query.split('&').filter(|pair| !pair.is_empty()).partition(is_own);
    let rest = if others.is_empty() { place.to_owned() } else { format!("{place}?{}", others.join("&")) };
    (rest, format!("mongodb:?{}", own.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_options_are_taken_out_and_the_others_stay_as_they_were() {
        let (rest, own) =
            split("mongodb://a,b/app?w=1&cache_name=x&readPreferenceTags=a:b&readPreferenceTags=");
        assert_eq!(rest, "mongodb://a,b/app?w=1&readPreferenceTags=a:b&readPreferenceTags=");
        assert_eq!(own, "mongodb:?cache_name=x");
        assert_eq!(split("mongodb://a/app?collection=c").0, "mongodb://a/app");
    }
}
