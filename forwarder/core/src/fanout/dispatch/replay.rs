//! Reading parked records again: one pass at a time, over one partition.
//!
//! A pass goes through the partition's records from the first parked one on, and takes those of parked classes whose
//! cluster has room. A class that the pass has brought up to where the intake is, is parked no more.

use std::collections::BTreeSet;
use std::ops::{Bound, Range};

use super::backlog::Class;
use super::{Dispatcher, Freight};
use crate::delivery::DEAD_LETTER;
use crate::delivery::offsets::{Tag, Whereabouts};
use crate::delivery::partition::PartitionId;

/// How long a pass waits for a cluster that has no room, in microseconds, while it has nothing else to do.
const PATIENCE: u64 = 100_000;

/// How long it is not asked again whether something may be read, in microseconds, where many lanes would have to be asked.
const UNASKED: u64 = 20_000;

/// So many classes of a partition are many.
const MANY: usize = 64;

/// How long a pass may bring nothing before another partition has its turn, in microseconds: its leader may be away. Far longer
/// than a reader needs to begin.
const STALLED: u64 = 30_000_000;

/// What is to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub from: i64,
    /// Names the pass: another one begins elsewhere, even in the same partition.
    pub number: u64,
}

/// What to do with a record that was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// As [`Admission::Take`](super::Admission::Take).
    Take(Tag),
    /// It was not parked, or is not to be delivered in this pass.
    Skip,
    /// It is to be delivered when there is room: ask again.
    Wait,
    /// The pass is over.
    Done,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pass {
    partition: PartitionId,
    from: i64,
    number: u64,
    /// Everything below was looked at.
    reached: i64,
    looked_at: u64,
    /// Classes that are to wait for another pass.
    left_out: BTreeSet<Class>,
    waiting_since: Option<u64>,
    /// When it last brought something.
    moved_at: u64,
}

impl Pass {
    pub(super) fn is_of(&self, partition: PartitionId) -> bool {
        self.partition == partition
    }

    /// A class is parked, or more of it than before, that this pass has not brought up to here.
    pub(super) fn leave_out(&mut self, partition: PartitionId, class: Class) {
        if self.is_of(partition) {
            self.left_out.insert(class);
        }
    }

    fn job(&self) -> Job {
        Job {
            partition: self.partition,
            from: self.from,
            number: self.number,
        }
    }
}

impl<T: Freight> Dispatcher<T> {
    /// What is to be read again now: the pass that is going on, or the next one.
    pub fn job(&mut self) -> Option<Job> {
        if let Some(pass) = self.pass.take() {
            if self.now.saturating_sub(pass.moved_at) < STALLED {
                let job = pass.job();
                self.pass = Some(pass);
                return Some(job);
            }
            self.finish(pass);
        }
        if self.now < self.ask_again_at {
            return None;
        }
        if let Some((partition, from, left_out)) = self.next_turn(false).or_else(|| self.next_turn(true)) {
            self.last_pass = Some(partition);
            self.passes += 1;
            let pass = Pass {
                partition,
                from,
                number: self.passes,
                reached: from,
                looked_at: 0,
                left_out,
                waiting_since: None,
                moved_at: self.now,
            };
            let job = pass.job();
            self.pass = Some(pass);
            return Some(job);
        }
        let mut backlogs = self.partitions.values().map(|state| state.backlog.len());
        if backlogs.any(|len| len > MANY) {
            self.ask_again_at = self.now + UNASKED;
        }
        None
    }

    /// The partition whose turn it is, where to begin, and what is to wait. `late`: see [`super::backlog::Backlog::ready`].
    fn next_turn(&self, late: bool) -> Option<(PartitionId, i64, BTreeSet<Class>)> {
        let may = |outlet: u32| self.caps.has_half(outlet as usize);
        let held = |lane: u64| self.held.contains(lane);
        let after = self.last_pass.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.partitions.range((after, Bound::Unbounded));
        let earlier = self.last_pass.map(|last| self.partitions.range(..=last));
        let turns = later.chain(earlier.into_iter().flatten());
        let mut turns = turns.filter(|(_, state)| !state.backlog.is_empty() && state.is_taken() && !state.backlog_held);
        turns.find_map(|(partition, state)| {
            let from = state.backlog.ready(state.offsets.next(), self.now, late, may, held)?;
            Some((*partition, from, state.backlog.not_ready(self.now, late, may, held)))
        })
    }

    /// A record was read again for pass `number`; `key` is none where the record has no valid one.
    pub fn read_again(&mut self, number: u64, offset: i64, key: Option<&[u8]>) -> Again {
        self.look_again(number, offset, key, true)
    }

    /// As [`read_again`](Self::read_again), for a record that no cluster is to get: it waits for no room.
    pub fn read_again_for_nobody(&mut self, number: u64, offset: i64, key: Option<&[u8]>) -> Again {
        self.look_again(number, offset, key, false)
    }

    fn look_again(&mut self, number: u64, offset: i64, key: Option<&[u8]>, needs_room: bool) -> Again {
        let Some(mut pass) = self.pass.take_if(|pass| pass.number == number) else {
            return Again::Done;
        };
        let Some(state) = self
            .partitions
            .get_mut(&pass.partition)
            .filter(|state| state.is_taken())
        else {
            return Again::Done;
        };
        pass.moved_at = self.now;
        if offset >= state.offsets.next() {
            pass.reached = state.offsets.next();
            self.finish(pass);
            return Again::Done;
        }
        // All that it was to bring may have become held meanwhile: days may lie between here and the end.
        let nothing_left = pass.left_out.len() >= state.backlog.len();
        if pass.looked_at >= self.tuning.quantum || nothing_left {
            pass.reached = pass.reached.max(offset);
            self.finish(pass);
            return Again::Done;
        }
        let answer = self.admit_again(&mut pass, offset, key, needs_room);
        match answer {
            Again::Done => self.finish(pass),
            Again::Wait => self.pass = Some(pass),
            Again::Take(_) | Again::Skip => {
                pass.looked_at += 1;
                pass.reached = pass.reached.max(offset + 1);
                self.pass = Some(pass);
            }
        }
        answer
    }

    fn admit_again(&mut self, pass: &mut Pass, offset: i64, key: Option<&[u8]>, needs_room: bool) -> Again {
        let Some(key) = key else { return Again::Skip };
        let place = self.era.ring.place(key);
        let outlet = self.era.outlet(place.owner);
        let Some(state) = self.partitions.get_mut(&pass.partition) else {
            return Again::Done;
        };
        let class = state.backlog.class(key, place.lane, outlet);
        let open = state.backlog.len();
        let Some(parked) = state.backlog.get_mut(&class) else {
            return Again::Skip;
        };
        if offset < parked.from || pass.left_out.contains(&class) {
            return Again::Skip;
        }
        let held = self.held.contains(place.lane);
        let has_room = self.caps.has_half(outlet as usize) && !self.hand_over.contains(place.lane);
        let free = !held && (has_room || !needs_room);
        if !free {
            let since = *pass.waiting_since.get_or_insert(self.now);
            let others = open > pass.left_out.len() + 1;
            let patient = self.now.saturating_sub(since) < PATIENCE && !held && !self.caps.overflows(outlet as usize);
            if patient && !others {
                return Again::Wait;
            }
            // What it has been brought to so far is where the next pass goes on.
            parked.from = offset;
            if held {
                // The asset that waits is a class of its own: the others of its cluster's class go on.
                state.backlog.park_lane(place.lane, offset, self.now);
                pass.left_out.insert(Class::Lane(place.lane));
                pass.waiting_since = None;
                return Again::Skip;
            }
            pass.left_out.insert(class);
            pass.waiting_since = None;
            return if others { Again::Skip } else { Again::Done };
        }
        pass.waiting_since = None;
        parked.from = offset + 1;
        parked.records = parked.records.saturating_sub(1);
        let whereabouts = Whereabouts {
            lane: place.lane,
            // One that no cluster is to get is no matter of any that its asset waits for.
            outlet: Some(if needs_room { outlet } else { DEAD_LETTER }),
        };
        let sequence = state.offsets.readmit(offset, whereabouts);
        state.backlog.end_wait(place.lane);
        Again::Take(Tag {
            partition: pass.partition,
            epoch: state.epoch,
            offset,
            sequence,
        })
    }

    /// The reader has seen the end of the partition in pass `number`, and has read all before `position`, be it records or not.
    ///
    /// That ends the pass only if the intake has received nothing beyond: an end may be an old one, or that of a broker that does
    /// not know the newest records yet. Otherwise the reader just goes on.
    pub fn saw_end(&mut self, number: u64, position: i64) {
        let Some(mut pass) = self.pass.take_if(|pass| pass.number == number) else {
            return;
        };
        let Some(state) = self.partitions.get(&pass.partition) else {
            return;
        };
        if pass.reached.max(position) >= state.offsets.received() {
            pass.reached = state.offsets.next();
            self.finish(pass);
        } else {
            self.pass = Some(pass);
        }
    }

    /// The records before `low` have expired while they were parked. Returns how many offsets are gone.
    pub fn expired(&mut self, partition: PartitionId, low: i64) -> i64 {
        self.pass.take_if(|pass| pass.is_of(partition));
        let Some(state) = self.partitions.get_mut(&partition) else {
            return 0;
        };
        let gone = state.backlog.from().map_or(0, |from| low.saturating_sub(from).max(0));
        state.backlog.expire(low, state.offsets.next());
        self.forget_older_rings();
        gone
    }

    /// The reader failed: the pass begins anew from where it was.
    pub fn stop_reading(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.finish(pass);
        }
    }

    /// The reader came upon what cannot be read. Nothing is read again of the partition before [`Dispatcher::go_on_reading`]. Returns
    /// the partition and how far the pass came.
    pub fn hold_reading(&mut self) -> Option<(PartitionId, i64)> {
        let pass = self.pass.take()?;
        let (partition, reached) = (pass.partition, pass.reached);
        self.finish(pass);
        self.partitions.get_mut(&partition)?.backlog_held = true;
        Some((partition, reached))
    }

    /// What could not be read can be, or is stepped over: none of the parked records in `gap` is to be read any more.
    pub fn go_on_reading(&mut self, partition: PartitionId, gap: Option<Range<i64>>) {
        let Some(state) = self.partitions.get_mut(&partition) else {
            return;
        };
        state.backlog_held = false;
        if let Some(gap) = gap {
            state.backlog.step_over(&gap);
        }
        state.backlog.forget_done(state.offsets.next());
        self.forget_older_rings();
    }

    /// Ends a pass: what it has not left out was brought as far as it reached.
    fn finish(&mut self, pass: Pass) {
        let Some(state) = self.partitions.get_mut(&pass.partition) else {
            return;
        };
        // All that is in front of the intake was read again: from here on they come by themselves.
        state.backlog.finish(pass.reached, state.offsets.next(), &pass.left_out);
        self.forget_older_rings();
    }
}
