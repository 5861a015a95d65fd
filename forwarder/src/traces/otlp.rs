//! Spans as OTLP has them.
//!
//! A record on its way carries no OTLP type: spans become one only when they are exported.

use forwarder_core::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self, ResourceSpans, ScopeSpans, Status};
use prost::Message as _;

/// A span that has ended.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: &'static str,
    pub(super) kind: SpanKind,
    /// In nanoseconds since 1970.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    /// What went wrong.
    pub(super) error: Option<String>,
}

/// An attribute's value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Number(i64),
}

/// What all spans are of.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) attributes: Vec<(&'static str, Value)>,
}

/// The bytes of an `ExportTraceServiceRequest`.
pub(super) fn request(resource: &Resource, spans: Vec<Span>) -> Vec<u8> {
    let scope = InstrumentationScope {
        name: "fanout-forwarder".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = ScopeSpans {
        scope: Some(scope),
        spans: spans.into_iter().map(Into::into).collect(),
        ..ScopeSpans::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource::v1::Resource {
            attributes: attributes(resource.attributes.clone()),
            ..resource::v1::Resource::default()
        }),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![resource_spans],
    };
    request.encode_to_vec()
}

impl From<Span> for v1::Span {
    fn from(span: Span) -> Self {
        let status = |message| Status {
            message,
            code: StatusCode::Error.into(),
        };
        Self {
            trace_id: span.trace.to_vec(),
            span_id: span.span.to_vec(),
            parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
            name: span.name.to_owned(),
            kind: span.kind.into(),
            start_time_unix_nano: span.start,
            end_time_unix_nano: span.end,
            attributes: attributes(span.attributes),
            status: span.error.map(status),
            ..Self::default()
        }
    }
}

fn attributes(attributes: Vec<(&'static str, Value)>) -> Vec<KeyValue> {
    let pair = |(key, value): (&str, Value)| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(match value {
                Value::Text(text) => any_value::Value::StringValue(text),
                Value::Number(number) => any_value::Value::IntValue(number),
            }),
        }),
        ..KeyValue::default()
    };
    attributes.into_iter().map(pair).collect()
}
