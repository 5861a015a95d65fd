//! Servers and connections that go away while records flow.

use std::time::Duration;

use e2e_rig::kafka::{Kafka, SecondBroker, unique};
use e2e_rig::traffic::{Plan, Traffic};
use e2e_rig::wait;
use forwarder_core::document::PublishMode;

use crate::stage::{SOON, Stage};

/// How long something is away. The fault itself, not a wait for luck.
const AWAY: Duration = Duration::from_secs(5);

const RATE: u32 = 2_000;

#[tokio::test]
async fn nothing_is_lost_when_a_core_connection_is_cut_for_five_seconds() {
    connection_cut(PublishMode::Core).await;
}

#[tokio::test]
async fn nothing_is_lost_when_a_jetstream_connection_is_cut_for_five_seconds() {
    connection_cut(PublishMode::JetStream).await;
}

async fn connection_cut(mode: PublishMode) {
    let stage = Stage::new(mode, 2).await;
    let (config, proxy) = stage.proxied().await;
    let forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    // Nothing passes for a moment, so that there is something on the way that the cut destroys.
    proxy.stall();
    let pending = "asset_forwarder_pending_records";
    forwarder.wait_metric(pending, 500.0, SOON).await.unwrap();
    proxy.cut().await.unwrap();
    tokio::time::sleep(AWAY).await;
    proxy.heal().await.unwrap();
    stage.wait_published(&forwarder, 4_000.0).await;
    flow.stop().await.unwrap();
    let verdict = stage.verdict().await;
    verdict.check().unwrap();
    let reconnects = forwarder
        .metrics()
        .await
        .unwrap()
        .sum("asset_forwarder_reconnects_total", &[("cluster", "C1")]);
    assert!(reconnects >= 1.0, "the cut went unnoticed: {verdict}");
    if mode == PublishMode::JetStream {
        verdict.check_exactly_once().unwrap();
    }
}

/// The bytes go nowhere, and nobody says so: only the missing confirmations tell.
#[tokio::test]
async fn a_connection_that_swallows_everything_is_given_up_and_nothing_is_lost() {
    let stage = Stage::new(PublishMode::Core, 2).await;
    let (mut config, proxy) = stage.proxied().await;
    config.publish.retry.confirm_timeout_ms = 1_000;
    let forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    proxy.stall();
    forwarder
        .wait_metric("asset_forwarder_reconnects_total", 1.0, SOON)
        .await
        .unwrap();
    // What it has swallowed does not come out again.
    proxy.reset().await.unwrap();
    stage.wait_published(&forwarder, 4_000.0).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check().unwrap();
}

/// Publishes arrive, acks do not: what is sent again is dropped as a duplicate, and nothing overtakes it.
#[tokio::test]
async fn lost_acks_leave_the_stream_in_order_and_without_repeats() {
    let stage = Stage::new(PublishMode::JetStream, 2).await;
    let (mut config, proxy) = stage.proxied().await;
    config.publish.retry.confirm_timeout_ms = 1_000;
    let forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    proxy.stall_answers();
    forwarder
        .wait_metric("asset_forwarder_retries_total", 1.0, SOON)
        .await
        .unwrap();
    proxy.heal().await.unwrap();
    stage.wait_published(&forwarder, 4_000.0).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
}

#[tokio::test]
async fn nothing_is_lost_when_a_jetstream_server_is_killed_for_five_seconds() {
    let mut stage = Stage::new(PublishMode::JetStream, 2).await;
    let forwarder = stage.start("forwarder", &stage.config()).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    stage.clusters[0].1.kill9().unwrap();
    tokio::time::sleep(AWAY).await;
    stage.clusters[0].1.start_again().await.unwrap();
    stage.wait_published(&forwarder, 4_000.0).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
}

/// What a dying core NATS server had accepted and not delivered is outside of any proof; everything else arrives, in
/// order. Accepted and not delivered can only be what was confirmed within the moment before the kill.
#[tokio::test]
async fn a_core_server_that_is_killed_takes_no_more_with_it_than_it_had_just_accepted() {
    let mut stage = Stage::new(PublishMode::Core, 2).await;
    let forwarder = stage.start("forwarder", &stage.config()).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    stage.clusters[0].1.kill9().unwrap();
    tokio::time::sleep(AWAY).await;
    stage.clusters[0].1.start_again().await.unwrap();
    stage.wait_published(&forwarder, 4_000.0).await;
    flow.stop().await.unwrap();
    let verdict = stage.verdict().await;
    assert_eq!(verdict.out_of_order, 0, "{verdict}");
    // A quarter of a second of one cluster's share of the traffic.
    assert!(verdict.lost <= u64::from(RATE) / 2 / 4, "{verdict}");
}

#[tokio::test]
async fn nothing_is_lost_when_the_kafka_broker_restarts() {
    let stage = Stage::with(Kafka::start().await.unwrap(), PublishMode::Core, 2).await;
    let forwarder = stage.start("forwarder", &stage.config()).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    stage.kafka.restart().await.unwrap();
    stage.wait_published(&forwarder, 4_000.0).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check().unwrap();
}

/// The watchdog is for a member that is stuck while Kafka answers. A new process would do no better in an outage.
#[tokio::test]
async fn an_outage_of_kafka_longer_than_the_watchdogs_time_out_does_not_end_the_process() {
    let stage = Stage::with(Kafka::start().await.unwrap(), PublishMode::Core, 1).await;
    let mut config = stage.config();
    config.engine.watchdog_interval_ms = 200;
    // Less than the outage, and enough to join when Kafka is back: what is known of the group is a second old.
    config.engine.watchdog_timeout_ms = 4_000;
    config.engine.drain_timeout_ms = 1_000;
    let mut forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(600).await.unwrap();
    stage.wait_committed().await;
    stage.kafka.kill9().unwrap();
    wait::eventually(SOON, "it is no member", || async {
        let status = forwarder.status().await?;
        anyhow::ensure!(status["phase"] == "outside", "{status}");
        Ok(true)
    })
    .await
    .unwrap();
    tokio::time::sleep(AWAY).await;
    let ended = forwarder.process().try_exit().unwrap();
    assert_eq!(ended, None, "{}", forwarder.process().log_tail());
    assert_eq!(forwarder.page("/healthz").await.unwrap().0, 200);
    stage.kafka.start_again().await.unwrap();
    stage.traffic.send(600).await.unwrap();
    forwarder.wait_ready().await.unwrap();
    stage.verdict().await.check().unwrap();
    assert_eq!(forwarder.process().try_exit().unwrap(), None);
}

/// What can begin, begins; and the rest, as soon as it can.
#[tokio::test]
async fn a_partition_without_a_leader_keeps_no_other_one_waiting() {
    let stage = Stage::with(Kafka::start().await.unwrap(), PublishMode::Core, 1).await;
    // The group's offsets are on the broker that stays.
    stage.kafka.commit(&stage.group, &stage.topic, &[(0, 0)]).await.unwrap();
    let mut second = stage.kafka.start_second().await.unwrap();
    let topic = unique("assets");
    stage
        .kafka
        .create_topic_on(&topic, &[1, SecondBroker::ID, 1])
        .await
        .unwrap();
    let traffic = Traffic::new(stage.kafka.bootstrap(), &topic, Plan::default()).unwrap();
    traffic.send(1_000).await.unwrap();
    let ends = stage.kafka.end_offsets(&topic).await.unwrap();
    second.kill9().unwrap();
    stage.kafka.wait_led(&topic, 1, false).await.unwrap();

    let mut config = stage.config();
    config.source.topic.clone_from(&topic);
    let forwarder = stage.start("forwarder", &config).await;
    let arrived = async |records: i64| {
        wait::eventually(SOON, "what can be read has arrived", || async {
            let arrived = stage.stored(0).await.len();
            anyhow::ensure!(i64::try_from(arrived)? >= records, "{arrived} of {records}");
            Ok(true)
        })
        .await
        .unwrap();
    };
    arrived(ends[0] + ends[2]).await;
    let status = forwarder.status().await.unwrap();
    assert_eq!(
        status["assignment"]["1"]["state"], "waits for Kafka to return its start offset",
        "{status}"
    );
    assert_eq!(status["assignment"]["1"]["paused"], true, "{status}");
    assert_eq!(status["assignment"]["0"]["state"], "active", "{status}");

    second.start_again().unwrap();
    arrived(ends.iter().sum()).await;
    assert_eq!(stage.stored(0).await.len(), 1_000, "none more than once");
    let committed = || async {
        anyhow::ensure!(stage.kafka.lag(&stage.group, &topic).await? == 0);
        Ok(true)
    };
    wait::eventually(SOON, "all is committed", committed).await.unwrap();
}
