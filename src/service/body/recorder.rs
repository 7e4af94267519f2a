//! Stores a body while it is downloaded.
//!
//! Promises: a body that is dropped, fails, or is not as long as announced stores nothing, and leaves no chunks that
//! nobody reads; at most one chunk is held besides what the store is just taking; a store that is too slow or fails ends
//! the storing, not the body.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::HeaderMap;
use tokio::task::JoinHandle;

use super::commit::{Hold, Lost, Plan};
use super::core::Core;
use super::in_flight::ChunkWrite;
use super::tasks::Driven;
use super::window::Window;
use crate::storage::Storage;

pub(crate) struct Recorder<S: Storage> {
    /// `None`: storing was given up, or is finished.
    plan: Option<Arc<Plan<S>>>,
    expected: Option<u64>,
    /// The response announced trailers: its length alone does not make it whole.
    awaits_trailers: bool,
    /// Chunks that were handed to the store.
    parts: u32,
    /// The chunk that the store has not taken yet.
    writing: Option<JoinHandle<Result<(), Lost>>>,
}

impl<S: Storage> Recorder<S> {
    pub(crate) fn new(plan: Arc<Plan<S>>, expected: Option<u64>, awaits_trailers: bool) -> Self {
        Self { plan: Some(plan), expected, awaits_trailers, parts: 0, writing: None }
    }

    /// Ready when another frame may come: a store slower than the body slows it down, within a deadline. False: storing
    /// has ended.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>, window: &mut Window) -> Poll<bool> {
        loop {
            if let Some(writing) = &mut self.writing {
                match Pin::new(writing).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(written) => {
                        self.writing = None;
                        if let Err(why) = written.unwrap_or(Err(Lost::NoRuntime)) {
                            self.give_up(|core| core.note_lost(&why));
                        }
                    }
                }
            }
            let Some(plan) = self.plan.clone() else { return Poll::Ready(false) };
            let handed_over = self.handed_over(&plan);
            window.release(handed_over);
            if window.end() - handed_over <= plan.chunk_len() as u64 {
                return Poll::Ready(true);
            }
            if let Err(why) = self.begin_chunk(&plan, window) {
                self.give_up(|core| core.note_lost(&why));
            }
        }
    }

    /// Where the part of the body ends that the store was given.
    fn handed_over(&self, plan: &Plan<S>) -> u64 {
        u64::from(self.parts) * plan.chunk_len() as u64
    }

    /// The next chunk, announced.
    fn next_chunk(&mut self, plan: &Plan<S>, window: &Window) -> ChunkWrite {
        let data = window.copy(self.handed_over(plan), plan.chunk_len());
        let part = self.parts;
        self.parts += 1;
        plan.announce_chunk(part, data)
    }

    /// Hands the next chunk to the store; an error: storing has to end.
    fn begin_chunk(&mut self, plan: &Arc<Plan<S>>, window: &Window) -> Result<(), Lost> {
        let hold = if self.parts == 0 { plan.announce_place() } else { Hold::Needless };
        let chunk = self.next_chunk(plan, window);
        let writer = Arc::clone(plan);
        let step = async move {
            writer.hold_place(hold).await?;
            writer.write_chunk(chunk).await
        };
        match plan.core.tasks.drive(step) {
            Driven::Done(written) => written,
            Driven::Spawned(writing) => {
                self.writing = Some(writing);
                Ok(())
            }
            Driven::NoRuntime => Err(Lost::NoRuntime),
        }
    }

    /// Notes how much has come; false: it is more than may be stored, and storing has ended.
    pub(crate) fn accepts(&mut self, total: u64) -> bool {
        let Some(plan) = &self.plan else { return false };
        let reason = match self.expected {
            _ if total > plan.core.config.max_entry_bytes => "too-large",
            Some(expected) if total > expected => "length",
            _ => return true,
        };
        // Who comes next need not wait to learn that.
        plan.core.alone.add(plan.head(), plan.core.config.clock.now(), None);
        self.give_up(|core| core.note_unstored(reason));
        false
    }

    /// Whether this is all that the response announced.
    pub(crate) fn is_whole(&self, total: u64) -> bool {
        !self.awaits_trailers && self.expected == Some(total)
    }

    /// Ends the storing, and removes the chunks that were written for it.
    pub(crate) fn give_up(&mut self, note: impl FnOnce(&Core<S>)) {
        let (Some(plan), parts, writing) = (self.plan.take(), self.parts, self.writing.take()) else {
            return;
        };
        note(&plan.core);
        plan.give_back_lease();
        if parts == 0 {
            return;
        }
        let core = Arc::clone(&plan.core);
        // Without a runtime they stay until their time.
        core.tasks.spawn(async move {
            if let Some(writing) = writing {
                let _ = writing.await;
            }
            plan.discard(parts).await;
        });
    }

    /// The body ended cleanly: what it was is stored. False: it is not what was announced.
    pub(crate) fn finish(&mut self, window: &Window, trailers: Option<HeaderMap>) -> bool {
        if self.expected.is_some_and(|expected| expected != window.end()) {
            self.give_up(|core| core.note_unstored("length"));
            return false;
        }
        if self.plan.as_ref().is_some_and(|plan| window.end() < plan.core.config.min_entry_bytes) {
            self.give_up(|core| core.note_unstored("too-small"));
            return false;
        }
        let Some(plan) = self.plan.take() else { return false };
        let core = Arc::clone(&plan.core);
        let total = window.end();
        if self.parts == 0 && total <= plan.inline_len() as u64 {
            let write = plan.announce_inline(window.copy(0, total as usize), trailers);
            if let Driven::NoRuntime = core.tasks.drive(async move { plan.commit(write, 0).await }) {
                core.note_unstored("no-runtime");
            }
            return true;
        }
        // What is left is announced at once and written in order, behind the chunk that is on its way.
        let writing = self.writing.take();
        let hold = if self.parts == 0 { plan.announce_place() } else { Hold::Needless };
        let mut rest = Vec::new();
        while self.handed_over(&plan) < total {
            rest.push(self.next_chunk(&plan, window));
        }
        let parts = self.parts;
        let write = plan.announce_chunked(total, trailers);
        let step = async move {
            let write_all = async {
                if let Some(writing) = writing {
                    writing.await.unwrap_or(Err(Lost::NoRuntime))?;
                }
                plan.hold_place(hold).await?;
                for chunk in rest {
                    plan.write_chunk(chunk).await?;
                }
                Ok(())
            };
            match write_all.await {
                Ok(()) => {
                    plan.commit(write, parts).await;
                }
                Err(why) => {
                    plan.core.note_lost(&why);
                    plan.give_back_lease();
                    drop(write);
                    plan.discard(parts).await;
                }
            }
        };
        if let Driven::NoRuntime = core.tasks.drive(step) {
            core.note_unstored("no-runtime");
        }
        true
    }
}

impl<S: Storage> Drop for Recorder<S> {
    fn drop(&mut self) {
        self.give_up(|core| core.note_unstored("incomplete"));
    }
}
