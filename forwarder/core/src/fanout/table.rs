//! Which cluster owns an asset, and where that is: what people and programs are answered who ask.

use std::sync::Arc;

use serde::Serialize;

use crate::document::{RingConfig, server};
use crate::fanout::ring::{LeanRing, RingError};

/// Who owns what, and where it is.
#[derive(Clone, Debug)]
pub struct Table {
    summary: Summary,
    ring: LeanRing,
}

/// What a ring's document says that answers need: without virtual nodes, and without credentials. Cheap to keep.
#[derive(Clone, Debug)]
pub struct Summary {
    epoch: u64,
    shape: Arc<Shape>,
    /// The URLs of each member, one a line, in the order of the members. User and password are gone before anything is answered.
    servers: Box<[Box<str>]>,
}

/// All that says who owns what. Documents of one shape have the same owners, whatever their epochs and servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    replicas: u32,
    /// Names and weights.
    members: Box<[(Box<str>, u32)]>,
}

/// The answer; the first three members are the original's, which takes the first URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The asset that was asked for.
    pub asset_id: String,
    /// The cluster that owns it.
    pub cluster_name: String,
    /// The first server of the cluster.
    pub nats_url: String,
    /// All servers of the cluster, without user and password.
    pub nats_urls: Vec<String>,
    /// The epoch of the ring that says so.
    pub ring_epoch: u64,
}

impl Shape {
    /// How many virtual nodes it makes.
    #[must_use]
    pub fn nodes(&self) -> u64 {
        let nodes = self
            .members
            .iter()
            .map(|(_, weight)| u64::from(*weight) * u64::from(self.replicas));
        nodes.fold(0, u64::saturating_add)
    }

    /// The ring. It takes [`LeanRing::NODE_BYTES`] a virtual node, and up to a second of computing.
    ///
    /// # Errors
    /// Members that make no ring.
    pub fn ring(&self) -> Result<LeanRing, RingError> {
        let members = self.members.iter().map(|(name, weight)| (name.to_string(), *weight));
        LeanRing::new(members, self.replicas)
    }
}

impl Summary {
    /// Of a ring's document.
    #[must_use]
    pub fn of(config: &RingConfig) -> Self {
        let RingConfig {
            epoch,
            replicas,
            handover_timeout_ms: _,
            clusters,
            beacon: _,
        } = config;
        let urls = |urls: &[String]| -> Vec<String> { urls.iter().map(|url| server::without_userinfo(url)).collect() };
        let members = clusters
            .iter()
            .map(|cluster| (cluster.name.as_str().into(), cluster.weight));
        Self {
            epoch: *epoch,
            shape: Arc::new(Shape {
                replicas: *replicas,
                members: members.collect(),
            }),
            servers: clusters
                .iter()
                .map(|cluster| urls(&cluster.servers).join("\n").into())
                .collect(),
        }
    }

    /// The epoch of the ring.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What says who owns what.
    #[must_use]
    pub const fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// A name and the servers of a member: two fat pointers, a weight, and what the allocator takes for two texts.
        const MEMBER: usize = 80;
        let names = self.shape.members.iter().map(|(name, _)| name.len());
        let servers = self.servers.iter().map(|servers| servers.len());
        names.chain(servers).sum::<usize>() + self.servers.len() * MEMBER + size_of::<Self>() + size_of::<Shape>()
    }

    /// Who owns an asset by `ring`, which is that of its shape; none only where that member has no server, which no checked ring has.
    #[must_use]
    pub fn answer(&self, ring: &LeanRing, asset_id: String) -> Option<Answer> {
        let owner = ring.owner(asset_id.as_bytes());
        let (cluster_name, _) = self.shape.members.get(owner)?;
        let nats_urls: Vec<String> = self.servers.get(owner)?.lines().map(str::to_owned).collect();
        Some(Answer {
            asset_id,
            cluster_name: cluster_name.to_string(),
            nats_url: nats_urls.first()?.clone(),
            nats_urls,
            ring_epoch: self.epoch,
        })
    }
}

impl Table {
    /// The table of a checked ring.
    ///
    /// # Errors
    /// Members that make no ring.
    pub fn new(config: &RingConfig) -> Result<Self, RingError> {
        let summary = Summary::of(config);
        let ring = summary.shape.ring()?;
        Ok(Self { summary, ring })
    }

    /// Who owns an asset; none only where that member has no server, which no checked ring has.
    #[must_use]
    pub fn answer(&self, asset_id: String) -> Option<Answer> {
        self.summary.answer(&self.ring, asset_id)
    }
}
