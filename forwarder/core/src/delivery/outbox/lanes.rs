//! Which record may be sent next: the order within each lane.
//!
//! A lane that is held has a *head*. The records behind it wait until the head is confirmed. A lane that is not held flows freely.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};

use super::slots::{Slot, Slots, State};
use super::{Confirmation, Spread};
use crate::delivery::deliverable::Deliverable;

/// More subjects than this and the memory of which were accepted starts anew: correct, only slower for a moment.
const MAX_PROVEN: usize = 1 << 18;

/// The records of an outbox, each in its lane.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    confirmation: Confirmation,
    pub(super) slots: Slots<T>,
    /// May be sent now, in this order.
    ready: VecDeque<u32>,
    /// Lanes with a head. A lane that is not in here flows freely.
    held: HashMap<u64, Hold, Spread>,
    /// When a held lane's head is tried again: time, lane.
    due: BinaryHeap<Reverse<(u64, u64)>>,
    /// Subjects (hashed) that this connection was seen to accept.
    proven: HashSet<u64, Spread>,
}

#[derive(Debug)]
struct Hold {
    head: u32,
    /// Until when the head pauses; `None` while it is ready or written.
    paused_until: Option<u64>,
    rest: VecDeque<u32>,
    /// How many of `rest`'s first were out before and came back: they go before all others.
    returned: usize,
}

impl Hold {
    fn new(head: u32) -> Self {
        Self {
            head,
            paused_until: None,
            rest: VecDeque::new(),
            returned: 0,
        }
    }

    /// Puts a record that was out before all that was not.
    fn put_back(&mut self, index: u32) {
        self.rest.insert(self.returned, index);
        self.returned += 1;
    }
}

impl<T: Deliverable> Lanes<T> {
    pub(super) fn new(confirmation: Confirmation) -> Self {
        Self {
            confirmation,
            slots: Slots::new(),
            ready: VecDeque::new(),
            held: HashMap::default(),
            due: BinaryHeap::new(),
            proven: HashSet::default(),
        }
    }

    /// The next record that may be sent.
    pub(super) fn next(&mut self) -> Option<u32> {
        self.ready.pop_front()
    }

    /// The record that [`Lanes::next`] gives.
    pub(super) fn peek(&self) -> Option<u32> {
        self.ready.front().copied()
    }

    /// Puts a record behind its lane.
    #[inline]
    pub(super) fn place(&mut self, index: u32) {
        let lane = self.slots.lane(index);
        if !self.held.is_empty()
            && let Some(hold) = self.held.get_mut(&lane)
        {
            hold.rest.push_back(index);
            self.slots[index].state = State::Waiting;
            return;
        }
        self.send(index, lane);
    }

    /// Puts a record that was out before all that was not.
    fn place_returned(&mut self, index: u32) {
        let lane = self.slots.lane(index);
        if let Some(hold) = self.held.get_mut(&lane) {
            hold.put_back(index);
            self.slots[index].state = State::Waiting;
            return;
        }
        self.send(index, lane);
    }

    /// Makes a record of a free lane ready; the lane is held where the record must be confirmed before the next one.
    #[inline]
    fn send(&mut self, index: u32, lane: u64) {
        if self.holds(index) {
            self.held.insert(lane, Hold::new(index));
        }
        self.make_ready(index);
    }

    fn make_ready(&mut self, index: u32) {
        self.slots[index].state = State::Ready;
        self.ready.push_back(index);
    }

    /// Whether a record must be confirmed before the next one of its lane is sent.
    fn holds(&mut self, index: u32) -> bool {
        if self.confirmation == Confirmation::Ack {
            return true;
        }
        let proven = self.proven.contains(&self.slots.subject_hash(index));
        self.slots[index].proven = proven;
        !proven
    }

    /// A record leaves: where it is the head of its lane, the next ones follow.
    pub(super) fn release(&mut self, index: u32) {
        if self.held.is_empty() {
            return;
        }
        let lane = self.slots.lane(index);
        loop {
            let Entry::Occupied(mut held) = self.held.entry(lane) else {
                return;
            };
            let hold = held.get_mut();
            if hold.head != index {
                return;
            }
            let Some(next) = hold.rest.pop_front() else {
                held.remove();
                return;
            };
            hold.returned = hold.returned.saturating_sub(1);
            hold.paused_until = None;
            if self.holds(next) {
                if let Some(hold) = self.held.get_mut(&lane) {
                    hold.head = next;
                }
                self.make_ready(next);
                return;
            }
            // Accepted before on this connection: it goes, and the one behind it need not wait for it.
            self.make_ready(next);
        }
    }

    /// A record was sent in vain: its lane pauses, and it is the first to be sent then.
    pub(super) fn hold_back(&mut self, index: u32, until: u64) {
        let lane = self.slots.lane(index);
        match self.held.entry(lane) {
            Entry::Occupied(mut held) if held.get().head != index => {
                held.get_mut().put_back(index);
                self.slots[index].state = State::Waiting;
                return;
            }
            Entry::Occupied(mut held) => held.get_mut().paused_until = Some(until),
            Entry::Vacant(free) => {
                // Accepted before, denied now. What followed it and was not sent yet waits behind it from here on.
                let Self { slots, ready, .. } = self;
                let mut rest = VecDeque::new();
                ready.retain(|follower| {
                    let slot = &mut slots[*follower];
                    let follows = slot.item.as_ref().is_some_and(|item| item.lane() == lane);
                    if follows {
                        slot.state = State::Waiting;
                        rest.push_back(*follower);
                    }
                    !follows
                });
                free.insert(Hold {
                    head: index,
                    paused_until: Some(until),
                    rest,
                    returned: 0,
                });
            }
        }
        self.slots[index].state = State::Paused;
        self.due.push(Reverse((until, lane)));
    }

    /// A record is not to be sent, although it may be.
    pub(super) fn withdraw(&mut self, index: u32) {
        self.ready.retain(|ready| *ready != index);
    }

    /// Makes lanes ready whose pause is over.
    pub(super) fn wake(&mut self, now: u64) {
        while let Some(Reverse((time, lane))) = self.due.peek().copied() {
            if time > now {
                break;
            }
            self.due.pop();
            if let Some(hold) = self.held.get_mut(&lane)
                && hold.paused_until == Some(time)
            {
                hold.paused_until = None;
                let head = hold.head;
                self.make_ready(head);
            }
        }
    }

    /// When [`Lanes::wake`] has something to do next.
    pub(super) fn next_wake(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((time, _))| *time)
    }

    /// How many lanes pause.
    pub(super) fn paused(&self) -> usize {
        self.held.values().filter(|hold| hold.paused_until.is_some()).count()
    }

    /// The head of a lane, if it is held.
    pub(super) fn head(&self, lane: u64) -> Option<u32> {
        self.held.get(&lane).map(|hold| hold.head)
    }

    /// Takes out what waits behind the head of a lane, with how many of the first were sent before. `None`: the lane has no head.
    pub(super) fn take_rest(&mut self, lane: u64) -> Option<(VecDeque<u32>, usize)> {
        let hold = self.held.get_mut(&lane)?;
        Some((std::mem::take(&mut hold.rest), std::mem::take(&mut hold.returned)))
    }

    /// Takes out all that may be sent, in order.
    pub(super) fn take_ready(&mut self) -> VecDeque<u32> {
        std::mem::take(&mut self.ready)
    }

    /// The connection is gone, and these are to be sent again, in this order: before all else of their lanes.
    pub(super) fn send_again(&mut self, again: Vec<u32>) {
        // Lanes whose head was out are built anew, in the order of the writes; what waited goes behind.
        let mut tails = Vec::new();
        for index in &again {
            let lane = self.slots.lane(*index);
            if let Entry::Occupied(held) = self.held.entry(lane)
                && held.get().paused_until.is_none()
            {
                tails.push((lane, held.remove().rest));
            }
        }
        for index in again {
            self.place_returned(index);
        }
        for (lane, tail) in tails {
            for index in tail {
                debug_assert_eq!(self.slots.lane(index), lane);
                self.place(index);
            }
        }
    }

    /// Takes out the records that `ended` chooses and that are not out: first those behind a head, then the others. A lane goes on
    /// only when the others are [released](Lanes::release).
    pub(super) fn take_out(&mut self, ended: impl Fn(&Slot<T>) -> bool) -> (Vec<u32>, Vec<u32>) {
        let Self { slots, ready, held, .. } = self;
        let mut waiting = Vec::new();
        let mut heads = Vec::new();
        for hold in held.values_mut() {
            let mut at = 0;
            let returned = hold.returned;
            hold.rest.retain(|index| {
                let drop = ended(&slots[*index]);
                if drop {
                    waiting.push(*index);
                    hold.returned -= usize::from(at < returned);
                }
                at += 1;
                !drop
            });
            if hold.paused_until.is_some() && ended(&slots[hold.head]) {
                heads.push(hold.head);
            }
        }
        ready.retain(|index| {
            let drop = ended(&slots[*index]);
            if drop {
                heads.push(*index);
            }
            !drop
        });
        (waiting, heads)
    }

    /// Forgets the order of these lanes: none of their records is to be sent any more.
    pub(super) fn forget(&mut self, lanes: &HashSet<u64, Spread>) {
        let Self { slots, ready, held, .. } = self;
        held.retain(|lane, _| !lanes.contains(lane));
        ready.retain(|index| {
            let item = slots[*index].item.as_ref();
            !item.is_some_and(|item| lanes.contains(&item.lane()))
        });
    }

    // Subjects.

    /// The connection has accepted a record's subject: the next ones to it hold nothing up.
    #[inline]
    pub(super) fn prove(&mut self, index: u32) {
        let subject = self.slots.subject_hash(index);
        if self.proven.len() >= MAX_PROVEN {
            self.proven.clear();
        }
        self.proven.insert(subject);
    }

    /// The connection does not accept a record's subject. Returns whether it did before.
    #[inline]
    pub(super) fn disprove(&mut self, index: u32) -> bool {
        self.proven.remove(&self.slots.subject_hash(index))
    }

    /// Another connection may accept other subjects.
    pub(super) fn forget_proven(&mut self) {
        self.proven.clear();
    }
}
