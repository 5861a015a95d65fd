//! Where the records of an outbox are, and the names by which whoever sends them knows them.

use crate::delivery::deliverable::Deliverable;
use std::ops::{Index, IndexMut};

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

/// A place for one record, with all that is known of how it was sent.
#[derive(Debug)]
pub(super) struct Slot<T> {
    generation: u32,
    /// Refusals that count as attempts; outages do not.
    pub(super) refusals: u32,
    /// Refusals for now and overdue acks: they only make the pauses longer.
    pub(super) setbacks: u32,
    /// It is written between two questions that prove nothing of any other record: see [`Outbox::suspect`](super::Outbox::suspect).
    pub(super) alone: bool,
    /// [`subject_hash`](crate::delivery::deliverable::subject_hash) of what it was last sent as, for when the record itself has been given back.
    pub(super) sent_as: u64,
    /// The server has said of one record to its subject that it is denied, and this one stands for that.
    pub(super) accused: bool,
    pub(super) state: State,
    /// Its subject was proven when it was let go: confirming it proves nothing new.
    pub(super) proven: bool,
    /// When it was last sent.
    pub(super) sent_at: u64,
    pub(super) item: Option<T>,
}

impl<T> Slot<T> {
    /// The name of the record, which is in the slot of this number.
    #[inline]
    pub(super) fn ticket(&self, index: u32) -> Ticket {
        Ticket {
            index,
            generation: self.generation,
        }
    }
}

/// What the record of a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody's.
    Free,
    /// May be sent now.
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

/// All slots. A slot that gets free is used again, with a new generation: so an old [`Ticket`] names nothing.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    pub(super) fn occupy(&mut self, item: T) -> u32 {
        if let Some(index) = self.free.pop() {
            let slot = &mut self[index];
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

    #[inline]
    pub(super) fn vacate(&mut self, index: u32) -> Option<T> {
        let slot = &mut self[index];
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = State::Free;
        let item = slot.item.take();
        self.free.push(index);
        item
    }

    /// The slot of the record that is named, if it is still there.
    pub(super) fn live(&self, ticket: Ticket) -> Option<u32> {
        let slot = self.slots.get(ticket.index as usize)?;
        (slot.generation == ticket.generation && slot.state != State::Free).then_some(ticket.index)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (u32, &mut Slot<T>)> {
        (0..).zip(&mut self.slots)
    }
}

impl<T: Deliverable> Slots<T> {
    pub(super) fn lane(&self, index: u32) -> u64 {
        self[index].item.as_ref().map_or(0, Deliverable::lane)
    }

    pub(super) fn subject_hash(&self, index: u32) -> u64 {
        self[index].item.as_ref().map_or(0, Deliverable::subject_hash)
    }
}

impl<T> Index<u32> for Slots<T> {
    type Output = Slot<T>;

    #[inline]
    fn index(&self, index: u32) -> &Slot<T> {
        &self.slots[index as usize]
    }
}

impl<T> IndexMut<u32> for Slots<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut Slot<T> {
        &mut self.slots[index as usize]
    }
}
