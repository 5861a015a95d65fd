//! `KafkaChannel`: a logical channel: where, as whom, how, which topic.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::reference::{AllowedNamespaces, Tls};

/// A Kafka topic and how to reach it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "fanout.openfactory.io",
    version = "v1alpha1",
    kind = "KafkaChannel",
    plural = "kafkachannels",
    singular = "kafkachannel",
    shortname = "kch",
    category = "fanout",
    namespaced,
    derive = "PartialEq",
    status = "KafkaChannelStatus",
    doc = "A logical channel: a Kafka topic, where it is, as whom and how it is read and written.",
    printcolumn(name = "Topic", type_ = "string", json_path = ".spec.topic.name"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.partitions"),
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
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct KafkaChannelSpec {
    /// The channel's name in the catalog, such as `kafka://example.com/assets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How to reach the brokers.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: Topic,
    /// Named settings for clients of the catalog.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "profiles")]
    pub profiles: Vec<Profile>,
    /// Whose forwarders may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaConnection {
    /// `host:port`, at least one.
    pub bootstrap_servers: Vec<String>,
    /// TLS; absent: plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// SASL; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
}

/// How to authenticate to Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: SaslMechanism,
    /// Where the credentials are.
    pub secret_ref: SaslSecretRef,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum SaslMechanism {
    /// User and password as they are: only with TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// A token that somebody else keeps fresh in the Secret.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
}

/// A Secret in the channel's namespace and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SaslSecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key of the user's name; by default `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: Option<String>,
    /// The key of the password, or of the token with OAUTHBEARER; by default `password`, `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topic {
    /// The topic's name; immutable.
    pub name: String,
    /// Whether the operator creates it and keeps it as declared here. Otherwise it only looks.
    #[serde(default)]
    pub managed: bool,
    /// Partitions of a managed topic. More re-map keys, which ends the order of an asset's records between old and new ones:
    /// see `allowPartitionIncrease`. Fewer is not possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub partitions: Option<i32>,
    /// Copies of a managed topic; immutable. Absent: the brokers' default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replication_factor: Option<i16>,
    /// Settings of a managed topic, such as `retention.ms`. What is not named here is left alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Acknowledges that more partitions re-map keys: the number that `partitions` may be raised to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub allow_partition_increase: Option<i32>,
    /// What deleting the channel does to a managed topic.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What deleting the channel does to a managed topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DeletionPolicy {
    /// The topic and its records stay.
    #[default]
    Retain,
    /// The topic goes, with all its records.
    Delete,
}

/// Named settings for clients of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The profile's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What they are for.
    #[serde(rename = "type")]
    pub type_: ProfileType,
    /// Settings of the Kafka client.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
}

/// What a profile is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ProfileType {
    /// Clients that write.
    Producer,
    /// Clients that read.
    Consumer,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaChannelStatus {
    /// The generation that this status is about; -1: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`; `Reconciling` or `Stalled` while true; `Drifted` where a topic is not as declared and is not repaired.
    #[serde(default)]
    #[schemars(schema_with = "crate::status::conditions")]
    pub conditions: Vec<Condition>,
    /// The topic's partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// The topic's copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<i32>,
    /// The Kafka cluster's own ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

/// Profiles merge by their name when they are applied.
fn profiles(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let item = generator.subschema_for::<Profile>();
    schemars::json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    })
}
