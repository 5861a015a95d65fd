//! The operator's own metrics.

use std::time::Duration;

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Counters and gauges of the process.
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
    running: IntGaugeVec,
    writes: IntCounterVec,
    leader: IntGauge,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// Two metrics have one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            reconciles: IntCounterVec::new(
                Opts::new(
                    "fanout_operator_reconciles_total",
                    "Reconciles that ended, by controller and result",
                ),
                &["controller", "result"],
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "fanout_operator_reconcile_errors_total",
                    "Reconciles that failed, by controller and reason",
                ),
                &["controller", "reason"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new(
                    "fanout_operator_reconcile_seconds",
                    "How long reconciles took, by controller",
                )
                .buckets(vec![
                    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
                ]),
                &["controller"],
            )?,
            running: IntGaugeVec::new(
                Opts::new(
                    "fanout_operator_reconciles_running",
                    "Reconciles that run now, by controller",
                ),
                &["controller"],
            )?,
            writes: IntCounterVec::new(
                Opts::new(
                    "fanout_operator_api_writes_total",
                    "Writes to the API server, by kind and verb",
                ),
                &["kind", "verb"],
            )?,
            leader: IntGauge::new("fanout_operator_leader", "1 while this process holds the Lease")?,
            registry,
        };
        let Self {
            registry,
            reconciles,
            errors,
            seconds,
            running,
            writes,
            leader,
        } = &metrics;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(running.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        Ok(metrics)
    }

    /// Counts one that runs, until what is returned is dropped.
    pub fn reconcile_begins(&self, controller: &'static str) -> Running {
        let gauge = self.running.with_label_values(&[controller]);
        gauge.inc();
        Running(gauge)
    }

    /// One has ended.
    pub fn reconciled(&self, controller: &'static str, good: bool, lasting: Duration) {
        let result = if good { "success" } else { "error" };
        self.reconciles.with_label_values(&[controller, result]).inc();
        self.seconds
            .with_label_values(&[controller])
            .observe(lasting.as_secs_f64());
    }

    /// One has failed, and why.
    pub fn reconcile_failed(&self, controller: &'static str, reason: &'static str) {
        self.errors.with_label_values(&[controller, reason]).inc();
    }

    /// A write is sent to the API server.
    pub fn api_write(&self, kind: &str, verb: &'static str) {
        self.writes.with_label_values(&[kind, verb]).inc();
    }

    /// Whether this process holds the Lease.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// All of them in Prometheus' text format.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn text(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// A reconcile that runs.
#[must_use]
pub struct Running(IntGauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}
