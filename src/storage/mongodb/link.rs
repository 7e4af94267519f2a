//! The way to the collection.
//!
//! Promises: the client is made by the first operation, on its runtime; one that could not be made is tried again by
//! the next; no operation outlasts the response timeout; reads go to the primary and see what was written before.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::mongodb::bson::Document;
use ::mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, ReadPreference, SelectionCriteria,
    WriteConcern,
};
use ::mongodb::{Client, Collection};
use futures_util::FutureExt;
use tokio::sync::OnceCell;

use super::abandoned::Abandoned;
use super::failure::{failed, late};
use super::indexes::Indexes;
use super::server::Target;
use crate::error::{ErrorKind, Result};
use crate::storage::key::Key;

pub(super) struct Link {
    target: Target,
    database: String,
    collection: String,
    write_concern: WriteConcern,
    response: Duration,
    records: OnceCell<Collection<Document>>,
    indexes: Arc<Indexes>,
    abandoned: Arc<Abandoned>,
}

impl Link {
    pub(super) fn new(
        target: Target,
        database: String,
        collection: String,
        write_concern: WriteConcern,
        response: Duration,
    ) -> Self {
        let (records, indexes, abandoned) = (OnceCell::new(), Arc::default(), Arc::default());
        Self { target, database, collection, write_concern, response, records, indexes, abandoned }
    }

    /// Carries out a command that looks at these keys (none: all) and changes nothing.
    pub(super) async fn read<T, F>(
        &self,
        keys: &[Key],
        command: impl FnOnce(Collection<Document>) -> F + Send,
    ) -> Result<T>
    where
        F: Future<Output = ::mongodb::error::Result<T>> + Send,
    {
        let answer = self
            .within(async {
                self.abandoned.wait(keys).await;
                Ok(command(self.records().await?.clone()).await)
            })
            .await;
        self.noted(false, answer)?.map_err(|error| failed(&error, false))
    }

    /// Carries out one that may change them.
    pub(super) async fn write<T, F>(
        &self,
        keys: &[Key],
        command: impl FnOnce(Collection<Document>) -> F + Send,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = ::mongodb::error::Result<T>> + Send + 'static,
    {
        self.try_write(keys, command).await?.map_err(|error| failed(&error, true))
    }

    /// The same, for whom the driver's error says something.
    pub(super) async fn try_write<T, F>(
        &self,
        keys: &[Key],
        command: impl FnOnce(Collection<Document>) -> F + Send,
    ) -> Result<::mongodb::error::Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = ::mongodb::error::Result<T>> + Send + 'static,
    {
        let answer = self
            .within(async {
                self.abandoned.wait(keys).await;
                let records = self.records().await?;
                self.indexes.ensure(records, self.response);
                Ok(self.abandoned.keep(keys, command(records.clone()).boxed()).await)
            })
            .await;
        self.noted(true, answer)
    }

    /// A server that is away may come back without its indexes.
    fn noted<T>(
        &self,
        writes: bool,
        answer: Result<::mongodb::error::Result<T>>,
    ) -> Result<::mongodb::error::Result<T>> {
        let kind = match &answer {
            Ok(Ok(_)) => return answer,
            Ok(Err(error)) => failed(error, writes).kind(),
            Err(error) => error.kind(),
        };
        if matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout) {
            self.indexes.forget();
        }
        answer
    }

    async fn within<T>(&self, future: impl Future<Output = Result<T>> + Send) -> Result<T> {
        // The driver's futures are large, and the cache holds one within another.
        tokio::time::timeout(self.response, Box::pin(future)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn records(&self) -> Result<&Collection<Document>> {
        self.records.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<Collection<Document>> {
        let opened = async {
            Ok(match &self.target {
                Target::Client(client) => client.clone(),
                Target::Options(options) => Client::with_options((**options).clone())?,
                Target::Address(address) => {
                    Client::with_options(ClientOptions::parse((**address).clone()).await?)?
                }
            })
        };
        let client = opened.await.map_err(|error| failed(&error, false))?;
        let write = self.write_concern.clone();
        let mut options = CollectionOptions::default();
        options.read_concern = Some(match write.w {
            None | Some(Acknowledgment::Majority) => ReadConcern::majority(),
            Some(_) => ReadConcern::local(),
        });
        options.write_concern = Some(write);
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        Ok(client.database(&self.database).collection_with_options(&self.collection, options))
    }
}
