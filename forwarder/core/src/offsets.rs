//! Which offset of a partition may be committed.
//!
//! Offsets are tracked as they are *received*, not counted: compaction, aborted transactions and control records leave
//! holes, and a hole is nothing to wait for. What may be committed is the contiguous settled prefix of what was
//! received: a record whose receipt never comes holds everything behind it, so failure is the default.

use std::collections::VecDeque;

/// The offsets of one assignment of one partition.
#[derive(Debug)]
pub struct Offsets {
    /// Sequence number of the first entry: `entries[i]` has `first + i`.
    first: u64,
    /// What was received and is not part of the settled prefix yet, in order.
    entries: VecDeque<Entry>,
    /// How many entries are not settled.
    unsettled: usize,
    /// Where a successor would begin: one past the settled prefix.
    position: i64,
    /// The greatest offset received, so that one delivered twice is seen.
    last: Option<i64>,
    /// The position that the broker acknowledged.
    committed: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: i64,
    settled: bool,
}

impl Offsets {
    /// Begins at `start`, the offset of the first record that will be asked for.
    ///
    /// `committed` says whether the broker already holds that position for the group.
    #[must_use]
    pub fn new(start: i64, committed: bool) -> Self {
        Self {
            first: 0,
            entries: VecDeque::new(),
            unsettled: 0,
            position: start,
            last: None,
            committed: committed.then_some(start),
        }
    }

    /// Takes note of a received record and names it by a sequence number; `None` when its offset does not lie behind
    /// the last one, that is, when the record was seen before and must not be dispatched again.
    pub fn receive(&mut self, offset: i64) -> Option<u64> {
        if self.last.is_some_and(|last| offset <= last) || offset < self.position {
            return None;
        }
        self.last = Some(offset);
        self.entries.push_back(Entry { offset, settled: false });
        self.unsettled += 1;
        Some(self.first + self.entries.len() as u64 - 1)
    }

    /// Marks a record as settled. A second receipt for the same record changes nothing.
    pub fn settle(&mut self, sequence: u64) {
        let Some(index) = sequence.checked_sub(self.first) else {
            return;
        };
        let Some(entry) = usize::try_from(index)
            .ok()
            .and_then(|index| self.entries.get_mut(index))
        else {
            return;
        };
        if !entry.settled {
            entry.settled = true;
            self.unsettled -= 1;
        }
        while let Some(entry) = self.entries.front().filter(|entry| entry.settled) {
            self.position = entry.offset + 1;
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// The position to commit, where the broker does not have it yet.
    #[must_use]
    pub fn to_commit(&self) -> Option<i64> {
        self.committed
            .is_none_or(|committed| committed < self.position)
            .then_some(self.position)
    }

    /// The broker acknowledged `position`. An answer that arrives late never takes a newer one back, and one that is
    /// ahead of us was meant for an earlier assignment of the partition.
    pub fn committed(&mut self, position: i64) {
        if position > self.position {
            return;
        }
        if self.committed.is_none_or(|committed| committed < position) {
            self.committed = Some(position);
        }
    }

    /// One past the settled prefix.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Where the next record is expected: one past the last one received.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.last.map_or(self.position, |last| last + 1)
    }

    /// The position that the broker acknowledged.
    #[must_use]
    pub fn last_committed(&self) -> Option<i64> {
        self.committed
    }

    /// How many records are kept track of: the unsettled ones and what is settled behind the first of them.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.entries.len()
    }

    /// How many records were received and are not settled.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_holds_what_is_behind_it() {
        let mut offsets = Offsets::new(10, true);
        let names: Vec<u64> = (10..13).filter_map(|offset| offsets.receive(offset)).collect();
        offsets.settle(names[1]);
        offsets.settle(names[2]);
        assert_eq!(offsets.to_commit(), None);
        offsets.settle(names[0]);
        assert_eq!(offsets.to_commit(), Some(13));
    }

    #[test]
    fn a_hole_in_the_topic_is_nothing_to_wait_for() {
        let mut offsets = Offsets::new(0, true);
        let first = offsets.receive(5).unwrap();
        let second = offsets.receive(1_000).unwrap();
        offsets.settle(first);
        assert_eq!(offsets.to_commit(), Some(6));
        offsets.settle(second);
        assert_eq!(offsets.to_commit(), Some(1_001));
    }

    #[test]
    fn a_record_seen_twice_is_not_dispatched_twice() {
        let mut offsets = Offsets::new(3, true);
        assert_eq!(offsets.receive(2), None);
        assert!(offsets.receive(4).is_some());
        assert_eq!(offsets.receive(4), None);
        assert_eq!(offsets.receive(3), None);
    }

    #[test]
    fn a_start_position_that_the_broker_lacks_is_committed_first() {
        let mut offsets = Offsets::new(42, false);
        assert_eq!(offsets.to_commit(), Some(42));
        offsets.committed(42);
        assert_eq!(offsets.to_commit(), None);
    }

    #[test]
    fn a_late_answer_takes_nothing_back() {
        let mut offsets = Offsets::new(0, true);
        for offset in 0..2 {
            let name = offsets.receive(offset).unwrap();
            offsets.settle(name);
        }
        offsets.committed(2);
        offsets.committed(1);
        assert_eq!(offsets.to_commit(), None);
    }

    #[test]
    fn an_answer_meant_for_an_earlier_assignment_is_not_ours() {
        let mut offsets = Offsets::new(0, false);
        offsets.committed(1_000);
        assert_eq!(offsets.to_commit(), Some(0));
    }

    proptest! {
        /// Against the definition: the position is the least unsettled offset, or one past the last received.
        #[test]
        fn the_position_is_the_contiguous_settled_prefix(
            gaps in proptest::collection::vec(1_i64..4, 1..200),
            order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..400),
        ) {
            let mut offsets = Offsets::new(0, true);
            let mut received = Vec::new();
            let mut at = -1;
            for gap in gaps {
                at += gap;
                received.push((at, offsets.receive(at).unwrap(), false));
            }
            for pick in order {
                let record = pick.get_mut(&mut received);
                record.2 = true;
                offsets.settle(record.1);
                let expected = match received.iter().position(|record| !record.2) {
                    Some(0) => 0,
                    Some(gap) => received[gap - 1].0 + 1,
                    None => at + 1,
                };
                prop_assert_eq!(offsets.position(), expected);
                prop_assert_eq!(offsets.unsettled(), received.iter().filter(|record| !record.2).count());
            }
        }
    }
}
