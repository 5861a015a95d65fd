//! Which rings are kept, and which give way.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use forwarder_core::fanout::table::Summary;
use tracing::warn;

use super::{Key, NoAnswer};

/// What an entry takes besides its texts and its ring, about: its place in a tree whose nodes are half full, and three allocations.
/// Without it, entries that hold no ring would cost nothing, and anybody may have any number of them kept.
pub(crate) const ENTRY: usize = 320;

/// What is known of forwarders and of rings' documents.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether all forwarders were read once.
    pub(super) forwarders_read: bool,
    /// Whether all rings were read once.
    pub(super) rings_read: bool,
    /// Forwarders that there are, with their UIDs.
    pub(super) forwarders: BTreeMap<Key, String>,
    /// What ConfigMaps say, by whom they belong to as they say.
    pub(super) rings: BTreeMap<Id, Known>,
    /// About how much memory all entries of `rings` take.
    pub(super) bytes: usize,
    /// Whether an entry without a forwarder was ever dropped. It stays true, since one read too many costs little.
    pub(super) has_forgotten: bool,
    /// Forwarders that were seen after such an entry may have been let go which was theirs. They are to be read again.
    pub(super) unread: BTreeSet<Key>,
}

/// A forwarder and its UID.
pub(super) type Id = (Key, String);

/// What is known of a forwarder's ring.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) ring: Last,
    /// Whether its document says that there are no members now.
    pub(super) idle: bool,
    /// Whether there is a document. One that a person has deleted is made anew; until then the last one holds.
    pub(super) is_there: bool,
}

/// The last ring that could be read.
#[derive(Clone, Debug, Default)]
pub(super) enum Last {
    #[default]
    None,
    Kept(Arc<Summary>),
    /// It was not kept: there was no room for so many bytes.
    NoRoom(usize),
}

impl State {
    pub(super) fn keys(&self) -> Result<Vec<Key>, NoAnswer> {
        if self.forwarders_read && self.rings_read {
            return Ok(self.forwarders.keys().cloned().collect());
        }
        Err(NoAnswer::NotRead)
    }

    pub(super) fn ring(&self, key: &Key) -> Result<Arc<Summary>, NoAnswer> {
        let uid = match self.forwarders.get(key) {
            Some(uid) => uid.clone(),
            None if self.forwarders_read => return Err(NoAnswer::Unknown(key.clone())),
            None => return Err(NoAnswer::NotRead),
        };
        let known = self.rings.get(&(key.clone(), uid));
        match known {
            Some(Known { idle: true, .. }) => Err(NoAnswer::Idle(key.clone())),
            Some(Known { ring, .. }) => match ring {
                Last::Kept(summary) => Ok(Arc::clone(summary)),
                Last::NoRoom(_) => Err(NoAnswer::NoRoom(key.clone())),
                Last::None => Err(NoAnswer::NoRing(key.clone())),
            },
            None if self.rings_read && !self.unread.contains(key) => Err(NoAnswer::NoRing(key.clone())),
            None => Err(NoAnswer::NotRead),
        }
    }

    /// A forwarder's ring has one name, so there is one document at most.
    pub(super) fn gone(&mut self, key: &Key) {
        let from = (key.clone(), String::new());
        let known = self.rings.range_mut(from..).take_while(|((of, _), _)| of == key);
        for (_, known) in known {
            known.is_there = false;
        }
    }

    /// Forgets the rings of a forwarder that is gone with its document.
    pub(super) fn tidy(&mut self, key: &Key) {
        let from = (key.clone(), String::new());
        let known = self.rings.range(from..).take_while(|((of, _), _)| of == key);
        let live = self.forwarders.get(key);
        let over = known.filter(|((_, uid), known)| !known.is_there && live != Some(uid));
        let over: Vec<_> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            let bytes = self.rings.remove(&id).map_or(0, |known| cost(&id, &known));
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// The same for all.
    pub(super) fn tidy_all(&mut self) {
        let Self { forwarders, rings, .. } = self;
        rings.retain(|(key, uid), known| known.is_there || forwarders.get(key) == Some(uid));
        self.bytes = self.rings.iter().map(|(id, known)| cost(id, known)).sum();
    }

    /// Lets rings go until all of them have `most` bytes: those of no forwarder first. Then those of the namespace that has most of them,
    /// the largest first.
    pub(super) fn fit(&mut self, most: usize) {
        if self.bytes <= most {
            return;
        }
        // Some more than needed: each search looks at all entries, and the next forged one is on its way.
        self.forget_those_of_nobody(most - most / 8);
        while self.bytes > most {
            let mut namespaces = BTreeMap::<&str, usize>::new();
            for ((key, _), known) in &self.rings {
                *namespaces.entry(&key.namespace).or_default() += known.bytes();
            }
            let largest = namespaces.into_iter().max_by_key(|(_, bytes)| *bytes);
            let Some(largest) = largest.map(|(namespace, _)| namespace.to_owned()) else {
                return;
            };
            let of_it = self.rings.iter_mut().filter(|(id, _)| id.0.namespace == largest);
            let with_ring = of_it.filter(|(_, known)| known.bytes() > 0);
            let Some((id, known)) = with_ring.max_by_key(|(_, known)| known.bytes()) else {
                // No ring is left: these are the entries of forwarders alone.
                return;
            };
            let its = known.bytes();
            warn!(forwarder = %id.0, bytes = its, "the router does not keep the ring: the rings of its namespace are too large");
            known.ring = Last::NoRoom(its);
            self.bytes = self.bytes.saturating_sub(its);
        }
    }

    /// Forgets entries without a forwarder until the rest has at most `most` bytes. It takes the largest one of the namespace that
    /// has most such bytes. Nothing of them is kept, because a forger chooses how many there are.
    fn forget_those_of_nobody(&mut self, most: usize) {
        let mut namespaces = BTreeMap::<&str, (usize, Vec<(usize, &Id)>)>::new();
        for (id, known) in &self.rings {
            if self.forwarders.get(&id.0) != Some(&id.1) {
                let (bytes, its) = namespaces.entry(&id.0.namespace).or_default();
                *bytes += cost(id, known);
                its.push((cost(id, known), id));
            }
        }
        let sorted = namespaces.into_values().map(|(bytes, mut its)| {
            its.sort_unstable();
            (bytes, its)
        });
        let mut largest: BinaryHeap<_> = sorted.collect();
        let mut over = Vec::new();
        let mut left = self.bytes;
        while left > most
            && let Some((bytes, mut its)) = largest.pop()
        {
            if let Some((cost, id)) = its.pop() {
                over.push(id.clone());
                left = left.saturating_sub(cost);
                largest.push((bytes.saturating_sub(cost), its));
            }
        }
        if over.is_empty() {
            return;
        }
        warn!(
            rings = over.len(),
            "the router has no room for rings without an AssetForwarder, and drops them"
        );
        self.has_forgotten = true;
        self.bytes = left;
        for id in over {
            self.rings.remove(&id);
        }
    }

    /// Whether a ring of a forwarder that was not kept would be kept now. Those of nobody would give way.
    pub(super) fn has_room(&self, most: usize) -> bool {
        let is_live = |(key, uid): &Id| self.forwarders.get(key) == Some(uid);
        let live = || self.rings.iter().filter(|(id, _)| is_live(id));
        let missing = live().filter_map(|(_, known)| match known.ring {
            Last::NoRoom(bytes) if known.is_there => Some(bytes),
            Last::NoRoom(_) | Last::None | Last::Kept(_) => None,
        });
        let bytes: usize = live().map(|(id, known)| cost(id, known)).sum();
        let least = missing.min();
        least.is_some_and(|least| bytes + least <= most)
    }
}

/// What an entry takes, with its ring.
pub(super) fn cost((key, uid): &Id, known: &Known) -> usize {
    let Key { namespace, name } = key;
    ENTRY + namespace.len() + name.len() + uid.len() + known.bytes()
}

impl Known {
    /// What its ring takes.
    fn bytes(&self) -> usize {
        match &self.ring {
            Last::Kept(summary) => summary.bytes(),
            Last::None | Last::NoRoom(_) => 0,
        }
    }
}
