//! Texts that nobody can guess.

use std::hash::{BuildHasher as _, RandomState};

/// Makes them, from a key that the system has given.
#[derive(Debug, Default)]
pub(crate) struct Nonces {
    keys: [RandomState; 2],
    count: u64,
}

impl Nonces {
    /// The next one: 32 hexadecimal digits.
    pub(crate) fn next(&mut self) -> String {
        self.count += 1;
        let [high, low] = [0, 1].map(|half: usize| self.keys[half].hash_one((half, self.count)));
        format!("{high:016x}{low:016x}")
    }
}
