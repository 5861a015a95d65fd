//! The rings of all forwarders, as far as they are known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use forwarder::router::{Answer, Table};

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
#[derive(Debug, Default)]
pub struct Rings(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether all rings were read once.
    read: bool,
    /// Forwarders that there are.
    forwarders: BTreeSet<Key>,
    rings: BTreeMap<Key, Known>,
}

/// What is known of a forwarder's ring.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The last one that could be read.
    table: Option<Arc<Table>>,
    /// Whether its document says that there are no members now.
    idle: bool,
    /// Whether there is a document. One that a person has deleted is made anew; until then the last one holds.
    is_there: bool,
}

/// What a ring's document says.
#[derive(Clone, Debug)]
pub enum Document {
    /// A ring.
    Ring(Arc<Table>),
    /// There are no members now.
    Idle,
    /// It cannot be read.
    Broken,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
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
        "there are several AssetForwarders; name one by ?forwarder=namespace/name, or ask \
         GET /forwarders/{{namespace}}/{{name}}/asset/{{id}}"
    )]
    Several(Vec<Key>),
}

impl Rings {
    pub(super) fn answer(&self, forwarder: &Key, asset: String) -> Result<Answer, NoAnswer> {
        self.with(|state| state.table(forwarder))
            .and_then(|table| table.answer(asset).ok_or_else(|| NoAnswer::NoRing(forwarder.clone())))
    }

    /// The answer of the only forwarder that there is.
    pub(super) fn answer_of_only(&self, asset: String) -> Result<Answer, NoAnswer> {
        let mut keys = self.with(|state| state.read.then(|| state.keys()).ok_or(NoAnswer::NotRead))?;
        match (keys.pop(), keys.is_empty()) {
            (None, _) => Err(NoAnswer::None),
            (Some(only), true) => self.answer(&only, asset),
            (Some(last), false) => {
                keys.push(last);
                Err(NoAnswer::Several(keys))
            }
        }
    }

    /// All forwarders with the epoch of their ring.
    pub(super) fn list(&self) -> Result<Vec<(Key, Option<u64>)>, NoAnswer> {
        self.with(|state| {
            if !state.read {
                return Err(NoAnswer::NotRead);
            }
            let epoch = |key: &Key| state.table(key).ok().map(|table| table.epoch());
            Ok(state.keys().into_iter().map(|key| (key.clone(), epoch(&key))).collect())
        })
    }

    /// A forwarder is there.
    pub fn forwarder_seen(&self, key: Key) {
        self.change(|state| {
            state.forwarders.insert(key);
        });
    }

    /// A forwarder is gone.
    pub fn forwarder_gone(&self, key: &Key) {
        self.change(|state| {
            state.forwarders.remove(key);
            state.tidy();
        });
    }

    /// These are all forwarders.
    pub fn forwarders_listed(&self, keys: BTreeSet<Key>) {
        self.change(|state| {
            state.forwarders = keys;
            state.tidy();
        });
    }

    /// A ring's document is there.
    pub fn ring_seen(&self, key: Key, document: Document) {
        self.change(|state| {
            let known = state.rings.entry(key).or_default();
            known.is_there = true;
            match document {
                Document::Ring(table) => (known.table, known.idle) = (Some(table), false),
                Document::Idle => known.idle = true,
                // The last good one goes on: the forwarders do the same.
                Document::Broken => {}
            }
        });
    }

    /// A ring's document is gone.
    pub fn ring_gone(&self, key: &Key) {
        self.change(|state| {
            if let Some(known) = state.rings.get_mut(key) {
                known.is_there = false;
            }
            state.tidy();
        });
    }

    /// These are all rings' documents, and each has been seen.
    pub fn rings_listed(&self, keys: &BTreeSet<Key>) {
        self.change(|state| {
            state.read = true;
            for (key, known) in &mut state.rings {
                known.is_there = keys.contains(key);
            }
            state.tidy();
        });
    }

    fn with<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        // Every change is whole, so a panic elsewhere has left nothing half done.
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    fn keys(&self) -> Vec<Key> {
        let all: BTreeSet<&Key> = self.forwarders.iter().chain(self.rings.keys()).collect();
        all.into_iter().cloned().collect()
    }

    fn table(&self, key: &Key) -> Result<Arc<Table>, NoAnswer> {
        match self.rings.get(key) {
            Some(Known { idle: true, .. }) => Err(NoAnswer::Idle(key.clone())),
            Some(Known { table: Some(table), .. }) => Ok(Arc::clone(table)),
            Some(Known { table: None, .. }) => Err(NoAnswer::NoRing(key.clone())),
            None if !self.read => Err(NoAnswer::NotRead),
            None if self.forwarders.contains(key) => Err(NoAnswer::NoRing(key.clone())),
            None => Err(NoAnswer::Unknown(key.clone())),
        }
    }

    /// Forgets the rings of forwarders that are gone with their documents.
    fn tidy(&mut self) {
        let Self {
            read: _,
            forwarders,
            rings,
        } = self;
        rings.retain(|key, known| known.is_there || forwarders.contains(key));
    }
}
