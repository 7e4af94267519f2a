//! Walks over the keys of one cache, without keeping the server from others.
//!
//! Promises: `SCAN` in pages, on every master of a cluster; each key once, though `SCAN` may repeat some (so a walk
//! remembers what it gave: 40 bytes for each key).

use std::collections::HashSet;
use std::sync::Arc;

use deadpool_redis::redis::cluster_routing::{
    MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo,
};
use deadpool_redis::redis::{Cmd, RedisResult, Value, cmd, from_redis_value};
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::failure::failed;
use super::link::Link;
use super::links::{Links, Manner};
use super::naming::{Naming, PAGE};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::key::Key;

/// A master of a cluster: host and port.
type Node = (String, u16);

#[derive(Clone, Copy)]
pub(super) struct Listing<'a> {
    links: &'a Arc<Links>,
    naming: &'a Naming,
    is_cluster: bool,
}

impl<'a> Listing<'a> {
    pub(super) fn new(links: &'a Arc<Links>, naming: &'a Naming, is_cluster: bool) -> Self {
        Self { links, naming, is_cluster }
    }

    /// Each key once.
    pub(super) fn keys(self) -> impl Stream<Item = Result<Key>> + Send + use<'a> {
        let mut given = HashSet::new();
        self.pages()
            .map_ok(|page| stream::iter(page).map(Ok))
            .try_flatten()
            .try_filter(move |key| std::future::ready(given.insert(*key)))
    }

    /// The keys, page by page; some may come twice.
    pub(super) fn pages(self) -> impl Stream<Item = Result<Vec<Key>>> + Send + use<'a> {
        stream::once(self.nodes())
            .map_ok(move |nodes| {
                stream::iter(nodes).map(Ok).map_ok(move |node| self.pages_of(node)).try_flatten()
            })
            .try_flatten()
    }

    fn pages_of(self, node: Option<Node>) -> impl Stream<Item = Result<Vec<Key>>> + Send + use<'a> {
        let begin = Some(("0".to_owned(), node));
        stream::try_unfold(begin, move |at| async move {
            let Some((cursor, node)) = at else { return Ok(None) };
            let (cursor, page) = self.page(&cursor, node.as_ref()).await?;
            let next = (cursor != "0").then_some((cursor, node));
            Ok(Some((page, next)))
        })
    }

    /// Every server that has keys; `None`: the only one.
    async fn nodes(self) -> Result<Vec<Option<Node>>> {
        if !self.is_cluster {
            return Ok(vec![None]);
        }
        let all =
            RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::Special)));
        let Value::Map(answers) = self.route(cmd("PING"), all).await? else { return Err(strange()) };
        let node = |(address, _)| {
            let address: String = from_redis_value(address).ok()?;
            let (host, port) = address.rsplit_once(':')?;
            Some((host.to_owned(), port.parse().ok()?))
        };
        answers.into_iter().map(|answer| node(answer).map(Some).ok_or_else(strange)).collect()
    }

    async fn page(self, cursor: &str, node: Option<&Node>) -> Result<(String, Vec<Key>)> {
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(self.naming.pattern()).arg("COUNT").arg(PAGE);
        let answer = match node {
            None => self.links.run(&command, Manner::READ).await?,
            Some((host, port)) => {
                let node = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
                self.route(command, RoutingInfo::SingleNode(node)).await?
            }
        };
        let (cursor, names): (String, Vec<Vec<u8>>) = from_redis_value(answer).map_err(|_| strange())?;
        let keys = names.iter().filter_map(|name| self.naming.key(std::str::from_utf8(name).ok()?)).collect();
        Ok((cursor, keys))
    }

    async fn route(self, command: Cmd, routing: RoutingInfo) -> Result<Value> {
        let (_, link) = self.links.link().await?;
        let answer: RedisResult<Value> = match link {
            Link::Cluster(mut cluster) => cluster.route_command(command, routing).await,
            Link::Server(_) => return Err(strange()),
        };
        answer.and_then(Value::extract_error).map_err(|error| failed(&error, false))
    }
}

fn strange() -> Error {
    Error::new(ErrorKind::Other, "redis gave an answer of another kind than was asked for")
}
