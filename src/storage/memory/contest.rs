//! Which entry is evicted.
//!
//! Some entries are looked at, at random, and the one goes that was not used for the longest time. Whether a time counts
//! for less where an entry is used often depends: with a steady set of URLs and in a scan that keeps what is of use (by
//! three points and more against LRU), after a change of the set it keeps what is not (it loses up to thirty). So both ways
//! are tried on a sixteenth of the entries, by their names and weights alone, and the store does as the better one did
//! lately. On traces of ours this stays within one point of LRU where the set drifts, and is above it everywhere else.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// One entry in so many takes part.
pub(super) const SHARE: u64 = 16;
/// How many entries are looked at for one that goes: with fewer, those in use go too often.
pub(super) const LOOKS: usize = 16;
/// Further uses make no difference.
pub(super) const MOST_USES: u8 = 4;
/// By how much a time counts, after so many uses: 48 / [1, 4, 8, 12, 16].
const WORTH: [u64; MOST_USES as usize + 1] = [48, 12, 6, 4, 3];
/// A lead of the recent way that no accident explains, which is soon reached when the set changes.
const CLEAR: f32 = 1.5;
/// A lead that is not exceeded, so that a change shows soon.
const MOST_LEAD: f32 = 64.0;
/// The part of a lead that is left after each use: a lead of old is forgotten within some thousand uses.
const LASTING: f32 = 0.9995;

/// How an entry's age is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The last use is all that counts.
    Recent,
    /// The age of an entry counts for less the oftener it was used.
    Frequent,
}

impl Way {
    /// The greater, the sooner an entry goes.
    pub(super) fn score(self, age: u64, uses: u8) -> u64 {
        match self {
            Self::Recent => age,
            Self::Frequent => age.saturating_mul(WORTH[usize::from(uses.min(MOST_USES))]),
        }
    }
}

/// A random number from a counter (SplitMix64).
pub(super) fn mix(count: u64) -> u64 {
    let mixed = (count ^ (count >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The step of such a counter.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hasher for what is a keyed hash already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        // Only whole numbers are hashed by it.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(super) type ByHash = BuildHasherDefault<Hashed>;

/// Both ways, tried on a part of the entries.
#[derive(Debug)]
pub(super) struct Contest {
    recent: Trial,
    frequent: Trial,
    /// By how many hits the recent way is ahead.
    lead: f32,
}

impl Contest {
    /// For a storage of this bound.
    pub(super) fn new(bound: u64, seed: u64) -> Self {
        let trial = |way, seed| Trial {
            way,
            bound: bound / SHARE,
            used: 0,
            uses: 0,
            random: seed,
            seats: Vec::new(),
            at: HashMap::default(),
        };
        Self { recent: trial(Way::Recent, seed), frequent: trial(Way::Frequent, !seed), lead: 0.0 }
    }

    /// Notes a use of an entry that takes part; returns the better way.
    pub(super) fn note(&mut self, hash: u64, weight: u64) -> Way {
        match (self.recent.uses(hash, weight), self.frequent.uses(hash, weight)) {
            (true, false) => self.lead += 1.0,
            (false, true) => self.lead -= 1.0,
            _ => {}
        }
        self.lead = self.lead.clamp(-MOST_LEAD, MOST_LEAD) * LASTING;
        if self.lead > CLEAR { Way::Recent } else { Way::Frequent }
    }

    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        for trial in [&mut self.recent, &mut self.frequent] {
            trial.seats = Vec::new();
            trial.at = HashMap::default();
            trial.used = 0;
        }
    }
}

/// A cache without contents.
#[derive(Debug)]
struct Trial {
    way: Way,
    bound: u64,
    used: u64,
    /// The clock.
    uses: u64,
    random: u64,
    seats: Vec<Seat>,
    at: HashMap<u64, u32, ByHash>,
}

#[derive(Debug)]
struct Seat {
    hash: u64,
    weight: u64,
    last: u64,
    uses: u8,
}

impl Trial {
    /// Whether an entry is there; it is afterwards.
    fn uses(&mut self, hash: u64, weight: u64) -> bool {
        self.uses += 1;
        let seat = self.at.get(&hash).and_then(|at| self.seats.get_mut(*at as usize));
        let hit = seat.is_some();
        if let Some(seat) = seat {
            self.used = self.used - seat.weight + weight; // an entry may have grown since
            (seat.weight, seat.last, seat.uses) = (weight, self.uses, seat.uses.saturating_add(1));
        } else if weight <= self.bound {
            self.at.insert(hash, self.seats.len() as u32);
            self.seats.push(Seat { hash, weight, last: self.uses, uses: 0 });
            self.used += weight;
        }
        while self.used > self.bound && !self.seats.is_empty() {
            self.evict();
        }
        hit
    }

    fn evict(&mut self) {
        let mut worst = (0, 0);
        for _ in 0..LOOKS {
            self.random = self.random.wrapping_add(GOLDEN);
            let at = (mix(self.random) % self.seats.len() as u64) as usize;
            let seat = &self.seats[at];
            worst = worst.max((self.way.score(self.uses - seat.last, seat.uses), at));
        }
        let gone = self.seats.swap_remove(worst.1);
        self.used -= gone.weight;
        self.at.remove(&gone.hash);
        if let Some(moved) = self.seats.get(worst.1) {
            self.at.insert(moved.hash, worst.1 as u32);
        }
    }
}
