//! What ends before it is confirmed: a connection, an assignment, the ownership of a lane.

use hashbrown::HashSet;

use super::slots::{Slot, State};
use super::{Outbox, Outcome, Spread};
use crate::delivery::deliverable::Deliverable;
use crate::delivery::partition::PartitionId;

impl<T: Deliverable> Outbox<T> {
    /// The connection is gone: all that it left unconfirmed goes back to the front, in order, before anything newer of
    /// the same lane. Returns how many records that may come to be delivered twice.
    pub fn connection_lost(&mut self, outcome: &mut Outcome<T>) -> usize {
        self.lanes.forget_proven();
        let written = self.written.lose();
        let mut again: Vec<u32> = Vec::with_capacity(written.len());
        for (index, write) in written {
            match self.lanes.slots[index].state {
                State::Written { write: live } if live == write => again.push(index),
                // Refused, but the connection ended before its fence: the next connection decides anew.
                State::Denied { write: live } if live == write => again.push(index),
                State::Abandoned { write: live } if live == write => self.discard(index, outcome),
                _ => {}
            }
        }
        let repeats = again.len();
        again.extend(self.lanes.take_ready());
        if !self.closed.is_empty() {
            self.return_followers(&mut again, repeats, outcome);
        }
        self.lanes.send_again(again);
        repeats
    }

    /// Ends all work on behalf of the given assignments: what was not sent is dropped at once, what was sent is never
    /// sent again. Returns how many were sent and are unconfirmed: bytes of theirs may still wait in a buffer.
    pub fn abandon(&mut self, assignments: &[(PartitionId, u32)], outcome: &mut Outcome<T>) -> usize {
        let ended = |slot: &Slot<T>| {
            let item = slot.item.as_ref();
            item.is_some_and(|item| assignments.contains(&item.assignment()))
        };
        let (waiting, heads) = self.lanes.take_out(ended);
        let mut sent = 0;
        for (_, slot) in self.lanes.slots.all_mut() {
            if let State::Written { write } | State::Denied { write } = slot.state
                && ended(slot)
            {
                slot.state = State::Abandoned { write };
                sent += 1;
            }
        }
        for index in waiting {
            outcome.dropped.extend(self.lanes.slots.vacate(index));
        }
        for index in heads {
            self.discard(index, outcome);
        }
        sent
    }

    /// Gives back all records of the given lanes, whether they were sent or not: somebody else is to deliver them.
    pub fn recall(&mut self, lanes: &[u64], outcome: &mut Outcome<T>) {
        let lanes: HashSet<u64, Spread> = lanes.iter().copied().collect();
        self.lanes.forget(&lanes);
        let mut unsent = Vec::new();
        for (index, slot) in self.lanes.slots.all_mut() {
            if !slot.item.as_ref().is_some_and(|item| lanes.contains(&item.lane())) {
                continue;
            }
            match slot.state {
                State::Written { write } | State::Denied { write } => {
                    // It keeps its place among what was written, so that fences cover what they did, but is nobody's.
                    slot.state = State::Abandoned { write };
                    outcome.recalled.extend(slot.item.take().map(|item| (item, true)));
                }
                State::Ready | State::Waiting | State::Paused => unsent.push(index),
                // Abandoned before: its assignment is over.
                State::Abandoned { .. } | State::Free => {}
            }
        }
        for index in unsent {
            let item = self.lanes.slots.vacate(index);
            outcome.recalled.extend(item.map(|item| (item, false)));
        }
    }
}
