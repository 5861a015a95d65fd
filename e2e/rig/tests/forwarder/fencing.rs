//! Forwarders that were stopped, or cut off from Kafka, while others took their partitions over.
//!
//! The first forwarder's link to NATS is stalled until far more is taken from Kafka than sockets and proxy hold: the rest
//! waits in its outbox, and would go out as soon as the link is there again. (What was given to the network before is
//! beyond any fence.)

use std::cell::Cell;
use std::time::Duration;

use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::{Kafka, Options};
use e2e_rig::proxy::Proxy;
use e2e_rig::traffic::{Plan, Traffic};
use e2e_rig::wait;
use forwarder_core::document::{Config, PublishMode};

use e2e_rig::stage::{SOON, STREAM, Stage};

/// Large and of few assets, so that few records fill every buffer on the way.
const VALUE: usize = 20_000;
const ASSETS: u32 = 4;

/// Several rounds through all assets and IDs: the connection has seen each subject accepted, so that the burst is not held
/// back record by record.
const WARM: u64 = 240;

/// 20 MB. How much sockets hold of it differs from machine to machine.
const BURST: u64 = 1_000;

/// So many records in the outbox are enough to be seen if they came out.
const IN_OUTBOX: f64 = 500.0;

const PENDING: &str = "asset_forwarder_pending_records";
const LOST: &str = "asset_forwarder_rebalances_total";
const FENCED: &str = "asset_forwarder_fenced_total";

async fn stage(kafka: Kafka) -> Stage {
    let mut stage = Stage::with(kafka, PublishMode::Core, 1).await;
    let plan = Plan {
        assets: ASSETS,
        value_bytes: VALUE,
        ..Plan::default()
    };
    stage.traffic = Traffic::new(stage.kafka.bootstrap(), &stage.topic, plan).unwrap();
    stage
}

/// A configuration that takes the whole burst in and is patient with a link that stands still.
fn patient(mut config: Config) -> Config {
    config.engine.max_pending_bytes_per_cluster = 1 << 30;
    config.engine.max_pending_bytes = 1 << 30;
    config.publish.retry.confirm_timeout_ms = 300_000;
    config
}

/// Confirms a few rounds, then stalls the way to NATS and sends until sockets and proxy are full and the rest is in the
/// forwarder's outbox. Returns how many records were sent in all.
async fn fill_outbox(stage: &Stage, forwarder: &Forwarder, proxy: &Proxy) -> u64 {
    stage.traffic.send(WARM).await.unwrap();
    stage.wait_committed().await;
    proxy.stall_requests();
    let mut sent = 0;
    loop {
        stage.traffic.send(BURST).await.unwrap();
        sent += BURST;
        forwarder.wait_metric(PENDING, sent as f64, SOON).await.unwrap();
        if in_outbox(forwarder).await >= IN_OUTBOX {
            return WARM + sent;
        }
    }
}

/// How many records wait in the outbox, once that stands still: the network takes no more.
async fn in_outbox(forwarder: &Forwarder) -> f64 {
    let last = Cell::new(f64::NAN);
    wait::eventually(SOON, "the network takes no more", || async {
        let now = forwarder.metrics().await?.sum("asset_forwarder_queue_size", &[]);
        let still = now == last.replace(now);
        anyhow::ensure!(still, "{now} records are in the outbox");
        Ok(true)
    })
    .await
    .unwrap();
    last.get()
}

/// How many messages the cluster has recorded.
async fn arrived(stage: &Stage) -> anyhow::Result<u64> {
    let client = stage.clusters[0].1.client().await?;
    let mut stream = async_nats::jetstream::new(client).get_stream(STREAM).await?;
    Ok(stream.info().await?.state.messages)
}

/// What the forwarder knows: that it was out of the group, and has dropped what it had of then.
async fn wait_lost(forwarder: &Forwarder) {
    wait::eventually(SOON, "the forwarder knows that its partitions were lost", || async {
        let lost = forwarder.metrics().await?.sum(LOST, &[("kind", "lost")]);
        let pending = forwarder.metrics().await?.sum(PENDING, &[]);
        anyhow::ensure!(
            lost >= 1.0 && pending == 0.0,
            "lost {lost} times, {pending} records wait"
        );
        Ok(true)
    })
    .await
    .unwrap();
}

async fn wait_proven(forwarder: &Forwarder, proven: bool) {
    wait::eventually(SOON, &format!("the membership is proved: {proven}"), || async {
        let status = forwarder.status().await?;
        anyhow::ensure!(status["membershipProven"] == proven, "{status}");
        Ok(true)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_forwarder_that_was_stopped_beyond_its_session_publishes_nothing_when_it_wakes() {
    let stage = stage(Kafka::shared().await.unwrap()).await;
    let (config, proxy) = stage.proxied().await;
    let mut first = stage.start("first", &patient(config)).await;
    let sent = fill_outbox(&stage, &first, &proxy).await;
    first.pause().unwrap();
    let _second = stage.start("second", &patient(stage.config())).await;
    stage.wait_committed().await;
    // Newer records of the same assets.
    stage.traffic.send(WARM).await.unwrap();
    stage.wait_committed().await;
    // What the network held comes out now; then the sleeper's socket takes bytes again.
    proxy.heal().await.unwrap();
    let before = come_to_rest(&stage).await;
    assert!(before >= sent + WARM, "{before}");
    first.resume().unwrap();
    wait_lost(&first).await;
    let late = arrived(&stage).await.unwrap() - before;
    assert_eq!(
        late, 0,
        "messages were published on behalf of partitions that were lost"
    );
    first.wait_metric(FENCED, 1.0, SOON).await.unwrap();
    // It is a member again, and does its part.
    wait_proven(&first, true).await;
    stage.traffic.send(WARM).await.unwrap();
    let verdict = stage.verdict().await;
    verdict.check().unwrap();
    assert_eq!(
        arrived(&stage).await.unwrap(),
        before + WARM,
        "nothing more came twice: {verdict}"
    );
}

#[tokio::test]
async fn a_forwarder_that_was_cut_off_from_kafka_publishes_nothing_that_others_may_own() {
    let to_kafka = Proxy::bind().await.unwrap();
    let options = Options {
        proxied: Some(to_kafka.address()),
        ..Options::default()
    };
    let kafka = Kafka::start_with(options).await.unwrap();
    to_kafka.aim(kafka.behind_proxy().unwrap());
    let stage = stage(kafka).await;
    let (mut config, to_nats) = stage.proxied().await;
    config.source.connection.bootstrap_servers = vec![to_kafka.address()];
    let first = stage.start("first", &patient(config)).await;
    fill_outbox(&stage, &first, &to_nats).await;
    to_kafka.cut().await.unwrap();
    wait_proven(&first, false).await;
    // What was on the way is gone, and the way is free: only the outbox could give anything now.
    to_nats.reset().await.unwrap();
    wait_lost(&first).await;
    assert_eq!(
        arrived(&stage).await.unwrap(),
        WARM,
        "messages were published though nothing proved the membership"
    );
    first.wait_metric(FENCED, 1.0, SOON).await.unwrap();
    let second = stage.start("second", &patient(stage.config())).await;
    stage.wait_committed().await;
    stage.traffic.send(WARM).await.unwrap();
    stage.wait_committed().await;
    to_kafka.heal().await.unwrap();
    wait_proven(&first, true).await;
    stage.traffic.send(WARM).await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
    drop(second);
}

/// Waits until nothing has arrived for a while, and yields how much has. Should it be wrong, the test fails.
async fn come_to_rest(stage: &Stage) -> u64 {
    const QUIET: Duration = Duration::from_secs(3);
    let mut last = arrived(stage).await.unwrap();
    loop {
        tokio::time::sleep(QUIET).await;
        let now = arrived(stage).await.unwrap();
        if now == last {
            return now;
        }
        last = now;
    }
}
