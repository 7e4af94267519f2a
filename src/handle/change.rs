//! Methods of the handle that delete responses or change their lifetimes.
//!
//! # Invariants
//! - A deletion is an invalidation, so that a fetch that is under way does not bring a response back.
//! - A deletion returns how many responses it removed.
//! - A lifetime is changed only if no other process changes the record at the same time.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use futures_util::{TryStreamExt, future};

use super::entry::StoredEntry;
use super::filter::EntryFilter;
use super::listing::is_own;
use super::{AT_ONCE, CacheHandle};
use crate::entry::{self, DecodedRecord, GRACE, StoredContent, StoredResponse, Variant, decode};
use crate::error::{ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::policy::{RuleTtl, Ttl};
use crate::service::invalidated;
use crate::storage::{Key, Kind, Retain, Storage};

impl<S: Storage> CacheHandle<S> {
    /// Deletes the stored responses that a filter chooses, and returns how many.
    ///
    /// As with [`delete`](Self::delete), no process serves them afterwards, and no fetch that is under way brings them back.
    ///
    /// A response that this layer was fetching when the call began is not stored either, if the filter chooses it. That does
    /// not hold for a response that another process, or another layer on the storage, was fetching for the first time.
    /// [`delete_url`](Self::delete_url) and [`invalidate_tag`](Self::invalidate_tag) reach those too.
    ///
    /// If a URL has several variants, deleting the first makes the others unreachable, so that they are fetched again.
    /// Deleting another variant leaves the rest.
    ///
    /// # Errors
    /// Returns the errors of [`entries`](Self::entries), or the storage's error if it did not take a deletion. Some responses
    /// may be deleted by then.
    pub async fn delete_matching(&self, filter: &EntryFilter) -> Result<u64> {
        filter.check()?;
        // Before the listing. A fetch that is under way then either is stored before the listing, or finds this note.
        self.refuse_in_flight(filter);
        // Writes that passed the note before it was there, and are not in the storage yet.
        let mut removed = HashSet::new();
        for (key, record) in self.shared.records.in_flight.listed() {
            if let Some(entry) = self.shown(key, record).await?.filter(|entry| filter.matches(entry)) {
                self.remove(entry).await?;
                removed.insert(key);
            }
        }
        let before = removed.len() as u64;
        self.entries(filter)
            .try_filter(|entry| future::ready(!removed.contains(&entry.key)))
            .map_ok(|entry| self.remove(entry))
            .try_buffer_unordered(AT_ONCE)
            .try_fold(before, |count, ()| future::ready(Ok(count + 1)))
            .await
    }

    /// Notes that the responses that are being fetched are not to be stored, if a filter chooses them.
    pub(super) fn refuse_in_flight(&self, filter: &EntryFilter) {
        let (shared, all, chosen) = (&self.shared, self.across_partitions, filter.clone());
        let (number, policy, clock) =
            (shared.records.number, shared.config.policy.clone(), shared.config.clock.clone());
        let keyer = shared.records.keyer.clone();
        self.shared.records.changes.add_deletion(Arc::new(move |key, record, names| {
            let (text, variant) = match decode(record) {
                Some(DecodedRecord::Head(head)) => (&head.key_text, &head.inline),
                Some(DecodedRecord::Variant { key_text, variant, .. }) => (key_text, variant),
                _ => return false,
            };
            let freshness = variant.response.freshness(number, &policy).into_owned();
            let told = (freshness, clock.now());
            is_own(&keyer, all, key, text)
                && chosen.matches(&StoredEntry::new((key, record.clone()), text, names, variant, told))
        }));
    }

    async fn remove(&self, entry: StoredEntry) -> Result<()> {
        invalidated(&self.shared.observer, "manual", EffectiveUri::of_text(entry.url()).as_ref());
        self.shared.records.invalidate(entry.key, Some(entry.url())).await.into_result()
    }

    /// Removes all expired records, including body chunks, and returns how many ([`Storage::delete_expired`]).
    ///
    /// No response that could be served is lost. A storage that expires records by itself (Redis, MongoDB, DynamoDB) has few
    /// of them. There is no timeout: it takes as long as the storage does.
    ///
    /// # Errors
    /// Returns the storage's error. Some records may be removed by then.
    pub async fn delete_expired(&self) -> Result<u64> {
        self.shared.records.storage.inner().delete_expired(self.shared.config.clock.now()).await
    }

    /// Deletes all entries, and returns how many responses there were.
    ///
    /// A cache with a partition or a key secret deletes its own entries, as [`delete_matching`](Self::delete_matching) does.
    /// Any other cache, or a handle [`across_partitions`](Self::across_partitions), empties the storage. Then the entries of
    /// other caches are gone too, and so are tombstones, so that a fetch that is under way may still store its response. Use
    /// `delete_matching(&EntryFilter::new())` if that must not happen.
    ///
    /// # Errors
    /// Returns the storage's error. Some responses may be deleted by then.
    pub async fn clear(&self) -> Result<u64> {
        let everything = EntryFilter::new();
        if !self.across_partitions && !self.shared.config.has_default_keys() {
            return self.delete_matching(&everything).await;
        }
        let all = self.clone().across_partitions(true);
        let count = all.entries(&everything).try_fold(0, |count, _| future::ready(Ok(count + 1))).await?;
        invalidated(&self.shared.observer, "manual", None);
        self.shared.records.storage.inner().clear().await?;
        Ok(count)
    }

    /// Sets the lifetime of the stored responses that a filter chooses, and returns how many were changed.
    ///
    /// The lifetime counts from now. It overrides the response's own, and its `no-cache`, until the response is fetched or
    /// revalidated again. The response is kept for as long as the cache's settings say for that lifetime.
    ///
    /// [`Ttl::Revalidate`] makes responses stale at once, [`Ttl::DoNotStore`] deletes them. A response that another process
    /// changes at the same time, or whose body is gone, is left as it is.
    ///
    /// # Errors
    /// Returns the errors of [`entries`](Self::entries), or the storage's error if it did not take a change. Some responses
    /// may be changed by then.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use tower_response_cache::{CacheLayer, EntryFilter, Ttl, storage::MemoryStorage};
    ///
    /// let handle = CacheLayer::new(MemoryStorage::new()).handle();
    /// let news = EntryFilter::new().url("news.example.com");
    /// handle.reset_expiry(&news, Duration::from_secs(60)).await?;
    /// handle.reset_expiry(&news, Ttl::Revalidate).await?;
    /// # Ok::<_, tower_response_cache::Error>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub async fn reset_expiry(&self, filter: &EntryFilter, ttl: impl Into<Ttl> + Send) -> Result<u64> {
        let ttl = ttl.into();
        if ttl == Ttl::DoNotStore {
            return self.delete_matching(filter).await;
        }
        self.entries(filter)
            .map_ok(|entry| self.reset(entry, ttl))
            .try_buffer_unordered(AT_ONCE)
            .try_fold(0, |count, changed| future::ready(Ok(count + u64::from(changed))))
            .await
    }

    async fn reset(&self, entry: StoredEntry, ttl: Ttl) -> Result<bool> {
        let (now, policy) = (self.shared.config.clock.now(), &self.shared.config.policy);
        let received = entry.stored_at();
        let Some(mut lifetime) = ttl.lifetime(received) else { return Ok(false) };
        if let Ttl::For(from_now) = ttl {
            lifetime = now.since(received).saturating_add(from_now);
        }
        let StoredEntry { key, variant, record, .. } = entry;
        // The new lifetime overrides earlier expiries too.
        let head = match decode(&record) {
            Some(DecodedRecord::Variant { .. }) => {
                self.shared.records.storage.read(Key::head(key.entry)).await?
            }
            _ => Some(record.clone()),
        };
        let expiries = head.as_ref().and_then(decode).and_then(DecodedRecord::expiries);
        let variant = self.shared.records.unexpired(variant, expiries).await?;
        let given = Some(RuleTtl { lifetime, overrides: true });
        let response = StoredResponse { given, freshness: OnceLock::new(), ..variant.response };
        let until = response.freshness(self.shared.records.number, policy).retain_until(policy);
        // The change counts as a use.
        let kept_until = self.shared.records.limited_by_idleness(until);
        let chunks = response.body().chunks(key);
        let body = response.body().clone().with_retain_until(kept_until + GRACE);
        let (trailers, made_tag) = (response.trailers().cloned(), response.made_tag());
        let response = response.with_content(StoredContent::new(body, trailers).with_made_tag(made_tag));
        // Before the record, which must never outlive its body.
        if !self.shared.records.retain_chunks(chunks.clone(), Retain::AtLeast(kept_until + GRACE)).await? {
            return Ok(false);
        }
        let groups: Vec<Key> = response.groups.iter().map(|group| group.key).collect();
        self.shared.records.storage.retain(&groups, Retain::AtLeast(until)).await?;
        let Some(slot) = decode(&record) else { return Ok(false) };
        let retain = match slot {
            // Without names it leads to no other variants.
            DecodedRecord::Head(head) if head.names.is_empty() => kept_until.max(head.fence),
            DecodedRecord::Head(head) => kept_until.max(head.fence).max(record.retain_until()),
            _ => kept_until,
        };
        let Some(slot) = slot.with(Variant { until, response, ..variant }) else { return Ok(false) };
        let new = entry::record(slot, retain);
        match self.shared.records.storage.write_if(key, Some(record.stamp()), new).await {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::TooLarge => return Ok(false),
            Err(error) => return Err(error),
        }
        if let Some(head) = head.filter(|_| key.kind == Kind::Variant) {
            self.shared.records.retain_head(Key::head(key.entry), &head, kept_until).await?;
        }
        // Where the body is now kept for a shorter time. Its readers have the grace to finish.
        self.shared.records.retain_chunks(chunks, Retain::AtMost(kept_until.max(now) + GRACE)).await?;
        Ok(true)
    }
}
