//! The door that the operator's tests go through: a namespace, an operator of its own, and a [`Stage`] whose servers pods reach.
//!
//! Like the stage it panics where something fails.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "only tests use a site, and they fail by panicking; clippy lets only functions marked as tests do so"
)]

mod kills;
mod state;

use std::net::Ipv4Addr;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use crds::{AssetForwarder, AssetForwarderStatus, KafkaChannel, NatsCluster};
use forwarder_core::document::PublishMode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::forwarder::Metrics;
use crate::kafka::Kafka;
use crate::kubernetes::{ApiProxy, AuditLog, Kubernetes, Namespace, Operator};
use crate::nats;
use crate::stage::{SOON, STREAM, Stage};
use crate::{manifests, wait};

pub use self::kills::Kills;
pub use self::state::{State, differences};

/// Within which pods start, roll and end, on a machine that is busy: an image that is there, a group join, a drain.
pub const PODS: Duration = Duration::from_secs(120);

/// How long nothing may be written until a site counts as settled: longer than anything that is polled while it is not.
const SETTLED: Duration = Duration::from_secs(6);

/// How often [`Site::unrest`] kills, and how much longer each life is than the one before: the first ends before anything is done, the last
/// after the first writes of most things.
const KILLS: u32 = 8;
const LIFE: Duration = Duration::from_millis(300);

/// The forwarder's name.
pub const FORWARDER: &str = "plant";

/// A namespace, its operator, a topic, clusters and traffic. Everything ends when this is dropped.
pub struct Site {
    // Before the namespace, so that nobody works in it while it goes.
    operator: Arc<Mutex<Operator>>,
    unrest: Option<JoinHandle<()>>,
    api: Option<Arc<ApiProxy>>,
    // Where the operator's Lease is, if not where its work is. It goes with the site.
    home: Option<Namespace>,
    /// The namespace.
    pub namespace: Namespace,
    /// The servers and what is sent.
    pub stage: Stage,
    mode: PublishMode,
}

impl Site {
    /// Servers that are up, and an operator that leads; no resources yet.
    pub async fn new(mode: PublishMode, clusters: usize) -> Self {
        let options = nats::Options::default();
        Self::with_servers(mode, clusters, options).await
    }

    /// With servers of these options.
    pub async fn with_servers(mode: PublishMode, clusters: usize, options: nats::Options) -> Self {
        Self::with(mode, clusters, options, Operator::of_namespace).await
    }

    /// With an operator that watches all namespaces: no other test may run beside it.
    pub async fn of_cluster(mode: PublishMode, clusters: usize) -> Self {
        Self::with(mode, clusters, nats::Options::default(), Operator::of_cluster).await
    }

    /// With an operator that has its Lease in another namespace, and does not go with this one.
    pub async fn from_elsewhere(mode: PublishMode, clusters: usize) -> Self {
        let home = Namespace::new(&Kubernetes::of_run().await.unwrap()).unwrap();
        let operator = |kubernetes: &Kubernetes, namespace: &str, identity: &str| {
            Operator::from_elsewhere(kubernetes, &home.name, namespace, identity)
        };
        let mut site = Self::with(mode, clusters, nats::Options::default(), operator).await;
        site.home = Some(home);
        site
    }

    /// As [`Site::from_elsewhere`], with an operator that watches all namespaces: no other test may run beside it.
    pub async fn of_cluster_from_elsewhere(mode: PublishMode, clusters: usize) -> Self {
        let home = Namespace::new(&Kubernetes::of_run().await.unwrap()).unwrap();
        let operator =
            |kubernetes: &Kubernetes, _: &str, identity: &str| Operator::of_cluster(kubernetes, &home.name, identity);
        let mut site = Self::with(mode, clusters, nats::Options::default(), operator).await;
        site.home = Some(home);
        site
    }

    /// With a proxy between the operator and the API server: [`Site::api`].
    pub async fn behind_proxy(mode: PublishMode, clusters: usize, options: nats::Options) -> Self {
        let proxy = Arc::new(Kubernetes::of_run().await.unwrap().api_proxy().await.unwrap());
        let operator = |kubernetes: &Kubernetes, namespace: &str, identity: &str| {
            Operator::behind(&proxy, kubernetes, namespace, identity)
        };
        let mut site = Self::with(mode, clusters, options, operator).await;
        site.api = Some(proxy);
        site
    }

    async fn with(
        mode: PublishMode,
        clusters: usize,
        options: nats::Options,
        operator: impl FnOnce(&Kubernetes, &str, &str) -> anyhow::Result<Operator>,
    ) -> Self {
        let kafka = Kafka::shared().await.unwrap();
        Self::on(kafka, mode, clusters, options, operator).await
    }

    /// With a broker of the test's own, which listens where pods reach it ([`Site::host`]).
    pub async fn on_kafka(kafka: Kafka, mode: PublishMode, clusters: usize) -> Self {
        let options = nats::Options::default();
        Self::on(kafka, mode, clusters, options, Operator::of_namespace).await
    }

    /// The address of this machine that pods reach.
    pub async fn host() -> Ipv4Addr {
        Kubernetes::of_run().await.unwrap().host()
    }

    async fn on(
        kafka: Kafka,
        mode: PublishMode,
        clusters: usize,
        options: nats::Options,
        operator: impl FnOnce(&Kubernetes, &str, &str) -> anyhow::Result<Operator>,
    ) -> Self {
        let kubernetes = Kubernetes::of_run().await.unwrap();
        kubernetes.install_definitions().await.unwrap();
        let namespace = Namespace::new(&kubernetes).unwrap();
        let mut operator = operator(&kubernetes, &namespace.name, "operator-1").unwrap();
        let options = nats::Options {
            host: kubernetes.host(),
            ..options
        };
        let stage = Stage::with_servers(kafka, mode, clusters, options).await;
        operator.wait_leads().await.unwrap();
        Self {
            operator: Arc::new(Mutex::new(operator)),
            unrest: None,
            api: None,
            home: None,
            namespace,
            stage,
            mode,
        }
    }

    /// From now on the operator is killed again and again, each time after a longer life. It comes back under its name, so its Lease
    /// is its own still. After some times it is left alone.
    pub fn unrest(&mut self) {
        let operator = Arc::clone(&self.operator);
        self.unrest = Some(tokio::spawn(async move {
            for kill in 0..KILLS {
                sleep(LIFE * (kill + 1)).await;
                let mut operator = operator.lock().await;
                operator.kill9().unwrap();
                operator.start_again().unwrap();
                drop(operator.wait_leads().await);
            }
        }));
    }

    /// The proxy of a site that is behind one.
    pub fn api(&self) -> &ApiProxy {
        self.api.as_ref().unwrap()
    }

    /// The API server's audit log from now on, and the operator's name in it.
    pub async fn audit(&self) -> (AuditLog, String) {
        let user = self.operator.lock().await.user().to_owned();
        (self.namespace.kubernetes.audit_log().unwrap(), user)
    }

    /// The operator's metrics.
    pub async fn operator_metrics(&self) -> Metrics {
        self.operator.lock().await.metrics().await.unwrap()
    }

    /// Whether the operator has ended by itself, and how.
    pub async fn operator_exit(&self) -> Option<ExitStatus> {
        self.operator.lock().await.process().try_exit().unwrap()
    }

    /// Kills the operator; see [`Site::start_operator_again`].
    pub async fn kill_operator(&self) {
        self.operator.lock().await.kill9().unwrap();
    }

    /// Starts the operator again after it has ended.
    pub async fn start_operator_again(&self) {
        let mut operator = self.operator.lock().await;
        operator.start_again().unwrap();
        operator.wait_leads().await.unwrap();
    }

    /// Stops the operator in good order.
    pub async fn stop_operator(&self) -> ExitStatus {
        self.operator.lock().await.stop().unwrap()
    }

    /// Puts another operator in the place of one that was stopped, whose forwarders run this image by default.
    pub async fn start_operator(&self, image: &str) {
        let mut operator = self.operator.lock().await;
        let (kubernetes, namespace) = (&self.namespace.kubernetes, &self.namespace.name);
        *operator = Operator::of_namespace_with(kubernetes, namespace, "operator-2", image).unwrap();
        operator.wait_leads().await.unwrap();
    }

    /// Kills the operator and starts it again.
    pub async fn restart_operator(&self) {
        let mut operator = self.operator.lock().await;
        operator.kill9().unwrap();
        operator.start_again().unwrap();
        operator.wait_leads().await.unwrap();
    }

    /// Stops the operator in good order, and yields its log.
    pub async fn end_operator(&self) -> (ExitStatus, String) {
        let mut operator = self.operator.lock().await;
        let exit = operator.stop().unwrap();
        (exit, operator.process().log().unwrap())
    }

    /// Waits until the operator ends by itself, and yields its log.
    pub async fn wait_operator_ends(&self) -> (ExitStatus, String) {
        let mut operator = self.operator.lock().await;
        let exit = operator.process().wait_exit(SOON).unwrap();
        (exit, operator.process().log().unwrap())
    }

    /// `host:port` of the operator's metrics.
    pub async fn operator_metrics_address(&self) -> String {
        self.operator.lock().await.metrics_address()
    }

    /// How often the operator has written to the API server, Events and its Lease aside.
    pub async fn operator_writes(&self) -> f64 {
        self.operator_metrics()
            .await
            .sum("fanout_operator_api_writes_total", &[])
    }

    /// Waits until the operator has reconciled each object here since its start.
    pub async fn wait_reconciled(&self) {
        let objects = self
            .namespace
            .kubectl(&["get", "fanout", "-o", "name"])
            .await
            .unwrap()
            .lines()
            .count();
        wait::eventually(SOON, "everything is reconciled", || async {
            let metrics = self.operator.lock().await.metrics().await?;
            let done = metrics.sum("fanout_operator_reconciles_total", &[("result", "success")]);
            ensure!(done >= objects as f64, "{done} of {objects}");
            Ok(true)
        })
        .await
        .unwrap();
    }

    /// Waits until nothing has been written here for a while.
    pub async fn wait_quiet(&self) {
        let mut versions = self.versions().await;
        let mut since = Instant::now();
        let deadline = Instant::now() + PODS;
        while since.elapsed() < SETTLED {
            sleep(Duration::from_millis(500)).await;
            let now = self.versions().await;
            if now != versions {
                assert!(Instant::now() < deadline, "never quiet: {versions}\nthen {now}");
                versions = now;
                since = Instant::now();
            }
        }
    }

    /// `host:port` of the operator's router.
    pub async fn router_address(&self) -> String {
        self.operator.lock().await.router_address()
    }

    /// Asks the operator's router: the code and the body.
    pub async fn route(&self, path: &str) -> (u16, String) {
        self.operator.lock().await.route(path).await.unwrap()
    }

    /// Memory of the operator's process, now and at its peak, in bytes, and the seconds of CPU that it has used.
    pub async fn operator_usage(&self) -> (u64, u64, f64) {
        let mut operator = self.operator.lock().await;
        let process = operator.process();
        let now = e2e::process::rss_bytes(process.pid()).unwrap();
        (now, process.peak_rss_bytes().unwrap(), process.cpu_seconds().unwrap())
    }

    /// What the operator has logged last.
    pub async fn log_tail(&self) -> String {
        self.operator.lock().await.process().log_tail()
    }

    /// The manifest of a cluster of the stage, by its place. Its name is its name in the ring, in small letters.
    pub fn cluster(&self, place: usize) -> Value {
        let (name, nats) = &self.stage.clusters[place];
        manifests::nats_cluster(&name.to_lowercase(), name, &nats.url())
    }

    /// The manifest of the channel of the stage's topic, which is there.
    pub fn channel(&self) -> Value {
        manifests::kafka_channel("assets", self.stage.kafka.bootstrap(), &self.stage.topic)
    }

    /// The manifest of a forwarder of so many pods, with all clusters that have the label `ring: main`.
    pub fn forwarder(&self, replicas: i32) -> Value {
        let mut forwarder = manifests::asset_forwarder(FORWARDER, &self.stage.group, replicas);
        if self.mode == PublishMode::JetStream {
            forwarder["spec"]["publish"] = json!({"mode": "JetStream", "subject": "assets.{key}.{id}", "stream": {"name": STREAM, "manage": true}});
        }
        forwarder
    }

    /// Applies manifests by kubectl.
    pub async fn apply(&self, manifests: &[Value]) {
        let text: Vec<String> = manifests.iter().map(Value::to_string).collect();
        self.namespace.apply(&text.join("\n---\n")).await.unwrap();
    }

    /// Applies all clusters of the stage, the channel and a forwarder of so many pods, and waits until it is ready.
    pub async fn start(&self, replicas: i32) -> AssetForwarder {
        let mut manifests: Vec<Value> = (0..self.stage.clusters.len())
            .map(|place| self.cluster(place))
            .collect();
        manifests.push(self.channel());
        manifests.push(self.forwarder(replicas));
        self.apply(&manifests).await;
        self.wait_ready().await
    }

    /// The forwarder, as it is.
    pub async fn get(&self) -> AssetForwarder {
        self.namespace.get(FORWARDER).await.unwrap()
    }

    /// Waits until the forwarder is ready in its present generation.
    pub async fn wait_ready(&self) -> AssetForwarder {
        self.wait("the forwarder is ready", |forwarder| {
            condition(forwarder, "Ready").is_some_and(|ready| ready.status == "True")
        })
        .await
    }

    /// Waits until the forwarder's `Ready` of its present generation has this reason, and yields its message.
    pub async fn wait_reason(&self, reason: &str) -> String {
        let what = format!("the forwarder's reason is {reason}");
        let forwarder = self
            .wait(&what, |forwarder| {
                condition(forwarder, "Ready").is_some_and(|ready| ready.reason == reason)
            })
            .await;
        condition(&forwarder, "Ready")
            .map(|ready| ready.message.clone())
            .unwrap_or_default()
    }

    /// Waits until the forwarder is ready with these members in its ring, in any epoch above `epoch`.
    pub async fn wait_ring(&self, names: &[&str], epoch: i64) -> AssetForwarder {
        let what = format!("every pod uses a ring of {names:?}");
        self.wait(&what, |forwarder| {
            let ready = condition(forwarder, "Ready").is_some_and(|ready| ready.status == "True");
            let ring = status(forwarder).ring.unwrap_or_default();
            ready && ring.names == names && ring.epoch > epoch
        })
        .await
    }

    /// Waits until the forwarder, with a status of its present generation, is as `holds` says.
    pub async fn wait(&self, what: &str, holds: impl Fn(&AssetForwarder) -> bool) -> AssetForwarder {
        let observed =
            |forwarder: &AssetForwarder| status(forwarder).observed_generation == forwarder.metadata.generation;
        let waited = self
            .namespace
            .wait(FORWARDER, PODS, what, |forwarder| {
                observed(forwarder) && holds(forwarder)
            })
            .await;
        match waited {
            Ok(forwarder) => forwarder,
            Err(error) => {
                let seen = self
                    .namespace
                    .kubectl(&["get", "pods,events,natsclusters,kafkachannels"])
                    .await
                    .unwrap_or_default();
                panic!("{error:#}\n{seen}\n{}", self.log_tail().await);
            }
        }
    }

    /// Deletes a cluster's resource; does not wait for its end.
    pub async fn delete_cluster(&self, place: usize) {
        let name = self.stage.clusters[place].0.to_lowercase();
        self.namespace
            .kubectl(&["delete", "natscluster", &name, "--wait=false"])
            .await
            .unwrap();
    }

    /// The resource versions of everything that the operator writes here, and of the resources themselves.
    pub async fn versions(&self) -> String {
        let kinds = "natsclusters,kafkachannels,assetforwarders,deployments,statefulsets,configmaps,secrets,services,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies";
        let columns = "custom-columns=KIND:.kind,NAME:.metadata.name,VERSION:.metadata.resourceVersion";
        self.namespace.kubectl(&["get", kinds, "-o", columns]).await.unwrap()
    }
}

/// A status, or an empty one.
pub fn status(forwarder: &AssetForwarder) -> AssetForwarderStatus {
    forwarder.status.clone().unwrap_or_default()
}

/// What has conditions.
pub trait Conditions {
    /// All of them.
    fn conditions(&self) -> &[Condition];
}

impl Conditions for AssetForwarder {
    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default()
    }
}

impl Conditions for NatsCluster {
    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default()
    }
}

impl Conditions for KafkaChannel {
    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default()
    }
}

/// A condition of a resource.
pub fn condition<'a>(resource: &'a impl Conditions, type_: &str) -> Option<&'a Condition> {
    resource.conditions().iter().find(|condition| condition.type_ == type_)
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(unrest) = self.unrest.take() {
            unrest.abort();
        }
        drop(self.home.take());
    }
}
