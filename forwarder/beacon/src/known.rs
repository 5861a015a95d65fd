//! What a subscriber knows of the ring: all that it has heard, put together.
//!
//! Pods may know different things at one moment. Everything here only grows, so answers may come in any order: rings are added, a
//! ring's [phase](Phase) goes forward, and what is left is never taken up again.

use std::collections::BTreeMap;

use forwarder_core::fanout::ring::LeanRing;

use crate::body::{Announcement, MAX_RINGS, Phase, Publishing, RingView};

/// See the module.
#[derive(Debug)]
pub struct Known {
    ring: String,
    left: u64,
    rings: BTreeMap<u64, KnownRing>,
    pods: Vec<String>,
    publishing: Option<Publishing>,
}

/// A ring that is not left.
#[derive(Debug)]
pub struct KnownRing {
    /// As it was told. Its phase is the latest that anybody told.
    pub view: RingView,
    table: LeanRing,
}

/// What an announcement brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Rings that were not known, by epoch.
    pub new: Vec<u64>,
    /// Rings that have been left by that, by epoch.
    pub left: Vec<u64>,
    /// Rings that are in use by that, by epoch.
    pub in_use: Vec<u64>,
    /// The epoch of a ring of which another announcement has said something else. The first one counts.
    pub contradicted: Option<u64>,
    /// How records are published has changed.
    pub publishing: bool,
}

impl Learned {
    /// Whether there is anything to act on.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Why an announcement teaches nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// It is of another ring: another forwarder has the same subject, or the forwarder was made anew.
    #[error("the announcement is of the ring {told:?}, not of {pinned:?}")]
    Other {
        /// Whose it is.
        told: String,
        /// Whose it should be.
        pinned: String,
    },
    /// A ring's members make no ring.
    #[error("the ring of epoch {0} cannot be built")]
    Ring(u64),
}

impl Known {
    /// Nothing yet, of the ring with this identity.
    #[must_use]
    pub fn of(ring: &str) -> Self {
        Self {
            ring: ring.to_owned(),
            left: 0,
            rings: BTreeMap::new(),
            pods: Vec::new(),
            publishing: None,
        }
    }

    /// Which ring it is of.
    #[must_use]
    pub fn ring(&self) -> &str {
        &self.ring
    }

    /// Takes note of an announcement.
    ///
    /// # Errors
    /// [`LearnError`]: then nothing has changed.
    pub fn learn(&mut self, told: &Announcement) -> Result<Learned, LearnError> {
        if told.ring != self.ring {
            return Err(LearnError::Other {
                told: told.ring.clone(),
                pinned: self.ring.clone(),
            });
        }
        let mut learned = Learned::default();
        let mut new = Vec::new();
        for view in told.rings.iter().filter(|view| view.epoch >= self.left.max(told.left)) {
            match self.rings.get(&view.epoch) {
                None => {
                    let members = view
                        .clusters
                        .iter()
                        .map(|cluster| (cluster.name.clone(), cluster.weight));
                    let table = LeanRing::new(members, view.replicas).map_err(|_| LearnError::Ring(view.epoch))?;
                    new.push(KnownRing {
                        view: view.clone(),
                        table,
                    });
                }
                Some(known) if known.view.replicas != view.replicas || known.view.clusters != view.clusters => {
                    learned.contradicted = Some(view.epoch);
                }
                Some(_) => {}
            }
        }
        // From here on nothing fails.
        self.left = self.left.max(told.left);
        for epoch in self.rings.keys().take_while(|epoch| **epoch < self.left) {
            learned.left.push(*epoch);
        }
        self.rings = self.rings.split_off(&self.left);
        for view in &told.rings {
            if let Some(known) = self.rings.get_mut(&view.epoch)
                && known.view.phase < view.phase
            {
                if known.view.phase == Phase::Announced {
                    learned.in_use.push(view.epoch);
                }
                known.view.phase = view.phase;
            }
        }
        for ring in new {
            if ring.view.phase != Phase::Announced {
                learned.in_use.push(ring.view.epoch);
            }
            learned.new.push(ring.view.epoch);
            self.rings.insert(ring.view.epoch, ring);
        }
        learned.in_use.sort_unstable();
        // The oldest go first: whoever still uses them is the furthest behind.
        while self.rings.len() > MAX_RINGS {
            if let Some((epoch, _)) = self.rings.pop_first() {
                learned.left.push(epoch);
            }
        }
        if self.publishing.as_ref() != Some(&told.publishing) {
            self.publishing = Some(told.publishing.clone());
            learned.publishing = true;
        }
        self.pods.clone_from(&told.pods);
        Ok(learned)
    }

    /// The rings that are not left, ascending by epoch.
    pub fn rings(&self) -> impl DoubleEndedIterator<Item = &KnownRing> {
        self.rings.values()
    }

    /// The newest ring in use.
    #[must_use]
    pub fn in_use(&self) -> Option<&KnownRing> {
        self.rings().rev().find(|ring| ring.view.phase != Phase::Announced)
    }

    /// The newest ring in use, or else the newest one at all.
    #[must_use]
    pub fn current(&self) -> Option<&KnownRing> {
        self.in_use().or_else(|| self.rings().next_back())
    }

    /// The owners of an asset under all rings that are not left, the oldest ring's first, each once.
    #[must_use]
    pub fn owners(&self, asset: &str) -> Vec<&str> {
        let mut owners = Vec::new();
        for ring in self.rings() {
            let owner = ring.owner(asset);
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        owners
    }

    /// Where a cluster is reached: as the newest ring says that has it.
    #[must_use]
    pub fn servers(&self, cluster: &str) -> Option<&[String]> {
        let of =
            |ring: &KnownRing| -> Option<usize> { ring.view.clusters.iter().position(|member| member.name == cluster) };
        let ring = self.rings().rev().find(|ring| of(ring).is_some())?;
        Some(&ring.view.clusters.get(of(ring)?)?.servers)
    }

    /// The pods that answer on `BASE.ready`, as was told last.
    #[must_use]
    pub fn pods(&self) -> &[String] {
        &self.pods
    }

    /// How records are published, as was told last.
    #[must_use]
    pub fn publishing(&self) -> Option<&Publishing> {
        self.publishing.as_ref()
    }
}

impl KnownRing {
    /// The name of the cluster that owns an asset.
    #[must_use]
    pub fn owner(&self, asset: &str) -> &str {
        let owner = self.table.owner(asset.as_bytes());
        self.view.clusters.get(owner).map_or("", |cluster| &cluster.name)
    }
}

#[cfg(test)]
mod tests;
