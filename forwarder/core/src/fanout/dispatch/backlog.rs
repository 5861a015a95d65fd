//! What is parked of a partition: records of which only the place is known, to be read again from Kafka.
//!
//! A *class* is a set of assets: those that one cluster owns. Once a class is parked from some offset on, every later
//! record of it is parked too, until all of them were read again: so its order is kept, and one number describes it.
//!
//! When the ring changes while something is parked, a class is split by who owns its assets now. It is named by the
//! clusters that owned it under each ring since, oldest first: the last one is where its records are to go.
//!
//! A single asset is a class of its own, named by its lane, where its cluster refuses one of its records. It then belongs to no other
//! class: what its cluster's class has parked of it, it has too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::RingEpoch;

/// The ways that assets have gone over several rings, by the rings' epochs: the same for all partitions, and dear to find.
#[derive(Debug, Default)]
pub(super) struct Ways(BTreeMap<Vec<u64>, BTreeSet<Vec<u32>>>);

impl Ways {
    /// The outputs under each of the rings, for each arc of them all.
    fn of(&mut self, ring_epochs: &[RingEpoch]) -> &BTreeSet<Vec<u32>> {
        let epochs = ring_epochs.iter().map(|ring_epoch| ring_epoch.epoch).collect();
        self.0.entry(epochs).or_insert_with(|| {
            let mut nodes: Vec<_> = ring_epochs
                .iter()
                .flat_map(|ring_epoch| ring_epoch.ring.positions())
                .collect();
            nodes.sort_unstable();
            nodes.dedup();
            // Owners change at nodes only, so one place for each arc between them is enough: its first one.
            let ways = nodes.into_iter().map(|node| {
                let owners = ring_epochs
                    .iter()
                    .map(|ring_epoch| ring_epoch.output(ring_epoch.ring.owner_at(node)));
                owners.collect::<Vec<u32>>()
            });
            ways.collect()
        })
    }
}

/// Which assets a class has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Those with these owners under the rings that name classes.
    Owners(Vec<u32>),
    /// The one of this lane.
    Lane(u64),
}

/// A class that is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    /// Its first record that was not read again.
    pub(super) from: i64,
    /// How many records were parked and not read again, as far as this process has seen them.
    pub(super) records: u64,
    /// When it was parked, in microseconds.
    pub(super) since: u64,
}

impl Parked {
    fn new(from: i64, now: u64) -> Self {
        Self {
            from,
            records: 0,
            since: now,
        }
    }
}

/// The output where a class is to go.
pub(super) fn owner(path: &[u32]) -> u32 {
    path.last().copied().unwrap_or_default()
}

/// See the module.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The rings that name the classes: more than one only as long as something of the older ones is to be done.
    ring_epochs: Vec<RingEpoch>,
    /// By the outputs under each of the rings.
    classes: BTreeMap<Vec<u32>, Parked>,
    /// By the lane.
    lanes: BTreeMap<u64, Parked>,
    /// Lanes that are not to be read again before a time, in microseconds.
    waits: BTreeMap<u64, u64>,
    path: Vec<u32>,
}

impl Backlog {
    pub(super) fn new(ring_epoch: RingEpoch) -> Self {
        Self {
            ring_epochs: vec![ring_epoch],
            classes: BTreeMap::new(),
            lanes: BTreeMap::new(),
            waits: BTreeMap::new(),
            path: Vec::new(),
        }
    }

    /// The class of an asset that `output` owns now.
    pub(super) fn class(&mut self, key: &[u8], lane: u64, output: u32) -> Class {
        if self.lanes.contains_key(&lane) {
            return Class::Lane(lane);
        }
        self.find_path(key, output);
        Class::Owners(self.path.clone())
    }

    fn find_path(&mut self, key: &[u8], output: u32) {
        self.path.clear();
        if let Some((_, older)) = self.ring_epochs.split_last() {
            let owners = older
                .iter()
                .map(|ring_epoch| ring_epoch.output(ring_epoch.ring.owner(key)));
            self.path.extend(owners);
        }
        self.path.push(output);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.lanes.is_empty()
    }

    pub(super) fn contains(&mut self, key: &[u8], lane: u64, output: u32) -> bool {
        if self.lanes.contains_key(&lane) {
            return true;
        }
        if self.classes.is_empty() {
            return false;
        }
        self.find_path(key, output);
        self.classes.contains_key(self.path.as_slice())
    }

    /// Parks a record: its class is parked from here on, if it is not yet.
    pub(super) fn park(&mut self, key: &[u8], lane: u64, output: u32, offset: i64, now: u64) {
        if let Some(parked) = self.lanes.get_mut(&lane) {
            parked.records += 1;
            return;
        }
        self.find_path(key, output);
        let class = self
            .classes
            .entry(self.path.clone())
            .or_insert(Parked::new(offset, now));
        class.records += 1;
    }

    /// Parks a record of a lane that is a class of its own from here on, at the latest.
    pub(super) fn park_lane(&mut self, lane: u64, offset: i64, now: u64) {
        self.keep_apart(lane, now);
        let parked = self.lanes.entry(lane).or_insert(Parked::new(offset, now));
        parked.from = parked.from.min(offset);
        parked.records += 1;
    }

    /// A lane becomes a class of its own. What its cluster's class has of it is its own now, if there is such a class.
    pub(super) fn keep_apart(&mut self, lane: u64, now: u64) {
        if self.classes.is_empty() || self.lanes.contains_key(&lane) {
            return;
        }
        if let Some(parked) = self.class_around(lane) {
            let from = parked.from;
            self.lanes.insert(lane, Parked::new(from, now));
        }
    }

    /// The class that a lane would belong to, if it were none of its own.
    fn class_around(&self, lane: u64) -> Option<&Parked> {
        let owners = self
            .ring_epochs
            .iter()
            .map(|ring_epoch| ring_epoch.output_of_lane(lane));
        self.classes.get(owners.collect::<Vec<u32>>().as_slice())
    }

    /// A lane that is a class of its own is not to be read again before that time, in microseconds.
    pub(super) fn wait(&mut self, lane: u64, until: u64) {
        if self.lanes.contains_key(&lane) {
            self.waits.insert(lane, until);
        }
    }

    /// Parks what an earlier owner of the partition had parked. Nothing is parked yet.
    pub(super) fn restore(&mut self, away: &[(String, i64)], lanes: &[(u64, i64)], now: u64) {
        let Some(ring_epoch) = self.ring_epochs.last() else {
            return;
        };
        for (name, from) in away {
            let Some(output) = ring_epoch.output_named(name) else {
                continue;
            };
            let class = self.classes.entry(vec![output]).or_insert(Parked::new(*from, now));
            class.from = class.from.min(*from);
        }
        for (lane, from) in lanes {
            let class = self.lanes.entry(*lane).or_insert(Parked::new(*from, now));
            class.from = class.from.min(*from);
        }
    }

    pub(super) fn get_mut(&mut self, class: &Class) -> Option<&mut Parked> {
        match class {
            Class::Owners(path) => self.classes.get_mut(path),
            Class::Lane(lane) => self.lanes.get_mut(lane),
        }
    }

    /// The classes of clusters, by their owners under each of the rings.
    pub(super) fn classes(&self) -> impl Iterator<Item = (&[u32], &Parked)> {
        self.classes.iter().map(|(path, parked)| (path.as_slice(), parked))
    }

    /// The lanes that are classes of their own.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (u64, &Parked)> {
        self.lanes.iter().map(|(lane, parked)| (*lane, parked))
    }

    /// The output of a lane's asset under the newest ring.
    pub(super) fn output_of_lane(&self, lane: u64) -> u32 {
        self.ring_epochs
            .last()
            .map_or(0, |ring_epoch| ring_epoch.output_of_lane(lane))
    }

    /// Where the classes begin that may be read again now; `None`: there are none. `may`: whether an output has room. `held`: whether a
    /// lane waits for its head. Lanes that had to [wait](Backlog::wait) have a turn of their own, `late`: they are read again and again,
    /// and must not keep the others from their turn.
    pub(super) fn ready(
        &self,
        next: i64,
        now: u64,
        late: bool,
        may: impl Fn(u32) -> bool,
        held: impl Fn(u64) -> bool,
    ) -> Option<i64> {
        let owners = self.classes.iter().filter(|(path, _)| !late && may(owner(path)));
        let lanes = self.lanes.iter();
        let lanes = lanes.filter(|(lane, parked)| {
            let turn = self.turn(**lane, now) == Some(late);
            turn && parked.from < next && !held(**lane) && may(self.output_of_lane(**lane))
        });
        let owners = owners.map(|(_, parked)| parked.from);
        owners.chain(lanes.map(|(_, parked)| parked.from)).min()
    }

    /// The classes that are not [ready](Backlog::ready).
    pub(super) fn not_ready(
        &self,
        now: u64,
        late: bool,
        may: impl Fn(u32) -> bool,
        held: impl Fn(u64) -> bool,
    ) -> BTreeSet<Class> {
        let owners = self.classes.keys().filter(|path| late || !may(owner(path)));
        let lanes = self.lanes.keys();
        let lanes = lanes.filter(|lane| {
            let turn = self.turn(**lane, now) == Some(late);
            !turn || held(**lane) || !may(self.output_of_lane(**lane))
        });
        let owners = owners.map(|path| Class::Owners(path.clone()));
        owners.chain(lanes.map(|lane| Class::Lane(*lane))).collect()
    }

    /// Whether a lane's turn is the late one; `None`: it has none yet.
    fn turn(&self, lane: u64, now: u64) -> Option<bool> {
        match self.waits.get(&lane) {
            None => Some(false),
            Some(until) => (*until <= now).then_some(true),
        }
    }

    /// A record of the lane is on its way again: what follows it need not wait.
    pub(super) fn end_wait(&mut self, lane: u64) {
        self.waits.remove(&lane);
    }

    /// How many classes there are.
    pub(super) fn len(&self) -> usize {
        self.classes.len() + self.lanes.len()
    }

    /// Whether a lane is a class of its own.
    pub(super) fn is_apart(&self, lane: u64) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// The lanes that are not to be read again before a time.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waits.keys().copied()
    }

    /// Forgets a lane as [`Backlog::forget_lanes`] does.
    pub(super) fn forget_lane(&mut self, lane: u64, next: i64) {
        let is_done = self.lanes.get(&lane).is_some_and(|parked| parked.from >= next);
        if is_done && self.class_around(lane).is_none() {
            self.lanes.remove(&lane);
            self.waits.remove(&lane);
        }
    }

    /// Brings all classes that are not left out to `reached` at least, and forgets those of which all in front of `next` was read.
    /// A lane stays its own class for as long as its cluster's class is parked, for that one has its records too.
    pub(super) fn finish(&mut self, reached: i64, next: i64, left_out: &BTreeSet<Class>) {
        self.classes.retain(|path, parked| {
            let left_out = !left_out.is_empty() && left_out.contains(&Class::Owners(path.clone()));
            if !left_out {
                parked.from = parked.from.max(reached);
            }
            parked.from < next || left_out
        });
        for (lane, parked) in &mut self.lanes {
            if !left_out.contains(&Class::Lane(*lane)) {
                parked.from = parked.from.max(reached);
            }
        }
        self.forget_lanes(next);
    }

    /// Forgets lanes of which nothing in front of `next` is parked, and that need be no class of their own any more.
    pub(super) fn forget_lanes(&mut self, next: i64) {
        let done = self.lanes.iter();
        let done = done.filter(|(lane, parked)| parked.from >= next && self.class_around(**lane).is_none());
        let done: Vec<u64> = done.map(|(lane, _)| *lane).collect();
        for lane in done {
            self.lanes.remove(&lane);
            self.waits.remove(&lane);
        }
    }

    /// What is before `low` is gone.
    pub(super) fn expire(&mut self, low: i64, next: i64) {
        for parked in self.all_mut() {
            parked.from = parked.from.max(low);
        }
        self.forget_done(next);
    }

    /// No record in `gap` can be read.
    pub(super) fn step_over(&mut self, gap: &Range<i64>) {
        for parked in self.all_mut().filter(|parked| gap.contains(&parked.from)) {
            parked.from = gap.end;
        }
    }

    /// Forgets the classes of which nothing in front of `next` is parked.
    pub(super) fn forget_done(&mut self, next: i64) {
        self.classes.retain(|_, parked| parked.from < next);
        self.forget_lanes(next);
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Parked> {
        self.classes.values_mut().chain(self.lanes.values_mut())
    }

    /// The first record that was not read again.
    pub(super) fn from(&self) -> Option<i64> {
        let all = self.classes.values().chain(self.lanes.values());
        all.map(|parked| parked.from).min()
    }

    /// The ring changes: each class is split by where its assets are from now on.
    pub(super) fn change(&mut self, next: &RingEpoch, ways: &mut Ways) {
        self.ring_epochs.push(next.clone());
        if self.classes.is_empty() {
            return;
        }
        let ways = ways.of(&self.ring_epochs);
        for (class, parked) in std::mem::take(&mut self.classes) {
            let heirs = || ways.range(class.clone()..).take_while(|way| way.starts_with(&class));
            // How many are whose is not known before they are read.
            let records = parked.records / (heirs().count() as u64).max(1);
            for way in heirs() {
                self.classes.insert(way.clone(), Parked { records, ..parked });
            }
        }
    }

    /// Nothing of the older rings is to be done any more, if nothing is parked.
    pub(super) fn forget_older(&mut self) {
        if self.classes.is_empty() && self.ring_epochs.len() > 1 {
            let last = self.ring_epochs.len() - 1;
            self.ring_epochs.drain(..last);
        }
    }
}
