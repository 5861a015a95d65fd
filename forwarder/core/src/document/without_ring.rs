//! The document whose ring may be in another one.

use serde::{Deserialize, Serialize};

use super::{Admin, Config, DeadLetter, Engine, Logging, Publish, RingConfig, Source, Telemetry};

/// The document as written, with its ring or without. Without it, the ring comes from a document of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// Where records come from.
    pub source: Source,
    /// Who owns which asset. Absent: another document says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingConfig>,
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

impl Document {
    /// The whole document, with `ring` for its ring.
    #[must_use]
    pub fn with_ring(self, ring: RingConfig) -> Config {
        let Self {
            source,
            ring: _,
            publish,
            dead_letter,
            engine,
            admin,
            logging,
            telemetry,
        } = self;
        Config {
            source,
            ring,
            publish,
            dead_letter,
            engine,
            admin,
            logging,
            telemetry,
        }
    }
}

impl Config {
    /// The document without its ring, and the ring.
    #[must_use]
    pub fn split(self) -> (Document, RingConfig) {
        let Self {
            source,
            ring,
            publish,
            dead_letter,
            engine,
            admin,
            logging,
            telemetry,
        } = self;
        let document = Document {
            source,
            ring: None,
            publish,
            dead_letter,
            engine,
            admin,
            logging,
            telemetry,
        };
        (document, ring)
    }
}
