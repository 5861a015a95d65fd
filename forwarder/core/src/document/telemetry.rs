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
    /// So many records in a million are traced at most; 0: none. Of those that carry no `traceparent` a trace is begun; of those
    /// whose `traceparent` has its sampled flag set that trace is followed, as its name decides. All others pass untouched.
    #[serde(default)]
    pub samples_per_million: u32,
    /// How to trust an `https` collector; absent: by the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}
