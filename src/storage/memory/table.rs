//! The entries of a shard, found by their names.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::contest::{ByHash, LOOKS, MOST_USES, SHARE, Way};
use super::group::Group;

/// What an entry costs beside its records: twice its place, since a vector that grows has twice the room; as much for the
/// index; and its part in the contest.
pub(super) const ENTRY: u64 = 2 * (size_of::<Option<Node>>() as u64 + 8) + 2 * 40 + 2 * 120 / SHARE;

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
    /// The storage's clock at the last use. Atomic, since hits share the lock; Relaxed, since nothing depends on its order.
    last: AtomicU64,
    uses: AtomicU8,
    /// Where `live` has it.
    live: u32,
}

impl Node {
    /// Notes a use; returns when the one before was. `counts`: it is one by a request, not one more part of the same.
    pub(super) fn used(&self, now: u64, counts: bool) -> u64 {
        let before = self.last.load(Ordering::Relaxed);
        // A write that changes nothing would take the cache line from the other cores.
        if before != now {
            self.last.store(now, Ordering::Relaxed);
        }
        let uses = self.uses.load(Ordering::Relaxed);
        if counts && uses < MOST_USES {
            self.uses.store(uses + 1, Ordering::Relaxed);
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
        let node = Node { name, group, born, last: AtomicU64::new(now), uses: AtomicU8::new(0), live };
        match self.nodes.get_mut(at as usize) {
            Some(place) => *place = Some(node),
            None => self.nodes.push(Some(node)),
        }
        self.live.push(at);
        self.index.insert(name, at);
    }

    pub(super) fn remove(&mut self, name: &Named) -> Option<Group> {
        let at = self.index.remove(name)?;
        let node = self.nodes.get_mut(at as usize)?.take()?;
        self.free.push(at);
        self.live.swap_remove(node.live as usize);
        if let Some(moved) = self.live.get(node.live as usize).copied()
            && let Some(Some(moved)) = self.nodes.get_mut(moved as usize)
        {
            moved.live = node.live;
        }
        Some(node.group)
    }

    /// The entry that should go first among some, with its score; all are looked at where there are few. Never `own`.
    pub(super) fn worst(
        &self,
        way: Way,
        now: u64,
        own: &Named,
        looks: usize,
        mut random: impl FnMut() -> u64,
    ) -> Option<(u64, Named, u64)> {
        let all = self.live.len() <= LOOKS;
        let looks = if all { self.live.len() } else { looks };
        (0..looks)
            .filter_map(|look| {
                let at = if all { look } else { (random() % self.live.len() as u64) as usize };
                let mut node = self.node(self.live[at])?;
                if node.name == *own {
                    // Its neighbour instead, so that there is one wherever there are two.
                    node =
                        self.node(self.live[(at + 1) % self.live.len()]).filter(|next| next.name != *own)?;
                }
                let age = now.saturating_sub(node.last.load(Ordering::Relaxed));
                Some((way.score(age, node.uses.load(Ordering::Relaxed)), node.name, node.born))
            })
            .max_by_key(|(score, ..)| *score)
    }

    /// All groups, to be dropped outside the lock.
    pub(super) fn into_groups(self) -> impl Iterator<Item = Group> + Send {
        self.nodes.into_iter().flatten().map(|node| node.group)
    }
}
