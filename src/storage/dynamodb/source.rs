//! The DynamoDB of a storage, and how a client for it is made.
//!
//! A program gives an address, the environment, or the driver's own settings.
//!
//! # Invariants
//! - What the driver's settings leave open gets a value: timeouts, retries and an HTTP client. So no request
//!   waits forever.
//! - What they set is kept.

use std::fmt;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Builder, SharedHttpClient};
use aws_sdk_dynamodb::{Client, Config};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use super::credentials::DetachedProvider;
use crate::storage::remote::{DEFAULT_CONNECT_TIMEOUT, DEFAULT_RESPONSE_TIMEOUT};

/// The DynamoDB and the credentials of a [`DynamoDbStorage`](super::DynamoDbStorage).
///
/// Made from an address (`&str`, `String`; see [`storage::connect`](crate::storage::connect)), from the
/// [`SdkConfig`] of `aws_config`, or from the driver's [`Config`] or [`Client`].
///
/// With an address, and with [`default`](DynamoDbSource::default), region and credentials come from the
/// environment: variables, profiles (with keys, `sso_session` or `credential_process`), or the role of a
/// container or a machine.
///
/// Settings without an HTTP client of their own get one that goes through the proxies in `HTTP_PROXY`,
/// `HTTPS_PROXY` and `ALL_PROXY`, except to the hosts in `NO_PROXY`. The address that hands out the role of a
/// machine, 169.254.169.254, belongs in `NO_PROXY`.
#[derive(Default)]
pub struct DynamoDbSource(pub(super) SourceKind);

/// The form in which the program gave the source.
#[derive(Default)]
pub(super) enum SourceKind {
    #[default]
    Environment,
    Address(String),
    Config(Box<Builder>),
}

impl From<&str> for DynamoDbSource {
    fn from(address: &str) -> Self {
        Self(SourceKind::Address(address.to_owned()))
    }
}

impl From<String> for DynamoDbSource {
    fn from(address: String) -> Self {
        Self(SourceKind::Address(address))
    }
}

impl From<&SdkConfig> for DynamoDbSource {
    fn from(config: &SdkConfig) -> Self {
        driver_config(config).into()
    }
}

impl From<SdkConfig> for DynamoDbSource {
    fn from(config: SdkConfig) -> Self {
        Self::from(&config)
    }
}

impl From<Config> for DynamoDbSource {
    fn from(config: Config) -> Self {
        let mut builder = config.to_builder();
        if config.http_client().is_none() {
            builder.set_http_client(Some(http_client()));
        }
        Self(SourceKind::Config(Box::new(builder)))
    }
}

impl From<Client> for DynamoDbSource {
    fn from(client: Client) -> Self {
        client.config().clone().into()
    }
}

impl fmt::Debug for DynamoDbSource {
    /// Omits the settings, which may contain a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DynamoDbSource")
    }
}

/// The settings of which the client is made, once an operation needs it.
#[derive(Clone)]
pub(super) struct ClientSettings {
    /// The driver's settings, if the program gave any. Otherwise they come from the environment.
    pub(super) config: Option<Box<Builder>>,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) response_timeout: Option<Duration>,
}

impl ClientSettings {
    /// Makes the client, which may ask the environment for its settings.
    pub(super) async fn client(&self) -> Client {
        let mut builder = match &self.config {
            Some(builder) => Builder::clone(builder),
            None => {
                let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
                if let Some(region) = &self.region {
                    // Set before loading, so that the driver does not ask the metadata service of the machine
                    // for one.
                    loader = loader.region(Region::new(region.clone()));
                }
                driver_config(&loader.load().await).to_builder()
            }
        };
        if let Some(region) = &self.region {
            builder = builder.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        let config = builder.clone().build();
        let mut timeouts = TimeoutConfig::builder()
            .connect_timeout(self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT))
            .operation_timeout(self.response_timeout.unwrap_or(DEFAULT_RESPONSE_TIMEOUT))
            .build();
        // For each timeout the builder of the storage comes first, then the driver's settings, then the default.
        if let (Some(driver_timeouts), Some(_)) = (config.timeout_config(), &self.config) {
            let mut own = TimeoutConfig::builder();
            own.set_connect_timeout(self.connect_timeout).set_operation_timeout(self.response_timeout);
            let mut merged = own.build();
            timeouts = merged.take_defaults_from(driver_timeouts).take_defaults_from(&timeouts).clone();
        }
        builder = builder.timeout_config(timeouts);
        if config.retry_config().is_none() || self.config.is_none() {
            // Delays of 50 ms to 1 s. The driver's default, 1 s at first, would exceed the deadline of an
            // operation at once.
            let retries = RetryConfig::standard().with_initial_backoff(Duration::from_millis(50));
            builder = builder.retry_config(retries.with_max_backoff(Duration::from_secs(1)));
        }
        Client::from_conf(builder.build())
    }
}

/// Returns the driver's settings for DynamoDB, with credentials that are requested independently of operations.
fn driver_config(config: &SdkConfig) -> Config {
    let provider = config
        .credentials_provider()
        .map(|provider| SharedCredentialsProvider::new(DetachedProvider::new(provider)));
    let mut builder = config.to_builder();
    builder.set_credentials_provider(provider);
    Config::new(&builder.build())
}

/// Returns the time that a request of this client may take, including its retries.
pub(super) fn operation_timeout(client: &Client) -> Duration {
    client
        .config()
        .timeout_config()
        .and_then(TimeoutConfig::operation_timeout)
        .unwrap_or(DEFAULT_RESPONSE_TIMEOUT)
}

/// Returns an HTTP client that uses the proxies of the environment.
///
/// Other programs on the machine use them, too. The driver's own client uses none.
fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        let connector = connector.tls_provider(Provider::Rustls(CryptoMode::Ring));
        connector.proxy_config(ProxyConfig::from_env()).build()
    })
}
