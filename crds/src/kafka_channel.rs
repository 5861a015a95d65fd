//! `KafkaChannel`: a logical channel: a topic, its brokers, credentials and settings.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::reference::{AllowedNamespaces, Tls};
use crate::schema::{self, rule};

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
    doc = "A logical channel: a Kafka topic, its brokers, and the credentials and settings to read and write it.",
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
    /// The channel's name in the catalog, such as `kafka://example.com/assets`. Absent: the catalog does not serve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "address")]
    pub address: Option<String>,
    /// How to reach the brokers. A change rolls the pods of the forwarders that read the channel.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: Topic,
    /// Named settings for the catalog's clients. They do not concern forwarders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "profiles")]
    pub profiles: Vec<Profile>,
    /// The namespaces whose forwarders may read the channel, or write their dead letters to it. Absent: only its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaConnection {
    /// Brokers that tell about all others, as `host:port`: at least one, better three.
    #[schemars(schema_with = "bootstrap_servers")]
    pub bootstrap_servers: Vec<String>,
    /// TLS. Absent: plain text; an empty object: TLS with the system's certificate authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// SASL. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
}

/// How to authenticate to Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.secretRef.usernameKey) || self.mechanism != 'OAUTHBEARER'")
    .message("usernameKey is not used with OAUTHBEARER, whose token names the user: remove it")
    .field_path(".secretRef.usernameKey"))]
pub struct Sasl {
    /// `SCRAM-SHA-512` and `SCRAM-SHA-256`: user and password, and the password is never sent. `PLAIN`: user and password in plain
    /// text, so without `tls` anyone on the network path can read them. `OAUTHBEARER`: a token, which you must keep fresh in the
    /// Secret.
    pub mechanism: SaslMechanism,
    /// The Secret, in the channel's namespace.
    pub secret_ref: SaslSecretRef,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum SaslMechanism {
    /// User and password in plain text; without TLS anyone on the network path can read them.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// A token in the Secret, which the operator does not renew.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
}

/// A Secret in the channel's namespace and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = schema::username_key_rule())]
pub struct SaslSecretRef {
    /// The Secret's name.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// The key of the user's name. By default `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub username_key: Option<String>,
    /// The key of the password, by default `password`; with `OAUTHBEARER` the key of the token, by default `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub key: Option<String>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = managed_only("has(self.partitions)", ".partitions"),
    validation = managed_only("has(self.replicationFactor)", ".replicationFactor"),
    validation = managed_only("has(self.config) && size(self.config) > 0", ".config"),
    validation = managed_only("has(self.allowPartitionIncrease)", ".allowPartitionIncrease"),
    validation = managed_only("has(self.deletionPolicy) && self.deletionPolicy == 'Delete'", ".deletionPolicy"),
    validation = Rule::new("!has(self.managed) || !self.managed || !self.name.startsWith('__')")
        .message("topics whose names begin with __ are Kafka's own: choose another name, or remove managed")
        .field_path(".name"),
    // Not by way of the status: a topic that somebody else has changed must not make the operator's own writes fail.
    validation = Rule::new("!has(self.partitions) || !has(oldSelf.partitions) || self.partitions >= oldSelf.partitions")
        .message("a topic cannot have fewer partitions than before: keep the number, or remove the field to leave the topic as it is")
        .field_path(".partitions"),
    validation = Rule::new(
        "!has(self.partitions) || !has(oldSelf.partitions) || self.partitions <= oldSelf.partitions \
         || (has(self.allowPartitionIncrease) && self.partitions <= self.allowPartitionIncrease)"
    )
    .message(
        "more partitions move most keys to other partitions, where new records can overtake old ones of the same asset: stop the \
         producers until all records are read, then set allowPartitionIncrease to the same number"
    )
    .field_path(".partitions"),
    validation = Rule::new(
        "!has(self.replicationFactor) || !has(oldSelf.replicationFactor) || self.replicationFactor == oldSelf.replicationFactor"
    )
    .message("replicationFactor cannot be changed here: reassign the topic's partitions with Kafka's own tools and remove the field")
    .field_path(".replicationFactor")
)]
pub struct Topic {
    /// The topic's name. It cannot change: declare another channel instead.
    #[schemars(schema_with = "topic_name")]
    pub name: String,
    /// `true`: the operator creates the topic and keeps it as declared here. `false` (the default): it only checks that the topic exists.
    #[serde(default)]
    pub managed: bool,
    /// Partitions of a managed topic. Absent: the brokers' default. More partitions move keys, so that new records can
    /// overtake old ones of the same asset: see `allowPartitionIncrease`. Fewer is not possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub partitions: Option<i32>,
    /// Copies of each partition of a managed topic, set when it is created. Absent: the brokers' default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replication_factor: Option<i16>,
    /// Settings of a managed topic by Kafka's names, such as `retention.ms`, with their values as text. What is not named here is
    /// left alone; a setting that is removed here keeps its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::kafka_settings")]
    pub config: BTreeMap<String, String>,
    /// Acknowledges that more partitions move keys: the number up to which `partitions` may be raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub allow_partition_increase: Option<i32>,
    /// What deleting the channel does to a managed topic. `Retain` (the default): the topic and its records stay. `Delete`: both
    /// are deleted, if this channel has created the topic (`status.topicCreation`). A topic that existed before stays. While other
    /// `KafkaChannel`s or `AssetForwarder`s use the topic, the deletion waits for at most five minutes; then the topic stays.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What deleting the channel does to a managed topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DeletionPolicy {
    /// The topic and its records stay.
    #[default]
    Retain,
    /// The topic is deleted with all its records, if this channel has created it and nothing else uses it.
    Delete,
}

/// Named settings for clients of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The profile's name, such as `durableWrite`.
    #[schemars(schema_with = "profile_name")]
    pub name: String,
    /// Which clients the settings are for. `producer`: clients that write; `consumer`: clients that read.
    #[serde(rename = "type")]
    pub type_: ProfileType,
    /// Settings of the Kafka client by its names, such as `acks`, with their values as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::kafka_settings")]
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
    /// `Ready` always; `Reconciling` or `Stalled` while it is true; `Drifted` while the topic differs from what is declared and is not repaired.
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
    /// Settings of `spec.topic.config` that Kafka accepted but reports with another value. The operator writes them again only when the
    /// declared or the reported value changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differing_settings: Vec<DifferingSetting>,
    /// Says whether this channel has created its topic, or has begun to. Absent: it has not, or that is unknown; deleting the channel then keeps the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_creation: Option<TopicCreation>,
}

/// A setting that Kafka reports with another value than the declared one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DifferingSetting {
    /// The setting's name.
    pub name: String,
    /// The declared value, which the operator wrote.
    pub declared: String,
    /// The value that the brokers report. Absent: they do not report one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// The progress of the creation of a topic, and which topic it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicCreation {
    /// `Begun`: there was no topic, and the operator is about to create it. `Done`: this channel has created it.
    pub state: CreationState,
    /// The ID of the Kafka cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The topic's own ID. A later topic of the same name has another one. Absent: the brokers do not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// When the creation began, in RFC 3339; kept until the ID of the topic is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<String>,
}

/// The progress of the creation of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum CreationState {
    /// The operator is about to create it.
    Begun,
    /// It is created.
    Done,
}

fn address(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        512,
        &[rule(
            r"self.matches(r'^kafka://[A-Za-z0-9][A-Za-z0-9._:-]*/[A-Za-z0-9._~/-]+$')",
            "is not a valid channel address: write kafka://domain/name, such as kafka://example.com/assets",
        )],
    )
}

fn bootstrap_servers(_: &mut SchemaGenerator) -> Schema {
    let place = format!(
        r"self.matches(r'^([A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.%]+\]):{}$')",
        schema::PORT
    );
    let server = schema::text(
        300,
        &[rule(
            place,
            "is not a valid broker address: write host:port without a scheme, one broker per entry",
        )],
    );
    schema::set(1, 64, &server, &[])
}

fn topic_name(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        249,
        &[
            rule(
                "self.matches(r'^[A-Za-z0-9._-]+$') && self != '.' && self != '..'",
                "is not a valid topic name: write letters, digits, dots, underscores and dashes",
            ),
            rule(
                "self == oldSelf",
                "the topic of a channel cannot change: declare another KafkaChannel, and name it in the forwarder's channelRef",
            ),
        ],
    )
}

fn profile_name(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        63,
        &[rule(
            "self.matches(r'^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')",
            "is not a valid profile name: write letters, digits, dots, dashes and underscores, with a letter or a digit at both ends",
        )],
    )
}

/// Profiles merge by their name when they are applied.
fn profiles(generator: &mut SchemaGenerator) -> Schema {
    let mut list = schema::list(0, 64, &generator.subschema_for::<Profile>(), &[]);
    list.insert("x-kubernetes-list-type".to_owned(), "map".into());
    list.insert("x-kubernetes-list-map-keys".to_owned(), vec!["name"].into());
    list
}

/// Fields that describe a topic are for managed ones: the operator only checks the others.
fn managed_only(is_set: &str, field: &str) -> Rule {
    rule(
        format!("(has(self.managed) && self.managed) || !({is_set})"),
        "is for managed topics only: remove it, or write managed: true to let the operator manage the topic",
    )
    .field_path(field)
}
