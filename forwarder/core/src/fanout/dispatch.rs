//! What the engine decides about records between Kafka and the outputs: who gets a record, who waits, what is parked,
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
//! intake performs what is decided here. The crate `forwarder-simulation` drives the same code by seeds.
//!
//! **Assignments.** A partition has an epoch for each time it is assigned. What an older epoch reports is ignored.
//!
//! **Ring changes.** An asset whose owner changes while records of its are out waits until these are settled by the old
//! owner; what comes meanwhile is held back. If the old owner does not answer in time, it is asked to give them back, and
//! they go to the new one, in order. All other assets go on.
//!
//! **Grace.** Where it is declared, a ring that moves assets is not used before subscribers had time to learn of it: see `grace`. Which
//! rings they need no longer is in `left`.
//!
//! **Held assets.** An output that is denied a record closes the record's lane: see `held`. That asset alone is parked.
//!
//! **Parking.** Past its cap, a cluster that is away (or very slow) keeps nobody waiting: new records of its are parked,
//! and read again when it has room. So memory does not grow with the length of an outage.

mod assignments;
mod backlog;
mod commits;
mod damage;
mod grace;
mod handover;
mod held;
mod left;
mod partition;
mod records;
mod replay;
mod ring_epoch;
mod rings;
mod rings_used;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::grace::{Announced, Grace};
use self::handover::HandOver;
pub use self::held::Closed;
use self::held::HeldLanes;
pub use self::partition::{Partition, Phase, Resume};
use self::replay::Replay;
pub use self::replay::{Again, Job};
pub use self::ring_epoch::RingEpoch;
use crate::delivery::caps::{Caps, Limits, Load};
use crate::delivery::deliverable::Deliverable;
use crate::delivery::offsets::{SLACK, Tag};
use crate::delivery::partition::PartitionId;

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

/// What is parked of one cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParkedLoad {
    /// Records, as far as this process has seen them parked.
    pub records: u64,
    /// When the oldest of them was parked, in microseconds; `None`: nothing is parked.
    pub since: Option<u64>,
}

/// How much is done at a time, and after which pause something is tried again.
///
/// A forwarder takes the [default](Tuning::default). A test takes less of each, so that it gets to what comes only after much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Entries that the window of a partition may hold beyond what is unsettled:
    /// see [`Offsets::with_slack`](crate::delivery::offsets::Offsets::with_slack).
    pub slack: usize,
    /// Records that a replay looks at before another partition has its turn; at least one.
    pub quantum: u64,
    /// After which pause a lane is read again whose head was called back, in microseconds.
    pub retry: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            slack: SLACK,
            quantum: 50_000,
            retry: 30_000_000,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Dispatcher<T> {
    tuning: Tuning,
    caps: Caps,
    ring_epoch: RingEpoch,
    announced: Announced,
    /// How far subscribers know the ring in use.
    grace: Grace,
    /// The epoch of the newest ring before it that subscribers know from this process.
    known: Option<u64>,
    /// Some partition may wait for that grace.
    may_owe: bool,
    handover_timeout: u64,
    partitions: BTreeMap<PartitionId, Partition>,
    /// The last assignment epoch. It grows with every assignment of any partition.
    assignment_epoch: u32,
    hand_over: HandOver<T>,
    held: HeldLanes,
    replay: Option<Replay>,
    /// Where the last replay was, if there was one, so that all partitions have their turn.
    last_replayed: Option<PartitionId>,
    /// Numbers the replays.
    replays: u64,
    /// Before that time, in microseconds, it is not asked again whether something may be read again.
    ask_again_at: u64,
    batches: BTreeMap<u32, Vec<T>>,
    now: u64,
}

impl<T: Deliverable> Dispatcher<T> {
    /// Nothing is assigned yet. `handover_timeout` is in microseconds.
    #[must_use]
    pub fn new(limits: Limits, ring_epoch: RingEpoch, handover_timeout: u64) -> Self {
        Self::tuned(limits, ring_epoch, handover_timeout, Tuning::default())
    }

    /// As [`Dispatcher::new`], with another [`Tuning`].
    #[must_use]
    pub fn tuned(limits: Limits, ring_epoch: RingEpoch, handover_timeout: u64, tuning: Tuning) -> Self {
        let mut dispatcher = Self {
            tuning,
            caps: Caps::new(limits),
            announced: Announced::at_once(ring_epoch.epoch, ring_epoch.fingerprint()),
            grace: Grace::None,
            known: None,
            may_owe: false,
            ring_epoch,
            handover_timeout,
            partitions: BTreeMap::new(),
            assignment_epoch: 0,
            hand_over: HandOver::new(),
            held: HeldLanes::default(),
            replay: None,
            last_replayed: None,
            replays: 0,
            ask_again_at: 0,
            batches: BTreeMap::new(),
            now: 0,
        };
        dispatcher.make_outputs_known();
        dispatcher
    }

    /// Takes note of the time and of how many records of each output are sent.
    pub fn observe(&mut self, now: u64, sent: impl Fn(u32) -> usize) {
        self.now = now;
        self.caps.observe(now, |output| sent(output as u32));
        self.count_grace();
    }

    /// Lanes that an output is to give back: their assets have another owner, and it has not settled them in time. None as
    /// long as batches wait to be taken: an output asked before it has a record would not give that one back.
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

    /// All that is out or held, but for the refused records that outputs keep: those may stay for days.
    #[must_use]
    pub fn moving(&self) -> Load {
        self.caps.moving()
    }

    /// Records that wait for [`Dispatcher::take_batches`].
    #[must_use]
    pub fn batched(&self) -> usize {
        self.batches.values().map(Vec::len).sum()
    }

    /// Whether nobody has to wait: no record is held back, no asset waits for a refused one, and no output stands at its cap.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.caps.is_clear() && self.held.is_empty()
    }

    /// What an output has. One that is not known has nothing.
    #[must_use]
    pub fn load(&self, output: u32) -> Load {
        self.caps.load(output as usize)
    }

    /// Whether an output is so far behind that new records of its are parked.
    #[must_use]
    pub fn overflows(&self, output: u32) -> bool {
        self.caps.overflows(output as usize)
    }

    /// Records that are handed out and not sent yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.caps.unsent()
    }

    /// What is parked, by the output where it is to go.
    #[must_use]
    pub fn parked(&self) -> BTreeMap<u32, ParkedLoad> {
        let mut loads = BTreeMap::<u32, ParkedLoad>::new();
        for state in self.partitions.values() {
            let lanes = state.backlog.lanes();
            // A lane of which nothing is parked is kept apart for its cluster's sake.
            let lanes = lanes.filter(|(_, parked)| parked.from < state.offsets.next());
            let lanes = lanes.map(|(lane, parked)| (state.backlog.output_of_lane(lane), parked));
            let classes = state.backlog.classes();
            let classes = classes.map(|(path, parked)| (backlog::owner(path), parked));
            for (output, parked) in classes.chain(lanes) {
                let load = loads.entry(output).or_default();
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
