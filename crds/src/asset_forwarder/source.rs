//! What is read.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::reference::ObjectRef;
use crate::schema::{self, rule};

/// A channel that is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The `KafkaChannel`.
    pub channel_ref: ObjectRef,
    /// The consumer group. It must not be used by anything else.
    #[schemars(schema_with = "group")]
    pub group: String,
    /// Where a group begins that has no offsets yet. Absent: `Latest`. A group that has offsets goes on there, whatever is written
    /// here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<StartFrom>,
    /// What to do when the broker no longer has the committed offset. `Earliest` (the default): go on at the oldest record that is
    /// there; `Latest`: go on at the end; `Stop`: leave the partition alone until a person has decided. What is missing is counted. A batch
    /// that is damaged in Kafka is stepped over, with an error, or with `Stop` stopped at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MissingOffset")]
    pub missing_offset: Option<MissingOffset>,
    /// The group's protocol. `Classic` (the default): cooperative-sticky; `Consumer`: KIP-848, where the broker assigns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GroupProtocol")]
    pub protocol: Option<GroupProtocol>,
    /// Settings of librdkafka by its names, such as `fetch.min.bytes`, with their values as text. Only some are allowed: none that
    /// the forwarder's promises rest on, none that reach outside it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::kafka_settings")]
    pub client_config: BTreeMap<String, String>,
}

/// Where a group begins that has no committed offsets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type != 'Timestamp' || has(self.timestamp)")
        .message("type: Timestamp needs a timestamp: add it, such as 2026-01-31T06:00:00Z"),
    validation = Rule::new("!has(self.timestamp) || self.type == 'Timestamp'")
        .message("timestamp is used with type: Timestamp only: write that, or remove it")
)]
pub struct StartFrom {
    /// `Latest`: at the end, as of the group's first assignment; partitions that appear later are read from their beginning.
    /// `Earliest`: at the oldest record. `Timestamp`: at the first record of a time or later.
    #[serde(rename = "type")]
    pub type_: StartFromType,
    /// With `Timestamp`: the time (RFC 3339) of the first record to read, such as `2026-01-31T06:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "timestamp")]
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

fn group(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        255,
        &[rule(
            r"!self.matches(r'^\s*$') && !self.matches(r'\p{Cc}')",
            "is no name of a group: write visible characters",
        )],
    )
}

fn timestamp(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": "date-time",
        "maxLength": 40,
        "x-kubernetes-validations": [rule(
            "self >= timestamp('1970-01-01T00:00:00Z')",
            "is before 1970, when Kafka's time begins: write a later time, or type: Earliest",
        )],
    })
}
