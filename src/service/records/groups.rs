//! Groups of responses, by the origin's Cache-Groups (RFC 9875) or by the user's tags: joining one, and ending one.
//!
//! A group is a record with a random value. A response that joins remembers the value that it found, and is in the group
//! for as long as that is the value there. Invalidating puts another value in its place, whatever was there: one write,
//! however many the members are. A field of a response names [`MOST_GROUPS`] at most; what follows is ignored.
//!
//! Promises: once an invalidation is settled, no response whose fetch began before it is served by any process; a value
//! that is gone (expired, evicted) ends its members too, since the next one to join makes another; a process whose clock is within five seconds of the others'
//! stores nothing that was invalidated while it was fetched. One hole, as for heads: a value that is evicted while a fetch
//! that began before its invalidation is under way in another process. A storage that evicts what was used longest ago
//! has then replaced all that it holds during one fetch.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, Uri, request};

use super::super::telemetry;
use super::Records;
use super::bounded_map::BoundedMap;
use super::invalidation::Settling;
use super::lookup::Snapshot;
use crate::control::Stored;
use crate::entry::{self, GroupValue, Membership, Slot, TOMBSTONE, decode};
use crate::error::{Error, ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::policy::{self, MOST_GROUPS, NamedGroups, NotStored};
use crate::storage::{Key, Record, Storage, random_id};
use crate::time::Timestamp;

/// How far the clocks of processes that share a store may be apart.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// The groups that this process has invalidated, and the deletions by hand of all that a filter chooses, in order. A
/// response whose fetch began before is not stored.
///
/// Both are bounded. Where there are too many, fetches that began before the earliest that is still known are not stored,
/// if they belong to a group, or at all; what is stored is not concerned.
pub(crate) struct Changes(Mutex<Counted>);

struct Counted {
    count: u64,
    /// Those that are not named below changed before this.
    others: u64,
    lately: BoundedMap<Key, u64>,
    /// The deletions that are not listed below were before this.
    deleted_before: u64,
    deletions: VecDeque<(u64, Chosen)>,
}

/// Whether a filter chooses the response in the record at a key, which these fields select.
pub(crate) type Chosen = Arc<dyn Fn(Key, &Record, &[HeaderName]) -> bool + Send + Sync>;

/// What [`Changes`] had counted at some time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark(u64);

impl Default for Changes {
    fn default() -> Self {
        Self(Mutex::new(Counted {
            count: 0,
            others: 0,
            lately: BoundedMap::new(Self::MOST),
            deleted_before: 0,
            deletions: VecDeque::new(),
        }))
    }
}

impl Changes {
    const MOST: usize = 10_000;
    const MOST_DELETIONS: usize = 64;

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.lock().count)
    }

    fn note(&self, group: Key) {
        let mut counted = self.lock();
        counted.count += 1;
        let count = counted.count;
        if let Some(forgotten) = counted.lately.insert(group, count) {
            counted.others = forgotten;
        }
    }

    /// Whether a group may have changed since then.
    fn since(&self, mark: Mark, group: Key) -> bool {
        let counted = self.lock();
        mark.0 < counted.others || counted.lately.get(&group).is_some_and(|changed| *changed > mark.0)
    }

    /// Notes a deletion, before it begins.
    pub(crate) fn note_deletion(&self, chosen: Chosen) {
        let mut counted = self.lock();
        if counted.deletions.len() >= Self::MOST_DELETIONS
            && let Some((before, _)) = counted.deletions.pop_front()
        {
            counted.deleted_before = before;
        }
        counted.count += 1;
        let count = counted.count;
        counted.deletions.push_back((count, chosen));
    }

    /// Whether anything was deleted by a filter since then.
    pub(super) fn deletes_since(&self, mark: Mark) -> bool {
        self.lock().deletions.back().is_some_and(|(at, _)| *at > mark.0)
    }

    /// Whether what is fetched since then, and is to be stored so, was deleted meanwhile.
    pub(super) fn has_deleted(&self, mark: Mark, key: Key, record: &Record, names: &[HeaderName]) -> bool {
        if !self.deletes_since(mark) {
            return false;
        }
        let counted = self.lock();
        let is_forgotten = mark.0 < counted.deleted_before;
        let since: Vec<Chosen> = counted
            .deletions
            .iter()
            .filter(|(at, _)| *at > mark.0)
            .map(|(_, chosen)| Arc::clone(chosen))
            .collect();
        drop(counted); // a filter may be the user's own code
        is_forgotten || since.iter().any(|chosen| chosen(key, record, names))
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("count", &self.lock().count).finish_non_exhaustive()
    }
}

/// A group by its name; a tag is a group that the user named.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) is_tag: bool,
    pub(crate) name: String,
}

impl<S: Storage> Records<S> {
    /// Returns the named groups of a response with the values that they have now; the reason where it may not be stored.
    pub(crate) async fn join(
        &self,
        snapshot: &Snapshot,
        requested: Timestamp,
        named: Vec<Named>,
    ) -> std::result::Result<Arc<[Membership]>, Stored> {
        // The user's own tags are all needed: an invalidation by hand of one that was ignored would not reach the response.
        if named.iter().filter(|named| named.is_tag).count() > MOST_GROUPS {
            return Err(Stored::No(NotStored::TooManyGroups));
        }
        let origin = origin(snapshot.uri_text());
        let joined = named.into_iter().map(async |Named { is_tag, name }| {
            let key = self.group_keyer.group(if is_tag { "" } else { origin }, &name);
            let (GroupValue { value, since, by }, kept) =
                self.group_value(key).await.map_err(|_| Stored::Storage)?;
            let elsewhere = by != self.id && since > Timestamp::EPOCH && since + CLOCK_SKEW >= requested;
            if elsewhere || self.changes.since(snapshot.changes, key) || self.pending.get(key).is_some() {
                return Err(Stored::No(NotStored::GroupInvalidated));
            }
            Ok(Membership { name: name.into(), is_tag, key, value, kept })
        });
        join_all(joined).await.into_iter().collect()
    }

    /// The value of a group, and until when it is kept; of one that has none, a new one.
    async fn group_value(&self, key: Key) -> Result<(GroupValue, Timestamp)> {
        let new = GroupValue { value: random_id(), since: Timestamp::EPOCH, by: self.id };
        let now = self.config.clock.now();
        for last in [false, true] {
            let there = self.store.read(key).await?;
            if let Some(record) = &there
                && let Some(value) = value_in(record, now)
            {
                return Ok((value, record.retain_until()));
            }
            let kept = now + TOMBSTONE;
            let record = entry::record(Slot::Group(new), kept);
            if self.store.write_if(key, there.as_ref().map(Record::stamp), record).await? {
                return Ok((new, kept));
            }
            if last {
                break;
            }
        }
        Err(Error::new(ErrorKind::Other, "the group changes all the time"))
    }

    /// Whether a response still belongs to the groups that it was stored with.
    pub(crate) async fn belongs(&self, groups: &[Membership]) -> Result<bool> {
        if groups.is_empty() {
            return Ok(true);
        }
        let reads = join_all(groups.iter().map(|group| self.store.read(group.key))).await;
        let now = self.config.clock.now();
        for (group, read) in groups.iter().zip(reads) {
            if !self.is_member(group, read?.as_ref(), now) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same where it needs no waiting; `None`: it does.
    pub(crate) fn belongs_now(&self, groups: &[Membership], now: Timestamp) -> Option<bool> {
        for group in groups {
            let there = self.store.read_now(group.key)?.ok()?;
            if !self.is_member(group, there.as_ref(), now) {
                return Some(false);
            }
        }
        Some(true)
    }

    fn is_member(&self, group: &Membership, there: Option<&Record>, now: Timestamp) -> bool {
        self.pending.get(group.key).is_none()
            && there.and_then(|record| value_in(record, now)).is_some_and(|there| there.value == group.value)
    }

    /// Invalidates all responses with a tag.
    pub(crate) async fn end_tag(self: &Arc<Self>, name: &str) -> Result<()> {
        telemetry::invalidated(&self.observer, "hand", None);
        self.invalidate_group(self.group_keyer.group("", name), None).await.into_result()
    }

    /// Invalidates a group by where its value is.
    pub(crate) async fn end_group_at(self: &Arc<Self>, key: Key) -> Result<()> {
        telemetry::invalidated(&self.observer, "hand", None);
        self.invalidate_group(key, None).await.into_result()
    }

    /// Invalidates all responses of an origin's group.
    pub(crate) async fn end_group(self: &Arc<Self>, of: &str, name: &str) -> Result<()> {
        let uri = of.parse::<Uri>().ok();
        let Some(uri) = uri.as_ref().and_then(EffectiveUri::of_uri) else {
            let expected = "not an origin: expected a scheme and a host, like https://example.com";
            return Err(Error::new(ErrorKind::Config, expected));
        };
        telemetry::invalidated(&self.observer, "hand", None);
        let of = uri.to_text();
        self.invalidate_group(self.group_keyer.group(origin(&of), name), Some(&of)).await.into_result()
    }

    async fn invalidate_group(self: &Arc<Self>, group: Key, of: Option<&str>) -> Settling {
        self.changes.note(group);
        self.invalidate(group, of).await
    }

    /// Invalidates the groups that the response to an unsafe request names.
    pub(crate) async fn invalidate_named(self: &Arc<Self>, request: &request::Parts, response: &HeaderMap) {
        // What is recorded stays.
        if self.config.tape.is_some() {
            return;
        }
        let NamedGroups { names, ignored } = policy::invalidated_groups(&request.method, response);
        note_ignored("cache-group-invalidation", ignored);
        if names.is_empty() {
            return;
        }
        let Some(uri) = self.config.plain_uri(request) else { return };
        let other = uri.parse().ok().and_then(|uri| self.other_scheme(request, &uri));
        let other = other.map(|uri| uri.to_string());
        let origins: Vec<_> = std::iter::once(&uri).chain(&other).map(|uri| origin(uri)).collect();
        let groups =
            names.iter().flat_map(|name| origins.iter().map(|origin| self.group_keyer.group(origin, name)));
        names.iter().for_each(|_| telemetry::invalidated(&self.observer, "group", None));
        join_all(groups.map(|group| self.invalidate_group(group, Some(&uri)))).await;
    }

    /// The record that ends what a group's value began.
    pub(super) fn group_ended(&self, there: Option<&Record>, now: Timestamp) -> Record {
        let value = GroupValue { value: random_id(), since: now, by: self.id };
        // As long as the members of before, lest a late write of the former value find nothing there.
        let until = there.map_or(Timestamp::EPOCH, Record::retain_until).max(now + TOMBSTONE);
        entry::record(Slot::Group(value), until)
    }
}

fn value_in(record: &Record, now: Timestamp) -> Option<GroupValue> {
    match decode(record)? {
        Slot::Group(value) if record.retain_until() > now => Some(*value),
        _ => None,
    }
}

/// A field names more groups than are heard.
pub(crate) fn note_ignored(field: &'static str, ignored: usize) {
    if ignored > 0 {
        tracing::debug!(field, heard = MOST_GROUPS, ignored, "too many groups are named");
    }
}

/// The origin of an effective URI (RFC 9110 §4.3.1).
pub(crate) fn origin(uri: &str) -> &str {
    let host = uri.find("://").map_or(0, |at| at + 3);
    let end = uri[host..].find(['/', '?']).map_or(uri.len(), |at| host + at);
    &uri[..end]
}
