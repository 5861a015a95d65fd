//! Assets that wait for one refused record, each for itself alone.
//!
//! ```text
//!  output:     a lane's head is denied ──▶ closed: gives back all behind the head, and what still comes ──▶ opened
//!                                             │                                                              ▲
//!  dispatcher:                                └▶ held: what comes is parked as a class of its own ───────────┘
//!                                                 until nothing of the lane is out there; then it is read again
//! ```
//!
//! An output closes a lane by itself, and says so. From then on the dispatcher sends nothing of that lane anywhere. Whatever was on its
//! way comes back, for the output takes nothing of the lane before it is told to open it. It is told when its last record of the lane
//! has left it, in whatever way. So what is sent after that stands behind everything that came back.
//!
//! The heads cost memory. Beyond a share of its output's cap a head is called back, too, and read again after a pause.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Dispatcher;
use super::backlog::Class;
use crate::delivery::deliverable::Deliverable;
use crate::delivery::offsets::Tag;

/// A lane that an output has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The lane.
    pub lane: u64,
    /// What its head counts against the caps, in bytes.
    pub weight: usize,
}

/// The lanes that are held.
#[derive(Debug, Default)]
pub(super) struct HeldLanes {
    lanes: HashMap<u64, Held, FixedState>,
    /// Outputs that are to open a lane.
    openings: Vec<(u32, u64)>,
    /// Outputs that are to give a head back.
    recalls: Vec<(u32, u64)>,
}

#[derive(Debug)]
struct Held {
    output: u32,
    /// Its records that the output has.
    out: usize,
    weight: usize,
    /// Its head was called back, since too many are held.
    recalled: bool,
}

impl HeldLanes {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn contains(&self, lane: u64) -> bool {
        !self.lanes.is_empty() && self.lanes.contains_key(&lane)
    }

    /// Whether a head that comes back was called back because of too many.
    pub(super) fn is_recalled(&self, lane: u64) -> bool {
        self.lanes.get(&lane).is_some_and(|held| held.recalled)
    }
}

impl<T: Deliverable> Dispatcher<T> {
    /// An output has closed these lanes: each for a head that is denied and that it keeps.
    pub fn close(&mut self, output: u32, closed: &[Closed]) {
        let mut newly = Vec::new();
        for Closed { lane, weight } in closed {
            let held = Held {
                output,
                out: 0,
                weight: *weight,
                recalled: false,
            };
            match self.held.lanes.try_insert(*lane, held) {
                Ok(_) => {}
                // One more record of it was denied.
                Err(known) if known.entry.get().output == output => continue,
                // Another output holds it: nothing of it is here.
                Err(_) => {
                    self.held.openings.push((output, *lane));
                    continue;
                }
            }
            self.caps.hold_head(output as usize, *weight);
            newly.push((*lane, *weight));
            // What waits for the asset's move goes where the rest of it goes.
            for item in self.hand_over.take_held(*lane) {
                self.caps.release(item.weight());
                self.park_unsettled(item.tag(), *lane);
            }
            for (partition, state) in &mut self.partitions {
                state.backlog.keep_apart(*lane, self.now);
                if let Some(replay) = &mut self.replay
                    && state.backlog.is_apart(*lane)
                {
                    replay.leave_out(*partition, Class::Lane(*lane));
                }
            }
        }
        if newly.is_empty() {
            return;
        }
        self.count_held();
        // Beyond the output's share the newest are called back, and no more than that.
        for (lane, weight) in newly.into_iter().rev() {
            if self.caps.may_hold_heads(output as usize) {
                return;
            }
            if let Some(held) = self.held.lanes.get_mut(&lane) {
                held.recalled = true;
                self.caps.release_head(output as usize, weight);
                self.held.recalls.push((output, lane));
            }
        }
    }

    /// An output has given a record of a closed lane back: its lane is parked from there on.
    pub fn give_back(&mut self, output: u32, tag: Tag, lane: u64) {
        if self.park_unsettled(tag, lane) {
            self.left(lane, output);
        }
    }

    /// Whether there was something to park.
    fn park_unsettled(&mut self, tag: Tag, lane: u64) -> bool {
        let now = self.now;
        let Some(state) = self.current(tag) else { return false };
        if state.offsets.settle(tag.sequence, tag.offset).is_none() {
            return false;
        }
        state.backlog.park_lane(lane, tag.offset, now);
        if let Some(replay) = &mut self.replay {
            // It may be behind where the replay is.
            replay.leave_out(tag.partition, Class::Lane(lane));
        }
        true
    }

    /// Counts what is out of each held lane. Those of which nothing is, are held no more.
    pub(super) fn count_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        for held in self.held.lanes.values_mut() {
            held.out = 0;
        }
        for place in self.partitions.values().flat_map(|state| state.offsets.whereabouts()) {
            if let Some(held) = self.held.lanes.get_mut(&place.lane)
                && place.output == Some(held.output)
            {
                held.out += 1;
            }
        }
        let free = self.held.lanes.iter().filter(|(_, held)| held.out == 0);
        let mut free: Vec<u64> = free.map(|(lane, _)| *lane).collect();
        // In a fixed order, so that a simulated run can be repeated.
        free.sort_unstable();
        for lane in free {
            self.let_go(lane);
        }
    }

    /// A record of the lane has left the output.
    pub(super) fn left_held(&mut self, lane: u64, output: u32) {
        if self.held.is_empty() {
            return;
        }
        let Some(held) = self.held.lanes.get_mut(&lane).filter(|held| held.output == output) else {
            return;
        };
        held.out = held.out.saturating_sub(1);
        if held.out == 0 {
            self.let_go(lane);
        }
    }

    /// Nothing of the lane is out any more: what is parked of it may be read again.
    fn let_go(&mut self, lane: u64) {
        let Some(Held {
            output,
            weight,
            recalled,
            out: _,
        }) = self.held.lanes.remove(&lane)
        else {
            return;
        };
        if !recalled {
            self.caps.release_head(output as usize, weight);
        }
        self.held.openings.push((output, lane));
        for state in self.partitions.values_mut() {
            if recalled {
                state.backlog.wait(lane, self.now.saturating_add(self.tuning.retry));
            }
            state.backlog.forget_lane(lane, state.offsets.next());
        }
        self.ask_again_at = 0;
    }

    /// Lanes that outputs are to open, before they get anything else.
    pub fn take_openings(&mut self) -> Vec<(u32, u64)> {
        std::mem::take(&mut self.held.openings)
    }

    /// Lanes whose head an output is to give back, since too many are held.
    pub fn take_excess(&mut self) -> Vec<(u32, u64)> {
        std::mem::take(&mut self.held.recalls)
    }

    /// How many assets wait for a refused record, by the output that refused it: also those whose record was called back.
    #[must_use]
    pub fn held_assets(&self) -> BTreeMap<u32, usize> {
        let held = self.held.lanes.iter().map(|(lane, held)| (held.output, *lane));
        let mut lanes: BTreeSet<(u32, u64)> = held.collect();
        for state in self.partitions.values() {
            let waiting = state.backlog.waiting();
            lanes.extend(waiting.map(|lane| (state.backlog.output_of_lane(lane), lane)));
        }
        let mut counts = BTreeMap::new();
        for (output, _) in lanes {
            *counts.entry(output).or_default() += 1;
        }
        counts
    }

    /// Whether nothing is out or held back, but for refused records.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.moving().records == 0
    }
}
