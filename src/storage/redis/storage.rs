//! The storage itself. Most operations are one command.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{Cmd, Value, cmd};
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::batches::Batches;
use super::builder::RedisStorageBuilder;
use super::commands::{Commands, PooledCommand};
use super::connections::{CommandKind, Connections, Request};
use super::error::unexpected_answer;
use super::naming::Naming;
use super::scan::Scan;
use super::scripts;
use super::server::RedisServer;
use super::tracking::Tracking;
use super::value::{self, EncodedValue, Expiry, TIME_LEN, encode_time};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::contract::{Retain, Storage};
use crate::storage::key::{Key, Kind};
use crate::storage::recent_records::RecentRecords;
use crate::storage::record::{Record, Stamp};
use crate::time::{Clock, Timestamp};

/// The most bytes of a record. Redis takes values of 512 MB, but a connection sends one after another, and a record is mostly a
/// chunk of 128 KiB. A value of this length already delays the others noticeably.
const MAX_RECORD_LEN: usize = 16 << 20;
/// How many keys [`check`](RedisStorage::check) asks for. They are in different slots, so a node that has only a part of the
/// slots lacks at least one of them, unless it has nearly all.
const PROBES: u8 = 16;
/// How many commands of one operation are sent before the first is answered.
const MAX_IN_FLIGHT: usize = 64;
/// How many keys one command names. That takes the server about 1 ms, in which it does nothing else.
const KEYS_PER_COMMAND: usize = 1000;

/// The length up to which a body is stored with its head. A longer one takes longer to read than the round trip of a second read.
const INLINE_LEN: usize = 32 << 10;

/// A storage in Redis, which many processes on many machines may share.
///
/// The [module](crate::storage::redis) describes its guarantees, its settings and the keys. Clones share one storage.
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
    reads: Arc<Connections>,
    /// The same as `reads` for a single connection or a ready pool.
    writes: Arc<Connections>,
    naming: Naming,
    is_cluster: bool,
    clock: Clock,
    recent: RecentRecords,
    commands: Commands,
    /// `None` for a cluster, whose driver would split a batch by node.
    batches: Option<Arc<Batches>>,
    /// `None` where there is no signal of changes.
    tracking: Option<Arc<Tracking>>,
}

impl RedisStorage {
    /// Connects to a Redis with the default settings.
    ///
    /// A server that cannot be reached now is no error, since requests are served without it. An event reports it, and
    /// [`check`](RedisStorage::check) returns the reason.
    ///
    /// # Errors
    ///
    /// As [`RedisStorageBuilder::connect`].
    pub async fn connect(server: impl Into<RedisServer>) -> Result<Self> {
        Self::builder(server).connect().await
    }

    /// Returns a builder for a storage in a Redis.
    ///
    /// The Redis is given by an address, the driver's own settings, or a ready client or pool. See [`RedisServer`].
    pub fn builder(server: impl Into<RedisServer>) -> RedisStorageBuilder {
        RedisStorageBuilder::new(server.into())
    }

    /// Checks that the server can be used.
    ///
    /// # Errors
    ///
    /// Returns [`Unavailable`](ErrorKind::Unavailable) or [`Timeout`](ErrorKind::Timeout) if the server cannot be reached,
    /// [`Denied`](ErrorKind::Denied) if it refuses the credentials or they give no permission to read, and
    /// [`Config`](ErrorKind::Config) if it is a node of a cluster that is used as a single server.
    pub async fn check(&self) -> Result<()> {
        // A node of a cluster redirects the keys that it lacks, which is an error here. A connection to the cluster follows
        // redirections, so one key is enough.
        for number in 0..if self.inner.is_cluster { 1 } else { PROBES } {
            let name = self.inner.naming.name(Key::head([number; 16]));
            self.inner.run(cmd("EXISTS").arg(name), CommandKind::READ).await?;
        }
        Ok(())
    }

    /// Warns about a `maxmemory-policy` that evicts tombstones before other records.
    ///
    /// Does nothing if the user may not ask for it.
    pub(super) async fn warn_about_eviction_policy(&self) {
        // `INFO` would go to one node of a cluster, and say nothing about the others.
        if self.inner.is_cluster {
            return;
        }
        let info = match self.inner.run(cmd("INFO").arg("memory"), CommandKind::READ).await {
            Ok(Value::BulkString(info)) => String::from_utf8_lossy(&info).into_owned(),
            Ok(Value::VerbatimString { text, .. }) => text,
            _ => return,
        };
        let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name));
        // Without a `maxmemory` nothing is evicted.
        let policy = field("maxmemory_policy:").filter(|_| field("maxmemory:") != Some("0"));
        if let Some(policy) = policy.filter(|policy| policy.starts_with("volatile-")) {
            tracing::warn!(
                policy,
                "when the memory of this redis is full, it evicts the tombstones of invalidations before other \
                 records: set maxmemory-policy to allkeys-lru or noeviction"
            );
        }
    }

    pub(super) fn new(
        reads: Arc<Connections>,
        writes: Arc<Connections>,
        naming: Naming,
        is_cluster: bool,
        clock: Clock,
        tracking: Option<Arc<Tracking>>,
    ) -> Self {
        let (recent, commands) = (RecentRecords::new(), Commands::default());
        let batches = (!is_cluster).then(|| Batches::new(Arc::clone(&reads)));
        let inner = Inner { reads, writes, naming, is_cluster, clock, recent, commands, batches, tracking };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    async fn run(&self, command: &Cmd, kind: CommandKind) -> Result<Value> {
        let connections = if kind.writes { &self.writes } else { &self.reads };
        // Boxed, since the driver's futures are large, and the cache's futures contain this one several times.
        Box::pin(connections.run(Request::Command(command), kind)).await
    }

    /// Runs a command that answers with a count.
    async fn count(&self, command: &Cmd, kind: CommandKind) -> Result<u64> {
        match self.run(command, kind).await? {
            Value::Int(count) => Ok(count.unsigned_abs()),
            _ => Err(unexpected_answer()),
        }
    }

    /// Reads a record, and remembers it if `recent` is given.
    async fn read(&self, key: Key, recent: Option<&RecentRecords>) -> Result<Option<Record>> {
        let command = || {
            let mut command = Cmd::with_capacity(2, "GET".len() + self.naming.max_name_len());
            command.arg("GET").arg(self.naming.name(key));
            command
        };
        let answer = match &self.batches {
            // A chunk is long: with others, it would be answered late.
            Some(batches) if key.kind != Kind::Chunk => batches.read(command).await,
            _ => self.run(&command(), CommandKind::READ).await,
        };
        match answer {
            Ok(Value::BulkString(value)) => Ok(value::decode(key, value, recent)),
            Ok(_) => Ok(None),
            // The key holds a value that is no string, so another program has written it.
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the first bytes of a value, which hold the stamp and the time.
    async fn stamp(&self, key: Key) -> Result<Option<(Stamp, Timestamp)>> {
        let command = || {
            let mut command = cmd("GETRANGE");
            command.arg(self.naming.name(key)).arg(0).arg(value::STAMP_END - 1);
            command
        };
        let answer = match &self.batches {
            Some(batches) => batches.read(command).await,
            None => self.run(&command(), CommandKind::READ).await,
        };
        match answer {
            Ok(Value::BulkString(start)) => Ok(value::raw_stamp(&start).zip(value::decode_time(&start))),
            Ok(_) => Ok(None),
            // As in `read`.
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn expiry(&self, until: Timestamp) -> Expiry {
        Expiry::of(until, self.clock.now())
    }

    /// Groups the keys that one command may name.
    ///
    /// These are keys of one entry, since a cluster refuses a command for several slots.
    fn group_by_entry(keys: &[Key]) -> Vec<Vec<Key>> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.chunk_by(|one, next| one.entry == next.entry)
            .flat_map(|group| group.chunks(KEYS_PER_COMMAND).map(<[Key]>::to_vec))
            .collect()
    }

    /// Runs a command for each group of keys, and returns the sum of their counts.
    async fn sum(
        &self,
        keys: &[Key],
        kind: CommandKind,
        command: impl Fn(&[Key]) -> Cmd + Sync,
    ) -> Result<u64> {
        stream::iter(Self::group_by_entry(keys))
            .map(|group| {
                let command = command(&group);
                async move { self.count(&command, kind).await }
            })
            .buffer_unordered(MAX_IN_FLIGHT)
            .try_fold(0, |sum, count| async move { Ok(sum + count) })
            .await
    }

    /// Appends the names of keys to a command.
    fn with_keys(&self, mut command: Cmd, keys: &[Key]) -> Cmd {
        for key in keys {
            command.arg(self.naming.name(*key));
        }
        command
    }

    async fn unlink(&self, keys: &[Key]) -> Result<u64> {
        self.sum(keys, CommandKind::WRITE_ONCE, |group| self.with_keys(cmd("UNLINK"), group)).await
    }

    /// Returns the command that sets a value, which must not be past.
    fn set(&self, name: &str, value: &EncodedValue, expiry: Expiry) -> PooledCommand<'_> {
        let mut command = self.commands.take(name.len() + value.len());
        command.arg("SET").arg(name).arg(value);
        if let Expiry::In(millis) = expiry {
            command.arg("PX").arg(millis);
        }
        command
    }

    /// Writes a record if the key does not exist.
    async fn write_if_absent(&self, name: &str, record: &Record, value: &EncodedValue) -> Result<bool> {
        let expiry = self.expiry(record.retain_until());
        // `SET` refuses an expiry of 0. The script deletes such a record instead.
        if expiry == Expiry::Past {
            return Ok(false);
        }
        let mut command = self.set(name, value, expiry);
        command.arg("NX");
        Ok(self.run(&command, CommandKind::WRITE).await? == Value::Okay)
    }

    /// Writes a record if the value at the key has a certain stamp.
    ///
    /// The rest of that value is not checked.
    async fn write_if_stamp(
        &self,
        name: &str,
        seen: Option<Stamp>,
        record: &Record,
        value: &EncodedValue,
    ) -> Result<bool> {
        let seen = seen.map(Stamp::to_bytes);
        let mut command = self.commands.take(scripts::WRITE_IF.len() + name.len() + value.len());
        command.arg("EVAL").arg(scripts::WRITE_IF).arg(1).arg(name);
        command.arg(seen.as_ref().map_or(&[][..], |stamp| &stamp[..])).arg(&record.stamp().to_bytes()[..]);
        command.arg(self.expiry(record.retain_until()).to_argument()).arg(value);
        Ok(self.count(&command, CommandKind::WRITE).await? == 1)
    }

    fn scan(&self) -> Scan<'_> {
        Scan::new(&self.reads, &self.naming, self.is_cluster)
    }
}

/// Encodes a record, unless it is too long.
fn encode(record: &Record) -> Result<EncodedValue> {
    let value = EncodedValue::of(record);
    if value.record_len() > MAX_RECORD_LEN {
        return Err(Error::new(
            ErrorKind::TooLarge,
            "the record is longer than the 16 MiB that a record in redis may be",
        ));
    }
    Ok(value)
}

// The provided `hold` is right, since the server evicts and knows nothing about readers. So is `usage`, since the server's
// memory also holds the data of others, and `close`, since the server has taken every write that has returned.
impl Storage for RedisStorage {
    async fn read(&self, key: Key) -> Result<Option<Record>> {
        self.inner.read(key, Some(&self.inner.recent)).await
    }

    async fn stamps(&self, keys: &[Key]) -> Result<Vec<Option<(Stamp, Timestamp)>>> {
        match keys {
            [key] => Ok(vec![self.inner.stamp(*key).await?]),
            _ => {
                let stamps = stream::iter(keys.to_vec()).map(|key| self.inner.stamp(key));
                stamps.buffered(MAX_IN_FLIGHT).try_collect().await
            }
        }
    }

    fn change_count(&self, key: Key, max_silence: Duration) -> Option<u64> {
        let Inner { tracking, reads, writes, is_cluster, .. } = &*self.inner;
        let count = tracking.as_ref()?.count(key, max_silence)?;
        // Read after the owner of the key's slot, which says whether the connections may lead to another node. Both of them,
        // so that both are renewed.
        let are_renewed = !is_cluster || (reads.are_renewed() & writes.are_renewed());
        are_renewed.then_some(count)
    }

    fn server_of(&self, key: Key) -> u16 {
        self.inner.tracking.as_ref().map_or(0, |tracking| tracking.server_of(key))
    }

    async fn contains_all(&self, keys: &[Key]) -> Result<bool> {
        let there = self
            .inner
            .sum(keys, CommandKind::READ, |group| self.inner.with_keys(cmd("EXISTS"), group))
            .await?;
        Ok(there == keys.len() as u64)
    }

    async fn write(&self, key: Key, record: Record) -> Result<()> {
        let value = encode(&record)?;
        let name = self.inner.naming.name(key);
        match self.inner.expiry(record.retain_until()) {
            Expiry::Past => self.inner.run(cmd("UNLINK").arg(name), CommandKind::WRITE).await.map(drop),
            expiry => {
                let command = self.inner.set(&name, &value, expiry);
                self.inner.run(&command, CommandKind::WRITE).await.map(drop)
            }
        }
    }

    async fn write_if(&self, key: Key, seen: Option<Stamp>, record: Record) -> Result<bool> {
        let value = encode(&record)?;
        let name = self.inner.naming.name(key);
        // On a miss the key usually does not exist, which needs no script.
        if seen.is_none() && self.inner.write_if_absent(&name, &record, &value).await? {
            return Ok(true);
        }
        if self.inner.write_if_stamp(&name, seen, &record, &value).await? {
            return Ok(true);
        }
        if seen.is_some() {
            return Ok(false);
        }
        // A damaged value counts as absent, but the script cannot compute its checksum. So it is checked here, and replaced
        // if its stamp is still the same.
        let there = match self.inner.run(cmd("GET").arg(&name), CommandKind::READ).await? {
            Value::BulkString(there) => there,
            _ => return Ok(false),
        };
        let stamp = value::raw_stamp(&there);
        if value::decode(key, there, None).is_some() {
            return Ok(false);
        }
        self.inner.write_if_stamp(&name, stamp, &record, &value).await
    }

    async fn delete(&self, key: Key) -> Result<bool> {
        Ok(self.inner.unlink(&[key]).await? > 0)
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<u64> {
        self.inner.unlink(keys).await
    }

    async fn retain(&self, keys: &[Key], retain: Retain) -> Result<u64> {
        let (operator, time) = match retain {
            Retain::AtLeast(time) => ("<", time),
            Retain::AtMost(time) => (">", time),
        };
        let expiry = self.inner.expiry(time).to_argument();
        let command = |group: &[Key]| {
            let mut command = cmd("EVAL");
            command.arg(scripts::RETAIN).arg(group.len());
            let mut command = self.inner.with_keys(command, group);
            command.arg(operator).arg(&encode_time(time)[..]).arg(&expiry);
            command
        };
        self.inner.sum(keys, CommandKind::WRITE, command).await
    }

    /// Sends no command for a time that has come.
    ///
    /// The server has removed those records itself. For a later time, or with a clock other than the system's, it scans all
    /// keys.
    async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        if self.inner.clock.is_system() && now <= self.inner.clock.now() {
            return Ok(0);
        }
        let inner = &*self.inner;
        let delete_if_expired = move |key: Key| async move {
            let name = inner.naming.name(key);
            let command = cmd("GETRANGE").arg(&name).arg(0).arg(TIME_LEN - 1).take();
            let time = match inner.run(&command, CommandKind::READ).await? {
                Value::BulkString(time) => value::decode_time(&time),
                _ => None,
            };
            if time.is_none_or(|time| time > now) {
                return Ok(0);
            }
            // The script compares again, since the time may have been moved meanwhile.
            let mut command = cmd("EVAL");
            command.arg(scripts::EXPIRE).arg(1).arg(name).arg(&encode_time(now)[..]);
            inner.count(&command, CommandKind::WRITE_ONCE).await
        };
        let keys = inner.scan().keys();
        keys.map(|key| async move { delete_if_expired(key?).await })
            .buffer_unordered(MAX_IN_FLIGHT)
            .try_fold(0, |sum, count| async move { Ok(sum + count) })
            .await
    }

    async fn clear(&self) -> Result<()> {
        let inner = &*self.inner;
        inner.scan().pages().try_for_each(|page| async move { inner.unlink(&page).await.map(drop) }).await
    }

    fn keys(&self) -> impl Stream<Item = Result<Key>> + Send {
        self.inner.scan().keys()
    }

    fn values(&self) -> impl Stream<Item = Result<(Key, Record)>> + Send {
        let inner = &*self.inner;
        self.keys()
            .try_filter(|key| std::future::ready(key.kind.is_listed()))
            .map(move |key| async move {
                let key = key?;
                // Not remembered: a listing would replace the records that are read often.
                Ok(inner.read(key, None).await?.map(|record| (key, record)))
            })
            .buffer_unordered(MAX_IN_FLIGHT)
            // Absent records were deleted or have expired since they were listed.
            .filter_map(|value| std::future::ready(value.transpose()))
    }

    fn max_record_len(&self) -> usize {
        MAX_RECORD_LEN
    }

    fn inline_len(&self) -> usize {
        INLINE_LEN
    }

    fn keeps_records(&self) -> bool {
        false
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
