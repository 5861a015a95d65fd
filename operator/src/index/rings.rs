//! The rings of all forwarders, as far as they are known.
//!
//! Anybody may write a ConfigMap with the labels of a ring. So a ring counts only while there is a forwarder of that name and UID; the
//! watches of both may tell of them in any order.

mod known;
pub mod map;
mod progress;
pub(crate) mod state;
pub(crate) mod tables;
pub(crate) mod turn;
pub(crate) mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use forwarder_core::fanout::ring::LeanRing;
use forwarder_core::fanout::table::{Answer, Summary};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch as signal;

pub(crate) use self::known::Phase;
pub(crate) use self::progress::{Progress, Watched};
use self::state::{Live, State, cost};
use self::tables::{NoTable, Tables};

/// Bytes of all rings together, at most: a thousand rings of a hundred clusters. Those of no forwarder give way first, then the
/// namespace that has most of them.
const MOST_BYTES: usize = 16 << 20;

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
    /// Whoever waits for a change sees the newest state then: there is no queue.
    changed: signal::Sender<()>,
}

/// The rings of a forwarder at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The UID of the forwarder.
    pub(crate) uid: String,
    /// The ring as it is written.
    pub(crate) written: Arc<Summary>,
    /// The oldest ring that pods may still use beside it, as far as this process knows.
    pub(crate) before: Option<Arc<Summary>>,
    /// How far the written ring is.
    pub(crate) phase: Phase,
}

impl View {
    /// The ring in use. Where the router does not know it, the ring as written.
    pub(crate) fn in_use(&self) -> &Arc<Summary> {
        self.before.as_ref().unwrap_or(&self.written)
    }

    /// The same for all views that give the same answers, in every replica. It begins with the epoch.
    pub(crate) fn identity(&self) -> String {
        let mut hash = Sha256::new()
            .chain_update(self.written.digest())
            .chain_update(self.phase.name());
        if let Some(before) = &self.before {
            hash.update(before.digest());
        }
        hash.update(&self.uid);
        let digest: [u8; 32] = hash.finalize().into();
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{hex}", self.written.epoch())
    }
}

/// Who owns what by each ring of a view.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    /// By the ring as written.
    pub(crate) written: Arc<LeanRing>,
    /// By the ring before it.
    pub(crate) before: Option<Arc<LeanRing>>,
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
    #[error("the AssetForwarder {0} has no clusters now, so no cluster owns the asset")]
    Idle(Key),
    #[error(
        "the router does not keep the ring of the AssetForwarder {0}: the rings of its namespace are too large. Delete some, or \
         name fewer servers"
    )]
    NoRoom(Key),
    #[error("the router cannot use the ring of the AssetForwarder {0}: {1}")]
    NoTable(Key, NoTable),
    #[error(
        "there are several AssetForwarders; name one with ?forwarder=namespace/name, or use GET \
         /forwarders/{{namespace}}/{{name}}/asset/{{id}}"
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
            changed: signal::Sender::default(),
        }
    }

    /// Who owns an asset by the ring in use.
    pub(crate) async fn answer(&self, forwarder: &Key, asset: String) -> Result<Answer, NoAnswer> {
        let view = self.view(forwarder)?;
        let summary = view.in_use();
        let ring = self.table(forwarder, summary).await?;
        let answer = summary.answer(&ring, asset);
        answer.ok_or_else(|| NoAnswer::NoRing(forwarder.clone()))
    }

    /// The only forwarder that there is.
    pub(crate) fn only(&self) -> Result<Key, NoAnswer> {
        let mut keys = self.with_state(State::keys)?;
        match (keys.pop(), keys.is_empty()) {
            (None, _) => Err(NoAnswer::None),
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                keys.push(last);
                Err(NoAnswer::Several(keys))
            }
        }
    }

    /// The rings of a forwarder.
    pub(crate) fn view(&self, forwarder: &Key) -> Result<View, NoAnswer> {
        self.with_state(|state| state.view(forwarder))
    }

    /// Who owns what by the rings of a view.
    pub(crate) async fn owners(&self, forwarder: &Key, view: &View) -> Result<Owners, NoAnswer> {
        Ok(Owners {
            written: self.table(forwarder, &view.written).await?,
            before: match &view.before {
                Some(before) => Some(self.table(forwarder, before).await?),
                None => None,
            },
        })
    }

    async fn table(&self, forwarder: &Key, summary: &Summary) -> Result<Arc<LeanRing>, NoAnswer> {
        let table = self.tables.of(&forwarder.namespace, summary.shape()).await;
        table.map_err(|why| NoAnswer::NoTable(forwarder.clone(), why))
    }

    /// The UID of a forwarder.
    pub(crate) fn uid(&self, forwarder: &Key) -> Result<String, NoAnswer> {
        self.with_state(|state| match state.forwarders.get(forwarder) {
            Some(live) => Ok(live.uid.clone()),
            None if state.forwarders_read => Err(NoAnswer::Unknown(forwarder.clone())),
            None => Err(NoAnswer::NotRead),
        })
    }

    /// Tells after each change that there was one. Several in a row are one.
    pub(crate) fn changes(&self) -> signal::Receiver<()> {
        self.changed.subscribe()
    }

    /// All forwarders with the epoch of their ring in use.
    pub(crate) fn list(&self) -> Result<Vec<(Key, Option<u64>)>, NoAnswer> {
        self.with_state(|state| {
            let epoch = |key: &Key| state.view(key).ok().map(|view| view.in_use().epoch());
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

    /// A forwarder of this UID is there, and what its status says of its ring.
    pub fn forwarder_seen(&self, key: Key, uid: String, progress: Progress) {
        self.change(|state| {
            let id = (key, uid);
            if !state.is_live(&id) && state.has_forgotten && !state.rings.contains_key(&id) {
                state.unread.insert(id.0.clone());
            }
            let (key, uid) = id;
            state.forwarders.insert(key.clone(), Live { uid, progress });
            state.settle(&key);
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
                Document::Ring(summary) => known.written(summary),
                Document::Idle => known.idle = true,
                // The last good one goes on: the forwarders do the same.
                Document::Broken => {}
            }
            state.bytes = (state.bytes + cost(&id, known)).saturating_sub(before);
            state.settle(&key);
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
        self.changed.send_replace(());
    }
}
