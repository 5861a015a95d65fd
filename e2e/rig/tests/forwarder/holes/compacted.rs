//! A compacted topic: most offsets have no record any more, and a group may have stopped at one of those.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::{Kafka, Options};
use e2e_rig::stage::{PARTITIONS, SOON, Stage};
use e2e_rig::traffic::{Plan, Raw, Traffic, read_value, write_value};
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

/// Older than this, a segment takes no more records, and may be compacted.
const SEGMENT_MS: u64 = 200;

const ASSETS: u32 = 60;

/// Records of each asset, all but the last of which compaction removes.
const ROUNDS: u32 = 20;

/// A record as the broker still has it.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    partition: i32,
    offset: i64,
    key: String,
    value: Option<Vec<u8>>,
}

#[tokio::test]
async fn what_compaction_left_arrives_in_order_and_the_whole_topic_is_committed() {
    let stage = compacted().await;
    let kept = wait_compacted(&stage).await;
    // The group has stopped at an offset that is gone: the next one that is there is where it goes on, and no fault.
    let hole = hole(&kept, 0);
    stage
        .kafka
        .commit(&stage.group, &stage.topic, &[(0, hole)])
        .await
        .unwrap();
    let forwarder = stage.start("forwarder", &stage.config()).await;
    stage.wait_committed().await;
    let ends = stage.kafka.end_offsets(&stage.topic).await.unwrap();
    let committed = stage.kafka.committed(&stage.group, &stage.topic).await.unwrap();
    let committed: Vec<_> = committed
        .into_iter()
        .map(|partition| partition.offset.unwrap())
        .collect();
    assert_eq!(committed, ends);

    // A tombstone says nothing to a subscriber; it is counted as invalid.
    let mut expected: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for kept in kept.iter().filter(|kept| kept.partition != 0 || kept.offset >= hole) {
        if let Some((key, n, _)) = kept.value.as_deref().map(|value| read_value(value).unwrap()) {
            expected.entry(key.to_owned()).or_default().push(n);
        }
    }
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for message in [stage.stored(0).await, stage.stored(1).await].concat() {
        let (key, n, _) = read_value(&message.payload).unwrap();
        found.entry(key.to_owned()).or_default().push(n);
    }
    assert_eq!(found, expected);

    let metrics = forwarder.metrics().await.unwrap();
    let missing = metrics.sum("asset_forwarder_missing_offsets_total", &[]);
    assert_eq!(missing, 0.0, "a hole is no fault");
    wait_no_lag(&forwarder).await;
}

async fn wait_no_lag(forwarder: &Forwarder) {
    wait::eventually(SOON, "the forwarder sees no lag", || async {
        let metrics = forwarder.metrics().await?;
        ensure!(metrics.has("asset_forwarder_lag"), "it says nothing of lag");
        let lag = metrics.sum("asset_forwarder_lag", &[]);
        ensure!(lag == 0.0, "it says {lag}");
        Ok(true)
    })
    .await
    .unwrap();
}

/// A topic of records that are all overwritten, some of them by tombstones, in segments that are closed.
async fn compacted() -> Stage {
    let cleaner = [
        ("log.cleaner.enable", "true"),
        ("log.cleaner.backoff.ms", "100"),
        ("log.cleaner.threads", "1"),
        ("log.cleaner.dedupe.buffer.size", "8388608"),
    ];
    let properties = cleaner
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let kafka = Kafka::start_with(Options {
        properties: properties.collect(),
        ..Options::default()
    })
    .await
    .unwrap();
    let mut stage = Stage::with(kafka, PublishMode::Core, 2).await;
    let topic = format!("{}-compacted", stage.topic);
    let segment_ms = SEGMENT_MS.to_string();
    let config = [
        ("cleanup.policy", "compact"),
        ("segment.ms", segment_ms.as_str()),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("min.compaction.lag.ms", "0"),
        ("delete.retention.ms", "0"),
    ];
    stage.kafka.create_topic(&topic, PARTITIONS, &config).await.unwrap();
    let plan = Plan {
        assets: ASSETS,
        ..Plan::default()
    };
    stage.traffic = Traffic::new(stage.kafka.bootstrap(), &topic, plan).unwrap();
    stage.topic = topic;
    stage.traffic.send(u64::from(ASSETS * ROUNDS)).await.unwrap();
    let ledger = stage.traffic.ledger();
    for asset in (0..ASSETS).filter(|asset| is_deleted(*asset)) {
        stage
            .traffic
            .send_raw(ledger.key(asset).as_bytes(), None)
            .await
            .unwrap();
    }
    // A segment is closed by the first record that comes when it is old enough; that record's own is not compacted.
    tokio::time::sleep(Duration::from_millis(2 * SEGMENT_MS)).await;
    let mut value = String::new();
    for partition in 0..PARTITIONS {
        let key = format!("LAST01-{partition:04}");
        write_value(&mut value, &key, 0, 300);
        let raw = Raw {
            key: Some(key.into_bytes()),
            value: Some(value.clone().into_bytes()),
            partition: Some(partition),
            ..Raw::default()
        };
        stage.traffic.send_record(raw).await.unwrap();
    }
    stage
}

/// Every fourth asset's last word is a tombstone.
fn is_deleted(asset: u32) -> bool {
    asset.is_multiple_of(4)
}

/// Waits until the broker has at most one record of each asset, and none of a deleted one but its tombstone.
async fn wait_compacted(stage: &Stage) -> Vec<Kept> {
    wait::value(SOON, "the broker has compacted the topic", || async {
        let kept = read_log(&stage.kafka, &stage.topic).await?;
        let keys: BTreeSet<&str> = kept.iter().map(|kept| kept.key.as_str()).collect();
        ensure!(
            keys.len() == kept.len(),
            "{} records of {} assets",
            kept.len(),
            keys.len()
        );
        Ok(Some(kept))
    })
    .await
    .unwrap()
}

/// An offset of a partition that no record has any more, with some that are still there on either side.
fn hole(kept: &[Kept], partition: i32) -> i64 {
    let offsets: Vec<i64> = kept
        .iter()
        .filter(|kept| kept.partition == partition)
        .map(|kept| kept.offset)
        .collect();
    let at = offsets
        .windows(2)
        .position(|pair| pair[1] > pair[0] + 1)
        .map(|at| offsets[at] + 1);
    assert!(at.is_some(), "partition {partition} has no hole: {offsets:?}");
    at.unwrap_or_default()
}

/// All that the broker has, as a client that is not the forwarder reads it.
async fn read_log(kafka: &Kafka, topic: &str) -> anyhow::Result<Vec<Kept>> {
    let mut config = kafka.client();
    config
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true");
    let (marks, topic) = (kafka.watermarks(topic).await?, topic.to_owned());
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        for (partition, (low, _)) in marks.iter().enumerate() {
            list.add_partition_offset(&topic, i32::try_from(partition)?, Offset::Offset(*low))?;
        }
        consumer.assign(&list)?;
        let (mut kept, mut ended) = (Vec::new(), BTreeSet::new());
        while ended.len() < marks.len() {
            match consumer
                .poll(Duration::from_secs(10))
                .context("the broker yields nothing")?
            {
                Ok(message) => kept.push(Kept {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
                    value: message.payload().map(<[u8]>::to_vec),
                }),
                Err(rdkafka::error::KafkaError::PartitionEOF(partition)) => drop(ended.insert(partition)),
                Err(error) => return Err(error.into()),
            }
        }
        kept.sort_by_key(|kept| (kept.partition, kept.offset));
        Ok(kept)
    })
    .await?
}
