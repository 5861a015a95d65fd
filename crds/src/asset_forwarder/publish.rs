//! How records reach their cluster.

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule};

/// How records reach their cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.mode) || self.mode != 'JetStream' || has(self.stream)")
        .message("mode: JetStream needs a stream: name it in stream.name, or write mode: Core"),
    validation = Rule::new("!has(self.stream) || (has(self.mode) && self.mode == 'JetStream')")
        .message("stream is used in mode: JetStream only: write that, or remove stream")
        .field_path(".stream"),
    // A stream that takes every subject would take the server's own.
    validation = Rule::new(
        "!has(self.mode) || self.mode != 'JetStream' || (has(self.subject) && self.subject.matches(r'^[^{}.]+[.]'))"
    )
    .message("mode: JetStream needs a subject that begins with a literal token, such as assets.{key}.{id}"),
    validation = Rule::new("!has(self.mirrorMovedSeconds) || !has(self.mode) || self.mode != 'JetStream'")
        .message("mirrorMovedSeconds is for mode: Core only, because a stream keeps its records: remove it, or write mode: Core")
        .field_path(".mirrorMovedSeconds")
)]
pub struct Publish {
    /// What "published" means. `Core` (the default): the server has read and accepted the record, without storing it;
    /// `JetStream`: the stream has stored it.
    #[serde(default)]
    pub mode: PublishMode,
    /// The subject of a record: `{key}` (the asset) and `{id}` (the message's ID), each at least once, among literal text. Absent:
    /// `{key}.{id}`. `JetStream` needs a literal first token, such as `assets.{key}.{id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "subject")]
    pub subject: Option<String>,
    /// The stream of each cluster: required in mode `JetStream`, refused in mode `Core`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// What is added to the record's own headers. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// After this many refusals by the server a record goes to the dead letter, which must be declared. An outage does not count.
    /// Absent: the record is retried for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_attempts: Option<u32>,
    /// For how many seconds after a change of the ring records of assets that moved are also published to their previous owner, with the
    /// header `Fanout-Mirrored`. It is for subscribers that cannot follow the ring, in mode `Core`, best effort, and never at a cluster
    /// that has left the ring. A change rolls no pods where `ring.update` is `Live`. All pods of the forwarder must be new enough; until
    /// then the condition `PodsTooOld` says so. Absent: nothing is published twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub mirror_moved_seconds: Option<u32>,
}

/// What "published" means.
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
#[x_kube(
    validation = managed_only("subjects"),
    validation = managed_only("replicas"),
    validation = managed_only("storage"),
    validation = managed_only("maxAgeSeconds"),
    validation = managed_only("maxBytes"),
    validation = managed_only("duplicateWindowSeconds"),
    validation = Rule::new(
        "!has(self.maxAgeSeconds) \
         || (has(self.duplicateWindowSeconds) ? self.duplicateWindowSeconds : 120) <= self.maxAgeSeconds"
    )
    .message("a stream cannot remember message IDs for longer than it keeps messages: set duplicateWindowSeconds (by default 120) to \
              at most maxAgeSeconds")
    .field_path(".maxAgeSeconds")
)]
pub struct Stream {
    /// The stream's name.
    #[schemars(schema_with = "stream_name")]
    pub name: String,
    /// `true`: the forwarder creates the stream and keeps it as declared here. `false` (the default): it only checks that the
    /// stream exists.
    #[serde(default)]
    pub manage: bool,
    /// The subjects of a managed stream. Absent: the literal prefix of `publish.subject` followed by `.>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "subjects")]
    pub subjects: Vec<String>,
    /// Copies of a managed stream, at most as many as the cluster has servers. By default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<u32>,
    /// Where a managed stream is kept: `File` (the default) or `Memory`. It cannot change once the stream exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Storage")]
    pub storage: Option<Storage>,
    /// How long a managed stream keeps messages, in seconds. Absent: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_153_600_000_u64))]
    pub max_age_seconds: Option<u64>,
    /// Most bytes that a managed stream keeps; then the oldest messages go. Absent: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_bytes: Option<i64>,
    /// How long a managed stream remembers message IDs to drop repeats, in seconds, at most a week. By default 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
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
    /// `true`: adds topic, partition, offset and timestamp of the Kafka record. By default `false`.
    #[serde(default)]
    pub origin: bool,
}

/// A character that a literal token of a subject may have.
const LITERAL: &str = r"[^{}*>\x00-\x20\x7f-\x{9f}]";

fn subject(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        1024,
        &[
            rule(
                "self.contains('{key}') && self.contains('{id}')",
                "lacks {key} or {id}, so assets or their data items would share subjects: write both, such as assets.{key}.{id}",
            ),
            rule(
                format!(r"self.matches(r'^({LITERAL}|\{{key\}}|\{{id\}})*$') && !('.' + self + '.').contains('..')"),
                "is not a valid subject template: write {key}, {id} and tokens without *, >, braces or blanks, separated by single dots",
            ),
            rule(
                r"!self.matches(r'^([$]|_INBOX([.]|$))')",
                "begins with a token that NATS reserves: begin with another one",
            ),
        ],
    )
}

fn stream_name(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        255,
        &[rule(
            r"self.matches(r'^[^.*>/\\\s\p{Cc}]+$')",
            "is not a valid stream name: write letters, digits, underscores and dashes",
        )],
    )
}

fn subjects(_: &mut SchemaGenerator) -> Schema {
    let pattern = schema::text(
        1024,
        &[
            rule(
                format!(
                    r"self.matches(r'^({LITERAL}+|[*])([.]({LITERAL}+|[*]))*([.]>)?$|^>$') && !('.' + self + '.').contains('..')"
                ),
                "is not a valid subject pattern: write tokens separated by single dots, * for any token, > for all the rest, such as assets.>",
            ),
            rule(
                r"!self.matches(r'^([*>$]|_INBOX([.]|$))')",
                "would capture the server's own subjects: begin with a literal token, such as assets.>",
            ),
        ],
    );
    schema::set(0, 64, &pattern, &[])
}

/// Fields that describe a stream are for managed ones: a stream that is only used keeps its own settings.
fn managed_only(field: &str) -> kube::core::Rule {
    rule(
        format!("(has(self.manage) && self.manage) || !has(self.{field})"),
        "is for managed streams only: remove it, or write manage: true to have the stream created",
    )
    .field_path(format!(".{field}"))
}
