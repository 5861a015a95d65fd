//! What a forwarder says of its beacon, by which subscribers learn of the ring.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The beacon of the ring that is in use, or of the one that is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BeaconStatus {
    /// The public nkey that subscribers pin. Absent: the key's file cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The subject below which the ring is announced.
    pub subject: String,
    /// What tells this ring from every other one.
    pub ring: String,
    /// Why nothing is announced at all. Records go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// All rings of lower epochs are left: nothing is on its way under them. 0: nothing is known of that.
    pub left: u64,
    /// The rings that are not left.
    pub rings: Vec<BeaconRing>,
    /// The newest ring whose announcement every cluster has heard that could be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard: Option<u64>,
    /// For how many milliseconds an announced ring is not used yet, as far as the grace for subscribers goes. Absent: none is announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_left_ms: Option<u64>,
    /// The pods of this ring that are alive, this one among them.
    pub pods: Vec<String>,
    /// The clusters on which the ring is announced, by name.
    pub clusters: BTreeMap<String, BeaconClusterStatus>,
}

/// A ring that is not left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BeaconRing {
    /// Its epoch.
    pub epoch: u64,
    /// `announced`, `inUse` or `leaving`.
    pub phase: String,
}

/// A cluster on which the ring is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BeaconClusterStatus {
    /// Whether the beacon is connected. Its connection is not the one that records take.
    pub connected: bool,
    /// What is wrong there, such as a permission that is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}
