//! What servers say of the records that are out: confirmed, refused, or nothing in time.

use super::slots::State;
use super::{Confirmation, Outbox, Outcome, Refusal, Ticket};
use crate::delivery::deliverable::{Deliverable, subject_hash};

impl<T: Deliverable> Outbox<T> {
    // With fences.

    /// A fence was sent behind all that was written. `false`: there is nothing for it to cover.
    pub fn fence(&mut self) -> bool {
        self.written.fence()
    }

    /// The server denied a record to `subject` ahead of the oldest fence. All that are out to it count as denied, but each stands for one
    /// such word of the server only. `false`: no record is left that it could mean, so it means one that was sent as something else.
    pub fn denied(&mut self, subject: &[u8]) -> bool {
        let sent_as = subject_hash(subject);
        let mut found = false;
        for (index, _) in self.written.behind_oldest_fence() {
            let slot = &mut self.lanes.slots[index];
            if slot.sent_as != sent_as {
                continue;
            }
            if let State::Written { write } = slot.state {
                slot.state = State::Denied { write };
            }
            if !found && !slot.accused {
                slot.accused = true;
                found = true;
            }
        }
        found
    }

    /// The oldest fence came back: what it covers was accepted, except what was [denied](Outbox::denied) before.
    pub fn fence_passed(&mut self, now: u64, outcome: &mut Outcome<T>) {
        let Some(covered) = self.written.take_fence() else {
            return;
        };
        for _ in 0..covered {
            let Some(index) = self.written.take_first() else {
                break;
            };
            match self.lanes.slots[index].state {
                State::Denied { .. } => self.refuse(index, Refusal::Denied, now, outcome),
                State::Abandoned { .. } => self.discard(index, outcome),
                _ => self.confirm(index, outcome),
            }
        }
    }

    // With acks.

    /// The ack of a record came, of whichever attempt: it is stored. A ticket that names nothing changes nothing.
    pub fn acked(&mut self, ticket: Ticket, outcome: &mut Outcome<T>) {
        let Some(index) = self.lanes.slots.live(ticket) else {
            return;
        };
        match self.lanes.slots[index].state {
            State::Written { .. } => {
                self.written.answered();
                self.confirm(index, outcome);
            }
            State::Abandoned { .. } => {
                self.written.answered();
                self.discard(index, outcome);
            }
            // An ack that came after its timeout: the head need not be sent again.
            State::Paused => self.confirm(index, outcome),
            State::Ready => {
                self.lanes.withdraw(index);
                self.confirm(index, outcome);
            }
            State::Free | State::Waiting | State::Denied { .. } => {}
        }
    }

    /// The ack of a record is overdue. The server has refused nothing, so this never leads to giving up.
    pub fn expired(&mut self, ticket: Ticket, now: u64, outcome: &mut Outcome<T>) {
        self.refused(ticket, Refusal::Transient, now, outcome);
    }

    /// The server refused a record: see [`Refusal`].
    pub fn refused(&mut self, ticket: Ticket, refusal: Refusal, now: u64, outcome: &mut Outcome<T>) {
        let Some(index) = self.lanes.slots.live(ticket) else {
            return;
        };
        match self.lanes.slots[index].state {
            State::Written { .. } => {
                self.written.answered();
                self.refuse(index, refusal, now, outcome);
            }
            State::Abandoned { .. } => {
                self.written.answered();
                self.discard(index, outcome);
            }
            _ => {}
        }
    }

    /// Records whose ack is overdue: sent before `now - timeout`. Each is to be handed to [`Outbox::expired`].
    pub fn overdue(&mut self, now: u64, timeout: u64, tickets: &mut Vec<Ticket>) {
        let slots = &self.lanes.slots;
        self.written.forget_stale(slots);
        for (index, write) in self.written.all() {
            let slot = &slots[index];
            match slot.state {
                State::Written { write: live } if live == write => {
                    if slot.sent_at.saturating_add(timeout) > now {
                        break;
                    }
                    tickets.push(slot.ticket(index));
                }
                State::Abandoned { write: live } if live == write => tickets.push(slot.ticket(index)),
                _ => {}
            }
        }
    }

    /// With acks: the records that are out to `subject`, which the server denied. Each is to be handed to
    /// [`Outbox::refused`]. Returns whether there is any, also of those that were given back while they were out.
    pub fn out_to(&self, subject: &[u8], tickets: &mut Vec<Ticket>) -> bool {
        let sent_as = subject_hash(subject);
        let mut found = false;
        for (index, write) in self.written.all() {
            let slot = &self.lanes.slots[index];
            if slot.sent_as != sent_as {
                continue;
            }
            found |= slot.state == (State::Abandoned { write });
            if slot.state == (State::Written { write }) {
                found = true;
                tickets.push(slot.ticket(index));
            }
        }
        found
    }

    /// Whether a record is out, and neither abandoned nor recalled: if it fails, it is sent again.
    #[must_use]
    pub fn is_awaited(&self, ticket: Ticket) -> bool {
        self.awaited(ticket).is_some()
    }

    pub(super) fn awaited(&self, ticket: Ticket) -> Option<u32> {
        let live = self.lanes.slots.live(ticket);
        live.filter(|index| matches!(self.lanes.slots[*index].state, State::Written { .. }))
    }

    // What becomes of it.

    fn confirm(&mut self, index: u32, outcome: &mut Outcome<T>) {
        if self.written.confirmation() == Confirmation::Fence && !self.lanes.slots[index].proven {
            self.lanes.prove(index);
        }
        if !self.suspected.is_empty() {
            self.suspected.remove(&self.lanes.slots.lane(index));
        }
        self.lanes.release(index);
        let sent_at = self.lanes.slots[index].sent_at;
        let item = self.lanes.slots.vacate(index);
        outcome.confirmed.extend(item.map(|item| (item, sent_at)));
    }

    pub(super) fn refuse(&mut self, index: u32, refusal: Refusal, now: u64, outcome: &mut Outcome<T>) {
        if self.written.confirmation() == Confirmation::Fence {
            self.overtaken += u64::from(self.lanes.disprove(index));
        }
        let slot = &mut self.lanes.slots[index];
        slot.proven = false;
        match refusal {
            Refusal::Impossible => {
                self.lanes.release(index);
                outcome.impossible.extend(self.lanes.slots.vacate(index));
                return;
            }
            Refusal::Denied => slot.refusals = slot.refusals.saturating_add(1),
            Refusal::Transient | Refusal::Unattributed => slot.setbacks = slot.setbacks.saturating_add(1),
        }
        let refusals = slot.refusals;
        if refusal == Refusal::Denied && self.backoff.attempts.is_some_and(|attempts| refusals >= attempts) {
            self.lanes.release(index);
            outcome.given_up.extend(self.lanes.slots.vacate(index));
            return;
        }
        let pauses = refusals.max(slot.setbacks);
        let lane = self.lanes.slots.lane(index);
        let pause = self.backoff.pause(pauses, lane ^ self.written.last());
        self.lanes.hold_back(index, now + pause);
        if refusal != Refusal::Transient {
            outcome.denied.push(lane);
        }
    }

    /// A record leaves that nobody waits for.
    pub(super) fn discard(&mut self, index: u32, outcome: &mut Outcome<T>) {
        self.lanes.release(index);
        outcome.dropped.extend(self.lanes.slots.vacate(index));
    }
}
