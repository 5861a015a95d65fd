//! Who owns the assets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Which `NatsCluster`s are members. Their health never changes that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Clusters {
    /// Labels of the clusters. A cluster that gets them joins, and one that loses them leaves; records stay in order. An empty
    /// selector chooses all.
    #[schemars(schema_with = "crate::schema::label_selector")]
    pub selector: LabelSelector,
    /// Labels of further namespaces whose clusters may be members; each cluster's `allowedNamespaces` must allow this namespace. An
    /// empty selector chooses all. Absent: only the forwarder's own namespace.
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
    /// How changes reach the pods. `Live` (the default): running pods switch to the new ring; `Roll`: the pods are replaced one by one.
    #[serde(default)]
    pub update: RingUpdate,
    /// For how many seconds an asset that changes its owner waits for the old owner to confirm its earlier records. After that
    /// they go to the new owner, in order; the old owner may have them too. By default 60.
    #[serde(default = "default_handover_timeout")]
    #[schemars(range(min = 1, max = 86_400))]
    pub handover_timeout_seconds: u32,
}

/// How changes of the ring reach the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum RingUpdate {
    /// Running pods switch to the new ring.
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
