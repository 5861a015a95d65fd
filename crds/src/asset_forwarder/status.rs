//! What the operator says about a forwarder.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the operator found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssetForwarderStatus {
    /// The generation that this status is about; -1: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` always; `Reconciling` or `Stalled` while it is true.
    #[serde(default)]
    #[schemars(schema_with = "crate::status::conditions")]
    pub conditions: Vec<Condition>,
    /// The wanted number of pods: from the spec, or from measured lag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// Pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Pods that run the current configuration.
    #[serde(default)]
    pub updated_replicas: i32,
    /// The pods' selector, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The image that the pods run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Hash of the configuration that the pods should run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<String>,
    /// The ring, and the progress of its last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingStatus>,
    /// What subscribers are given to know this forwarder's announcements by. Absent: no beacon is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beacon: Option<BeaconStatus>,
}

/// What subscribers are given to know a forwarder's announcements by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeaconStatus {
    /// The public nkey, `U…`, of the key that signs what pods announce. It stays as long as the Secret `NAME-beacon`.
    pub public_key: String,
    /// What tells this ring from every other one: the forwarder's UID.
    pub ring: String,
    /// The subject below which the ring is announced.
    pub subject: String,
}

/// The ring, and the progress of its last change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RingStatus {
    /// The epoch; grows with every change.
    pub epoch: i64,
    /// Number of members.
    pub members: i32,
    /// The members' names in the ring, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The members, as `namespace/name`, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_refs: Vec<String>,
    /// Clusters that have left the ring and that some pod may still publish to, as `namespace/name`, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<String>,
    /// Clusters that the selector chooses but that are not members, with the reason, sorted. A cluster of another namespace is listed
    /// only if it allows this namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<ExcludedCluster>,
    /// Share of the hash space that the last change moved, in percent with one decimal, such as `24.9`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_percent: Option<String>,
    /// How many of the pods run this epoch, such as `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converged: Option<String>,
}

/// A cluster that the selector chooses but that is not a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExcludedCluster {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}
