//! The way of a record: received, handed out, settled or given back.

use super::{Admission, Dispatcher, Freight, Partition};
use crate::delivery::DEAD_LETTER;
use crate::delivery::offsets::{Tag, Whereabouts};
use crate::delivery::partition::PartitionId;
use crate::fanout::ring::Place;

impl<T: Freight> Dispatcher<T> {
    /// A record came whose asset is known. `place` is the key's in the ring in use.
    pub fn receive(&mut self, partition: PartitionId, offset: i64, key: &[u8], place: Place) -> Admission {
        let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.is_taken()) else {
            return Admission::Unwanted;
        };
        let outlet = self.era.outlet(place.owner);
        let moves = self.hand_over.contains(place.lane);
        let full = self.caps.overflows(outlet as usize) || (moves && !self.caps.may_hold());
        let held = self.held.contains(place.lane);
        if full || held || state.backlog.contains(key, place.lane, outlet) {
            if !state.offsets.pass(offset) {
                return Admission::Unwanted;
            }
            if held {
                state.backlog.park_lane(place.lane, offset, self.now);
            } else {
                state.backlog.park(key, place.lane, outlet, offset, self.now);
            }
            return Admission::Parked;
        }
        let whereabouts = Whereabouts {
            lane: place.lane,
            outlet: (!moves).then_some(outlet),
        };
        Self::take(partition, state, offset, whereabouts)
    }

    /// A record came that belongs to no asset.
    pub fn receive_stray(&mut self, partition: PartitionId, offset: i64) -> Admission {
        let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.is_taken()) else {
            return Admission::Unwanted;
        };
        let whereabouts = Whereabouts {
            lane: 0,
            outlet: Some(DEAD_LETTER),
        };
        Self::take(partition, state, offset, whereabouts)
    }

    fn take(partition: PartitionId, state: &mut Partition, offset: i64, whereabouts: Whereabouts) -> Admission {
        match state.offsets.receive(offset, whereabouts) {
            Some(sequence) => Admission::Take(Tag {
                partition,
                epoch: state.epoch,
                offset,
                sequence,
            }),
            None => Admission::Unwanted,
        }
    }

    /// All records before `offset` have come: what follows the last one is none (a transaction's marks, say). Counts only
    /// once a record of this assignment has come, for only that proves that `offset` was read on its behalf.
    pub fn reached(&mut self, partition: PartitionId, offset: i64) {
        let state = self.partitions.get_mut(&partition);
        if let Some(state) = state.filter(|state| state.is_taken() && state.offsets.received() > state.start) {
            state.offsets.skip(offset);
        }
    }

    /// The message of a record that was [taken](Admission::Take), for the ring's member `owner`.
    pub fn enter(&mut self, item: T, owner: usize) {
        let weight = item.weight();
        match self.hand_over.hold(item) {
            None => self.caps.hold(weight),
            Some(item) => {
                let outlet = self.era.outlet(owner);
                self.caps.enter(outlet as usize, weight);
                self.batches.entry(outlet).or_default().push(item);
            }
        }
    }

    /// A record that was taken goes to the dead letter instead of its cluster; it weighs so much.
    pub fn bury(&mut self, tag: Tag, weight: usize) {
        self.caps.enter(DEAD_LETTER as usize, weight);
        let Some(state) = self.current(tag) else { return };
        state.offsets.relocate(tag.sequence, tag.offset, Some(DEAD_LETTER));
    }

    /// A record has left an outlet, in whatever way; what became of it is said by one more call.
    pub fn leave(&mut self, outlet: u32, weight: usize) {
        self.caps.leave(outlet as usize, weight);
    }

    /// A record is settled: confirmed, dead-lettered, or invalid by declared policy.
    pub fn settle(&mut self, tag: Tag) {
        let Some(state) = self.current(tag) else { return };
        if let Some(Whereabouts {
            lane,
            outlet: Some(outlet),
        }) = state.offsets.settle(tag.sequence, tag.offset)
        {
            self.left(lane, outlet);
        }
    }

    /// A record that `outlet` had turned out to be undeliverable: it goes to the dead letter and weighs so much there.
    pub fn bury_from(&mut self, outlet: u32, tag: Tag, lane: u64, weight: usize) {
        self.bury(tag, weight);
        if self.current(tag).is_some() {
            self.left(lane, outlet);
        }
    }

    /// An outlet gave a record back, as [`Dispatcher::overdue`] had it asked to.
    pub fn take_back(&mut self, outlet: u32, item: T) {
        let (tag, lane, weight) = (item.tag(), item.lane(), item.weight());
        if self.held.is_recalled(lane) && !self.hand_over.contains(lane) {
            self.give_back(outlet, tag, lane);
            return;
        }
        let Some(state) = self.current(tag) else { return };
        state.offsets.relocate(tag.sequence, tag.offset, None);
        match self.hand_over.take_back(item) {
            Ok(()) => {
                self.caps.hold(weight);
                self.left(lane, outlet);
            }
            // Nobody waits for it: it goes where it belongs.
            Err(item) => {
                self.left_held(lane, outlet);
                self.send(item);
            }
        }
    }

    pub(super) fn left(&mut self, lane: u64, outlet: u32) {
        self.left_held(lane, outlet);
        if self.hand_over.left(lane, outlet) {
            self.release(lane);
        }
    }

    /// Sends on what waited for its asset's earlier records.
    pub(super) fn release(&mut self, lane: u64) {
        for item in self.hand_over.remove(lane) {
            self.caps.release(item.weight());
            self.send(item);
        }
        self.forget_older_rings();
    }

    fn send(&mut self, item: T) {
        let outlet = self.era.outlet_of_lane(item.lane());
        let tag = item.tag();
        if let Some(state) = self.current(tag) {
            state.offsets.relocate(tag.sequence, tag.offset, Some(outlet));
        }
        self.caps.enter(outlet as usize, item.weight());
        self.batches.entry(outlet).or_default().push(item);
    }

    /// What is to be handed to each outlet, in order.
    pub fn take_batches(&mut self, mut send: impl FnMut(u32, Vec<T>)) {
        for (outlet, batch) in &mut self.batches {
            if !batch.is_empty() {
                send(*outlet, std::mem::take(batch));
            }
        }
    }
}
