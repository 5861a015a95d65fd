//! A partition that is ours: where it begins, what it is doing, and what of it is settled.

use std::fmt;

use super::backlog::Backlog;
use crate::delivery::commit::{Ahead, CommitPoint};
use crate::delivery::offsets::Offsets;

/// What a partition of ours is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its records are taken.
    Active,
    /// It is being given up: what is out is awaited.
    Draining,
    /// Its committed offset is gone, and the policy is to leave that to a person.
    Stopped,
    /// Kafka gave a batch that cannot be read, perhaps of this partition: nothing is taken before its next record was looked at.
    Examined,
    /// The batch at this offset cannot be read, and the policy is to leave that to a person.
    Damaged(i64),
    /// Others have delivered under a newer ring than ours, of this epoch: it waits until we have it too.
    Behind(u64),
    /// Others have delivered under an older ring than ours: it waits until the broker has committed that a successor needs
    /// ours.
    Announcing,
    /// Others have delivered under another ring of our epoch: it waits until we have a newer one.
    Contested,
    /// Kafka has not said yet where it begins.
    Sought,
}

impl Phase {
    /// The least epoch that the ring must have for the partition to be taken, where the one in use, of epoch `ring`, is too low.
    #[must_use]
    pub const fn awaits(self, ring: u64) -> Option<u64> {
        match self {
            Self::Behind(epoch) => Some(epoch),
            Self::Contested => Some(ring.saturating_add(1)),
            Self::Active
            | Self::Draining
            | Self::Stopped
            | Self::Examined
            | Self::Damaged(_)
            | Self::Announcing
            | Self::Sought => None,
        }
    }
}

/// What the partition is doing, for people.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => f.write_str("active"),
            Self::Draining => f.write_str("draining"),
            Self::Stopped => f.write_str("stopped: the committed offset is gone"),
            Self::Examined => f.write_str("reads its next record again: Kafka returned an unreadable batch"),
            Self::Damaged(offset) => write!(f, "stopped: the batch at offset {offset} is damaged in Kafka"),
            Self::Behind(epoch) => write!(f, "waits for ring epoch {epoch}"),
            Self::Announcing => f.write_str("waits for the commit that announces its ring"),
            Self::Contested => {
                f.write_str("waits for a higher ring epoch: another forwarder has delivered under a different ring of the same epoch")
            }
            Self::Sought => f.write_str("waits for Kafka to return its start offset"),
        }
    }
}

/// Where an assignment begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The first offset to receive.
    pub offset: i64,
    /// Members of the ring with the offset of the first of their records that is to be delivered, where that lies before
    /// `offset`.
    pub away: Vec<(String, i64)>,
    /// Lanes with the offset of the first of their records that is to be delivered, where that lies before `offset`. What is said of a
    /// lane goes before what is said of its cluster.
    pub lanes: Vec<(u64, i64)>,
    /// The fingerprint of the ring under which others have delivered, where it is known.
    pub members: Option<u64>,
    /// What is settled behind `offset`, as told under that ring if it is not ours.
    pub later: Option<Ahead>,
}

/// A partition that is ours.
#[derive(Debug)]
pub struct Partition {
    /// The assignment's epoch.
    pub epoch: u32,
    /// See [`Phase`].
    pub phase: Phase,
    /// The first offset that was to be received.
    pub(super) start: i64,
    /// See [`Resume::members`].
    pub(super) members: Option<u64>,
    /// See [`Resume::later`].
    pub(super) later: Option<Ahead>,
    /// The least epoch of the ring that a commit may speak of: others have delivered under it.
    pub(super) ring: u64,
    pub(super) offsets: Offsets,
    pub(super) backlog: Backlog,
    /// Nothing is read again for the time being: what comes next there cannot be read.
    pub(super) backlog_held: bool,
    /// What the broker acknowledged.
    pub(super) committed: Option<CommitPoint>,
}

impl Partition {
    /// Where the next record is expected.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.offsets.next()
    }

    /// One past the contiguous settled prefix.
    #[must_use]
    pub fn position(&self) -> i64 {
        let position = self.offsets.position();
        self.backlog.from().map_or(position, |from| from.min(position))
    }

    /// Records that are out.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.offsets.unsettled()
    }

    /// The offset that the broker acknowledged.
    #[must_use]
    pub fn committed(&self) -> Option<i64> {
        self.committed.as_ref().map(|point| point.position)
    }

    /// Whether a record that comes is taken. (One that is not taken would never come again.)
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.phase == Phase::Active
    }
}
