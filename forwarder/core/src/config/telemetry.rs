//! What the process tells of single records.

use serde::{Deserialize, Serialize};

use super::Tls;

/// What the process tells of single records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Telemetry {
    /// Spans of sampled records, by OTLP. Absent: none, and trace headers pass untouched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<Traces>,
}

/// Spans of sampled records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traces {
    /// The collector's URL, `http://host:4318` or `https://…`; spans go to `/v1/traces` behind it, as OTLP over HTTP in protobuf.
    pub endpoint: String,
    /// Of so many records in a million that carry no `traceparent` a trace is begun; 0: of none. A record that carries one is traced
    /// if its sampled flag is set, and never otherwise.
    #[serde(default)]
    pub samples_per_million: u32,
    /// How to trust an `https` collector; absent: by the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}
