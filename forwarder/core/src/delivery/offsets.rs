//! Which offset of a partition may be committed.
//!
//! Offsets are tracked as they are *received*, not counted: compaction, aborted transactions and control records leave
//! holes, and a hole is nothing to wait for. What may be committed is the contiguous settled prefix of what was
//! received: a record whose receipt never comes holds everything behind it, so failure is the default.
//!
//! ```text
//!             stragglers             window                      next
//!   …settled… ▪  ▪    ▪   │ ▪ settled ▪ ▪ settled settled ▪ │ not yet received
//!             ▲            ▲
//!             position     horizon: below it only the stragglers are unsettled
//! ```
//!
//! A window of entries is cheap while records settle about in the order in which they came. A record that does not
//! would make it grow with everything settled behind it, so the window leaves such a record behind as a *straggler*:
//! memory follows what is unsettled, however much is settled behind it.

use std::collections::{BTreeMap, VecDeque};

use super::partition::PartitionId;

/// The window may hold this many entries for each unsettled one, and [`SLACK`] more, before it leaves its first behind.
const WINDOW_PER_UNSETTLED: usize = 4;

/// What the window may hold beyond its unsettled entries, where nothing else is said. So many entries take a few pages of memory; then hardly any record is ever left behind.
pub const SLACK: usize = 1024;

/// The sequence number of records that are read again: they have no place in the window.
const READ_AGAIN: u64 = u64::MAX;

/// Names a record on its way, on behalf of one assignment of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The partition.
    pub partition: PartitionId,
    /// The assignment epoch: what an older one reports is ignored.
    pub epoch: u32,
    /// The offset.
    pub offset: i64,
    /// The record's name in [`Offsets`].
    pub sequence: u64,
}

/// Where an unsettled record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// Its asset's lane.
    pub lane: u64,
    /// The output that has it; `None`: it is held back.
    pub output: Option<u32>,
}

/// The offsets of one assignment of one partition.
#[derive(Debug)]
pub struct Offsets {
    /// Sequence number of the first entry: `entries[i]` has `first + i`.
    first: u64,
    /// The window: what was received behind its first entry, in order. The first entry is not settled.
    entries: VecDeque<Entry>,
    /// How many entries of the window are not settled.
    open: usize,
    /// Unsettled records that the window has left behind, or that were read again.
    stragglers: BTreeMap<i64, Whereabouts>,
    /// One past the last record received.
    received: i64,
    /// Where the next record is expected: there, or behind what followed that and is no record.
    next: i64,
    /// See [`Offsets::with_slack`].
    slack: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: i64,
    whereabouts: Whereabouts,
    settled: bool,
}

impl Offsets {
    /// Begins at `start`, the offset of the first record that will be asked for.
    #[must_use]
    pub fn new(start: i64) -> Self {
        Self::with_slack(start, SLACK)
    }

    /// As [`Offsets::new`], where the window may hold `slack` entries more than its unsettled ones account for. The less there are, the
    /// sooner a record is left behind; what may be committed is the same.
    #[must_use]
    pub fn with_slack(start: i64, slack: usize) -> Self {
        Self {
            first: 0,
            entries: VecDeque::new(),
            open: 0,
            stragglers: BTreeMap::new(),
            received: start,
            next: start,
            slack,
        }
    }

    /// Takes note of a received record and names it by a sequence number; `None` when its offset does not lie behind
    /// the last one, that is, when the record was seen before and must not be dispatched again.
    pub fn receive(&mut self, offset: i64, whereabouts: Whereabouts) -> Option<u64> {
        if !self.pass(offset) {
            return None;
        }
        self.entries.push_back(Entry {
            offset,
            whereabouts,
            settled: false,
        });
        self.open += 1;
        self.leave_behind();
        // Told before the window moves on: a record alone in the window may have been left behind at once.
        Some(self.first + self.entries.len() as u64 - 1)
    }

    /// Takes note of a record that somebody else keeps track of. `false`: it was seen before.
    pub fn pass(&mut self, offset: i64) -> bool {
        if offset < self.next {
            return false;
        }
        self.received = offset + 1;
        self.next = self.received;
        true
    }

    /// What lies before `next` and was not received is no record (a transaction's mark, say).
    pub fn skip(&mut self, next: i64) {
        self.next = self.next.max(next);
    }

    /// Takes note of a record that was [passed](Offsets::pass) and has been read again; names it.
    pub fn readmit(&mut self, offset: i64, whereabouts: Whereabouts) -> u64 {
        self.stragglers.insert(offset, whereabouts);
        READ_AGAIN
    }

    /// Marks a record as settled and says where it was. A second receipt for the same record changes nothing.
    pub fn settle(&mut self, sequence: u64, offset: i64) -> Option<Whereabouts> {
        let Some(index) = self.index(sequence, offset) else {
            return self.stragglers.remove(&offset);
        };
        let entry = &mut self.entries[index];
        if std::mem::replace(&mut entry.settled, true) {
            return None;
        }
        let whereabouts = entry.whereabouts;
        self.open -= 1;
        self.move_on();
        self.leave_behind();
        Some(whereabouts)
    }

    /// Says where an unsettled record is from now on.
    pub fn relocate(&mut self, sequence: u64, offset: i64, output: Option<u32>) {
        let whereabouts = match self.index(sequence, offset) {
            Some(index) => Some(&mut self.entries[index].whereabouts),
            None => self.stragglers.get_mut(&offset),
        };
        if let Some(whereabouts) = whereabouts {
            whereabouts.output = output;
        }
    }

    /// Everything below is settled, except the stragglers.
    #[must_use]
    pub fn horizon(&self) -> i64 {
        self.entries.front().map_or(self.next, |entry| entry.offset)
    }

    /// The contiguous settled prefix ends here: the first unsettled record, or where the next one is expected.
    #[must_use]
    pub fn position(&self) -> i64 {
        let straggler = self.stragglers.keys().next().copied();
        straggler.map_or(self.horizon(), |straggler| straggler.min(self.horizon()))
    }

    /// Where the next record is expected.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next
    }

    /// One past the last record received, or where the assignment begins.
    #[must_use]
    pub fn received(&self) -> i64 {
        self.received
    }

    /// How many records were received and are not settled.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.open + self.stragglers.len()
    }

    /// The unsettled records below the horizon, in order.
    pub fn stragglers(&self) -> impl Iterator<Item = (i64, Whereabouts)> {
        let horizon = self.horizon();
        self.stragglers
            .range(..horizon)
            .map(|(offset, whereabouts)| (*offset, *whereabouts))
    }

    /// The unsettled records, in order.
    pub fn in_order(&self) -> impl Iterator<Item = (i64, Whereabouts)> {
        let window = self.entries.iter().filter(|entry| !entry.settled);
        let mut window = window.map(|entry| (entry.offset, entry.whereabouts)).peekable();
        let stragglers = self.stragglers.iter();
        let mut stragglers = stragglers
            .map(|(offset, whereabouts)| (*offset, *whereabouts))
            .peekable();
        std::iter::from_fn(move || match (window.peek(), stragglers.peek()) {
            (Some((inside, _)), Some((left, _))) if left < inside => stragglers.next(),
            (Some(_), _) => window.next(),
            (None, _) => stragglers.next(),
        })
    }

    /// Where each unsettled record is, in no particular order.
    pub fn whereabouts(&self) -> impl Iterator<Item = Whereabouts> {
        let window = self.entries.iter().filter(|entry| !entry.settled);
        window
            .map(|entry| entry.whereabouts)
            .chain(self.stragglers.values().copied())
    }

    /// How many records are kept track of, settled or not.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.entries.len() + self.stragglers.len()
    }

    fn index(&self, sequence: u64, offset: i64) -> Option<usize> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.entries.get(index).filter(|entry| entry.offset == offset)?;
        Some(index)
    }

    /// Drops what is settled from the window's front.
    fn move_on(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.settled) {
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// Leaves the window's front behind where most of what follows is settled.
    fn leave_behind(&mut self) {
        while self.entries.len() > WINDOW_PER_UNSETTLED * self.open + self.slack {
            let Some(entry) = self.entries.pop_front() else { return };
            self.first += 1;
            self.open -= 1;
            self.stragglers.insert(entry.offset, entry.whereabouts);
            self.move_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Small, so that records are left behind.
    const SLACK: usize = 6;

    const SOMEWHERE: Whereabouts = Whereabouts {
        lane: 1,
        output: Some(1),
    };

    fn offsets(start: i64) -> Offsets {
        Offsets::with_slack(start, SLACK)
    }

    fn receive(offsets: &mut Offsets, offset: i64) -> u64 {
        offsets.receive(offset, SOMEWHERE).unwrap()
    }

    #[test]
    fn a_gap_holds_what_is_behind_it() {
        let mut offsets = offsets(10);
        let names: Vec<u64> = (10..13).map(|offset| receive(&mut offsets, offset)).collect();
        offsets.settle(names[1], 11);
        offsets.settle(names[2], 12);
        assert_eq!(offsets.position(), 10);
        offsets.settle(names[0], 10);
        assert_eq!(offsets.position(), 13);
    }

    #[test]
    fn a_hole_in_the_topic_is_nothing_to_wait_for() {
        let mut offsets = offsets(0);
        let first = receive(&mut offsets, 5);
        let second = receive(&mut offsets, 1_000);
        offsets.settle(first, 5);
        assert_eq!(offsets.position(), 1_000);
        offsets.settle(second, 1_000);
        assert_eq!(offsets.position(), 1_001);
    }

    #[test]
    fn a_record_seen_twice_is_not_dispatched_twice() {
        let mut offsets = offsets(3);
        assert_eq!(offsets.receive(2, SOMEWHERE), None);
        assert!(offsets.receive(4, SOMEWHERE).is_some());
        assert_eq!(offsets.receive(4, SOMEWHERE), None);
        assert_eq!(offsets.receive(3, SOMEWHERE), None);
        assert!(!offsets.pass(4));
    }

    #[test]
    fn a_name_with_another_offset_settles_nothing() {
        let mut offsets = offsets(0);
        let names: Vec<u64> = (0..3).map(|offset| receive(&mut offsets, offset)).collect();
        assert_eq!(offsets.settle(names[0], 1), None);
        assert_eq!((offsets.position(), offsets.unsettled()), (0, 3));
    }

    #[test]
    fn a_record_read_again_behind_the_horizon_is_no_straggler_yet() {
        let mut offsets = offsets(0);
        let stuck = receive(&mut offsets, 0);
        assert!(offsets.pass(1));
        let again = offsets.readmit(1, SOMEWHERE);
        assert_eq!((offsets.horizon(), offsets.stragglers().count()), (0, 0));
        offsets.settle(stuck, 0);
        assert_eq!(offsets.stragglers().collect::<Vec<_>>(), [(1, SOMEWHERE)]);
        offsets.settle(again, 1);
        assert_eq!((offsets.position(), offsets.stragglers().count()), (2, 0));
    }

    #[test]
    fn a_record_that_is_never_settled_costs_no_memory_for_what_is_settled_behind_it() {
        let mut offsets = offsets(0);
        let stuck = receive(&mut offsets, 0);
        for offset in 1..100_000 {
            let name = receive(&mut offsets, offset);
            offsets.settle(name, offset);
        }
        assert!(
            offsets.tracked() <= SLACK + 2 * WINDOW_PER_UNSETTLED,
            "{}",
            offsets.tracked()
        );
        assert_eq!((offsets.position(), offsets.horizon()), (0, 100_000));
        assert_eq!(offsets.stragglers().collect::<Vec<_>>(), [(0, SOMEWHERE)]);
        assert_eq!(offsets.settle(stuck, 0), Some(SOMEWHERE));
        assert_eq!((offsets.position(), offsets.unsettled()), (100_000, 0));
    }

    #[test]
    fn a_record_read_again_holds_the_position_until_it_is_settled() {
        let mut offsets = offsets(0);
        assert!(offsets.pass(0) && offsets.pass(1));
        let name = offsets.readmit(0, SOMEWHERE);
        let late = receive(&mut offsets, 2);
        assert_eq!((offsets.position(), offsets.horizon()), (0, 2));
        offsets.relocate(name, 0, None);
        assert_eq!(offsets.settle(name, 0).and_then(|at| at.output), None);
        assert_eq!(offsets.settle(name, 0), None);
        assert_eq!(offsets.position(), 2);
        assert_eq!(offsets.settle(late, 2), Some(SOMEWHERE));
        assert_eq!(offsets.position(), 3);
    }

    proptest! {
        /// Against the definition: the position is the least unsettled offset, or one past the last received.
        #[test]
        fn the_position_is_the_contiguous_settled_prefix(
            gaps in proptest::collection::vec(1_i64..4, 1..3_000),
            order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4_000),
        ) {
            let mut offsets = offsets(0);
            let mut received = Vec::new();
            let mut at = -1;
            for gap in gaps {
                at += gap;
                received.push((at, receive(&mut offsets, at), false));
            }
            for pick in order {
                let record = pick.get_mut(&mut received);
                let first = !std::mem::replace(&mut record.2, true);
                prop_assert_eq!(offsets.settle(record.1, record.0).is_some(), first);
            }
            let open: Vec<i64> = received.iter().filter(|record| !record.2).map(|record| record.0).collect();
            prop_assert_eq!(offsets.position(), open.first().copied().unwrap_or(at + 1));
            prop_assert_eq!(offsets.unsettled(), open.len());
            prop_assert!(offsets.tracked() <= (WINDOW_PER_UNSETTLED + 1) * open.len() + SLACK);
            let horizon = offsets.horizon();
            let below: Vec<i64> = offsets.stragglers().map(|(offset, _)| offset).collect();
            let expected: Vec<i64> = open.iter().copied().filter(|offset| *offset < horizon).collect();
            prop_assert_eq!(below, expected);
        }
    }
}
