//! Partitions come and go.

use std::collections::BTreeMap;

use super::backlog::Backlog;
use super::partition::Past;
use super::rings_used::RingsUsed;
use super::{Dispatcher, Partition, Phase, Resume};
use crate::delivery::deliverable::Deliverable;
use crate::delivery::offsets::Offsets;
use crate::delivery::partition::PartitionId;

impl<T: Deliverable> Dispatcher<T> {
    /// Takes a partition; returns the assignment's epoch. `phase` says how the ring that its committed metadata names
    /// stands to ours: [`Phase::Active`] is for the same one. It becomes [`Phase::Grace`] where subscribers need time to learn of our ring.
    pub fn assign(&mut self, partition: PartitionId, resume: &Resume, phase: Phase) -> u32 {
        self.remove(partition);
        self.assignment_epoch += 1;
        let mut backlog = Backlog::new(self.ring_epoch.clone());
        backlog.restore(&resume.away, &resume.lanes, self.now);
        let past = Past::of(resume);
        let phase = past.phase_under(&self.ring_epoch, self.is_known(), phase);
        let mut state = Partition {
            epoch: self.assignment_epoch,
            phase,
            ring: match phase {
                Phase::Behind(epoch) => epoch,
                // Where it is to begin is not known: nothing may be committed for it, whatever becomes of it.
                Phase::Stopped | Phase::Sought => u64::MAX,
                // What it says must not be overwritten by a ring that is not theirs.
                Phase::Contested => self.ring_epoch.epoch.saturating_add(1),
                Phase::Active
                | Phase::Draining
                | Phase::Announcing
                | Phase::Grace
                | Phase::Examined
                | Phase::Damaged(_) => 0,
            },
            past,
            owes: None,
            rings: RingsUsed::of_others(past.used(), resume.offset),
            later: resume.later.clone(),
            start: resume.offset,
            offsets: Offsets::with_slack(resume.offset, self.tuning.slack),
            backlog,
            backlog_held: false,
            committed: None,
        };
        self.may_owe |= state.enter(self.ring_epoch.epoch);
        self.partitions.insert(partition, state);
        self.assignment_epoch
    }

    /// Says what a partition is doing.
    pub fn set_phase(&mut self, partition: PartitionId, phase: Phase) {
        if let Some(state) = self.partitions.get_mut(&partition) {
            state.phase = phase;
        }
    }

    /// Gives a partition up. What outputs still have of it is to be abandoned by the caller.
    pub fn remove(&mut self, partition: PartitionId) {
        if self.partitions.remove(&partition).is_none() {
            return;
        }
        self.replay.take_if(|replay| replay.is_of(partition));
        let Self { batches, caps, .. } = self;
        for (output, batch) in batches {
            batch.retain(|item| {
                let kept = item.tag().partition != partition;
                if !kept {
                    caps.leave(*output as usize, item.weight());
                }
                kept
            });
        }
        for item in self.hand_over.forget(partition) {
            self.caps.release(item.weight());
        }
        if !self.hand_over.is_empty() {
            self.rebuild_hand_over();
        }
        self.count_held();
    }

    /// The partitions that are ours.
    #[must_use]
    pub fn partitions(&self) -> &BTreeMap<PartitionId, Partition> {
        &self.partitions
    }

    /// Records of a partition that are out at outputs which answer: what a drain may wait for. (Until it is over, the group
    /// leaves all partitions of this member alone, so one that does not answer would keep all the others waiting.)
    #[must_use]
    pub fn awaited(&self, partition: PartitionId) -> usize {
        let state = self.partitions.get(&partition);
        let places = state.into_iter().flat_map(|state| state.offsets.whereabouts());
        // A refused record may be refused for days.
        let places = places.filter(|place| !self.held.contains(place.lane));
        let at = places.filter_map(|place| place.output.or_else(|| self.hand_over.awaits(place.lane)));
        at.filter(|output| !self.caps.stands_still(*output as usize)).count()
    }
}
