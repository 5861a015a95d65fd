//! What the engine decides about records between Kafka and the outlets: who gets a record, who waits, what is parked,
//! what may be committed.
//!
//! ```text
//!   receive ──▶ taken ──▶ enter ──┬──────────────▶ batch of its cluster ──▶ settle ──▶ commit point
//!      │                          │                     ▲    │
//!      │                          └─▶ held (its asset   │    └─▶ given back (the old owner did not answer)
//!      │                              moves) ───────────┘              │
//!      └──▶ parked (only its place is kept) ──▶ read again ─▶ enter    └─▶ held, before all that came since
//! ```
//!
//! Pure: no Kafka, no socket, no clock (time is an argument, in microseconds since any fixed moment). The forwarder's
//! intake performs what is decided here; the simulation in this crate's tests drives the same code by seeds.
//!
//! **Assignments.** A partition has an epoch for each time it is assigned. What an older epoch reports is ignored.
//!
//! **Ring changes.** An asset whose owner changes while records of its are out waits until these are settled by the old
//! owner; what comes meanwhile is held back. If the old owner does not answer in time, it is asked to give them back, and
//! they go to the new one, in order. All other assets go on.
//!
//! **Held assets.** An outlet that is denied a record closes the record's lane: see `held`. That asset alone is parked.
//!
//! **Parking.** Past its cap, a cluster that is away (or very slow) keeps nobody waiting: new records of its are parked,
//! and read again when it has room. So memory does not grow with the length of an outage.

mod backlog;
mod commits;
mod damage;
mod handover;
mod held;
mod pass;
mod rings;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use self::backlog::Backlog;
pub use self::backlog::Era;
use self::handover::HandOver;
pub use self::held::Closed;
use self::held::HeldLanes;
use self::pass::Pass;
pub use self::pass::{Again, Job};
use crate::delivery::DEAD_LETTER;
use crate::delivery::caps::{Caps, Limits, Load};
use crate::delivery::commit::{Ahead, CommitPoint};
use crate::delivery::offsets::{Offsets, Tag, Whereabouts};
use crate::fanout::ring::Place;

/// A routed record as the dispatcher sees it.
pub trait Freight {
    /// Which record it is.
    fn tag(&self) -> Tag;
    /// Its asset's lane.
    fn lane(&self) -> u64;
    /// What counts against the caps, in bytes.
    fn weight(&self) -> usize;
}

/// What to do with a record that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is ours to deliver: make a message of it, then [`Dispatcher::enter`], [`Dispatcher::bury`] or
    /// [`Dispatcher::settle`].
    Take(Tag),
    /// Only its place is kept; it is read again later.
    Parked,
    /// Not ours, or seen before.
    Unwanted,
}

/// What a partition of ours is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its records are taken.
    Active,
    /// It is being given up: what is out is awaited.
    Draining,
    /// Its committed offset is gone, and the policy is to leave that to a person.
    Stopped,
    /// Kafka gave a batch that cannot be read, perhaps of this partition: nothing is taken before its next record was looked at.
    Examined,
    /// The batch at this offset cannot be read, and the policy is to leave that to a person.
    Damaged(i64),
    /// Others have delivered under a newer ring than ours, of this epoch: it waits until we have it too.
    Behind(u64),
    /// Others have delivered under an older ring than ours: it waits until the broker has committed that a successor needs
    /// ours.
    Announcing,
    /// Others have delivered under another ring of our epoch: it waits until we have a newer one.
    Contested,
    /// Kafka has not said yet where it begins.
    Sought,
}

impl Phase {
    /// The least epoch that the ring must have for the partition to be taken, where the one in use, of epoch `ring`, is too low.
    #[must_use]
    pub const fn awaits(self, ring: u64) -> Option<u64> {
        match self {
            Self::Behind(epoch) => Some(epoch),
            Self::Contested => Some(ring.saturating_add(1)),
            Self::Active
            | Self::Draining
            | Self::Stopped
            | Self::Examined
            | Self::Damaged(_)
            | Self::Announcing
            | Self::Sought => None,
        }
    }
}

/// What the partition is doing, for people.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => f.write_str("active"),
            Self::Draining => f.write_str("draining"),
            Self::Stopped => f.write_str("stopped: the committed offset is gone"),
            Self::Examined => f.write_str("reads anew: Kafka gave a batch that cannot be read"),
            Self::Damaged(offset) => write!(f, "stopped: the batch at offset {offset} is damaged in Kafka"),
            Self::Behind(epoch) => write!(f, "waits for ring epoch {epoch}"),
            Self::Announcing => f.write_str("announces its ring"),
            Self::Contested => {
                f.write_str("waits for a higher ring epoch: others have delivered under another ring of this one")
            }
            Self::Sought => f.write_str("waits for Kafka to say where it begins"),
        }
    }
}

/// Where an assignment begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The first offset to receive.
    pub offset: i64,
    /// Members of the ring with the offset of the first of their records that is to be delivered, where that lies before
    /// `offset`.
    pub away: Vec<(String, i64)>,
    /// Lanes with the offset of the first of their records that is to be delivered, where that lies before `offset`. What is said of a
    /// lane goes before what is said of its cluster.
    pub lanes: Vec<(u64, i64)>,
    /// The fingerprint of the ring under which others have delivered, where it is known.
    pub members: Option<u64>,
    /// What is settled behind `offset`, as told under that ring if it is not ours.
    pub later: Option<Ahead>,
}

/// A partition that is ours.
#[derive(Debug)]
pub struct Partition {
    /// The assignment's epoch.
    pub epoch: u32,
    /// See [`Phase`].
    pub phase: Phase,
    /// The first offset that was to be received.
    start: i64,
    /// See [`Resume::members`].
    members: Option<u64>,
    /// See [`Resume::later`].
    later: Option<Ahead>,
    /// The least epoch of the ring that a commit may speak of: others have delivered under it.
    ring: u64,
    offsets: Offsets,
    backlog: Backlog,
    /// Nothing is read again for the time being: what comes next there cannot be read.
    backlog_held: bool,
    /// What the broker acknowledged.
    committed: Option<CommitPoint>,
}

impl Partition {
    /// Where the next record is expected.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.offsets.next()
    }

    /// One past the contiguous settled prefix.
    #[must_use]
    pub fn position(&self) -> i64 {
        let position = self.offsets.position();
        self.backlog.from().map_or(position, |from| from.min(position))
    }

    /// Records that are out.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.offsets.unsettled()
    }

    /// The offset that the broker acknowledged.
    #[must_use]
    pub fn committed(&self) -> Option<i64> {
        self.committed.as_ref().map(|point| point.position)
    }

    /// Whether a record that comes is taken. (One that is not taken would never come again.)
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.phase == Phase::Active
    }
}

/// What is parked of one cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParkedLoad {
    /// Records, as far as this process has seen them parked.
    pub records: u64,
    /// When the oldest of them was parked, in microseconds; `None`: nothing is parked.
    pub since: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Dispatcher<T> {
    caps: Caps,
    era: Era,
    /// Epoch and fingerprint of the ring that commits speak of: that of `era`, or the one that is to come.
    announced: (u64, u64),
    handover_timeout: u64,
    partitions: BTreeMap<i32, Partition>,
    /// Grows with every assignment of any partition.
    epoch: u32,
    hand_over: HandOver<T>,
    held: HeldLanes,
    pass: Option<Pass>,
    /// Where the last pass was, so that all partitions have their turn.
    last_pass: i32,
    /// Numbers the passes.
    passes: u64,
    /// Before that time, in microseconds, it is not asked again whether something may be read again.
    ask_again_at: u64,
    batches: BTreeMap<u32, Vec<T>>,
    now: u64,
}

impl<T: Freight> Dispatcher<T> {
    /// Nothing is assigned yet. `handover_timeout` is in microseconds.
    #[must_use]
    pub fn new(limits: Limits, era: Era, handover_timeout: u64) -> Self {
        let mut dispatcher = Self {
            caps: Caps::new(limits),
            announced: (era.epoch, era.fingerprint()),
            era,
            handover_timeout,
            partitions: BTreeMap::new(),
            epoch: 0,
            hand_over: HandOver::new(),
            held: HeldLanes::default(),
            pass: None,
            last_pass: -1,
            passes: 0,
            ask_again_at: 0,
            batches: BTreeMap::new(),
            now: 0,
        };
        dispatcher.make_outlets_known();
        dispatcher
    }

    // Assignments.

    /// Takes a partition; returns the assignment's epoch. `phase` says how the ring that its committed metadata names
    /// stands to ours: [`Phase::Active`] is for the same one.
    pub fn assign(&mut self, partition: i32, resume: &Resume, phase: Phase) -> u32 {
        self.remove(partition);
        self.epoch += 1;
        let mut backlog = Backlog::new(self.era.clone());
        backlog.restore(&resume.away, &resume.lanes, self.now);
        let state = Partition {
            epoch: self.epoch,
            phase,
            ring: match phase {
                Phase::Behind(epoch) => epoch,
                // Where it is to begin is not known: nothing may be committed for it, whatever becomes of it.
                Phase::Stopped | Phase::Sought => u64::MAX,
                // What it says must not be overwritten by a ring that is not theirs.
                Phase::Contested => self.era.epoch.saturating_add(1),
                Phase::Active | Phase::Draining | Phase::Announcing | Phase::Examined | Phase::Damaged(_) => 0,
            },
            members: resume.members,
            later: resume.later.clone(),
            start: resume.offset,
            offsets: Offsets::new(resume.offset),
            backlog,
            backlog_held: false,
            committed: None,
        };
        self.partitions.insert(partition, state);
        self.epoch
    }

    /// Says what a partition is doing.
    pub fn set_phase(&mut self, partition: i32, phase: Phase) {
        if let Some(state) = self.partitions.get_mut(&partition) {
            state.phase = phase;
        }
    }

    /// Gives a partition up. What outlets still have of it is to be abandoned by the caller.
    pub fn remove(&mut self, partition: i32) {
        if self.partitions.remove(&partition).is_none() {
            return;
        }
        self.pass.take_if(|pass| pass.is_of(partition));
        let Self { batches, caps, .. } = self;
        for (outlet, batch) in batches {
            batch.retain(|item| {
                let kept = item.tag().partition != partition;
                if !kept {
                    caps.leave(*outlet as usize, item.weight());
                }
                kept
            });
        }
        for item in self.hand_over.forget(partition) {
            self.caps.release(item.weight());
        }
        if !self.hand_over.is_empty() {
            self.rebuild_hand_over();
        }
        self.count_held();
    }

    /// The partitions that are ours.
    #[must_use]
    pub fn partitions(&self) -> &BTreeMap<i32, Partition> {
        &self.partitions
    }

    /// Records of a partition that are out at outlets which answer: what a drain may wait for. (Until it is over, the group
    /// leaves all partitions of this member alone, so one that does not answer would keep all the others waiting.)
    #[must_use]
    pub fn awaited(&self, partition: i32) -> usize {
        let state = self.partitions.get(&partition);
        let places = state.into_iter().flat_map(|state| state.offsets.whereabouts());
        // A refused record may be refused for days.
        let places = places.filter(|place| !self.held.contains(place.lane));
        let at = places.filter_map(|place| place.outlet.or_else(|| self.hand_over.awaits(place.lane)));
        at.filter(|outlet| !self.caps.stands_still(*outlet as usize)).count()
    }

    // Records.

    /// A record came whose asset is known. `place` is the key's in the ring in use.
    pub fn receive(&mut self, partition: i32, offset: i64, key: &[u8], place: Place) -> Admission {
        let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.is_taken()) else {
            return Admission::Unwanted;
        };
        let outlet = self.era.outlet(place.owner);
        let moves = self.hand_over.contains(place.lane);
        let full = self.caps.overflows(outlet as usize) || (moves && !self.caps.may_hold());
        let held = self.held.contains(place.lane);
        if full || held || state.backlog.contains(key, place.lane, outlet) {
            if !state.offsets.pass(offset) {
                return Admission::Unwanted;
            }
            if held {
                state.backlog.park_lane(place.lane, offset, self.now);
            } else {
                state.backlog.park(key, place.lane, outlet, offset, self.now);
            }
            return Admission::Parked;
        }
        let whereabouts = Whereabouts {
            lane: place.lane,
            outlet: (!moves).then_some(outlet),
        };
        Self::take(partition, state, offset, whereabouts)
    }

    /// A record came that belongs to no asset.
    pub fn receive_stray(&mut self, partition: i32, offset: i64) -> Admission {
        let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.is_taken()) else {
            return Admission::Unwanted;
        };
        let whereabouts = Whereabouts {
            lane: 0,
            outlet: Some(DEAD_LETTER),
        };
        Self::take(partition, state, offset, whereabouts)
    }

    fn take(partition: i32, state: &mut Partition, offset: i64, whereabouts: Whereabouts) -> Admission {
        match state.offsets.receive(offset, whereabouts) {
            Some(sequence) => Admission::Take(Tag {
                partition,
                epoch: state.epoch,
                offset,
                sequence,
            }),
            None => Admission::Unwanted,
        }
    }

    /// All records before `offset` have come: what follows the last one is none (a transaction's marks, say). Counts only
    /// once a record of this assignment has come, for only that proves that `offset` was read on its behalf.
    pub fn reached(&mut self, partition: i32, offset: i64) {
        let state = self.partitions.get_mut(&partition);
        if let Some(state) = state.filter(|state| state.is_taken() && state.offsets.received() > state.start) {
            state.offsets.skip(offset);
        }
    }

    /// The message of a record that was [taken](Admission::Take), for the ring's member `owner`.
    pub fn enter(&mut self, item: T, owner: usize) {
        let weight = item.weight();
        match self.hand_over.hold(item) {
            None => self.caps.hold(weight),
            Some(item) => {
                let outlet = self.era.outlet(owner);
                self.caps.enter(outlet as usize, weight);
                self.batches.entry(outlet).or_default().push(item);
            }
        }
    }

    /// A record that was taken goes to the dead letter instead of its cluster; it weighs so much.
    pub fn bury(&mut self, tag: Tag, weight: usize) {
        self.caps.enter(DEAD_LETTER as usize, weight);
        let Some(state) = self.current(tag) else { return };
        state.offsets.relocate(tag.sequence, tag.offset, Some(DEAD_LETTER));
    }

    /// A record has left an outlet, in whatever way; what became of it is said by one more call.
    pub fn leave(&mut self, outlet: u32, weight: usize) {
        self.caps.leave(outlet as usize, weight);
    }

    /// A record is settled: confirmed, dead-lettered, or invalid by declared policy.
    pub fn settle(&mut self, tag: Tag) {
        let Some(state) = self.current(tag) else { return };
        if let Some(Whereabouts {
            lane,
            outlet: Some(outlet),
        }) = state.offsets.settle(tag.sequence, tag.offset)
        {
            self.left(lane, outlet);
        }
    }

    /// A record that `outlet` had turned out to be undeliverable: it goes to the dead letter and weighs so much there.
    pub fn bury_from(&mut self, outlet: u32, tag: Tag, lane: u64, weight: usize) {
        self.bury(tag, weight);
        if self.current(tag).is_some() {
            self.left(lane, outlet);
        }
    }

    /// An outlet gave a record back, as [`Dispatcher::overdue`] had it asked to.
    pub fn take_back(&mut self, outlet: u32, item: T) {
        let (tag, lane, weight) = (item.tag(), item.lane(), item.weight());
        if self.held.is_recalled(lane) && !self.hand_over.contains(lane) {
            self.give_back(outlet, tag, lane);
            return;
        }
        let Some(state) = self.current(tag) else { return };
        state.offsets.relocate(tag.sequence, tag.offset, None);
        match self.hand_over.take_back(item) {
            Ok(()) => {
                self.caps.hold(weight);
                self.left(lane, outlet);
            }
            // Nobody waits for it: it goes where it belongs.
            Err(item) => {
                self.left_held(lane, outlet);
                self.send(item);
            }
        }
    }

    fn left(&mut self, lane: u64, outlet: u32) {
        self.left_held(lane, outlet);
        if self.hand_over.left(lane, outlet) {
            self.release(lane);
        }
    }

    /// Sends on what waited for its asset's earlier records.
    fn release(&mut self, lane: u64) {
        for item in self.hand_over.remove(lane) {
            self.caps.release(item.weight());
            self.send(item);
        }
        self.forget_older_rings();
    }

    fn send(&mut self, item: T) {
        let outlet = self.era.outlet_of_lane(item.lane());
        let tag = item.tag();
        if let Some(state) = self.current(tag) {
            state.offsets.relocate(tag.sequence, tag.offset, Some(outlet));
        }
        self.caps.enter(outlet as usize, item.weight());
        self.batches.entry(outlet).or_default().push(item);
    }

    /// What is to be handed to each outlet, in order.
    pub fn take_batches(&mut self, mut send: impl FnMut(u32, Vec<T>)) {
        for (outlet, batch) in &mut self.batches {
            if !batch.is_empty() {
                send(*outlet, std::mem::take(batch));
            }
        }
    }

    // Time and room.

    /// Takes note of the time and of how many records of each outlet are sent.
    pub fn look(&mut self, now: u64, sent: impl Fn(u32) -> usize) {
        self.now = now;
        self.caps.look(now, |outlet| sent(outlet as u32));
    }

    /// Lanes that an outlet is to give back: their assets have another owner, and it has not settled them in time. None as
    /// long as batches wait to be taken: an outlet asked before it has a record would not give that one back.
    pub fn overdue(&mut self) -> Vec<(u32, u64)> {
        if self.batches.values().any(|batch| !batch.is_empty()) {
            return Vec::new();
        }
        self.hand_over.overdue(self.now)
    }

    /// Whether another record may be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.caps.has_room()
    }

    /// Whether so much is free that a pause is worth ending.
    #[must_use]
    pub fn has_plenty(&self) -> bool {
        self.caps.has_plenty()
    }

    /// Whether nothing is out or held.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.caps.total().records == 0
    }

    /// All that is out or held.
    #[must_use]
    pub fn total(&self) -> Load {
        self.caps.total()
    }

    /// What an outlet has.
    #[must_use]
    pub fn load(&self, outlet: u32) -> Load {
        self.caps.load(outlet as usize)
    }

    /// Whether an outlet is so far behind that new records of its are parked.
    #[must_use]
    pub fn overflows(&self, outlet: u32) -> bool {
        self.caps.overflows(outlet as usize)
    }

    /// Records that are handed out and not sent yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.caps.unsent()
    }

    /// What is parked, by the outlet where it is to go.
    #[must_use]
    pub fn parked(&self) -> BTreeMap<u32, ParkedLoad> {
        let mut loads = BTreeMap::<u32, ParkedLoad>::new();
        for state in self.partitions.values() {
            let lanes = state.backlog.lanes();
            // A lane of which nothing is parked is kept apart for its cluster's sake.
            let lanes = lanes.filter(|(_, parked)| parked.from < state.offsets.next());
            let lanes = lanes.map(|(lane, parked)| (state.backlog.outlet_of_lane(lane), parked));
            let classes = state.backlog.classes();
            let classes = classes.map(|(path, parked)| (backlog::owner(path), parked));
            for (outlet, parked) in classes.chain(lanes) {
                let load = loads.entry(outlet).or_default();
                load.records += parked.records;
                load.since = Some(load.since.map_or(parked.since, |since| since.min(parked.since)));
            }
        }
        loads
    }

    /// Whether a record is still on its way on behalf of the present assignment.
    #[must_use]
    pub fn is_current(&self, tag: Tag) -> bool {
        self.partitions
            .get(&tag.partition)
            .is_some_and(|state| state.epoch == tag.epoch)
    }

    fn current(&mut self, tag: Tag) -> Option<&mut Partition> {
        self.partitions
            .get_mut(&tag.partition)
            .filter(|state| state.epoch == tag.epoch)
    }
}
