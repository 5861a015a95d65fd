//! The Kafka side of the document: source, connection, dead letters.

mod fields;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::tls::Tls;

/// Kafka topics and the group that reads them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// How to reach the brokers.
    pub connection: KafkaConnection,
    /// The topic.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// Further topics of the same Kafka that the group reads; most often there are none. Each is read as if it were alone: it has its own
    /// offsets, and the group begins with each as [`Source::start_from`] says. One that does not exist (yet) keeps no other waiting.
    ///
    /// An asset's records keep their order within each topic. Between two topics they have none, as Kafka has none there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_topics: Vec<String>,
    /// The consumer group.
    #[serde(default = "default_group")]
    pub group: String,
    /// Where a group without committed offsets begins.
    #[serde(default)]
    pub start_from: StartFrom,
    /// What to do when the broker no longer has the committed offset. A batch that is damaged in Kafka is skipped; with
    /// `Stop` the partition pauses before it.
    #[serde(default)]
    pub missing_offset: MissingOffset,
    /// The group protocol.
    #[serde(default)]
    pub protocol: GroupProtocol,
}

impl Source {
    /// All topics that are read, the first one first.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.topic)
            .chain(&self.further_topics)
            .map(String::as_str)
    }
}

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaConnection {
    /// `host:port`, at least one.
    pub bootstrap_servers: Vec<String>,
    /// TLS; absent: plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// SASL; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// librdkafka properties, through an allowlist.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// How to authenticate to Kafka.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "fields::SaslFields", tag = "mechanism", rename_all_fields = "camelCase")]
pub enum Sasl {
    /// SASL PLAIN.
    #[serde(rename = "PLAIN")]
    Plain {
        /// The user's name.
        username: String,
        /// File that holds the password.
        password_file: PathBuf,
    },
    /// SASL SCRAM-SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256 {
        /// The user's name.
        username: String,
        /// File that holds the password.
        password_file: PathBuf,
    },
    /// SASL SCRAM-SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512 {
        /// The user's name.
        username: String,
        /// File that holds the password.
        password_file: PathBuf,
    },
    /// SASL OAUTHBEARER with a token in a file, which the forwarder does not renew.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer {
        /// File that holds the JWT; it is read whenever librdkafka asks for a token.
        token_file: PathBuf,
    },
}

impl Sasl {
    /// The user's name, if the mechanism has one.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Plain { username, .. } | Self::ScramSha256 { username, .. } | Self::ScramSha512 { username, .. } => {
                Some(username)
            }
            Self::OAuthBearer { .. } => None,
        }
    }
}

/// Where a group without committed offsets begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "fields::StartFromFields", tag = "type", rename_all_fields = "camelCase")]
pub enum StartFrom {
    /// At the end, as of the group's first assignment; partitions that appear later are read from their beginning.
    #[default]
    Latest,
    /// At the oldest record.
    Earliest,
    /// At the first record of this time or later.
    Timestamp {
        /// Milliseconds since 1970-01-01T00:00:00Z.
        millis: i64,
    },
}

/// What to do when the broker no longer has the committed offset. A topic that was recreated is read from its beginning. A log that
/// ends before the offset is read from its end. Both do not apply to [`MissingOffset::Stop`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissingOffset {
    /// If it expired, continue at the oldest record. The forwarder counts each time, and logs how many offsets.
    #[default]
    Earliest,
    /// If it expired, continue at the end. The forwarder counts each time, and logs how many offsets.
    Latest,
    /// Pause the partition until a person has decided; the others go on.
    Stop,
}

/// The consumer group protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupProtocol {
    /// The classic protocol, cooperative-sticky.
    #[default]
    Classic,
    /// KIP-848, where the broker assigns.
    Consumer,
}

/// Where a record that can never be forwarded goes: unchanged, with the reason and its origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "fields::DeadLetterFields", tag = "type", rename_all_fields = "camelCase")]
pub enum DeadLetter {
    /// A Kafka topic.
    Topic {
        /// The topic; it must exist or the broker must create it.
        topic: String,
        /// Another Kafka than the source's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection: Option<KafkaConnection>,
    },
    /// A file of JSON lines.
    File {
        /// The file; it is appended to.
        path: PathBuf,
    },
}

/// How many further topics a source may have. Each has commits of its own, one after the other, ten times a second.
pub const MAX_FURTHER_TOPICS: usize = 31;

fn default_topic() -> String {
    "ofa_assets".to_owned()
}

fn default_group() -> String {
    "ofa_fan_out_layer_group".to_owned()
}
