//! The NATS side of the document: the ring, its clusters, and how records are published.

mod fields;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mirror::MirrorConfig;
use super::server;
use super::tls::Tls;

/// Most virtual nodes of one ring. A million of them take 60 MB; more is a typing error in a weight.
pub const MAX_RING_NODES: u64 = 1 << 20;

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
    /// For how many milliseconds an asset that changes its owner waits for the old owner to confirm its earlier records. After
    /// that they go to the new owner, in order; the old owner may have them too.
    #[serde(default = "default_handover_timeout")]
    pub handover_timeout_ms: u64,
    /// The members; the order does not matter.
    pub clusters: Vec<Cluster>,
    /// How subscribers learn of the ring; absent: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beacon: Option<Beacon>,
    /// What subscribers get that cannot follow the ring; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorConfig>,
}

/// How subscribers learn of the ring: on NATS, on every member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Beacon {
    /// The subject below which the ring is announced, such as `_FANOUT.plant.assets`.
    pub subject: String,
    /// What tells this ring from every other one: the UID of its forwarder, or a text that no other ring has.
    pub ring: String,
    /// File that holds the nkey seed (`SU…`) which signs what is announced.
    pub key_file: PathBuf,
    /// For how many milliseconds a ring that moves assets is announced before it is used; 0: for no longer than Kafka needs.
    #[serde(default)]
    pub grace_ms: u64,
}

/// A NATS cluster in the ring.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
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
    /// Whether servers that the cluster announces are used beside those of `servers`; absent: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover_servers: Option<bool>,
    /// Where JetStream's API is; absent: `$JS.API`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jet_stream: Option<JetStreamApi>,
    /// The prefix of the subjects on which replies arrive; absent: `_INBOX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox_prefix: Option<String>,
    /// Where subscribers reach it, `nats://`, `tls://`, `ws://` or `wss://` with host and port; empty: at `servers`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_servers: Vec<String>,
}

/// Where JetStream's API is: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JetStreamApi {
    /// The JetStream domain, as of a leaf node: the API is at `$JS.<domain>.API`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The subject prefix of the API, if another account exports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_prefix: Option<String>,
}

impl Cluster {
    /// The subject prefix of JetStream's API, without a dot at its end.
    #[must_use]
    pub fn jet_stream_api(&self) -> String {
        let api = self.jet_stream.as_ref();
        match (
            api.and_then(|api| api.api_prefix.as_ref()),
            api.and_then(|api| api.domain.as_ref()),
        ) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(domain)) => format!("$JS.{domain}.API"),
            (None, None) => "$JS.API".to_owned(),
        }
    }

    /// The prefix of the subjects on which replies arrive, without a dot at its end.
    #[must_use]
    pub fn inbox_prefix(&self) -> &str {
        self.inbox_prefix.as_deref().unwrap_or("_INBOX")
    }

    /// Where subscribers reach it.
    #[must_use]
    pub fn servers_of_clients(&self) -> &[String] {
        if self.client_servers.is_empty() {
            &self.servers
        } else {
            &self.client_servers
        }
    }

    /// Whether servers that the cluster announces may be used.
    #[must_use]
    pub fn discovers_servers(&self) -> bool {
        self.discover_servers.unwrap_or(true)
    }
}

/// How to authenticate to NATS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "fields::NatsAuthFields", tag = "type", rename_all_fields = "camelCase")]
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
    /// The subject: `{key}` and `{id}`, each at least once, among literal text.
    pub subject: String,
    /// The stream, in `JetStream` mode: required there, refused in `Core` mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// What is added to the headers.
    pub headers: Headers,
    /// What happens to a publish that failed.
    pub retry: Retry,
}

/// What "published" means.
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
    /// Whether the forwarder creates it and keeps it as declared here. Otherwise it only checks that the stream exists.
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
    /// Oldest age of a managed stream's messages, in seconds; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
    /// Largest size of a managed stream, in bytes; absent: no limit.
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
    /// Absent: the record is retried for ever. An outage never counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long to wait for a confirmation, in milliseconds, before the publish counts as failed.
    pub confirm_timeout_ms: u64,
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

impl Retry {
    /// [`Self::initial_backoff_ms`] as a duration.
    #[must_use]
    pub const fn initial_backoff(&self) -> Duration {
        Duration::from_millis(self.initial_backoff_ms)
    }

    /// [`Self::max_backoff_ms`] as a duration.
    #[must_use]
    pub const fn max_backoff(&self) -> Duration {
        Duration::from_millis(self.max_backoff_ms)
    }

    /// [`Self::confirm_timeout_ms`] as a duration.
    #[must_use]
    pub const fn confirm_timeout(&self) -> Duration {
        Duration::from_millis(self.confirm_timeout_ms)
    }
}

impl Stream {
    /// The subjects of the stream, where it is managed: as declared, or else all below the literal prefix of `publish.subject`.
    #[must_use]
    pub fn managed_subjects(&self, prefix: &str) -> Vec<String> {
        if self.subjects.is_empty() {
            vec![format!("{prefix}.>")]
        } else {
            self.subjects.clone()
        }
    }
}

impl RingConfig {
    /// The files of credentials and certificates that the members name, each once: what a new ring waits for.
    ///
    /// The beacon's key is not among them. Records need no announcement, so a ring never waits for what only announces it.
    #[must_use]
    pub fn files(&self) -> BTreeSet<&Path> {
        self.clusters.iter().flat_map(Cluster::files).collect()
    }
}

impl Cluster {
    /// The files of credentials and certificates that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let auth = self.auth.as_ref().map(|auth| match auth {
            NatsAuth::Creds { file } | NatsAuth::Token { file } => file,
            NatsAuth::NKey { seed_file } => seed_file,
            NatsAuth::UserPassword {
                username: _,
                password_file,
            } => password_file,
        });
        let tls = self.tls.iter().flat_map(|tls| {
            let Tls {
                ca_file,
                cert_file,
                key_file,
            } = tls;
            [ca_file, cert_file, key_file].into_iter().flatten()
        });
        auth.into_iter().chain(tls).map(PathBuf::as_path)
    }
}

/// Leaves out user and password of URLs: documents made from the environment may have them.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            servers,
            weight,
            auth,
            tls,
            discover_servers,
            jet_stream,
            inbox_prefix,
            client_servers,
        } = self;
        let servers: Vec<_> = servers.iter().map(|server| server::without_userinfo(server)).collect();
        f.debug_struct("Cluster")
            .field("name", name)
            .field("servers", &servers)
            .field("weight", weight)
            .field("auth", auth)
            .field("tls", tls)
            .field("discover_servers", discover_servers)
            .field("jet_stream", jet_stream)
            .field("inbox_prefix", inbox_prefix)
            .field("client_servers", client_servers)
            .finish()
    }
}

const fn default_handover_timeout() -> u64 {
    60_000
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
