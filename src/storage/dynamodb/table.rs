//! Requests to the table, and its creation.
//!
//! # Invariants
//! - Every request ends within the response timeout, and so does its wait for other requests.
//! - At most [`MAX_REQUESTS`] requests run at a time.
//! - At most one creation of the table runs at a time. It continues when the operation that began it is given up.
//! - Two processes that create the table at the same time both succeed.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::backoff::Backoff;
use super::error::{
    convert, is_table_missing, is_throttled, runtime_ended, timed_out, unexpected_condition_failure,
};
use super::naming::Naming;
use super::shared_task::SharedTask;
use super::source::{ClientSettings, operation_timeout};
use crate::error::{Error, ErrorKind, Result};

/// How long to wait before looking again whether the table has been created.
///
/// AWS needs some seconds, so a shorter interval only costs requests.
const STATUS_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The time within which the table must have been created. AWS usually needs some seconds.
const CREATION_TIMEOUT: Duration = Duration::from_secs(120);

/// The requests of a storage that run at the same time. Others wait.
///
/// Each has a connection of its own, because DynamoDB speaks HTTP/1.1, and the driver opens any number of them. Without
/// this limit, a burst of requests could use up the open files of the process (usually 1024), or more connections than
/// the other side accepts: DynamoDB Local has closed some of 1500. The clients of AWS for Java and JavaScript allow 50.
/// With answers in 5 milliseconds, 128 connections carry 25,000 requests in a second.
const MAX_REQUESTS: usize = 128;

pub(super) struct Table {
    client_settings: ClientSettings,
    client: OnceCell<Client>,
    client_task: SharedTask<Client>,
    permits: Semaphore,
    pub(super) naming: Naming,
    /// Whether reads are strongly consistent.
    pub(super) consistent: bool,
    create_if_missing: bool,
    creation: SharedTask<Result<()>>,
}

impl Table {
    pub(super) fn new(
        client_settings: ClientSettings,
        naming: Naming,
        consistent: bool,
        create_if_missing: bool,
    ) -> Self {
        Self {
            client_settings,
            client: OnceCell::new(),
            client_task: SharedTask::default(),
            permits: Semaphore::new(MAX_REQUESTS),
            naming,
            consistent,
            create_if_missing,
            creation: SharedTask::default(),
        }
    }

    /// Sends a request that has a condition.
    ///
    /// The inner error is a condition that was not met: only the operation knows what that means.
    pub(super) async fn send_conditional<O, E, R, F>(
        &self,
        is_write: bool,
        request: impl Fn(&Client, &Naming) -> F + Send + Sync,
    ) -> Result<Result<O, E>>
    where
        O: Send,
        E: ProvideErrorMetadata + StdError + Send + 'static,
        R: fmt::Debug + Send + 'static,
        F: Future<Output = Result<O, SdkError<E, R>>> + Send,
    {
        let client = self.client().await?;
        // Boxed, because the driver's futures are large and the cache holds one within another.
        let send = || Box::pin(self.send_unless_throttled(client, || request(client, &self.naming)));
        let mut answer = send().await?;
        // The table may also have been deleted while the program runs, so this is asked with each request.
        if self.create_if_missing && answer.as_ref().is_err_and(is_table_missing) {
            self.create(client).await?;
            answer = send().await?;
        }
        match answer {
            Ok(answer) => Ok(Ok(answer)),
            Err(SdkError::ServiceError(refusal))
                if refusal.err().code() == Some("ConditionalCheckFailedException") =>
            {
                Ok(Err(refusal.into_err()))
            }
            Err(error) => Err(convert(&error, is_write)),
        }
    }

    /// Sends a request that has no condition.
    pub(super) async fn send<O, E, R, F>(
        &self,
        is_write: bool,
        request: impl Fn(&Client, &Naming) -> F + Send + Sync,
    ) -> Result<O>
    where
        O: Send,
        E: ProvideErrorMetadata + StdError + Send + 'static,
        R: fmt::Debug + Send + 'static,
        F: Future<Output = Result<O, SdkError<E, R>>> + Send,
    {
        self.send_conditional(is_write, request).await?.map_err(|_| unexpected_condition_failure())
    }

    /// Returns the client, which the first operation makes.
    async fn client(&self) -> Result<&Client> {
        let make = || async {
            // A task of its own, because asking the environment for settings can take longer than an
            // operation may.
            let made = self.client_task.join(|| {
                let settings = self.client_settings.clone();
                async move { settings.client().await }
            });
            made.await.ok_or_else(runtime_ended)
        };
        self.client.get_or_try_init(make).await
    }

    /// Sends a request, and repeats it while DynamoDB throttles it.
    ///
    /// All attempts together take at most the time of one request. The driver retries a few times itself, but for less
    /// than a second in all, and DynamoDB counts capacity by the second.
    async fn send_unless_throttled<O, E, R, F>(
        &self,
        client: &Client,
        request: impl Fn() -> F + Send + Sync,
    ) -> Result<Result<O, SdkError<E, R>>>
    where
        O: Send,
        E: ProvideErrorMetadata + Send,
        R: Send,
        F: Future<Output = Result<O, SdkError<E, R>>> + Send,
    {
        let end = Instant::now() + operation_timeout(client);
        let attempt = || async {
            let _permit = self.permits.acquire().await;
            request().await
        };
        let mut answer = timeout_at(end, attempt()).await.map_err(|_| timed_out())?;
        let mut backoff = Backoff::default();
        while answer.as_ref().is_err_and(is_throttled) {
            let next = Instant::now() + backoff.next_delay();
            if next >= end {
                break;
            }
            tokio::time::sleep_until(next).await;
            // When the time is up, the throttling is reported, not a timeout: it is the reason.
            let Ok(retried) = timeout_at(end, attempt()).await else { break };
            answer = retried;
        }
        Ok(answer)
    }

    async fn create(&self, client: &Client) -> Result<()> {
        let created = self.creation.join(|| {
            let (client, naming) = (client.clone(), self.naming.clone());
            async move { create_table(&client, &naming).await }
        });
        created.await.unwrap_or_else(|| Err(runtime_ended()))
    }
}

/// Creates the table, and waits until it can be used.
async fn create_table(client: &Client, naming: &Naming) -> Result<()> {
    let attribute = |name: &str| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build()
    };
    let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    let invalid = |_| Error::new(ErrorKind::Config, "dynamodb does not accept the names of the table's keys");
    let requested = client
        .create_table()
        .table_name(&naming.table)
        // On demand, because the load of a cache is not known in advance.
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute(&naming.partition).map_err(invalid)?)
        .attribute_definitions(attribute(&naming.sort).map_err(invalid)?)
        .key_schema(key(&naming.partition, KeyType::Hash).map_err(invalid)?)
        .key_schema(key(&naming.sort, KeyType::Range).map_err(invalid)?)
        .send()
        .await;
    match requested {
        Ok(_) => tracing::info!("the table in dynamodb is missing and is being created"),
        // Another process creates it.
        Err(error) if error.code() == Some("ResourceInUseException") => {}
        Err(error) => return Err(convert(&error, true)),
    }
    tokio::time::timeout(CREATION_TIMEOUT, wait_until_active(client, naming)).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, "the table in dynamodb was not created in time"))
    })?;
    // Not an error: the storage works without it, and the table exists.
    if let Err(error) = enable_time_to_live(client, naming).await {
        tracing::warn!(
            %error,
            "time to live cannot be enabled in dynamodb: enable it by hand, or call delete_expired regularly"
        );
    }
    Ok(())
}

async fn wait_until_active(client: &Client, naming: &Naming) -> Result<()> {
    loop {
        let status = match client.describe_table().table_name(&naming.table).send().await {
            Ok(answer) => answer.table.and_then(|table| table.table_status),
            // Not all servers of DynamoDB know a new table at once.
            Err(error) if is_table_missing(&error) => None,
            Err(error) => return Err(convert(&error, true)),
        };
        if status == Some(TableStatus::Active) {
            return Ok(());
        }
        tokio::time::sleep(STATUS_POLL_INTERVAL).await;
    }
}

/// Has DynamoDB delete expired records.
async fn enable_time_to_live(client: &Client, naming: &Naming) -> Result<()> {
    let specification =
        TimeToLiveSpecification::builder().attribute_name(&naming.expires).enabled(true).build();
    let specification = specification.map_err(|_| {
        Error::new(ErrorKind::Config, "dynamodb does not accept the name of the expiry attribute")
    })?;
    let requested = client
        .update_time_to_live()
        .table_name(&naming.table)
        .time_to_live_specification(specification)
        .send();
    let Err(error) = requested.await else { return Ok(()) };
    // DynamoDB refuses to enable it twice: another process that created the table may have done so.
    let described = client.describe_time_to_live().table_name(&naming.table).send().await;
    let status = described.ok().and_then(|described| described.time_to_live_description?.time_to_live_status);
    match status {
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) => Ok(()),
        _ => Err(convert(&error, true)),
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("consistent", &self.consistent)
            .field("create_if_missing", &self.create_if_missing)
            .finish_non_exhaustive()
    }
}
