//! The configuration document: one YAML text that says all a forwarder does.
//!
//! The types here are the document as written ([`Config`]). An operator writes the same type.
//! Credentials are always paths of files, so that a document holds no secret and a rotation needs no new document.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The whole document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where records come from.
    pub source: Source,
    /// Who owns which asset.
    pub ring: RingConfig,
    /// How records reach their cluster.
    #[serde(default)]
    pub publish: Publish,
    /// Where a record goes that can never be forwarded. Absent: it is counted, logged and stepped over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
    /// Caps, intervals and bounds of the engine.
    #[serde(default)]
    pub engine: Engine,
    /// The HTTP server for probes, metrics and status.
    #[serde(default)]
    pub admin: Admin,
}

/// A Kafka topic and the group that reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// How to reach the brokers.
    #[serde(flatten)]
    pub connection: KafkaConnection,
    /// The topic.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// The consumer group.
    #[serde(default = "default_group")]
    pub group: String,
    /// Where a group begins that has no offsets yet.
    #[serde(default)]
    pub start_from: StartFrom,
    /// What to do when the broker no longer has the committed offset.
    #[serde(default)]
    pub missing_offset: MissingOffset,
    /// The group protocol.
    #[serde(default)]
    pub protocol: GroupProtocol,
}

/// How to reach Kafka. (Flattened into its parent, which therefore checks unknown fields itself.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// librdkafka properties, through an allowlist.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// TLS towards Kafka or NATS. An empty object means: the system's certificate authorities, no client certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file of the certificate authorities to trust instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate; needs `keyFile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key; needs `certFile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// How to authenticate to Kafka.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mechanism", deny_unknown_fields, rename_all_fields = "camelCase")]
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
    /// SASL OAUTHBEARER with a token that somebody else keeps fresh in a file.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer {
        /// File that holds the JWT; read anew whenever librdkafka wants a token.
        token_file: PathBuf,
    },
}

/// Where a group begins that has no committed offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields, rename_all_fields = "camelCase")]
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

/// What to do when the broker no longer has the committed offset (it expired, or the topic was made anew).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissingOffset {
    /// Go on at the oldest record that is there. What expired is counted.
    #[default]
    Earliest,
    /// Go on at the end. What is skipped is counted.
    Latest,
    /// Leave the partition paused until a person has decided; the others go on.
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

/// Who owns which asset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RingConfig {
    /// Grows with every change of the ring.
    #[serde(default = "one")]
    pub epoch: u64,
    /// Virtual nodes of a cluster of weight 1.
    #[serde(default = "default_replicas")]
    pub replicas: u32,
    /// The members; the order does not matter.
    pub clusters: Vec<Cluster>,
}

/// A NATS cluster in the ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// The name in the ring: it decides which assets it owns.
    pub name: String,
    /// `nats://host:port` or `tls://host:port`, at least one.
    pub servers: Vec<String>,
    /// Virtual nodes = `ring.replicas` × `weight`.
    #[serde(default = "one_u32")]
    pub weight: u32,
    /// How to authenticate; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<NatsAuth>,
    /// TLS; absent: only where a server's URL or the server itself asks for it, with the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// How to authenticate to NATS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields, rename_all_fields = "camelCase")]
pub enum NatsAuth {
    /// A credentials file: user JWT and seed.
    Creds {
        /// The `.creds` file.
        file: PathBuf,
    },
    /// An NKEY seed.
    NKey {
        /// File that holds the seed (`SU…`).
        seed_file: PathBuf,
    },
    /// A token.
    Token {
        /// File that holds the token.
        file: PathBuf,
    },
    /// User and password.
    UserPassword {
        /// The user's name.
        username: String,
        /// File that holds the password.
        password_file: PathBuf,
    },
}

/// How records reach their cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Publish {
    /// Core NATS or JetStream.
    pub mode: PublishMode,
    /// The subject: literal tokens, `{key}` and `{id}`, joined by dots.
    pub subject: String,
    /// The stream, in `JetStream` mode: required there, refused in `Core` mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// What is added to the headers.
    pub headers: Headers,
    /// What happens to a publish that failed.
    pub retry: Retry,
}

/// What "published" is to mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublishMode {
    /// The server has read and accepted the record.
    #[default]
    Core,
    /// The stream has stored the record.
    JetStream,
}

/// A JetStream stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stream {
    /// The stream's name.
    pub name: String,
    /// Whether the forwarder creates it and keeps it as declared here. Otherwise it only looks whether it is there.
    #[serde(default)]
    pub manage: bool,
    /// The subjects of a managed stream; absent: the literal prefix of `publish.subject` followed by `.>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// Copies of a managed stream: 1 to 5.
    #[serde(default = "one_usize")]
    pub replicas: usize,
    /// Where a managed stream is kept.
    #[serde(default)]
    pub storage: Storage,
    /// Oldest age of a managed stream's messages, in seconds; absent: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
    /// Largest size of a managed stream, in bytes; absent: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<i64>,
    /// How long a managed stream remembers message IDs, in seconds.
    #[serde(default = "default_duplicate_window")]
    pub duplicate_window_seconds: u64,
}

/// Where a stream is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory.
    Memory,
}

/// What is added to the headers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Headers {
    /// Adds topic, partition, offset and timestamp of the Kafka record.
    pub origin: bool,
}

/// What happens to a publish that failed: it is tried again, its asset's later records wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retry {
    /// The first pause, in milliseconds; it doubles, with jitter.
    pub initial_backoff_ms: u64,
    /// The longest pause, in milliseconds.
    pub max_backoff_ms: u64,
    /// After this many refusals by the server the record goes to the dead letter (which must be declared).
    /// Absent: for ever. An outage is no refusal and is never counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long to wait for a confirmation, in milliseconds, before the publish counts as failed.
    pub confirm_timeout_ms: u64,
}

/// Where a record goes that can never be forwarded, as it came, with the reason and its origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields, rename_all_fields = "camelCase")]
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

/// Caps, intervals and bounds of the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Engine {
    /// Most records taken from Kafka at once.
    pub batch_size: usize,
    /// How long to wait for the first record of a batch, in milliseconds.
    pub poll_timeout_ms: u64,
    /// How often offsets are committed, in milliseconds.
    pub commit_interval_ms: u64,
    /// Most records that wait for one cluster's confirmation.
    pub max_pending_records_per_cluster: usize,
    /// Most bytes that wait for one cluster's confirmation.
    pub max_pending_bytes_per_cluster: usize,
    /// Most records that wait for confirmation in all.
    pub max_pending_records: usize,
    /// Most bytes that wait for confirmation in all.
    pub max_pending_bytes: usize,
    /// Longest drain, in milliseconds, before a partition is given up or the process ends.
    pub drain_timeout_ms: u64,
    /// How often the watchdog looks at the group membership, in milliseconds.
    pub watchdog_interval_ms: u64,
    /// How long the process may be no stable member of its group before it ends, in milliseconds.
    pub watchdog_timeout_ms: u64,
}

/// The HTTP server for probes, metrics and status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Admin {
    /// Address to listen on.
    pub address: String,
    /// Port to listen on; 0: any free one, named in the log.
    pub port: u16,
    /// Value of the metrics' label `forwarder`; absent: `APP_UUID`, else `HOSTNAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarder: Option<String>,
}

impl Default for Publish {
    fn default() -> Self {
        Self {
            mode: PublishMode::Core,
            subject: "{key}.{id}".to_owned(),
            stream: None,
            headers: Headers::default(),
            retry: Retry::default(),
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            initial_backoff_ms: 100,
            max_backoff_ms: 10_000,
            max_attempts: None,
            confirm_timeout_ms: 5_000,
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            batch_size: 1_000,
            poll_timeout_ms: 50,
            commit_interval_ms: 100,
            max_pending_records_per_cluster: 20_000,
            max_pending_bytes_per_cluster: 16 << 20,
            max_pending_records: 100_000,
            max_pending_bytes: 64 << 20,
            drain_timeout_ms: 10_000,
            watchdog_interval_ms: 30_000,
            watchdog_timeout_ms: 300_000,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: "0.0.0.0".to_owned(),
            port: 4000,
            forwarder: None,
        }
    }
}

fn default_topic() -> String {
    "ofa_assets".to_owned()
}

fn default_group() -> String {
    "ofa_fan_out_layer_group".to_owned()
}

const fn default_replicas() -> u32 {
    128
}

const fn default_duplicate_window() -> u64 {
    120
}

const fn one() -> u64 {
    1
}

const fn one_u32() -> u32 {
    1
}

const fn one_usize() -> usize {
    1
}
