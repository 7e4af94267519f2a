//! The table: asking it, and making it where it is missing.
//!
//! Promises: every request ends within the settings' time; a table that is made is made once at a time, by a task that
//! goes on without who asked for it, and two processes that make it at once both end well.

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
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::failure::{failed, is_no_table, is_throttled, no_runtime, strange};
use super::naming::Naming;
use super::pauses::Pauses;
use super::source::{Source, longest};
use super::underway::Underway;
use crate::error::{Error, ErrorKind, Result};

/// How often a table that is being made is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// AWS makes a table in some seconds.
const MAKE: Duration = Duration::from_secs(120);

pub(super) struct Table {
    source: Source,
    client: OnceCell<Client>,
    connecting: Underway<Client>,
    pub(super) naming: Naming,
    pub(super) consistent: bool,
    create_if_missing: bool,
    making: Underway<Result<()>>,
}

impl Table {
    pub(super) fn new(source: Source, naming: Naming, consistent: bool, create_if_missing: bool) -> Self {
        let (client, connecting, making) = (OnceCell::new(), Underway::default(), Underway::default());
        Self { source, client, connecting, naming, consistent, create_if_missing, making }
    }

    /// Asks DynamoDB. The inner error is a condition that was not met, which only the operation understands.
    pub(super) async fn ask<O, E, R, F>(
        &self,
        writes: bool,
        request: impl Fn(&Client, &Naming) -> F + Send + Sync,
    ) -> Result<Result<O, E>>
    where
        O: Send,
        E: ProvideErrorMetadata + StdError + Send + 'static,
        R: fmt::Debug + Send + 'static,
        F: Future<Output = Result<O, SdkError<E, R>>> + Send,
    {
        let client = self.client().await?;
        // The driver's futures are large, and the cache holds one within another.
        let ask = || Box::pin(patiently(client, || request(client, &self.naming)));
        let mut answer = ask().await;
        if self.create_if_missing && answer.as_ref().is_err_and(is_no_table) {
            self.make(client).await?;
            answer = ask().await;
        }
        match answer {
            Ok(answer) => Ok(Ok(answer)),
            Err(SdkError::ServiceError(refusal))
                if refusal.err().code() == Some("ConditionalCheckFailedException") =>
            {
                Ok(Err(refusal.into_err()))
            }
            Err(error) => Err(failed(&error, writes)),
        }
    }

    /// As [`ask`](Table::ask), for a request without a condition.
    pub(super) async fn run<O, E, R, F>(
        &self,
        writes: bool,
        request: impl Fn(&Client, &Naming) -> F + Send + Sync,
    ) -> Result<O>
    where
        O: Send,
        E: ProvideErrorMetadata + StdError + Send + 'static,
        R: fmt::Debug + Send + 'static,
        F: Future<Output = Result<O, SdkError<E, R>>> + Send,
    {
        self.ask(writes, request).await?.map_err(|_| strange())
    }

    /// What the environment says may take a while to find out.
    async fn client(&self) -> Result<&Client> {
        let connect = || async {
            let connecting = self.connecting.join(|| {
                let source = self.source.clone();
                async move { source.client().await }
            });
            connecting.await.ok_or_else(no_runtime)
        };
        self.client.get_or_try_init(connect).await
    }

    async fn make(&self, client: &Client) -> Result<()> {
        let making = self.making.join(|| {
            let (client, naming) = (client.clone(), self.naming.clone());
            async move { create(&client, &naming).await }
        });
        making.await.unwrap_or_else(|| Err(no_runtime()))
    }
}

/// Asks again while DynamoDB has no capacity, within the time of one request. The driver's own few retries end sooner
/// than a second, for which capacity is counted.
async fn patiently<O, E, R, F>(client: &Client, request: impl Fn() -> F) -> Result<O, SdkError<E, R>>
where
    E: ProvideErrorMetadata,
    F: Future<Output = Result<O, SdkError<E, R>>>,
{
    let end = Instant::now() + longest(client);
    let mut answer = request().await;
    let mut pauses = Pauses::default();
    while answer.as_ref().is_err_and(is_throttled) {
        let next = Instant::now() + pauses.next();
        if next >= end {
            break;
        }
        tokio::time::sleep_until(next).await;
        // Whoever is not answered by the end is told why it waited.
        let Ok(again) = tokio::time::timeout_at(end, request()).await else { break };
        answer = again;
    }
    answer
}

async fn create(client: &Client, naming: &Naming) -> Result<()> {
    let attribute = |name: &str| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build()
    };
    let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    let unusable = |_| Error::new(ErrorKind::Config, "the keys of the table in dynamodb cannot be used");
    let asked = client
        .create_table()
        .table_name(&naming.table)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute(&naming.partition).map_err(unusable)?)
        .attribute_definitions(attribute(&naming.sort).map_err(unusable)?)
        .key_schema(key(&naming.partition, KeyType::Hash).map_err(unusable)?)
        .key_schema(key(&naming.sort, KeyType::Range).map_err(unusable)?)
        .send()
        .await;
    match asked {
        Ok(_) => tracing::info!("the table in dynamodb was missing and is being made"),
        Err(error) if error.code() == Some("ResourceInUseException") => {} // somebody else was first
        Err(error) => return Err(failed(&error, true)),
    }
    tokio::time::timeout(MAKE, active(client, naming)).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, "the table in dynamodb was not made in time"))
    })?;
    if let Err(error) = expire(client, naming).await {
        tracing::warn!(%error, "dynamodb does not drop expired records by itself: call delete_expired");
    }
    Ok(())
}

async fn active(client: &Client, naming: &Naming) -> Result<()> {
    loop {
        let status = match client.describe_table().table_name(&naming.table).send().await {
            Ok(answer) => answer.table.and_then(|table| table.table_status),
            Err(error) if is_no_table(&error) => None, // not everywhere known yet
            Err(error) => return Err(failed(&error, true)),
        };
        if status == Some(TableStatus::Active) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Lets DynamoDB drop what is over.
async fn expire(client: &Client, naming: &Naming) -> Result<()> {
    let specification =
        TimeToLiveSpecification::builder().attribute_name(&naming.expires).enabled(true).build();
    let specification =
        specification.map_err(|_| Error::new(ErrorKind::Config, "the expiry's name cannot be used"))?;
    let asked = client
        .update_time_to_live()
        .table_name(&naming.table)
        .time_to_live_specification(specification)
        .send();
    let Err(error) = asked.await else { return Ok(()) };
    // Whoever made the table at the same time may have done this too.
    let there = client.describe_time_to_live().table_name(&naming.table).send().await;
    let status = there.ok().and_then(|there| there.time_to_live_description?.time_to_live_status);
    match status {
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) => Ok(()),
        _ => Err(failed(&error, true)),
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
