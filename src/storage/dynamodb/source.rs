//! Which DynamoDB it is: the environment's, or that of the driver's own settings.
//!
//! Promises: whatever the settings leave open is set, so that no request waits for ever: timeouts, retries and an HTTPS
//! client; what they say stays.

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

use super::credentials::Patient;
use crate::storage::remote::{DEFAULT_CONNECT_TIMEOUT, DEFAULT_RESPONSE_TIMEOUT};

/// Where DynamoDB is and who asks: what [`DynamoDbStorage::builder`](super::DynamoDbStorage::builder) takes.
///
/// Made from an address (`&str`, `String`; see [`storage::connect`](crate::storage::connect)), from the
/// [`SdkConfig`] of `aws_config`, or from the driver's [`Config`] or [`Client`]. With an address, and by
/// [`default`](DynamoDbSource::default), region and credentials are the environment's: variables, profiles (with keys,
/// `sso_session` or `credential_process`), a container's or a machine's role. Settings without an HTTP client of their own
/// get one that goes through the proxies of `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY`, but for the hosts in `NO_PROXY`:
/// the address that gives out a machine's role, 169.254.169.254, belongs there.
#[derive(Default)]
pub struct DynamoDbSource(pub(super) Kind);

#[derive(Default)]
pub(super) enum Kind {
    #[default]
    Environment,
    Address(String),
    Config(Box<Builder>),
}

impl From<&str> for DynamoDbSource {
    fn from(address: &str) -> Self {
        Self(Kind::Address(address.to_owned()))
    }
}

impl From<String> for DynamoDbSource {
    fn from(address: String) -> Self {
        Self(Kind::Address(address))
    }
}

impl From<&SdkConfig> for DynamoDbSource {
    fn from(config: &SdkConfig) -> Self {
        settings(config).into()
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
            builder.set_http_client(Some(https()));
        }
        Self(Kind::Config(Box::new(builder)))
    }
}

impl From<Client> for DynamoDbSource {
    fn from(client: Client) -> Self {
        client.config().clone().into()
    }
}

impl fmt::Debug for DynamoDbSource {
    /// Without settings, which may hold a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DynamoDbSource")
    }
}

/// What a client is made of, once somebody needs it.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) config: Option<Box<Builder>>,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) response_timeout: Option<Duration>,
}

impl Source {
    pub(super) async fn client(&self) -> Client {
        let mut builder = match &self.config {
            Some(builder) => Builder::clone(builder),
            None => {
                let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(https());
                if let Some(region) = &self.region {
                    loader = loader.region(Region::new(region.clone())); // so that nobody is asked for one
                }
                settings(&loader.load().await).to_builder()
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
        if let (Some(theirs), Some(_)) = (config.timeout_config(), &self.config) {
            let mut said = TimeoutConfig::builder();
            said.set_connect_timeout(self.connect_timeout).set_operation_timeout(self.response_timeout);
            let mut merged = said.build();
            timeouts = merged.take_defaults_from(theirs).take_defaults_from(&timeouts).clone();
        }
        builder = builder.timeout_config(timeouts);
        if config.retry_config().is_none() || self.config.is_none() {
            let retries = RetryConfig::standard().with_initial_backoff(Duration::from_millis(50));
            builder = builder.retry_config(retries.with_max_backoff(Duration::from_secs(1)));
        }
        Client::from_conf(builder.build())
    }
}

/// The driver's settings of these.
fn settings(config: &SdkConfig) -> Config {
    let patient =
        config.credentials_provider().map(|provider| SharedCredentialsProvider::new(Patient::new(provider)));
    let mut builder = config.to_builder();
    builder.set_credentials_provider(patient);
    Config::new(&builder.build())
}

/// How long this client's requests may take.
pub(super) fn longest(client: &Client) -> Duration {
    client
        .config()
        .timeout_config()
        .and_then(TimeoutConfig::operation_timeout)
        .unwrap_or(DEFAULT_RESPONSE_TIMEOUT)
}

/// A client that goes through the environment's proxies, as other programs on the machine do. The driver's own goes
/// through none.
fn https() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        let connector = connector.tls_provider(Provider::Rustls(CryptoMode::Ring));
        connector.proxy_config(ProxyConfig::from_env()).build()
    })
}
