//! What is read.

use std::collections::BTreeMap;

use kube::KubeSchema;
use kube::core::Rule;
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
    /// The consumer group, the same in each source. It must not be used by anything else.
    #[schemars(schema_with = "group")]
    pub group: String,
    /// Where the group begins in a topic of which it has no committed offsets: the same in each source. Absent: `Latest`. In a topic with
    /// committed offsets the group continues there and ignores this field. Kafka forgets the offsets of a topic that nobody in the group
    /// reads, by default after 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<StartFrom>,
    /// What to do when the broker no longer has the committed offset. `Earliest` (the default): continue at the oldest
    /// record; `Latest`: continue at the end; `Stop`: pause the partition until a person has decided. Each time is counted, and the log says how many offsets. A
    /// batch that is damaged in Kafka is skipped with an error; with `Stop` the partition pauses before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MissingOffset")]
    pub missing_offset: Option<MissingOffset>,
    /// The group's protocol. `Classic` (the default): cooperative-sticky; `Consumer`: KIP-848, where the broker assigns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GroupProtocol")]
    pub protocol: Option<GroupProtocol>,
    /// Settings of librdkafka by its names, such as `fetch.min.bytes`, with their values as text. Only some are allowed: none
    /// that the forwarder's promises depend on, and none that reach outside it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::kafka_settings")]
    pub client_config: BTreeMap<String, String>,
}

/// Where a group without committed offsets begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type != 'Timestamp' || has(self.timestamp)")
        .message("type: Timestamp needs a timestamp: add it, such as 2026-01-31T06:00:00Z"),
    validation = Rule::new("!has(self.timestamp) || self.type == 'Timestamp'")
        .message("timestamp is used with type: Timestamp only: write that, or remove it")
)]
pub struct StartFrom {
    /// `Latest`: at the end, as of the group's first assignment of the topic; partitions that appear later are read from their beginning.
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
    /// At the end, as of the group's first assignment of the topic; partitions that appear later are read from their beginning.
    Latest,
    /// At the oldest record.
    Earliest,
    /// At the first record of a time or later.
    Timestamp,
}

/// What to do when the broker no longer has the committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum MissingOffset {
    /// Continue at the oldest record. The forwarder counts each time, and logs how many offsets.
    Earliest,
    /// Continue at the end. The forwarder counts each time, and logs how many offsets.
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

/// The sources that a forwarder may have at most.
const MOST: u32 = 16;

/// One consumer reads all sources, so they say the same of it.
pub(super) fn list(generator: &mut SchemaGenerator) -> Schema {
    let rules = [
        rule(
            "self.all(one, self.exists_one(other, one.channelRef.name == other.channelRef.name \
             && has(one.channelRef.__namespace__) == has(other.channelRef.__namespace__) \
             && (!has(one.channelRef.__namespace__) \
                 || one.channelRef.__namespace__ == other.channelRef.__namespace__)))",
            "names a channel twice: name each KafkaChannel once",
        ),
        rule(
            "self.all(source, source.group == self[0].group)",
            "has different groups: write the same group in each source, or read the others by another AssetForwarder",
        ),
        same("startFrom"),
        same("missingOffset"),
        same("protocol"),
        same("clientConfig"),
    ];
    schema::list(1, MOST, &generator.subschema_for::<Source>(), &rules)
}

/// What the consumer has once is declared the same in each source, or in none.
fn same(field: &str) -> Rule {
    rule(
        format!(
            "self.all(source, has(source.{field}) == has(self[0].{field}) \
             && (!has(source.{field}) || source.{field} == self[0].{field}))"
        ),
        &format!("has different values of {field}: write the same {field} in each source, or in none"),
    )
}

fn group(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        255,
        &[rule(
            r"!self.matches(r'^\s*$') && !self.matches(r'\p{Cc}')",
            "is not a valid group name: write visible characters",
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
            "is before 1970, where Kafka's timestamps begin: write a later time, or type: Earliest",
        )],
    })
}
