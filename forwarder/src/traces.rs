//! Spans of sampled records.
//!
//! ```text
//! intake: sample ─▶ message ─▶ publisher: when it was sent and confirmed ─▶ receipt ─▶ intake: settled
//!                                                                                         │ queue, bounded
//!                                                                           exporter ◀────┘
//! consume ──┬─ route       A record that is not sampled carries nothing and costs nothing.
//!           ├─ publish     The message's `traceparent` names this one.
//!           └─ settle
//! ```
//! Nothing here holds a record up: where the queue is full or the collector away, spans are dropped and counted.

mod exporter;
mod otlp;

use std::hash::{BuildHasher as _, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use forwarder_core::delivery::offsets::Tag;
use forwarder_core::document::Traces;
use forwarder_core::record::{Header, Invalid};
use forwarder_core::trace::{Sampled, Sampler, SpanId};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prometheus::IntCounter;
use tokio::sync::mpsc;
use tracing::warn;

pub use self::exporter::{Exporter, ExporterError, Identity};

use self::otlp::{Span, Value};
use crate::metrics::Metrics;
use forwarder_service::clock::Clock;

/// Traces that wait to be exported: a few seconds' worth of any sensible share, and a megabyte.
const QUEUE: usize = 2_048;

/// A traced record on its way.
#[derive(Debug)]
pub struct Trace {
    sampled: Sampled,
    /// In the engine's microseconds, as all times here.
    taken_at: u64,
    routed_at: u64,
    published: Option<Published>,
}

#[derive(Debug)]
struct Published {
    cluster: String,
    sent_at: u64,
    confirmed_at: u64,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Confirmed by its cluster.
    Confirmed,
    /// Given up with its assignment: another forwarder delivers it.
    Dropped,
    /// It can never be forwarded.
    Invalid(Invalid),
}

impl Trace {
    /// A record that was sampled, taken from Kafka at `taken_at` and made a message of at `routed_at`.
    #[must_use]
    pub fn new(sampled: Sampled, taken_at: u64, routed_at: u64) -> Box<Self> {
        Box::new(Self {
            sampled,
            taken_at,
            routed_at,
            published: None,
        })
    }

    /// Whether the record came without a trace.
    #[must_use]
    pub const fn begins_here(&self) -> bool {
        self.sampled.parent.is_none()
    }

    /// The cluster has confirmed it.
    pub fn published(&mut self, cluster: &str, sent_at: u64, confirmed_at: u64) {
        self.published = Some(Published {
            cluster: cluster.to_owned(),
            sent_at,
            confirmed_at,
        });
    }
}

/// Begins and ends traces, on the intake's thread.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    clock: Clock,
    ended: mpsc::Sender<Ended>,
    dropped: IntCounter,
}

/// A trace that has ended.
#[derive(Debug)]
struct Ended {
    trace: Box<Trace>,
    tag: Tag,
    end: End,
    settled_at: u64,
    /// What time of the day `settled_at` is, in nanoseconds since 1970.
    settled_wall: u64,
    /// The span of the settling.
    settle: SpanId,
    route: SpanId,
}

impl Tracer {
    /// A tracer, and what exports.
    ///
    /// # Errors
    /// The endpoint cannot be used.
    pub fn new(
        declared: &Traces,
        identity: Identity,
        metrics: &Metrics,
        clock: Clock,
    ) -> Result<(Self, Exporter), ExporterError> {
        if declared.samples_per_million == 0 {
            warn!(
                "telemetry.traces.samplesPerMillion is 0 or absent, so no record is traced; set how many in a million are"
            );
        }
        let (ended, to_export) = mpsc::channel(QUEUE);
        let exporter = Exporter::new(declared, identity, to_export, metrics)?;
        let tracer = Self {
            // Keyed anew in each process, by the system's randomness.
            sampler: Sampler::new(declared.samples_per_million, RandomState::new().hash_one(QUEUE)),
            clock,
            ended,
            dropped: metrics.spans_dropped.clone(),
        };
        Ok((tracer, exporter))
    }

    /// Whether a record with these headers is traced.
    pub fn sample(&mut self, headers: &[Header<'_>]) -> Option<Sampled> {
        self.sampler.sample(headers.iter().copied())
    }

    /// The engine's time, exactly: a batch of records shares the other one.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.micros()
    }

    /// A traced record is settled, in one way or another.
    pub fn end(&mut self, trace: Box<Trace>, tag: Tag, end: End) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ended = Ended {
            trace,
            tag,
            end,
            settled_at: self.clock.micros(),
            settled_wall: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
            settle: self.sampler.span_id(),
            route: self.sampler.span_id(),
        };
        let spans = ended.count();
        if self.ended.try_send(ended).is_err() {
            self.dropped.inc_by(spans);
        }
    }
}

impl Ended {
    /// How many spans it makes.
    fn count(&self) -> u64 {
        if self.trace.published.is_some() { 4 } else { 2 }
    }

    fn spans(self, identity: &Identity, out: &mut Vec<Span>) {
        let Self {
            trace,
            tag,
            end,
            settled_at,
            settled_wall,
            settle,
            route,
        } = self;
        let Trace {
            sampled,
            taken_at,
            routed_at,
            published,
        } = *trace;
        let wall = |micros: u64| settled_wall.saturating_sub(settled_at.saturating_sub(micros).saturating_mul(1_000));
        let span = |name, kind, span, start: u64, end: u64| Span {
            trace: sampled.trace,
            span,
            parent: Some(sampled.way),
            name,
            kind,
            start: wall(start),
            end: wall(end),
            attributes: Vec::new(),
            error: None,
        };
        let error = match end {
            End::Confirmed | End::Dropped => None,
            End::Invalid(reason) => Some(reason.to_string()),
        };
        let mut attributes = vec![
            ("messaging.system", Value::Text("kafka".to_owned())),
            ("messaging.operation.type", Value::Text("process".to_owned())),
            (
                "messaging.destination.name",
                Value::Text(identity.inputs.topic_of(tag.partition).to_owned()),
            ),
            (
                "messaging.destination.partition.id",
                Value::Text(tag.partition.number().to_string()),
            ),
            ("messaging.kafka.offset", Value::Number(tag.offset)),
            ("messaging.consumer.group.name", Value::Text(identity.group.clone())),
        ];
        match end {
            End::Confirmed => {}
            End::Dropped => attributes.push(("fanout.dropped", Value::Text("the partition was given up".to_owned()))),
            End::Invalid(reason) => attributes.push(("error.type", Value::Text(reason.reason().to_owned()))),
        }
        out.push(Span {
            parent: sampled.parent,
            attributes,
            error,
            ..span("consume", SpanKind::Consumer, sampled.way, taken_at, settled_at)
        });
        out.push(span("route", SpanKind::Internal, route, taken_at, routed_at));
        if let Some(Published {
            cluster,
            sent_at,
            confirmed_at,
        }) = published
        {
            out.push(Span {
                attributes: vec![
                    ("messaging.system", Value::Text("nats".to_owned())),
                    ("messaging.operation.type", Value::Text("send".to_owned())),
                    ("fanout.cluster", Value::Text(cluster)),
                ],
                ..span("publish", SpanKind::Producer, sampled.publish, sent_at, confirmed_at)
            });
            out.push(span("settle", SpanKind::Internal, settle, confirmed_at, settled_at));
        }
    }
}
