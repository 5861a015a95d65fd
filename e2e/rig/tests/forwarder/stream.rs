//! The stream that a JetStream forwarder publishes to: missing, managed, deleted, full, and without repeats.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy};
use e2e_rig::nats::Nats;
use e2e_rig::traffic::read_value;
use e2e_rig::{forwarder, observer, wait};
use forwarder_core::document::{Config, PublishMode};

use crate::stage::{PUBLISHED, SOON, STREAM, Stage};

const RATE: u32 = 2_000;

#[tokio::test]
async fn a_missing_stream_is_named_and_waited_for() {
    let stage = Stage::new(PublishMode::JetStream, 1).await;
    let mut forwarder = stage.start("forwarder", &unmanaged(&stage)).await;
    stage.traffic.send(1_200).await.unwrap();
    let error = stage.wait_last_error(&forwarder, "C1", "does not exist").await;
    assert!(error.contains(&format!("stream {STREAM:?}")), "{error}");
    let log = forwarder.process().log().unwrap();
    assert!(
        log.contains(&error.replace('"', "\\\"")) || log.contains(&error),
        "{log}"
    );
    assert_eq!(forwarder.metrics().await.unwrap().sum(PUBLISHED, &[]), 0.0);
    context(&stage).await.create_stream(stream()).await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
}

#[tokio::test]
async fn a_managed_stream_is_made_as_declared_and_drift_is_repaired_at_the_next_connection() {
    let mut stage = Stage::new(PublishMode::JetStream, 1).await;
    let mut config = stage.config();
    let declared = config.publish.stream.as_mut().unwrap();
    declared.max_age_seconds = Some(3_600);
    declared.max_bytes = Some(50_000_000);
    declared.duplicate_window_seconds = 600;
    let forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(1_200).await.unwrap();
    forwarder.wait_metric(PUBLISHED, 1_200.0, SOON).await.unwrap();
    let mut made = look(&stage).await;
    assert_eq!(made.subjects, ["assets.>"]);
    assert_eq!(made.max_age, Duration::from_secs(3_600));
    assert_eq!(made.max_bytes, 50_000_000);
    assert_eq!(made.duplicate_window, Duration::from_secs(600));

    // One field that is declared and one that is not.
    made.max_age = Duration::from_secs(60 * 60 * 24);
    made.description = Some("somebody's own".to_owned());
    context(&stage).await.update_stream(&made).await.unwrap();
    stage.clusters[0].1.restart().await.unwrap();
    wait::eventually(SOON, "the drift is repaired", || async {
        let now = context(&stage)
            .await
            .get_stream(STREAM)
            .await?
            .cached_info()
            .config
            .max_age;
        anyhow::ensure!(now == Duration::from_secs(3_600), "max_age is {now:?}");
        Ok(true)
    })
    .await
    .unwrap();
    assert_eq!(
        look(&stage).await.description.as_deref(),
        Some("somebody's own"),
        "what is not declared is left as it was"
    );
    stage.traffic.send(1_200).await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
}

/// What the deleted stream held is gone. Everything that was sent after the deletion arrives, each asset's records
/// without a gap, once and in order.
#[tokio::test]
async fn a_managed_stream_that_is_deleted_under_traffic_is_made_anew() {
    let stage = Stage::new(PublishMode::JetStream, 1).await;
    let forwarder = stage.start("forwarder", &stage.config()).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    context(&stage).await.delete_stream(STREAM).await.unwrap();
    let given = given(&stage);
    stage.wait_published(&forwarder, 4_000.0).await;
    flow.stop().await.unwrap();
    holds_all_since(&stage, &given).await;
}

/// How many records of each asset have been sent so far.
pub(crate) fn given(stage: &Stage) -> Vec<u32> {
    let ledger = stage.traffic.ledger();
    (0..ledger.assets()).map(|asset| ledger.given(asset)).collect()
}

/// Waits until all is committed. Then the stream must hold what was sent after so many records of each asset, without a gap, once and
/// in order; the last of the earlier ones may be there too.
pub(crate) async fn holds_all_since(stage: &Stage, given: &[u32]) {
    let verdict = stage.verdict().await;
    assert_eq!((verdict.out_of_order, verdict.repeated), (0, 0), "{verdict}");
    let ledger = stage.traffic.ledger();
    let mut numbers: HashMap<u32, Vec<u32>> = HashMap::new();
    for message in observer::read_stream(&stage.clusters[0].1, STREAM).await.unwrap() {
        let (key, n, _) = read_value(&message.payload).unwrap();
        numbers.entry(ledger.asset(key).unwrap()).or_default().push(n);
    }
    for (asset, &given) in (0..).zip(given) {
        let numbers = &numbers[&asset];
        let first = numbers[0];
        assert!(
            first <= given,
            "asset {asset}: {given} were sent before the deletion, and {first} is the first there"
        );
        assert!(
            numbers.iter().copied().eq(first..ledger.given(asset)),
            "asset {asset}: {numbers:?} has a gap"
        );
    }
}

/// Without a literal prefix the stream would have to take every subject of the cluster.
#[tokio::test]
async fn a_subject_without_a_literal_prefix_is_refused_at_the_start() {
    let stage = Stage::new(PublishMode::JetStream, 1).await;
    let mut config = stage.config();
    config.publish.subject = "{key}.{id}".to_owned();
    let mut forwarder = forwarder::Forwarder::start(&config).unwrap();
    let status = forwarder.wait_exit(SOON).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let log = forwarder.process().log().unwrap();
    assert!(log.contains("publish.subject: has no literal first token"), "{log}");

    let check = Command::new(forwarder::binary().unwrap())
        .arg("check")
        .arg(forwarder.config_file())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(1), "{said}");
    assert!(said.contains("publish.subject: has no literal first token"), "{said}");
}

#[tokio::test]
async fn what_a_full_stream_refuses_arrives_in_order_and_once_when_there_is_room() {
    let stage = Stage::new(PublishMode::JetStream, 1).await;
    let full = StreamConfig {
        max_messages: 500,
        discard: DiscardPolicy::New,
        ..stream()
    };
    context(&stage).await.create_stream(full.clone()).await.unwrap();
    let mut config = unmanaged(&stage);
    config.publish.retry.initial_backoff_ms = 20;
    config.publish.retry.max_backoff_ms = 500;
    let mut forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(2_400).await.unwrap();
    // Every asset has a record that was refused at least twice.
    wait::eventually(SOON, "the stream refuses", || async {
        let metrics = forwarder.metrics().await?;
        let refused = metrics.sum("asset_forwarder_retries_total", &[("reason", "refused")]);
        anyhow::ensure!(refused >= 400.0, "{refused} refusals");
        Ok(true)
    })
    .await
    .unwrap();
    assert_eq!(forwarder.metrics().await.unwrap().sum(PUBLISHED, &[]), 500.0);
    let log = forwarder.process().log().unwrap();
    assert!(log.contains("maximum messages exceeded"), "{log}");
    let room = StreamConfig {
        max_messages: -1,
        ..full
    };
    context(&stage).await.update_stream(&room).await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
}

/// The ID of a message is that of its record, so that a stream knows what a killed forwarder had stored and not committed.
#[tokio::test]
async fn a_forwarder_that_is_killed_leaves_the_stream_without_repeats() {
    let stage = Stage::new(PublishMode::JetStream, 2).await;
    let mut config = stage.config();
    config.publish.headers.origin = true;
    // Much is stored and not committed whenever it is killed.
    config.engine.commit_interval_ms = 1_000;
    let mut forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 3_000.0).await;
    // It is killed where it was held, so that what is seen here is what it leaves.
    forwarder.pause().unwrap();
    while stored_and_not_committed(&stage).await == 0 {
        forwarder.resume().unwrap();
        stage.wait_published(&forwarder, 100.0).await;
        forwarder.pause().unwrap();
    }
    forwarder.kill9().unwrap();
    forwarder.start_again().unwrap();
    forwarder.wait_ready().await.unwrap();
    stage.wait_published(&forwarder, 3_000.0).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();

    for (_, nats) in &stage.clusters {
        for message in observer::read_stream(nats, STREAM).await.unwrap() {
            let header = |name: &str| {
                let value = message.headers.get(name);
                value
                    .unwrap_or_else(|| panic!("no {name}: {:?}", message.headers))
                    .as_str()
            };
            let parts = [
                header("Kafka-Topic"),
                header("Kafka-Partition"),
                header("Kafka-Offset"),
                header("Kafka-Timestamp"),
            ];
            assert_eq!(header("Nats-Msg-Id"), parts.join("."));
            assert_eq!(parts[0], stage.topic);
        }
    }
}

async fn stored_and_not_committed(stage: &Stage) -> i64 {
    let committed = stage.kafka.committed(&stage.group, &stage.topic).await.unwrap();
    let committed: i64 = committed.iter().map(|partition| partition.offset.unwrap_or(0)).sum();
    i64::try_from(stage.tally().await.distinct()).unwrap() - committed
}

/// A configuration that leaves the stream to others.
pub(crate) fn unmanaged(stage: &Stage) -> Config {
    let mut config = stage.config();
    config.publish.stream.as_mut().unwrap().manage = false;
    config
}

/// The stream as others make it.
pub(crate) fn stream() -> StreamConfig {
    StreamConfig {
        name: STREAM.to_owned(),
        subjects: vec!["assets.>".to_owned()],
        ..StreamConfig::default()
    }
}

async fn look(stage: &Stage) -> StreamConfig {
    let stream = context(stage).await.get_stream(STREAM).await.unwrap();
    stream.cached_info().config.clone()
}

pub(crate) async fn context(stage: &Stage) -> jetstream::Context {
    let nats: &Nats = &stage.clusters[0].1;
    jetstream::new(nats.client().await.unwrap())
}
