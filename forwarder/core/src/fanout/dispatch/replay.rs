//! Reading parked records again: one replay at a time, over one partition.
//!
//! A replay goes through the partition's records from the first parked one on, and takes those of parked classes whose
//! cluster has room. Once the replay has brought a class up to where the intake is, the class is parked no more.

use std::collections::BTreeSet;
use std::ops::{Bound, Range};

use super::Dispatcher;
use super::backlog::Class;
use crate::delivery::DEAD_LETTER;
use crate::delivery::deliverable::Deliverable;
use crate::delivery::offsets::{Tag, Whereabouts};
use crate::delivery::partition::PartitionId;

/// How long a replay waits for a cluster that has no room, in microseconds, while it has nothing else to do.
const PATIENCE: u64 = 100_000;

/// How long it is not asked again whether something may be read, in microseconds, where many lanes would have to be asked.
const UNASKED: u64 = 20_000;

/// So many classes of a partition are many.
const MANY: usize = 64;

/// How long a replay may bring nothing before another partition has its turn, in microseconds: its leader may be away. Far longer
/// than a reader needs to begin.
const STALLED: u64 = 30_000_000;

/// What is to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub from: i64,
    /// Names the replay: another one begins elsewhere, even in the same partition.
    pub number: u64,
}

/// What to do with a record that was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// As [`Admission::Take`](super::Admission::Take).
    Take(Tag),
    /// It was not parked, or is not to be delivered in this replay.
    Skip,
    /// It is to be delivered when there is room: ask again.
    Wait,
    /// The replay is over.
    Done,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Replay {
    partition: PartitionId,
    from: i64,
    number: u64,
    /// Everything below was looked at.
    reached: i64,
    looked_at: u64,
    /// Classes that are to wait for another replay.
    left_out: BTreeSet<Class>,
    waiting_since: Option<u64>,
    /// When it last brought something.
    moved_at: u64,
}

impl Replay {
    pub(super) fn is_of(&self, partition: PartitionId) -> bool {
        self.partition == partition
    }

    /// A class is parked, or more of it than before, that this replay has not brought up to here.
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

impl<T: Deliverable> Dispatcher<T> {
    /// What is to be read again now: the replay that is going on, or the next one.
    pub fn job(&mut self) -> Option<Job> {
        if let Some(replay) = self.replay.take() {
            if self.now.saturating_sub(replay.moved_at) < STALLED {
                let job = replay.job();
                self.replay = Some(replay);
                return Some(job);
            }
            self.finish(replay);
        }
        if self.now < self.ask_again_at {
            return None;
        }
        if let Some((partition, from, left_out)) = self.next_turn(false).or_else(|| self.next_turn(true)) {
            self.last_replayed = Some(partition);
            self.replays += 1;
            let replay = Replay {
                partition,
                from,
                number: self.replays,
                reached: from,
                looked_at: 0,
                left_out,
                waiting_since: None,
                moved_at: self.now,
            };
            let job = replay.job();
            self.replay = Some(replay);
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
        let may = |output: u32| self.caps.has_half(output as usize);
        let held = |lane: u64| self.held.contains(lane);
        let after = self.last_replayed.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.partitions.range((after, Bound::Unbounded));
        let earlier = self.last_replayed.map(|last| self.partitions.range(..=last));
        let turns = later.chain(earlier.into_iter().flatten());
        let mut turns = turns.filter(|(_, state)| !state.backlog.is_empty() && state.is_taken() && !state.backlog_held);
        turns.find_map(|(partition, state)| {
            let from = state.backlog.ready(state.offsets.next(), self.now, late, may, held)?;
            Some((*partition, from, state.backlog.not_ready(self.now, late, may, held)))
        })
    }

    /// A record was read again for replay `number`; `key` is none where the record has no valid one.
    pub fn read_again(&mut self, number: u64, offset: i64, key: Option<&[u8]>) -> Again {
        self.answer(number, offset, key, true)
    }

    /// As [`read_again`](Self::read_again), for a record that no cluster is to get: it waits for no room.
    pub fn read_again_for_nobody(&mut self, number: u64, offset: i64, key: Option<&[u8]>) -> Again {
        self.answer(number, offset, key, false)
    }

    fn answer(&mut self, number: u64, offset: i64, key: Option<&[u8]>, needs_room: bool) -> Again {
        let Some(mut replay) = self.replay.take_if(|replay| replay.number == number) else {
            return Again::Done;
        };
        let Some(state) = self
            .partitions
            .get_mut(&replay.partition)
            .filter(|state| state.is_taken())
        else {
            return Again::Done;
        };
        replay.moved_at = self.now;
        if offset >= state.offsets.next() {
            replay.reached = state.offsets.next();
            self.finish(replay);
            return Again::Done;
        }
        // All that it was to bring may have become held meanwhile: days may lie between here and the end.
        let nothing_left = replay.left_out.len() >= state.backlog.len();
        if replay.looked_at >= self.tuning.quantum || nothing_left {
            replay.reached = replay.reached.max(offset);
            self.finish(replay);
            return Again::Done;
        }
        let answer = self.admit_again(&mut replay, offset, key, needs_room);
        match answer {
            Again::Done => self.finish(replay),
            Again::Wait => self.replay = Some(replay),
            Again::Take(_) | Again::Skip => {
                replay.looked_at += 1;
                replay.reached = replay.reached.max(offset + 1);
                self.replay = Some(replay);
            }
        }
        answer
    }

    fn admit_again(&mut self, replay: &mut Replay, offset: i64, key: Option<&[u8]>, needs_room: bool) -> Again {
        let Some(key) = key else { return Again::Skip };
        let place = self.ring_epoch.ring.place(key);
        let output = self.ring_epoch.output(place.owner);
        let Some(state) = self.partitions.get_mut(&replay.partition) else {
            return Again::Done;
        };
        let class = state.backlog.class(key, place.lane, output);
        let open = state.backlog.len();
        let Some(parked) = state.backlog.get_mut(&class) else {
            return Again::Skip;
        };
        if offset < parked.from || replay.left_out.contains(&class) {
            return Again::Skip;
        }
        let held = self.held.contains(place.lane);
        let has_room = self.caps.has_half(output as usize) && !self.hand_over.contains(place.lane);
        let free = !held && (has_room || !needs_room);
        if !free {
            let since = *replay.waiting_since.get_or_insert(self.now);
            let others = open > replay.left_out.len() + 1;
            let patient = self.now.saturating_sub(since) < PATIENCE && !held && !self.caps.overflows(output as usize);
            if patient && !others {
                return Again::Wait;
            }
            // What it has been brought to so far is where the next replay goes on.
            parked.from = offset;
            if held {
                // The asset that waits is a class of its own: the others of its cluster's class go on.
                state.backlog.park_lane(place.lane, offset, self.now);
                replay.left_out.insert(Class::Lane(place.lane));
                replay.waiting_since = None;
                return Again::Skip;
            }
            replay.left_out.insert(class);
            replay.waiting_since = None;
            return if others { Again::Skip } else { Again::Done };
        }
        replay.waiting_since = None;
        parked.from = offset + 1;
        parked.records = parked.records.saturating_sub(1);
        let whereabouts = Whereabouts {
            lane: place.lane,
            // One that no cluster is to get is no matter of any that its asset waits for.
            output: Some(if needs_room { output } else { DEAD_LETTER }),
        };
        let sequence = state.offsets.readmit(offset, whereabouts);
        state.backlog.end_wait(place.lane);
        Again::Take(Tag {
            partition: replay.partition,
            epoch: state.epoch,
            offset,
            sequence,
        })
    }

    /// The reader has seen the end of the partition in replay `number`, and has read all before `position`, be it records or not.
    ///
    /// That ends the replay only if the intake has received nothing beyond: an end may be an old one, or that of a broker that does
    /// not know the newest records yet. Otherwise the reader just goes on.
    pub fn saw_end(&mut self, number: u64, position: i64) {
        let Some(mut replay) = self.replay.take_if(|replay| replay.number == number) else {
            return;
        };
        let Some(state) = self.partitions.get(&replay.partition) else {
            return;
        };
        if replay.reached.max(position) >= state.offsets.received() {
            replay.reached = state.offsets.next();
            self.finish(replay);
        } else {
            self.replay = Some(replay);
        }
    }

    /// The records before `low` have expired while they were parked. Returns how many offsets are gone.
    pub fn expired(&mut self, partition: PartitionId, low: i64) -> i64 {
        self.replay.take_if(|replay| replay.is_of(partition));
        let Some(state) = self.partitions.get_mut(&partition) else {
            return 0;
        };
        let gone = state.backlog.from().map_or(0, |from| low.saturating_sub(from).max(0));
        state.backlog.expire(low, state.offsets.next());
        self.forget_older_rings();
        gone
    }

    /// The reader failed: the replay begins anew from where it was.
    pub fn stop_reading(&mut self) {
        if let Some(replay) = self.replay.take() {
            self.finish(replay);
        }
    }

    /// The reader came upon what cannot be read. Nothing is read again of the partition before [`Dispatcher::go_on_reading`]. Returns
    /// the partition and how far the replay came.
    pub fn hold_reading(&mut self) -> Option<(PartitionId, i64)> {
        let replay = self.replay.take()?;
        let (partition, reached) = (replay.partition, replay.reached);
        self.finish(replay);
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

    /// Ends a replay: what it has not left out was brought as far as it reached.
    fn finish(&mut self, replay: Replay) {
        let Some(state) = self.partitions.get_mut(&replay.partition) else {
            return;
        };
        // All that is in front of the intake was read again: from here on they come by themselves.
        state
            .backlog
            .finish(replay.reached, state.offsets.next(), &replay.left_out);
        self.forget_older_rings();
    }
}
