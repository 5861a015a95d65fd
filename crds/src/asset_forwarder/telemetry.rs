//! What pods tell of single records.

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule};

/// What a pod tells of single records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Telemetry {
    /// Spans of sampled records, by OTLP. Absent: none, and the trace headers of records pass untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<Traces>,
}

/// Spans of sampled records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Traces {
    /// The collector's URL, such as `http://otel-collector.monitoring.svc:4318`; spans go to `/v1/traces` behind it, as OTLP over HTTP in
    /// protobuf. An `https` one is trusted by the image's certificate authorities.
    #[schemars(schema_with = "endpoint")]
    pub endpoint: String,
    /// So many records in a million are traced at most; by default 0: none. Of those that carry no `traceparent` a trace is begun; of
    /// those whose `traceparent` has its sampled flag set that trace is followed, as its name decides. All others pass untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "samples_per_million")]
    pub samples_per_million: Option<u32>,
}

fn endpoint(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        1024,
        &[rule(
            r"self.matches(r'^https?://[^@?#/:\s][^@?#\s]*$')",
            "is no plain URL of a server: write http://host:4318, without user, query or fragment",
        )],
    )
}

fn samples_per_million(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 0, "maximum": 1_000_000})
}
