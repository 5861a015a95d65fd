//! What pods report about single records.

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule};

/// What a pod reports about single records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Telemetry {
    /// Spans of sampled records, by OTLP. Absent: none, and the trace headers of records pass unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<Traces>,
}

/// Spans of sampled records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Traces {
    /// The collector's URL, such as `http://otel-collector.monitoring.svc:4318`. Spans go to its path `/v1/traces`, as OTLP over HTTP in
    /// protobuf. The certificate of an `https` one is checked against the image's certificate authorities.
    #[schemars(schema_with = "endpoint")]
    pub endpoint: String,
    /// The most records in a million that are traced. By default 0: none. A record without a `traceparent` begins a trace, if it falls into the share. A record
    /// whose `traceparent` has the sampled flag continues that trace, if its trace ID falls into the share. All others pass unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "samples_per_million")]
    pub samples_per_million: Option<u32>,
}

fn endpoint(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        1024,
        &[rule(
            r"self.matches(r'^https?://[^@?#/:\s][^@?#\s]*$')",
            "is not a plain server URL: write http://host:4318, without user, query or fragment",
        )],
    )
}

fn samples_per_million(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 0, "maximum": 1_000_000})
}
