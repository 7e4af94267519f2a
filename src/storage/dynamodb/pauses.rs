//! Pauses between requests for the same thing.

use std::time::Duration;

use crate::storage::record::random_id;

const SHORTEST: u64 = 25;
/// A partition's capacity is counted by the second, so nobody waits much longer for it.
const LONGEST: u64 = 800;

/// Each twice as long as the one before, up to a second, and of random length, so that those that were refused together
/// do not come back together.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    taken: u32,
}

impl Pauses {
    pub(super) fn next(&mut self) -> Duration {
        let longest = LONGEST.min(SHORTEST << self.taken.min(10));
        self.taken += 1;
        let [byte, ..] = random_id();
        Duration::from_millis(longest / 2 + longest / 2 * u64::from(byte) / 256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        let mut pauses = Pauses::default();
        for longest in [25, 50, 100, 200, 400, 800, 800, 800] {
            let pause = pauses.next().as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{pause} of {longest}");
        }
        assert!((0..100).all(|_| pauses.next() <= Duration::from_millis(LONGEST)));
    }
}
