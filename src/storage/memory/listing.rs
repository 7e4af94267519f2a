//! Walks all records in steps.
//!
//! A listing thus neither blocks a worker thread for long nor collects everything first.

use std::collections::VecDeque;
use std::task::Poll;

use futures_core::Stream;
use futures_util::stream;

use super::entry_records::RecordId;
use super::storage::MemoryStorage;
use crate::error::Result;
use crate::storage::{Key, Record};

/// How many records or positions are visited under one lock, which takes some ten microseconds.
const STEP: usize = 256;

/// How far a listing has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    shard: usize,
    /// The position of the entry in the table of the shard.
    position: u32,
    /// The last record of that entry that was listed.
    last: Option<RecordId>,
    /// The sequence number of the entry that `last` belongs to. Another entry may have taken its position since.
    last_of: u64,
    /// The sequence number from which entries are skipped. An entry that is removed and created again during the listing
    /// would otherwise be listed twice.
    end: u64,
}

impl MemoryStorage {
    /// Returns a cursor at the first record.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { shard: 0, position: 0, last: None, last_of: 0, end: self.next_sequence() }
    }

    /// Visits the next records. Returns false if there are no more.
    pub(super) fn step(&self, cursor: &mut Cursor, mut visit: impl FnMut(Key, &Record)) -> bool {
        let mut left = STEP;
        while let Some(table) = self.table(cursor.shard) {
            while cursor.position < table.positions() {
                let entry = table.at(cursor.position).filter(|entry| entry.sequence < cursor.end);
                if let Some(entry) = entry {
                    let last = cursor.last.filter(|_| cursor.last_of == entry.sequence);
                    for (id, record) in entry.records.after(last) {
                        if left == 0 {
                            return true;
                        }
                        left -= 1;
                        let (kind, slot, part) = id;
                        visit(Key { entry: entry.id.entry, kind, slot, part }, record);
                        (cursor.last, cursor.last_of) = (Some(id), entry.sequence);
                    }
                }
                (cursor.position, cursor.last) = (cursor.position + 1, None);
                // Empty positions count as well: a table of which most entries were removed has many of them.
                left = left.saturating_sub(1);
                if left == 0 {
                    return true;
                }
            }
            (cursor.shard, cursor.position) = (cursor.shard + 1, 0);
        }
        false
    }

    /// Returns what `pick` selects from all records.
    pub(super) fn listing<T: Send + 'static>(
        &self,
        pick: fn(Key, &Record) -> Option<T>,
    ) -> impl Stream<Item = Result<T>> + Send {
        let (storage, mut cursor, mut found) = (self.clone(), self.cursor(), VecDeque::new());
        let (mut more, mut has_yielded) = (true, false);
        stream::poll_fn(move |cx| {
            loop {
                if let Some(item) = found.pop_front() {
                    return Poll::Ready(Some(Ok(item)));
                }
                if !more {
                    return Poll::Ready(None);
                }
                // Other tasks run between the steps, even if the caller's task never waits for anything else.
                if !std::mem::replace(&mut has_yielded, true) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                more = storage.step(&mut cursor, |key, record| found.extend(pick(key, record)));
                has_yielded = false;
            }
        })
    }
}
