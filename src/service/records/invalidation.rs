//! Invalidation: a tombstone in the head's place, or another value in a group's.
//!
//! Promises: once it is settled, no response whose fetch began before is served by any process; as long as the
//! store has not taken it, this process serves and stores nothing for the entry, and tries again by itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use http::{Uri, request};

use super::super::tasks::Driven;
use super::super::telemetry;
use super::Records;
use super::lookup::variant_in;
use crate::entry::{self, Slot, TOMBSTONE};
use crate::error::{Error, ErrorKind, Result};
use crate::key::EffectiveUri;
use crate::storage::{Key, Kind, Stamp, Storage};

/// How far an invalidation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settling {
    /// This wrote the tombstone.
    Written(Stamp),
    /// Somebody else did.
    Settled,
    /// The store has not taken it.
    Unsettled,
}

impl Settling {
    /// For those who invalidate by hand.
    pub(crate) fn into_result(self) -> Result<()> {
        match self {
            Self::Written(_) | Self::Settled => Ok(()),
            Self::Unsettled => Err(Error::new(
                ErrorKind::Unavailable,
                "the store has not taken the invalidation yet: this process treats it as done, and tries again",
            )),
        }
    }
}

impl<S: Storage> Records<S> {
    /// Invalidates an entry, or a group. Unsettled: the store has not taken it yet. `of`: the URI or key text of what it
    /// ends; `None`: that may be anything.
    pub(crate) async fn invalidate(self: &Arc<Self>, head: Key, of: Option<&str>) -> Settling {
        self.pending.add(head, of, self.config.clock.now());
        let records = Arc::clone(self);
        // A caller that goes away must not leave it half done, so it goes on beside it if it can.
        let settled = match self.tasks.drive(async move { records.settle(head).await }) {
            Driven::Done(settled) => settled,
            Driven::Spawned(task) => task.await.unwrap_or(Settling::Unsettled),
            Driven::NoRuntime => Settling::Unsettled,
        };
        if settled == Settling::Unsettled {
            self.settle_later();
        }
        settled
    }

    /// Writes what a head is owed, a tombstone, or a group: another value.
    pub(crate) async fn settle(&self, head: Key) -> Settling {
        let Some(pending) = self.pending.get(head) else { return Settling::Settled };
        // Only to learn which chunks may go: what is there is overwritten whatever it is. A store that does not answer
        // is not asked twice, since somebody waits.
        let Ok(there) = self.store.read(head).await else { return Settling::Unsettled };
        let now = self.config.clock.now();
        let until = now + TOMBSTONE;
        let tombstone = match head.kind {
            Kind::Group => self.group_ended(there.as_ref(), now),
            _ => entry::record(Slot::Fence { until, placeholder: false }, until),
        };
        let stamp = tombstone.stamp();
        let mut written = self.store.overwrite(head, tombstone.clone()).await;
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::Full) {
            // What is removed makes room, and others do not find it while the tombstone has none.
            let _ = self.store.delete_many(&[head]).await;
            written = self.store.overwrite(head, tombstone).await;
        }
        if written.is_err() {
            return Settling::Unsettled;
        }
        self.pending.settle(head, pending);
        if let Some(variant) = there.as_ref().and_then(variant_in) {
            self.release_chunks(variant.response.body.chunks(head)).await;
        }
        Settling::Written(stamp)
    }

    /// Writes the pending invalidations once the storage is back. One task for all; it is not waited for by `idle`. It ends
    /// with its runtime, so that requests in another one begin it again.
    pub(crate) fn settle_later(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(mut settler) = self.pending.begin_settling() else { return };
        let records = Arc::downgrade(self.root());
        runtime.spawn(async move {
            let mut pause = Duration::from_millis(100);
            loop {
                tokio::time::sleep(pause).await;
                let Some(records) = records.upgrade() else { return };
                match records.pending.any() {
                    None => {
                        drop(settler);
                        if records.pending.is_empty() {
                            return;
                        }
                        let Some(again) = records.pending.begin_settling() else { return };
                        settler = again;
                    }
                    Some((head, _)) if records.settle(head).await != Settling::Unsettled => {
                        pause = Duration::from_millis(1)
                    }
                    Some(_) => pause = (pause * 2).clamp(Duration::from_millis(100), Duration::from_secs(2)),
                }
            }
        });
    }

    /// Invalidates what a successful unsafe request made doubtful: its own URI and those that the response names. The
    /// stamp of the tombstone that this wrote for its own URI.
    pub(crate) async fn invalidate_all(
        self: &Arc<Self>,
        uri: &EffectiveUri<'_>,
        named: &[Uri],
        asked: &request::Parts,
    ) -> Option<Stamp> {
        let head = self.keyer.head(uri);
        telemetry::invalidated(
            &self.observer,
            "method",
            EffectiveUri::of(asked, &self.config.defaults).as_ref(),
        );
        let others = named.iter().filter_map(|uri| {
            let other = self.config.identity.of_uri(uri, asked)?;
            let (key, text) = (self.keyer.head(&other), other.to_text());
            Some((key, text, uri)).filter(|_| key != head)
        });
        let others = others.map(|(key, text, uri)| {
            telemetry::invalidated(&self.observer, "method", EffectiveUri::of_uri(uri).as_ref());
            (key, text)
        });
        let others: Vec<(Key, String)> = others.collect();
        // At the same time: a store that hangs costs one deadline.
        let others = join_all(others.iter().map(|(key, text)| self.invalidate(*key, Some(text))));
        let (own, _) = join(self.invalidate(head, Some(&uri.to_text())), others).await;
        match own {
            Settling::Written(stamp) => Some(stamp),
            Settling::Settled | Settling::Unsettled => None,
        }
    }
}
