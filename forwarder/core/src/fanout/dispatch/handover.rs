//! Assets that change their owner: each waits until its earlier records are settled by the old one.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::delivery::deliverable::Deliverable;
use crate::delivery::partition::PartitionId;

/// See the module.
#[derive(Debug)]
pub(super) struct HandOver<T> {
    lanes: HashMap<u64, Lane<T>, FixedState>,
    /// When the next lane's time is over.
    next_deadline: Option<u64>,
}

/// The records of an asset that waits.
#[derive(Debug)]
pub(super) struct Lane<T> {
    /// The output of the old owner.
    pub(super) from: u32,
    /// Records that it has and that are not settled.
    out: usize,
    /// Until when it is waited for, in microseconds.
    deadline: u64,
    /// It was asked to give them back.
    recalled: bool,
    /// What it gave back.
    returned: Vec<T>,
    /// What came since.
    held: VecDeque<T>,
}

impl<T: Deliverable> HandOver<T> {
    pub(super) fn new() -> Self {
        Self {
            lanes: HashMap::default(),
            next_deadline: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn contains(&self, lane: u64) -> bool {
        !self.lanes.is_empty() && self.lanes.contains_key(&lane)
    }

    /// The output that a lane waits for.
    pub(super) fn awaits(&self, lane: u64) -> Option<u32> {
        self.lanes.get(&lane).map(|lane| lane.from)
    }

    /// Holds a record back if its lane waits; else hands it back to the caller.
    pub(super) fn hold(&mut self, item: T) -> Option<T> {
        if self.lanes.is_empty() {
            return Some(item);
        }
        match self.lanes.get_mut(&item.lane()) {
            Some(lane) => {
                lane.held.push_back(item);
                None
            }
            None => Some(item),
        }
    }

    /// What came of a lane since it waits; it waits on without that.
    pub(super) fn take_held(&mut self, lane: u64) -> VecDeque<T> {
        let lane = self.lanes.get_mut(&lane);
        lane.map(|lane| std::mem::take(&mut lane.held)).unwrap_or_default()
    }

    /// A record was given back by the output that had it. `Err`: nobody waits for it.
    pub(super) fn take_back(&mut self, item: T) -> Result<(), T> {
        match self.lanes.get_mut(&item.lane()) {
            Some(lane) => {
                lane.returned.push(item);
                Ok(())
            }
            None => Err(item),
        }
    }

    /// A record of the lane has left the output. Returns whether that was the last one waited for.
    pub(super) fn left(&mut self, lane: u64, output: u32) -> bool {
        let Some(lane) = self.lanes.get_mut(&lane).filter(|lane| lane.from == output) else {
            return false;
        };
        lane.out = lane.out.saturating_sub(1);
        lane.out == 0
    }

    /// The lane waits no more: its records, in order.
    pub(super) fn remove(&mut self, lane: u64) -> Vec<T> {
        let Some(Lane { mut returned, held, .. }) = self.lanes.remove(&lane) else {
            return Vec::new();
        };
        returned.sort_by_key(|item| (item.tag().partition, item.tag().offset));
        returned.extend(held);
        returned
    }

    /// The outputs have these records of these lanes: as counted by the caller, who knows where each record is. Yields the
    /// lanes that need not wait (any more): nothing of theirs is out, or they are where they belong again.
    pub(super) fn rebuild(
        &mut self,
        out: &HashMap<u64, (u32, usize), FixedState>,
        owner: impl Fn(u64) -> u32,
        deadline: u64,
    ) -> Vec<u64> {
        for (number, (output, count)) in out {
            if let Some(lane) = self.lanes.get_mut(number) {
                lane.out = *count;
                continue;
            }
            if owner(*number) != *output {
                let lane = Lane {
                    from: *output,
                    out: *count,
                    deadline,
                    recalled: false,
                    returned: Vec::new(),
                    held: VecDeque::new(),
                };
                self.lanes.insert(*number, lane);
                self.next_deadline = Some(self.next_deadline.map_or(deadline, |next| next.min(deadline)));
            }
        }
        for (number, lane) in &mut self.lanes {
            if !out.contains_key(number) {
                lane.out = 0;
            }
        }
        let mut free: Vec<u64> = self
            .lanes
            .iter()
            .filter(|(number, lane)| {
                let home = !lane.recalled && lane.from == owner(**number);
                lane.out == 0 || home
            })
            .map(|(number, _)| *number)
            .collect();
        free.sort_unstable();
        free
    }

    /// Lanes whose time is over, with the output that has not answered. Each is named once.
    pub(super) fn overdue(&mut self, now: u64) -> Vec<(u32, u64)> {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        self.next_deadline = None;
        let mut overdue = Vec::new();
        for (number, lane) in &mut self.lanes {
            if lane.recalled {
                continue;
            }
            if lane.deadline <= now {
                lane.recalled = true;
                overdue.push((lane.from, *number));
            } else {
                let next = self.next_deadline.map_or(lane.deadline, |next| next.min(lane.deadline));
                self.next_deadline = Some(next);
            }
        }
        overdue.sort_unstable();
        overdue
    }

    /// Drops what waits on behalf of a partition; yields it.
    pub(super) fn forget(&mut self, partition: PartitionId) -> Vec<T> {
        let mut gone = Vec::new();
        for lane in self.lanes.values_mut() {
            let returned = std::mem::take(&mut lane.returned);
            let held = std::mem::take(&mut lane.held);
            let (drop, keep): (Vec<T>, Vec<T>) =
                returned.into_iter().partition(|item| item.tag().partition == partition);
            lane.returned = keep;
            gone.extend(drop);
            let (drop, keep): (Vec<T>, Vec<T>) = held.into_iter().partition(|item| item.tag().partition == partition);
            lane.held = keep.into();
            gone.extend(drop);
        }
        gone
    }
}
