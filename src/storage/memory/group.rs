//! The records of one entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::storage::{Key, Kind, Record};

/// What a record costs beside its bytes: the key, the pointers, the map's nodes.
const OVERHEAD: u64 = 200;

/// A record's place within its entry.
type Place = (Kind, [u8; 16], u32);

/// The records of one entry: cheap to clone, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// The usual entry is a head and nothing else: it is kept where no map has to be asked.
    head: Option<Record>,
    others: Option<Arc<BTreeMap<Place, Record>>>,
    weight: u64,
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
    pub(super) fn get(&self, key: Key) -> Option<&Record> {
        if is_head(key) { self.head.as_ref() } else { self.others.as_ref()?.get(&place(key)) }
    }

    /// The record, where the rest of the group is not needed.
    pub(super) fn into_record(self, key: Key) -> Option<Record> {
        if is_head(key) { self.head } else { self.get(key).cloned() }
    }

    /// Puts a record in, or takes it out; gives back what was there.
    pub(super) fn set(&mut self, key: Key, record: Option<Record>) -> Option<Record> {
        let added = record.as_ref().map_or(0, weight);
        let before = if is_head(key) {
            std::mem::replace(&mut self.head, record)
        } else {
            let others = Arc::make_mut(self.others.get_or_insert_default());
            let before = match record {
                Some(record) => others.insert(place(key), record),
                None => others.remove(&place(key)),
            };
            if others.is_empty() {
                self.others = None;
            }
            before
        };
        self.weight = self.weight + added - before.as_ref().map_or(0, weight);
        before
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_none() && self.others.is_none()
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// All records with their keys.
    pub(super) fn records(&self, entry: [u8; 16]) -> impl Iterator<Item = (Key, &Record)> {
        let head = self.head.iter().map(move |record| (Key::head(entry), record));
        let others = self.others.iter().flat_map(|others| others.iter());
        head.chain(others.map(move |((kind, slot, part), record)| {
            (Key { entry, kind: *kind, slot: *slot, part: *part }, record)
        }))
    }
}
