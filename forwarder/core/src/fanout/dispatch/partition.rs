//! A partition that is ours: where it begins, what it is doing, and what of it is settled.

use std::fmt;

use super::RingEpoch;
use super::backlog::Backlog;
use super::rings_used::RingsUsed;
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
    /// Others have delivered under an older ring than ours, and subscribers may not know ours yet: it waits until they have had their
    /// time, and until the broker has committed that a successor needs our ring.
    Grace,
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
            | Self::Grace
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
            Self::Grace => f.write_str("waits until subscribers have had time to learn of its ring"),
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
    /// The epoch of the ring that the commit names; 0: there is no commit of a forwarder.
    pub ring: u64,
    /// The fingerprint of that ring, where it is known.
    pub members: Option<u64>,
    /// The epoch of the ring under which others have delivered, where the ring that the commit names is only announced.
    pub using: Option<u64>,
    /// What is settled behind `offset`, as told under that ring if it is not ours.
    pub later: Option<Ahead>,
}

/// What the commit says of the rings under which others have delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    /// See [`Resume::ring`].
    pub(super) ring: u64,
    /// See [`Resume::members`].
    pub(super) members: Option<u64>,
    /// See [`Resume::using`].
    using: Option<u64>,
}

impl Past {
    pub(super) fn of(resume: &Resume) -> Self {
        Self {
            ring: resume.ring,
            members: resume.members,
            using: resume.using.filter(|using| *using < resume.ring),
        }
    }

    /// The ring under which others have delivered last. `None`: nobody has.
    pub(super) fn used(&self) -> Option<u64> {
        self.using.or((self.ring != 0).then_some(self.ring))
    }

    /// How the partition begins under `ring_epoch`; `phase`: where no subscriber is to be waited for. `is_known`: subscribers know that
    /// ring from us.
    pub(super) fn phase_under(&self, ring_epoch: &RingEpoch, is_known: bool, phase: Phase) -> Phase {
        match phase {
            Phase::Active | Phase::Announcing if !is_known && self.owes_grace(ring_epoch) => Phase::Grace,
            _ => phase,
        }
    }

    /// Whether nobody has delivered under `ring_epoch`, and another ring was used before: subscribers may know only that one.
    fn owes_grace(&self, ring_epoch: &RingEpoch) -> bool {
        let is_older = self.ring != 0 && self.ring < ring_epoch.epoch;
        self.using.is_some() || (is_older && self.members != Some(ring_epoch.fingerprint()))
    }
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
    pub(super) past: Past,
    /// Others have delivered under the ring of this epoch, and nobody under ours: as long as that is so, commits say it.
    pub(super) owes: Option<u64>,
    pub(super) rings: RingsUsed,
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

    /// It goes on behind what was told under `ring_epoch`, which is ours by now. Nothing of it was taken.
    pub(super) fn go_on_behind(&mut self, ahead: Ahead, ring_epoch: &RingEpoch, slack: usize, now: u64) {
        let start = self.start;
        let away = ahead.away.into_iter().map(|(name, from)| (name, from.max(start)));
        let lanes = ahead.lanes.into_iter().map(|told| (told.lane, told.from.max(start)));
        self.start = ahead.upto;
        self.offsets = Offsets::with_slack(ahead.upto, slack);
        self.backlog = Backlog::new(ring_epoch.clone());
        let (away, lanes): (Vec<_>, Vec<_>) = (away.collect(), lanes.collect());
        self.backlog.restore(&away, &lanes, now);
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
