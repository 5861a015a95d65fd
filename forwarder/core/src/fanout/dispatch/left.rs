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

/// So many older rings are remembered. Of more, two count as the older one.
const MAX_OLDER: usize = 64;

/// The rings under which a partition's records may be on their way.
#[derive(Debug, Default)]
pub(super) struct RingsUsed {
    /// The older ones, oldest first. All of a ring's records lie before its offset.
    older: Vec<(u64, i64)>,
    /// The one by which records are handed out. `None`: this process has not begun.
    current: Option<u64>,
}

impl RingsUsed {
    /// Others have delivered everything before `start` under the ring of that epoch.
    pub(super) fn of_others(epoch: Option<u64>, start: i64) -> Self {
        Self {
            older: epoch.map(|epoch| (epoch, start)).into_iter().collect(),
            current: None,
        }
    }

    /// Whether this process has handed anything out.
    pub(super) fn has_begun(&self) -> bool {
        self.current.is_some()
    }

    /// Records from `next` on go by the ring of this epoch. All before `position` is settled.
    fn begin(&mut self, epoch: u64, next: i64, position: i64) {
        if self.current == Some(epoch) {
            return;
        }
        self.older.retain(|(older, until)| *older < epoch && position < *until);
        self.older
            .extend(self.current.replace(epoch).map(|former| (former, next)));
        while self.older.len() > MAX_OLDER {
            let (_, until) = self.older.remove(1);
            if let Some(oldest) = self.older.first_mut() {
                oldest.1 = until;
            }
        }
    }

    /// The oldest ring under which anything is on its way.
    fn oldest(&self, position: impl FnOnce() -> i64) -> Option<u64> {
        let Some((first, _)) = self.older.first() else {
            return self.current;
        };
        let Some(current) = self.current else {
            return Some(*first);
        };
        let position = position();
        let unsettled = self.older.iter().find(|(_, until)| position < *until);
        Some(unsettled.map_or(current, |(epoch, _)| *epoch))
    }
}

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
