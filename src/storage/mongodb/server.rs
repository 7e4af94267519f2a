//! The server of a storage, and how a client for it is made.
//!
//! A program gives an address, the driver's own options or a ready client.
//!
//! # Invariants
//! - An address is checked before a connection is made.
//! - The options of this storage are removed from the address; every other option reaches the driver as it
//!   was written.
//! - The driver's options keep everything that the program has set in them.

use std::time::Duration;

use ::mongodb::Client;
use ::mongodb::options::{ClientOptions, ConnectionString, WriteConcern};

use crate::error::{Error, Result};
use crate::storage::address::{Address, Options, config, decode, nearest, with_lower_scheme};
use crate::storage::remote::Remote;

/// The MongoDB server, replica set or cluster of a [`MongoDbStorage`](super::MongoDbStorage).
///
/// Made from one of
/// - an address (`&str`, `String`): `mongodb://[USER[:PASSWORD]@]HOST[:PORT],…[/CACHE_NAME][?OPTIONS]` or
///   `mongodb+srv://…`, as [`connect`](crate::storage::connect) accepts it;
/// - the driver's [`ClientOptions`], all of which are kept;
/// - a ready [`Client`], whose own connection settings then apply.
pub struct MongoDbServer(pub(super) ServerSource);

/// The server as the program gave it.
pub(super) enum ServerSource {
    Address(String),
    Options(Box<ClientOptions>),
    Client(Client),
}

/// The checked server, of which the client is made once a runtime is running.
pub(super) enum ClientSource {
    Address(Box<ConnectionString>),
    Options(Box<ClientOptions>),
    Client(Client),
}

impl From<&str> for MongoDbServer {
    fn from(address: &str) -> Self {
        Self(ServerSource::Address(address.to_owned()))
    }
}

impl From<String> for MongoDbServer {
    fn from(address: String) -> Self {
        Self(ServerSource::Address(address))
    }
}

impl From<ClientOptions> for MongoDbServer {
    fn from(options: ClientOptions) -> Self {
        Self(ServerSource::Options(Box::new(options)))
    }
}

impl From<Client> for MongoDbServer {
    fn from(client: Client) -> Self {
        Self(ServerSource::Client(client))
    }
}

impl std::fmt::Debug for MongoDbServer {
    /// Omits the address, which may contain a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MongoDbServer").finish_non_exhaustive()
    }
}

/// The settings that the builder has, and an address may have too.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) remote: Remote,
    pub(super) collection: Option<String>,
    pub(super) write_concern: Option<WriteConcern>,
}

impl Settings {
    /// The options of an address that belong to this storage, not to the driver.
    const OWN_OPTIONS: [&str; 4] = ["collection", Remote::NAMES[0], Remote::NAMES[1], Remote::NAMES[2]];

    /// Takes from an address the settings that the program has not set.
    fn fill_from(&mut self, options: &mut Options) -> Result<()> {
        let collection = options.take("collection");
        self.collection = self.collection.take().or(collection);
        self.remote.read(options)
    }
}

fn invalid_address() -> Error {
    config(
        "the address of mongodb is invalid: write mongodb://HOST/CACHE_NAME, and only options of the driver or \
         of this storage",
    )
}

/// Creates the error of an address that the driver refuses, which names the wrong option.
///
/// The driver's own error would repeat parts of the address.
fn wrong_part(address: &str) -> Error {
    let Some((place, query)) = address.split_once('?') else { return invalid_address() };
    let pairs: Vec<&str> = query.split('&').collect();
    // The option without which the driver accepts the address is the wrong one.
    let wrong = (0..pairs.len()).find(|at| {
        let mut others = pairs.clone();
        others.remove(*at);
        let mark = if others.is_empty() { "" } else { "?" };
        ConnectionString::parse(format!("{place}{mark}{}", others.join("&"))).is_ok()
    });
    let Some(name) = wrong.map(|at| pairs[at].split('=').next().unwrap_or_default()) else {
        return invalid_address();
    };
    let name = decode(name).unwrap_or_default();
    if let Some(known) = DRIVER_OPTIONS.iter().find(|known| known.eq_ignore_ascii_case(&name)) {
        return config(format!("the mongodb driver does not accept the value of the option {known}"));
    }
    match nearest(&name, DRIVER_OPTIONS.into_iter().chain(Settings::OWN_OPTIONS)) {
        Some(meant) => config(format!("mongodb has no option of this name: did you mean {meant}?")),
        None => invalid_address(),
    }
}

/// The driver's options, to name one in an error. The driver itself decides which there are.
const DRIVER_OPTIONS: [&str; 41] = [
    "appName",
    "authMechanism",
    "authMechanismProperties",
    "authSource",
    "compressors",
    "connectTimeoutMS",
    "directConnection",
    "heartbeatFrequencyMS",
    "journal",
    "loadBalanced",
    "localThresholdMS",
    "maxConnecting",
    "maxIdleTimeMS",
    "maxPoolSize",
    "maxStalenessSeconds",
    "minPoolSize",
    "proxyHost",
    "proxyPassword",
    "proxyPort",
    "proxyUsername",
    "readConcernLevel",
    "readPreference",
    "readPreferenceTags",
    "replicaSet",
    "retryReads",
    "retryWrites",
    "serverMonitoringMode",
    "serverSelectionTimeoutMS",
    "socketTimeoutMS",
    "srvMaxHosts",
    "srvServiceName",
    "tls",
    "tlsAllowInvalidCertificates",
    "tlsCAFile",
    "tlsCertificateKeyFile",
    "tlsInsecure",
    "uuidRepresentation",
    "w",
    "waitQueueTimeoutMS",
    "wTimeoutMS",
    "ssl",
];

impl ServerSource {
    /// Checks the server, and fills in the settings that the program has not set.
    pub(super) fn check(self, settings: &mut Settings) -> Result<ClientSource> {
        match self {
            Self::Address(address) => {
                let address = with_lower_scheme(&address);
                if !address.starts_with("mongodb://") && !address.starts_with("mongodb+srv://") {
                    return Err(invalid_address());
                }
                let (driver_address, own_options) = split_options(&address);
                let mut own_options = Address::parse(&own_options).ok_or_else(invalid_address)??.options;
                settings.fill_from(&mut own_options)?;
                let mut parsed =
                    ConnectionString::parse(&driver_address).map_err(|_| wrong_part(&driver_address))?;
                settings.remote.or_name(parsed.default_database.clone());
                parsed.connect_timeout.get_or_insert(settings.remote.connect_timeout());
                parsed.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
                Ok(ClientSource::Address(Box::new(parsed)))
            }
            Self::Options(mut options) => {
                settings.remote.or_name(options.default_database.clone());
                options.connect_timeout.get_or_insert(settings.remote.connect_timeout());
                options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
                Ok(ClientSource::Options(options))
            }
            Self::Client(client) => {
                settings.remote.or_name(client.default_database().map(|database| database.name().to_owned()));
                Ok(ClientSource::Client(client))
            }
        }
    }
}

impl ClientSource {
    /// Returns the write concern that the address, the options or the client sets.
    pub(super) fn write_concern(&self) -> Option<&WriteConcern> {
        match self {
            Self::Address(address) => address.write_concern.as_ref(),
            Self::Options(options) => options.write_concern.as_ref(),
            Self::Client(client) => client.write_concern(),
        }
    }
}

/// The time within which the driver must find a suitable server.
///
/// The driver's default of 30 seconds would hold up requests while the server is down. One second is also the
/// default for a connection.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// Splits an address into the driver's address and an address of this storage's own options.
///
/// The driver refuses options that it does not know, and this crate refuses options that occur twice, which
/// some of the driver's may.
fn split_options(address: &str) -> (String, String) {
    let (place, query) = address.split_once('?').unwrap_or((address, ""));
    let is_own = |pair: &&str| Settings::OWN_OPTIONS.contains(&pair.split('=').next().unwrap_or(""));
    let (own, others): (Vec<&str>, Vec<&str>) =
        query.split('&').filter(|pair| !pair.is_empty()).partition(is_own);
    let rest = if others.is_empty() { place.to_owned() } else { format!("{place}?{}", others.join("&")) };
    (rest, format!("mongodb:?{}", own.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_options_are_removed_and_the_others_stay() {
        let (rest, own) =
            split_options("mongodb://a,b/app?w=1&cache_name=x&readPreferenceTags=a:b&readPreferenceTags=");
        assert_eq!(rest, "mongodb://a,b/app?w=1&readPreferenceTags=a:b&readPreferenceTags=");
        assert_eq!(own, "mongodb:?cache_name=x");
        assert_eq!(split_options("mongodb://a/app?collection=c").0, "mongodb://a/app");
    }
}
