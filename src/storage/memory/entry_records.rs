//! The records of one entry, and what they cost.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use super::eviction_policy::SAMPLE_RATE;
use crate::storage::holds::Holds;
use crate::storage::{Key, Kind, Record, Retain};

/// The cost of a record's places in the two maps of its entry. Their nodes are two thirds full on average.
const MAP_SLOT: u64 = 200;
/// The cost of these maps with one record. A node of a `BTreeMap` has room for eleven.
pub(super) const MAPS: u64 = 1024;
/// The cost of a decoded form. It is counted before the record has one, since a read may add it.
pub(super) const DECODED_FORM: u64 = 1536;

/// The cost of an entry without its records.
///
/// It has a place in the table, in the table's vectors and in the index, and a part in the policy trial. These are counted one
/// and a half times, because a vector or map that grows has room for up to twice as many.
pub(super) const ENTRY: u64 = (size_of::<Option<TableEntry>>() as u64 + 16 + 40 + 120 / SAMPLE_RATE) * 3 / 2;

/// An entry's identifier and its hash.
///
/// The hash is keyed with a secret of this storage. With a known hash function, a remote party could choose URLs that collide
/// in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryId {
    pub(super) hash: u64,
    pub(super) entry: [u8; 16],
}

impl Hash for EntryId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// An entry in the table of a shard.
#[derive(Debug)]
pub(super) struct TableEntry {
    pub(super) id: EntryId,
    pub(super) records: EntryRecords,
    /// The number of entries that were created before. A listing skips the entries that were created after it began.
    pub(super) sequence: u64,
    /// Where this entry is in the table's list of occupied positions.
    pub(super) live_index: u32,
}

/// Identifies a record within its entry.
pub(super) type RecordId = (Kind, [u8; 16], u32);

/// The order in which records are removed when their entry needs room.
///
/// Released records (`false`) come first, and among equals those that were written longest ago.
type RemovalOrder = (bool, u64);

/// Counts a record within its entry, once for each write.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordCost {
    pub(super) bytes: u64,
    /// The cost is final: the record had its decoded form when it was counted, or never gets one.
    form_counted: bool,
}

/// Holds a record with its cost.
#[derive(Debug)]
struct CountedRecord {
    record: Record,
    cost: RecordCost,
    order: RemovalOrder,
}

/// The records of one entry.
#[derive(Debug)]
pub(super) struct EntryRecords {
    /// Apart from the maps. Most entries are only a head, and then need no search.
    head: Option<CountedRecord>,
    others: Option<Box<OtherRecords>>,
    /// The cost of the entry and its records, without the maps.
    weight: u64,
    /// The number of heads and variants.
    listed: u64,
}

#[derive(Debug, Default)]
struct OtherRecords {
    by_id: BTreeMap<RecordId, CountedRecord>,
    by_order: BTreeMap<RemovalOrder, RecordId>,
    writes: u64,
}

pub(super) fn record_id(key: Key) -> RecordId {
    (key.kind, key.slot, key.part)
}

const HEAD: RecordId = (Kind::Head, [0; 16], 0);

/// Returns whether the record has no decoded form yet, but may get one.
fn awaits_form(kind: Kind, record: &Record) -> bool {
    !matches!(kind, Kind::Chunk | Kind::Lease) && record.awaits_form()
}

/// Returns what to add to a record's cost where its length is limited.
///
/// The length limit that the storage announces is the same for every payload, with or without a decoded form.
pub(super) fn form_room(kind: Kind, record: &Record) -> u64 {
    let is_counted =
        matches!(kind, Kind::Chunk | Kind::Lease) || record.is_decoded() || awaits_form(kind, record);
    if is_counted { 0 } else { DECODED_FORM }
}

/// Returns the cost of an entry for this one record, without the record's own.
pub(super) fn entry_cost(key: Key) -> u64 {
    if record_id(key) == HEAD { ENTRY } else { ENTRY + MAPS }
}

/// Returns the cost of a record within its entry.
pub(super) fn record_cost(key: Key, record: &Record) -> RecordCost {
    // Asked first: a form that is added after this is counted by the next read.
    let awaits_form = awaits_form(key.kind, record);
    let form = if awaits_form { DECODED_FORM } else { 0 };
    let map_slot = if record_id(key) == HEAD { 0 } else { MAP_SLOT };
    RecordCost { bytes: record.memory() as u64 + form + map_slot, form_counted: !awaits_form }
}

impl Default for EntryRecords {
    fn default() -> Self {
        Self { head: None, others: None, weight: ENTRY, listed: 0 }
    }
}

impl EntryRecords {
    fn counted(&self, id: RecordId) -> Option<&CountedRecord> {
        if id == HEAD { self.head.as_ref() } else { self.others.as_ref()?.by_id.get(&id) }
    }

    pub(super) fn get(&self, key: Key) -> Option<&Record> {
        self.counted(record_id(key)).map(|counted| &counted.record)
    }

    /// Puts the payloads of a body's chunks from `first` on into `chunks`, as many as it has room for.
    ///
    /// Returns whether there are all chunks up to `last`.
    pub(super) fn read_chunks(&self, first: Key, last: u32, chunks: &mut [Option<Bytes>]) -> bool {
        let Some(others) = &self.others else { return false };
        let mut parts = first.part..=last;
        // Without an upper bound, which would be searched for as well.
        for ((kind, slot, part), counted) in others.by_id.range(record_id(first)..) {
            let Some(wanted) = parts.next() else { return true };
            if (*kind, *slot, *part) != (first.kind, first.slot, wanted) {
                return false;
            }
            if let Some(chunk) = chunks.get_mut((wanted - first.part) as usize) {
                *chunk = Some(counted.record.payload());
            }
        }
        parts.next().is_none()
    }

    /// Returns whether the record got its decoded form after it was counted.
    pub(super) fn has_grown(&self, key: Key) -> bool {
        self.counted(record_id(key))
            .is_some_and(|counted| !counted.cost.form_counted && !counted.record.awaits_form())
    }

    /// Makes room for a record of this cost, in an entry that may weigh `max_weight`.
    ///
    /// Removes bodies that are being read last. Returns false if there is not enough room; then nothing has changed.
    /// Removed records are moved to `removed`, so that the caller can drop them after it has released the lock.
    pub(super) fn make_room(
        &mut self,
        key: Key,
        cost: RecordCost,
        max_weight: u64,
        holds: &Holds,
        removed: &mut Vec<Record>,
    ) -> bool {
        let (new, cost) = (record_id(key), cost.bytes);
        let replaced = self.counted(new).map_or(0, |counted| counted.cost.bytes);
        let maps = |records: &Self| if records.others.is_some() || new != HEAD { MAPS } else { 0 };
        if self.weight + maps(self) - replaced + cost <= max_weight {
            return true;
        }
        // The head stays, since the other records cannot be found without it. So do the other chunks of the same body.
        let head = if new == HEAD { 0 } else { self.head.as_ref().map_or(0, |head| head.cost.bytes) };
        let body: u64 = match (key.kind, &self.others) {
            (Kind::Chunk, Some(others)) => {
                others.body(key.slot).map(|(_, counted)| counted.cost.bytes).sum::<u64>() - replaced
            }
            _ => 0,
        };
        // Checked before anything is removed: a record that cannot fit must not cost the ones that are there.
        if entry_cost(key) + head + body + cost > max_weight {
            return false;
        }
        while self.weight + maps(self) - replaced + cost > max_weight {
            let Some(others) = &self.others else { return false };
            let stays = |id: &RecordId| {
                *id == new || (id.0, key.kind) == (Kind::Chunk, Kind::Chunk) && id.1 == key.slot
            };
            let is_held =
                |id: &RecordId| holds.any() && id.0 == Kind::Chunk && holds.has_body(&key.entry, &id.1);
            let mut removable = others.by_order.values().copied().filter(|id| !stays(id));
            let Some(first) = removable.clone().find(|id| !is_held(id)).or_else(|| removable.next()) else {
                return false;
            };
            if first.0 == Kind::Chunk {
                // A body that lacks a chunk cannot be served, so the rest of it would only take room.
                let body: Vec<RecordId> = others.body(first.1).map(|(id, _)| *id).collect();
                removed.extend(body.into_iter().filter_map(|id| self.remove(id)));
            } else {
                removed.extend(self.remove(first));
            }
        }
        true
    }

    /// Inserts a record. Returns the one that it replaces.
    pub(super) fn put(&mut self, key: Key, record: Record, cost: RecordCost) -> Option<Record> {
        let id = record_id(key);
        let before = self.remove(id);
        self.weight += cost.bytes;
        self.listed += u64::from(key.kind.is_listed());
        if id == HEAD {
            self.head = Some(CountedRecord { record, cost, order: (true, 0) });
        } else {
            let others = self.others.get_or_insert_default();
            others.writes += 1;
            let order = (true, others.writes);
            others.by_order.insert(order, id);
            others.by_id.insert(id, CountedRecord { record, cost, order });
        }
        before
    }

    /// Removes a record, and returns it.
    pub(super) fn remove(&mut self, id: RecordId) -> Option<Record> {
        let counted = if id == HEAD {
            self.head.take()?
        } else {
            let others = self.others.as_mut()?;
            let counted = others.by_id.remove(&id)?;
            others.by_order.remove(&counted.order);
            if others.by_id.is_empty() {
                self.others = None;
            }
            counted
        };
        self.weight -= counted.cost.bytes;
        self.listed -= u64::from(id.0.is_listed());
        Some(counted.record)
    }

    /// Changes the retention time of a record. Returns whether there is one.
    pub(super) fn retain(&mut self, key: Key, retain: Retain) -> bool {
        let id = record_id(key);
        let apply = |counted: &mut CountedRecord| {
            let time = retain.apply(counted.record.retain_until());
            let changed = time != counted.record.retain_until();
            counted.record.set_retain_until(time);
            changed
        };
        if id == HEAD {
            return self.head.as_mut().map(apply).is_some();
        }
        let Some(others) = &mut self.others else { return false };
        let Some(counted) = others.by_id.get_mut(&id) else { return false };
        if apply(counted) {
            // A shorter retention means that the cache no longer needs the record, a longer one that it still uses it.
            others.by_order.remove(&counted.order);
            others.writes += 1;
            counted.order = (matches!(retain, Retain::AtLeast(_)), others.writes);
            others.by_order.insert(counted.order, id);
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_none() && self.others.is_none()
    }

    /// Returns the cost of the entry with all its records.
    pub(super) fn weight(&self) -> u64 {
        self.weight + if self.others.is_some() { MAPS } else { 0 }
    }

    /// Returns the number of heads and variants.
    pub(super) fn listed(&self) -> u64 {
        self.listed
    }

    /// Returns the records after `last` in the order of their ids, or all of them.
    pub(super) fn after(&self, last: Option<RecordId>) -> impl Iterator<Item = (RecordId, &Record)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let head = self.head.iter().filter(move |_| last.is_none()).map(|counted| (HEAD, &counted.record));
        let from = last.map_or(Unbounded, Excluded);
        let others = self.others.iter().flat_map(move |others| others.by_id.range((from, Unbounded)));
        head.chain(others.map(|(id, counted)| (*id, &counted.record)))
    }
}

impl OtherRecords {
    /// Returns the chunks of one body.
    fn body(&self, slot: [u8; 16]) -> impl Iterator<Item = (&RecordId, &CountedRecord)> {
        self.by_id.range((Kind::Chunk, slot, 0)..=(Kind::Chunk, slot, u32::MAX))
    }
}
