//! What is said: the bodies as JSON. Readers pass over fields that they do not know.

use std::collections::BTreeMap;

use forwarder_core::document::MAX_RING_NODES;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Most rings of one announcement. There are two while one follows another; more while clusters are away.
pub const MAX_RINGS: usize = 64;

/// Longest nonce of a request, in bytes.
pub const MAX_NONCE: usize = 64;

/// A signed body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Body {
    /// See [`Announcement`].
    Announcement(Announcement),
    /// See [`Digest`].
    Digest(Digest),
    /// See [`Ready`].
    Ready(Ready),
    /// See [`Statement`].
    Statement(Statement),
}

/// Where a ring is in its life. A later one comes later: it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// It is going to be used.
    Announced,
    /// Records go to their owners under it.
    InUse,
    /// A newer one is in use. Records that were handed out under it may still be on their way.
    Leaving,
}

/// The ring, as one pod knows it, in answer to a request on `BASE.get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Which ring: see [`forwarder_core::document::Beacon::ring`].
    pub ring: String,
    /// What the request had as a nonce. An answer with another one is an old one that somebody sends again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// What tells it from another one: SHA-256 of its JSON without nonce and hash, in hexadecimal digits.
    #[serde(default)]
    pub hash: String,
    /// All rings of lower epochs are left: nothing is on its way under them. 0: nothing is known of that.
    #[serde(default)]
    pub left: u64,
    /// The rings that this pod knows and that are not left, ascending by epoch.
    pub rings: Vec<RingView>,
    /// The pods that answer on `BASE.ready`.
    #[serde(default)]
    pub pods: Vec<String>,
    /// How records are published.
    pub publishing: Publishing,
}

/// How records are published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Publishing {
    /// The subject's template, with `{key}` and `{id}`.
    pub subject: String,
    /// The stream, in JetStream mode; absent: core NATS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Whether messages carry the record's topic, partition, offset and timestamp in headers.
    #[serde(default)]
    pub origin: bool,
}

/// A ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RingView {
    /// Its epoch.
    pub epoch: u64,
    /// Where it is in its life.
    pub phase: Phase,
    /// Virtual nodes of a cluster of weight 1.
    pub replicas: u32,
    /// Its members.
    pub clusters: Vec<ClusterView>,
}

/// A member of a ring, as a subscriber needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// Its name in the ring.
    pub name: String,
    /// Its weight.
    pub weight: u32,
    /// Where subscribers reach it, without user and password.
    pub servers: Vec<String>,
}

/// Which announcement is the newest, on `BASE.digest`: at each change, and in a rhythm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Digest {
    /// Which ring.
    pub ring: String,
    /// The newest epoch that is announced.
    pub epoch: u64,
    /// The [hash](Announcement::hash) of what this pod would answer.
    pub hash: String,
    /// Who says so.
    pub pod: String,
    /// Grows with each digest of this pod's process.
    pub sequence: u64,
    /// After how many milliseconds the next one comes, at the latest.
    pub next_ms: u64,
}

/// A pod's proof that it sees a subscriber's interest, sent through the connection by which it publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Which ring.
    pub ring: String,
    /// The request's nonce.
    pub nonce: String,
    /// Who answers.
    pub pod: String,
    /// On which cluster.
    pub cluster: String,
}

/// How far a pod is, on `BASE.pods`, for other pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// Which ring.
    pub ring: String,
    /// Who says so.
    pub pod: String,
    /// A text that each process has of its own, so that a new one of the same name is told from an old one.
    pub process: String,
    /// Grows with each statement of the process.
    pub sequence: u64,
    /// The ring in use.
    pub using: u64,
    /// The newest ring that the pod has announced; absent: none but that in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<u64>,
    /// How many partitions each topic has, as far as the pod knows.
    pub partitions: BTreeMap<String, i32>,
    /// Of each topic the partitions that it has, each with the oldest ring under which something of it is on its way.
    pub oldest: BTreeMap<String, Vec<(i32, u64)>>,
    /// It speaks for the last time: its process ends.
    #[serde(default)]
    pub stopping: bool,
}

/// What a subscriber asks with, on `BASE.get` and `BASE.ready`. It is not signed: everybody may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// A text that nobody can guess, in the answer again; at most [`MAX_NONCE`] bytes of visible ASCII.
    #[serde(default)]
    pub nonce: String,
}

impl Request {
    /// Reads a request's body. An empty one has no nonce.
    ///
    /// # Errors
    /// Why it is not answered.
    pub fn parse(body: &[u8]) -> Result<Self, &'static str> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        if body.len() > 4 * MAX_NONCE {
            return Err("the request is too long");
        }
        let request: Self = serde_json::from_slice(body).map_err(|_| "the request is no JSON object with a nonce")?;
        if request.nonce.len() > MAX_NONCE || !request.nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the nonce is too long, or not of visible ASCII characters");
        }
        Ok(request)
    }
}

impl Body {
    /// Which ring it is of.
    #[must_use]
    pub fn ring(&self) -> &str {
        match self {
            Self::Announcement(Announcement { ring, .. })
            | Self::Digest(Digest { ring, .. })
            | Self::Ready(Ready { ring, .. })
            | Self::Statement(Statement { ring, .. }) => ring,
        }
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Announcement(announcement) => announcement.check(),
            Self::Digest(_) | Self::Ready(_) | Self::Statement(_) => Ok(()),
        }
    }
}

impl Announcement {
    /// The same with its [hash](Self::hash).
    #[must_use]
    pub fn sealed(self) -> Self {
        let hash = self.compute_hash();
        Self { hash, ..self }
    }

    fn compute_hash(&self) -> String {
        let plain = Self {
            nonce: String::new(),
            hash: String::new(),
            ..self.clone()
        };
        // The types have no map with other keys than texts, so they always make JSON.
        let json = serde_json::to_vec(&plain).unwrap_or_default();
        let digest = Sha256::digest(json);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.rings.is_empty() || self.rings.len() > MAX_RINGS {
            return Err("it has no ring, or too many");
        }
        if !self.rings.is_sorted_by(|a, b| a.epoch < b.epoch) {
            return Err("its rings do not ascend by epoch");
        }
        for ring in &self.rings {
            let nodes = ring.clusters.iter().fold(0_u64, |sum, cluster| {
                sum.saturating_add(u64::from(cluster.weight) * u64::from(ring.replicas))
            });
            if nodes == 0 || nodes > MAX_RING_NODES {
                return Err("a ring has no virtual nodes, or too many");
            }
            if ring.clusters.iter().any(|cluster| cluster.servers.is_empty()) {
                return Err("a cluster has no server");
            }
        }
        Ok(())
    }
}
