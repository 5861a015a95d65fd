//! The door that the tests go through: Kafka, NATS clusters, traffic, and a verdict over what the clusters hold.
//!
//! Unlike the rest of the rig it panics where something fails: a test has nothing else to do then, and reads better without.

#![allow(
    clippy::unwrap_used,
    reason = "only tests stand on the stage, and they fail by panicking; clippy lets only functions marked as tests do so"
)]

use std::time::Duration;

use forwarder_core::document::{Config, PublishMode, Stream};

use crate::forwarder::{self, Forwarder};
use crate::kafka::{Kafka, unique};
use crate::nats::{self, Nats};
use crate::observer::{self, AtHome, Message, Stored};
use crate::proxy::Proxy;
use crate::traffic::{Amount, Flow, Plan, Traffic};
use crate::verdict::{Tally, Verdict};
use crate::wait;

/// Long enough for anything that is to happen at all, on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(60);

/// In core mode: a stream without acks that records what each server really took. In JetStream mode: the target.
pub const STREAM: &str = "all";

/// Assets of a stage's traffic.
pub const ASSETS: u32 = 200;

/// Partitions of a stage's topic.
pub const PARTITIONS: i32 = 6;

/// Counts the records that the clusters have confirmed.
pub const PUBLISHED: &str = "asset_forwarder_nats_messages_published_total";

/// A topic, the clusters that its records go to, and traffic. Everything ends when this is dropped.
pub struct Stage {
    /// The broker.
    pub kafka: Kafka,
    /// The topic, of this stage alone.
    pub topic: String,
    /// The consumer group, of this stage alone.
    pub group: String,
    /// The clusters by their names in the ring: C1, C2…
    pub clusters: Vec<(String, Nats)>,
    /// What sends records, 200 assets unless a test says otherwise.
    pub traffic: Traffic,
    mode: PublishMode,
}

impl Stage {
    /// A topic on the run's broker and so many clusters.
    pub async fn new(mode: PublishMode, clusters: usize) -> Self {
        Self::with(Kafka::shared().await.unwrap(), mode, clusters).await
    }

    /// A topic on this broker and so many clusters.
    pub async fn with(kafka: Kafka, mode: PublishMode, count: usize) -> Self {
        Self::with_servers(kafka, mode, count, nats::Options::default()).await
    }

    /// Clusters of servers with these options.
    pub async fn with_servers(kafka: Kafka, mode: PublishMode, count: usize, options: nats::Options) -> Self {
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(Nats::start_with(options.clone()).await.unwrap());
        }
        Self::of(kafka, mode, servers).await
    }

    /// With clusters that are not all alike.
    pub async fn of(kafka: Kafka, mode: PublishMode, servers: Vec<Nats>) -> Self {
        if mode == PublishMode::Core {
            for nats in &servers {
                observer::record(nats, STREAM, &["*.*"]).await.unwrap();
            }
        }
        Self::unrecorded(kafka, mode, servers).await
    }

    /// Whose core clusters record nothing, so that there is no verdict over streams: for tests that observe live.
    pub async fn unrecorded(kafka: Kafka, mode: PublishMode, servers: Vec<Nats>) -> Self {
        let topic = unique("assets");
        // A record that says it is old must not expire before it is read.
        let kept = [("retention.ms", "-1")];
        kafka.create_topic(&topic, PARTITIONS, &kept).await.unwrap();
        let mut clusters = Vec::new();
        for nats in servers {
            clusters.push((format!("C{}", clusters.len() + 1), nats));
        }
        let plan = Plan {
            assets: ASSETS,
            ..Plan::default()
        };
        let traffic = Traffic::new(kafka.bootstrap(), &topic, plan).unwrap();
        Self {
            kafka,
            topic,
            group: unique("group"),
            clusters,
            traffic,
            mode,
        }
    }

    /// A configuration for all of it, with bounds that suit a test.
    pub fn config(&self) -> Config {
        let clusters: Vec<(&str, &Nats)> = self.clusters.iter().map(|(name, nats)| (name.as_str(), nats)).collect();
        let mut config = forwarder::config(&self.kafka, &self.topic, &self.group, &clusters);
        // The least that the broker allows: a killed member's partitions move on soon.
        config
            .source
            .connection
            .properties
            .insert("session.timeout.ms".to_owned(), "6000".to_owned());
        config
            .source
            .connection
            .properties
            .insert("heartbeat.interval.ms".to_owned(), "500".to_owned());
        config.publish.mode = self.mode;
        if self.mode == PublishMode::JetStream {
            config.publish.subject = "assets.{key}.{id}".to_owned();
            config.publish.stream = Some(managed_stream());
        }
        config
    }

    /// A configuration whose first cluster is reached through a proxy.
    pub async fn proxied(&self) -> (Config, Proxy) {
        let proxy = Proxy::start(&self.clusters[0].1.address()).await.unwrap();
        let mut config = self.config();
        config.ring.clusters[0].servers = vec![proxy.nats_url()];
        (config, proxy)
    }

    /// Starts a forwarder and waits until it is ready.
    pub async fn start(&self, name: &str, config: &Config) -> Forwarder {
        let mut forwarder = Forwarder::start_as(name, config).unwrap();
        forwarder.wait_ready().await.unwrap();
        forwarder
    }

    /// Traffic that goes on until it is stopped.
    pub fn flow(&self, rate: u32) -> Flow {
        self.traffic
            .start(Amount {
                rate: Some(rate),
                ..Amount::default()
            })
            .unwrap()
    }

    /// Waits until the group has committed all that is in the topic.
    pub async fn wait_committed(&self) {
        wait::eventually(SOON, "everything is committed", || async {
            let lag = self.kafka.lag(&self.group, &self.topic).await?;
            anyhow::ensure!(lag == 0, "{lag} records are not");
            Ok(true)
        })
        .await
        .unwrap();
    }

    /// What a cluster's stream holds, by the cluster's place.
    pub async fn stored(&self, cluster: usize) -> Vec<Message> {
        observer::read_stream(&self.clusters[cluster].1, STREAM).await.unwrap()
    }

    /// Waits until all is committed, then judges what the clusters hold.
    pub async fn verdict(&self) -> Verdict {
        self.wait_committed().await;
        self.tally().await.verdict(&self.traffic.ledger())
    }

    /// What the clusters hold now.
    pub async fn tally(&self) -> Tally {
        self.tally_with(None).await
    }

    /// As [`Stage::tally`], and counts as foreign what is not at home (asset key, cluster name).
    pub async fn tally_at(&self, at_home: AtHome) -> Tally {
        self.tally_with(Some(at_home)).await
    }

    async fn tally_with(&self, at_home: Option<AtHome>) -> Tally {
        let streams: Vec<Stored<'_>> = self
            .clusters
            .iter()
            .map(|(name, nats)| Stored {
                cluster: name,
                nats,
                stream: STREAM,
            })
            .collect();
        observer::tally_streams(&streams, &self.traffic.ledger(), at_home)
            .await
            .unwrap()
    }

    /// Waits until the status of a cluster gives this as the last error, and yields the whole of it.
    pub async fn wait_last_error(&self, forwarder: &Forwarder, cluster: &str, part: &str) -> String {
        wait::value(SOON, "the status says what is wrong", || async {
            let status = forwarder.status().await?;
            let error = status["clusters"][cluster]["lastError"].as_str().unwrap_or_default();
            anyhow::ensure!(error.contains(part), "{status} does not say {part:?}");
            Ok(Some(error.to_owned()))
        })
        .await
        .unwrap()
    }

    /// Waits until the forwarder has confirmed so many records more than it had.
    pub async fn wait_published(&self, forwarder: &Forwarder, records: f64) {
        let before = forwarder.metrics().await.unwrap().sum(PUBLISHED, &[]);
        forwarder.wait_metric(PUBLISHED, before + records, SOON).await.unwrap();
    }
}

/// The stream of JetStream mode: the forwarder makes it.
pub fn managed_stream() -> Stream {
    serde_json::from_value(serde_json::json!({ "name": STREAM, "manage": true })).unwrap()
}
