//! What may be committed: the settled prefix, and what is settled behind it.

use std::collections::BTreeMap;

use super::{CommitPoint, DEAD_LETTER, Dispatcher, Freight, Partition, Phase};
use crate::commit::Ahead;

impl<T: Freight> Dispatcher<T> {
    /// What may be committed for a partition, where the broker does not have it yet.
    #[must_use]
    pub fn to_commit(&self, partition: i32) -> Option<CommitPoint> {
        let point = self.commit_point(partition)?;
        (self.partitions.get(&partition)?.committed.as_ref() != Some(&point)).then_some(point)
    }

    /// What may be committed for a partition. None that stands still for a decision or a newer ring has anything.
    #[must_use]
    pub fn commit_point(&self, partition: i32) -> Option<CommitPoint> {
        let state = self.partitions.get(&partition)?;
        if matches!(state.phase, Phase::Stopped | Phase::Behind(_) | Phase::Contested) {
            return None;
        }
        // It is given up before we used the newer ring: the next owner still needs that, and what was told under it.
        if state.ring > self.era.epoch {
            return None;
        }
        let (ring, members) = self.announced;
        let position = state.position();
        Some(CommitPoint {
            position,
            ring,
            members,
            // Whoever has that ring cannot make use of what is told under another one.
            ahead: Some(self.ahead(state)).filter(|ahead| ahead.members == members && ahead.upto > position),
        })
    }

    /// Everything is told by who owns it under the ring in use, wherever it is now.
    fn ahead(&self, state: &Partition) -> Ahead {
        let mut upto = state.offsets.horizon();
        let mut away = BTreeMap::<u32, i64>::new();
        let mut note = |outlet: u32, from: i64| {
            let first = away.entry(outlet).or_insert(from);
            *first = from.min(*first);
        };
        for (class, parked) in state.backlog.classes() {
            note(class.last().copied().unwrap_or_default(), parked.from);
        }
        for (offset, whereabouts) in state.offsets.stragglers() {
            if whereabouts.outlet == Some(DEAD_LETTER) {
                // It may belong to no asset, so to no cluster: it ends what can be told.
                upto = upto.min(offset);
                break;
            }
            note(self.era.outlet_of_lane(whereabouts.lane), offset);
        }
        let named = away.into_iter().filter(|(_, from)| *from < upto);
        let away = named.filter_map(|(outlet, from)| Some((self.era.name_of(outlet)?.to_owned(), from)));
        Ahead {
            members: self.era.fingerprint(),
            upto,
            away: away.collect(),
        }
    }

    /// The broker acknowledged what was asked for on behalf of this assignment. Returns whether the partition begins by
    /// that: its records are to be asked for.
    pub fn committed(&mut self, partition: i32, epoch: u32, point: CommitPoint) -> bool {
        let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.epoch == epoch) else {
            return false;
        };
        let begins = state.phase == Phase::Announcing && point.ring >= self.era.epoch;
        if begins {
            state.phase = Phase::Active;
        }
        state.committed = Some(point);
        begins
    }
}
