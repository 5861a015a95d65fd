//! The rings of all forwarders, as far as they are known.
//!
//! Anybody may write a ConfigMap with the labels of a ring. So a ring counts only while there is a forwarder of that name and UID; the
//! watches of both may tell of them in any order.

pub mod map;
pub(crate) mod tables;
pub(crate) mod turn;
pub(crate) mod watch;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use forwarder_core::fanout::table::{Answer, Summary};
use tracing::warn;

use self::tables::{NoTable, Tables};

/// Bytes of all rings together, at most: a thousand rings of a hundred clusters. Those of no forwarder give way first, then the
/// namespace that has most of them.
const MOST_BYTES: usize = 16 << 20;

/// What an entry takes besides its texts and its ring, about: its place in a tree whose nodes are half full, and three allocations.
/// Without it, entries that hold no ring would cost nothing, and anybody may have any number of them kept.
pub(crate) const ENTRY: usize = 320;

/// A forwarder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// Reads `namespace/name`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains('/')).then(|| Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The rings of all forwarders. Readers get an answer whatever happens to the watches.
#[derive(Debug)]
pub struct Rings {
    state: RwLock<State>,
    tables: Tables,
    most_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Whether all forwarders were read once.
    forwarders_read: bool,
    /// Whether all rings were read once.
    rings_read: bool,
    /// Forwarders that there are, with their UIDs.
    forwarders: BTreeMap<Key, String>,
    /// What ConfigMaps say, by whom they belong to as they say.
    rings: BTreeMap<Id, Known>,
    /// About how much memory all entries of `rings` take.
    bytes: usize,
    /// Whether an entry of nobody was ever let go. Once true it stays: to read once more than needed costs little.
    has_forgotten: bool,
    /// Forwarders that were seen after such an entry may have been let go which was theirs. They are to be read again.
    unread: BTreeSet<Key>,
}

/// A forwarder and its UID.
type Id = (Key, String);

/// What is known of a forwarder's ring.
#[derive(Clone, Debug, Default)]
struct Known {
    ring: Last,
    /// Whether its document says that there are no members now.
    idle: bool,
    /// Whether there is a document. One that a person has deleted is made anew; until then the last one holds.
    is_there: bool,
}

/// The last ring that could be read.
#[derive(Clone, Debug, Default)]
enum Last {
    #[default]
    None,
    Kept(Arc<Summary>),
    /// It was not kept: there was no room for so many bytes.
    NoRoom(usize),
}

/// What a ring's document says.
#[derive(Clone, Debug)]
pub enum Document {
    /// A ring.
    Ring(Summary),
    /// There are no members now.
    Idle,
    /// It cannot be read.
    Broken,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the rings have not been read yet; ask again in a moment")]
    NotRead,
    #[error("there is no AssetForwarder")]
    None,
    #[error("there is no AssetForwarder {0}; GET /forwarders lists them")]
    Unknown(Key),
    #[error("the AssetForwarder {0} has no ring yet; its status says why")]
    NoRing(Key),
    #[error("the AssetForwarder {0} has no clusters now, so nobody owns the asset")]
    Idle(Key),
    #[error(
        "the ring of the AssetForwarder {0} is not kept: the rings of its namespace are too large; delete some, or name fewer servers"
    )]
    NoRoom(Key),
    #[error("the ring of the AssetForwarder {0} cannot be looked at: {1}")]
    NoTable(Key, NoTable),
    #[error(
        "there are several AssetForwarders; name one by ?forwarder=namespace/name, or ask \
         GET /forwarders/{{namespace}}/{{name}}/asset/{{id}}"
    )]
    Several(Vec<Key>),
}

impl Default for Rings {
    fn default() -> Self {
        Self::with(Tables::default(), MOST_BYTES)
    }
}

impl Rings {
    /// With these tables, and so many bytes of documents in all.
    pub(crate) fn with(tables: Tables, most_bytes: usize) -> Self {
        Self {
            state: RwLock::default(),
            tables,
            most_bytes,
        }
    }

    pub(crate) async fn answer(&self, forwarder: &Key, asset: String) -> Result<Answer, NoAnswer> {
        let summary = self.with_state(|state| state.ring(forwarder))?;
        let ring = self.tables.of(&forwarder.namespace, summary.shape()).await;
        let ring = ring.map_err(|why| NoAnswer::NoTable(forwarder.clone(), why))?;
        let answer = summary.answer(&ring, asset);
        answer.ok_or_else(|| NoAnswer::NoRing(forwarder.clone()))
    }

    /// The answer of the only forwarder that there is.
    pub(crate) async fn answer_of_only(&self, asset: String) -> Result<Answer, NoAnswer> {
        let mut keys = self.with_state(State::keys)?;
        match (keys.pop(), keys.is_empty()) {
            (None, _) => Err(NoAnswer::None),
            (Some(only), true) => self.answer(&only, asset).await,
            (Some(last), false) => {
                keys.push(last);
                Err(NoAnswer::Several(keys))
            }
        }
    }

    /// All forwarders with the epoch of their ring.
    pub(crate) fn list(&self) -> Result<Vec<(Key, Option<u64>)>, NoAnswer> {
        self.with_state(|state| {
            let epoch = |key: &Key| state.ring(key).ok().map(|ring| ring.epoch());
            Ok(state
                .keys()?
                .into_iter()
                .map(|key| (key.clone(), epoch(&key)))
                .collect())
        })
    }

    /// Whether all rings and all forwarders were read once.
    #[must_use]
    pub fn are_read(&self) -> bool {
        self.with_state(|state| state.forwarders_read && state.rings_read)
    }

    /// Whether a ring of a forwarder that was not kept would be kept if it was read now.
    pub(crate) fn are_to_be_read_again(&self) -> bool {
        self.with_state(|state| !state.unread.is_empty() || state.has_room(self.most_bytes))
    }

    /// A forwarder of this UID is there.
    pub fn forwarder_seen(&self, key: Key, uid: String) {
        self.change(|state| {
            let is_new = state.forwarders.get(&key) != Some(&uid);
            if is_new && state.has_forgotten && !state.rings.contains_key(&(key.clone(), uid.clone())) {
                state.unread.insert(key.clone());
            }
            state.forwarders.insert(key.clone(), uid);
            state.tidy(&key);
        });
    }

    /// A forwarder is gone.
    pub fn forwarder_gone(&self, key: &Key) {
        self.change(|state| {
            state.forwarders.remove(key);
            state.unread.remove(key);
            state.tidy(key);
        });
    }

    /// These are all forwarders, and each has been seen.
    pub fn forwarders_listed(&self, keys: &BTreeSet<Key>) {
        self.change(|state| {
            state.forwarders_read = true;
            state.forwarders.retain(|key, _| keys.contains(key));
            state.unread.retain(|key| keys.contains(key));
            state.tidy_all();
        });
    }

    /// A document is there that says it is the ring of a forwarder of this UID.
    pub fn ring_seen(&self, key: Key, uid: String, document: Document) {
        self.change(|state| {
            state.gone(&key);
            if state.forwarders.contains_key(&key) {
                state.unread.remove(&key);
            }
            let id = (key.clone(), uid);
            let before = state.rings.get(&id).map_or(0, |known| cost(&id, known));
            let known = state.rings.entry(id.clone()).or_default();
            known.is_there = true;
            match document {
                Document::Ring(summary) => (known.ring, known.idle) = (Last::Kept(Arc::new(summary)), false),
                Document::Idle => known.idle = true,
                // The last good one goes on: the forwarders do the same.
                Document::Broken => {}
            }
            state.bytes = (state.bytes + cost(&id, known)).saturating_sub(before);
            state.tidy(&key);
            state.fit(self.most_bytes);
        });
    }

    /// A ring's document is gone, or is no ring's any more.
    pub fn ring_gone(&self, key: &Key) {
        self.change(|state| {
            state.gone(key);
            state.unread.remove(key);
            state.tidy(key);
        });
    }

    /// These are all rings' documents, and each has been seen.
    pub fn rings_listed(&self, keys: &BTreeSet<Key>) {
        self.change(|state| {
            state.rings_read = true;
            for ((key, _), known) in &mut state.rings {
                known.is_there &= keys.contains(key);
            }
            // One that was let go while this list was read is still to be read.
            state.unread.retain(|key| keys.contains(key));
            state.tidy_all();
        });
    }

    /// About how much memory all entries take, and how many there are.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        self.with_state(|state| (state.bytes, state.rings.len()))
    }

    fn with_state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        // Every change is whole, so a panic elsewhere has left nothing half done.
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    fn keys(&self) -> Result<Vec<Key>, NoAnswer> {
        if self.forwarders_read && self.rings_read {
            return Ok(self.forwarders.keys().cloned().collect());
        }
        Err(NoAnswer::NotRead)
    }

    fn ring(&self, key: &Key) -> Result<Arc<Summary>, NoAnswer> {
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
    fn gone(&mut self, key: &Key) {
        let from = (key.clone(), String::new());
        let known = self.rings.range_mut(from..).take_while(|((of, _), _)| of == key);
        for (_, known) in known {
            known.is_there = false;
        }
    }

    /// Forgets the rings of a forwarder that is gone with its document.
    fn tidy(&mut self, key: &Key) {
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
    fn tidy_all(&mut self) {
        let Self { forwarders, rings, .. } = self;
        rings.retain(|(key, uid), known| known.is_there || forwarders.get(key) == Some(uid));
        self.bytes = self.rings.iter().map(|(id, known)| cost(id, known)).sum();
    }

    /// Lets rings go until all of them have `most` bytes: those of no forwarder first. Then those of the namespace that has most of them,
    /// the largest first.
    fn fit(&mut self, most: usize) {
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
            warn!(forwarder = %id.0, bytes = its, "the ring is not kept: the rings of its namespace are too large");
            known.ring = Last::NoRoom(its);
            self.bytes = self.bytes.saturating_sub(its);
        }
    }

    /// Forgets entries of no forwarder until all that are left have `most` bytes: of the namespace that has most of them, the largest
    /// first. Nothing of them stays, not even that they were there: whoever forges them chooses how many.
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
            "rings of no AssetForwarder are not kept: there is no room for them"
        );
        self.has_forgotten = true;
        self.bytes = left;
        for id in over {
            self.rings.remove(&id);
        }
    }

    /// Whether a ring of a forwarder that was not kept would be kept now. Those of nobody would give way.
    fn has_room(&self, most: usize) -> bool {
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
fn cost((key, uid): &Id, known: &Known) -> usize {
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
