//! The records of one entry.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::storage::{Key, Kind, Record};

/// What a record costs beside its bytes: the key, the pointers, the map's nodes.
pub(super) const OVERHEAD: u64 = 200;

/// A record's place within its entry.
type Place = (Kind, [u8; 16], u32);

/// The records of one entry: cheap to clone. A head is replaced with its group, and read without a lock; the other
/// records are shared by all clones and changed in place, since an entry of thousands of chunks is made one by one.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// The usual entry is a head and nothing else: it is kept where no map has to be asked.
    head: Option<Record>,
    others: Option<Arc<Others>>,
    /// Stays what it was when the group was put into the cache, which subtracts it when the group goes.
    weight: u64,
}

#[derive(Debug, Default)]
struct Others(RwLock<BTreeMap<Place, Record>>);

impl Others {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Place, Record>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Place, Record>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(key: Key) -> Place {
    (key.kind, key.slot, key.part)
}

fn is_head(key: Key) -> bool {
    key.kind == Kind::Head && key.part == 0 && key.slot == [0; 16]
}

fn weight(record: &Record) -> u64 {
    record.weight() as u64 + OVERHEAD
}

impl Group {
    pub(super) fn get(&self, key: Key) -> Option<Record> {
        if is_head(key) { self.head.clone() } else { self.others.as_ref()?.read().get(&place(key)).cloned() }
    }

    /// The record, where the rest of the group is not needed.
    pub(super) fn into_record(self, key: Key) -> Option<Record> {
        if is_head(key) { self.head } else { self.get(key) }
    }

    /// What the group would weigh with this record in place of the one that is there.
    pub(super) fn weight_with(&self, key: Key, record: &Record) -> u64 {
        self.weight + weight(record) - self.get(key).as_ref().map_or(0, weight)
    }

    /// Puts a record in, or takes it out; gives back what was there. Readers may see the change before the group is put
    /// into the cache: it must be put there, whatever happens.
    pub(super) fn set(&mut self, key: Key, record: Option<Record>) -> Option<Record> {
        let added = record.as_ref().map_or(0, weight);
        let before = if is_head(key) {
            std::mem::replace(&mut self.head, record)
        } else {
            let mut others = self.others.get_or_insert_default().write();
            match record {
                Some(record) => others.insert(place(key), record),
                None => others.remove(&place(key)),
            }
        };
        self.weight = self.weight + added - before.as_ref().map_or(0, weight);
        before
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_none() && self.others.as_ref().is_none_or(|others| others.read().is_empty())
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// All records with their keys.
    pub(super) fn records(&self, entry: [u8; 16]) -> Vec<(Key, Record)> {
        let head = self.head.iter().map(|record| (Key::head(entry), record.clone()));
        let others = self.others.as_ref().map(|others| others.read());
        let others = others.iter().flat_map(|others| others.iter());
        let others = others.map(|((kind, slot, part), record)| {
            (Key { entry, kind: *kind, slot: *slot, part: *part }, record.clone())
        });
        head.chain(others).collect()
    }
}
