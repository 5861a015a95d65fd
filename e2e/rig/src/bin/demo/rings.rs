//! The ring changes while records flow: what that should move, and what it did.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e_rig::forwarder::Forwarder;
use e2e_rig::observer::Observer;
use e2e_rig::verdict::Ledger;
use e2e_rig::wait;
use forwarder_core::document::{Cluster, Config};
use forwarder_core::fanout::ring::{Ring, moved};

use crate::view::View;

/// Within which every forwarder uses a new ring: a look at the file each second, a commit, and a busy machine.
const TAKEN_UP: Duration = Duration::from_secs(20);

pub(crate) struct Rings {
    config: Config,
    /// All clusters that there are, in the ring or not.
    all: Vec<Cluster>,
    ring: Ring,
    ledger: Arc<Ledger>,
    assets: u32,
    change: Option<Change>,
}

struct Change {
    what: String,
    /// Of the hash space.
    share: f64,
    /// Of the assets that there are.
    expected: u32,
    /// How many pairs of asset and cluster had been seen before.
    pairs: usize,
}

impl Rings {
    /// Begins with these clusters of the configuration.
    pub(crate) fn new(mut config: Config, ledger: Arc<Ledger>, assets: u32, members: &[&str]) -> Result<Self> {
        let all = std::mem::take(&mut config.ring.clusters);
        let mut rings = Self {
            ring: ring(members, config.ring.replicas)?,
            config,
            all,
            ledger,
            assets,
            change: None,
        };
        rings.use_members(members);
        Ok(rings)
    }

    /// The configuration as it is now.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Makes these the members, and waits until every forwarder uses the new ring.
    pub(crate) async fn change(
        &mut self,
        members: &[&str],
        forwarders: &[Forwarder],
        observer: &Observer,
        view: &View,
    ) -> Result<()> {
        let next = ring(members, self.config.ring.replicas)?;
        let what = format!("ring {} -> {}", self.ring.names().join(","), next.names().join(","));
        let owner = |ring: &Ring, key: &str| ring.name(ring.owner(key.as_bytes())).to_owned();
        let keys = (0..self.assets).map(|asset| self.ledger.key(asset));
        let expected = keys.filter(|key| owner(&self.ring, key) != owner(&next, key)).count();
        self.change = Some(Change {
            what: what.clone(),
            share: moved(&self.ring, &next).iter().map(|shift| shift.share).sum(),
            expected: u32::try_from(expected).unwrap_or(u32::MAX),
            pairs: self.pairs(observer),
        });
        self.ring = next;
        self.config.ring.epoch += 1;
        self.use_members(members);
        for forwarder in forwarders {
            forwarder.declare_ring(&self.config.ring)?;
        }
        let epoch = self.config.ring.epoch;
        wait::eventually(TAKEN_UP, "every forwarder uses the new ring", || async {
            for forwarder in forwarders {
                let status = forwarder.status().await?;
                let uses = status["ring"]["epoch"].as_u64();
                anyhow::ensure!(uses == Some(epoch), "one uses {uses:?}, not {epoch}");
            }
            Ok(true)
        })
        .await?;
        view.say(&format!("{what}: in use by every forwarder (epoch {epoch})"));
        Ok(())
    }

    /// Says what the last change has moved, as far as it was seen.
    pub(crate) fn report(&mut self, observer: &Observer, view: &View) {
        let Some(change) = self.change.take() else { return };
        let seen = self.pairs(observer).saturating_sub(change.pairs);
        let of_all = |count: f64| count * 100.0 / f64::from(self.assets);
        view.say(&format!(
            "{}: ring diff says {:.1} % of the hash space, {:.1} % of these assets; {:.1} % were seen to move",
            change.what,
            change.share * 100.0,
            of_all(f64::from(change.expected)),
            of_all(seen as f64),
        ));
    }

    /// Pairs of an asset and a cluster that had records of it: an asset that moves makes a new one.
    fn pairs(&self, observer: &Observer) -> usize {
        (0..self.all.len())
            .filter_map(|cluster| u8::try_from(cluster).ok())
            .map(|cluster| observer.look(|tally| tally.assets_of(cluster)))
            .sum()
    }

    fn use_members(&mut self, members: &[&str]) {
        let chosen = self
            .all
            .iter()
            .filter(|cluster| members.contains(&cluster.name.as_str()));
        self.config.ring.clusters = chosen.cloned().collect();
    }
}

fn ring(members: &[&str], replicas: u32) -> Result<Ring> {
    let members = members.iter().map(|name| ((*name).to_owned(), 1));
    Ring::new(members, replicas).context("failed to build the ring")
}
