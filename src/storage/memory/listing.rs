//! Goes through all records a part at a time, so that no worker is held up and no list of everything is made.

use std::collections::VecDeque;
use std::task::Poll;

use futures_core::Stream;
use futures_util::stream;

use super::group::Place;
use super::store::MemoryStorage;
use crate::error::Result;
use crate::storage::{Key, Record};

/// How many records or places are looked at under one lock: some ten microseconds.
const STEP: usize = 256;

/// How far a listing has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    shard: usize,
    /// The entry's place in the shard.
    at: u32,
    /// The last record of that entry that was given; of which entry tells `of`.
    last: Option<Place>,
    of: u64,
    /// Entries that were made later are not listed: one that was removed and came again would be listed twice.
    begun: u64,
}

impl MemoryStorage {
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { shard: 0, at: 0, last: None, of: 0, begun: self.born() }
    }

    /// Gives `each` the next records; false: there are no more.
    pub(super) fn step(&self, cursor: &mut Cursor, mut each: impl FnMut(Key, &Record)) -> bool {
        let mut left = STEP;
        while let Some(table) = self.table(cursor.shard) {
            while cursor.at < table.places() {
                let node = table.node(cursor.at).filter(|node| node.born < cursor.begun);
                if let Some(node) = node {
                    let last = cursor.last.filter(|_| cursor.of == node.born);
                    for (place, record) in node.group.after(last) {
                        if left == 0 {
                            return true;
                        }
                        left -= 1;
                        let (kind, slot, part) = place;
                        each(Key { entry: node.name.entry, kind, slot, part }, record);
                        (cursor.last, cursor.of) = (Some(place), node.born);
                    }
                }
                (cursor.at, cursor.last) = (cursor.at + 1, None);
                left = left.saturating_sub(1);
                if left == 0 {
                    return true;
                }
            }
            (cursor.shard, cursor.at) = (cursor.shard + 1, 0);
        }
        false
    }

    /// What `pick` makes of all records.
    pub(super) fn listing<T: Send + 'static>(
        &self,
        pick: fn(Key, &Record) -> Option<T>,
    ) -> impl Stream<Item = Result<T>> + Send {
        let (storage, mut cursor, mut found) = (self.clone(), self.cursor(), VecDeque::new());
        let (mut more, mut has_rested) = (true, false);
        stream::poll_fn(move |cx| {
            loop {
                if let Some(item) = found.pop_front() {
                    return Poll::Ready(Some(Ok(item)));
                }
                if !more {
                    return Poll::Ready(None);
                }
                if !std::mem::replace(&mut has_rested, true) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                more = storage.step(&mut cursor, |key, record| found.extend(pick(key, record)));
                has_rested = false;
            }
        })
    }
}
