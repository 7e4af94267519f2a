//! One entry: its name and its records.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use super::contest::SHARE;
use crate::storage::holds::Holds;
use crate::storage::{Key, Kind, Record, Retain};

/// What a record beside the head costs in the two maps of its entry, whose nodes are two thirds full on average.
const OTHER: u64 = 200;
/// What these maps cost with one record: a node has eleven places.
pub(super) const OTHERS: u64 = 1024;
/// What the decoded form of a record takes, as long as the record has none: it may get one when it is read.
pub(super) const FORM: u64 = 1536;

/// What an entry costs beside its records: one and a half times its place, since a vector that grows has room for up to
/// twice as many; as much for the index; and its part in the contest.
pub(super) const ENTRY: u64 = (size_of::<Option<Node>>() as u64 + 16 + 40 + 120 / SHARE) * 3 / 2;

/// An entry's name with its hash, by a key that no other storage has: otherwise names could be looked for that agree where
/// the index looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) hash: u64,
    pub(super) entry: [u8; 16],
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: Named,
    pub(super) group: Group,
    /// Counts the entries that were ever made; a listing passes by those that came after it began.
    pub(super) born: u64,
    /// Where the table has it among the places that are taken.
    pub(super) live: u32,
}

/// A record's place within its entry.
pub(super) type Place = (Kind, [u8; 16], u32);

/// The order in which records go when their entry needs room: released ones first, then by their last write.
type Age = (bool, u64);

/// A record and what it was counted as.
#[derive(Debug)]
struct Held {
    record: Record,
    cost: u64,
    /// It had its decoded form then, or gets none.
    formed: bool,
    age: Age,
}

/// The records of one entry.
#[derive(Debug)]
pub(super) struct Group {
    /// The usual entry is a head and nothing else: it is kept where no map has to be searched.
    head: Option<Held>,
    others: Option<Box<Others>>,
    /// Of the entry and its records, without the maps.
    weight: u64,
    /// Heads and variants.
    listed: u64,
}

#[derive(Debug, Default)]
struct Others {
    records: BTreeMap<Place, Held>,
    ages: BTreeMap<Age, Place>,
    writes: u64,
}

pub(super) fn place(key: Key) -> Place {
    (key.kind, key.slot, key.part)
}

const HEAD: Place = (Kind::Head, [0; 16], 0);

/// Whether the record may get a decoded form that it does not have yet.
fn awaits_form(kind: Kind, record: &Record) -> bool {
    !matches!(kind, Kind::Chunk | Kind::Lease) && record.awaits_form()
}

/// Returns what is added to a record's cost where its length is limited: one limit holds, whatever the payload is.
pub(super) fn form_room(kind: Kind, record: &Record) -> u64 {
    let is_counted =
        matches!(kind, Kind::Chunk | Kind::Lease) || record.is_decoded() || awaits_form(kind, record);
    if is_counted { 0 } else { FORM }
}

/// What an entry costs with nothing but this record, beside the record's own cost.
pub(super) fn entry_cost(key: Key) -> u64 {
    if place(key) == HEAD { ENTRY } else { ENTRY + OTHERS }
}

/// What a record is counted as.
pub(super) fn cost(key: Key, record: &Record) -> u64 {
    let form = if awaits_form(key.kind, record) { FORM } else { 0 };
    let node = if place(key) == HEAD { 0 } else { OTHER };
    record.memory() as u64 + form + node
}

impl Default for Group {
    fn default() -> Self {
        Self { head: None, others: None, weight: ENTRY, listed: 0 }
    }
}

impl Group {
    fn held(&self, place: Place) -> Option<&Held> {
        if place == HEAD { self.head.as_ref() } else { self.others.as_ref()?.records.get(&place) }
    }

    pub(super) fn get(&self, key: Key) -> Option<&Record> {
        self.held(place(key)).map(|held| &held.record)
    }

    /// Whether the record got its decoded form after it was counted.
    pub(super) fn has_grown(&self, key: Key) -> bool {
        self.held(place(key)).is_some_and(|held| !held.formed && !held.record.awaits_form())
    }

    /// Makes room for a record of this cost, in a group that may weigh `most`; false, and nothing has changed: there is
    /// none. Bodies that are held go last. Records that went are put into `gone`, to be dropped when the lock is free.
    pub(super) fn make_room(
        &mut self,
        key: Key,
        cost: u64,
        most: u64,
        holds: &Holds,
        gone: &mut Vec<Record>,
    ) -> bool {
        let new = place(key);
        let replaced = self.held(new).map_or(0, |held| held.cost);
        let maps = |group: &Self| if group.others.is_some() || new != HEAD { OTHERS } else { 0 };
        if self.weight + maps(self) - replaced + cost <= most {
            return true;
        }
        // What has to stay: the head, and the other chunks of the same body.
        let head = if new == HEAD { 0 } else { self.head.as_ref().map_or(0, |head| head.cost) };
        let body: u64 = match (key.kind, &self.others) {
            (Kind::Chunk, Some(others)) => {
                others.body(key.slot).map(|(_, held)| held.cost).sum::<u64>() - replaced
            }
            _ => 0,
        };
        if entry_cost(key) + head + body + cost > most {
            return false;
        }
        while self.weight + maps(self) - replaced + cost > most {
            let Some(others) = &self.others else { return false };
            let stays = |place: &Place| {
                *place == new || (place.0, key.kind) == (Kind::Chunk, Kind::Chunk) && place.1 == key.slot
            };
            let is_held =
                |place: &Place| holds.any() && place.0 == Kind::Chunk && holds.has_body(&key.entry, &place.1);
            let mut old = others.ages.values().copied().filter(|place| !stays(place));
            let Some(oldest) = old.clone().find(|place| !is_held(place)).or_else(|| old.next()) else {
                return false;
            };
            if oldest.0 == Kind::Chunk {
                // A body of which one chunk is gone cannot be served: the rest is of no use.
                let body: Vec<Place> = others.body(oldest.1).map(|(place, _)| *place).collect();
                gone.extend(body.into_iter().filter_map(|place| self.remove(place)));
            } else {
                gone.extend(self.remove(oldest));
            }
        }
        true
    }

    /// Puts a record in its place; returns the one that was there.
    pub(super) fn put(&mut self, key: Key, record: Record) -> Option<Record> {
        let place = place(key);
        let before = self.remove(place);
        let (cost, formed) = (cost(key, &record), !awaits_form(key.kind, &record));
        self.weight += cost;
        self.listed += u64::from(key.kind.is_listed());
        if place == HEAD {
            self.head = Some(Held { record, cost, formed, age: (true, 0) });
        } else {
            let others = self.others.get_or_insert_default();
            others.writes += 1;
            let age = (true, others.writes);
            others.ages.insert(age, place);
            others.records.insert(place, Held { record, cost, formed, age });
        }
        before
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, place: Place) -> Option<Record> {
        let held = if place == HEAD {
            self.head.take()?
        } else {
            let others = self.others.as_mut()?;
            let held = others.records.remove(&place)?;
            others.ages.remove(&held.age);
            if others.records.is_empty() {
                self.others = None;
            }
            held
        };
        self.weight -= held.cost;
        self.listed -= u64::from(place.0.is_listed());
        Some(held.record)
    }

    /// Moves the time until which a record is kept; false: it is not there.
    pub(super) fn retain(&mut self, key: Key, retain: Retain) -> bool {
        let place = place(key);
        let apply = |held: &mut Held| {
            let time = retain.apply(held.record.retain_until());
            let moved = time != held.record.retain_until();
            held.record.set_retain_until(time);
            moved
        };
        if place == HEAD {
            return self.head.as_mut().map(apply).is_some();
        }
        let Some(others) = &mut self.others else { return false };
        let Some(held) = others.records.get_mut(&place) else { return false };
        if apply(held) {
            // What may go earlier than it was written for goes first; what is to be kept longer is as good as new.
            others.ages.remove(&held.age);
            others.writes += 1;
            held.age = (matches!(retain, Retain::AtLeast(_)), others.writes);
            others.ages.insert(held.age, place);
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_none() && self.others.is_none()
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight + if self.others.is_some() { OTHERS } else { 0 }
    }

    pub(super) fn listed(&self) -> u64 {
        self.listed
    }

    /// The records behind a place, in order; `None`: all of them.
    pub(super) fn after(&self, last: Option<Place>) -> impl Iterator<Item = (Place, &Record)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let head = self.head.iter().filter(move |_| last.is_none()).map(|held| (HEAD, &held.record));
        let from = last.map_or(Unbounded, Excluded);
        let others = self.others.iter().flat_map(move |others| others.records.range((from, Unbounded)));
        head.chain(others.map(|(place, held)| (*place, &held.record)))
    }
}

impl Others {
    /// The chunks of one body.
    fn body(&self, slot: [u8; 16]) -> impl Iterator<Item = (&Place, &Held)> {
        self.records.range((Kind::Chunk, slot, 0)..=(Kind::Chunk, slot, u32::MAX))
    }
}
