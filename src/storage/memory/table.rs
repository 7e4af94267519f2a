//! The entries of a shard, found by their names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::contest::{ByHash, LOOKS, MOST_USES, Way};
use super::group::{Group, Named, Node};
use crate::storage::holds::Holds;

/// When and how often an entry was used: the storage's clock at the last use, above eight bits of count. Atomic, since hits
/// share the lock; Relaxed, since nothing depends on its order, and a use that is lost among others makes no difference.
#[derive(Debug)]
struct Mark(AtomicU64);

impl Mark {
    fn new(now: u64) -> Self {
        Self(AtomicU64::new(now << 8))
    }

    /// The time of the last use, and how many there were.
    fn read(&self) -> (u64, u8) {
        let mark = self.0.load(Ordering::Relaxed);
        (mark >> 8, mark as u8)
    }

    fn used(&self, now: u64, counts: bool) -> u64 {
        let (before, uses) = self.read();
        let uses_now = if counts { (uses + 1).min(MOST_USES) } else { uses };
        // A write that changes nothing would take the cache line from the other cores.
        if (before, uses) != (now, uses_now) {
            self.0.store(now << 8 | u64::from(uses_now), Ordering::Relaxed);
        }
        before
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    index: HashMap<Named, u32, ByHash>,
    /// Entries keep their places, so that a listing misses none that stays.
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    /// The places that are taken, to look at some at random.
    live: Vec<u32>,
    /// The uses of the entries at these places, in the same order. Apart from the entries: an eviction looks at sixteen at
    /// random, which are near in a core's cache so, where as many entries are not.
    marks: Vec<Mark>,
}

impl Table {
    pub(super) fn get(&self, name: &Named) -> Option<&Node> {
        self.node(*self.index.get(name)?)
    }

    pub(super) fn get_mut(&mut self, name: &Named) -> Option<&mut Node> {
        self.nodes.get_mut(*self.index.get(name)? as usize)?.as_mut()
    }

    pub(super) fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)?.as_ref()
    }

    /// How many places there are, taken or not.
    pub(super) fn places(&self) -> u32 {
        self.nodes.len() as u32
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn insert(&mut self, name: Named, group: Group, born: u64, now: u64) {
        let at = self.free.pop().unwrap_or(self.nodes.len() as u32);
        let live = self.live.len() as u32;
        let node = Node { name, group, born, live };
        match self.nodes.get_mut(at as usize) {
            Some(place) => *place = Some(node),
            None => self.nodes.push(Some(node)),
        }
        self.live.push(at);
        self.marks.push(Mark::new(now));
        self.index.insert(name, at);
    }

    /// Notes a use of an entry; returns when the one before was. `counts`: it is one by a request, not one more part of the
    /// same.
    pub(super) fn used(&self, node: &Node, now: u64, counts: bool) -> u64 {
        self.marks.get(node.live as usize).map_or(now, |mark| mark.used(now, counts))
    }

    pub(super) fn remove(&mut self, name: &Named) -> Option<Group> {
        let at = self.index.remove(name)?;
        let node = self.nodes.get_mut(at as usize)?.take()?;
        self.free.push(at);
        self.live.swap_remove(node.live as usize);
        self.marks.swap_remove(node.live as usize);
        if let Some(moved) = self.live.get(node.live as usize).copied()
            && let Some(Some(moved)) = self.nodes.get_mut(moved as usize)
        {
            moved.live = node.live;
        }
        Some(node.group)
    }

    /// The entry that should go first among some, with its score; all are looked at where there are few. Never `own`, and
    /// none that is spared: where all of some are, there may be others, and with `looks` as many as there are, all are looked
    /// at.
    pub(super) fn worst(
        &self,
        way: Way,
        now: u64,
        own: &Named,
        spared: Option<&Holds>,
        looks: usize,
        mut random: impl FnMut() -> u64,
    ) -> Option<(u64, Named, u64)> {
        let len = self.live.len();
        let all = len <= LOOKS.max(looks);
        let is_spared = |at: usize| {
            let name = |at: &u32| self.node(*at).map(|node| node.name.entry);
            spared.is_some_and(|spared| {
                self.live.get(at).and_then(name).is_some_and(|entry| spared.has_entry(&entry))
            })
        };
        let mut worst: Option<(u64, usize)> = None;
        let mut second = None;
        for look in 0..if all { len } else { looks } {
            let at = if all { look } else { (random() % len as u64) as usize };
            let Some((last, uses)) = self.marks.get(at).map(Mark::read) else { continue };
            if is_spared(at) {
                continue;
            }
            let found = (way.score(now.saturating_sub(last), uses), at);
            match worst {
                Some((_, known)) if known == at => {}
                Some((score, _)) if found.0 <= score => second = second.max(Some(found)),
                _ => second = worst.replace(found),
            }
        }
        // Where the worst is `own`, the next one, or its neighbour, so that there is one wherever there are two.
        let neighbour = worst.map(|(score, at)| (score, (at + 1) % len));
        [worst, second, neighbour].into_iter().flatten().find_map(|(score, at)| {
            let node = self.node(*self.live.get(at)?)?;
            (node.name != *own && !is_spared(at)).then_some((score, node.name, node.born))
        })
    }

    /// All groups, to be dropped outside the lock.
    pub(super) fn into_groups(self) -> impl Iterator<Item = Group> + Send {
        self.nodes.into_iter().flatten().map(|node| node.group)
    }
}
