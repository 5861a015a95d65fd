//! Spans as OTLP has them: the few messages of its protobuf that are needed, written by hand.

use forwarder_core::trace::{SpanId, TraceId};

/// A span that has ended.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// In nanoseconds since 1970.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    /// What went wrong.
    pub(super) error: Option<String>,
}

/// What a span is to its trace; the numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Internal = 1,
    Producer = 4,
    Consumer = 5,
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

/// An `ExportTraceServiceRequest`.
pub(super) fn request(resource: &Resource, spans: &[Span]) -> Vec<u8> {
    let mut out = Vec::new();
    message(1, &mut out, |resource_spans| {
        message(1, resource_spans, |out| attributes(1, &resource.attributes, out));
        message(2, resource_spans, |scope_spans| {
            message(1, scope_spans, |scope| {
                bytes(1, b"fanout-forwarder", scope);
                bytes(2, env!("CARGO_PKG_VERSION").as_bytes(), scope);
            });
            for span in spans {
                message(2, scope_spans, |out| write_span(span, out));
            }
        });
    });
    out
}

fn write_span(span: &Span, out: &mut Vec<u8>) {
    let Span {
        trace,
        span,
        parent,
        name,
        kind,
        start,
        end,
        attributes: own,
        error,
    } = span;
    bytes(1, trace, out);
    bytes(2, span, out);
    if let Some(parent) = parent {
        bytes(4, parent, out);
    }
    bytes(5, name.as_bytes(), out);
    number(6, *kind as u64, out);
    fixed(7, *start, out);
    fixed(8, *end, out);
    attributes(9, own, out);
    if let Some(error) = error {
        message(15, out, |status| {
            bytes(2, error.as_bytes(), status);
            // Error.
            number(3, 2, status);
        });
    }
}

fn attributes(field: u32, attributes: &[(&'static str, Value)], out: &mut Vec<u8>) {
    for (key, value) in attributes {
        message(field, out, |pair| {
            bytes(1, key.as_bytes(), pair);
            message(2, pair, |any| match value {
                Value::Text(text) => bytes(1, text.as_bytes(), any),
                // Negative ones too are varints of 64 bits.
                Value::Number(value) => number(3, value.cast_unsigned(), any),
            });
        });
    }
}

/// A message within another: its length stands before it.
fn message(field: u32, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    bytes(field, &inner, out);
}

fn bytes(field: u32, value: &[u8], out: &mut Vec<u8>) {
    varint(u64::from(field) << 3 | 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn number(field: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3, out);
    varint(value, out);
}

fn fixed(field: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3 | 1, out);
    out.extend_from_slice(&value.to_le_bytes());
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}
