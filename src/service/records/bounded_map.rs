//! A map with a maximum number of keys, which removes the oldest ones.
//!
//! # Invariants
//!
//! - The map holds at most as many keys as its bound. Its order holds at most twice as many.
//! - The key that is removed was inserted before all keys that are still in the map.
//! - The value of the removed key is returned, so that its caller can treat every unknown key as safely as that one.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

/// A map that removes its oldest key when it reaches its bound.
#[derive(Debug)]
pub(super) struct BoundedMap<K, V> {
    bound: usize,
    /// The number of the last insertion.
    next: u64,
    /// Each value with the number of its insertion.
    values: HashMap<K, (u64, V), RandomState>,
    /// The keys in the order of insertion. A removed or replaced key stays here, because finding it would cost a scan. It is
    /// recognized by its number, which differs from the one in `values`.
    order: VecDeque<(u64, K)>,
}

impl<K: Copy + Eq + Hash, V> BoundedMap<K, V> {
    /// Returns an empty map.
    pub(super) fn new(bound: usize) -> Self {
        Self { bound, next: 0, values: HashMap::default(), order: VecDeque::new() }
    }

    /// Inserts a value as the newest, and returns the value that it displaced.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.next += 1;
        self.values.insert(key, (self.next, value));
        self.order.push_back((self.next, key));
        // At twice the bound, at least half of the order is obsolete. So the cost of this scan is spread over as many
        // insertions as the bound.
        if self.order.len() > 2 * self.bound {
            self.order
                .retain(|(number, key)| self.values.get(key).is_some_and(|(existing, _)| existing == number));
        }
        // Ends with the first key that is still in the map. The keys before it are obsolete, and each is looked at once.
        while self.values.len() > self.bound {
            let (number, oldest) = self.order.pop_front()?;
            if self.values.get(&oldest).is_some_and(|(existing, _)| *existing == number) {
                return self.values.remove(&oldest).map(|(_, value)| value);
            }
        }
        None
    }

    /// Returns the value of a key.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    /// Removes a key, and returns its value.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.values.remove(key).map(|(_, value)| value)
    }

    /// Returns the number of keys.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_key_is_removed_first() {
        let mut map = BoundedMap::new(3);
        for key in 0..3 {
            assert_eq!(map.insert(key, key * 10), None);
        }
        assert_eq!(map.insert(0, 1), None, "inserted again, it is the newest");
        assert_eq!(map.insert(3, 30), Some(10));
        assert_eq!(map.remove(&2), Some(20));
        assert_eq!(map.insert(4, 40), None);
        assert_eq!((map.len(), map.get(&0), map.get(&1)), (3, Some(&1), None));
        for number in 0..1000 {
            map.insert(number % 3, number);
            assert!(map.order.len() <= 6);
        }
    }
}
