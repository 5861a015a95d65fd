//! How far damage reaches, where only looking tells: the first offset behind it from which a partition can be read.
//!
//! Kafka's clients do not say where a batch ends that they cannot read, and its broker gives the whole batch for each offset in it.

/// One step is at most this share of what is known to be damaged. So a whole batch between two damaged ones is found, unless it is that
/// much shorter than the damage before it; and a batch of a million records takes a thousand looks.
const SHARE: i64 = 64;

/// A search for the end of the damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first offset that cannot be read.
    from: i64,
    /// The partition ends there, or later.
    end: i64,
    /// The last one that is known to be unreadable.
    unreadable: i64,
    /// An offset from which the partition can be read, and the first record there.
    readable: Option<(i64, i64)>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look whether the partition can be read from this offset on.
    Look(i64),
    /// The damage is known: the first record behind it.
    Found(i64),
}

impl Extent {
    /// The offset `from` cannot be read; the partition ends at `end`, or later. Nothing is looked for behind its end.
    #[must_use]
    pub const fn new(from: i64, end: i64) -> Self {
        Self {
            from,
            end,
            unreadable: from,
            readable: None,
        }
    }

    /// Where the damage begins.
    #[must_use]
    pub const fn from(&self) -> i64 {
        self.from
    }

    /// What is to be done next.
    #[must_use]
    pub fn step(&self) -> Step {
        match self.readable {
            None => {
                let stride = ((self.unreadable - self.from) / SHARE).max(1);
                let most = (self.end - self.unreadable).max(1);
                Step::Look(self.unreadable.saturating_add(stride.min(most)))
            }
            Some((asked, _)) if asked - self.unreadable > 1 => Step::Look(self.unreadable.midpoint(asked)),
            Some((_, first)) => Step::Found(first),
        }
    }

    /// From `asked` on the partition cannot be read.
    pub fn is_unreadable(&mut self, asked: i64) {
        self.unreadable = self.unreadable.max(asked);
    }

    /// From `asked` on it can be read: its first record is `first`, or it ends there.
    pub fn is_readable(&mut self, asked: i64, first: i64) {
        self.readable = Some((asked, first.max(asked)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A partition as the broker gives it: batches by their ends, and which are damaged. Returns the end found, and the looks.
    fn search(batches: &[(i64, bool)], from: i64) -> (i64, usize) {
        let end = batches[batches.len() - 1].0;
        let mut extent = Extent::new(from, end);
        for looks in 0.. {
            let asked = match extent.step() {
                Step::Look(asked) => asked,
                Step::Found(first) => return (first, looks),
            };
            match batches.iter().find(|(end, _)| *end > asked) {
                Some((_, true)) => extent.is_unreadable(asked),
                None if asked > end => panic!("{asked} is behind the end, {end}"),
                _ => extent.is_readable(asked, asked),
            }
        }
        unreachable!("it ends at the end of the partition");
    }

    #[test]
    fn a_whole_batch_between_two_damaged_ones_is_found() {
        let batches = [(10, false), (74, true), (75, false), (1_000, true), (1_010, false)];
        assert_eq!(search(&batches, 10).0, 74);
        assert_eq!(search(&batches, 75).0, 1_000);
    }

    #[test]
    fn a_record_behind_a_hole_is_where_to_go_on() {
        let mut extent = Extent::new(7, 40);
        assert_eq!(extent.step(), Step::Look(8));
        extent.is_readable(8, 30);
        assert_eq!(extent.step(), Step::Found(30));
    }

    #[test]
    fn a_large_batch_takes_few_looks() {
        let (end, looks) = search(&[(1_000_000, true), (1_000_001, false)], 0);
        assert_eq!(end, 1_000_000);
        assert!(looks < 800, "{looks}");
    }

    proptest! {
        #[test]
        fn the_end_of_a_damaged_batch_is_found_wherever_it_is(from in 0_i64..1_000_000, length in 1_i64..100_000, more in 0_i64..5) {
            let batches = [(from, false), (from + length, true), (from + length + more, false)];
            prop_assert_eq!(search(&batches, from).0, from + length);
        }
    }
}
