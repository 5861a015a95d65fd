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

mod closing;
mod confirm;
mod endings;
mod lanes;
mod slots;
mod written;

#[cfg(test)]
mod tests;

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use self::lanes::Lanes;
use self::slots::State;
pub use self::slots::Ticket;
use self::written::Written;
use super::deliverable::Deliverable;

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
    backoff: Backoff,
    /// All records, each in its lane.
    lanes: Lanes<T>,
    /// Those of them that are out.
    written: Written,
    /// Lanes that have at most their head in here: see [`Outbox::close`].
    closed: HashSet<u64, Spread>,
    /// Lanes of which a record was blamed: each of their records is written alone, until one is confirmed.
    suspected: HashSet<u64, Spread>,
    overtaken: u64,
}

/// Without random seeds, so that a simulation replays. Whoever picks keys that collide slows down only his own lanes.
type Spread = FixedState;

impl<T: Deliverable> Outbox<T> {
    /// An empty outbox.
    #[must_use]
    pub fn new(confirmation: Confirmation, backoff: Backoff) -> Self {
        Self {
            backoff,
            lanes: Lanes::new(confirmation),
            written: Written::new(confirmation),
            closed: HashSet::default(),
            suspected: HashSet::default(),
            overtaken: 0,
        }
    }

    /// Takes a record in. It goes behind everything of its lane that was pushed before. Given back, where the lane is
    /// [closed](Outbox::close).
    pub fn push(&mut self, item: T) -> Option<T> {
        if !self.closed.is_empty() && self.closed.contains(&item.lane()) {
            return Some(item);
        }
        let index = self.lanes.slots.occupy(item);
        self.lanes.place(index);
        None
    }

    /// The next record to send, if one may be sent. It counts as written from here on, so the caller sends it, or hands
    /// it to [`Outbox::reject`].
    pub fn next(&mut self, now: u64) -> Option<(Ticket, &T)> {
        let index = self.lanes.next()?;
        let write = self.written.push(index);
        let slot = &mut self.lanes.slots[index];
        let ticket = slot.ticket(index);
        slot.state = State::Written { write };
        slot.sent_at = now;
        slot.accused = false;
        slot.sent_as = slot.item.as_ref().map_or(0, Deliverable::subject_hash);
        slot.item.as_ref().map(|item| (ticket, item))
    }

    /// Takes back the record that [`Outbox::next`] gave last, before a byte of it was sent: it can never be sent.
    pub fn reject(&mut self, ticket: Ticket) -> Option<T> {
        let index = self.lanes.slots.live(ticket)?;
        let State::Written { write } = self.lanes.slots[index].state else {
            return None;
        };
        if !self.written.undo(index, write) {
            return None;
        }
        self.lanes.release(index);
        self.lanes.slots.vacate(index)
    }

    /// Makes lanes ready whose pause is over.
    pub fn wake(&mut self, now: u64) {
        self.lanes.wake(now);
    }

    /// When [`Outbox::wake`] has something to do next.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.lanes.next_wake()
    }

    /// Whether [`Outbox::next`] has a record.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.lanes.peek().is_some()
    }

    /// Records written and not yet confirmed or refused.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.written.in_flight()
    }

    /// All records in the outbox.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lanes.slots.len()
    }

    /// Whether nothing is in the outbox.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many lanes pause because the server refused their head.
    #[must_use]
    pub fn paused_lanes(&self) -> usize {
        self.lanes.paused()
    }

    /// How often a subject was refused on a connection that had accepted it before, so that later records of its lane
    /// may have gone ahead of the refused ones.
    #[must_use]
    pub fn overtaken(&self) -> u64 {
        self.overtaken
    }
}
