//! Who owns the assets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Which `NatsCluster`s are members. Their health never changes that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Clusters {
    /// Labels of the clusters: one that gets them joins, one that loses them leaves, in order. An empty selector chooses all.
    #[schemars(schema_with = "crate::schema::label_selector")]
    pub selector: LabelSelector,
    /// Labels of further namespaces whose clusters count; their `allowedNamespaces` must let ours in. An empty selector chooses all.
    /// Absent: only the own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
}

/// The hash ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ring {
    /// Virtual nodes of a cluster of weight 1. By default 128. A change moves most assets, in order.
    #[serde(default = "default_ring_replicas")]
    #[schemars(range(min = 1, max = 4096))]
    pub replicas: u32,
    /// How changes reach the pods. `Live` (the default): running pods take the new ring up; `Roll`: the pods are replaced one by one.
    #[serde(default)]
    pub update: RingUpdate,
    /// How long an asset that changes its owner waits for the old one to confirm its earlier records, in seconds. Then they go
    /// to the new owner, in order; the old one may have them too. By default 60.
    #[serde(default = "default_handover_timeout")]
    #[schemars(range(min = 1, max = 86_400))]
    pub handover_timeout_seconds: u32,
}

/// How changes of the ring reach the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum RingUpdate {
    /// Running pods take the new ring up.
    #[default]
    Live,
    /// The pods are replaced one by one.
    Roll,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            replicas: default_ring_replicas(),
            update: RingUpdate::Live,
            handover_timeout_seconds: default_handover_timeout(),
        }
    }
}

const fn default_ring_replicas() -> u32 {
    128
}

const fn default_handover_timeout() -> u32 {
    60
}
