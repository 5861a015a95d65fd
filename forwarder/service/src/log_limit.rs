//! Log lines that may come by the thousand.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Lets one line of a kind pass in each interval, and counts those in between. Kinds are told apart by keys; each key is remembered for
/// as long as the limit lives, so they must be few.
#[derive(Debug)]
pub struct LogLimit<K = ()> {
    interval: Duration,
    passed: BTreeMap<K, Passed>,
}

#[derive(Clone, Copy, Debug)]
struct Passed {
    at: Instant,
    left_out: u64,
}

impl<K: Ord> LogLimit<K> {
    /// A limit of one line per key and interval. The first line of a key passes.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self {
            interval,
            passed: BTreeMap::new(),
        }
    }

    /// Whether a line of this kind may be logged now, and how many were left out since the last one that was. `None`: it is left out.
    pub fn pass<Q>(&mut self, key: &Q) -> Option<u64>
    where
        K: Borrow<Q>,
        Q: Ord + ToOwned<Owned = K> + ?Sized,
    {
        let at = Instant::now();
        let Some(last) = self.passed.get_mut(key) else {
            self.passed.insert(key.to_owned(), Passed { at, left_out: 0 });
            return Some(0);
        };
        if at.duration_since(last.at) < self.interval {
            last.left_out += 1;
            return None;
        }
        let left_out = last.left_out;
        *last = Passed { at, left_out: 0 };
        Some(left_out)
    }

    /// Call when the problem is over: the next line of each kind passes.
    pub fn forget(&mut self) {
        self.passed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_kind_passes_in_an_interval() {
        let mut limit = LogLimit::<String>::new(Duration::from_secs(3600));
        assert_eq!(limit.pass("a"), Some(0));
        assert_eq!(limit.pass("a"), None);
        assert_eq!(limit.pass("b"), Some(0), "another kind");
        limit.forget();
        assert_eq!(limit.pass("a"), Some(0));
    }

    #[test]
    fn what_was_left_out_is_counted_until_the_next_line() {
        let mut limit = LogLimit::new(Duration::from_secs(3600));
        assert_eq!(limit.pass(&()), Some(0));
        assert_eq!((limit.pass(&()), limit.pass(&())), (None, None));
        limit.interval = Duration::ZERO;
        assert_eq!(limit.pass(&()), Some(2));
        assert_eq!(limit.pass(&()), Some(0));
    }
}
