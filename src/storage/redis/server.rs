//! The ways to say which Redis to connect to, and the parsing of addresses.
//!
//! # Invariants
//!
//! - No error contains any part of an address, which may be a password.

use std::fmt;
use std::sync::Arc;

use deadpool_redis::redis::cluster::{ClusterClient, ClusterClientBuilder};
use deadpool_redis::redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use deadpool_redis::redis::{Client, ConnectionInfo, IntoConnectionInfo, TlsMode};
use deadpool_redis::{Config, Pool};

use super::connections::Endpoint;
use crate::error::Result;
use crate::storage::address::{Address, Options, config, decode};
use crate::storage::remote::Remote;

/// The options of every address, for the error that meets an unknown one.
const OPTIONS: [&str; 5] = ["cache_name", "connections", "connect_timeout", "response_timeout", "protocol"];
const SENTINEL_OPTIONS: [&str; 3] = ["master", "sentinel_username", "sentinel_password"];
const SOCKET_OPTIONS: [&str; 3] = ["db", "user", "pass"];

/// The Redis that [`RedisStorage::builder`](super::RedisStorage::builder) connects to.
///
/// It is made from one of:
///
/// - an address, as a `&str` or a `String`. [`storage::connect`](crate::storage::connect) describes its parts.
/// - the driver's [`ConnectionInfo`], [`Client`], [`ClusterClient`] or [`SentinelClient`].
/// - the pool's [`Config`], or a ready [`Pool`].
pub struct RedisServer(pub(super) Source);

pub(super) enum Source {
    Address(String),
    Config(Config),
    Pool(Pool),
    /// Boxed, since it is much larger than the others. Its error is returned when the storage is built.
    Endpoint(Box<Result<Endpoint>>),
}

impl From<&str> for RedisServer {
    fn from(address: &str) -> Self {
        Self(Source::Address(address.to_owned()))
    }
}

impl From<String> for RedisServer {
    fn from(address: String) -> Self {
        Self(Source::Address(address))
    }
}

impl From<Config> for RedisServer {
    fn from(config: Config) -> Self {
        Self(Source::Config(config))
    }
}

impl From<Pool> for RedisServer {
    fn from(pool: Pool) -> Self {
        Self(Source::Pool(pool))
    }
}

impl From<ConnectionInfo> for RedisServer {
    fn from(info: ConnectionInfo) -> Self {
        Self(Source::Endpoint(Box::new(single_server(info))))
    }
}

impl From<Client> for RedisServer {
    fn from(client: Client) -> Self {
        Self(Source::Endpoint(Box::new(Ok(Endpoint::Server(client)))))
    }
}

impl From<ClusterClient> for RedisServer {
    fn from(client: ClusterClient) -> Self {
        Self(Source::Endpoint(Box::new(Ok(Endpoint::Cluster(client, [].into())))))
    }
}

impl From<SentinelClient> for RedisServer {
    fn from(client: SentinelClient) -> Self {
        Self(Source::Endpoint(Box::new(Ok(Endpoint::Sentinel(Arc::new(client.into()))))))
    }
}

impl fmt::Debug for RedisServer {
    /// Omits addresses, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisServer")
    }
}

/// Settings that an address may contain, too. Those of the builder take precedence.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) remote: Remote,
    pub(super) connections: Option<usize>,
}

impl Settings {
    /// Takes those settings from an address that the builder does not have.
    pub(super) fn read(&mut self, options: &mut Options) -> Result<()> {
        let connections = options.number("connections")?;
        self.connections = self.connections.or(connections);
        self.remote.read(options)
    }
}

/// Makes the endpoint of a single server.
pub(super) fn single_server(info: impl IntoConnectionInfo) -> Result<Endpoint> {
    Client::open(info).map(Endpoint::Server).map_err(|_| invalid_address())
}

/// Parses an address. Its options are added to the settings.
pub(super) fn parse_address(address: &str, settings: &mut Settings) -> Result<Endpoint> {
    let scheme = "a redis address must begin with redis://, rediss:// (TLS), redis+cluster://, redis+sentinel:// \
                  or redis+unix://";
    let Some(address) = Address::parse(address) else { return Err(config(scheme)) };
    let Address { scheme: name, location: place, mut options } = address?;
    settings.read(&mut options)?;
    let (base, topology) = name.split_once('+').unwrap_or((&name, ""));
    let base = match base {
        "redis" | "valkey" => "redis",
        "rediss" | "valkeys" => "rediss",
        _ => return Err(config(scheme)),
    };
    if base == "rediss" {
        prepare_tls()?;
    }
    // The driver accepts every certificate for an address that ends with `#insecure`.
    if place.contains('#') {
        return Err(config("a redis address must not contain a #: percent-encode it in a password"));
    }
    let (endpoint, more): (_, &[&str]) = match (topology, place.strip_prefix("//")) {
        ("unix", Some(path)) => (socket(path, &mut options)?, &SOCKET_OPTIONS),
        ("", Some(place)) => (server(base, place, &mut options)?, &[]),
        ("cluster", Some(place)) => (cluster(base, place, &mut options, settings)?, &[]),
        ("sentinel", Some(place)) => (sentinel(base, place, &mut options)?, &SENTINEL_OPTIONS),
        _ => return Err(config(scheme)),
    };
    options.finish(&[&OPTIONS, more].concat())?;
    Ok(endpoint)
}

/// Parses the servers that an address names, each by the driver.
fn servers(base: &str, place: &str, port: u16, options: &mut Options) -> Result<Vec<ConnectionInfo>> {
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    // Each server gets the user, the port and the path in an address of its own.
    let at = if user.is_empty() { "" } else { "@" };
    let protocol = match options.take("protocol").as_deref() {
        None => "",
        Some("resp2") => "?protocol=resp2",
        Some("resp3") => "?protocol=resp3",
        Some(_) => return Err(config("the option protocol must be resp2 or resp3")),
    };
    decode(user)?;
    if !path.is_empty() && !path.parse::<u32>().is_ok_and(|number| i32::try_from(number).is_ok()) {
        return Err(config(
            "the database of a redis address, after the slash, must be a number from 0, as in redis://HOST/0",
        ));
    }
    let parse = |host: &str| {
        // A colon within brackets belongs to an IPv6 address.
        let given = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let (host, port) = match given {
            // Port 0 is none that a client can connect to.
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong_port)?),
            None => (host, port),
        };
        // Its last group would pass for a port.
        if host.contains(':') && !host.starts_with('[') {
            return Err(wrong_port());
        }
        if host.is_empty() {
            return Err(config("a redis address needs a host: write redis://HOST:PORT/DATABASE"));
        }
        let url = format!("{base}://{user}{at}{host}:{port}/{path}{protocol}");
        url.into_connection_info().map_err(|_| invalid_address())
    };
    hosts.split(',').map(parse).collect()
}

fn server(base: &str, place: &str, options: &mut Options) -> Result<Endpoint> {
    let mut servers = servers(base, place, 6379, options)?;
    match (servers.pop(), servers.is_empty()) {
        (Some(server), true) => single_server(server),
        _ => Err(config(
            "an address with several servers must begin with redis+cluster:// or redis+sentinel://",
        )),
    }
}

fn cluster(base: &str, place: &str, options: &mut Options, settings: &Settings) -> Result<Endpoint> {
    let servers = servers(base, place, 6379, options)?;
    let seeds = servers.clone().into();
    ClusterClientBuilder::new(servers)
        .connection_timeout(settings.remote.connect_timeout())
        .response_timeout(settings.remote.response_timeout())
        // Enough for redirections and for a node that is just down. More, or longer pauses, would only outlast the
        // cache's deadline of 500 ms.
        .retries(3)
        .max_retry_wait(100)
        .build()
        .map(|client| Endpoint::Cluster(client, seeds))
        .map_err(|_| invalid_address())
}

fn sentinel(base: &str, place: &str, options: &mut Options) -> Result<Endpoint> {
    let Some(master) = options.take("master") else {
        return Err(config(
            "a redis+sentinel:// address needs the option master, the name of the master that the sentinels watch",
        ));
    };
    let (user, password) = (options.take("sentinel_username"), options.take("sentinel_password"));
    let sentinels = servers(base, place, 26379, options)?;
    let Some(redis) = sentinels.first().map(|info| info.redis_settings().clone()) else {
        return Err(invalid_address());
    };
    let addresses = sentinels.iter().map(|info| info.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, &master, SentinelServerType::Master)
        .map_err(|_| invalid_address())?
        .set_client_to_redis_db(redis.db())
        .set_client_to_redis_protocol(redis.protocol());
    if let Some(user) = redis.username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = redis.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(user) = user {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = password {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if base == "rediss" {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    builder.build().map(|client| Endpoint::Sentinel(Arc::new(client.into()))).map_err(|_| invalid_address())
}

fn socket(path: &str, options: &mut Options) -> Result<Endpoint> {
    let mut url = format!("redis+unix://{path}?");
    for name in ["db", "user", "pass", "protocol"] {
        if let Some(value) = options.take(name) {
            if name == "db" && value.parse::<i32>().is_err() {
                return Err(config("the option db must be a number, that of a database"));
            }
            let value = percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC);
            url.push_str(&format!("{name}={value}&"));
        }
    }
    single_server(url)
}

fn wrong_port() -> crate::Error {
    config("the port of a redis address must be a number from 1 to 65535, and an IPv6 address needs brackets")
}

fn invalid_address() -> crate::Error {
    config("the redis driver does not accept this address: check its hosts and its percent-encoding")
}

/// Installs a default crypto provider for rustls, unless the process has one.
///
/// The driver takes the default one, and panics if there is none and several providers are compiled in.
#[cfg(feature = "redis-tls")]
fn prepare_tls() -> Result<()> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails if another thread was first, whose provider is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Ok(())
}

#[cfg(not(feature = "redis-tls"))]
fn prepare_tls() -> Result<()> {
    Err(config("a rediss:// address needs the feature redis-tls of this crate"))
}
