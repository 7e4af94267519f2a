//! The way to the collection.
//!
//! Promises: the client is made by the first operation, on its runtime; one that could not be made is tried again by
//! the next; no operation outlasts the response timeout; reads go to the primary and see what was written before.

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use ::mongodb::bson::Document;
use ::mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, ReadPreference, SelectionCriteria,
    WriteConcern,
};
use ::mongodb::{Client, Collection};
use tokio::sync::OnceCell;

use super::failure::{failed, late};
use super::indexes::Indexes;
use super::server::Target;
use crate::error::{ErrorKind, Result};

pub(super) struct Link {
    target: Target,
    database: String,
    collection: String,
    write_concern: Option<WriteConcern>,
    response: Duration,
    records: OnceCell<Collection<Document>>,
    indexes: Arc<Indexes>,
}

impl Link {
    pub(super) fn new(
        target: Target,
        database: String,
        collection: String,
        write_concern: Option<WriteConcern>,
        response: Duration,
    ) -> Self {
        let (records, indexes) = (OnceCell::new(), Arc::default());
        Self { target, database, collection, write_concern, response, records, indexes }
    }

    /// Carries out a command that changes nothing.
    pub(super) async fn read<T, F>(&self, command: impl FnOnce(Collection<Document>) -> F + Send) -> Result<T>
    where
        F: IntoFuture<Output = ::mongodb::error::Result<T>>,
        F::IntoFuture: Send,
    {
        self.run(false, command).await?.map_err(|error| failed(&error, false))
    }

    /// Carries out one that may.
    pub(super) async fn write<T, F>(
        &self,
        command: impl FnOnce(Collection<Document>) -> F + Send,
    ) -> Result<T>
    where
        F: IntoFuture<Output = ::mongodb::error::Result<T>>,
        F::IntoFuture: Send,
    {
        self.try_write(command).await?.map_err(|error| failed(&error, true))
    }

    /// The same, for whom the driver's error says something.
    pub(super) async fn try_write<T, F>(
        &self,
        command: impl FnOnce(Collection<Document>) -> F + Send,
    ) -> Result<::mongodb::error::Result<T>>
    where
        F: IntoFuture<Output = ::mongodb::error::Result<T>>,
        F::IntoFuture: Send,
    {
        let records = self.within(self.records()).await??;
        self.indexes.ensure(records, self.response);
        self.run(true, command).await
    }

    async fn run<T, F>(
        &self,
        writes: bool,
        command: impl FnOnce(Collection<Document>) -> F + Send,
    ) -> Result<::mongodb::error::Result<T>>
    where
        F: IntoFuture<Output = ::mongodb::error::Result<T>>,
        F::IntoFuture: Send,
    {
        let answer = self
            .within(async { Ok(command(self.records().await?.clone()).into_future().await) })
            .await
            .and_then(|answer: Result<_>| answer);
        let is_away = match &answer {
            Err(_) => true,
            Ok(Err(error)) => {
                matches!(failed(error, writes).kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
            }
            Ok(Ok(_)) => false,
        };
        if is_away {
            self.indexes.forget(); // it may come back without its data
        }
        answer
    }

    async fn within<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(self.response, future).await.map_err(|_| late())
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
        let write = self.write_concern.as_ref().or(client.write_concern()).cloned();
        let write = write.unwrap_or_else(WriteConcern::majority);
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
