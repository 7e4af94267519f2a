//! Methods of the handle that make responses stale.
//!
//! # Invariants
//! - A response is not lost: it is kept as long as before, and is validated or served as a stale one.
//! - Each write is compared with what was read, so that a response that is stored meanwhile is not lost either.

use std::collections::HashSet;
use std::future::Future;

use futures_util::{TryStreamExt, future};
use http::Request;

use super::entry::StoredEntry;
use super::filter::EntryFilter;
use super::find::{parts_of, parts_of_url};
use super::{AT_ONCE, CacheHandle, Ending};
use crate::error::Result;
use crate::key::EffectiveUri;
use crate::service::{EXPIRY_ATTEMPTS, contended, invalidated};
use crate::storage::Storage;
use crate::time::Timestamp;

impl<S: Storage> CacheHandle<S> {
    /// Makes the responses of a request's URI stale, with all variants, and returns 1 if there was one.
    ///
    /// The responses stay stored (a *soft purge*). The next request validates one of them with the origin, or gets it stale
    /// where `stale-while-revalidate`, `stale-if-error` or the request permits that. These times count from now. A response with
    /// `must-revalidate` is not served before it was validated. Age stays the true age, and a 304 or a new response is fresh
    /// again.
    ///
    /// It holds for every process on the storage, and costs one write. A fetch that is under way does not make a stored
    /// response fresh. If nothing is stored, the response of such a fetch is not stored.
    ///
    /// The request's method and fields do not count. [`CacheStatus::is_expired`](crate::CacheStatus::is_expired) and
    /// [`ValidateReason::Expired`](crate::ValidateReason::Expired) tell such responses from others.
    ///
    /// # Errors
    /// Returns the storage's error if it has not acknowledged the write. Unlike [`delete`](Self::delete), this method then has
    /// to be called again.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use tower_response_cache::{CacheLayer, EntryFilter, storage::MemoryStorage};
    ///
    /// let handle = CacheLayer::new(MemoryStorage::new()).handle();
    /// handle.expire_url("https://example.com/news").await?;
    /// handle.expire_tag("front-page").await?;
    /// handle.expire_matching(&EntryFilter::new().url("example.com/news/**")).await?;
    /// # Ok::<_, tower_response_cache::Error>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn expire<'h, B>(
        &'h self,
        request: &Request<B>,
    ) -> impl Future<Output = Result<u64>> + Send + use<'h, S, B> {
        let parts = parts_of(request);
        async move {
            match self.shared.config.identify(&parts) {
                Some(uri) => self.expire_entry(&uri).await,
                None => Ok(0),
            }
        }
    }

    /// Makes the responses of this URL stale, as [`expire`](Self::expire) does.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if the text is not an absolute URL, or the errors of
    /// [`expire`](Self::expire).
    pub async fn expire_url(&self, url: &str) -> Result<u64> {
        let parts = parts_of_url(url)?;
        self.expire_entry(&self.uri_of(url, &parts)?).await
    }

    async fn expire_entry(&self, uri: &EffectiveUri<'_>) -> Result<u64> {
        let records = &self.shared.records;
        invalidated(&self.shared.observer, "expiry", Some(uri));
        // Before the list of the others is read: a response that is listed later began after that.
        let mut is_there = records.expire_entry(records.keyer.head(uri), uri).await?;
        for (key, text) in records.equivalents(uri).await? {
            let Some(other) = EffectiveUri::of_text(&text) else { continue };
            is_there |= records.expire_entry(key, &other).await?;
        }
        Ok(u64::from(is_there))
    }

    /// Makes the stored responses that a filter chooses stale, as [`expire`](Self::expire) does, and returns how many.
    ///
    /// Each variant is chosen by itself. A filter without conditions chooses all that was stored before now. The whole storage
    /// is read, and each chosen response is written once more; [`expire_tag`](Self::expire_tag) is cheaper.
    ///
    /// A response that this layer was fetching when the call began is not stored, if the filter chooses it. That does not hold
    /// for a response that another process, or another layer on the storage, was fetching for the first time.
    ///
    /// # Errors
    /// Returns the errors of [`entries`](Self::entries), or the storage's error if it did not take a change. Some responses
    /// may be stale by then.
    pub async fn expire_matching(&self, filter: &EntryFilter) -> Result<u64> {
        filter.check()?;
        let began = self.shared.config.clock.now();
        // Before the listing, as for a deletion: the response of a fetch that is under way must not replace a stale one.
        self.refuse_in_flight(filter);
        let mut seen = HashSet::new();
        let mut count = 0;
        // Writes that passed that note before it was there, and are not in the storage yet.
        for (key, record) in self.shared.records.in_flight.listed() {
            if let Some(entry) = self.shown(key, record).await?.filter(|entry| filter.matches(entry)) {
                count += u64::from(self.expire_chosen(entry, filter, began).await?);
                seen.insert(key);
            }
        }
        self.entries(filter)
            .try_filter(|entry| future::ready(!seen.contains(&entry.key)))
            .map_ok(|entry| self.expire_chosen(entry, filter, began))
            .try_buffer_unordered(AT_ONCE)
            .try_fold(count, |count, expired| future::ready(Ok(count + u64::from(expired))))
            .await
    }

    /// Makes a response stale, or the one that has replaced it meanwhile, if its fetch began before `began`.
    async fn expire_chosen(
        &self,
        mut entry: StoredEntry,
        filter: &EntryFilter,
        began: Timestamp,
    ) -> Result<bool> {
        let (records, key) = (&self.shared.records, entry.key);
        invalidated(&self.shared.observer, "expiry", EffectiveUri::of_text(entry.url()).as_ref());
        for _ in 0..EXPIRY_ATTEMPTS {
            if records.expire_record(key, &entry.record).await? {
                return Ok(true);
            }
            let Some(record) = records.read_slot(key, None).await? else { return Ok(false) };
            let newer = self.shown(key, record).await?;
            match newer.filter(|newer| newer.requested_at() <= began && filter.matches(newer)) {
                Some(newer) => entry = newer,
                None => return Ok(false),
            }
        }
        Err(contended())
    }

    /// Makes all responses with this tag stale, as [`expire`](Self::expire) does.
    ///
    /// It costs one write, however many responses there are. A response whose fetch began before is stored, and is stale. So is
    /// a response that another process fetches within five seconds, since the clocks of processes may differ.
    ///
    /// A handle [`across_partitions`](Self::across_partitions) reads the whole storage, as
    /// [`invalidate_tag`](Self::invalidate_tag) does.
    ///
    /// # Errors
    /// Returns the storage's error if it could not be read, or has not acknowledged the write. The method then has to be called
    /// again.
    pub async fn expire_tag(&self, name: &str) -> Result<()> {
        self.shared.records.expire_tag(name).await?;
        self.end_tag_elsewhere(name, Ending::Stale).await
    }

    /// Makes all responses in a group of an origin stale, as [`expire_tag`](Self::expire_tag) does.
    ///
    /// The origin names its groups by Cache-Groups (RFC 9875). `origin` is a scheme and a host, such as
    /// `https://example.com`.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if `origin` is malformed, or the errors of
    /// [`expire_tag`](Self::expire_tag).
    pub async fn expire_group(&self, origin: &str, name: &str) -> Result<()> {
        self.shared.records.expire_origin_group(origin, name).await?;
        self.end_group_elsewhere(origin, name, Ending::Stale).await
    }
}
