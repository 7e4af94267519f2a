//! Deleting what is stored, and giving it another lifetime.
//!
//! Promises: deleting is an invalidation, so that a fetch under way brings nothing back; it says how many responses it took; a
//! lifetime is changed only where nobody changed the record meanwhile.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use futures_util::{TryStreamExt, future};

use super::entry::StoredEntry;
use super::filter::EntryFilter;
use super::listing::is_own;
use super::{AT_ONCE, CacheHandle};
use crate::entry::{self, GRACE, Slot, StoredResponse, Variant, decode};
use crate::error::{ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::policy::{Given, Ttl};
use crate::service::invalidated;
use crate::storage::{Key, Kind, Retain, Storage};

impl<S: Storage> CacheHandle<S> {
    /// Deletes the stored responses that a filter chooses; says how many. As with [`delete`](Self::delete), no process serves
    /// them afterwards, and no fetch that is under way brings them back.
    ///
    /// A response that this layer was fetching when the call began is not stored either, if the filter chooses it. Of
    /// what was not stored yet, other processes and other layers on the same storage know nothing: what they were fetching
    /// for the first time is stored. [`delete_url`](Self::delete_url) and [`invalidate_tag`](Self::invalidate_tag) reach
    /// that too.
    ///
    /// Where fields tell several responses of a URL apart, the first of them takes the others with it: they are fetched
    /// again. Others go alone.
    ///
    /// # Errors
    /// As with [`entries`](Self::entries), or the store did not take a deletion; some may be deleted by then.
    pub async fn delete_matching(&self, filter: &EntryFilter) -> Result<u64> {
        filter.check()?;
        let (shared, everywhere, chosen) = (&self.shared, self.everywhere, filter.clone());
        let (number, policy, clock) =
            (shared.records.number, shared.config.policy.clone(), shared.config.clock.clone());
        let keyer = shared.records.keyer.clone();
        // First, so that a fetch under way is stored before this looks, or asks this before it stores.
        self.shared.records.changes.add_deletion(Arc::new(move |key, record, names| {
            let (text, variant) = match decode(record) {
                Some(Slot::Head(head)) => (&head.key_text, &head.inline),
                Some(Slot::Variant { key_text, variant, .. }) => (key_text, variant),
                _ => return false,
            };
            let freshness = variant.response.freshness(number, &policy).into_owned();
            let told = (freshness, clock.now());
            is_own(&keyer, everywhere, key, text)
                && chosen.matches(&StoredEntry::new((key, record.clone()), text, names, variant, told))
        }));
        // What has asked already and is not in the store yet.
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

    async fn remove(&self, entry: StoredEntry) -> Result<()> {
        invalidated(&self.shared.observer, "hand", EffectiveUri::of_text(&entry.url).as_ref());
        self.shared.records.invalidate(entry.key, Some(&entry.url)).await.into_result()
    }

    /// Removes all records that are kept no longer, of whatever kind: [`Storage::delete_expired`]. How many records there
    /// were, pieces of bodies among them. Nothing that could be served is lost. A store that expires records by itself
    /// (Redis, MongoDB, DynamoDB) has few.
    ///
    /// It takes the time that the store needs: there is no deadline.
    ///
    /// # Errors
    /// The store failed; some may be removed by then.
    pub async fn delete_expired(&self) -> Result<u64> {
        self.shared.records.store.store().delete_expired(self.shared.config.clock.now()).await
    }

    /// Deletes everything; says how many stored responses there were.
    ///
    /// A cache with a partition or a secret of its own deletes what is its own, as
    /// [`delete_matching`](Self::delete_matching) does. Any other, or a handle
    /// [`across_partitions`](Self::across_partitions), empties the store: what other caches keep there is gone as well, and
    /// so are the traces of earlier invalidations, so that a fetch which is under way may still store its response. Where
    /// that must not be, use `delete_matching(&EntryFilter::new())`.
    ///
    /// # Errors
    /// The store failed; some may be deleted by then.
    pub async fn clear(&self) -> Result<u64> {
        let everything = EntryFilter::new();
        if !self.everywhere && !self.shared.config.has_default_keys() {
            return self.delete_matching(&everything).await;
        }
        let all = self.clone().across_partitions(true);
        let count = all.entries(&everything).try_fold(0, |count, _| future::ready(Ok(count + 1))).await?;
        invalidated(&self.shared.observer, "hand", None);
        self.shared.records.store.store().clear().await?;
        Ok(count)
    }

    /// Gives the stored responses that a filter chooses another lifetime, counted from now; says how many have it. It
    /// overrides what they said themselves, `no-cache` too, until they are fetched or confirmed by the origin again. They are
    /// then kept for as long as the cache's settings say for that lifetime.
    ///
    /// [`Ttl::Revalidate`] makes them stale at once, [`Ttl::DoNotStore`] deletes them. One that somebody else changes
    /// meanwhile, or whose body is gone, is left as it is.
    ///
    /// # Errors
    /// As with [`entries`](Self::entries), or the store did not take a change; some may be changed by then.
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
        let given = Some(Given { lifetime, overrides: true });
        let mut response = StoredResponse { given, freshness: OnceLock::new(), ..variant.response };
        let until = response.freshness(self.shared.records.number, policy).retain_until(policy);
        let chunks = response.body.chunks(key);
        response.body = response.body.kept_until(until + GRACE);
        // Before the record, which must never outlive its body.
        if !self.shared.records.retain_chunks(chunks.clone(), Retain::AtLeast(until + GRACE)).await? {
            return Ok(false);
        }
        let groups: Vec<Key> = response.groups.iter().map(|group| group.key).collect();
        self.shared.records.store.retain(&groups, Retain::AtLeast(until)).await?;
        let Some(slot) = decode(&record) else { return Ok(false) };
        let retain = match slot {
            // Without names there are no further variants to be reached through it.
            Slot::Head(head) if head.names.is_empty() => until.max(head.fence),
            Slot::Head(head) => until.max(head.fence).max(record.retain_until()),
            _ => until,
        };
        let Some(slot) = slot.with(Variant { until, response, ..variant }) else { return Ok(false) };
        let new = entry::record(slot, retain);
        match self.shared.records.store.write_if(key, Some(record.stamp()), new).await {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::TooLarge => return Ok(false),
            Err(error) => return Err(error),
        }
        if key.kind == Kind::Variant {
            self.shared.records.store.retain(&[Key::head(key.entry)], Retain::AtLeast(until)).await?;
        }
        // What is kept for a shorter time than before. Its readers have the grace.
        self.shared.records.retain_chunks(chunks, Retain::AtMost(until.max(now) + GRACE)).await?;
        Ok(true)
    }
}
