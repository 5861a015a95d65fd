//! The configuration document: one YAML text that says all a forwarder does.
//!
//! The types here are the document as written ([`Config`]). An operator writes the same type.
//! The checks turn it into a [`Checked`] one, which is what the engine takes. They name every fault by its path.
//! The ring may be in a document of its own ([`RingConfig`] at its top level), so that it can change while the rest
//! cannot. The rest is then a [`Document`] without a ring.
//! Credentials are always paths of files, so that a document holds no secret and a rotation needs no new document.

mod check;
mod environment;
mod fault;
mod fence;
mod kafka;
mod mirror;
mod nats;
mod process;
pub mod properties;
pub mod server;
mod tagged;
mod telemetry;
mod tls;
mod version;
mod without_ring;
mod yaml;

use serde::{Deserialize, Serialize};

pub use self::check::Checked;
pub use self::environment::{Notice, from_environment, identify, ring_from_environment};
pub use self::fault::{ConfigError, ConfigErrors, Fault, Misread, ReadErrors};
pub use self::kafka::{
    DeadLetter, GroupProtocol, KafkaConnection, MAX_FURTHER_TOPICS, MissingOffset, Sasl, Source, StartFrom,
};
pub use self::mirror::{MirrorConfig, PreviousCluster, PreviousRing};
pub use self::nats::{
    Beacon, Cluster, Headers, JetStreamApi, MAX_RING_NODES, NatsAuth, Publish, PublishMode, Retry, RingConfig, Storage,
    Stream,
};
pub use self::process::{Admin, Engine, LogFormat, LogLevel, Logging};
pub use self::telemetry::{Telemetry, Traces};
pub use self::tls::Tls;
pub use self::version::{FIRST_RING_DOCUMENT_VERSION, RING_DOCUMENT_VERSION};
pub use self::without_ring::Document;

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
    /// Where a record that can never be forwarded goes. Absent: it is counted, logged and skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
    /// Caps, intervals and bounds of the engine.
    #[serde(default)]
    pub engine: Engine,
    /// The HTTP server for probes, metrics and status.
    #[serde(default)]
    pub admin: Admin,
    /// What is logged, and how.
    #[serde(default)]
    pub logging: Logging,
    /// What is reported about single records. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
}
