//! The store itself: each operation is one command.

use std::fmt;
use std::sync::Arc;

use deadpool_redis::redis::{Cmd, Value, cmd};
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::builder::RedisStorageBuilder;
use super::links::{Links, Manner};
use super::listing::Listing;
use super::naming::{Naming, PAGE};
use super::scripts;
use super::server::RedisServer;
use super::value::{self, Expiry, digits};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::contract::{Retain, Storage};
use crate::storage::key::Key;
use crate::storage::record::{Record, Stamp};
use crate::storage::remote::INLINE_LEN;
use crate::time::{Clock, Timestamp};

/// Redis takes 512 MB; a record of ours is a chunk of a body, and this keeps others waiting for long enough.
const LONGEST: usize = 16 << 20;
/// How many names are asked for by a check. Their slots lie apart: one node of several that have about as many each lacks some
/// of them.
const PROBES: u8 = 16;
/// How many commands of one operation are under way at the same time.
pub(super) const AT_ONCE: usize = 64;

/// Responses in Redis, which many machines may share. See the [module](crate::storage::redis) for what it promises.
///
/// ```no_run
/// use tower_response_cache::CacheLayer;
/// use tower_response_cache::storage::RedisStorage;
///
/// # async fn open() -> tower_response_cache::Result<()> {
/// let storage = RedisStorage::connect("redis://127.0.0.1/0?cache_name=app").await?;
/// let layer = CacheLayer::new(storage);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisStorage {
    inner: Arc<Inner>,
}

struct Inner {
    reads: Arc<Links>,
    /// A connection of their own, where there is more than one.
    writes: Arc<Links>,
    naming: Naming,
    /// Keys of different entries may be on different nodes.
    is_cluster: bool,
    clock: Clock,
}

impl RedisStorage {
    /// Connects to the Redis at this address, with the default settings. A server that cannot be reached now is no
    /// error, since requests go on without it: an event tells of it, and [`check`](RedisStorage::check) tells why.
    ///
    /// # Errors
    /// As [`RedisStorageBuilder::connect`].
    pub async fn connect(server: impl Into<RedisServer>) -> Result<Self> {
        Self::builder(server).connect().await
    }

    /// Sets up a store in this Redis: an address, the driver's own settings, or a ready client or pool.
    pub fn builder(server: impl Into<RedisServer>) -> RedisStorageBuilder {
        RedisStorageBuilder::new(server.into())
    }

    /// Asks the server whether it would answer.
    ///
    /// # Errors
    /// Why not: [`Unavailable`](ErrorKind::Unavailable) or [`Timeout`](ErrorKind::Timeout) where it cannot be reached,
    /// [`Denied`](ErrorKind::Denied) where it refuses the credentials or they give no right to read,
    /// [`Config`](ErrorKind::Config) where it is one node of a cluster.
    pub async fn check(&self) -> Result<()> {
        // One node of several has some of the slots: of so many names, it lacks one.
        for number in 0..if self.inner.is_cluster { 1 } else { PROBES } {
            let name = self.inner.naming.name(Key::head([number; 16]));
            self.inner.run(cmd("EXISTS").arg(name), Manner::READ).await?;
        }
        Ok(())
    }

    /// Tells of a policy that drops the marks of invalidations before everything else. A user who may not ask for it is told
    /// nothing.
    pub(super) async fn warn_of_policy(&self) {
        if self.inner.is_cluster {
            return;
        }
        let told = match self.inner.run(cmd("INFO").arg("memory"), Manner::READ).await {
            Ok(Value::BulkString(told)) => String::from_utf8_lossy(&told).into_owned(),
            Ok(Value::VerbatimString { text, .. }) => text,
            _ => return,
        };
        let told = |name: &str| told.lines().find_map(|line| line.trim().strip_prefix(name));
        let policy = told("maxmemory_policy:").filter(|_| told("maxmemory:") != Some("0"));
        if let Some(policy) = policy.filter(|policy| policy.starts_with("volatile-")) {
            tracing::warn!(
                policy,
                "the policy of this redis drops the marks of invalidations before other records when its memory is \
                 full: set maxmemory-policy to allkeys-lru or noeviction"
            );
        }
    }

    pub(super) fn new(
        reads: Arc<Links>,
        writes: Arc<Links>,
        naming: Naming,
        is_cluster: bool,
        clock: Clock,
    ) -> Self {
        Self { inner: Arc::new(Inner { reads, writes, naming, is_cluster, clock }) }
    }
}

impl Inner {
    async fn run(&self, command: &Cmd, manner: Manner) -> Result<Value> {
        let links = if manner.writes { &self.writes } else { &self.reads };
        // The driver's futures are large, and the cache holds one within another.
        Box::pin(links.run(command, manner)).await
    }

    /// How many of something a command says that there were.
    async fn count(&self, command: &Cmd, manner: Manner) -> Result<u64> {
        match self.run(command, manner).await? {
            Value::Int(count) => Ok(count.unsigned_abs()),
            _ => Err(Error::new(ErrorKind::Other, "redis gave an answer of another kind than was asked for")),
        }
    }

    async fn read(&self, key: Key) -> Result<Option<Record>> {
        match self.run(cmd("GET").arg(self.naming.name(key)), Manner::READ).await {
            Ok(Value::BulkString(value)) => Ok(value::decode(value)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn expiry(&self, until: Timestamp) -> Expiry {
        Expiry::of(until, self.clock.now())
    }

    /// Keys that one command may name together: those of an entry, which are in one slot.
    fn groups(keys: &[Key]) -> Vec<Vec<Key>> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.chunk_by(|one, next| one.entry == next.entry)
            .flat_map(|group| group.chunks(PAGE).map(<[Key]>::to_vec))
            .collect()
    }

    /// Runs a command for each group of keys, and adds up what it counts.
    async fn sum(&self, keys: &[Key], manner: Manner, command: impl Fn(&[Key]) -> Cmd + Sync) -> Result<u64> {
        stream::iter(Self::groups(keys))
            .map(|group| {
                let command = command(&group);
                async move { self.count(&command, manner).await }
            })
            .buffer_unordered(AT_ONCE)
            .try_fold(0, |sum, count| async move { Ok(sum + count) })
            .await
    }

    fn named(&self, mut command: Cmd, keys: &[Key]) -> Cmd {
        for key in keys {
            command.arg(self.naming.name(*key));
        }
        command
    }

    async fn unlink(&self, keys: &[Key]) -> Result<u64> {
        self.sum(keys, Manner::ONCE, |group| self.named(cmd("UNLINK"), group)).await
    }

    /// Writes where nothing at all is.
    async fn write_new(&self, name: &str, record: &Record, value: &[u8]) -> Result<bool> {
        let expiry = self.expiry(record.retain_until());
        if expiry == Expiry::Past {
            return Ok(false);
        }
        let answer = self.run(set(name, value, expiry).arg("NX"), Manner::WRITE).await?;
        Ok(answer == Value::Okay)
    }

    /// Compares with the stamp that is in the bytes there, whatever they are.
    async fn compare(&self, name: &str, seen: Option<Stamp>, record: &Record, value: &[u8]) -> Result<bool> {
        let seen = seen.map(Stamp::to_bytes);
        let mut command = cmd("EVAL");
        command.arg(scripts::WRITE_IF).arg(1).arg(name);
        command.arg(seen.as_ref().map_or(&[][..], |stamp| &stamp[..])).arg(&record.stamp().to_bytes()[..]);
        command.arg(self.expiry(record.retain_until()).argument()).arg(value);
        Ok(self.count(&command, Manner::WRITE).await? == 1)
    }

    fn listing(&self) -> Listing<'_> {
        Listing::new(&self.reads, &self.naming, self.is_cluster)
    }
}

fn set(name: &str, value: &[u8], expiry: Expiry) -> Cmd {
    let mut command = cmd("SET");
    command.arg(name).arg(value);
    if let Expiry::In(millis) = expiry {
        command.arg("PX").arg(millis);
    }
    command
}

fn fits(record: &Record) -> Result<bytes::Bytes> {
    let value = value::encode(record);
    if value.len() - value::TIME > LONGEST {
        return Err(Error::new(ErrorKind::TooLarge, "the record is longer than this store takes"));
    }
    Ok(value)
}

// As provided: `hold`, since the server evicts and knows no readers; `usage`, since it counts its memory, which others share;
// `close`, since a write is the server's when it returns.
impl Storage for RedisStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.inner.read(key).await
    }

    async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        let there =
            self.inner.sum(keys, Manner::READ, |group| self.inner.named(cmd("EXISTS"), group)).await?;
        Ok(there == keys.len() as u64)
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        let value = fits(&record)?;
        let name = self.inner.naming.name(key);
        let command = match self.inner.expiry(record.retain_until()) {
            Expiry::Past => cmd("UNLINK").arg(name).take(),
            expiry => set(&name, &value, expiry),
        };
        self.inner.run(&command, Manner::WRITE).await.map(drop)
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        let value = fits(&record)?;
        let name = self.inner.naming.name(key);
        // An empty place, the usual case of a miss, needs no script.
        if seen.is_none() && self.inner.write_new(&name, &record, &value).await? {
            return Ok(true);
        }
        if self.inner.compare(&name, seen, &record, &value).await? {
            return Ok(true);
        }
        if seen.is_some() {
            return Ok(false);
        }
        // What is there may be damaged, which no script can tell: then it counts as absent.
        let there = match self.inner.run(cmd("GET").arg(&name), Manner::READ).await? {
            Value::BulkString(there) => there,
            _ => return Ok(false),
        };
        let stamp = value::stamp_in(&there);
        if value::decode(there).is_some() {
            return Ok(false);
        }
        self.inner.compare(&name, stamp, &record, &value).await
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        Ok(self.inner.unlink(&[key]).await? > 0)
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        self.inner.unlink(keys).await
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        let (sign, time) = match retain {
            Retain::AtLeast(time) => ("<", time),
            Retain::AtMost(time) => (">", time),
        };
        let expiry = self.inner.expiry(time).argument();
        let command = |group: &[Key]| {
            let mut command = cmd("EVAL");
            command.arg(scripts::RETAIN).arg(group.len());
            let mut command = self.inner.named(command, group);
            command.arg(sign).arg(digits(time)).arg(&expiry);
            command
        };
        self.inner.sum(keys, Manner::WRITE, command).await
    }

    /// Asks nothing of the server for a time that has come: it has dropped what was due by then. For a later one, and with a clock
    /// of the user's, it walks over all keys.
    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        if self.inner.clock.is_system() && now <= self.inner.clock.now() {
            return Ok(0);
        }
        let inner = &*self.inner;
        let due = move |key: Key| async move {
            let name = inner.naming.name(key);
            let time = inner.run(cmd("GETRANGE").arg(&name).arg(0).arg(value::TIME - 1), Manner::READ).await;
            let time = match time? {
                Value::BulkString(digits) => value::time(&digits),
                _ => None,
            };
            if time.is_none_or(|time| time > now) {
                return Ok(0);
            }
            let mut command = cmd("EVAL");
            command.arg(scripts::EXPIRE).arg(1).arg(name).arg(digits(now));
            inner.count(&command, Manner::ONCE).await
        };
        let keys = inner.listing().keys();
        keys.map(|key| async move { due(key?).await })
            .buffer_unordered(AT_ONCE)
            .try_fold(0, |sum, count| async move { Ok(sum + count) })
            .await
    }

    async fn clear(&self) -> Result<()> {
        let inner = &*self.inner;
        inner.listing().pages().try_for_each(|page| async move { inner.unlink(&page).await.map(drop) }).await
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        self.inner.listing().keys()
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        let inner = &*self.inner;
        self.keys()
            .try_filter(|key| std::future::ready(key.kind.is_listed()))
            .map(move |key| async move {
                let key = key?;
                Ok(inner.read(key).await?.map(|record| (key, record)))
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(|value| std::future::ready(value.transpose()))
    }

    fn max_record_len(&self) -> usize {
        LONGEST
    }

    fn inline_len(&self) -> usize {
        INLINE_LEN
    }

    async fn check(&self) -> Result<()> {
        Self::check(self).await
    }
}

impl fmt::Debug for RedisStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStorage").field("is_cluster", &self.inner.is_cluster).finish_non_exhaustive()
    }
}
