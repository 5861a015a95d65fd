//! Makes metrics and registers them.

use prometheus::core::Collector;
use prometheus::{Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Makes metrics and registers them.
pub(super) struct Builder {
    registry: Registry,
    forwarder: String,
}

impl Builder {
    /// Without a metric. `forwarder`: the process, which labels the metrics of the original.
    pub(super) fn new(forwarder: &str) -> Self {
        Self {
            registry: Registry::new(),
            forwarder: forwarder.to_owned(),
        }
    }

    /// All that was made.
    pub(super) fn into_registry(self) -> Registry {
        self.registry
    }

    pub(super) fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn build_info(&self, version: &str, node: &str) -> Result<(), Error> {
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

    pub(super) fn labelled_counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::with_opts(self.labelled(name, help))?)
    }

    pub(super) fn labelled_gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::with_opts(self.labelled(name, help))?)
    }

    pub(super) fn labelled_histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        let opts = HistogramOpts {
            common_opts: self.labelled(name, help),
            buckets: buckets.to_vec(),
        };
        self.add(Histogram::with_opts(opts)?)
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }
}

/// Takes a series away, if there is one.
pub(super) fn forget(gauge: &IntGaugeVec, labels: &[&str]) {
    // An error says that there is none, which is what is wanted.
    drop(gauge.remove_label_values(labels));
}
