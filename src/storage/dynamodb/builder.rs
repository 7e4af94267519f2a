//! How a store in DynamoDB is set up.

use std::fmt;
use std::time::Duration;

use super::naming::Naming;
use super::source::{DynamoDbSource, Kind, Source};
use super::store::DynamoDbStorage;
use super::table::Table;
use crate::error::Result;
use crate::storage::address::{Address, config, decode};
use crate::storage::remote::{Remote, answers};

const OPTIONS: &str = "cache_name, region, endpoint, create_if_missing, eventually_consistent, connect_timeout and \
                       response_timeout";

/// Sets up a [`DynamoDbStorage`].
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

/// What an address may say too; what the program says comes first.
#[derive(Debug, Default)]
struct Settings {
    remote: Remote,
    region: Option<String>,
    endpoint: Option<String>,
    create_if_missing: Option<bool>,
    eventually_consistent: Option<bool>,
}

impl Settings {
    /// Takes from an address what the program did not say.
    fn read(&mut self, address: &str) -> Result<()> {
        let scheme = "the address of a dynamodb is dynamodb://TABLE?region=REGION";
        let Some(address) = Address::parse(address) else { return Err(config(scheme)) };
        let Address { scheme: name, location: place, mut options } = address?;
        let (true, Some(table)) = (name == "dynamodb", place.strip_prefix("//")) else {
            return Err(config(scheme));
        };
        let table = decode(table.strip_suffix('/').unwrap_or(table))?.into_owned();
        if !table.is_empty() {
            if options.take("cache_name").is_some() {
                return Err(config("the table is named twice: in the place and by cache_name"));
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
        options.finish(OPTIONS)
    }

    /// Mistakes that the driver would find with the first request only, and tell of with all that it was given.
    fn check(&self) -> Result<()> {
        let plain = |sign: char| sign.is_ascii_alphanumeric() || sign == '-';
        if self.region.as_ref().is_some_and(|name| name.is_empty() || !name.chars().all(plain)) {
            return Err(config("the region of a dynamodb is a name like eu-central-1"));
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
                "the endpoint of a dynamodb is a URL like http://localhost:8000, without a user",
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

    /// The table: 3 to 255 letters, digits, dots, hyphens and underscores. A table is one cache's. Default:
    /// `http-cache`.
    pub fn cache_name(mut self, name: impl Into<String>) -> Self {
        self.settings.remote.cache_name = Some(name.into());
        self
    }

    /// The AWS region. Default: the settings' or the environment's.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.settings.region = Some(region.into());
        self
    }

    /// Where DynamoDB is, as a URL: for DynamoDB Local and endpoints of one's own. Default: the settings' or the
    /// environment's, or else AWS in the region.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.settings.endpoint = Some(url.into());
        self
    }

    /// Whether the table is made where it is missing: billed on demand, with the expiry turned on. A table that
    /// vanishes later is made anew too. Default: false, since a table costs money and wants a right of its own.
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.settings.create_if_missing = Some(create);
        self
    }

    /// Whether reads may be a moment late. They are half the price, and an invalidation by another process may be seen
    /// late, so that what it made invalid is served for that moment. Default: false.
    pub fn eventually_consistent(mut self, eventually: bool) -> Self {
        self.settings.eventually_consistent = Some(eventually);
        self
    }

    /// The names of the partition key and the sort key, for a table that is there already; both are of type string.
    /// Default: `entry` and `record`.
    pub fn key_names(mut self, partition: impl Into<String>, sort: impl Into<String>) -> Self {
        (self.partition, self.sort) = (partition.into(), sort.into());
        self
    }

    /// The name of the attribute that DynamoDB's time to live goes by. Default: `expires`.
    pub fn expiry_name(mut self, name: impl Into<String>) -> Self {
        self.expires = name.into();
        self
    }

    /// How long a connection may take to be made. Default: 1 second, or what the driver's settings say.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.connect_timeout = Some(timeout);
        self
    }

    /// How long a request may take with all its retries: the time that a body's chunk has. The cache's own deadlines
    /// are shorter for everything else. Default: 10 seconds, or what the driver's settings say.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.settings.remote.response_timeout = Some(timeout);
        self
    }

    /// The store. Nothing is asked of DynamoDB before the first operation, so what is wrong there is noticed then.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): the address, an option or a name is wrong.
    pub fn build(self) -> Result<DynamoDbStorage> {
        let (kind, mut settings) = (self.source.0, self.settings);
        let config = match kind {
            Kind::Environment => None,
            Kind::Config(config) => Some(config),
            Kind::Address(address) => {
                settings.read(&address)?;
                None
            }
        };
        settings.check()?;
        let table = settings.remote.cache_name().to_owned();
        let naming = Naming::new(table, self.partition, self.sort, self.expires)?;
        let source = Source {
            config,
            region: settings.region,
            endpoint: settings.endpoint,
            connect_timeout: settings.remote.connect_timeout,
            response_timeout: settings.remote.response_timeout,
        };
        let consistent = !settings.eventually_consistent.unwrap_or(false);
        let create = settings.create_if_missing.unwrap_or(false);
        Ok(DynamoDbStorage::new(Table::new(source, naming, consistent, create)))
    }

    /// The store, once DynamoDB was asked, and the table made where it may be. A DynamoDB that cannot be reached now is
    /// no error, since requests go on without it: an event tells of it.
    ///
    /// # Errors
    /// As [`build`](DynamoDbStorageBuilder::build); [`Config`](crate::ErrorKind::Config): the table is missing or has other
    /// keys, or no region is set; [`Denied`](crate::ErrorKind::Denied): there are no credentials, or they are refused or give
    /// no rights.
    pub async fn connect(self) -> Result<DynamoDbStorage> {
        let storage = self.build()?;
        answers("dynamodb", storage.check().await)?;
        Ok(storage)
    }
}

impl fmt::Debug for DynamoDbStorageBuilder {
    /// Without the address, which may hold anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDbStorageBuilder").finish_non_exhaustive()
    }
}
