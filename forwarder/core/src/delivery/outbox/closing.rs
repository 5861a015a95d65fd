//! Lanes that are closed, and records that are sent alone.
//!
//! **Closed.** The head of a lane is denied, and may be for days. Whoever owns the records closes the lane: all that waits behind
//! the head is given back, and so is what is pushed later, until the lane is opened again. So a denied record costs the memory of
//! one record, and nobody else waits for its lane.
//!
//! **Alone.** The server refused a record, and its words do not say which. Every record that it may mean becomes a *suspect*. Each
//! is written alone: the server's next refusal can mean no other record.

use super::slots::State;
use super::{Confirmation, Outbox, Outcome, Refusal, Ticket};
use crate::delivery::deliverable::Deliverable;

/// So many lanes are remembered as suspected: the others are found anew.
const MAX_SUSPECTED: usize = 1 << 12;

/// More lanes than this are not closed: the others wait in the outbox with all their records, against its owner's caps.
const MAX_CLOSED: usize = 1 << 14;

impl<T: Deliverable> Outbox<T> {
    /// Closes a lane whose head is held: what is behind it is given back in [`Outcome::returned`]. Returns the head; `None`: the lane
    /// has none, or so many are closed that this one is not.
    pub fn close(&mut self, lane: u64, outcome: &mut Outcome<T>) -> Option<&T> {
        if self.closed.len() >= MAX_CLOSED && !self.closed.contains(&lane) {
            return None;
        }
        let head = self.lanes.head(lane)?;
        let (rest, sent) = self.lanes.take_rest(lane)?;
        self.closed.insert(lane);
        for (at, index) in rest.into_iter().enumerate() {
            let item = self.lanes.slots.vacate(index);
            outcome.returned.extend(item.map(|item| (item, at < sent)));
        }
        self.lanes.slots[head].item.as_ref()
    }

    /// Takes records of a lane again that was closed.
    pub fn open(&mut self, lane: u64) {
        self.closed.remove(&lane);
    }

    /// How many lanes are closed.
    #[must_use]
    pub fn closed_lanes(&self) -> usize {
        self.closed.len()
    }

    /// The connection is gone. What is in `again` of a closed lane and is not its head is given back; the first `written` were sent.
    pub(super) fn return_followers(&mut self, again: &mut Vec<u32>, written: usize, outcome: &mut Outcome<T>) {
        let mut at = 0;
        again.retain(|index| {
            let was_sent = at < written;
            at += 1;
            let lane = self.lanes.slots.lane(*index);
            let is_head = self.lanes.head(lane) == Some(*index);
            if is_head || !self.closed.contains(&lane) {
                return true;
            }
            let item = self.lanes.slots.vacate(*index);
            outcome.returned.extend(item.map(|item| (item, was_sent)));
            false
        });
    }

    /// Whether the record that [`Outbox::next`] gives is to be written alone: behind a fence, and with one of its own.
    #[must_use]
    pub fn next_is_alone(&self) -> bool {
        self.lanes.peek().is_some_and(|index| {
            let slots = &self.lanes.slots;
            let suspected = !self.suspected.is_empty() && self.suspected.contains(&slots.lane(index));
            suspected || slots[index].alone
        })
    }

    /// The server refused a record, and nobody knows which. With fences it is one that the oldest fence covers; with acks any that
    /// is out. Each of them is written alone from now on. Returns how many there are.
    pub fn suspect(&mut self) -> usize {
        let mut suspects = 0;
        let mut mark = |(index, write): (u32, u64)| {
            let slot = &mut self.lanes.slots[index];
            if slot.state == (State::Written { write }) {
                slot.alone = true;
                suspects += 1;
            }
        };
        match self.written.confirmation() {
            Confirmation::Fence => self.written.behind_oldest_fence().for_each(&mut mark),
            Confirmation::Ack => self.written.all().for_each(&mut mark),
        }
        suspects
    }

    /// The server refused the record that was written [alone](Outbox::next_is_alone), whatever words it had for it. One that was given
    /// back meanwhile is nobody's any more, and it can be no other. `false`: it is out no more.
    pub fn blame(&mut self, ticket: Ticket, now: u64, outcome: &mut Outcome<T>) -> bool {
        let slots = &mut self.lanes.slots;
        let Some(index) = slots.live(ticket) else { return false };
        let State::Written { write } = slots[index].state else {
            return matches!(slots[index].state, State::Abandoned { .. });
        };
        self.remember_suspect(index);
        match self.written.confirmation() {
            // Its own fence comes next, and refuses it.
            Confirmation::Fence => self.lanes.slots[index].state = State::Denied { write },
            Confirmation::Ack => self.refused(ticket, Refusal::Denied, now, outcome),
        }
        true
    }

    /// As [`Outbox::blame`], where the connection ends, so that no fence comes: to be followed by [`Outbox::connection_lost`].
    pub fn blame_at_the_end(&mut self, ticket: Ticket, now: u64, outcome: &mut Outcome<T>) -> bool {
        let Some(index) = self.awaited(ticket) else {
            return false;
        };
        self.remember_suspect(index);
        self.refuse(index, Refusal::Unattributed, now, outcome);
        true
    }

    fn remember_suspect(&mut self, index: u32) {
        if self.suspected.len() < MAX_SUSPECTED {
            self.suspected.insert(self.lanes.slots.lane(index));
        }
    }
}
