//! What may be committed: the settled prefix, and what is settled behind it.

use std::collections::BTreeMap;

use super::backlog::owner;
use super::{Dispatcher, Partition, Phase};
use crate::delivery::DEAD_LETTER;
use crate::delivery::commit::{Ahead, AwayLane, CommitPoint, MAX_LANES};
use crate::delivery::deliverable::Deliverable;
use crate::delivery::offsets::Whereabouts;
use crate::delivery::partition::PartitionId;

/// The first of them is at this offset, at the latest.
fn note<K: Ord>(firsts: &mut BTreeMap<K, i64>, of: K, from: i64) {
    let first = firsts.entry(of).or_insert(from);
    *first = from.min(*first);
}

impl<T: Deliverable> Dispatcher<T> {
    /// What may be committed for a partition, where the broker does not have it yet.
    #[must_use]
    pub fn to_commit(&self, partition: PartitionId) -> Option<CommitPoint> {
        let point = self.commit_point(partition)?;
        (self.partitions.get(&partition)?.committed.as_ref() != Some(&point)).then_some(point)
    }

    /// What may be committed for a partition. None that stands still for a decision or a newer ring has anything.
    #[must_use]
    pub fn commit_point(&self, partition: PartitionId) -> Option<CommitPoint> {
        let state = self.partitions.get(&partition)?;
        if matches!(state.phase, Phase::Stopped | Phase::Behind(_) | Phase::Contested) {
            return None;
        }
        // It is given up before we used the newer ring: the next owner still needs that, and what was told under it.
        if state.ring > self.ring_epoch.epoch {
            return None;
        }
        let (ring, members) = (self.announced.epoch, self.announced.fingerprint);
        let position = state.position();
        Some(CommitPoint {
            position,
            ring,
            members,
            using: state
                .owes
                .or(self.announced.is_awaited.then_some(self.ring_epoch.epoch)),
            // Whoever has that ring cannot make use of what is told under another one.
            ahead: Some(self.ahead(state)).filter(|ahead| ahead.members == members && ahead.upto > position),
        })
    }

    /// Everything is told by who owns it under the ring in use, wherever it is now.
    fn ahead(&self, state: &Partition) -> Ahead {
        let mut upto = state.offsets.next();
        let (mut away, mut lanes) = (BTreeMap::<u32, i64>::new(), BTreeMap::<u64, i64>::new());
        for (path, parked) in state.backlog.classes() {
            note(&mut away, owner(path), parked.from);
        }
        for (lane, parked) in state.backlog.lanes() {
            note(&mut lanes, lane, parked.from);
        }
        // What is out at an output that answers is settled in a moment, and ends what is told. So a successor need not read it again.
        for (offset, place) in state.offsets.in_order() {
            if place.output == Some(DEAD_LETTER) {
                // It may belong to no asset, so to no cluster.
                upto = upto.min(offset);
                break;
            }
            if self.held.contains(place.lane) || lanes.contains_key(&place.lane) {
                note(&mut lanes, place.lane, offset);
                continue;
            }
            let output = self.ring_epoch.output_of_lane(place.lane);
            // A partition that is given up waits for nothing more than it does already.
            let given_up = state.phase == Phase::Draining;
            let is_away = given_up || away.contains_key(&output) || self.is_awaited_in_vain(place);
            if !is_away && offset >= state.offsets.horizon() {
                upto = upto.min(offset);
                break;
            }
            note(&mut away, output, offset);
        }
        let cluster = |lane: u64| self.ring_epoch.name_of(self.ring_epoch.output_of_lane(lane));
        let mut lanes: Vec<(u64, i64)> = lanes.into_iter().filter(|(_, from)| *from <= upto).collect();
        lanes.sort_by_key(|(lane, from)| (*from, *lane));
        for (lane, from) in lanes.split_off(lanes.len().min(MAX_LANES)) {
            note(&mut away, self.ring_epoch.output_of_lane(lane), from);
        }
        let lanes = lanes.into_iter().filter_map(|(lane, from)| {
            Some(AwayLane {
                lane,
                from,
                cluster: cluster(lane)?.to_owned(),
            })
        });
        let named = away.into_iter().filter(|(_, from)| *from < upto);
        let away = named.filter_map(|(output, from)| Some((self.ring_epoch.name_of(output)?.to_owned(), from)));
        Ahead {
            members: self.ring_epoch.fingerprint(),
            upto,
            away: away.collect(),
            lanes: lanes.collect(),
        }
    }

    /// Whether an unsettled record is where nothing moves.
    fn is_awaited_in_vain(&self, place: Whereabouts) -> bool {
        let output = place.output.or_else(|| self.hand_over.awaits(place.lane));
        output.is_some_and(|output| self.caps.stands_still(output as usize))
    }

    /// The broker acknowledged what was asked for on behalf of this assignment. Returns whether the partition begins by
    /// that: its records are to be asked for.
    pub fn committed(&mut self, partition: PartitionId, epoch: u32, point: CommitPoint) -> bool {
        let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.epoch == epoch) else {
            return false;
        };
        let begins = state.phase == Phase::Announcing && point.ring >= self.ring_epoch.epoch;
        if begins {
            state.begin(self.ring_epoch.epoch);
        }
        state.committed = Some(point);
        self.count_grace();
        begins
    }
}
