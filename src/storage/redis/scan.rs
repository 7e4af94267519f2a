//! Lists the keys of one cache, without blocking the server.
//!
//! # Invariants
//!
//! - Every master of a cluster is scanned, in pages.
//! - [`keys`](Scan::keys) returns each key once. `SCAN` may repeat some, so it remembers all of them: about 40 bytes for each.

use std::collections::HashSet;
use std::sync::Arc;

use deadpool_redis::redis::cluster_routing::{
    MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo,
};
use deadpool_redis::redis::{Cmd, RedisResult, Value, cmd, from_redis_value};
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::connections::{CommandKind, Connection, Connections, Request};
use super::error::{map_error, unexpected_answer};
use super::naming::Naming;
use crate::error::Result;
use crate::storage::key::Key;

/// How many keys the server looks at for one page. That takes it about 1 ms, in which it does nothing else.
const PAGE_LEN: usize = 1000;

/// The host and port of a master of a cluster.
type Node = (String, u16);

#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    connections: &'a Arc<Connections>,
    naming: &'a Naming,
    is_cluster: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn new(connections: &'a Arc<Connections>, naming: &'a Naming, is_cluster: bool) -> Self {
        Self { connections, naming, is_cluster }
    }

    /// Returns each key once.
    pub(super) fn keys(self) -> impl Stream<Item = Result<Key>> + Send + use<'a> {
        let mut seen = HashSet::new();
        self.pages()
            .map_ok(|page| stream::iter(page).map(Ok))
            .try_flatten()
            .try_filter(move |key| std::future::ready(seen.insert(*key)))
    }

    /// Returns the keys in pages. Some keys may be repeated.
    pub(super) fn pages(self) -> impl Stream<Item = Result<Vec<Key>>> + Send + use<'a> {
        stream::once(self.nodes())
            .map_ok(move |nodes| {
                stream::iter(nodes).map(Ok).map_ok(move |node| self.node_pages(node)).try_flatten()
            })
            .try_flatten()
    }

    fn node_pages(self, node: Option<Node>) -> impl Stream<Item = Result<Vec<Key>>> + Send + use<'a> {
        // The cursor 0 begins a scan, and ends it as an answer.
        let begin = Some(("0".to_owned(), node));
        stream::try_unfold(begin, move |position| async move {
            let Some((cursor, node)) = position else { return Ok(None) };
            let (cursor, page) = self.page(&cursor, node.as_ref()).await?;
            let next = (cursor != "0").then_some((cursor, node));
            Ok(Some((page, next)))
        })
    }

    /// Returns every server that has keys. `None` stands for the only one.
    async fn nodes(self) -> Result<Vec<Option<Node>>> {
        if !self.is_cluster {
            return Ok(vec![None]);
        }
        // The driver has no list of the masters, but its answer to a command for all of them names each.
        let all =
            RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::Special)));
        let Value::Map(answers) = self.route(cmd("PING"), all).await? else {
            return Err(unexpected_answer());
        };
        let node = |(address, _)| {
            let address: String = from_redis_value(address).ok()?;
            let (host, port) = address.rsplit_once(':')?;
            Some((host.to_owned(), port.parse().ok()?))
        };
        answers.into_iter().map(|answer| node(answer).map(Some).ok_or_else(unexpected_answer)).collect()
    }

    /// Reads the page at a cursor. Returns the next cursor and the keys.
    async fn page(self, cursor: &str, node: Option<&Node>) -> Result<(String, Vec<Key>)> {
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(self.naming.pattern()).arg("COUNT").arg(PAGE_LEN);
        let answer = match node {
            None => self.connections.run(Request::Command(&command), CommandKind::READ).await?,
            Some((host, port)) => {
                let node = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
                self.route(command, RoutingInfo::SingleNode(node)).await?
            }
        };
        let (cursor, names): (String, Vec<Vec<u8>>) =
            from_redis_value(answer).map_err(|_| unexpected_answer())?;
        // Names that no record has are those of another program.
        let keys = names.iter().filter_map(|name| self.naming.key(std::str::from_utf8(name).ok()?)).collect();
        Ok((cursor, keys))
    }

    /// Sends a command to the nodes of a cluster that the routing names.
    async fn route(self, command: Cmd, routing: RoutingInfo) -> Result<Value> {
        let (_, connection) = self.connections.get().await?;
        let answer: RedisResult<Value> = match connection {
            Connection::Cluster(mut cluster) => cluster.route_command(command, routing).await,
            Connection::Server(_) => return Err(unexpected_answer()),
        };
        answer.and_then(Value::extract_error).map_err(|error| map_error(&error, false))
    }
}
