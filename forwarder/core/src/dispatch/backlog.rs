//! What is parked of a partition: records of which only the place is known, to be read again from Kafka.
//!
//! A *class* is a set of assets: those that one cluster owns. Once a class is parked from some offset on, every later
//! record of it is parked too, until all of them were read again: so its order is kept, and one number describes it.
//!
//! When the ring changes while something is parked, a class is split by who owns its assets now. It is named by the
//! clusters that owned it under each ring since, oldest first: the last one is where its records are to go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::commit::Ahead;
use crate::ring::Ring;

/// A ring in use, with the outlets of its members.
#[derive(Clone, Debug)]
pub struct Era {
    /// The ring's epoch.
    pub epoch: u64,
    /// The ring.
    pub ring: Arc<Ring>,
    outlets: Arc<[u32]>,
    fingerprint: u64,
}

impl Era {
    /// A ring; `outlets` are those of its members, in the ring's order.
    #[must_use]
    pub fn new(epoch: u64, ring: Arc<Ring>, outlets: Vec<u32>) -> Self {
        Self {
            epoch,
            fingerprint: ring.fingerprint(),
            ring,
            outlets: outlets.into(),
        }
    }

    /// The outlets of the members.
    #[must_use]
    pub fn outlets(&self) -> &[u32] {
        &self.outlets
    }

    /// See [`Ring::fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The outlet of the ring's member.
    #[must_use]
    pub fn outlet(&self, owner: usize) -> u32 {
        self.outlets[owner]
    }

    /// The outlet of a lane's assets.
    #[must_use]
    pub fn outlet_of_lane(&self, lane: u64) -> u32 {
        self.outlets[self.ring.owner_of_lane(lane)]
    }

    /// The outlet of a member.
    #[must_use]
    pub fn outlet_named(&self, name: &str) -> Option<u32> {
        let index = self.ring.names().iter().position(|member| member == name)?;
        self.outlets.get(index).copied()
    }

    /// The member of an outlet.
    #[must_use]
    pub fn name_of(&self, outlet: u32) -> Option<&str> {
        let index = self.outlets.iter().position(|member| *member == outlet)?;
        Some(self.ring.name(index))
    }

    /// Whether what was told is about this ring and its members.
    #[must_use]
    pub fn is_told_by(&self, ahead: &Ahead) -> bool {
        let known = |(name, _): &(String, i64)| self.outlet_named(name).is_some();
        ahead.members == self.fingerprint && ahead.away.iter().all(known)
    }
}

/// The ways that assets have gone over several rings, by the rings' epochs: the same for all partitions, and dear to find.
#[derive(Debug, Default)]
pub(super) struct Ways(BTreeMap<Vec<u64>, BTreeSet<Vec<u32>>>);

impl Ways {
    /// The outlets under each of the rings, for each arc of them all.
    fn of(&mut self, eras: &[Era]) -> &BTreeSet<Vec<u32>> {
        let epochs = eras.iter().map(|era| era.epoch).collect();
        self.0.entry(epochs).or_insert_with(|| {
            let mut nodes: Vec<_> = eras.iter().flat_map(|era| era.ring.positions()).collect();
            nodes.sort_unstable();
            nodes.dedup();
            // Owners change at nodes only, so one place for each arc between them is enough: its first one.
            let ways = nodes.into_iter().map(|node| {
                let owners = eras.iter().map(|era| era.outlet(era.ring.owner_at(node)));
                owners.collect::<Vec<u32>>()
            });
            ways.collect()
        })
    }
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

/// See the module.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The rings that name the classes: more than one only as long as something of the older ones is to be done.
    eras: Vec<Era>,
    /// By the outlets under each of the rings.
    classes: BTreeMap<Vec<u32>, Parked>,
    path: Vec<u32>,
}

impl Backlog {
    pub(super) fn new(era: Era) -> Self {
        Self {
            eras: vec![era],
            classes: BTreeMap::new(),
            path: Vec::new(),
        }
    }

    /// The class of an asset that `outlet` owns now.
    pub(super) fn class(&mut self, key: &[u8], outlet: u32) -> &[u32] {
        self.path.clear();
        if let Some((_, older)) = self.eras.split_last() {
            let owners = older.iter().map(|era| era.outlet(era.ring.owner(key)));
            self.path.extend(owners);
        }
        self.path.push(outlet);
        &self.path
    }

    pub(super) fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    pub(super) fn contains(&mut self, key: &[u8], outlet: u32) -> bool {
        if self.classes.is_empty() {
            return false;
        }
        self.class(key, outlet);
        self.classes.contains_key(self.path.as_slice())
    }

    /// Parks a record: its class is parked from here on, if it is not yet.
    pub(super) fn park(&mut self, key: &[u8], outlet: u32, offset: i64, now: u64) {
        self.class(key, outlet);
        let class = self.classes.entry(self.path.clone()).or_insert(Parked {
            from: offset,
            records: 0,
            since: now,
        });
        class.records += 1;
    }

    /// Parks what an earlier owner of the partition had parked. Nothing is parked yet.
    pub(super) fn restore(&mut self, away: &[(String, i64)], now: u64) {
        let Some(era) = self.eras.last() else { return };
        for (name, from) in away {
            let Some(outlet) = era.outlet_named(name) else { continue };
            let class = self.classes.entry(vec![outlet]).or_insert(Parked {
                from: *from,
                records: 0,
                since: now,
            });
            class.from = class.from.min(*from);
        }
    }

    pub(super) fn get_mut(&mut self, class: &[u32]) -> Option<&mut Parked> {
        self.classes.get_mut(class)
    }

    pub(super) fn classes(&self) -> impl Iterator<Item = (&[u32], &Parked)> {
        self.classes.iter().map(|(class, parked)| (class.as_slice(), parked))
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&[u32], &mut Parked) -> bool) {
        self.classes.retain(|class, parked| keep(class, parked));
    }

    /// The first record that was not read again.
    pub(super) fn from(&self) -> Option<i64> {
        self.classes.values().map(|parked| parked.from).min()
    }

    /// The ring changes: each class is split by where its assets are from now on.
    pub(super) fn change(&mut self, next: &Era, ways: &mut Ways) {
        self.eras.push(next.clone());
        if self.classes.is_empty() {
            return;
        }
        let ways = ways.of(&self.eras);
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
        if self.classes.is_empty() && self.eras.len() > 1 {
            let last = self.eras.len() - 1;
            self.eras.drain(..last);
        }
    }
}
