//! What waits for one NATS cluster, and what may be sent next.
//!
//! The outbox decides, the publisher performs: no socket and no clock in here (time is an argument, in
//! microseconds since any fixed moment).
//!
//! ```text
//!            push                next                 confirmed (fence passed, or ack)
//!   record ───────▶ ready ───────────────▶ written ─────────────────────────────────▶ receipt
//!      │              ▲                      │ │
//!      │ lane held    │ lane released        │ └─ connection lost: back to the front of ready, in order
//!      └───▶ waiting ─┘◀── backoff over ─────┘ refused: the lane is held, its head tried again
//! ```
//!
//! **Order by asset.** A *lane* is one asset's records. A lane that is *held* has one record out (its head) and the
//! others wait behind it; they follow when the head is confirmed.
//! - With acks every lane is held while one of its records is out: if record 5's ack is lost while 6 and 7 are stored,
//!   sending 5, 6, 7 again would leave the stream with 6, 7, 5, because the stream drops 6 and 7 as duplicates.
//! - With fences a connection keeps order by itself, so a lane's records follow each other without waiting. Only a
//!   subject that this connection has not yet been seen to accept is a *probe*: it holds its lane until the fence has
//!   passed, because a server that denies one subject and takes the next would let the next overtake. So a denied
//!   record is never overtaken, unless the server starts to deny a subject that it accepted before on the same
//!   connection; [`Outbox::overtaken`] counts those.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};

mod closing;
#[cfg(test)]
mod tests;

/// A record as the outbox sees it.
pub trait Item {
    /// Its asset's lane: records of one lane are delivered in the order in which they were pushed.
    fn lane(&self) -> u64;
    /// The NATS subject: what a server denies or accepts.
    fn subject(&self) -> &[u8];
    /// [`subject_hash`] of its subject. It is asked for when the bytes of the subject have long left the processor's caches:
    /// an item that was told it before keeps it.
    fn subject_hash(&self) -> u64 {
        subject_hash(self.subject())
    }
    /// Partition and assignment epoch on whose behalf it is sent.
    fn assignment(&self) -> (i32, u32);
}

/// By which the outbox remembers a subject.
#[must_use]
pub fn subject_hash(subject: &[u8]) -> u64 {
    Spread::default().hash_one(subject)
}

/// How a record becomes confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Core NATS: everything before a fence (PING … PONG) on the same connection was read by the server.
    Fence,
    /// JetStream: each record has an ack of its own.
    Ack,
}

/// What a server's refusal of a record means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No configuration of the server takes this record: it is given up at once.
    Impossible,
    /// The server's configuration does not allow it, and a person may mend that. Its lane waits; it counts as an attempt.
    Denied,
    /// The stream or the server takes nothing now. The lane is tried again; it never counts as an attempt.
    Transient,
    /// The server ended the connection over this record, as far as can be told. Its lane waits; it never counts as an attempt.
    Unattributed,
}

/// How often and how soon a refused record is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first pause, in microseconds; it doubles with every refusal.
    pub initial: u64,
    /// The longest pause, in microseconds.
    pub max: u64,
    /// Refusals after which the record is given up; `None`: never.
    pub attempts: Option<u32>,
}

impl Backoff {
    /// The pause after the `refusals`-th refusal: between half of the nominal one and the whole, by `seed`, so that
    /// lanes which failed together do not come back together.
    fn pause(&self, refusals: u32, seed: u64) -> u64 {
        let nominal = self
            .initial
            .saturating_mul(1 << refusals.saturating_sub(1).min(20))
            .min(self.max)
            .max(1);
        let half = nominal / 2;
        half + Spread::default().hash_one(seed) % (nominal - half + 1)
    }
}

/// Names a record in the outbox. An old name never means a new record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    index: u32,
    generation: u32,
}

impl Ticket {
    /// As one number, for the reply subject of a publish.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// Back from [`Ticket::to_u64`]; any number is harmless, it just names nothing.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        // Both halves fit by construction.
        Self {
            index: (number & 0xffff_ffff) as u32,
            generation: (number >> 32) as u32,
        }
    }
}

/// What became of records: each one pushed comes out here once, or by [`Outbox::reject`].
#[derive(Debug)]
pub struct Outcome<T> {
    /// Confirmed by the server, with the time at which the record was last sent.
    pub confirmed: Vec<(T, u64)>,
    /// Refused as often as [`Backoff::attempts`] allows.
    pub given_up: Vec<T>,
    /// Refused as [`Refusal::Impossible`].
    pub impossible: Vec<T>,
    /// Lanes whose head was refused, for longer than now, and stays: candidates for [`Outbox::close`].
    pub denied: Vec<u64>,
    /// Records of a [closed](Outbox::close) lane behind its head, in no particular order, with whether they were sent.
    pub returned: Vec<(T, bool)>,
    /// Left the outbox because their assignment had ended; whether the server has them is nobody's business any more.
    pub dropped: Vec<T>,
    /// [Recalled](Outbox::recall), in no particular order, with whether they were sent: then the server may have them.
    pub recalled: Vec<(T, bool)>,
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Self {
            confirmed: Vec::new(),
            given_up: Vec::new(),
            impossible: Vec::new(),
            denied: Vec::new(),
            returned: Vec::new(),
            dropped: Vec::new(),
            recalled: Vec::new(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Outbox<T> {
    confirmation: Confirmation,
    backoff: Backoff,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// May be sent now, in this order.
    ready: VecDeque<u32>,
    /// Was sent, in this order. With acks an entry may be stale: its number tells.
    written: VecDeque<(u32, u64)>,
    /// How many of `written` each fence that is out covers; the records behind the last fence are in `open`.
    fences: VecDeque<usize>,
    /// Records written since the last fence.
    open: usize,
    /// Lanes with a head. A lane that is not in here flows freely.
    held: HashMap<u64, Hold, Spread>,
    /// Lanes that have at most their head in here: see [`Outbox::close`].
    closed: HashSet<u64, Spread>,
    /// When a held lane's head is tried again: time, lane.
    due: BinaryHeap<Reverse<(u64, u64)>>,
    /// Subjects (hashed) that this connection was seen to accept.
    proven: HashSet<u64, Spread>,
    /// Lanes of which a record was blamed: each of their records is written alone, until one is confirmed.
    suspected: HashSet<u64, Spread>,
    /// Numbers the writes, so that a stale entry of `written` is told from a live one.
    writes: u64,
    /// Records written and not yet confirmed or refused.
    in_flight: usize,
    overtaken: u64,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    /// Refusals that count as attempts; outages do not.
    refusals: u32,
    /// Refusals for now and overdue acks: they only make the pauses longer.
    setbacks: u32,
    /// It is written between two questions that prove nothing of any other record: see [`Outbox::suspect`].
    alone: bool,
    /// [`subject_hash`] of what it was last sent as, for when the record itself has been given back.
    sent_as: u64,
    /// The server has said of one record to its subject that it is denied, and this one stands for that.
    accused: bool,
    state: State,
    /// Its subject was proven when it was let go: confirming it proves nothing new.
    proven: bool,
    /// When it was last sent.
    sent_at: u64,
    item: Option<T>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody's.
    Free,
    /// In `ready`.
    Ready,
    /// Behind the head of a held lane.
    Waiting,
    /// The head of a held lane, until its pause is over.
    Paused,
    /// Sent; the number is that of the write.
    Written { write: u64 },
    /// Sent, and refused by the server before its fence passed.
    Denied { write: u64 },
    /// Sent on behalf of an assignment that ended: never to be sent again.
    Abandoned { write: u64 },
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

/// More subjects than this and the memory of which were accepted starts anew: correct, only slower for a moment.
const MAX_PROVEN: usize = 1 << 18;

/// Without random seeds, so that a simulation replays. Whoever picks keys that collide slows down only his own lanes.
type Spread = FixedState;

impl<T: Item> Outbox<T> {
    /// An empty outbox.
    #[must_use]
    pub fn new(confirmation: Confirmation, backoff: Backoff) -> Self {
        Self {
            confirmation,
            backoff,
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            written: VecDeque::new(),
            fences: VecDeque::new(),
            open: 0,
            held: HashMap::default(),
            closed: HashSet::default(),
            due: BinaryHeap::new(),
            proven: HashSet::default(),
            suspected: HashSet::default(),
            writes: 0,
            in_flight: 0,
            overtaken: 0,
        }
    }

    /// Takes a record in. It goes behind everything of its lane that was pushed before. Given back, where the lane is
    /// [closed](Outbox::close).
    pub fn push(&mut self, item: T) -> Option<T> {
        if !self.closed.is_empty() && self.closed.contains(&item.lane()) {
            return Some(item);
        }
        let index = self.occupy(item);
        self.place(index);
        None
    }

    /// The next record to send, if one may be sent. It counts as written from here on, so the caller sends it, or hands
    /// it to [`Outbox::reject`].
    pub fn next(&mut self, now: u64) -> Option<(Ticket, &T)> {
        let index = self.ready.pop_front()?;
        self.writes += 1;
        let write = self.writes;
        self.written.push_back((index, write));
        self.in_flight += 1;
        if self.confirmation == Confirmation::Fence {
            self.open += 1;
        }
        let slot = &mut self.slots[index as usize];
        slot.state = State::Written { write };
        slot.sent_at = now;
        slot.accused = false;
        slot.sent_as = slot.item.as_ref().map_or(0, Item::subject_hash);
        let ticket = Ticket {
            index,
            generation: slot.generation,
        };
        slot.item.as_ref().map(|item| (ticket, item))
    }

    /// Takes back the record that [`Outbox::next`] gave last, before a byte of it was sent: it can never be sent.
    pub fn reject(&mut self, ticket: Ticket) -> Option<T> {
        let index = self.live(ticket)?;
        let State::Written { write } = self.slots[index as usize].state else {
            return None;
        };
        if self.written.back() != Some(&(index, write)) {
            return None;
        }
        self.written.pop_back();
        self.in_flight -= 1;
        if self.confirmation == Confirmation::Fence {
            self.open -= 1;
        }
        self.release(index);
        self.vacate(index)
    }

    /// A fence was sent behind all that was written. `false`: there is nothing for it to cover.
    pub fn fence(&mut self) -> bool {
        if self.open == 0 {
            return false;
        }
        self.fences.push_back(self.open);
        self.open = 0;
        true
    }

    /// The server denied a record to `subject` ahead of the oldest fence. All that are out to it count as denied, but each stands for one
    /// such word of the server only. `false`: no record is left that it could mean, so it means one that was sent as something else.
    pub fn denied(&mut self, subject: &[u8]) -> bool {
        let covered = self.fences.front().copied().unwrap_or(self.open);
        let sent_as = subject_hash(subject);
        let mut found = false;
        for (index, _) in self.written.iter().take(covered) {
            let slot = &mut self.slots[*index as usize];
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
        let Some(covered) = self.fences.pop_front() else { return };
        for _ in 0..covered {
            let Some((index, _)) = self.written.pop_front() else {
                break;
            };
            self.in_flight -= 1;
            match self.slots[index as usize].state {
                State::Denied { .. } => self.refuse(index, Refusal::Denied, now, outcome),
                State::Abandoned { .. } => self.discard(index, outcome),
                _ => self.confirm(index, outcome),
            }
        }
    }

    /// The ack of a record came, of whichever attempt: it is stored. A ticket that names nothing changes nothing.
    pub fn acked(&mut self, ticket: Ticket, outcome: &mut Outcome<T>) {
        let Some(index) = self.live(ticket) else { return };
        match self.slots[index as usize].state {
            State::Written { .. } => {
                self.in_flight -= 1;
                self.confirm(index, outcome);
            }
            State::Abandoned { .. } => {
                self.in_flight -= 1;
                self.discard(index, outcome);
            }
            // An ack that came after its timeout: the head need not be sent again.
            State::Paused => self.confirm(index, outcome),
            State::Ready => {
                self.ready.retain(|ready| *ready != index);
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
        let Some(index) = self.live(ticket) else { return };
        match self.slots[index as usize].state {
            State::Written { .. } => {
                self.in_flight -= 1;
                self.refuse(index, refusal, now, outcome);
            }
            State::Abandoned { .. } => {
                self.in_flight -= 1;
                self.discard(index, outcome);
            }
            _ => {}
        }
    }

    /// Whether a record is out, and neither abandoned nor recalled: if it fails, it is sent again.
    #[must_use]
    pub fn is_awaited(&self, ticket: Ticket) -> bool {
        self.live(ticket)
            .is_some_and(|index| matches!(self.slots[index as usize].state, State::Written { .. }))
    }

    /// Records whose ack is overdue: sent before `now - timeout`. Each is to be handed to [`Outbox::expired`].
    pub fn overdue(&mut self, now: u64, timeout: u64, tickets: &mut Vec<Ticket>) {
        self.forget_stale();
        for (index, write) in &self.written {
            let slot = &self.slots[*index as usize];
            match slot.state {
                State::Written { write: live } if live == *write => {
                    if slot.sent_at.saturating_add(timeout) > now {
                        break;
                    }
                    tickets.push(Ticket {
                        index: *index,
                        generation: slot.generation,
                    });
                }
                State::Abandoned { write: live } if live == *write => {
                    tickets.push(Ticket {
                        index: *index,
                        generation: slot.generation,
                    });
                }
                _ => {}
            }
        }
    }

    /// With acks: the records that are out to `subject`, which the server denied. Each is to be handed to
    /// [`Outbox::refused`]. Returns whether there is any, also of those that were given back while they were out.
    pub fn out_to(&self, subject: &[u8], tickets: &mut Vec<Ticket>) -> bool {
        let sent_as = subject_hash(subject);
        let mut found = false;
        for (index, write) in &self.written {
            let slot = &self.slots[*index as usize];
            if slot.sent_as != sent_as {
                continue;
            }
            found |= slot.state == (State::Abandoned { write: *write });
            if slot.state == (State::Written { write: *write }) {
                found = true;
                tickets.push(Ticket {
                    index: *index,
                    generation: slot.generation,
                });
            }
        }
        found
    }

    /// The connection is gone: all that it left unconfirmed goes back to the front, in order, before anything newer of
    /// the same lane. Returns how many records that may come to be delivered twice.
    pub fn connection_lost(&mut self, outcome: &mut Outcome<T>) -> usize {
        self.fences.clear();
        self.open = 0;
        self.proven.clear();
        self.in_flight = 0;
        let mut again: Vec<u32> = Vec::with_capacity(self.written.len() + self.ready.len());
        for (index, write) in std::mem::take(&mut self.written) {
            match self.slots[index as usize].state {
                State::Written { write: live } if live == write => again.push(index),
                // Refused, but the connection ended before its fence: the next connection decides anew.
                State::Denied { write: live } if live == write => again.push(index),
                State::Abandoned { write: live } if live == write => self.discard(index, outcome),
                _ => {}
            }
        }
        let repeats = again.len();
        again.extend(std::mem::take(&mut self.ready));
        if !self.closed.is_empty() {
            self.return_followers(&mut again, repeats, outcome);
        }
        // Lanes whose head was out are built anew, in the order of the writes; what waited goes behind.
        let mut tails = Vec::new();
        for index in &again {
            let lane = self.lane(*index);
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
                debug_assert_eq!(self.lane(index), lane);
                self.place(index);
            }
        }
        repeats
    }

    /// Ends all work on behalf of the given assignments: what was not sent is dropped at once, what was sent is never
    /// sent again. Returns how many were sent and are unconfirmed: bytes of theirs may still wait in a buffer.
    pub fn abandon(&mut self, assignments: &[(i32, u32)], outcome: &mut Outcome<T>) -> usize {
        let Self { slots, ready, held, .. } = self;
        let ended = |slot: &Slot<T>| {
            slot.item
                .as_ref()
                .is_some_and(|item| assignments.contains(&item.assignment()))
        };
        let mut waiting = Vec::new();
        let mut heads = Vec::new();
        for hold in held.values_mut() {
            let mut at = 0;
            let returned = hold.returned;
            hold.rest.retain(|index| {
                let drop = ended(&slots[*index as usize]);
                if drop {
                    waiting.push(*index);
                    hold.returned -= usize::from(at < returned);
                }
                at += 1;
                !drop
            });
            if hold.paused_until.is_some() && ended(&slots[hold.head as usize]) {
                heads.push(hold.head);
            }
        }
        ready.retain(|index| {
            let drop = ended(&slots[*index as usize]);
            if drop {
                heads.push(*index);
            }
            !drop
        });
        let mut sent = 0;
        for slot in slots.iter_mut() {
            if let State::Written { write } | State::Denied { write } = slot.state
                && ended(slot)
            {
                slot.state = State::Abandoned { write };
                sent += 1;
            }
        }
        for index in waiting {
            outcome.dropped.extend(self.vacate(index));
        }
        for index in heads {
            self.discard(index, outcome);
        }
        sent
    }

    /// Gives back all records of the given lanes, whether they were sent or not: somebody else is to deliver them.
    pub fn recall(&mut self, lanes: &[u64], outcome: &mut Outcome<T>) {
        let lanes: HashSet<u64, Spread> = lanes.iter().copied().collect();
        let Self { slots, ready, held, .. } = self;
        let recalled = |slot: &Slot<T>| slot.item.as_ref().is_some_and(|item| lanes.contains(&item.lane()));
        held.retain(|lane, _| !lanes.contains(lane));
        ready.retain(|index| !recalled(&slots[*index as usize]));
        let mut unsent = Vec::new();
        for (index, slot) in slots.iter_mut().enumerate() {
            if !recalled(slot) {
                continue;
            }
            match slot.state {
                State::Written { write } | State::Denied { write } => {
                    // It keeps its place among what was written, so that fences cover what they did, but is nobody's.
                    slot.state = State::Abandoned { write };
                    outcome.recalled.extend(slot.item.take().map(|item| (item, true)));
                }
                State::Ready | State::Waiting | State::Paused => unsent.push(index as u32),
                // Abandoned before: its assignment is over.
                State::Abandoned { .. } | State::Free => {}
            }
        }
        for index in unsent {
            outcome.recalled.extend(self.vacate(index).map(|item| (item, false)));
        }
    }

    /// Makes lanes ready whose pause is over.
    pub fn wake(&mut self, now: u64) {
        while let Some(Reverse((time, lane))) = self.due.peek().copied() {
            if time > now {
                break;
            }
            self.due.pop();
            if let Some(hold) = self.held.get_mut(&lane)
                && hold.paused_until == Some(time)
            {
                hold.paused_until = None;
                self.slots[hold.head as usize].state = State::Ready;
                self.ready.push_back(hold.head);
            }
        }
    }

    /// When [`Outbox::wake`] has something to do next.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((time, _))| *time)
    }

    /// Whether [`Outbox::next`] has a record.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Records written and not yet confirmed or refused.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// All records in the outbox.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nothing is in the outbox.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many lanes pause because the server refused their head.
    #[must_use]
    pub fn paused_lanes(&self) -> usize {
        self.held.values().filter(|hold| hold.paused_until.is_some()).count()
    }

    /// How often a subject was refused on a connection that had accepted it before, so that later records of its lane
    /// may have gone ahead of the refused ones.
    #[must_use]
    pub fn overtaken(&self) -> u64 {
        self.overtaken
    }

    fn confirm(&mut self, index: u32, outcome: &mut Outcome<T>) {
        if self.confirmation == Confirmation::Fence && !self.slots[index as usize].proven {
            let subject = self.subject_hash(index);
            if self.proven.len() >= MAX_PROVEN {
                self.proven.clear();
            }
            self.proven.insert(subject);
        }
        if !self.suspected.is_empty() {
            self.suspected.remove(&self.lane(index));
        }
        self.release(index);
        let sent_at = self.slots[index as usize].sent_at;
        outcome.confirmed.extend(self.vacate(index).map(|item| (item, sent_at)));
    }

    fn refuse(&mut self, index: u32, refusal: Refusal, now: u64, outcome: &mut Outcome<T>) {
        if self.confirmation == Confirmation::Fence {
            let subject = self.subject_hash(index);
            self.overtaken += u64::from(self.proven.remove(&subject));
        }
        let slot = &mut self.slots[index as usize];
        slot.proven = false;
        match refusal {
            Refusal::Impossible => {
                self.release(index);
                outcome.impossible.extend(self.vacate(index));
                return;
            }
            Refusal::Denied => slot.refusals = slot.refusals.saturating_add(1),
            Refusal::Transient | Refusal::Unattributed => slot.setbacks = slot.setbacks.saturating_add(1),
        }
        let refusals = slot.refusals;
        if refusal == Refusal::Denied && self.backoff.attempts.is_some_and(|attempts| refusals >= attempts) {
            self.release(index);
            outcome.given_up.extend(self.vacate(index));
            return;
        }
        let lane = self.lane(index);
        self.hold_back(index, now);
        if refusal != Refusal::Transient {
            outcome.denied.push(lane);
        }
    }

    /// A record was sent in vain: its lane pauses, and it is the first to be sent then.
    fn hold_back(&mut self, index: u32, now: u64) {
        let lane = self.lane(index);
        let slot = &self.slots[index as usize];
        let until = now + self.backoff.pause(slot.refusals.max(slot.setbacks), lane ^ self.writes);
        match self.held.entry(lane) {
            Entry::Occupied(mut held) if held.get().head != index => {
                let hold = held.get_mut();
                hold.rest.insert(hold.returned, index);
                hold.returned += 1;
                self.slots[index as usize].state = State::Waiting;
                return;
            }
            Entry::Occupied(mut held) => held.get_mut().paused_until = Some(until),
            Entry::Vacant(free) => {
                // Accepted before, denied now. What followed it and was not sent yet waits behind it from here on.
                let Self { slots, ready, .. } = self;
                let mut rest = VecDeque::new();
                ready.retain(|follower| {
                    let slot = &mut slots[*follower as usize];
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
        self.slots[index as usize].state = State::Paused;
        self.due.push(Reverse((until, lane)));
    }

    /// Puts a record behind its lane.
    fn place(&mut self, index: u32) {
        let lane = self.lane(index);
        if !self.held.is_empty()
            && let Some(hold) = self.held.get_mut(&lane)
        {
            hold.rest.push_back(index);
            self.slots[index as usize].state = State::Waiting;
            return;
        }
        self.send(index, lane);
    }

    /// Puts a record that was out before all that was not.
    fn place_returned(&mut self, index: u32) {
        let lane = self.lane(index);
        if let Some(hold) = self.held.get_mut(&lane) {
            hold.rest.insert(hold.returned, index);
            hold.returned += 1;
            self.slots[index as usize].state = State::Waiting;
            return;
        }
        self.send(index, lane);
    }

    /// Makes a record of a free lane ready; the lane is held where the record must be confirmed before the next one.
    fn send(&mut self, index: u32, lane: u64) {
        if self.holds(index) {
            self.held.insert(
                lane,
                Hold {
                    head: index,
                    paused_until: None,
                    rest: VecDeque::new(),
                    returned: 0,
                },
            );
        }
        self.slots[index as usize].state = State::Ready;
        self.ready.push_back(index);
    }

    fn holds(&mut self, index: u32) -> bool {
        if self.confirmation == Confirmation::Ack {
            return true;
        }
        let proven = self.proven.contains(&self.subject_hash(index));
        self.slots[index as usize].proven = proven;
        !proven
    }

    /// A record leaves: where it is the head of its lane, the next ones follow.
    fn release(&mut self, index: u32) {
        if self.held.is_empty() {
            return;
        }
        let lane = self.lane(index);
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
                self.slots[next as usize].state = State::Ready;
                self.ready.push_back(next);
                return;
            }
            // Accepted before on this connection: it goes, and the one behind it need not wait for it.
            self.slots[next as usize].state = State::Ready;
            self.ready.push_back(next);
        }
    }

    /// A record leaves that nobody waits for.
    fn discard(&mut self, index: u32, outcome: &mut Outcome<T>) {
        self.release(index);
        outcome.dropped.extend(self.vacate(index));
    }

    /// Drops what is stale at the front of `written`, and all of it when it outgrows what is in flight.
    fn forget_stale(&mut self) {
        if self.confirmation == Confirmation::Fence {
            return;
        }
        let Self {
            slots,
            written,
            in_flight,
            ..
        } = self;
        let live = |(index, write): &(u32, u64)| match slots[*index as usize].state {
            State::Written { write: live } | State::Abandoned { write: live } => live == *write,
            _ => false,
        };
        while written.front().is_some_and(|entry| !live(entry)) {
            written.pop_front();
        }
        if written.len() > 2 * *in_flight + 1024 {
            written.retain(live);
        }
    }

    fn live(&self, ticket: Ticket) -> Option<u32> {
        let slot = self.slots.get(ticket.index as usize)?;
        (slot.generation == ticket.generation && slot.state != State::Free).then_some(ticket.index)
    }

    fn lane(&self, index: u32) -> u64 {
        self.slots[index as usize].item.as_ref().map_or(0, Item::lane)
    }

    fn subject_hash(&self, index: u32) -> u64 {
        self.slots[index as usize].item.as_ref().map_or(0, Item::subject_hash)
    }

    fn occupy(&mut self, item: T) -> u32 {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.item = Some(item);
            slot.refusals = 0;
            slot.setbacks = 0;
            slot.alone = false;
            slot.proven = false;
            slot.state = State::Waiting;
            return index;
        }
        self.slots.push(Slot {
            generation: 0,
            refusals: 0,
            setbacks: 0,
            alone: false,
            sent_as: 0,
            accused: false,
            proven: false,
            state: State::Waiting,
            sent_at: 0,
            item: Some(item),
        });
        self.slots.len() as u32 - 1
    }

    fn vacate(&mut self, index: u32) -> Option<T> {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = State::Free;
        self.free.push(index);
        slot.item.take()
    }
}
