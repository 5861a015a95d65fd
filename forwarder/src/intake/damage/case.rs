//! Partitions that are looked at, and what is known of each.

use std::time::Instant;

use forwarder_core::delivery::damage::{Extent, Step};
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::fanout::dispatch::{Partition, Phase};

/// A partition that may have one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) partition: PartitionId,
    /// The assignment's epoch.
    pub(super) epoch: u32,
    pub(super) whose: Whose,
    pub(super) stage: Stage,
}

/// Who came upon it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The group's consumer, in this partition or another one.
    Group,
    /// The reader of parked records.
    Backlog,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// Nothing is known yet.
    Suspected { from: i64 },
    /// It could not be read so often.
    Unreadable { from: i64, reads: u32, again_at: Instant },
    /// It stays unreadable: its end is looked for.
    Measured(Extent),
}

impl Case {
    /// Nothing is known of the partition yet.
    pub(super) fn new(partition: PartitionId, epoch: u32, from: i64, whose: Whose) -> Self {
        Self {
            partition,
            epoch,
            whose,
            stage: Stage::Suspected { from },
        }
    }

    /// Whether it is still to be looked at: one that was given up is its next owner's.
    pub(super) fn is_open(&self, state: &Partition) -> bool {
        let is_held = match self.whose {
            Whose::Group => state.phase == Phase::Examined,
            Whose::Backlog => matches!(state.phase, Phase::Active | Phase::Examined),
        };
        state.epoch == self.epoch && is_held
    }

    /// The offset to look at now, if any.
    pub(super) fn due(&self, now: Instant) -> Option<i64> {
        match self.stage {
            Stage::Suspected { from } => Some(from),
            Stage::Unreadable { from, again_at, .. } => (again_at <= now).then_some(from),
            Stage::Measured(extent) => match extent.step() {
                Step::Look(offset) => Some(offset),
                Step::Found(_) => None,
            },
        }
    }

    /// Whether nothing is known of it yet. These hold others up.
    pub(super) fn is_suspected(&self) -> bool {
        matches!(self.stage, Stage::Suspected { .. })
    }
}
