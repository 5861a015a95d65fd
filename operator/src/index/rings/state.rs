//! Which rings are kept, and which give way.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use tracing::warn;

use super::known::{Known, Last};
use super::progress::Progress;
use super::{Key, NoAnswer, View};

/// What an entry takes besides its texts and its ring, about: its place in a tree whose nodes are half full, and four allocations.
/// Without it, entries that hold no ring would cost nothing, and anybody may have any number of them kept.
pub(crate) const ENTRY: usize = 384;

/// What is known of forwarders and of rings' documents.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether all forwarders were read once.
    pub(super) forwarders_read: bool,
    /// Whether all rings were read once.
    pub(super) rings_read: bool,
    /// Forwarders that there are.
    pub(super) forwarders: BTreeMap<Key, Live>,
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

/// A forwarder that there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) uid: String,
    /// What its status says of the ring.
    pub(super) progress: Progress,
}

impl State {
    pub(super) fn keys(&self) -> Result<Vec<Key>, NoAnswer> {
        if self.forwarders_read && self.rings_read {
            return Ok(self.forwarders.keys().cloned().collect());
        }
        Err(NoAnswer::NotRead)
    }

    /// The rings of a forwarder.
    pub(super) fn view(&self, key: &Key) -> Result<View, NoAnswer> {
        let uid = match self.forwarders.get(key) {
            Some(live) => live.uid.clone(),
            None if self.forwarders_read => return Err(NoAnswer::Unknown(key.clone())),
            None => return Err(NoAnswer::NotRead),
        };
        let id = (key.clone(), uid);
        let known = self.rings.get(&id);
        match known {
            Some(Known { idle: true, .. }) => Err(NoAnswer::Idle(key.clone())),
            Some(known) => match &known.ring {
                Last::Kept(written) => Ok(View {
                    phase: known.phase(written),
                    written: Arc::clone(written),
                    before: known.before().cloned(),
                    uid: id.1,
                }),
                Last::NoRoom(_) => Err(NoAnswer::NoRoom(key.clone())),
                Last::None => Err(NoAnswer::NoRing(key.clone())),
            },
            None if self.rings_read && !self.unread.contains(key) => Err(NoAnswer::NoRing(key.clone())),
            None => Err(NoAnswer::NotRead),
        }
    }

    /// Whether there is a forwarder of this name and UID.
    pub(super) fn is_live(&self, (key, uid): &Id) -> bool {
        is_live(&self.forwarders, key, uid)
    }

    /// Has the rings of a forwarder follow its status.
    pub(super) fn settle(&mut self, key: &Key) {
        let Some(Live { uid, progress }) = self.forwarders.get(key) else {
            return;
        };
        let id = (key.clone(), uid.clone());
        if let Some(known) = self.rings.get_mut(&id) {
            let bytes = cost(&id, known);
            known.settle(*progress);
            self.bytes = (self.bytes + cost(&id, known)).saturating_sub(bytes);
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

    /// Forgets the rings of a forwarder that is gone with its document. Of one whose document is there, the rings from before.
    pub(super) fn tidy(&mut self, key: &Key) {
        let from = (key.clone(), String::new());
        let ids = self.rings.range(from..).map(|(id, _)| id);
        let of_nobody = ids.take_while(|(of, _)| of == key).filter(|id| !self.is_live(id));
        let of_nobody: Vec<Id> = of_nobody.cloned().collect();
        for id in of_nobody {
            let Some(known) = self.rings.get_mut(&id) else {
                continue;
            };
            let bytes = cost(&id, known);
            known.abandon();
            let mut left = cost(&id, known);
            if !known.is_there {
                self.rings.remove(&id);
                left = 0;
            }
            self.bytes = (self.bytes + left).saturating_sub(bytes);
        }
    }

    /// The same for all.
    pub(super) fn tidy_all(&mut self) {
        let Self { forwarders, rings, .. } = self;
        rings.retain(|(key, uid), known| {
            let is_live = is_live(forwarders, key, uid);
            if !is_live {
                known.abandon();
            }
            known.is_there || is_live
        });
        self.bytes = self.rings.iter().map(|(id, known)| cost(id, known)).sum();
    }

    /// Lets rings go until all of them have `most` bytes: those of no forwarder first. Then those of the namespace that has most of them.
    /// Of these the rings from before go first, and then the largest.
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
            let of_it = || self.rings.iter().filter(|(id, _)| id.0.namespace == largest);
            let past = of_it().max_by_key(|(_, known)| known.bytes_before());
            let past = past.filter(|(_, known)| known.bytes_before() > 0);
            let whole = of_it().max_by_key(|(_, known)| known.bytes());
            let whole = whole.filter(|(_, known)| known.bytes() > 0);
            // Where no ring is left, these are the entries of forwarders alone.
            let Some(id) = past.or(whole).map(|(id, _)| id.clone()) else {
                return;
            };
            let Some(known) = self.rings.get_mut(&id) else {
                return;
            };
            let its = known.bytes_before();
            if its > 0 {
                known.forget_before();
                self.bytes = self.bytes.saturating_sub(its);
                continue;
            }
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
            if !self.is_live(id) {
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
        let live = || self.rings.iter().filter(|(id, _)| self.is_live(id));
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

fn is_live(forwarders: &BTreeMap<Key, Live>, key: &Key, uid: &str) -> bool {
    forwarders.get(key).is_some_and(|live| live.uid == uid)
}
