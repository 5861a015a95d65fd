//! A NATS cluster that the operator runs.

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::asset_forwarder::PodTemplate;
use crate::schema::{self, rule};

/// A NATS cluster that the operator runs. Clients reach it by the Service `NAME-nats`, with the user and password that the Secret
/// `NAME-nats-client` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.version) != has(self.image)")
        .message("give either version (of the official image) or image"),
    validation = Rule::new("has(self.jetStream) == has(oldSelf.jetStream)")
        .message("JetStream cannot be added to servers or taken from them: declare a new NatsCluster and drain this one")
        .field_path(".jetStream"),
    // A server that was alone does not have its streams in the cluster's own log.
    validation = Rule::new("!has(self.jetStream) || (self.replicas == 1) == (oldSelf.replicas == 1)")
        .message("with JetStream a single server cannot become a cluster, nor a cluster a single server: declare a new NatsCluster and \
                  drain this one")
        .field_path(".replicas")
)]
pub struct Managed {
    /// The number of servers: 1, 3 or 5. The operator adds one at a time. It removes a server only when the others have all replicas
    /// of its streams.
    #[schemars(schema_with = "replicas")]
    pub replicas: u32,
    /// The NATS server's version, such as `2.12.1`: the tag of the official image `nats`. A change restarts one server at a time,
    /// each when all streams are complete. Either this or `image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "version")]
    pub version: Option<String>,
    /// An image that has the program `nats-server` in its path. Either this or `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::asset_forwarder::image")]
    pub image: Option<String>,
    /// JetStream. Absent: core NATS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jet_stream: Option<JetStream>,
    /// The largest message. By default 1048576 (1 MiB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub max_payload_bytes: Option<u32>,
    /// What is added to the servers' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// What a server stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JetStream {
    /// A volume for each server.
    pub storage: JetStreamStorage,
    /// The most that a server's streams may keep in memory, such as `256Mi`. By default `64Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "size")]
    pub max_memory: Option<String>,
}

/// A volume for each server. The claims stay when the cluster is deleted: delete them by hand when nobody wants the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf")
    .message("the servers' volumes cannot change: declare a new NatsCluster and drain this one"))]
pub struct JetStreamStorage {
    /// The size of each server's volume, such as `10Gi`. A tenth of it is left free.
    #[schemars(schema_with = "size")]
    pub size: String,
    /// The class of the volumes. Absent: the default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub storage_class_name: Option<String>,
}

/// The servers that the operator runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedStatus {
    /// Servers that exist.
    #[serde(default)]
    pub replicas: u32,
    /// Servers that are healthy.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Servers that run what is declared now.
    #[serde(default)]
    pub updated_replicas: u32,
}

fn replicas(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "integer",
        "format": "int32",
        "x-kubernetes-validations": [rule(
            "self in [1, 3, 5]",
            "is not a number of servers that can form a majority: write 1, 3 or 5",
        )],
    })
}

fn version(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        64,
        &[rule(
            r"self.matches(r'^[0-9]+[.][0-9]+[.][0-9]+(-[0-9A-Za-z.-]+)?$')",
            "is not a NATS server version: write one such as 2.12.1",
        )],
    )
}

fn size(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        16,
        &[rule(
            r"self.matches(r'^[1-9][0-9]{0,5}(Mi|Gi|Ti)$')",
            "is not a valid size: write a number and Mi, Gi or Ti, such as 10Gi",
        )],
    )
}
