//! Which rings are left: nothing is on its way by them any more, so subscribers need the old owners no longer.
//!
//! What was received before a newer ring was first used lies before an offset. When the partition's position has reached that offset,
//! all of it is settled, and the older ring is left. One offset for each ring is enough, however many records are out.
//!
//! A process claims nothing that the commits do not bear out: a successor must be bound to the newer ring. Nor does it claim that a ring
//! is left before subscribers have learned a newer one from this process: they would be subscribed nowhere. What it claimed once stays
//! true, whoever has the partition next.

use super::partition::Partition;
use super::{Dispatcher, Phase};
use crate::delivery::deliverable::Deliverable;
use crate::delivery::partition::PartitionId;

impl Partition {
    /// Its records are taken from now on, by the ring of this epoch.
    pub(super) fn begin(&mut self, epoch: u64) {
        self.phase = Phase::Active;
        self.owes = None;
        self.use_ring(epoch);
    }

    /// Its phase has come. Returns whether it waits for the grace of the ring of this epoch.
    pub(super) fn enter(&mut self, epoch: u64) -> bool {
        match self.phase {
            Phase::Active => self.begin(epoch),
            Phase::Grace => self.owes = self.past.used(),
            _ => {}
        }
        self.phase == Phase::Grace
    }

    /// Records that come from now on go by the ring of this epoch.
    pub(super) fn use_ring(&mut self, epoch: u64) {
        let (next, position) = (self.next(), self.position());
        self.rings.begin(epoch, next, position);
    }

    fn oldest_ring(&self) -> Option<u64> {
        let committed = self.committed.as_ref().map_or(0, |point| point.ring);
        let bound = committed.max(self.past.ring);
        let oldest = self.rings.oldest(|| self.position())?;
        (bound > 0).then(|| oldest.min(bound))
    }
}

impl<T: Deliverable> Dispatcher<T> {
    /// For each partition of ours the epoch of the oldest ring under which anything of it is out, held or parked. A partition is left out
    /// as long as nothing can be said of it: what its former owner said is still true.
    pub fn oldest_rings(&self) -> impl Iterator<Item = (PartitionId, u64)> {
        let known = if self.is_known() {
            Some(self.ring_epoch.epoch)
        } else {
            self.known
        };
        let all = known
            .into_iter()
            .flat_map(|known| self.partitions.iter().map(move |one| (known, one)));
        all.filter_map(|(known, (partition, state))| Some((*partition, state.oldest_ring()?.min(known))))
    }
}
