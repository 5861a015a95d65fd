//! Pods by lag.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::schema::rule;

/// The number of pods by the group's lag. It never exceeds the partitions of all sources: pods beyond them would be idle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule(
    "self.minReplicas <= self.maxReplicas",
    "minReplicas is more than maxReplicas: lower minReplicas, or raise maxReplicas",
))]
pub struct Autoscaling {
    /// Fewest pods.
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// Most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// Uncommitted records per pod. While there are more for some time, the operator adds a pod. What one pod forwards within a few
    /// seconds is a good value.
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub lag_per_replica: i64,
    /// For how many seconds fewer pods must have been enough before the operator removes one. By default 300.
    #[serde(default = "scale_down_delay")]
    #[schemars(range(min = 0, max = 86_400))]
    pub scale_down_delay_seconds: u32,
}

const fn scale_down_delay() -> u32 {
    300
}
