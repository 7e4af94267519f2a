//! Which Redis it is: an address, the driver's own settings, or a ready client or pool.

use std::fmt;
use std::sync::Arc;

use deadpool_redis::redis::cluster::{ClusterClient, ClusterClientBuilder};
use deadpool_redis::redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use deadpool_redis::redis::{Client, ConnectionInfo, IntoConnectionInfo, TlsMode};
use deadpool_redis::{Config, Pool};

use super::link::Target;
use crate::error::Result;
use crate::storage::address::{Address, Options, config};
use crate::storage::remote::Remote;

const OPTIONS: &str = "cache_name, connections, connect_timeout, response_timeout, protocol; with sentinels also \
                       master, sentinel_username and sentinel_password; with a socket also db, user and pass";

/// Where Redis is: what [`RedisStorage::builder`](super::RedisStorage::builder) takes.
///
/// Made from an address (`&str`, `String`; see [`storage::connect`](crate::storage::connect) for its parts), from the
/// driver's [`ConnectionInfo`], [`Client`], [`ClusterClient`] or [`SentinelClient`], or from the pool's [`Config`] or a
/// ready [`Pool`].
pub struct RedisServer(pub(super) Kind);

pub(super) enum Kind {
    Url(String),
    Config(Config),
    Pool(Pool),
    Target(Box<Result<Target>>),
}

impl From<&str> for RedisServer {
    fn from(url: &str) -> Self {
        Self(Kind::Url(url.to_owned()))
    }
}

impl From<String> for RedisServer {
    fn from(url: String) -> Self {
        Self(Kind::Url(url))
    }
}

impl From<Config> for RedisServer {
    fn from(config: Config) -> Self {
        Self(Kind::Config(config))
    }
}

impl From<Pool> for RedisServer {
    fn from(pool: Pool) -> Self {
        Self(Kind::Pool(pool))
    }
}

impl From<ConnectionInfo> for RedisServer {
    fn from(info: ConnectionInfo) -> Self {
        Self(Kind::Target(Box::new(client(info))))
    }
}

impl From<Client> for RedisServer {
    fn from(client: Client) -> Self {
        Self(Kind::Target(Box::new(Ok(Target::Server(client)))))
    }
}

impl From<ClusterClient> for RedisServer {
    fn from(client: ClusterClient) -> Self {
        Self(Kind::Target(Box::new(Ok(Target::Cluster(client)))))
    }
}

impl From<SentinelClient> for RedisServer {
    fn from(client: SentinelClient) -> Self {
        Self(Kind::Target(Box::new(Ok(Target::Sentinel(Arc::new(client.into()))))))
    }
}

impl fmt::Debug for RedisServer {
    /// Without addresses, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisServer")
    }
}

/// What an address may say too; what the program says comes first.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) remote: Remote,
    pub(super) connections: Option<usize>,
}

impl Settings {
    /// Takes from an address what the program did not say.
    pub(super) fn read(&mut self, options: &mut Options) -> Result<()> {
        let connections = options.number("connections")?;
        self.connections = self.connections.or(connections);
        self.remote.read(options)
    }
}

pub(super) fn client(info: impl IntoConnectionInfo) -> Result<Target> {
    Client::open(info).map(Target::Server).map_err(|_| unusable())
}

/// What an address leads to; its options are noted in the settings.
pub(super) fn target(url: &str, settings: &mut Settings) -> Result<Target> {
    let scheme = "the address of a redis begins with redis://, rediss:// (TLS), redis+cluster://, redis+sentinel:// \
                  or redis+unix://";
    let Some(address) = Address::parse(url) else { return Err(config(scheme)) };
    let Address { scheme: name, location: place, mut options } = address?;
    settings.read(&mut options)?;
    let (base, how) = name.split_once('+').unwrap_or((name, ""));
    let base = match base {
        "redis" | "valkey" => "redis",
        "rediss" | "valkeys" => "rediss",
        _ => return Err(config(scheme)),
    };
    if base == "rediss" {
        tls()?;
    }
    if place.contains('#') {
        return Err(config("the address of a redis has no part behind a #"));
    }
    let target = match (how, place.strip_prefix("//")) {
        ("unix", Some(path)) => socket(path, &mut options)?,
        ("", Some(place)) => one(base, place, &mut options)?,
        ("cluster", Some(place)) => cluster(base, place, &mut options, settings)?,
        ("sentinel", Some(place)) => sentinel(base, place, &mut options)?,
        _ => return Err(config(scheme)),
    };
    options.finish(OPTIONS)?;
    Ok(target)
}

/// The servers that an address names, each as the driver reads it.
fn servers(base: &str, place: &str, port: u16, options: &mut Options) -> Result<Vec<ConnectionInfo>> {
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let at = if user.is_empty() { "" } else { "@" };
    let protocol = match options.take("protocol").as_deref() {
        None => "",
        Some("resp2") => "?protocol=resp2",
        Some("resp3") => "?protocol=resp3",
        Some(_) => return Err(config("the option protocol must be resp2 or resp3")),
    };
    let read = |host: &str| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if has_port { String::new() } else { format!(":{port}") };
        let url = format!("{base}://{user}{at}{host}{port}/{path}{protocol}");
        if host.is_empty() { Err(unusable()) } else { url.into_connection_info().map_err(|_| unusable()) }
    };
    hosts.split(',').map(read).collect()
}

fn one(base: &str, place: &str, options: &mut Options) -> Result<Target> {
    let mut servers = servers(base, place, 6379, options)?;
    match (servers.pop(), servers.is_empty()) {
        (Some(server), true) => client(server),
        _ => Err(config("several servers need redis+cluster:// or redis+sentinel://")),
    }
}

fn cluster(base: &str, place: &str, options: &mut Options, settings: &Settings) -> Result<Target> {
    let servers = servers(base, place, 6379, options)?;
    ClusterClientBuilder::new(servers)
        .connection_timeout(settings.remote.connect_timeout())
        .response_timeout(settings.remote.response_timeout())
        // Redirections, and a node that is down: the caller's deadline comes soon.
        .retries(3)
        .max_retry_wait(100)
        .build()
        .map(Target::Cluster)
        .map_err(|_| unusable())
}

fn sentinel(base: &str, place: &str, options: &mut Options) -> Result<Target> {
    let Some(master) = options.take("master") else {
        return Err(config("redis+sentinel:// needs the option master: the name that the sentinels watch"));
    };
    let (user, password) = (options.take("sentinel_username"), options.take("sentinel_password"));
    let sentinels = servers(base, place, 26379, options)?;
    let Some(redis) = sentinels.first().map(|info| info.redis_settings().clone()) else {
        return Err(unusable());
    };
    let addresses = sentinels.iter().map(|info| info.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, &master, SentinelServerType::Master)
        .map_err(|_| unusable())?
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
    builder.build().map(|client| Target::Sentinel(Arc::new(client.into()))).map_err(|_| unusable())
}

fn socket(path: &str, options: &mut Options) -> Result<Target> {
    let mut url = format!("redis+unix://{path}?");
    for name in ["db", "user", "pass", "protocol"] {
        if let Some(value) = options.take(name) {
            let value = percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC);
            url.push_str(&format!("{name}={value}&"));
        }
    }
    client(url)
}

fn unusable() -> crate::Error {
    config("the address of the redis cannot be used: see its hosts, ports, database number and escapes")
}

/// The driver asks rustls for the provider that the process has chosen, and panics where there is none and several could
/// be meant.
#[cfg(feature = "redis-tls")]
fn tls() -> Result<()> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default(); // somebody else was first: theirs
    }
    Ok(())
}

#[cfg(not(feature = "redis-tls"))]
fn tls() -> Result<()> {
    Err(config("rediss:// needs the feature redis-tls of this crate"))
}
