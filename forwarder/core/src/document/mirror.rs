//! Copies for subscribers that cannot follow the ring.

use serde::{Deserialize, Serialize};

use super::RingConfig;

/// For how long records of assets that moved are copied to their previous owner, for subscribers that stay there. Core NATS only.
///
/// It is a part of the ring's document, so that running pods take it up, and a pod that starts knows the ring before the present one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorConfig {
    /// For how many milliseconds after a process begins to use a ring.
    pub moved_ms: u64,
    /// The last ring before this one that had other owners. Absent: nobody knows it, so a process that starts makes no copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousRing>,
}

/// Who owned which asset before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreviousRing {
    /// Virtual nodes of a cluster of weight 1.
    pub replicas: u32,
    /// The members; the order does not matter.
    pub clusters: Vec<PreviousCluster>,
}

/// A member of the previous ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreviousCluster {
    /// The name in the ring.
    pub name: String,
    /// Virtual nodes = `replicas` × `weight`.
    pub weight: u32,
}

impl PreviousRing {
    /// What a ring's document says of who owns which asset.
    #[must_use]
    pub fn of(ring: &RingConfig) -> Self {
        let clusters = ring.clusters.iter().map(|cluster| PreviousCluster {
            name: cluster.name.clone(),
            weight: cluster.weight,
        });
        Self {
            replicas: ring.replicas,
            clusters: clusters.collect(),
        }
    }
}
