//! The grace: time for subscribers to learn of a ring before anything is delivered by it.
//!
//! ```text
//!  Unheard ──▶ the clusters echo the announcement ──▶ Heard ──▶ all commits name the ring ──▶ Running ──▶ time passes: known
//! ```
//!
//! A process counts by its own clock, from its own announcement. So nothing depends on what other processes did before they died. A ring
//! that moves no asset is used without a grace. Its grace runs all the same, since older rings are not left before it is over: see
//! [`super::left`].

use super::{Dispatcher, Phase, RingEpoch};
use crate::delivery::deliverable::Deliverable;
use crate::delivery::partition::PartitionId;
use crate::fanout::ring::moved;

/// How far subscribers know a ring, by what this process has told them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grace {
    /// Subscribers follow no ring: no time is declared for them.
    None,
    /// The ring is announced, and the announcement was not heard: nobody can have learned of it.
    Unheard {
        /// How long subscribers need from then on, in microseconds.
        time: u64,
    },
    /// The announcement was heard, but the broker has a commit that does not name the ring.
    Heard {
        /// How long subscribers need, in microseconds.
        time: u64,
    },
    /// Subscribers learn of the ring.
    Running {
        /// From this time on they know it, in microseconds.
        until: u64,
    },
}

impl Grace {
    pub(super) const fn new(time: u64) -> Self {
        if time == 0 { Self::None } else { Self::Unheard { time } }
    }

    /// The announcement was heard.
    const fn heard(self) -> Self {
        match self {
            Self::Unheard { time } => Self::Heard { time },
            Self::None | Self::Heard { .. } | Self::Running { .. } => self,
        }
    }

    /// The broker knows that a successor needs the ring: time runs, if the announcement was heard.
    pub(super) const fn named(self, now: u64) -> Self {
        match self {
            Self::Heard { time } => Self::Running {
                until: now.saturating_add(time),
            },
            Self::None | Self::Unheard { .. } | Self::Running { .. } => self,
        }
    }

    /// Whether subscribers know the ring.
    pub(super) const fn is_over(self, now: u64) -> bool {
        match self {
            Self::None => true,
            Self::Unheard { .. } | Self::Heard { .. } => false,
            Self::Running { until } => until <= now,
        }
    }

    /// What is left of it, in microseconds.
    const fn left(self, now: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Unheard { time } | Self::Heard { time } => time,
            Self::Running { until } => until.saturating_sub(now),
        }
    }
}

/// The ring that commits speak of: the one in use, or the one that is to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    pub(super) epoch: u64,
    pub(super) fingerprint: u64,
    pub(super) grace: Grace,
    /// It moves assets, so it is not used before its grace is over.
    pub(super) is_awaited: bool,
}

impl Announced {
    /// The ring is used as soon as the broker knows of it.
    pub(super) const fn at_once(epoch: u64, fingerprint: u64) -> Self {
        Self {
            epoch,
            fingerprint,
            grace: Grace::None,
            is_awaited: false,
        }
    }
}

impl<T: Deliverable> Dispatcher<T> {
    /// Subscribers need `grace` microseconds to learn of the ring in use, and this process has told nobody of it yet. To be called once,
    /// before the first partition is assigned. Without it, or with 0, no partition waits.
    pub fn set_grace(&mut self, grace: u64) {
        self.grace = Grace::new(grace);
    }

    /// As [`Dispatcher::announce`], with a `grace` in microseconds; 0: none. The ring is used when all commits that name it are
    /// acknowledged, its announcement [was heard](Dispatcher::heard), and the grace has run since. Meanwhile commits name the ring in use
    /// too. A ring that moves no asset is not waited for.
    ///
    /// Returns whether the ring is announced. It is not while another one has its grace: see [`Dispatcher::may_announce`].
    pub fn announce_with_grace(&mut self, ring_epoch: &RingEpoch, grace: u64) -> bool {
        let is_newer = ring_epoch.epoch > self.announced.epoch;
        if is_newer && self.may_announce() {
            let is_another = ring_epoch.fingerprint() != self.ring_epoch.fingerprint();
            self.announced = Announced {
                grace: Grace::new(grace),
                is_awaited: grace > 0 && is_another && !moved(&self.ring_epoch.ring, &ring_epoch.ring).is_empty(),
                ..Announced::at_once(ring_epoch.epoch, ring_epoch.fingerprint())
            };
        }
        self.announced.epoch == ring_epoch.epoch
    }

    /// Whether a newer ring may be announced now. A grace that runs is not begun anew: its ring is used first.
    #[must_use]
    pub fn may_announce(&self) -> bool {
        !self.announced.is_awaited && !self.has_owing()
    }

    /// This process's announcement of its newest ring, of that epoch, was heard: every cluster that can be reached has echoed it. It names
    /// all rings that are not left, so the older ones were heard too.
    pub fn heard(&mut self, epoch: u64, now: u64) {
        self.now = self.now.max(now);
        if epoch >= self.announced.epoch {
            self.announced.grace = self.announced.grace.heard();
        }
        if epoch >= self.ring_epoch.epoch {
            self.grace = self.grace.heard().named(self.now);
        }
        self.count_grace();
    }

    /// The grace runs from now on, if both have come that it waits for.
    pub(super) fn count_grace(&mut self) {
        if matches!(self.announced.grace, Grace::Heard { .. }) && self.is_announced() {
            self.announced.grace = self.announced.grace.named(self.now);
        }
    }

    /// Whether the announced ring may be used: the broker knows of it for each partition, and subscribers know it.
    #[must_use]
    pub fn may_use_announced(&self) -> bool {
        self.is_announced() && (!self.announced.is_awaited || self.announced.grace.is_over(self.now))
    }

    /// How far subscribers know the ring of that epoch, which is used from now on.
    pub(super) fn grace_of(&self, epoch: u64) -> Grace {
        if self.announced.epoch == epoch {
            self.announced.grace.named(self.now)
        } else {
            Grace::None
        }
    }

    /// How long the announced ring is not used yet, in microseconds, as far as its grace goes. All of it, while the announcement was not
    /// heard. `None`: no ring waits for a grace.
    #[must_use]
    pub fn grace_left(&self) -> Option<u64> {
        let Announced { grace, is_awaited, .. } = self.announced;
        is_awaited.then(|| grace.left(self.now))
    }

    /// For how many microseconds no record goes by the ring in use yet, as far as the grace goes. `None`: records go by it, or may.
    ///
    /// A process that has just begun may be the first that delivers under its ring, so it owes subscribers the grace. It has delivered
    /// before that only where others have, or where a partition has no past.
    #[must_use]
    pub fn unused_for(&self) -> Option<u64> {
        let mut all = self.partitions.values();
        let owes = !self.is_known() || all.clone().any(|state| state.owes.is_some());
        let is_unused = owes && !all.any(|state| state.rings.has_begun());
        is_unused.then(|| self.grace.left(self.now))
    }

    /// Whether subscribers know the ring in use from this process.
    pub(super) fn is_known(&self) -> bool {
        self.grace.is_over(self.now)
    }

    /// Whether a partition waits for the grace of the ring in use.
    fn has_owing(&self) -> bool {
        !self.is_known() && self.partitions.values().any(|state| state.phase == Phase::Grace)
    }

    /// The partitions that have waited for the grace of the ring in use and begin now: their records are to be asked for. To be asked
    /// again and again, for nothing but time makes them begin.
    pub fn end_grace(&mut self) -> Vec<PartitionId> {
        if !self.may_owe || !self.is_known() {
            return Vec::new();
        }
        let epoch = self.ring_epoch.epoch;
        let mut begun = Vec::new();
        self.may_owe = false;
        for (partition, state) in &mut self.partitions {
            if state.phase != Phase::Grace {
                continue;
            }
            if state.committed.as_ref().is_some_and(|point| point.ring >= epoch) {
                state.begin(epoch);
                begun.push(*partition);
            } else {
                self.may_owe = true;
            }
        }
        begun
    }
}
