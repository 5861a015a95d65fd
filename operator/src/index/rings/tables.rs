//! Who owns what, computed when somebody asks, and kept for a while.
//!
//! A ring may have a million virtual nodes, and anybody may declare many rings. So there is a bound for all of them together, and one
//! table is made at a time. Three rules keep a namespace with large rings from those of others:
//! - Small tables have a bound and a turn of their own. No large one takes their room, or is made before them.
//! - A namespace has [`MOST_BEGUN`] tables made or waiting at a time.
//! - A namespace that takes more than half of the room gives way before others do.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forwarder_core::document::MAX_RING_NODES;
use forwarder_core::fanout::ring::LeanRing;
use forwarder_core::fanout::table::Shape;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Mutex as Turn;
use tracing::{Instrument as _, debug, debug_span};

use super::turn::in_turn;

/// Virtual nodes of a small table, at most: 1 MiB, and some hundredths of a second to make it. By default a cluster has 128.
const SMALL: u64 = 1 << 16;

/// Virtual nodes of all small tables together, at most: 8 MiB.
const MOST_OF_SMALL: u64 = 1 << 19;

/// Virtual nodes of all large tables together, at most: 16 MiB. The largest ring fits alone.
const MOST_OF_LARGE: u64 = MAX_RING_NODES;

/// Tables of one namespace that are being made or wait for their turn, at most, among the small and among the large ones. All who ask for
/// one ring wait for one table.
const MOST_BEGUN: usize = 4;

/// The tables of the rings that were asked for last.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// Virtual nodes of a small table, at most.
    small_has: u64,
    small: Pool,
    large: Pool,
}

/// Tables that share their room and their turn.
#[derive(Clone, Debug)]
struct Pool {
    most: u64,
    kept: Arc<Mutex<Kept>>,
    /// Who makes a table holds it until the table is kept.
    turn: Arc<Turn<()>>,
}

#[derive(Debug, Default)]
struct Kept {
    tables: HashMap<Arc<Shape>, Table>,
    /// Those that are being made, or wait for their turn.
    begun: HashMap<Arc<Shape>, Begun>,
    /// Virtual nodes of all tables.
    nodes: u64,
    /// Grows with each use.
    clock: u64,
    /// How many were made.
    made: u64,
}

#[derive(Debug)]
struct Table {
    ring: Arc<LeanRing>,
    /// The namespace that had it made. Others with a ring of this shape use it as well.
    namespace: String,
    used: u64,
}

#[derive(Debug)]
struct Begun {
    namespace: String,
    making: Making,
}

/// A table that is being built. It is completed even if no request waits for it any more.
type Making = Shared<BoxFuture<'static, Result<Arc<LeanRing>, NoTable>>>;

/// Why there is no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoTable {
    #[error(
        "it has {nodes} virtual nodes, but the limit for all rings together is {most}; lower spec.ring.replicas or weights"
    )]
    TooLarge { nodes: u64, most: u64 },
    #[error("the router is already building {most} tables of the namespace {namespace}; ask again in a few seconds")]
    Busy { namespace: String, most: usize },
    #[error("the router failed to build its table: {0}")]
    Failed(String),
}

impl Default for Tables {
    fn default() -> Self {
        Self::with(SMALL, MOST_OF_SMALL, MOST_OF_LARGE)
    }
}

impl Tables {
    /// Small tables have `small_has` virtual nodes at most, and all of them `most_of_small`. All large ones have `most_of_large`.
    pub(crate) fn with(small_has: u64, most_of_small: u64, most_of_large: u64) -> Self {
        Self {
            small_has,
            small: Pool::with(most_of_small),
            large: Pool::with(most_of_large),
        }
    }

    /// The table of a shape, for a forwarder of this namespace.
    pub(crate) async fn of(&self, namespace: &str, shape: &Arc<Shape>) -> Result<Arc<LeanRing>, NoTable> {
        let is_small = shape.nodes() <= self.small_has;
        let pool = if is_small { &self.small } else { &self.large };
        let making = match pool.find_or_begin(namespace, shape, is_small)? {
            Found::Kept(ring) => return Ok(ring),
            Found::Begun(making) => making,
        };
        making.await
    }
}

enum Found {
    Kept(Arc<LeanRing>),
    Begun(Making),
}

impl Pool {
    fn with(most: u64) -> Self {
        Self {
            most,
            kept: Arc::default(),
            turn: Arc::default(),
        }
    }

    fn find_or_begin(&self, namespace: &str, shape: &Arc<Shape>, is_small: bool) -> Result<Found, NoTable> {
        let nodes = shape.nodes();
        if nodes > self.most {
            return Err(NoTable::TooLarge { nodes, most: self.most });
        }
        let mut kept = self.lock();
        if let Some(ring) = kept.used(shape) {
            return Ok(Found::Kept(ring));
        }
        if let Some(begun) = kept.begun.get(shape) {
            return Ok(Found::Begun(begun.making.clone()));
        }
        let its = kept.begun.values().filter(|begun| begun.namespace == namespace);
        if its.count() >= MOST_BEGUN {
            return Err(NoTable::Busy {
                namespace: namespace.to_owned(),
                most: MOST_BEGUN,
            });
        }
        // It takes itself out of `begun` at its end, for which it waits for this lock.
        let make = self.clone().make(namespace.to_owned(), Arc::clone(shape), is_small);
        let task = tokio::spawn(make.instrument(debug_span!("table", namespace, nodes)));
        let ended = async move {
            let made = task.await;
            made.unwrap_or_else(|error| Err(NoTable::Failed(error.to_string())))
        };
        let making = ended.boxed().shared();
        let begun = Begun {
            namespace: namespace.to_owned(),
            making: making.clone(),
        };
        kept.begun.insert(Arc::clone(shape), begun);
        Ok(Found::Begun(making))
    }

    /// Makes a table when it is its turn, and keeps it if there is room.
    async fn make(self, namespace: String, shape: Arc<Shape>, is_small: bool) -> Result<Arc<LeanRing>, NoTable> {
        let _turn = self.turn.lock().await;
        // Before the table is made: its memory is that of those which give way.
        let has_room = self.lock().make_room(&namespace, shape.nodes(), self.most);
        let making = {
            let shape = Arc::clone(&shape);
            // A small one is too small to wait for whole rings of others, which are made in the process's turn.
            tokio::task::spawn_blocking(move || {
                if is_small {
                    shape.ring()
                } else {
                    in_turn(|| shape.ring())
                }
            })
        };
        let made = match making.await {
            Ok(made) => made.map(Arc::new).map_err(|error| NoTable::Failed(error.to_string())),
            Err(error) => Err(NoTable::Failed(error.to_string())),
        };
        let mut kept = self.lock();
        kept.begun.remove(&shape);
        if let Ok(ring) = &made {
            kept.made += 1;
            debug!(made = kept.made, has_room, "built a table");
            if has_room {
                kept.keep(namespace, shape, Arc::clone(ring));
            }
        }
        made
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // No change is left half done by a panic elsewhere: at worst a table is made once more.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn used(&mut self, shape: &Arc<Shape>) -> Option<Arc<LeanRing>> {
        self.clock += 1;
        let table = self.tables.get_mut(shape)?;
        table.used = self.clock;
        Some(Arc::clone(&table.ring))
    }

    /// Forgets tables until there is room for one of so many virtual nodes. Tells whether there is.
    ///
    /// There is none for a table of more than half of `most` while other namespaces keep within their half. It is made anew for each
    /// who asks then: that costs its own namespace, and nobody else's table.
    fn make_room(&mut self, namespace: &str, nodes: u64, most: u64) -> bool {
        while self.nodes + nodes > most {
            let Some(shape) = self.gives_way(namespace, nodes, most / 2) else {
                return false;
            };
            self.tables.remove(&shape);
            self.nodes = self.nodes.saturating_sub(shape.nodes());
        }
        true
    }

    /// The table that gives way to one of `namespace`: the one that was used least recently of those whose namespace has more than `half`.
    fn gives_way(&self, namespace: &str, nodes: u64, half: u64) -> Option<Arc<Shape>> {
        let mut held = BTreeMap::<&str, u64>::new();
        for (shape, table) in &self.tables {
            *held.entry(&table.namespace).or_default() += shape.nodes();
        }
        let own = held.get(namespace).copied().unwrap_or(0);
        let is_over = own + nodes > half;
        let most = held
            .iter()
            .filter(|(_, nodes)| **nodes > half)
            .max_by_key(|(_, nodes)| **nodes);
        let whose = match most {
            _ if is_over && own > 0 => Some(namespace),
            Some((most, _)) => Some(*most),
            None if is_over => return None,
            None => None,
        };
        let candidates = self.tables.iter();
        let of_them = candidates.filter(|(_, table)| whose.is_none_or(|whose| table.namespace == whose));
        let oldest = of_them.min_by_key(|(_, table)| table.used);
        oldest.map(|(shape, _)| Arc::clone(shape))
    }

    fn keep(&mut self, namespace: String, shape: Arc<Shape>, ring: Arc<LeanRing>) {
        self.clock += 1;
        let nodes = shape.nodes();
        let table = Table {
            ring,
            namespace,
            used: self.clock,
        };
        if self.tables.insert(shape, table).is_none() {
            self.nodes += nodes;
        }
    }
}

#[cfg(test)]
impl Tables {
    /// With this room, and without small tables.
    pub(crate) fn with_most(most: u64) -> Self {
        Self::with(0, 0, most)
    }

    /// Has the large tables wait.
    pub(crate) async fn hold(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.large.turn).lock_owned().await
    }

    pub(crate) fn made(&self) -> u64 {
        self.small.lock().made + self.large.lock().made
    }

    pub(crate) fn nodes_of_each(&self) -> Vec<u64> {
        let of = |pool: &Pool| -> Vec<u64> { pool.lock().tables.keys().map(|shape| shape.nodes()).collect() };
        let mut nodes = [of(&self.small), of(&self.large)].concat();
        nodes.sort_unstable();
        nodes
    }
}
