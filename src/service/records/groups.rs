//! Groups of responses that are invalidated together.
//!
//! A group is named by the Cache-Groups field of the origin (RFC 9875), or is a tag of the user.
//!
//! A group is a record with a random value. A response that joins a group remembers its value, and is a member as long as the
//! group has that value. An invalidation overwrites the value with another one, which is one write for any number of members.
//! An expiry of the group leaves the value, and adds to the list of [`Expiries`](crate::entry::Expiries) beside it, which
//! makes the members stale. At most [`MAX_GROUPS`] names of a field are used. The others are ignored.
//!
//! # Invariants
//!
//! - After an invalidation is settled, no process serves a member whose fetch began before it.
//! - A response is not a member of a group whose value has expired or was evicted. The next response that joins the group
//!   writes a new random value.
//! - A response whose group was invalidated during its fetch is not stored, by any process whose clock differs by at most
//!   [`CLOCK_SKEW`] from that of the invalidating process.
//!
//! # Known limit
//!
//! As with heads, a value may be evicted after its invalidation and before the end of a fetch in another process that began
//! before the invalidation. A storage that evicts the least recently used records would have to replace everything that it
//! holds during this one fetch.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderMap, Uri, request};

use super::Records;
use super::invalidation::InvalidationOutcome;
use super::lookup::Snapshot;
use crate::entry::{self, DecodedRecord, Expiries, GroupValue, Membership, TOMBSTONE, decode};
use crate::error::{Error, ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::policy::{self, MAX_GROUPS, NamedGroups, NotStored};
use crate::service::telemetry;
use crate::storage::{Key, Record, Storage, random_id};
use crate::time::Timestamp;

/// How much the clocks of processes that share a storage may differ. The clocks of hosts that run NTP differ much less.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// The name of a group of the origin, or of a tag of the user.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupName {
    pub(crate) is_tag: bool,
    pub(crate) name: String,
}

/// Tells whether the groups of a response permit its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupState {
    /// It is a member of all of them.
    Current,
    /// It is a member of all of them, and is stale since one of them was expired at this time.
    Expired(Timestamp),
    /// One of them was invalidated.
    Ended,
}

impl GroupState {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ended, _) | (_, Self::Ended) => Self::Ended,
            (Self::Expired(one), Self::Expired(other)) => Self::Expired(one.min(other)),
            (Self::Current, state) | (state, Self::Current) => state,
        }
    }
}

impl<S: Storage> Records<S> {
    /// Returns the groups of a response with their current values.
    ///
    /// # Errors
    ///
    /// Returns the reason why the response may not be stored: a group was invalidated since its fetch began, it has too many
    /// tags, or the storage failed.
    pub(crate) async fn join(
        &self,
        snapshot: &Snapshot,
        requested: Timestamp,
        named: Vec<GroupName>,
    ) -> std::result::Result<Arc<[Membership]>, NotStored> {
        // Group names beyond the bound are ignored, but the user's tags must not be: the invalidation of an ignored tag would
        // not reach the response.
        if named.iter().filter(|named| named.is_tag).count() > MAX_GROUPS {
            return Err(NotStored::TooManyGroups);
        }
        let origin = origin(snapshot.uri_text());
        let joined = named.into_iter().map(async |GroupName { is_tag, name }| {
            let key = self.group_keyer.group(if is_tag { "" } else { origin }, &name);
            let (GroupValue { value, since, by, expiries }, retain_until) =
                self.group_value(key).await.map_err(|_| NotStored::StorageFailed)?;
            // The value is read first, and checked afterwards: an invalidation by this process that begins in between is either
            // counted already, or overwrites the value that was read. An invalidation by another process is known only by its
            // time.
            let elsewhere = by != self.id && since > Timestamp::EPOCH && since + CLOCK_SKEW >= requested;
            if elsewhere || self.changes.since(snapshot.changes, key) || self.pending.get(key).is_some() {
                return Err(NotStored::GroupInvalidated);
            }
            // In the same order, and for the same reason. The response is stored all the same. It remembers an expiry that the
            // group never had, so that it is stale.
            let is_late = self.changes.expired_since(snapshot.changes, key)
                || expiries.any(|expiry| expiry.by != self.id && expiry.at + CLOCK_SKEW >= requested);
            let expiry = if is_late { random_id() } else { expiries.last() };
            Ok(Membership { name: name.into(), is_tag, key, value, expiry, retain_until })
        });
        join_all(joined).await.into_iter().collect()
    }

    /// Returns the value of a group and its expiry.
    ///
    /// Writes a new value if there is none.
    async fn group_value(&self, key: Key) -> Result<(GroupValue, Timestamp)> {
        let new = GroupValue {
            value: random_id(),
            since: Timestamp::EPOCH,
            by: self.id,
            expiries: Expiries::default(),
        };
        let now = self.config.clock.now();
        // Two attempts: the write fails if another process has just written a value, which the second read finds. Both fail
        // only if values are invalidated or evicted faster than they are read.
        for last in [false, true] {
            let existing = self.storage.read(key).await?;
            if let Some(record) = &existing
                && let Some(value) = value_in(record, now)
            {
                return Ok((value.clone(), record.retain_until()));
            }
            let retain_until = now + TOMBSTONE;
            let record = entry::record(DecodedRecord::Group(new.clone()), retain_until);
            if self.storage.write_if(key, existing.as_ref().map(Record::stamp), record).await? {
                return Ok((new, retain_until));
            }
            if last {
                break;
            }
        }
        Err(Error::new(ErrorKind::Other, "the group is invalidated too often to join it"))
    }

    /// Returns whether a response is still a member of all its groups, stale or not.
    pub(crate) async fn belongs(&self, groups: &[Membership]) -> Result<bool> {
        Ok(self.group_state(groups, Timestamp::EPOCH).await? != GroupState::Ended)
    }

    /// Returns what the groups of a response make of it. It was received at the time.
    pub(crate) async fn group_state(&self, groups: &[Membership], received: Timestamp) -> Result<GroupState> {
        if groups.is_empty() {
            return Ok(GroupState::Current);
        }
        // Read at the same time, so that many groups cost one round trip. Their number is bounded when they are stored.
        let reads = join_all(groups.iter().map(|group| self.storage.read(group.key))).await;
        let now = self.config.clock.now();
        let mut state = GroupState::Current;
        for (group, read) in groups.iter().zip(reads) {
            state = state.and(self.state_in(group, read?.as_ref(), now, received));
        }
        Ok(state)
    }

    /// Returns whether a response is a member of all its groups, and none of them was expired.
    ///
    /// Returns `None` if the storage does not answer at once.
    pub(crate) fn is_current_now(&self, groups: &[Membership], now: Timestamp) -> Option<bool> {
        for group in groups {
            let existing = self.storage.read_now(group.key)?.ok()?;
            if self.state_in(group, existing.as_ref(), now, now) != GroupState::Current {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Returns what the record of a group makes of a response that joined it.
    ///
    /// While an invalidation of the group is pending, the group has no members.
    fn state_in(
        &self,
        group: &Membership,
        existing: Option<&Record>,
        now: Timestamp,
        received: Timestamp,
    ) -> GroupState {
        let existing = existing.and_then(|record| value_in(record, now));
        match existing.filter(|_| self.pending.get(group.key).is_none()) {
            Some(existing) if existing.value == group.value => existing
                .expiries
                .since(group.expiry, received)
                .map_or(GroupState::Current, GroupState::Expired),
            _ => GroupState::Ended,
        }
    }

    /// Invalidates all responses with a tag.
    pub(crate) async fn invalidate_tag(self: &Arc<Self>, name: &str) -> Result<()> {
        telemetry::invalidated(&self.observer, "manual", None);
        self.invalidate_group(self.group_keyer.group("", name), None).await.into_result()
    }

    /// Invalidates a group by its key.
    pub(crate) async fn invalidate_group_at(self: &Arc<Self>, key: Key) -> Result<()> {
        telemetry::invalidated(&self.observer, "manual", None);
        self.invalidate_group(key, None).await.into_result()
    }

    /// Invalidates all responses in a group of an origin.
    ///
    /// # Errors
    ///
    /// Returns `Config` if `of` is not an origin, and `Unavailable` if the storage has not taken the invalidation yet.
    pub(crate) async fn invalidate_origin_group(self: &Arc<Self>, of: &str, name: &str) -> Result<()> {
        let of = origin_text(of)?;
        telemetry::invalidated(&self.observer, "manual", None);
        self.invalidate_group(self.group_keyer.group(origin(&of), name), Some(&of)).await.into_result()
    }

    /// Invalidates a group, whose origin is that of the URI `of` if it has one.
    async fn invalidate_group(self: &Arc<Self>, group: Key, of: Option<&str>) -> InvalidationOutcome {
        // Before the write: a response that joins with the old value after this is refused, or stops being a member.
        self.changes.add_group(group);
        self.invalidate(group, of).await
    }

    /// Invalidates the groups that the response to an unsafe request names.
    pub(crate) async fn invalidate_named(self: &Arc<Self>, request: &request::Parts, response: &HeaderMap) {
        // A recording is never invalidated, so that replays find all of it.
        if self.config.recording().is_some() {
            return;
        }
        let NamedGroups { names, ignored } = policy::invalidated_groups(&request.method, response);
        report_ignored_groups("cache-group-invalidation", ignored);
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
        // At the same time, so that a storage that hangs costs the request one deadline. There are at most `MAX_GROUPS` names
        // of two origins each.
        join_all(groups.map(|group| self.invalidate_group(group, Some(&uri)))).await;
    }

    /// Returns a group's record with a new value, which has no members.
    pub(super) fn group_ended(&self, existing: Option<&Record>, now: Timestamp) -> Record {
        let expiries = Expiries::default();
        let value = GroupValue { value: random_id(), since: now, by: self.id, expiries };
        // Kept at least as long as the former value: the late first write of a value, which is compared with nothing, has to
        // fail.
        let until = existing.map_or(Timestamp::EPOCH, Record::retain_until).max(now + TOMBSTONE);
        entry::record(DecodedRecord::Group(value), until)
    }
}

/// Returns the value in a group's record, if it has not expired.
pub(super) fn value_in(record: &Record, now: Timestamp) -> Option<&GroupValue> {
    match decode(record)? {
        DecodedRecord::Group(value) if record.retain_until() > now => Some(value),
        _ => None,
    }
}

/// Returns the text of the URI of an origin that the user gave.
///
/// # Errors
///
/// Returns `Config` if it is not an origin.
pub(super) fn origin_text(of: &str) -> Result<String> {
    let uri = of.parse::<Uri>().ok();
    let uri = uri.as_ref().and_then(EffectiveUri::of_uri).map(|uri| uri.to_text());
    uri.ok_or_else(|| {
        let expected = "not an origin: expected a scheme and a host, like https://example.com";
        Error::new(ErrorKind::Config, expected)
    })
}

/// Sends an event if a field names more groups than are used.
pub(crate) fn report_ignored_groups(field: &'static str, ignored: usize) {
    if ignored > 0 {
        tracing::debug!(field, used = MAX_GROUPS, ignored, "too many groups are named");
    }
}

/// Returns the origin of an effective URI (RFC 9110 §4.3.1).
pub(crate) fn origin(uri: &str) -> &str {
    let host = uri.find("://").map_or(0, |at| at + 3);
    let end = uri[host..].find(['/', '?']).map_or(uri.len(), |at| host + at);
    &uri[..end]
}
