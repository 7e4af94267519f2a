//! The builder of the DynamoDB storage.
//!
//! # Invariants
//! - A setting of the builder takes precedence over the option of the same name in the address.
//! - Invalid settings are refused before DynamoDB is asked for anything, and without repeating their values.

use std::fmt;
use std::time::Duration;

use super::naming::Naming;
use super::source::{ClientSettings, DynamoDbSource, SourceKind};
use super::storage::DynamoDbStorage;
use super::table::Table;
use crate::error::Result;
use crate::storage::address::{Address, config, decode};
use crate::storage::remote::{Remote, answers};

/// The options of an address, for the message that refuses any other.
const OPTIONS: [&str; 7] = [
    "cache_name",
    "region",
    "endpoint",
    "create_if_missing",
    "eventually_consistent",
    "connect_timeout",
    "response_timeout",
];

/// A builder of [`DynamoDbStorage`].
///
/// ```
/// use tower_response_cache::storage::{DynamoDbStorage, dynamodb::DynamoDbSource};
///
/// # fn build() -> tower_response_cache::Result<DynamoDbStorage> {
/// DynamoDbStorage::builder(DynamoDbSource::default())
///     .cache_name("app")
///     .region("eu-central-1")
///     .create_if_missing(true)
///     .build()
/// # }
/// # build().unwrap();
/// ```
#[must_use]
pub struct DynamoDbStorageBuilder {
    source: DynamoDbSource,
    settings: Settings,
    partition: String,
    sort: String,
    expires: String,
}

/// The settings that the builder has, and an address may have too.
#[derive(Debug, Default)]
struct Settings {
    remote: Remote,
    region: Option<String>,
    endpoint: Option<String>,
    create_if_missing: Option<bool>,
    eventually_consistent: Option<bool>,
}

impl Settings {
    /// Takes from an address the settings that the program has not set.
    fn fill_from(&mut self, address: &str) -> Result<()> {
        let invalid = "the address of dynamodb is invalid: write dynamodb://TABLE?region=REGION";
        let Some(address) = Address::parse(address) else { return Err(config(invalid)) };
        let Address { scheme: name, location: place, mut options } = address?;
        let (true, Some(table)) = (name == "dynamodb", place.strip_prefix("//")) else {
            return Err(config(invalid));
        };
        let table = decode(table.strip_suffix('/').unwrap_or(table))?.into_owned();
        if !table.is_empty() {
            if options.take("cache_name").is_some() {
                return Err(config(
                    "the table is named twice: remove the option cache_name or the name in front of the options",
                ));
            }
            self.remote.or_name(Some(table));
        }
        self.remote.read(&mut options)?;
        let (region, endpoint) = (options.take("region"), options.take("endpoint"));
        let (create, eventually) =
            (options.flag("create_if_missing")?, options.flag("eventually_consistent")?);
        self.region = self.region.take().or(region);
        self.endpoint = self.endpoint.take().or(endpoint);
        self.create_if_missing = self.create_if_missing.or(create);
        self.eventually_consistent = self.eventually_consistent.or(eventually);
        options.finish(&OPTIONS)
    }

    /// Checks the region and the endpoint.
    ///
    /// The driver would find these mistakes at the first request only, and its error would repeat the values.
    fn check(&self) -> Result<()> {
        let is_accepted = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.region.as_ref().is_some_and(|name| name.is_empty() || !name.chars().all(is_accepted)) {
            return Err(config("the region of dynamodb must be a name such as eu-central-1"));
        }
        let is_url = |endpoint: &String| {
            let uri = endpoint.parse::<http::Uri>().ok();
            uri.is_some_and(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            })
        };
        if !self.endpoint.as_ref().is_none_or(is_url) {
            return Err(config(
                "the endpoint of dynamodb must be a URL such as http://localhost:8000, without a user name",
            ));
        }
        Ok(())
    }
}

impl DynamoDbStorageBuilder {
    pub(super) fn new(source: DynamoDbSource) -> Self {
        let settings = Settings::default();
        Self { source, settings, partition: "entry".into(), sort: "record".into(), expires: "expires".into() }
    }

    /// Sets the name of the cache, which is the name of its table.
    ///
    /// A table belongs to one cache. Its name has 3 to 255 letters, digits, dots, hyphens and underscores.
    ///
    /// Default: `http-cache`.
    pub fn cache_name(mut self, name: impl Into<String>) -> Self {
        self.settings.remote.cache_name = Some(name.into());
        self
    }

    /// Sets the AWS region.
    ///
    /// Default: the region of the driver's settings or of the environment.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.settings.region = Some(region.into());
        self
    }

    /// Sets the URL of DynamoDB, for DynamoDB Local or a private endpoint.
    ///
    /// Default: the endpoint of the driver's settings or of the environment, else AWS in the region.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.settings.endpoint = Some(url.into());
        self
    }

    /// Sets whether the storage creates the table if it is missing.
    ///
    /// The table is billed on demand and has time to live enabled. A table that is deleted later is created
    /// again.
    ///
    /// Default: false, since a table costs money and creating one needs further permissions.
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.settings.create_if_missing = Some(create);
        self
    }

    /// Sets whether reads may return data that is slightly out of date.
    ///
    /// Such reads cost half as much. An invalidation by another process may be seen late, so that what it has
    /// invalidated is still served for a moment.
    ///
    /// Default: false.
    pub fn eventually_consistent(mut self, eventually: bool) -> Self {
        self.settings.eventually_consistent = Some(eventually);
        self
    }

    /// Sets the names of the partition key and the sort key.
    ///
    /// For a table that exists already.
    ///
    /// Both keys must be of type string.
    ///
    /// Default: `entry` and `record`.
    pub fn key_names(mut self, partition: impl Into<String>, sort: impl Into<String>) -> Self {
        (self.partition, self.sort) = (partition.into(), sort.into());
        self
    }

    /// Sets the name of the attribute for DynamoDB's time to live.
    ///
    /// Default: `expires`.
    pub fn expiry_name(mut self, name: impl Into<String>) -> Self {
        self.expires = name.into();
        self
    }

    /// Sets the time within which a connection must be established.
    ///
    /// Default: the driver's settings, else 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.connect_timeout = Some(timeout);
        self
    }

    /// Sets the time within which DynamoDB must answer a request, including all retries.
    ///
    /// This bounds the reading of the chunks of a body. For everything else the cache has deadlines of its
    /// own, which are shorter.
    ///
    /// Default: the driver's settings, else 10 seconds.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.response_timeout = Some(timeout);
        self
    }

    /// Builds the storage without contacting DynamoDB.
    ///
    /// A missing table, refused credentials and the like are noticed by the first operation.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if the address, an option or a name is invalid.
    pub fn build(self) -> Result<DynamoDbStorage> {
        let (kind, mut settings) = (self.source.0, self.settings);
        let config = match kind {
            SourceKind::Environment => None,
            SourceKind::Config(config) => Some(config),
            SourceKind::Address(address) => {
                settings.fill_from(&address)?;
                None
            }
        };
        settings.check()?;
        let table = settings.remote.cache_name().to_owned();
        let naming = Naming::new(table, self.partition, self.sort, self.expires)?;
        let client = ClientSettings {
            config,
            region: settings.region,
            endpoint: settings.endpoint,
            connect_timeout: settings.remote.connect_timeout,
            response_timeout: settings.remote.response_timeout,
        };
        let consistent = !settings.eventually_consistent.unwrap_or(false);
        let create = settings.create_if_missing.unwrap_or(false);
        Ok(DynamoDbStorage::new(Table::new(client, naming, consistent, create)))
    }

    /// Builds the storage and asks DynamoDB whether it can be used.
    ///
    /// Creates the table if it is missing and
    /// [`create_if_missing`](DynamoDbStorageBuilder::create_if_missing) is set. If DynamoDB cannot be reached
    /// now, that is not an error, since requests are answered without it. An event reports it.
    ///
    /// # Errors
    /// Returns the errors of [`build`](DynamoDbStorageBuilder::build), [`Config`](crate::ErrorKind::Config)
    /// if the table is missing or has other keys, or if no region is set, and
    /// [`Denied`](crate::ErrorKind::Denied) if there are no credentials, or if they are refused or lack a
    /// permission.
    pub async fn connect(self) -> Result<DynamoDbStorage> {
        let storage = self.build()?;
        answers("dynamodb", storage.check().await)?;
        Ok(storage)
    }
}

impl fmt::Debug for DynamoDbStorageBuilder {
    /// Omits the address, which may contain a secret where none belongs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDbStorageBuilder").finish_non_exhaustive()
    }
}
