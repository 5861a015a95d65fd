//! What Prometheus sees. Names, labels and buckets of the original are a contract; ours come beside them.
//!
//! Every series whose labels are known at the start is there from the start, at 0: a rate over a series that appears
//! with its first fault misses that fault. Handles are cheap to clone and to keep. A loop that measures each
//! record takes a [`prometheus::local::LocalHistogram`] by `histogram.local()` and flushes it once per batch.

mod beacon;
mod builder;
mod cluster;
mod mirror;

#[cfg(test)]
mod tests;

use forwarder_core::document::Admin;
use forwarder_core::record::Invalid;
use prometheus::{Encoder, Error, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

pub use self::beacon::BeaconMetrics;
use self::beacon::BeaconVecs;
use self::builder::{Builder, forget};
use self::cluster::ClusterVecs;
pub use self::cluster::{ClusterMetrics, RetryReason};
pub use self::mirror::{MirrorDrop, MirrorMetrics};

const QUEUE_TIME_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5];
const LATENCY_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];
const QUEUE_SIZE_BUCKETS: &[f64] = &[
    0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0,
];

/// What happened to the assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// Partitions came.
    Assign,
    /// Partitions were given up in order.
    Revoke,
    /// Partitions were gone before they could be given up.
    Lost,
}

impl Rebalance {
    const ALL: [Self; 3] = [Self::Assign, Self::Revoke, Self::Lost];

    const fn label(self) -> &'static str {
        match self {
            Self::Assign => "assign",
            Self::Revoke => "revoke",
            Self::Lost => "lost",
        }
    }
}

/// Every metric of the process, with a registry of its own.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Records taken from Kafka.
    pub consumed: IntCounter,
    /// Errors that the Kafka client reported.
    pub kafka_errors: IntCounter,
    /// Calls that asked Kafka for records.
    pub consume_calls: IntCounter,
    /// Records that wait between consuming and publishing.
    pub queue_size: IntGauge,
    /// The same, as seen at each record.
    pub queue_size_histogram: Histogram,
    /// Seconds between consuming and the start of publishing.
    pub queue_time: Histogram,
    /// Seconds between the start of publishing and its end.
    pub message_processing_latency: Histogram,
    /// Answers to offset commits that were good.
    pub commits: IntCounter,
    /// Offset commits that failed.
    pub commit_failures: IntCounter,
    /// Times that nothing proved the membership any more.
    pub fenced: IntCounter,
    /// The epoch of the ring that is in use.
    pub ring_epoch: IntGauge,
    /// The epoch of the newest ring that is declared, in use or not.
    pub ring_epoch_declared: IntGauge,
    /// Assets that wait for their old owner, after a change of the ring.
    pub handover_waiting: IntGauge,
    /// 1 while `/readyz` says so.
    pub ready: IntGauge,
    /// Spans that a collector has taken.
    pub spans_exported: IntCounter,
    /// Spans that no collector has.
    pub spans_dropped: IntCounter,
    invalid_messages: IntCounter,
    invalid: IntCounterVec,
    dead_letters: IntCounterVec,
    rebalances: IntCounterVec,
    lag: IntGaugeVec,
    missing_offsets: IntCounterVec,
    damaged_batches: IntCounterVec,
    clusters: ClusterVecs,
    beacons: BeaconVecs,
}

impl Metrics {
    /// Every metric, at 0.
    ///
    /// # Errors
    /// Two metrics of one name; which the tests rule out.
    pub fn new(admin: &Admin) -> Result<Self, Error> {
        let builder = Builder::new(admin.forwarder.as_deref().unwrap_or("unknown"));
        builder.build_info(
            admin.version.as_deref().unwrap_or("UNKNOWN"),
            admin.node.as_deref().unwrap_or("unknown"),
        )?;
        let metrics = Self {
            consumed: builder.labelled_counter(
                "asset_forwarder_kafka_messages_consumed_total",
                "Messages consumed from Kafka",
            )?,
            kafka_errors: builder
                .labelled_counter("asset_forwarder_kafka_errors_total", "Errors of the Kafka client")?,
            invalid_messages: builder.labelled_counter(
                "asset_forwarder_invalid_messages_total",
                "Messages that can never be forwarded",
            )?,
            consume_calls: builder.labelled_counter(
                "asset_forwarder_kafka_consume_calls_total",
                "Calls that asked Kafka for messages",
            )?,
            queue_size: builder.labelled_gauge("asset_forwarder_queue_size", "Messages waiting to be published")?,
            queue_size_histogram: builder.labelled_histogram(
                "asset_forwarder_queue_size_histogram",
                "Messages waiting to be published, as seen by each message",
                QUEUE_SIZE_BUCKETS,
            )?,
            queue_time: builder.labelled_histogram(
                "asset_forwarder_queue_time_seconds",
                "Time between consuming and the start of publishing",
                QUEUE_TIME_BUCKETS,
            )?,
            message_processing_latency: builder.labelled_histogram(
                "asset_forwarder_message_processing_latency_seconds",
                "Time between the start of publishing and its end",
                LATENCY_BUCKETS,
            )?,
            commits: builder.add(IntCounter::new(
                "asset_forwarder_commits_total",
                "Offset commits that succeeded",
            )?)?,
            commit_failures: builder.add(IntCounter::new(
                "asset_forwarder_commit_failures_total",
                "Offset commits that failed",
            )?)?,
            fenced: builder.add(IntCounter::new(
                "asset_forwarder_fenced_total",
                "Times that the process lost its lease, so that it published nothing",
            )?)?,
            ring_epoch: builder.add(IntGauge::new("asset_forwarder_ring_epoch", "Epoch of the ring in use")?)?,
            ring_epoch_declared: builder.add(IntGauge::new(
                "asset_forwarder_ring_epoch_declared",
                "Epoch of the newest declared ring, in use or not",
            )?)?,
            handover_waiting: builder.add(IntGauge::new(
                "asset_forwarder_handover_waiting",
                "Assets that wait until their old cluster has confirmed their earlier messages",
            )?)?,
            spans_exported: builder.add(IntCounter::new(
                "asset_forwarder_spans_exported_total",
                "Spans that the collector has accepted",
            )?)?,
            spans_dropped: builder.add(IntCounter::new(
                "asset_forwarder_spans_dropped_total",
                "Spans that were dropped, because the queue was full or the collector did not accept them",
            )?)?,
            ready: builder.add(IntGauge::new(
                "asset_forwarder_ready",
                "1 while /readyz says that the process is ready",
            )?)?,
            invalid: builder.counters(
                "asset_forwarder_invalid_total",
                "Messages that can never be forwarded, by reason",
                &["reason"],
            )?,
            dead_letters: builder.counters(
                "asset_forwarder_dead_letters_total",
                "Messages written to the dead letter, by reason",
                &["reason"],
            )?,
            rebalances: builder.counters(
                "asset_forwarder_rebalances_total",
                "Changes of the assignment",
                &["kind"],
            )?,
            lag: builder.gauges(
                "asset_forwarder_lag",
                "Messages of a partition that are not committed yet",
                &["topic", "partition"],
            )?,
            missing_offsets: builder.counters(
                "asset_forwarder_missing_offsets_total",
                "Committed offsets that the broker no longer had",
                &["topic", "partition"],
            )?,
            damaged_batches: builder.counters(
                "asset_forwarder_damaged_batches_total",
                "Damaged batches of a partition in Kafka, each counted once",
                &["topic", "partition"],
            )?,
            clusters: ClusterVecs::new(&builder)?,
            beacons: BeaconVecs::new(&builder)?,
            registry: builder.into_registry(),
        };
        for reason in Invalid::ALL {
            metrics.invalid.with_label_values(&[reason.reason()]);
            metrics.dead_letters.with_label_values(&[reason.reason()]);
        }
        for kind in Rebalance::ALL {
            metrics.rebalances.with_label_values(&[kind.label()]);
        }
        Ok(metrics)
    }

    /// The metrics of a cluster of this name in the ring; all of them are there from the first call on.
    #[must_use]
    pub fn cluster(&self, name: &str) -> ClusterMetrics {
        self.clusters.of(name)
    }

    /// Takes the gauges of a cluster away that has left the ring. Its counters stay: they did happen.
    pub fn forget_cluster(&self, name: &str) {
        self.clusters.forget(name);
    }

    /// The metrics of the beacon at a cluster of this name; all of them are there from the first call on.
    #[must_use]
    pub fn beacon(&self, cluster: &str) -> BeaconMetrics {
        self.beacons.of(cluster)
    }

    /// Takes the gauge of the beacon at a cluster away where nothing is announced any more.
    pub fn forget_beacon(&self, cluster: &str) {
        self.beacons.forget(cluster);
    }

    /// Shows for how long an announced ring is not used yet, as far as the grace for subscribers goes.
    pub fn show_grace(&self, left: std::time::Duration) {
        self.beacons.show_grace(left);
    }

    /// Counts a record that can never be forwarded.
    pub fn invalid(&self, reason: Invalid) {
        self.invalid_messages.inc();
        self.invalid.with_label_values(&[reason.reason()]).inc();
    }

    /// Counts a record that was written to the dead letter.
    pub fn dead_letter(&self, reason: Invalid) {
        self.dead_letters.with_label_values(&[reason.reason()]).inc();
    }

    /// The counter of rebalances of this kind.
    #[must_use]
    pub fn rebalance(&self, kind: Rebalance) -> IntCounter {
        self.rebalances.with_label_values(&[kind.label()])
    }

    /// The lag of a partition that is assigned.
    pub fn set_lag(&self, topic: &str, partition: i32, lag: i64) {
        self.lag.with_label_values(&[topic, &partition.to_string()]).set(lag);
    }

    /// Takes the lag of a partition away that is given up: another member reports it now.
    pub fn forget_partition(&self, topic: &str, partition: i32) {
        forget(&self.lag, &[topic, &partition.to_string()]);
    }

    /// Counts a committed offset that the broker no longer had.
    pub fn missing_offset(&self, topic: &str, partition: i32) {
        self.missing_offsets
            .with_label_values(&[topic, &partition.to_string()])
            .inc();
    }

    /// Counts a batch that cannot be read.
    pub fn damaged_batch(&self, topic: &str, partition: i32) {
        self.damaged_batches
            .with_label_values(&[topic, &partition.to_string()])
            .inc();
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// A metric that cannot be written; which the tests rule out.
    pub fn text(&self) -> Result<Vec<u8>, Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
