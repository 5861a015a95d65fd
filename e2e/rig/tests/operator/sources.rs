//! Several channels of one Kafka in one forwarder: each topic is read as if it were alone, and sources come and go with a roll.

use std::sync::Arc;

use crds::AssetForwarder;
use e2e_rig::kafka::unique;
use e2e_rig::manifests;
use e2e_rig::site::{Site, condition, status};
use e2e_rig::stage::{ASSETS, PARTITIONS, SOON};
use e2e_rig::traffic::{Amount, Flow, Plan, Traffic, read_value};
use e2e_rig::verdict::{Delivery, Ledger, Tally, Verdict};
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use serde_json::{Value, json};

use crate::judge;

/// Fewer than those of the stage's topic.
const FEWER: i32 = 4;

/// Records of the second topic are told from the stage's by their assets.
const PREFIX: &str = "SECOND";

/// A second topic of the stage's Kafka, the channel of it, and traffic of its own.
struct Second {
    topic: String,
    traffic: Traffic,
}

impl Second {
    async fn new(site: &Site) -> Self {
        let kafka = &site.stage.kafka;
        let topic = unique("second");
        kafka.create_topic(&topic, FEWER, &[]).await.unwrap();
        let plan = Plan {
            assets: ASSETS,
            prefix: PREFIX.to_owned(),
            ..Plan::default()
        };
        let traffic = Traffic::new(kafka.bootstrap(), &topic, plan).unwrap();
        Self { topic, traffic }
    }

    fn channel(&self, site: &Site) -> Value {
        manifests::kafka_channel("second", site.stage.kafka.bootstrap(), &self.topic)
    }

    fn flow(&self, rate: u32) -> Flow {
        let amount = Amount {
            rate: Some(rate),
            ..Amount::default()
        };
        self.traffic.start(amount).unwrap()
    }
}

/// The forwarder of two pods that reads these channels.
fn reading(site: &Site, channels: &[&str]) -> Value {
    let mut forwarder = site.forwarder(2);
    let source = forwarder["spec"]["sources"][0].clone();
    let sources = channels.iter().map(|channel| {
        let mut source = source.clone();
        source["channelRef"]["name"] = json!(channel);
        source
    });
    forwarder["spec"]["sources"] = sources.collect();
    forwarder
}

/// Rolls the forwarder to these channels, and no pod of before is left.
async fn roll(site: &Site, channels: &[&str]) {
    let before = judge::pods(site).await;
    let hash = status(&site.get().await).config_hash;
    site.apply(&[reading(site, channels)]).await;
    let forwarder = site.wait_ready().await;
    assert_ne!(status(&forwarder).config_hash, hash);
    let after = judge::pods(site).await;
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
}

async fn wait_committed(site: &Site, topic: &str) {
    wait::eventually(SOON, &format!("all of {topic} is committed"), || async {
        let lag = site.stage.kafka.lag(&site.stage.group, topic).await?;
        anyhow::ensure!(lag == 0, "{lag} records are not");
        Ok(true)
    })
    .await
    .unwrap();
}

/// How many records of a topic lie before what the group has committed. Each topic here begins at offset 0 and has no holes.
async fn committed(site: &Site, topic: &str) -> u64 {
    let committed = site.stage.kafka.committed(&site.stage.group, topic).await.unwrap();
    let offsets = committed.iter().filter_map(|partition| partition.offset);
    u64::try_from(offsets.sum::<i64>()).unwrap()
}

/// What the clusters hold of one traffic's records, in the order in which the servers have stored it.
async fn tally(site: &Site, ledger: &Ledger) -> Tally {
    let mut stored = Vec::new();
    for cluster in 0..site.stage.clusters.len() {
        let messages = site.stage.stored(cluster).await;
        stored.extend(messages.into_iter().map(|message| (cluster, message)));
    }
    // Each stream's times never go back, and the sort is stable.
    stored.sort_by_key(|(_, message)| message.at_ns);
    let mut tally = Tally::new(0);
    for (cluster, message) in &stored {
        let (key, n, _) = read_value(&message.payload).unwrap();
        let Some(asset) = ledger.asset(key) else {
            continue;
        };
        tally.observe(Delivery {
            asset,
            n,
            cluster: u8::try_from(*cluster).unwrap(),
            at_us: u64::try_from(message.at_ns / 1_000).unwrap(),
            latency_us: None,
            at_home: true,
        });
    }
    tally
}

async fn verdict(site: &Site, ledger: &Ledger) -> Verdict {
    tally(site, ledger).await.verdict(ledger)
}

/// All that was sent to both topics is there once, each asset's records in the order of their topic.
async fn both_exactly_once(site: &Site, second: &Second) {
    let ledgers: [Arc<Ledger>; 2] = [site.stage.traffic.ledger(), second.traffic.ledger()];
    for (topic, ledger) in [&site.stage.topic, &second.topic].into_iter().zip(&ledgers) {
        wait_committed(site, topic).await;
        verdict(site, ledger).await.check_exactly_once().unwrap();
    }
}

/// Applies clusters, both channels and a forwarder that reads `channels`, and waits until it is ready.
async fn start(site: &Site, second: &Second, channels: &[&str]) {
    let mut all: Vec<Value> = (0..site.stage.clusters.len())
        .map(|place| site.cluster(place))
        .collect();
    all.extend([site.channel(), second.channel(site), reading(site, channels)]);
    site.apply(&all).await;
    site.wait_ready().await;
}

#[tokio::test]
async fn two_topics_arrive_each_once_and_in_its_order() {
    let site = Site::new(PublishMode::Core, 2).await;
    let second = Second::new(&site).await;
    start(&site, &second, &["assets", "second"]).await;
    let (first, further) = tokio::join!(site.stage.traffic.send(6_000), second.traffic.send(4_000));
    first.unwrap();
    further.unwrap();
    both_exactly_once(&site, &second).await;

    // Each partition of both topics has one pod.
    wait::eventually(SOON, "the pods tell of all partitions", || async {
        let (mut of_first, mut of_second) = (0, 0);
        for status in judge::pod_statuses(&site).await? {
            let count = |assignment: &Value| assignment.as_object().map_or(0, serde_json::Map::len);
            of_first += count(&status["assignment"]);
            of_second += count(&status["topics"][&second.topic]["assignment"]);
        }
        let wanted = (usize::try_from(PARTITIONS)?, usize::try_from(FEWER)?);
        anyhow::ensure!((of_first, of_second) == wanted, "{of_first} and {of_second}");
        Ok(true)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_source_comes_and_another_goes_by_a_roll_while_records_flow() {
    let site = Site::new(PublishMode::Core, 2).await;
    let second = Second::new(&site).await;
    start(&site, &second, &["assets"]).await;
    let (flow, further) = (site.stage.flow(300), second.flow(300));

    roll(&site, &["assets", "second"]).await;
    wait::eventually(SOON, "the second topic is read", || async {
        Ok(committed(&site, &second.topic).await > 0)
    })
    .await
    .unwrap();

    // The first source goes, and the second takes its place.
    roll(&site, &["second"]).await;
    wait::eventually(SOON, "the pods of before have left the group", || async {
        Ok(site.stage.kafka.members(&site.stage.group).await? == 2)
    })
    .await
    .unwrap();
    let before = committed(&site, &site.stage.topic).await;
    further.stop().await.unwrap();
    wait_committed(&site, &second.topic).await;
    let ledger = second.traffic.ledger();
    verdict(&site, &ledger).await.check_exactly_once().unwrap();

    // What is sent to a topic that nobody reads stays uncommitted, and no record has left it that is not committed.
    flow.stop().await.unwrap();
    site.stage.traffic.send(1_000).await.unwrap();
    let lag = site
        .stage
        .kafka
        .lag(&site.stage.group, &site.stage.topic)
        .await
        .unwrap();
    assert!(lag >= 1_000, "{lag}");
    assert_eq!(committed(&site, &site.stage.topic).await, before);
    let arrived = tally(&site, &site.stage.traffic.ledger()).await;
    assert_eq!((arrived.distinct(), arrived.repeated()), (before, 0));

    // It comes back, and goes on where it was left.
    roll(&site, &["second", "assets"]).await;
    second.traffic.send(1_000).await.unwrap();
    both_exactly_once(&site, &second).await;
}

#[tokio::test]
async fn a_source_that_cannot_be_read_with_the_first_one_is_told_and_pods_go_on() {
    let site = Site::new(PublishMode::Core, 1).await;
    let second = Second::new(&site).await;
    start(&site, &second, &["assets"]).await;
    let before = judge::pods(&site).await;

    site.apply(&[reading(&site, &["assets", "absent"])]).await;
    let message = site.wait_reason("ChannelMissing").await;
    assert!(message.starts_with("spec.sources[1].channelRef: "), "{message}");
    // Other addresses, whatever is behind them.
    let mut channel = second.channel(&site);
    channel["spec"]["connection"]["bootstrapServers"] = json!(["kafka.example.com:9092"]);
    site.apply(&[channel, reading(&site, &["assets", "second"])]).await;
    let message = site.wait_reason("InvalidSpec").await;
    assert!(message.contains("spec.connection.bootstrapServers"), "{message}");
    assert_eq!(judge::pods(&site).await, before);

    site.stage.traffic.send(1_000).await.unwrap();
    judge::exactly_once(&site).await;
}

/// A second forwarder of the same group, of one pod.
const TAKER: &str = "taker";

/// Waits until the second forwarder's `Ready` of its present generation has this reason.
async fn wait_taker(site: &Site, reason: &str) {
    wait::eventually(SOON, &format!("the second forwarder is {reason}"), || async {
        let forwarder = site.namespace.get::<AssetForwarder>(TAKER).await?;
        let ready = condition(&forwarder, "Ready");
        let is_observed = status(&forwarder).observed_generation == forwarder.metadata.generation;
        Ok(is_observed && ready.is_some_and(|ready| ready.reason == reason))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_source_that_moves_to_another_forwarder_is_begun_when_no_pod_of_the_first_one_reads_it() {
    let site = Site::new(PublishMode::Core, 2).await;
    let second = Second::new(&site).await;
    start(&site, &second, &["assets", "second"]).await;
    let flow = second.flow(300);
    let before = judge::pods(&site).await;

    // In one apply, as a person divides a forwarder in two.
    let mut taker = reading(&site, &["second"]);
    taker["metadata"]["name"] = json!(TAKER);
    taker["spec"]["replicas"] = json!(1);
    site.apply(&[reading(&site, &["assets"]), taker]).await;
    wait_taker(&site, "SourceTaken").await;
    let pods = site.namespace.pods(TAKER).await.unwrap();
    assert_eq!(pods.len(), 0, "it has begun beside pods that read its source");

    wait_taker(&site, "Forwarding").await;
    let left = judge::pods(&site).await;
    assert!(before.is_disjoint(&left), "{before:?} {left:?}");
    site.wait_ready().await;
    flow.stop().await.unwrap();
    site.stage.traffic.send(1_000).await.unwrap();
    both_exactly_once(&site, &second).await;
}
