//! A map that forgets its oldest entries.
//!
//! # Invariants
//!
//! - It holds at most as many keys as its bound, and its order at most twice as many.
//! - The forgotten key was inserted before every key that is still there; its value is given back, so that a caller can
//!   draw a safe conclusion about all that it does not remember.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

#[derive(Debug)]
pub(super) struct BoundedMap<K, V> {
    bound: usize,
    next: u64,
    /// With the number of the insertion.
    values: HashMap<K, (u64, V)>,
    /// In the order of insertion. Removals leave their place here, since to find it would cost a scan.
    order: VecDeque<(u64, K)>,
}

impl<K: Copy + Eq + Hash, V> BoundedMap<K, V> {
    pub(super) fn new(bound: usize) -> Self {
        Self { bound, next: 0, values: HashMap::new(), order: VecDeque::new() }
    }

    /// Inserts a value, as the newest. Returns the value of the key that was forgotten for it.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.next += 1;
        self.values.insert(key, (self.next, value));
        self.order.push_back((self.next, key));
        if self.order.len() > 2 * self.bound {
            self.order.retain(|(number, key)| self.values.get(key).is_some_and(|(there, _)| there == number));
        }
        while self.values.len() > self.bound {
            let (number, oldest) = self.order.pop_front()?;
            if self.values.get(&oldest).is_some_and(|(there, _)| *there == number) {
                return self.values.remove(&oldest).map(|(_, value)| value);
            }
        }
        None
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.values.remove(key).map(|(_, value)| value)
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_key_is_forgotten_first() {
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
