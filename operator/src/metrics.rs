//! The operator's own metrics.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::reflector::{Lookup, Store};
use kube::{Resource, ResourceExt as _};
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::reconcile::conditions::are_ready;

/// Of which generation a status is, and its conditions; none: there is no status yet.
pub type State<'a> = Option<(Option<i64>, &'a [Condition])>;

/// Sets the gauge of each object of a kind.
type Show = Box<dyn Fn(&IntGaugeVec) + Send>;

/// Counters and gauges of the process.
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
    running: IntGaugeVec,
    writes: IntCounterVec,
    leader: IntGauge,
    ready: IntGaugeVec,
    // Held while a page is written: two at a time would clear each other's gauges.
    resources: Mutex<Vec<Show>>,
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
                    "Reconciles that are running now, by controller",
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
            ready: IntGaugeVec::new(
                Opts::new(
                    "fanout_operator_resource_ready",
                    "1 while a resource is Ready for its current generation, as the leader sees it",
                ),
                // Not `namespace`: that is the operator's, by the scrape.
                &["kind", "resource_namespace", "resource"],
            )?,
            resources: Mutex::default(),
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
            ready,
            resources: _,
        } = &metrics;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(running.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        registry.register(Box::new(ready.clone()))?;
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

    /// Shows from now on of each object of a store whether it is ready, by what `state` says: the generation that its status is
    /// about, and its conditions. The store is looked at for each page, so one that is deleted is shown no more.
    pub fn show_ready<K>(&self, store: Store<K>, state: fn(&K) -> State<'_>)
    where
        K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    {
        let show = move |gauges: &IntGaugeVec| {
            for object in store.state() {
                let ready = state(&object).is_some_and(|(observed, conditions)| {
                    observed == object.meta().generation && are_ready(conditions)
                });
                let namespace = object.namespace().unwrap_or_default();
                gauges
                    .with_label_values(&[&*<K as Resource>::kind(&()), &namespace, &object.name_any()])
                    .set(i64::from(ready));
            }
        };
        self.resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(show));
    }

    /// All of them in Prometheus' text format.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn text(&self) -> prometheus::Result<Vec<u8>> {
        let resources = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        self.ready.reset();
        resources.iter().for_each(|show| show(&self.ready));
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

#[cfg(test)]
mod tests {
    use crds::NatsCluster;
    use kube::runtime::{reflector, watcher};

    use super::*;

    fn cluster(name: &str, observed: i64, ready: &str) -> NatsCluster {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "fanout.openfactory.io/v1alpha1",
            "kind": "NatsCluster",
            "metadata": {"name": name, "namespace": "plant", "generation": 2},
            "spec": {"external": {"servers": ["nats://c:4222"]}},
            "status": {"observedGeneration": observed, "conditions": [{
                "type": "Ready", "status": ready, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn a_resource_is_ready_for_its_present_generation_alone_and_is_shown_while_it_is_there() {
        let metrics = Metrics::new().unwrap();
        let (store, mut writer) = reflector::store();
        metrics.show_ready(store, |cluster: &NatsCluster| {
            let status = cluster.status.as_ref()?;
            Some((status.observed_generation, &status.conditions))
        });
        for cluster in [
            cluster("a", 2, "True"),
            cluster("b", 1, "True"),
            cluster("c", 2, "False"),
        ] {
            writer.apply_watcher_event(&watcher::Event::Apply(cluster));
        }
        let value = |name: &str| {
            let text = String::from_utf8(metrics.text().unwrap()).unwrap();
            let of = format!("resource=\"{name}\",resource_namespace=\"plant\"}} ");
            let line = text.lines().find_map(|line| line.split_once(&of));
            line.map(|(_, value)| value.to_owned())
        };
        assert_eq!(
            ["a", "b", "c"].map(value),
            ["1", "0", "0"].map(|value| Some(value.to_owned()))
        );
        writer.apply_watcher_event(&watcher::Event::Delete(cluster("a", 2, "True")));
        assert_eq!(value("a"), None);
    }
}
