//! How far damage reaches, where only looking tells: the first offset behind it from which a partition can be read.
//!
//! Kafka's clients do not say where a batch ends that they cannot read, and its broker gives the whole batch for each offset in it. Most often
//! the client says at least where the batch begins. Two offsets whose batch begins at one place are in one batch, and so is all between them.

/// Where no beginning is told, one step is at most this share of what is known to be damaged. So a whole batch between two damaged ones is
/// found, unless it is that much shorter than the damage before it; and a batch of a million records takes a thousand looks.
const SHARE: i64 = 64;

/// A search for the end of the damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first offset that cannot be read.
    from: i64,
    /// The partition ends there, or later.
    end: i64,
    /// Nothing up to this offset can be read.
    unreadable: i64,
    /// Where the batch begins to which `unreadable` belongs, if that was told.
    batch: Option<i64>,
    /// The first offset of that batch that was looked at.
    entered: i64,
    /// What was found behind that batch.
    beyond: Option<Beyond>,
}

/// An offset that is not of the same batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beyond {
    asked: i64,
    found: Found,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The first record there, or the end of the partition.
    Readable(i64),
    /// Another batch that cannot be read, and where it begins if that was told.
    Damaged(Option<i64>),
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
    /// The offset `from` cannot be read, whose batch begins at `batch` if that was told; the partition ends at `end`, or later. Nothing is
    /// looked for behind its end.
    #[must_use]
    pub const fn new(from: i64, batch: Option<i64>, end: i64) -> Self {
        Self {
            from,
            end,
            unreadable: from,
            batch,
            entered: from,
            beyond: None,
        }
    }

    /// Where the damage begins.
    #[must_use]
    pub const fn from(&self) -> i64 {
        self.from
    }

    /// The partition ends at `end` by now, or later.
    pub fn reaches(&mut self, end: i64) {
        self.end = self.end.max(end);
    }

    /// What is to be done next.
    #[must_use]
    pub fn step(&self) -> Step {
        match self.beyond {
            None => {
                let stride = match self.batch {
                    Some(_) => self.unreadable - self.entered + 1,
                    None => (self.unreadable - self.from) / SHARE,
                };
                let most = (self.end - self.unreadable).max(1);
                Step::Look(self.unreadable.saturating_add(stride.clamp(1, most)))
            }
            Some(Beyond { asked, .. }) if asked - self.unreadable > 1 => Step::Look(self.unreadable.midpoint(asked)),
            Some(Beyond { asked, found }) => match found {
                Found::Readable(first) => Step::Found(first),
                Found::Damaged(_) => Step::Look(asked),
            },
        }
    }

    /// From `asked` on the partition cannot be read: the batch there begins at `batch`, if that was told.
    pub fn is_unreadable(&mut self, asked: i64, batch: Option<i64>) {
        if batch == self.batch {
            self.unreadable = self.unreadable.max(asked);
        } else {
            let found = Found::Damaged(batch);
            self.beyond = Some(Beyond { asked, found });
        }
        // The end of the one batch is known, and right behind it another one cannot be read. In a hole the broker gives the next batch there
        // is, so nothing before its beginning is missed.
        if let Some(Beyond { asked, found }) = self.beyond
            && let Found::Damaged(batch) = found
            && asked - self.unreadable <= 1
        {
            self.unreadable = batch.map_or(asked, |begin| begin.max(asked));
            self.entered = self.unreadable;
            self.batch = batch;
            self.beyond = None;
        }
    }

    /// From `asked` on it can be read: its first record is `first`, or it ends there.
    pub fn is_readable(&mut self, asked: i64, first: i64) {
        let found = Found::Readable(first.max(asked));
        self.beyond = Some(Beyond { asked, found });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Batches by their first offset and the one behind their last, and which are damaged. What is between them is a hole.
    type Batches<'a> = &'a [(i64, i64, bool)];

    /// A partition as the broker gives it; whether it is `told` where a batch begins. Returns the end found, and the looks.
    fn search(batches: Batches<'_>, from: i64, told: impl Fn(usize) -> bool) -> (i64, usize) {
        let end = batches[batches.len() - 1].1;
        let begin = |index: usize| told(index).then(|| batches[index].0);
        let at = |asked: i64| batches.iter().position(|(_, end, _)| *end > asked);
        let mut extent = Extent::new(from, begin(at(from).unwrap()), from);
        extent.reaches(end);
        for looks in 0.. {
            let asked = match extent.step() {
                Step::Look(asked) => asked,
                Step::Found(first) => return (first, looks),
            };
            match at(asked) {
                Some(index) if batches[index].2 => extent.is_unreadable(asked, begin(index)),
                Some(index) => extent.is_readable(asked, batches[index].0),
                None if asked > end => panic!("{asked} is behind the end, {end}"),
                None => extent.is_readable(asked, asked),
            }
        }
        unreachable!("it ends at the end of the partition");
    }

    /// Batches without holes, by their ends.
    fn dense(ends: &[(i64, bool)]) -> Vec<(i64, i64, bool)> {
        let begins = std::iter::once(0).chain(ends.iter().map(|(end, _)| *end));
        let batches = begins.zip(ends);
        batches.map(|(begin, (end, damaged))| (begin, *end, *damaged)).collect()
    }

    const TOLD: fn(usize) -> bool = |_| true;
    const UNTOLD: fn(usize) -> bool = |_| false;

    #[test]
    fn a_whole_batch_between_two_damaged_ones_is_found() {
        let batches = dense(&[(10, false), (74, true), (75, false), (1_000, true), (1_010, false)]);
        for told in [TOLD, UNTOLD] {
            assert_eq!(search(&batches, 10, told).0, 74);
            assert_eq!(search(&batches, 75, told).0, 1_000);
        }
    }

    #[test]
    fn a_record_behind_a_hole_is_where_to_go_on() {
        let mut extent = Extent::new(7, None, 40);
        assert_eq!(extent.step(), Step::Look(8));
        extent.is_readable(8, 30);
        assert_eq!(extent.step(), Step::Found(30));
    }

    #[test]
    fn a_large_batch_takes_few_looks() {
        let batches = dense(&[(1_000_000, true), (1_000_001, false)]);
        let (end, looks) = search(&batches, 0, UNTOLD);
        assert_eq!(end, 1_000_000);
        assert!(looks < 800, "{looks}");
        let (end, looks) = search(&batches, 0, TOLD);
        assert_eq!(end, 1_000_000);
        assert!(looks <= 40, "{looks}");
    }

    #[test]
    fn holes_between_damaged_batches_take_few_looks() {
        let batches: Vec<_> = (0..50)
            .map(|number| (number * 100_000, number * 100_000 + 10, true))
            .collect();
        let (end, looks) = search(&batches, 0, TOLD);
        assert_eq!(end, 4_900_010);
        assert!(looks <= 50 * 25, "{looks}");
    }

    proptest! {
        #[test]
        fn the_end_of_a_damaged_batch_is_found_wherever_it_is(from in 0_i64..1_000_000, length in 1_i64..100_000, more in 0_i64..5) {
            let batches = [(0, from, false), (from, from + length, true), (from + length, from + length + more, false)];
            prop_assert_eq!(search(&batches, from, UNTOLD).0, from + length);
        }

        /// Whatever is behind the first damage, and if only some of it is told.
        #[test]
        fn nothing_that_can_be_read_is_stepped_over(
            layout in prop::collection::vec((0_i64..50, 1_i64..200, any::<bool>(), any::<bool>()), 1..12),
            into in 0_i64..200,
        ) {
            let mut batches = Vec::new();
            let mut end = 0;
            for (index, (hole, length, damaged, _)) in layout.iter().enumerate() {
                let begin = end + hole;
                end = begin + length;
                batches.push((begin, end, *damaged || index == 0));
            }
            let from = batches[0].0 + into.min(layout[0].1 - 1);
            let told = |index: usize| index == 0 || layout[index].3;
            let readable = batches.iter().find(|(_, _, damaged)| !damaged);
            let expected = readable.map_or(end, |(begin, ..)| *begin);
            let (found, _) = search(&batches, from, TOLD);
            prop_assert_eq!(found, expected);
            // Where nothing is told, a batch much shorter than the damage before it may be missed. Damage is never taken for readable.
            let (found, _) = search(&batches, from, told);
            let lies_in = batches.iter().find(|(_, end, _)| *end > found);
            prop_assert!(found >= expected && lies_in.is_none_or(|(_, _, damaged)| !damaged), "{found} instead of {expected}");
        }
    }
}
