//! `NatsCluster`: a NATS cluster that may be a member of hash rings.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::reference::{AllowedNamespaces, Tls};

/// A NATS cluster. Every `AssetForwarder` whose selector chooses its labels has it as a member of its ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "fanout.openfactory.io",
    version = "v1alpha1",
    kind = "NatsCluster",
    plural = "natsclusters",
    singular = "natscluster",
    shortname = "natsc",
    category = "fanout",
    namespaced,
    derive = "PartialEq",
    status = "NatsClusterStatus",
    doc = "A NATS cluster that owns a share of the assets of every forwarder whose selector chooses it.",
    printcolumn(name = "Ring-Name", type_ = "string", json_path = ".status.ringName"),
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
    printcolumn(name = "Version", type_ = "string", json_path = ".status.serverVersion"),
    printcolumn(name = "JetStream", type_ = "boolean", json_path = ".status.jetStream"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", priority = 1),
    printcolumn(name = "Drain", type_ = "boolean", json_path = ".spec.drain", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct NatsClusterSpec {
    /// The name in rings, which decides the assets that it owns; immutable. By default `metadata.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_name: Option<String>,
    /// A cluster that somebody else runs.
    pub external: External,
    /// Its share of a ring: virtual nodes = `ring.replicas` × `weight`.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
    /// `true`: leaves every ring, in order; its assets go to the others. Deletion does the same first.
    #[serde(default)]
    pub drain: bool,
    /// How to authenticate; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<NatsAuth>,
    /// TLS; absent: only where a server's URL or the server itself asks for it, with the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Whose forwarders may have it as a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// A cluster that somebody else runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// `nats://host:port` or `tls://host:port`, of one cluster. Never with user and password: see `auth`.
    pub servers: Vec<String>,
}

/// How to authenticate to NATS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NatsAuth {
    /// What the Secret holds.
    #[serde(rename = "type")]
    pub type_: NatsAuthType,
    /// Where it is.
    pub secret_ref: NatsAuthSecretRef,
}

/// The kind of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum NatsAuthType {
    /// A credentials file: user JWT and seed.
    Creds,
    /// An NKEY seed (`SU…`).
    NKey,
    /// A token.
    Token,
    /// User and password.
    UserPassword,
}

/// A Secret in the cluster's namespace and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NatsAuthSecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key of the credentials; by default `user.creds`, `seed`, `token` or `password`, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
    /// With `UserPassword`: the key of the user's name; by default `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: Option<String>,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NatsClusterStatus {
    /// The generation that this status is about; -1: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`; `Reconciling` or `Stalled` while true.
    #[serde(default)]
    #[schemars(schema_with = "crate::status::conditions")]
    pub conditions: Vec<Condition>,
    /// The name in rings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_name: Option<String>,
    /// The NATS server's version, of the server that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The cluster's own name for itself, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Whether JetStream is on for these credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jet_stream: Option<bool>,
    /// The servers that the cluster names, and those declared, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// The forwarders whose ring it is a member of, as `namespace/name`, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_of: Vec<String>,
}

const fn one() -> u32 {
    1
}
