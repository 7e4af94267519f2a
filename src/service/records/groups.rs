//! Groups of responses, named by the origin's Cache-Groups (RFC 9875) or by the user's tags.
//!
//! A group is a record with a random value. A response that joins a group remembers its value, and is a member as long as the
//! group has that value. An invalidation writes another value over whatever is there: one write, however many members there
//! are. At most [`MAX_GROUPS`] names of a field are used; the others are ignored.
//!
//! # Invariants
//!
//! - After an invalidation is settled, no process serves a member whose fetch began before it.
//! - A response is not a member of a group whose value has expired or was evicted: the next response to join writes a new
//!   random value.
//! - A response that was fetched while its group was invalidated is not stored, by any process whose clock is within
//!   [`CLOCK_SKEW`] of the invalidating one's.
//!
//! # Known limit
//!
//! As with heads, a value may be evicted between its invalidation and the end of a fetch in another process that began
//! before it. A storage that evicts the least recently used records must replace everything that it holds during one fetch
//! for that.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderMap, Uri, request};

use super::Records;
use super::invalidation::InvalidationOutcome;
use super::lookup::Snapshot;
use crate::entry::{self, GroupValue, Membership, Slot, TOMBSTONE, decode};
use crate::error::{Error, ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::policy::{self, MAX_GROUPS, NamedGroups, NotStored};
use crate::service::telemetry;
use crate::storage::{Key, Record, Storage, random_id};
use crate::time::Timestamp;

/// How far apart the clocks of processes that share a storage may be. Hosts that run NTP differ by far less.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// Names a group of the origin's, or a tag of the user's.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) is_tag: bool,
    pub(crate) name: String,
}

impl<S: Storage> Records<S> {
    /// Returns the named groups of a response with their present values.
    ///
    /// # Errors
    ///
    /// Returns why the response may not be stored: a group was invalidated since its fetch began, it has too many tags, or
    /// the storage failed.
    pub(crate) async fn join(
        &self,
        snapshot: &Snapshot,
        requested: Timestamp,
        named: Vec<Named>,
    ) -> std::result::Result<Arc<[Membership]>, NotStored> {
        // Names beyond the bound are ignored, but not the user's tags: an invalidation of an ignored tag would not reach the
        // response.
        if named.iter().filter(|named| named.is_tag).count() > MAX_GROUPS {
            return Err(NotStored::TooManyGroups);
        }
        let origin = origin(snapshot.uri_text());
        let joined = named.into_iter().map(async |Named { is_tag, name }| {
            let key = self.group_keyer.group(if is_tag { "" } else { origin }, &name);
            let (GroupValue { value, since, by }, kept) =
                self.group_value(key).await.map_err(|_| NotStored::StorageFailed)?;
            // The value comes first and the checks afterwards: an invalidation by this process that begins in between is
            // either counted already, or overwrites the value that was read. An invalidation by another process is known
            // only by its time.
            let elsewhere = by != self.id && since > Timestamp::EPOCH && since + CLOCK_SKEW >= requested;
            if elsewhere || self.changes.since(snapshot.changes, key) || self.pending.get(key).is_some() {
                return Err(NotStored::GroupInvalidated);
            }
            Ok(Membership { name: name.into(), is_tag, key, value, kept })
        });
        join_all(joined).await.into_iter().collect()
    }

    /// Returns the value of a group and its expiry, and writes a new value if there is none.
    async fn group_value(&self, key: Key) -> Result<(GroupValue, Timestamp)> {
        let new = GroupValue { value: random_id(), since: Timestamp::EPOCH, by: self.id };
        let now = self.config.clock.now();
        // One retry: the write fails if another process has just written a value, which the second read finds. It fails twice
        // only where values are invalidated or evicted faster than they are read.
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

    /// Returns whether a response is still a member of the groups that it was stored with.
    pub(crate) async fn belongs(&self, groups: &[Membership]) -> Result<bool> {
        if groups.is_empty() {
            return Ok(true);
        }
        // At the same time, so that many groups cost one round trip. Their number is bounded where they are stored.
        let reads = join_all(groups.iter().map(|group| self.store.read(group.key))).await;
        let now = self.config.clock.now();
        for (group, read) in groups.iter().zip(reads) {
            if !self.is_member(group, read?.as_ref(), now) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the same as [`belongs`](Self::belongs) if the storage answers at once, and `None` otherwise.
    pub(crate) fn belongs_now(&self, groups: &[Membership], now: Timestamp) -> Option<bool> {
        for group in groups {
            let there = self.store.read_now(group.key)?.ok()?;
            if !self.is_member(group, there.as_ref(), now) {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Returns whether a group's record makes a response a member. A pending invalidation of the group does not.
    fn is_member(&self, group: &Membership, there: Option<&Record>, now: Timestamp) -> bool {
        self.pending.get(group.key).is_none()
            && there.and_then(|record| value_in(record, now)).is_some_and(|there| there.value == group.value)
    }

    /// Invalidates all responses with a tag.
    pub(crate) async fn end_tag(self: &Arc<Self>, name: &str) -> Result<()> {
        telemetry::invalidated(&self.observer, "hand", None);
        self.invalidate_group(self.group_keyer.group("", name), None).await.into_result()
    }

    /// Invalidates a group by its key.
    pub(crate) async fn end_group_at(self: &Arc<Self>, key: Key) -> Result<()> {
        telemetry::invalidated(&self.observer, "hand", None);
        self.invalidate_group(key, None).await.into_result()
    }

    /// Invalidates all responses in a group of an origin.
    ///
    /// # Errors
    ///
    /// Returns `Config` if `of` is not an origin, and `Unavailable` if the storage has not taken the invalidation yet.
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

    async fn invalidate_group(self: &Arc<Self>, group: Key, of: Option<&str>) -> InvalidationOutcome {
        // Before the write: a response that joins after this, and by the old value, is refused or no longer a member.
        self.changes.note(group);
        self.invalidate(group, of).await
    }

    /// Invalidates the groups that the response to an unsafe request names.
    pub(crate) async fn invalidate_named(self: &Arc<Self>, request: &request::Parts, response: &HeaderMap) {
        // A recording is kept as it is, for later replays.
        if self.config.recording().is_some() {
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
        // At the same time, so that a storage that hangs costs the request one deadline. Bounded by `MAX_GROUPS` names of two
        // origins each.
        join_all(groups.map(|group| self.invalidate_group(group, Some(&uri)))).await;
    }

    /// Returns a group's record with a new value, which has no members.
    pub(super) fn group_ended(&self, there: Option<&Record>, now: Timestamp) -> Record {
        let value = GroupValue { value: random_id(), since: now, by: self.id };
        // At least as long as the former value: a late first write of a value, which is compared with nothing, must fail.
        let until = there.map_or(Timestamp::EPOCH, Record::retain_until).max(now + TOMBSTONE);
        entry::record(Slot::Group(value), until)
    }
}

/// Returns the value in a group's record, if it has not expired.
fn value_in(record: &Record, now: Timestamp) -> Option<GroupValue> {
    match decode(record)? {
        Slot::Group(value) if record.retain_until() > now => Some(*value),
        _ => None,
    }
}

/// Sends an event if a field names more groups than are used.
pub(crate) fn note_ignored(field: &'static str, ignored: usize) {
    if ignored > 0 {
        tracing::debug!(field, heard = MAX_GROUPS, ignored, "too many groups are named");
    }
}

/// Returns the origin of an effective URI (RFC 9110 §4.3.1).
pub(crate) fn origin(uri: &str) -> &str {
    let host = uri.find("://").map_or(0, |at| at + 3);
    let end = uri[host..].find(['/', '?']).map_or(uri.len(), |at| host + at);
    &uri[..end]
}
