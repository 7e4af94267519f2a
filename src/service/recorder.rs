//! Stores a body while it passes: the [`Tee`] behind a [`CacheBody`](crate::CacheBody).
//!
//! Promises: a body that is dropped, fails, or is not as long as announced stores nothing and leaves no chunks; at most
//! one chunk and what came in one frame are held; a store that is too slow or fails ends the storing, not the body.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use tokio::task::JoinHandle;

use super::commit::{Plan, join};
use super::tasks::Driven;
use crate::body::Tee;
use crate::storage::Storage;

pub(crate) struct Recorder<S: Storage> {
    /// `None`: storing was given up, or is finished.
    plan: Option<Arc<Plan<S>>>,
    frames: Vec<Bytes>,
    gathered: usize,
    total: u64,
    expected: Option<u64>,
    most: u64,
    trailers: Option<HeaderMap>,
    /// The response announced trailers: its length alone does not make it whole.
    awaits_trailers: bool,
    /// Chunks that were handed to the store.
    parts: u32,
    /// The chunk that the store has not taken yet.
    writing: Option<JoinHandle<bool>>,
}

impl<S: Storage> Recorder<S> {
    pub(crate) fn new(plan: Plan<S>, expected: Option<u64>, awaits_trailers: bool) -> Self {
        let most = plan.core.config.max_entry_bytes;
        Self {
            plan: Some(Arc::new(plan)),
            frames: Vec::new(),
            gathered: 0,
            total: 0,
            expected,
            most,
            trailers: None,
            awaits_trailers,
            parts: 0,
            writing: None,
        }
    }

    /// Takes so many of the gathered bytes as one exact buffer.
    fn take(&mut self, len: usize) -> Bytes {
        let (mut taken, mut room) = (Vec::new(), len);
        while room > 0 && !self.frames.is_empty() {
            if self.frames[0].len() <= room {
                let frame = self.frames.remove(0);
                room -= frame.len();
                taken.push(frame);
            } else {
                taken.push(self.frames[0].split_to(room));
                room = 0;
            }
        }
        self.gathered -= len - room;
        join(&taken)
    }

    /// Hands the next chunk to the store; false: storing has to end.
    fn begin_chunk(&mut self, plan: &Arc<Plan<S>>) -> bool {
        let data = self.take(plan.chunk_len());
        let (part, first) = (self.parts, self.parts == 0);
        self.parts += 1;
        let record = plan.announce_chunk(part, data);
        let writer = Arc::clone(plan);
        let announced = record.clone();
        let step = async move {
            if first && !writer.hold_place().await {
                writer.withdraw_chunk(part, &record);
                return false;
            }
            writer.write_chunk(part, record).await
        };
        match plan.core.tasks.drive(step) {
            Driven::Done(written) => written,
            Driven::Spawned(writing) => {
                self.writing = Some(writing);
                true
            }
            Driven::NoRuntime => {
                plan.withdraw_chunk(part, &announced);
                false
            }
        }
    }

    /// Ends the storing, and removes the chunks that were written for it.
    fn give_up(&mut self) {
        self.frames = Vec::new();
        self.gathered = 0;
        let (Some(plan), parts, writing) = (self.plan.take(), self.parts, self.writing.take()) else {
            return;
        };
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
}

impl<S: Storage> Tee for Recorder<S> {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(writing) = &mut self.writing {
                match Pin::new(writing).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(written) => {
                        self.writing = None;
                        if !written.unwrap_or(false) {
                            self.give_up();
                        }
                    }
                }
            }
            let Some(plan) = self.plan.clone() else { return Poll::Ready(()) };
            if self.gathered <= plan.chunk_len() {
                return Poll::Ready(());
            }
            if !self.begin_chunk(&plan) {
                self.give_up();
            }
        }
    }

    fn data(&mut self, data: &Bytes) {
        self.total = self.total.saturating_add(data.len() as u64);
        if self.plan.is_none() || data.is_empty() {
            return;
        }
        if self.total > self.most || self.expected.is_some_and(|expected| self.total > expected) {
            tracing::debug!("not stored: the body is longer than an entry may be, or than it announced");
            return self.give_up();
        }
        self.gathered += data.len();
        self.frames.push(data.clone());
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.trailers = Some(trailers.clone());
    }

    fn is_whole(&self) -> bool {
        !self.awaits_trailers && self.expected == Some(self.total)
    }

    fn finish(&mut self) {
        if self.expected.is_some_and(|expected| expected != self.total) {
            tracing::debug!("not stored: the body is not as long as it announced");
            return self.give_up();
        }
        let Some(plan) = self.plan.take() else { return };
        let core = Arc::clone(&plan.core);
        let chunk_len = plan.chunk_len();
        let trailers = self.trailers.take();
        if self.parts == 0 && self.gathered <= chunk_len {
            let body = join(&self.frames);
            let record = plan.announce_inline(body, trailers);
            let announced = record.clone();
            let committer = Arc::clone(&plan);
            if let Driven::NoRuntime = core.tasks.drive(async move { committer.commit(record, 0).await }) {
                plan.withdraw(&announced);
            }
            return;
        }
        // What is left is announced at once and written in order, behind the chunk that is on its way.
        let writing = self.writing.take();
        let mut rest = Vec::new();
        while self.gathered > 0 {
            let data = self.take(chunk_len);
            rest.push((self.parts, plan.announce_chunk(self.parts, data)));
            self.parts += 1;
        }
        let (parts, hold) = (self.parts, rest.first().is_some_and(|(part, _)| *part == 0));
        let record = plan.announce_chunked(self.total, trailers);
        let (announced, announced_rest) = (record.clone(), rest.clone());
        let committer = Arc::clone(&plan);
        let step = async move {
            let mut kept = match writing {
                Some(writing) => writing.await.unwrap_or(false),
                None => true,
            };
            kept = kept && (!hold || committer.hold_place().await);
            for (part, chunk) in rest {
                if kept {
                    kept = committer.write_chunk(part, chunk).await;
                } else {
                    committer.withdraw_chunk(part, &chunk);
                }
            }
            if kept {
                committer.commit(record, parts).await;
            } else {
                committer.withdraw(&record);
                committer.discard(parts).await;
            }
        };
        if let Driven::NoRuntime = core.tasks.drive(step) {
            plan.withdraw(&announced);
            announced_rest.iter().for_each(|(part, chunk)| plan.withdraw_chunk(*part, chunk));
        }
    }
}

impl<S: Storage> Drop for Recorder<S> {
    fn drop(&mut self) {
        self.give_up();
    }
}
