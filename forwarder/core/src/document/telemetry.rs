//! What the process reports about single records.

use serde::{Deserialize, Serialize};

use super::Tls;

/// What the process reports about single records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Telemetry {
    /// Spans of sampled records, by OTLP. Absent: none, and trace headers pass unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<Traces>,
}

/// Spans of sampled records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traces {
    /// The collector's URL, `http://host:4318` or `https://…`. Spans go to its path `/v1/traces`, as OTLP over HTTP in protobuf.
    pub endpoint: String,
    /// The most records in a million that are traced; 0: none. A record without a `traceparent` begins a trace. A record whose
    /// `traceparent` has the sampled flag continues that trace, if its trace ID falls into the share. All others pass unchanged.
    #[serde(default)]
    pub samples_per_million: u32,
    /// How to check the certificate of an `https` collector; absent: with the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}
