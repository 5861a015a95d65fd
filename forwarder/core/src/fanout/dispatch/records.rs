//! The way of a record: received, handed out, settled or given back.

use super::{Admission, Dispatcher, Partition};
use crate::delivery::DEAD_LETTER;
use crate::delivery::deliverable::Deliverable;
use crate::delivery::offsets::{Tag, Whereabouts};
use crate::delivery::partition::PartitionId;
use crate::fanout::ring::Place;

impl<T: Deliverable> Dispatcher<T> {
    /// A record came whose asset is known. `place` is the key's in the ring in use.
    pub fn receive(&mut self, partition: PartitionId, offset: i64, key: &[u8], place: Place) -> Admission {
        let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.is_taken()) else {
            return Admission::Unwanted;
        };
        let output = self.ring_epoch.output(place.owner);
        let moves = self.hand_over.contains(place.lane);
        let full = self.caps.overflows(output as usize) || (moves && !self.caps.may_hold());
        let held = self.held.contains(place.lane);
        if full || held || state.backlog.contains(key, place.lane, output) {
            if !state.offsets.pass(offset) {
                return Admission::Unwanted;
            }
            if held {
                state.backlog.park_lane(place.lane, offset, self.now);
            } else {
                state.backlog.park(key, place.lane, output, offset, self.now);
            }
            return Admission::Parked;
        }
        let whereabouts = Whereabouts {
            lane: place.lane,
            output: (!moves).then_some(output),
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
            output: Some(DEAD_LETTER),
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
                let output = self.ring_epoch.output(owner);
                self.caps.enter(output as usize, weight);
                self.batches.entry(output).or_default().push(item);
            }
        }
    }

    /// A record that was taken goes to the dead letter instead of its cluster; it weighs so much.
    pub fn bury(&mut self, tag: Tag, weight: usize) {
        self.caps.enter(DEAD_LETTER as usize, weight);
        let Some(state) = self.current(tag) else { return };
        state.offsets.relocate(tag.sequence, tag.offset, Some(DEAD_LETTER));
    }

    /// A record has left an output, in whatever way; what became of it is said by one more call.
    pub fn leave(&mut self, output: u32, weight: usize) {
        self.caps.leave(output as usize, weight);
    }

    /// A record is settled: confirmed, dead-lettered, or invalid by declared policy.
    pub fn settle(&mut self, tag: Tag) {
        let Some(state) = self.current(tag) else { return };
        if let Some(Whereabouts {
            lane,
            output: Some(output),
        }) = state.offsets.settle(tag.sequence, tag.offset)
        {
            self.left(lane, output);
        }
    }

    /// A record that `output` had turned out to be undeliverable: it goes to the dead letter and weighs so much there.
    pub fn bury_from(&mut self, output: u32, tag: Tag, lane: u64, weight: usize) {
        self.bury(tag, weight);
        if self.current(tag).is_some() {
            self.left(lane, output);
        }
    }

    /// An output gave a record back, as [`Dispatcher::overdue`] had it asked to.
    pub fn take_back(&mut self, output: u32, item: T) {
        let (tag, lane, weight) = (item.tag(), item.lane(), item.weight());
        if self.held.is_recalled(lane) && !self.hand_over.contains(lane) {
            self.give_back(output, tag, lane);
            return;
        }
        let Some(state) = self.current(tag) else { return };
        state.offsets.relocate(tag.sequence, tag.offset, None);
        match self.hand_over.take_back(item) {
            Ok(()) => {
                self.caps.hold(weight);
                self.left(lane, output);
            }
            // Nobody waits for it: it goes where it belongs.
            Err(item) => {
                self.left_held(lane, output);
                self.send(item);
            }
        }
    }

    pub(super) fn left(&mut self, lane: u64, output: u32) {
        self.left_held(lane, output);
        if self.hand_over.left(lane, output) {
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
        let output = self.ring_epoch.output_of_lane(item.lane());
        let tag = item.tag();
        if let Some(state) = self.current(tag) {
            state.offsets.relocate(tag.sequence, tag.offset, Some(output));
        }
        self.caps.enter(output as usize, item.weight());
        self.batches.entry(output).or_default().push(item);
    }

    /// What is to be handed to each output, in order.
    pub fn take_batches(&mut self, mut send: impl FnMut(u32, Vec<T>)) {
        for (output, batch) in &mut self.batches {
            if !batch.is_empty() {
                send(*output, std::mem::take(batch));
            }
        }
    }
}
