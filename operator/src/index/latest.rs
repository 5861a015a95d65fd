//! A map that knows in which order its entries came, so that the oldest ones can go.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Entries in the order in which they were put in last.
#[derive(Debug)]
pub struct Latest<K, V> {
    entries: HashMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
    turn: u64,
}

impl<K, V> Default for Latest<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            turn: 0,
        }
    }
}

impl<K: Clone + Eq + Hash, V> Latest<K, V> {
    /// Puts an entry in, as the latest. Yields whether there was none of that key.
    pub fn insert(&mut self, key: K, value: V) -> bool {
        self.turn += 1;
        let before = self.entries.insert(key.clone(), (self.turn, value));
        if let Some((turn, _)) = &before {
            self.order.remove(turn);
        }
        self.order.insert(self.turn, key);
        before.is_none()
    }

    /// The value of a key.
    #[must_use]
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// Takes an entry out. Yields whether there was one.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let removed = self.entries.remove(key);
        if let Some((turn, _)) = &removed {
            self.order.remove(turn);
        }
        removed.is_some()
    }

    /// Takes the oldest entry out.
    pub fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.entries.remove(&key);
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entry_goes_first() {
        let mut latest = Latest::default();
        for key in ["a", "b", "c"] {
            assert!(latest.insert(key, 1));
        }
        assert!(!latest.insert("a", 2), "it is the latest now");
        assert!(latest.remove("c") && !latest.remove("c"));
        latest.forget_oldest();
        assert_eq!((latest.get("a"), latest.get("b"), latest.len()), (Some(&2), None, 1));
        latest.forget_oldest();
        assert!(latest.is_empty() && latest.order.is_empty());
    }
}
