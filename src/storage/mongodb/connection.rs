//! The connection to the collection.
//!
//! # Invariants
//! - The client is made by the first operation, so that its background tasks run on the runtime of that
//!   operation.
//! - A client that could not be made is tried again by the next operation.
//! - No operation takes longer than the response timeout.
//! - Reads go to the primary and see what was written before.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::mongodb::bson::RawDocumentBuf;
use ::mongodb::error::ErrorKind as DriverKind;
use ::mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, ReadPreference, SelectionCriteria,
    WriteConcern,
};
use ::mongodb::{Client, Collection};
use futures_util::FutureExt;
use tokio::sync::OnceCell;

use super::detached::DetachedCommands;
use super::error::{convert, timed_out};
use super::indexes::Indexes;
use super::server::ClientSource;
use crate::error::{ErrorKind, Result};
use crate::storage::key::Key;

/// A connection to one collection. It is opened by the first operation.
pub(super) struct Connection {
    client: ClientSource,
    database_name: String,
    collection_name: String,
    write_concern: WriteConcern,
    response_timeout: Duration,
    collection: OnceCell<Collection<RawDocumentBuf>>,
    indexes: Arc<Indexes>,
    detached: Arc<DetachedCommands>,
}

impl Connection {
    pub(super) fn new(
        client: ClientSource,
        database_name: String,
        collection_name: String,
        write_concern: WriteConcern,
        response_timeout: Duration,
    ) -> Self {
        Self {
            client,
            database_name,
            collection_name,
            write_concern,
            response_timeout,
            collection: OnceCell::new(),
            indexes: Arc::default(),
            detached: Arc::default(),
        }
    }

    /// Runs a command that reads these keys and changes nothing.
    ///
    /// No keys stand for all keys.
    pub(super) async fn read<T, F>(
        &self,
        keys: &[Key],
        command: impl FnOnce(Collection<RawDocumentBuf>) -> F + Send,
    ) -> Result<T>
    where
        F: Future<Output = ::mongodb::error::Result<T>> + Send,
    {
        let answer = self
            .with_timeout(async {
                self.detached.wait(keys).await;
                Ok(command(self.collection().await?.clone()).await)
            })
            .await;
        self.forget_indexes_on_outage(false, answer)?.map_err(|error| convert(&error, false))
    }

    /// Runs a command that may change these keys.
    ///
    /// No keys stand for all keys.
    pub(super) async fn write<T, F>(
        &self,
        keys: &[Key],
        command: impl FnOnce(Collection<RawDocumentBuf>) -> F + Send,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = ::mongodb::error::Result<T>> + Send + 'static,
    {
        self.try_write(keys, command).await?.map_err(|error| convert(&error, true))
    }

    /// Runs a command that may change many documents at once, and repeats it once if the connections were closed under it.
    ///
    /// The driver closes all of them when the server misses one check, as it does on busy machines. It repeats the
    /// commands that change one document by itself.
    pub(super) async fn write_many<T, F>(
        &self,
        keys: &[Key],
        command: impl Fn(Collection<RawDocumentBuf>) -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = ::mongodb::error::Result<T>> + Send + 'static,
    {
        match self.try_write(keys, &command).await? {
            Err(error) if matches!(*error.kind, DriverKind::ConnectionPoolCleared { .. }) => {
                self.write(keys, &command).await
            }
            answer => answer.map_err(|error| convert(&error, true)),
        }
    }

    /// Runs a command like [`write`](Connection::write) and returns the driver's own error as the inner result.
    ///
    /// For callers that act on the code of the error, such as that of a duplicate key.
    pub(super) async fn try_write<T, F>(
        &self,
        keys: &[Key],
        command: impl FnOnce(Collection<RawDocumentBuf>) -> F + Send,
    ) -> Result<::mongodb::error::Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = ::mongodb::error::Result<T>> + Send + 'static,
    {
        let answer = self
            .with_timeout(async {
                self.detached.wait(keys).await;
                let collection = self.collection().await?;
                self.indexes.ensure_created(collection, self.response_timeout);
                // Only writes are detached: a read that is dropped changes nothing, so no later command must
                // wait for it.
                Ok(self.detached.detach_on_drop(keys, command(collection.clone()).boxed()).await)
            })
            .await;
        self.forget_indexes_on_outage(true, answer)
    }

    /// Has the indexes created again after an outage.
    ///
    /// The server may come back without its data.
    fn forget_indexes_on_outage<T>(
        &self,
        is_write: bool,
        answer: Result<::mongodb::error::Result<T>>,
    ) -> Result<::mongodb::error::Result<T>> {
        let kind = match &answer {
            Ok(Ok(_)) => return answer,
            Ok(Err(error)) => convert(error, is_write).kind(),
            Err(error) => error.kind(),
        };
        if matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout) {
            self.indexes.forget();
        }
        answer
    }

    /// Bounds an operation, including the wait for detached commands and the opening of the collection.
    ///
    /// The driver's own timeouts bound single steps only, such as the selection of a server or the connect.
    async fn with_timeout<T>(&self, operation: impl Future<Output = Result<T>> + Send) -> Result<T> {
        // Boxed, because the driver's futures are large and the cache holds one within another.
        tokio::time::timeout(self.response_timeout, Box::pin(operation))
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }

    async fn collection(&self) -> Result<&Collection<RawDocumentBuf>> {
        // A failed initialization leaves the cell empty, so the next operation tries again.
        self.collection.get_or_try_init(|| self.open_collection()).await
    }

    async fn open_collection(&self) -> Result<Collection<RawDocumentBuf>> {
        let opened = async {
            Ok(match &self.client {
                ClientSource::Client(client) => client.clone(),
                ClientSource::Options(options) => Client::with_options((**options).clone())?,
                // Parsing `mongodb+srv` asks DNS for the servers.
                ClientSource::Address(address) => {
                    Client::with_options(ClientOptions::parse((**address).clone()).await?)?
                }
            })
        };
        let client = opened.await.map_err(|error| convert(&error, false))?;
        let write = self.write_concern.clone();
        let mut options = CollectionOptions::default();
        // A write that waits for fewer than the majority is not yet in what a majority read sees: such a read
        // would miss what this process has just written.
        options.read_concern = Some(match write.w {
            None | Some(Acknowledgment::Majority) => ReadConcern::majority(),
            Some(_) => ReadConcern::local(),
        });
        options.write_concern = Some(write);
        // A secondary lags behind, so a read there could miss an invalidation.
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        Ok(client.database(&self.database_name).collection_with_options(&self.collection_name, options))
    }
}
