//! The process itself: caps and intervals, the HTTP server, the log.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Caps, intervals and bounds of the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Engine {
    /// Most records taken from Kafka at once.
    pub batch_size: usize,
    /// How long to wait for the first record of a batch, in milliseconds.
    pub poll_timeout_ms: u64,
    /// Most records that wait between consuming and publishing. Records that wait for a confirmation have the caps below.
    pub queue_size: usize,
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
    /// Largest record that is forwarded: bytes of key, value and headers after decompression. A larger one is invalid, and
    /// nothing of it is copied. Absent: see [`Self::max_record_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_record_bytes: Option<usize>,
    /// Longest drain, in milliseconds, before a partition is given up or the process ends.
    pub drain_timeout_ms: u64,
    /// For how many milliseconds after the sending of a commit that proves our membership records may be written. Must be
    /// shorter than the session that the group's coordinator grants; absent: see [`Config::fence_timeout`](super::Config::fence_timeout).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence_timeout_ms: Option<u64>,
    /// How often the watchdog checks the group membership, in milliseconds.
    pub watchdog_interval_ms: u64,
    /// For how many milliseconds the process may not be a stable member of its group before it ends.
    pub watchdog_timeout_ms: u64,
}

/// The HTTP server for probes, metrics and status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Admin {
    /// Address to listen on; `0.0.0.0` and `::` are every address of the machine: see [`Self::listens_on`].
    pub address: String,
    /// Port to listen on; 0: any free one, named in the log.
    pub port: u16,
    /// Value of the metrics' label `forwarder`; absent: `APP_UUID`, else `HOSTNAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarder: Option<String>,
    /// Value of the label `version` of the build information; absent: `APPLICATION_VERSION`, else `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Value of the label `swarm_node` of the build information; absent: `NODE_HOSTNAME`, else `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A file that says which version of the credentials is mounted beside it. `/status` shows its content, so that whoever
    /// mounts them knows when the process has them. Absent: nothing is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_version_file: Option<PathBuf>,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Logging {
    /// The lowest level that is logged. The variable `RUST_LOG` takes precedence.
    pub level: LogLevel,
    /// Text or JSON.
    pub format: LogFormat,
    /// Whether each HTTP request is logged.
    pub http_requests: bool,
}

/// The lowest level that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogLevel {
    /// Loss, or a person must act.
    Error,
    /// A problem that resolves itself.
    Warn,
    /// What an operator wants to see in normal times.
    #[default]
    Info,
    /// Single steps.
    Debug,
    /// Single records.
    Trace,
}

impl LogLevel {
    /// The word that `RUST_LOG` has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The largest record that is forwarded if the document does not say. No nats-server takes a message above 64 MiB, so what is larger
/// could never be delivered; 1 MiB more leaves room for key and ID, which are no part of the message.
const DEFAULT_MAX_RECORD_BYTES: usize = 65 << 20;

impl Engine {
    /// Largest record that is forwarded, in bytes of key, value and headers.
    #[must_use]
    pub fn max_record_bytes(&self) -> usize {
        self.max_record_bytes.unwrap_or(DEFAULT_MAX_RECORD_BYTES)
    }

    /// [`Self::poll_timeout_ms`] as a duration.
    #[must_use]
    pub const fn poll_timeout(&self) -> Duration {
        Duration::from_millis(self.poll_timeout_ms)
    }

    /// [`Self::commit_interval_ms`] as a duration.
    #[must_use]
    pub const fn commit_interval(&self) -> Duration {
        Duration::from_millis(self.commit_interval_ms)
    }

    /// [`Self::drain_timeout_ms`] as a duration.
    #[must_use]
    pub const fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    /// [`Self::watchdog_interval_ms`] as a duration.
    #[must_use]
    pub const fn watchdog_interval(&self) -> Duration {
        Duration::from_millis(self.watchdog_interval_ms)
    }

    /// [`Self::watchdog_timeout_ms`] as a duration.
    #[must_use]
    pub const fn watchdog_timeout(&self) -> Duration {
        Duration::from_millis(self.watchdog_timeout_ms)
    }
}

impl Admin {
    /// The address to listen on. `0.0.0.0` means every address, of IPv6 too: operators have always written it into every
    /// document, and a cluster that has IPv6 alone must reach those pods as well.
    #[must_use]
    pub fn listens_on(&self) -> &str {
        match self.address.as_str() {
            "0.0.0.0" => "::",
            address => address,
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            batch_size: 1_000,
            poll_timeout_ms: 50,
            queue_size: 10_000,
            commit_interval_ms: 100,
            max_pending_records_per_cluster: 20_000,
            max_pending_bytes_per_cluster: 16 << 20,
            max_pending_records: 100_000,
            max_pending_bytes: 64 << 20,
            max_record_bytes: None,
            drain_timeout_ms: 10_000,
            fence_timeout_ms: None,
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
            version: None,
            node: None,
            credentials_version_file: None,
        }
    }
}
