//! Makes stored responses stale, so that they are validated before their next use, or served as stale ones are.
//!
//! An entry and a group list their expiries, so that one write reaches all variants or members. The expiry of a single
//! response is in its own record.
//!
//! # Invariants
//!
//! - After an expiry has returned, no process serves what it concerns as fresh, if the fetch began before.
//! - Every write is compared with what was read. A response that is stored meanwhile is not lost, and is expired too unless
//!   its fetch began later.
//! - A fetch that began before the expiry of an entry does not replace its response, since the head has another stamp.
//! - Unlike an invalidation, an expiry that the storage has not acknowledged is not tried again.
//!
//! # Known limit
//!
//! If the retention of a group is extended between the read and the write, it ends as if it had not been. The members are
//! then fetched again at that time.

use std::sync::Arc;

use super::Records;
use super::groups::{origin, origin_text, value_in};
use super::lookup::usable_head;
use crate::entry::{
    self, DecodedRecord, Expiries, Expiry, GroupValue, Head, Membership, StoredResponse, TOMBSTONE, Variant,
    decode,
};
use crate::error::{Error, ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::service::telemetry;
use crate::storage::{Key, Record, Storage, random_id};
use crate::time::Timestamp;

/// How often a write is tried. Each failure means that another write to the key came first.
pub(crate) const EXPIRY_ATTEMPTS: usize = 32;

impl<S: Storage> Records<S> {
    /// Makes all responses with a tag stale.
    pub(crate) async fn expire_tag(&self, name: &str) -> Result<()> {
        self.expire_group(self.group_keyer.group("", name)).await
    }

    /// Makes all responses in a group of an origin stale.
    ///
    /// # Errors
    ///
    /// Returns `Config` if `of` is not an origin, or the storage's error.
    pub(crate) async fn expire_origin_group(&self, of: &str, name: &str) -> Result<()> {
        let of = origin_text(of)?;
        self.expire_group(self.group_keyer.group(origin(&of), name)).await
    }

    /// Makes the members of a group stale.
    pub(crate) async fn expire_group(&self, key: Key) -> Result<()> {
        telemetry::invalidated(&self.observer, "expiry", None);
        // Before the write: a response that joins with the old list after this is stored as a stale one.
        self.changes.add_expiry(key);
        let new = self.new_expiry();
        for _ in 0..EXPIRY_ATTEMPTS {
            let existing = self.storage.read(key).await?;
            let (now, expiry) = (self.config.clock.now(), Expiry { at: self.config.clock.now(), ..new });
            let existing_value = existing.as_ref().and_then(|record| value_in(record, now));
            let value = match existing_value {
                Some(value) => GroupValue { expiries: value.expiries.with(expiry), ..value.clone() },
                // It has no members yet. A fetch that began before, in any process, may be about to join it.
                None => GroupValue {
                    value: random_id(),
                    since: Timestamp::EPOCH,
                    by: self.id,
                    expiries: Expiries::default().with(expiry),
                },
            };
            // The members stay, and need the value as long as before.
            let kept = existing.as_ref().map_or(Timestamp::EPOCH, Record::retain_until);
            let record = entry::record(DecodedRecord::Group(value), kept.max(now + TOMBSTONE));
            if self.storage.write_if(key, existing.as_ref().map(Record::stamp), record).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Makes all responses of an entry stale, and returns whether there were any.
    ///
    /// If there are none, a tombstone keeps a fetch that began before from being stored as fresh.
    pub(crate) async fn expire_entry(self: &Arc<Self>, key: Key, uri: &EffectiveUri<'_>) -> Result<bool> {
        let new = self.new_expiry();
        for _ in 0..EXPIRY_ATTEMPTS {
            let existing = self.read_slot(key, None).await?;
            let now = self.config.clock.now();
            let head = existing.as_ref().and_then(|record| {
                let head = usable_head(record, uri, now)?;
                self.is_not_invalidated(key, &head.key_text, &head.inline).then_some((record, head))
            });
            let record = match head {
                Some((record, head)) => {
                    let expiries = head.expiries.with(Expiry { at: now, ..new });
                    let slot = DecodedRecord::Head(Head { expiries, ..head.clone() });
                    entry::record(slot, record.retain_until())
                }
                None => {
                    let until = now + TOMBSTONE;
                    entry::record(DecodedRecord::Fence { until, placeholder: false }, until)
                }
            };
            match self.write_in_order(key, existing.as_ref().map(Record::stamp), record).await {
                Ok(true) => return Ok(head.is_some()),
                Ok(false) => {}
                // The list of expiries makes the record too long for the storage.
                Err(error) if error.kind() == ErrorKind::TooLarge => {
                    self.invalidate(key, Some(&uri.to_text())).await.into_result()?;
                    return Ok(head.is_some());
                }
                Err(error) => return Err(error),
            }
        }
        Err(contended())
    }

    /// Makes the response in a record stale, unless another record was written since.
    ///
    /// Returns whether it was written.
    pub(crate) async fn expire_record(self: &Arc<Self>, key: Key, record: &Record) -> Result<bool> {
        let now = self.config.clock.now();
        let slot = decode(record).and_then(|slot| {
            let variant = slot.variant()?.clone();
            let response = variant.response.expired(Some(now));
            slot.with(Variant { response, ..variant })
        });
        let Some(slot) = slot else { return Ok(false) };
        let new = entry::record(slot, record.retain_until());
        match self.write_in_order(key, Some(record.stamp()), new).await {
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                self.invalidate(key, None).await.into_result().map(|()| true)
            }
            written => written,
        }
    }

    /// Returns a response that remembers the last expiries of its entry and its groups, so that none of them concerns it.
    ///
    /// `expiries` are those of its entry.
    pub(crate) async fn unexpired(&self, variant: Variant, expiries: Option<&Expiries>) -> Result<Variant> {
        let now = self.config.clock.now();
        let mut groups: Vec<Membership> = variant.response.groups.to_vec();
        for group in &mut groups {
            let existing = self.storage.read(group.key).await?;
            if let Some(value) = existing.as_ref().and_then(|record| value_in(record, now)) {
                group.expiry = value.expiries.last();
            }
        }
        let response = StoredResponse { expired_at: None, groups: groups.into(), ..variant.response };
        let expiry = expiries.map_or(variant.expiry, Expiries::last);
        Ok(Variant { expiry, response, ..variant })
    }

    fn new_expiry(&self) -> Expiry {
        Expiry { id: random_id(), at: Timestamp::EPOCH, by: self.id }
    }
}

/// Returns the error for a key that is written all the time.
pub(crate) fn contended() -> Error {
    Error::new(ErrorKind::Other, "the record was changed too often to expire it: try again")
}
