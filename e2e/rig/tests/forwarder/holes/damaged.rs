//! A byte of a batch has changed on the broker's disk: the batch cannot be read any more. It is no hole: it is counted, said, and handled as
//! declared, and whatever can be read arrives.

use anyhow::ensure;
use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::Kafka;
use e2e_rig::kafka::segment::{Batch, Segment};
use e2e_rig::stage::{PARTITIONS, PUBLISHED, SOON, Stage};
use e2e_rig::wait;
use forwarder_core::document::{MissingOffset, PublishMode};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use crate::homes;

/// Records of each round: every partition has a batch of each at least.
const ROUND: u64 = 600;

const ROUNDS: u64 = 5;

const DAMAGED: &str = "asset_forwarder_damaged_batches_total";

/// On a broker whose files may be touched.
async fn stage() -> Stage {
    Stage::with(Kafka::start().await.unwrap(), PublishMode::Core, 2).await
}

fn segment(stage: &Stage, partition: i32) -> Segment {
    Segment::of(&stage.kafka, &stage.topic, partition).unwrap()
}

/// Damages the batch of a partition that `choose` finds among all.
fn damage(stage: &Stage, partition: i32, choose: impl Fn(&[Batch]) -> Batch) -> Batch {
    let segment = segment(stage, partition);
    let batch = choose(&segment.batches().unwrap());
    segment.damage(batch).unwrap();
    batch
}

fn middle(batches: &[Batch]) -> Batch {
    batches[batches.len() / 2]
}

fn last(batches: &[Batch]) -> Batch {
    batches[batches.len() - 1]
}

/// So many were counted for each partition.
async fn check_counted(stage: &Stage, forwarder: &Forwarder, expected: &[(i32, f64)]) {
    let metrics = forwarder.metrics().await.unwrap();
    for partition in 0..PARTITIONS {
        let labels = [("topic", stage.topic.as_str()), ("partition", &partition.to_string())];
        let expected = expected.iter().find(|(of, _)| *of == partition);
        let expected = expected.map_or(0.0, |(_, count)| *count);
        assert_eq!(metrics.sum(DAMAGED, &labels), expected, "partition {partition}");
    }
    assert_eq!(metrics.sum("asset_forwarder_missing_offsets_total", &[]), 0.0);
}

fn says_what_is_skipped(log: &str, partition: i32, batch: Batch) {
    let words = format!("partition={partition} from={} to={}", batch.first, batch.last);
    let found = log
        .lines()
        .find(|line| line.contains("ERROR") && line.contains("skipped a damaged batch") && line.contains(&words));
    assert!(found.is_some(), "no error says {words:?}\n{log}");
}

#[tokio::test]
async fn a_damaged_batch_is_counted_said_and_stepped_over_and_all_others_arrive() {
    let stage = stage().await;
    for _ in 0..ROUNDS {
        stage.traffic.send(ROUND).await.unwrap();
    }
    let amid = damage(&stage, 0, middle);
    let at_the_end = damage(&stage, 1, last);
    let mut forwarder = stage.start("forwarder", &stage.config()).await;
    stage.wait_committed().await;
    // Behind the end of a damaged partition it goes on.
    stage.traffic.send(ROUND).await.unwrap();
    let verdict = stage.verdict().await;
    assert_eq!((verdict.out_of_order, verdict.repeated), (0, 0), "{verdict}");
    assert_eq!(verdict.lost, amid.offsets() + at_the_end.offsets(), "{verdict}");
    check_counted(&stage, &forwarder, &[(0, 1.0), (1, 1.0)]).await;
    let log = forwarder.process().log().unwrap();
    says_what_is_skipped(&log, 0, amid);
    says_what_is_skipped(&log, 1, at_the_end);
}

/// The one partition waits for a person, visibly; the others go on. Here the person brings the batch back.
#[tokio::test]
async fn with_the_stop_policy_a_partition_stops_before_a_damaged_batch_while_the_others_go_on() {
    let stage = stage().await;
    for _ in 0..ROUNDS {
        stage.traffic.send(ROUND).await.unwrap();
    }
    let batch = damage(&stage, 0, middle);
    let mut config = stage.config();
    config.source.missing_offset = MissingOffset::Stop;
    let mut forwarder = stage.start("before", &config).await;
    wait::eventually(SOON, "all that can be read is committed", || async {
        let mut expected = stage.kafka.end_offsets(&stage.topic).await?;
        expected[0] = batch.first;
        let committed = stage.kafka.committed(&stage.group, &stage.topic).await?;
        let committed: Vec<_> = committed.iter().filter_map(|partition| partition.offset).collect();
        ensure!(committed == expected, "{committed:?} instead of {expected:?}");
        Ok(true)
    })
    .await
    .unwrap();
    forwarder.wait_metric(DAMAGED, 1.0, SOON).await.unwrap();
    check_counted(&stage, &forwarder, &[(0, 1.0)]).await;
    let words = format!("stopped: the batch at offset {} is damaged in Kafka", batch.first);
    wait::eventually(SOON, "the status says so", || async {
        let status = forwarder.status().await?;
        let (one, other) = (&status["assignment"]["0"], &status["assignment"]["1"]);
        ensure!(one["state"] == words.as_str() && one["paused"] == true, "{status}");
        ensure!(other["state"] == "active" && other["paused"] == false, "{status}");
        Ok(true)
    })
    .await
    .unwrap();
    assert!(forwarder.terminate(SOON).await.unwrap().success());

    segment(&stage, 0).damage(batch).unwrap();
    let after = stage.start("after", &config).await;
    stage.verdict().await.check_exactly_once().unwrap();
    check_counted(&stage, &after, &[]).await;
}

/// What was parked for a cluster that is away is read again. One batch of it has been damaged since; another one had been stepped over before,
/// and is no news.
#[tokio::test]
async fn a_damaged_batch_among_parked_records_is_no_hole_either() {
    let stage = stage().await;
    let (mut config, proxy) = stage.proxied().await;
    config.engine.max_pending_records_per_cluster = 50;
    let mut forwarder = stage.start("forwarder", &config).await;
    proxy.cut().await.unwrap();
    for _ in 0..ROUNDS {
        stage.traffic.send(ROUND).await.unwrap();
    }
    wait_parked(&stage, &forwarder, 0).await;
    forwarder.pause().unwrap();
    // What the broker answers at once may hold the first of these, as it was.
    stage.traffic.send(ROUND).await.unwrap();
    stage.traffic.send(ROUND).await.unwrap();
    let met_before = damage(&stage, 1, last);
    forwarder.resume().unwrap();
    forwarder.wait_metric(DAMAGED, 1.0, SOON).await.unwrap();
    wait_parked(&stage, &forwarder, met_before.offsets()).await;

    let choose = |batches: &[Batch]| batches[batches.len() - 2];
    let batches = segment(&stage, 0).batches().unwrap();
    let parked = owned_by(&stage, 0, choose(&batches), "C1").await;
    let met_late = damage(&stage, 0, choose);
    proxy.heal().await.unwrap();
    let verdict = stage.verdict().await;
    assert_eq!(verdict.out_of_order, 0, "{verdict}");
    assert_eq!(verdict.lost, met_before.offsets() + parked, "{verdict}");
    check_counted(&stage, &forwarder, &[(0, 1.0), (1, 1.0)]).await;
    let log = forwarder.process().log().unwrap();
    says_what_is_skipped(&log, 0, met_late);
    says_what_is_skipped(&log, 1, met_before);
}

/// Waits until each record is confirmed, out, parked, or one of those that are `lost`.
async fn wait_parked(stage: &Stage, forwarder: &Forwarder, lost: u64) {
    wait::eventually(SOON, "all has been read once", || async {
        let metrics = forwarder.metrics().await?;
        let sum = |name: &str| metrics.sum(name, &[]);
        let seen = sum(PUBLISHED) + sum("asset_forwarder_pending_records") + sum("asset_forwarder_parked_records");
        let expected = (stage.traffic.ledger().acknowledged() - lost) as f64;
        ensure!(seen == expected, "{seen} of {expected}");
        Ok(true)
    })
    .await
    .unwrap();
}

/// How many records of a batch, which can still be read, belong to a cluster.
async fn owned_by(stage: &Stage, partition: i32, batch: Batch, cluster: &str) -> u64 {
    let (config, topic, cluster) = (stage.kafka.client(), stage.topic.clone(), cluster.to_owned());
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.clone().set("group.id", "reader").create().unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&topic, partition, Offset::Offset(batch.first))
            .unwrap();
        consumer.assign(&from).unwrap();
        let ring = homes::ring(&["C1", "C2"]);
        let owned = (batch.first..=batch.last).filter(|_| {
            let message = consumer.poll(SOON).unwrap().unwrap();
            ring.name(ring.owner(message.key().unwrap())) == cluster
        });
        owned.count() as u64
    })
    .await
    .unwrap()
}
