//! `AssetForwarder`: pods that read a channel and publish each record to the cluster that owns its asset.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::reference::ObjectRef;

/// Reads Kafka, routes by consistent hash, publishes to NATS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "fanout.openfactory.io",
    version = "v1alpha1",
    kind = "AssetForwarder",
    plural = "assetforwarders",
    singular = "assetforwarder",
    shortname = "af",
    category = "fanout",
    namespaced,
    derive = "PartialEq",
    status = "AssetForwarderStatus",
    doc = "Pods that read a Kafka channel and publish each record to the NATS cluster that owns its asset.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Ready-Pods", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Clusters", type_ = "integer", json_path = ".status.ring.members"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.ring.epoch"),
    printcolumn(name = "Converged", type_ = "string", json_path = ".status.ring.converged"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct AssetForwarderSpec {
    /// Number of pods. More than the topic has partitions are idle.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// What is read: for now exactly one channel.
    pub sources: Vec<Source>,
    /// Which `NatsCluster`s are members of the ring.
    pub clusters: Clusters,
    /// The hash ring, and how its changes reach the pods.
    #[serde(default)]
    pub ring: Ring,
    /// How records reach their cluster.
    #[serde(default)]
    pub publish: Publish,
    /// Where a record goes that can never be forwarded. Absent: it is counted, logged and stepped over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
    /// Caps and bounds of a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What a pod logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// The forwarder's image; absent: the operator's default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Whether a new operator's default image rolls running pods.
    #[serde(default)]
    pub upgrade_policy: UpgradePolicy,
    /// What is added to the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// `true`: no pods. Offsets stay; nothing is lost as long as Kafka keeps the records.
    #[serde(default)]
    pub suspend: bool,
}

/// A channel that is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The `KafkaChannel`.
    pub channel_ref: ObjectRef,
    /// The consumer group.
    #[schemars(length(min = 1, max = 255))]
    pub group: String,
    /// Where a group begins that has no offsets yet. Absent: `Latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<StartFrom>,
    /// What to do when the broker no longer has the committed offset. Absent: `Earliest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_offset: Option<MissingOffset>,
    /// The group protocol. Absent: `Classic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<GroupProtocol>,
    /// librdkafka properties, through an allowlist.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub client_config: BTreeMap<String, String>,
}

/// Where a group begins that has no committed offsets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartFrom {
    /// The kind of place.
    #[serde(rename = "type")]
    pub type_: StartFromType,
    /// With `Timestamp`: the time (RFC 3339) of the first record to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub timestamp: Option<String>,
}

/// The kind of place where a group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum StartFromType {
    /// At the end, as of the group's first assignment; partitions that appear later are read from their beginning.
    Latest,
    /// At the oldest record.
    Earliest,
    /// At the first record of a time or later.
    Timestamp,
}

/// What to do when the broker no longer has the committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum MissingOffset {
    /// Go on at the oldest record that is there. What expired is counted.
    Earliest,
    /// Go on at the end. What is skipped is counted.
    Latest,
    /// Leave the partition paused until a person has decided.
    Stop,
}

/// The consumer group protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum GroupProtocol {
    /// The classic protocol, cooperative-sticky.
    Classic,
    /// KIP-848, where the broker assigns.
    Consumer,
}

/// Which `NatsCluster`s are members. Their health never changes that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Clusters {
    /// Labels of the clusters. An empty selector chooses all.
    pub selector: LabelSelector,
    /// Labels of further namespaces whose clusters count; their `allowedNamespaces` must let ours in. Absent: only the own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
}

/// The hash ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ring {
    /// Virtual nodes of a cluster of weight 1. A change moves most assets once.
    #[serde(default = "default_ring_replicas")]
    #[schemars(range(min = 1, max = 4096))]
    pub replicas: u32,
    /// How changes reach the pods.
    #[serde(default)]
    pub update: RingUpdate,
    /// How long an asset that changes its owner waits for the old one to confirm its earlier records, in seconds. Then they go
    /// to the new owner, in order; the old one may have them too.
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

/// How records reach their cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Publish {
    /// Core NATS or JetStream.
    #[serde(default)]
    pub mode: PublishMode,
    /// The subject: `{key}` and `{id}`, each at least once, among literal text; `JetStream` needs a literal first token. Absent: `{key}.{id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The stream, in `JetStream` mode: required there, refused in `Core` mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// What is added to the headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// After this many refusals by the server a record goes to the dead letter (which must be declared). Absent: never; an outage is no refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_attempts: Option<u32>,
}

/// What "published" is to mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum PublishMode {
    /// The server has read and accepted the record.
    #[default]
    Core,
    /// The stream has stored the record.
    JetStream,
}

/// A JetStream stream, the same in every cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    /// The stream's name.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// Whether the forwarder creates it and keeps it as declared here. Otherwise it only looks whether it is there.
    #[serde(default)]
    pub manage: bool,
    /// The subjects of a managed stream; absent: the literal prefix of `publish.subject` followed by `.>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// Copies of a managed stream. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<u32>,
    /// Where a managed stream is kept. Absent: `File`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Oldest age of a managed stream's messages, in seconds; absent: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_age_seconds: Option<u64>,
    /// Largest size of a managed stream, in bytes; absent: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_bytes: Option<i64>,
    /// How long a managed stream remembers message IDs, in seconds. Absent: 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub duplicate_window_seconds: Option<u64>,
}

/// Where a stream is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Storage {
    /// On disk.
    File,
    /// In memory.
    Memory,
}

/// What is added to the headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Headers {
    /// Adds topic, partition, offset and timestamp of the Kafka record.
    #[serde(default)]
    pub origin: bool,
}

/// Where a record goes that can never be forwarded, as it came, with the reason and its origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The kind of place.
    #[serde(rename = "type")]
    pub type_: DeadLetterType,
    /// With `Channel`: the `KafkaChannel` to write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_ref: Option<ObjectRef>,
    /// With `File`: the volume to write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<DeadLetterFile>,
}

/// The kind of place where dead letters go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DeadLetterType {
    /// A Kafka channel.
    Channel,
    /// A file of JSON lines for each pod.
    File,
}

/// A volume for dead letters: each pod appends to a file of its own name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterFile {
    /// The PersistentVolumeClaim; with more than one pod its access mode must allow that.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// Caps and bounds of a pod; what is absent has the forwarder's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Most records that wait for one cluster's confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_pending_records_per_cluster: Option<u32>,
    /// Most bytes that wait for one cluster's confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_pending_bytes_per_cluster: Option<u64>,
    /// Most records that wait for confirmation in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_pending_records: Option<u32>,
    /// Most bytes that wait for confirmation in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_pending_bytes: Option<u64>,
    /// Longest drain, in seconds, before a partition is given up or a pod ends. The pods' grace period is longer. Absent: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub drain_timeout_seconds: Option<u32>,
}

/// What a pod logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Logging {
    /// The least level that is logged. Absent: `Info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// How log lines are written. Absent: `Json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<LogFormat>,
}

/// The least level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum LogLevel {
    /// Loss, or a hand is needed.
    Error,
    /// Something is wrong that mends itself.
    Warn,
    /// What an operator wants to see in quiet times.
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

/// Whether a new operator's default image rolls running pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum UpgradePolicy {
    /// Only when the spec has changed.
    #[default]
    OnSpecChange,
    /// As soon as the operator has another default image.
    Automatic,
}

/// What is added to the pods. No service account, host path or privilege can be had through it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels of the pods; those of the operator go before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods; those of the operator go before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Requests and limits of the container. Absent: the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels of nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Tolerations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// How pods spread. Absent: over zones and nodes as far as possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// The priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Names of Secrets with credentials of the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<ImagePullSecret>,
}

/// A Secret with credentials of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ImagePullSecret {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What the operator found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssetForwarderStatus {
    /// The generation that this status is about; -1: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`; `Reconciling` or `Stalled` while true.
    #[serde(default)]
    #[schemars(schema_with = "crate::status::conditions")]
    pub conditions: Vec<Condition>,
    /// Pods that there are.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Pods that run the present configuration.
    #[serde(default)]
    pub updated_replicas: i32,
    /// The pods' selector, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The image that the pods run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Hash of the configuration that the pods are to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<String>,
    /// The ring, and how far its last change has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingStatus>,
}

/// The ring, and how far its last change has come.
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
    /// Clusters that the selector chooses and that are no members, with the reason, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<ExcludedCluster>,
    /// Share of the hash space that the last change moved, in percent with one decimal, such as `24.9`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_percent: Option<String>,
    /// Pods that run this epoch, of all: `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converged: Option<String>,
}

/// A cluster that is no member although the selector chooses it.
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

impl Default for Ring {
    fn default() -> Self {
        Self {
            replicas: default_ring_replicas(),
            update: RingUpdate::Live,
            handover_timeout_seconds: default_handover_timeout(),
        }
    }
}

fn date_time(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "format": "date-time", "nullable": true})
}

const fn one() -> i32 {
    1
}

const fn default_ring_replicas() -> u32 {
    128
}

const fn default_handover_timeout() -> u32 {
    60
}
