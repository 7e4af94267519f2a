//! Groups of responses, by the origin's Cache-Groups (RFC 9875) or by the user's tags: joining one, and ending one.
//!
//! A group is a record with a random value. A response that joins remembers the value that it found, and is in the group
//! for as long as that is the value there. Invalidating puts another value in its place, whatever was there: one write,
//! however many the members are.
//!
//! Promises: once an invalidation is settled, no response whose fetch began before it is served by any process; a value
//! that is gone (expired, evicted) ends its members too; a process whose clock is within five seconds of the others'
//! stores nothing that was invalidated while it was fetched.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderMap, StatusCode, Uri, request};

use super::core::Core;
use super::invalidate::Settling;
use super::lookup::Place;
use crate::control::{CacheOptions, Stored};
use crate::entry::{self, GroupValue, Membership, Slot, TOMBSTONE, decode};
use crate::error::{Error, ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::policy::{self, MOST_GROUPS, NotStored};
use crate::storage::{Key, Record, Storage, random_id};
use crate::time::Timestamp;

/// How far the clocks of processes that share a store may be apart.
pub(crate) const SKEW: Duration = Duration::from_secs(5);

/// The groups that this process has invalidated, in order.
#[derive(Debug, Default)]
pub(crate) struct Changes(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    count: u64,
    /// Those that are not named below changed before this.
    others: u64,
    lately: HashMap<Key, u64>,
}

/// What [`Changes`] had counted at some time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark(u64);

impl Changes {
    const MOST: usize = 10_000;

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.lock().count)
    }

    fn note(&self, group: Key) {
        let mut counted = self.lock();
        if counted.lately.len() >= Self::MOST {
            counted.lately.clear();
            counted.others = counted.count;
        }
        counted.count += 1;
        let count = counted.count;
        counted.lately.insert(group, count);
    }

    /// Whether a group may have changed since then.
    fn since(&self, mark: Mark, group: Key) -> bool {
        let counted = self.lock();
        mark.0 < counted.others || counted.lately.get(&group).is_some_and(|changed| *changed > mark.0)
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group by its name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    is_tag: bool,
    name: String,
}

impl<S: Storage> Core<S> {
    /// The groups that a response belongs to, with the values that they have now; the reason where it may not be
    /// stored. `before`: those of the stored response that it freshens.
    pub(super) async fn join(
        &self,
        place: &Place,
        request: &request::Parts,
        requested: Timestamp,
        (status, headers): (StatusCode, &HeaderMap),
        before: &[Membership],
    ) -> std::result::Result<Arc<[Membership]>, Stored> {
        let named = self.groups_named(request, status, headers, before);
        if named.is_empty() {
            return Ok(Arc::default());
        }
        if named.len() > MOST_GROUPS {
            return Err(Stored::No(NotStored::TooManyGroups));
        }
        let origin = origin(place.uri_text());
        let joined = named.into_iter().map(async |Named { is_tag, name }| {
            let key = self.keyer.group(if is_tag { "" } else { origin }, &name);
            let GroupValue { value, since, by } = self.group_value(key).await.map_err(|_| Stored::Storage)?;
            let elsewhere = by != self.id && since > Timestamp::EPOCH && since + SKEW >= requested;
            if elsewhere || self.changes.since(place.changes, key) || self.owed.debt(key).is_some() {
                return Err(Stored::No(NotStored::GroupInvalidated));
            }
            Ok(Membership { name: name.into(), is_tag, key, value })
        });
        join_all(joined).await.into_iter().collect()
    }

    fn groups_named(
        &self,
        request: &request::Parts,
        status: StatusCode,
        headers: &HeaderMap,
        before: &[Membership],
    ) -> Vec<Named> {
        let group = |name| Named { is_tag: false, name };
        let tag = |name: &str| Named { is_tag: true, name: name.to_owned() };
        let mut named: Vec<Named> = policy::groups(headers).into_iter().map(group).collect();
        named.extend(
            request.extensions.get::<CacheOptions>().into_iter().flat_map(|o| o.tag_names()).map(tag),
        );
        self.rules().tags(|| self.ruled_uri(request), status, headers, |name| named.push(tag(name)));
        named.extend(before.iter().filter(|group| group.is_tag).map(|group| tag(&group.name)));
        named.sort_unstable();
        named.dedup();
        named
    }

    /// The value of a group; of one that has none, a new one.
    async fn group_value(&self, key: Key) -> Result<GroupValue> {
        let new = GroupValue { value: random_id(), since: Timestamp::EPOCH, by: self.id };
        let now = self.config.clock.now();
        for last in [false, true] {
            let there = self.store.read(key).await?;
            if let Some(value) = there.as_ref().and_then(|record| value_in(record, now)) {
                return Ok(value);
            }
            let record = entry::record(Slot::Group(new), now + TOMBSTONE);
            if self.store.write_if(key, there.as_ref().map(Record::stamp), record).await? {
                return Ok(new);
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
    pub(super) fn belongs_now(&self, groups: &[Membership], now: Timestamp) -> Option<bool> {
        for group in groups {
            let there = self.store.read_now(group.key)?.ok()?;
            if !self.is_member(group, there.as_ref(), now) {
                return Some(false);
            }
        }
        Some(true)
    }

    fn is_member(&self, group: &Membership, there: Option<&Record>, now: Timestamp) -> bool {
        self.owed.debt(group.key).is_none()
            && there.and_then(|record| value_in(record, now)).is_some_and(|there| there.value == group.value)
    }

    /// Invalidates all responses with a tag.
    pub(crate) async fn end_tag(self: &Arc<Self>, name: &str) -> Result<()> {
        self.note_invalidation("hand", None);
        self.invalidate_group(self.keyer.group("", name)).await.into_result()
    }

    /// Invalidates all responses of an origin's group.
    pub(crate) async fn end_group(self: &Arc<Self>, of: &str, name: &str) -> Result<()> {
        let uri = of.parse::<Uri>().ok();
        let Some(uri) = uri.as_ref().and_then(EffectiveUri::of_uri) else {
            let expected = "not an origin: expected a scheme and a host, like https://example.com";
            return Err(Error::new(ErrorKind::Config, expected));
        };
        self.note_invalidation("hand", None);
        self.invalidate_group(self.keyer.group(origin(&uri.to_text()), name)).await.into_result()
    }

    async fn invalidate_group(self: &Arc<Self>, group: Key) -> Settling {
        self.changes.note(group);
        self.invalidate(group).await
    }

    /// Invalidates the groups that the response to an unsafe request names.
    pub(super) async fn invalidate_named(self: &Arc<Self>, request: &request::Parts, response: &HeaderMap) {
        let named = policy::invalidated_groups(&request.method, response);
        if named.is_empty() {
            return;
        }
        let Some(uri) = self.plain_uri(request) else { return };
        let groups = named.iter().map(|name| self.keyer.group(origin(&uri), name));
        named.iter().for_each(|_| self.note_invalidation("group", None));
        join_all(groups.map(|group| self.invalidate_group(group))).await;
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

/// The origin of an effective URI (RFC 9110 §4.3.1).
fn origin(uri: &str) -> &str {
    let host = uri.find("://").map_or(0, |at| at + 3);
    let end = uri[host..].find(['/', '?']).map_or(uri.len(), |at| host + at);
    &uri[..end]
}
