//! The pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::schema;

/// Caps and bounds of a pod; what is absent has the forwarder's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "(has(self.maxPendingRecordsPerCluster) ? self.maxPendingRecordsPerCluster : 20000) \
         <= (has(self.maxPendingRecords) ? self.maxPendingRecords : 100000)"
    )
    .message("one cluster could use up all pending records: set maxPendingRecordsPerCluster (by default 20000) to at most \
              maxPendingRecords (by default 100000)")
    .field_path(".maxPendingRecordsPerCluster"),
    validation = Rule::new(
        "(has(self.maxPendingBytesPerCluster) ? self.maxPendingBytesPerCluster : 16777216) \
         <= (has(self.maxPendingBytes) ? self.maxPendingBytes : 67108864)"
    )
    .message("one cluster could use up all pending bytes: set maxPendingBytesPerCluster (by default 16777216) to at most \
              maxPendingBytes (by default 67108864)")
    .field_path(".maxPendingBytesPerCluster")
)]
pub struct Limits {
    /// Most records that wait for one cluster's confirmation. By default 20000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_pending_records_per_cluster: Option<u32>,
    /// Most bytes that wait for one cluster's confirmation. By default 16777216 (16 MiB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_099_511_627_776_u64))]
    pub max_pending_bytes_per_cluster: Option<u64>,
    /// Most records that wait for confirmation in all. By default 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_pending_records: Option<u32>,
    /// Most bytes that wait for confirmation in all. By default 67108864 (64 MiB). A pod's memory limit must leave room for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_099_511_627_776_u64))]
    pub max_pending_bytes: Option<u64>,
    /// Largest record that is forwarded, in bytes of key, value and headers once they are decompressed. A larger one is invalid: it is
    /// counted, dead-lettered without its value, and skipped. By default 68157440 (65 MiB), which is more than any NATS server takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub max_record_bytes: Option<u32>,
    /// Longest drain, in seconds, before a partition is given up or a pod ends. The pods' grace period is longer. By default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub drain_timeout_seconds: Option<u32>,
}

/// What a pod logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Logging {
    /// The lowest level that is logged: `Error`, `Warn`, `Info` (the default), `Debug`, or `Trace`, which logs single records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LogLevel")]
    pub level: Option<LogLevel>,
    /// How log lines are written. `Json` (the default): an object per line; `Text`: for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LogFormat")]
    pub format: Option<LogFormat>,
}

/// The lowest level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum LogLevel {
    /// Loss, or a person must act.
    Error,
    /// A problem that resolves itself.
    Warn,
    /// What an operator wants to see in normal times.
    Info,
    /// Single steps.
    Debug,
    /// Single records.
    Trace,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Whether a new version of the operator rolls running pods, for its default image or other changes of their template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum UpgradePolicy {
    /// Pods take these up when they next roll for another reason (the spec, the channel, its credentials).
    #[default]
    OnSpecChange,
    /// At once.
    Automatic,
}

/// What is added to the pods. It cannot give them a service account, host path or privilege.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels of the pods. The operator's own take precedence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods. The operator's own take precedence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Requests and limits of the container. Absent: the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resources")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Affinity and anti-affinity to nodes and to other pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Taints of nodes that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// How pods spread. Absent: over zones and nodes as far as possible; an empty list: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// The priority class. Absent: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub priority_class_name: Option<String>,
    /// Secrets in the forwarder's namespace with credentials of the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<ImagePullSecret>,
}

/// A Secret with credentials of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ImagePullSecret {
    /// The Secret's name.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// Without `claims`: they name claims of the pod, and ours has none.
fn resources(generator: &mut SchemaGenerator) -> Schema {
    let mut resources = ResourceRequirements::json_schema(generator);
    if let Some(properties) = resources
        .get_mut("properties")
        .and_then(serde_json::Value::as_object_mut)
    {
        properties.remove("claims");
    }
    resources
}
