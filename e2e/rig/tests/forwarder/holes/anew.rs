//! The topic is not the one that was read: made anew, cut short, or shorter than what was committed. Never in silence, and never everything again.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::Path;

use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::Kafka;
use e2e_rig::stage::{ASSETS, PARTITIONS, SOON, Stage};
use e2e_rig::traffic::{Plan, Traffic, read_value};
use e2e_rig::wait;
use forwarder_core::document::{Config, MissingOffset, PublishMode};

const MISSING: &str = "asset_forwarder_missing_offsets_total";

/// Records before: each partition has some.
const BEFORE: u64 = 600;

#[tokio::test]
async fn a_topic_made_anew_under_a_stopped_forwarder_is_read_from_its_beginning_where_it_has_more_records() {
    let stage = Stage::new(PublishMode::Core, 2).await;
    made_anew(stage, 2 * BEFORE, MissingOffset::Earliest).await;
}

#[tokio::test]
async fn a_topic_made_anew_under_a_stopped_forwarder_is_read_from_its_beginning_where_it_has_fewer_records() {
    let stage = Stage::new(PublishMode::Core, 2).await;
    made_anew(stage, BEFORE / 2, MissingOffset::Latest).await;
}

/// Each restart of a broker makes for a higher leader epoch. Those of a new topic begin at zero.
#[tokio::test]
async fn a_topic_made_anew_is_read_from_its_beginning_where_its_leader_epochs_are_lower() {
    let stage = Stage::with(Kafka::start().await.unwrap(), PublishMode::Core, 1).await;
    stage.kafka.restart().await.unwrap();
    made_anew(stage, 2 * BEFORE, MissingOffset::Earliest).await;
}

async fn made_anew(stage: Stage, after: u64, policy: MissingOffset) {
    let mut config = patient(&stage);
    config.source.missing_offset = policy;
    let mut forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(BEFORE).await.unwrap();
    stage.wait_committed().await;
    forwarder.pause().unwrap();
    stage.kafka.delete_topic(&stage.topic).await.unwrap();
    let kept = [("retention.ms", "-1")];
    stage.kafka.create_topic(&stage.topic, PARTITIONS, &kept).await.unwrap();
    let anew = traffic(&stage, "ANEW");
    anew.send(after).await.unwrap();
    forwarder.resume().unwrap();
    wait_delivered(&stage, "ANEW", after).await;
    stage.wait_committed().await;
    assert_eq!(counted(&forwarder).await, PARTITIONS as f64, "once for each partition");
    assert_eq!(
        delivered(&stage, "WTVB").await,
        BEFORE,
        "of the former topic nothing comes again"
    );
    wait::eventually(SOON, "the status says what has happened", || async {
        let status = forwarder.status().await?;
        let told = |partition: i32| status["assignment"][partition.to_string()]["fault"].as_str();
        let all = (0..PARTITIONS)
            .all(|partition| told(partition).is_some_and(|fault| fault.contains("deleted and recreated")));
        anyhow::ensure!(all, "{status}");
        Ok(true)
    })
    .await
    .unwrap();
    assert!(forwarder.terminate(SOON).await.unwrap().success());

    // Its commits are of the new topic.
    let _next = stage.start("next", &config).await;
    anew.send(BEFORE).await.unwrap();
    wait_delivered(&stage, "ANEW", after + BEFORE).await;
}

/// Whoever was stopped had committed once more, after the topic was made anew.
#[tokio::test]
async fn a_topic_made_anew_while_nobody_ran_is_told_by_what_was_committed_of_the_former_one() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    let config = patient(&stage);
    let mut first = stage.start("first", &config).await;
    stage.traffic.send(BEFORE).await.unwrap();
    stage.wait_committed().await;
    assert!(first.terminate(SOON).await.unwrap().success());
    let committed = stage.kafka.committed(&stage.group, &stage.topic).await.unwrap();
    stage.kafka.delete_topic(&stage.topic).await.unwrap();
    stage.kafka.create_topic(&stage.topic, PARTITIONS, &[]).await.unwrap();
    let commits: Vec<_> = (0..PARTITIONS)
        .zip(&committed)
        .map(|(partition, committed)| (partition, committed.offset.unwrap(), committed.metadata.clone()))
        .collect();
    stage
        .kafka
        .commit_with(&stage.group, &stage.topic, &commits)
        .await
        .unwrap();
    traffic(&stage, "ANEW").send(2 * BEFORE).await.unwrap();
    let second = stage.start("second", &config).await;
    wait_delivered(&stage, "ANEW", 2 * BEFORE).await;
    assert_eq!(counted(&second).await, PARTITIONS as f64, "once for each partition");
}

#[tokio::test]
async fn an_offset_committed_beyond_the_end_goes_on_at_the_end_and_is_counted() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    stage.traffic.send(BEFORE).await.unwrap();
    let ends = stage.kafka.end_offsets(&stage.topic).await.unwrap();
    let mut commits: Vec<_> = (0..PARTITIONS).zip(ends).collect();
    commits[0].1 += 5;
    stage.kafka.commit(&stage.group, &stage.topic, &commits).await.unwrap();
    let forwarder = stage.start("forwarder", &stage.config()).await;
    forwarder.wait_metric(MISSING, 1.0, SOON).await.unwrap();
    traffic(&stage, "LATER").send(BEFORE).await.unwrap();
    wait_delivered(&stage, "LATER", BEFORE).await;
    stage.wait_committed().await;
    assert_eq!(
        delivered(&stage, "WTVB").await,
        0,
        "what was committed does not come again"
    );
    assert_eq!(counted(&forwarder).await, 1.0);
}

/// What an unclean election does: the leader has only the first records, and takes others in the place of those that it has not.
#[tokio::test]
async fn a_log_cut_short_under_a_stopped_forwarder_goes_on_where_it_was_cut() {
    let stage = Stage::with(Kafka::start().await.unwrap(), PublishMode::Core, 1).await;
    let mut forwarder = stage.start("forwarder", &patient(&stage)).await;
    // In several batches.
    for _ in 0..6 {
        stage.traffic.send(BEFORE / 6).await.unwrap();
    }
    stage.wait_committed().await;
    let before = stage.kafka.end_offsets(&stage.topic).await.unwrap()[0];
    forwarder.pause().unwrap();
    stage.kafka.kill9().unwrap();
    let data = stage.kafka.dir().unwrap().join("broker").join("data");
    let end = cut(&data.join(format!("{}-0", stage.topic)));
    assert!(0 < end && end < before, "{end} of {before}");
    stage.kafka.start_again().await.unwrap();
    assert_eq!(stage.kafka.end_offsets(&stage.topic).await.unwrap()[0], end);
    traffic(&stage, "LATER").send(4 * BEFORE).await.unwrap();
    assert!(before < stage.kafka.end_offsets(&stage.topic).await.unwrap()[0]);
    forwarder.resume().unwrap();
    wait_delivered(&stage, "LATER", 4 * BEFORE).await;
    stage.wait_committed().await;
    assert_eq!(
        delivered(&stage, "WTVB").await,
        BEFORE,
        "what was there before does not come again"
    );
    assert_eq!(counted(&forwarder).await, 1.0, "of the one partition");
    let log = forwarder.process().log().unwrap();
    assert!(log.contains(&format!("cut: {}", before - end)), "{log}");
}

/// Stopped for a while, and a member still.
fn patient(stage: &Stage) -> Config {
    let mut config = stage.config();
    let properties = &mut config.source.connection.properties;
    properties.insert("session.timeout.ms".to_owned(), "60000".to_owned());
    config
}

/// Traffic that is told from the stage's own.
fn traffic(stage: &Stage, prefix: &str) -> Traffic {
    let plan = Plan {
        assets: ASSETS,
        prefix: prefix.to_owned(),
        ..Plan::default()
    };
    Traffic::new(stage.kafka.bootstrap(), &stage.topic, plan).unwrap()
}

async fn counted(forwarder: &Forwarder) -> f64 {
    forwarder.metrics().await.unwrap().sum(MISSING, &[])
}

/// Waits until so many records of these assets have arrived; none more than once, each asset's in order.
async fn wait_delivered(stage: &Stage, prefix: &str, records: u64) {
    wait::eventually(SOON, "all have arrived", || async {
        let arrived = delivered(stage, prefix).await;
        anyhow::ensure!(arrived >= records, "{arrived} of {records} of {prefix} have");
        Ok(true)
    })
    .await
    .unwrap();
    assert_eq!(delivered(stage, prefix).await, records, "none more than once");
}

/// How many records of these assets have arrived, each asset's in order.
async fn delivered(stage: &Stage, prefix: &str) -> u64 {
    let mut count = 0;
    let mut next = BTreeMap::<String, u32>::new();
    for cluster in 0..stage.clusters.len() {
        for message in stage.stored(cluster).await {
            let (key, number, _) = read_value(&message.payload).unwrap();
            if key.starts_with(prefix) {
                count += 1;
                let next = next.entry(key.to_owned()).or_default();
                assert!(*next <= number, "record {number} of {key}, where {next} was to come");
                *next = number + 1;
            }
        }
    }
    count
}

/// Cuts a partition's log in the midst, between two batches; returns where it ends then.
fn cut(partition: &Path) -> i64 {
    let file = partition.join("00000000000000000000.log");
    let bytes = fs::read(&file).unwrap();
    // A batch: its first offset, the length of what follows, and that.
    let (mut at, mut end) = (0, 0);
    while at < bytes.len() / 2 {
        let length = i32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap());
        at += 12 + usize::try_from(length).unwrap();
        end = i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    }
    let log = OpenOptions::new().write(true).open(&file).unwrap();
    log.set_len(at as u64).unwrap();
    end
}
