//! The metrics of each NATS cluster.

use prometheus::{Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::builder::{Builder, forget};
use super::mirror::{MirrorMetrics, MirrorVecs};
use forwarder_nats::stream::StreamFault;

/// From a round trip in one host to a cluster that was away for minutes.
const CONFIRMED_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Why a record was published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// No confirmation within the timeout.
    Timeout,
    /// The connection ended before the confirmation.
    Disconnected,
    /// The server said no.
    Refused,
}

impl RetryReason {
    const ALL: [Self; 3] = [Self::Timeout, Self::Disconnected, Self::Refused];

    const fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::Refused => "refused",
        }
    }
}

/// The metrics of one NATS cluster.
#[derive(Clone, Debug)]
pub struct ClusterMetrics {
    /// Records confirmed.
    pub published: IntCounter,
    /// Publishes that failed, each try.
    pub publish_failures: IntCounter,
    /// Records that wait for a confirmation.
    pub pending_records: IntGauge,
    /// Bytes that wait for a confirmation.
    pub pending_bytes: IntGauge,
    /// Records that are to be read again.
    pub parked_records: IntGauge,
    /// Assets that wait for one record that the cluster refuses.
    pub held_assets: IntGauge,
    /// For how many seconds there have been some.
    pub parked_seconds: IntGauge,
    /// 1 while connected.
    pub connected: IntGauge,
    /// Connections after the first.
    pub reconnects: IntCounter,
    /// Records that may have been delivered twice.
    pub repeats_possible: IntCounter,
    /// How often a subject was denied that the same connection had accepted before: later records of its asset may have
    /// gone ahead.
    pub overtaken: IntCounter,
    /// Seconds from consuming to the confirmation.
    pub confirmed: Histogram,
    /// Copies for subscribers that stay here.
    pub mirror: MirrorMetrics,
    retries: [IntCounter; RetryReason::ALL.len()],
    stream_faults: [IntCounter; StreamFault::ALL.len()],
}

impl ClusterMetrics {
    /// Records published again for this reason.
    #[must_use]
    pub const fn retries(&self, reason: RetryReason) -> &IntCounter {
        &self.retries[reason as usize]
    }

    /// Times that the stream was found with this fault.
    #[must_use]
    pub const fn stream_faults(&self, fault: StreamFault) -> &IntCounter {
        &self.stream_faults[fault as usize]
    }
}

/// The metrics of all clusters, by name.
#[derive(Clone, Debug)]
pub(super) struct ClusterVecs {
    published: IntCounterVec,
    publish_failures: IntCounterVec,
    pending_records: IntGaugeVec,
    pending_bytes: IntGaugeVec,
    parked_records: IntGaugeVec,
    held_assets: IntGaugeVec,
    parked_seconds: IntGaugeVec,
    connected: IntGaugeVec,
    reconnects: IntCounterVec,
    retries: IntCounterVec,
    stream_faults: IntCounterVec,
    repeats_possible: IntCounterVec,
    overtaken: IntCounterVec,
    confirmed: HistogramVec,
    mirror: MirrorVecs,
}

impl ClusterVecs {
    /// Every metric, without a cluster.
    pub(super) fn new(builder: &Builder) -> Result<Self, Error> {
        let counter = |name, help| builder.counters(name, help, &["cluster"]);
        let gauge = |name, help| builder.gauges(name, help, &["cluster"]);
        let confirmed = HistogramOpts::new(
            "asset_forwarder_confirmed_latency_seconds",
            "Time between consuming and the confirmation by the cluster",
        );
        Ok(Self {
            published: counter(
                "asset_forwarder_nats_messages_published_total",
                "Messages the cluster has confirmed",
            )?,
            publish_failures: counter("asset_forwarder_nats_publish_failures_total", "Publishes that failed")?,
            pending_records: gauge(
                "asset_forwarder_pending_records",
                "Messages that wait for a confirmation",
            )?,
            pending_bytes: gauge("asset_forwarder_pending_bytes", "Bytes that wait for a confirmation")?,
            parked_records: gauge(
                "asset_forwarder_parked_records",
                "Messages that the process will read from Kafka again when the cluster has room, as far as it has seen them",
            )?,
            held_assets: gauge(
                "asset_forwarder_held_assets",
                "Assets whose messages wait behind one that the cluster refuses",
            )?,
            parked_seconds: gauge(
                "asset_forwarder_parked_seconds",
                "How long the cluster has had parked messages; 0 if it has none",
            )?,
            connected: gauge("asset_forwarder_connected", "1 while the cluster is connected")?,
            reconnects: counter(
                "asset_forwarder_reconnects_total",
                "Connections to the cluster after the first",
            )?,
            retries: builder.counters(
                "asset_forwarder_retries_total",
                "Messages published again, by reason",
                &["cluster", "reason"],
            )?,
            stream_faults: builder.counters(
                "asset_forwarder_stream_faults_total",
                "Times that a check found a fault of the JetStream stream, by reason",
                &["cluster", "reason"],
            )?,
            repeats_possible: counter(
                "asset_forwarder_repeats_possible_total",
                "Messages that may have been delivered twice",
            )?,
            overtaken: counter(
                "asset_forwarder_overtaken_total",
                "Denials of subjects that the same connection had accepted before; later messages may have overtaken earlier ones",
            )?,
            confirmed: builder.add(HistogramVec::new(
                confirmed.buckets(CONFIRMED_BUCKETS.to_vec()),
                &["cluster"],
            )?)?,
            mirror: MirrorVecs::new(builder)?,
        })
    }

    /// Those of one cluster. All of them are there from the first call on.
    pub(super) fn of(&self, name: &str) -> ClusterMetrics {
        let Self {
            published,
            publish_failures,
            pending_records,
            pending_bytes,
            parked_records,
            held_assets,
            parked_seconds,
            connected,
            reconnects,
            retries,
            stream_faults,
            repeats_possible,
            overtaken,
            confirmed,
            mirror,
        } = self;
        let mirror = mirror.of(name);
        let name = &[name];
        ClusterMetrics {
            published: published.with_label_values(name),
            publish_failures: publish_failures.with_label_values(name),
            pending_records: pending_records.with_label_values(name),
            pending_bytes: pending_bytes.with_label_values(name),
            parked_records: parked_records.with_label_values(name),
            held_assets: held_assets.with_label_values(name),
            parked_seconds: parked_seconds.with_label_values(name),
            connected: connected.with_label_values(name),
            reconnects: reconnects.with_label_values(name),
            repeats_possible: repeats_possible.with_label_values(name),
            overtaken: overtaken.with_label_values(name),
            confirmed: confirmed.with_label_values(name),
            mirror,
            retries: RetryReason::ALL.map(|reason| retries.with_label_values(&[name[0], reason.label()])),
            stream_faults: StreamFault::ALL.map(|fault| stream_faults.with_label_values(&[name[0], fault.label()])),
        }
    }

    /// Takes the gauges of a cluster away.
    pub(super) fn forget(&self, name: &str) {
        for gauge in [
            &self.pending_records,
            &self.pending_bytes,
            &self.parked_records,
            &self.held_assets,
            &self.parked_seconds,
            &self.connected,
        ] {
            forget(gauge, &[name]);
        }
    }
}
