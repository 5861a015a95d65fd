//! What Prometheus sees. Names, labels and buckets of the original are a contract; ours come beside them.
//!
//! Every series whose labels are known at the start is there from the start, at 0: a rate over a series that appears
//! with its first fault misses that fault. Handles are cheap to clone and to keep. A loop that measures each
//! record takes a [`prometheus::local::LocalHistogram`] by `histogram.local()` and flushes it once per batch.

#[cfg(test)]
mod tests;

use forwarder_core::document::Admin;
use forwarder_core::record::Invalid;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use forwarder_nats::stream::StreamFault;

const QUEUE_TIME_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5];
const LATENCY_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];
const QUEUE_SIZE_BUCKETS: &[f64] = &[
    0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0,
];

/// From a round trip in one host to a cluster that was away for minutes.
const CONFIRMED_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
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
}

#[derive(Clone, Debug)]
struct ClusterVecs {
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

impl Metrics {
    /// Every metric, at 0.
    ///
    /// # Errors
    /// Two metrics of one name; which the tests rule out.
    pub fn new(admin: &Admin) -> Result<Self, Error> {
        let builder = Builder {
            registry: Registry::new(),
            forwarder: admin.forwarder.clone().unwrap_or_else(|| "unknown".to_owned()),
        };
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
                "Times that the membership of the group was not proved any more, so that nothing was published",
            )?)?,
            ring_epoch: builder.add(IntGauge::new("asset_forwarder_ring_epoch", "Epoch of the ring in use")?)?,
            ring_epoch_declared: builder.add(IntGauge::new(
                "asset_forwarder_ring_epoch_declared",
                "Epoch of the newest ring that is declared, in use or not",
            )?)?,
            handover_waiting: builder.add(IntGauge::new(
                "asset_forwarder_handover_waiting",
                "Assets that wait until their old cluster has confirmed their earlier messages",
            )?)?,
            spans_exported: builder.add(IntCounter::new(
                "asset_forwarder_spans_exported_total",
                "Spans that the collector has taken",
            )?)?,
            spans_dropped: builder.add(IntCounter::new(
                "asset_forwarder_spans_dropped_total",
                "Spans that were dropped, because the queue was full or the collector did not take them",
            )?)?,
            ready: builder.add(IntGauge::new("asset_forwarder_ready", "1 while /readyz answers so")?)?,
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
                "Batches of a partition that are damaged in Kafka, each once",
                &["topic", "partition"],
            )?,
            clusters: builder.clusters()?,
            registry: builder.registry,
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
        let ClusterVecs {
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
        } = &self.clusters;
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
            retries: RetryReason::ALL.map(|reason| retries.with_label_values(&[name[0], reason.label()])),
            stream_faults: StreamFault::ALL.map(|fault| stream_faults.with_label_values(&[name[0], fault.label()])),
        }
    }

    /// Takes the gauges of a cluster away that has left the ring. Its counters stay: they did happen.
    pub fn forget_cluster(&self, name: &str) {
        for gauge in [
            &self.clusters.pending_records,
            &self.clusters.pending_bytes,
            &self.clusters.parked_records,
            &self.clusters.held_assets,
            &self.clusters.parked_seconds,
            &self.clusters.connected,
        ] {
            forget(gauge, &[name]);
        }
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

fn forget(gauge: &IntGaugeVec, labels: &[&str]) {
    // An error says that there is none, which is what is wanted.
    drop(gauge.remove_label_values(labels));
}

/// Makes metrics and registers them.
struct Builder {
    registry: Registry,
    forwarder: String,
}

impl Builder {
    fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn build_info(&self, version: &str, node: &str) -> Result<(), Error> {
        let opts = Opts::new(
            "fan_out_layer_forwarder_build_info",
            "Version and node of the forwarder",
        )
        .const_label("version", version)
        .const_label("swarm_node", node);
        self.add(IntGauge::with_opts(opts)?)?.set(1);
        Ok(())
    }

    fn labelled(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).const_label("forwarder", &self.forwarder)
    }

    fn labelled_counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::with_opts(self.labelled(name, help))?)
    }

    fn labelled_gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::with_opts(self.labelled(name, help))?)
    }

    fn labelled_histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        let opts = HistogramOpts {
            common_opts: self.labelled(name, help),
            buckets: buckets.to_vec(),
        };
        self.add(Histogram::with_opts(opts)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn clusters(&self) -> Result<ClusterVecs, Error> {
        let counter = |name, help| self.counters(name, help, &["cluster"]);
        let gauge = |name, help| self.gauges(name, help, &["cluster"]);
        let confirmed = HistogramOpts::new(
            "asset_forwarder_confirmed_latency_seconds",
            "Time between consuming and the confirmation by the cluster",
        );
        Ok(ClusterVecs {
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
                "Messages that are to be read from Kafka again when the cluster has room, as far as this process has seen them",
            )?,
            held_assets: gauge(
                "asset_forwarder_held_assets",
                "Assets whose messages wait behind one that the cluster refuses",
            )?,
            parked_seconds: gauge(
                "asset_forwarder_parked_seconds",
                "For how long the cluster has had parked messages; 0: it has none",
            )?,
            connected: gauge("asset_forwarder_connected", "1 while the cluster is connected")?,
            reconnects: counter(
                "asset_forwarder_reconnects_total",
                "Connections to the cluster after the first",
            )?,
            retries: self.counters(
                "asset_forwarder_retries_total",
                "Messages published again, by reason",
                &["cluster", "reason"],
            )?,
            stream_faults: self.counters(
                "asset_forwarder_stream_faults_total",
                "Times that the JetStream stream was found with a fault, by reason",
                &["cluster", "reason"],
            )?,
            repeats_possible: counter(
                "asset_forwarder_repeats_possible_total",
                "Messages that may have been delivered twice",
            )?,
            overtaken: counter(
                "asset_forwarder_overtaken_total",
                "Denials of subjects that the same connection had accepted before: later messages may have gone ahead",
            )?,
            confirmed: self.add(HistogramVec::new(
                confirmed.buckets(CONFIRMED_BUCKETS.to_vec()),
                &["cluster"],
            )?)?,
        })
    }
}
