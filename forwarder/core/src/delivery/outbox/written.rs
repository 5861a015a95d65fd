//! What was sent, and is neither confirmed nor refused.

use std::collections::VecDeque;

use super::Confirmation;
use super::slots::{Slots, State};

/// The writes, in their order, and which of them each fence covers.
///
/// With fences, each write is covered by one fence, or stands behind the last one. With acks there are no fences, and an entry may be
/// stale: its number tells.
#[derive(Debug)]
pub(super) struct Written {
    confirmation: Confirmation,
    /// The slot and the number of each write.
    entries: VecDeque<(u32, u64)>,
    /// How many of the entries each fence that is out covers; the records behind the last fence are in `open`.
    fences: VecDeque<usize>,
    /// Records written since the last fence.
    open: usize,
    /// Numbers the writes, so that a stale entry is told from a live one.
    writes: u64,
    /// Records written and not yet confirmed or refused.
    in_flight: usize,
}

// Each of these is called for every record, from the crate that knows what an item is.
impl Written {
    pub(super) fn new(confirmation: Confirmation) -> Self {
        Self {
            confirmation,
            entries: VecDeque::new(),
            fences: VecDeque::new(),
            open: 0,
            writes: 0,
            in_flight: 0,
        }
    }

    #[inline]
    pub(super) fn confirmation(&self) -> Confirmation {
        self.confirmation
    }

    #[inline]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The number of the last write.
    #[inline]
    pub(super) fn last(&self) -> u64 {
        self.writes
    }

    /// A record is sent. Returns the number of the write.
    #[inline]
    pub(super) fn push(&mut self, index: u32) -> u64 {
        self.writes += 1;
        self.entries.push_back((index, self.writes));
        self.in_flight += 1;
        if self.confirmation == Confirmation::Fence {
            self.open += 1;
        }
        self.writes
    }

    /// The last write was none. `false`: it is not the last one.
    #[inline]
    pub(super) fn undo(&mut self, index: u32, write: u64) -> bool {
        if self.entries.back() != Some(&(index, write)) {
            return false;
        }
        self.entries.pop_back();
        self.in_flight -= 1;
        if self.confirmation == Confirmation::Fence {
            self.open -= 1;
        }
        true
    }

    /// A fence is sent behind all that was written. `false`: there is nothing for it to cover.
    #[inline]
    pub(super) fn fence(&mut self) -> bool {
        if self.open == 0 {
            return false;
        }
        self.fences.push_back(self.open);
        self.open = 0;
        true
    }

    /// The oldest fence is out no more. Returns how many of the first writes it covered.
    #[inline]
    pub(super) fn take_fence(&mut self) -> Option<usize> {
        self.fences.pop_front()
    }

    /// The first write is out no more.
    #[inline]
    pub(super) fn take_first(&mut self) -> Option<u32> {
        let (index, _) = self.entries.pop_front()?;
        self.in_flight -= 1;
        Some(index)
    }

    /// A write was acked or refused. Its entry is stale from now on.
    #[inline]
    pub(super) fn answered(&mut self) {
        self.in_flight -= 1;
    }

    /// All that is out, in order: the slots and the numbers of the writes.
    #[inline]
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, u64)> {
        self.entries.iter().copied()
    }

    /// What the oldest fence covers, or is going to cover.
    #[inline]
    pub(super) fn behind_oldest_fence(&self) -> impl Iterator<Item = (u32, u64)> {
        let covered = self.fences.front().copied().unwrap_or(self.open);
        self.all().take(covered)
    }

    /// The connection is gone. Returns what was out.
    pub(super) fn lose(&mut self) -> VecDeque<(u32, u64)> {
        self.fences.clear();
        self.open = 0;
        self.in_flight = 0;
        std::mem::take(&mut self.entries)
    }

    /// Drops what is stale at the front, and all of it when it outgrows what is in flight.
    pub(super) fn forget_stale<T>(&mut self, slots: &Slots<T>) {
        if self.confirmation == Confirmation::Fence {
            return;
        }
        let Self { entries, in_flight, .. } = self;
        let live = |(index, write): &(u32, u64)| match slots[*index].state {
            State::Written { write: live } | State::Abandoned { write: live } => live == *write,
            _ => false,
        };
        while entries.front().is_some_and(|entry| !live(entry)) {
            entries.pop_front();
        }
        if entries.len() > 2 * *in_flight + 1024 {
            entries.retain(live);
        }
    }
}
