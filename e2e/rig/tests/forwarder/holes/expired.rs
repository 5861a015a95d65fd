//! What a stopped group had not read has expired when it comes back: never a silent jump, whatever the policy.

use e2e_rig::forwarder::Forwarder;
use e2e_rig::stage::{PARTITIONS, SOON, Stage};
use e2e_rig::wait;
use forwarder_core::document::{MissingOffset, PublishMode};

/// Records of each round: enough for every partition to have some of each.
const ROUND: u64 = 1_200;

/// A group that stopped in good order, and missed a round of which partition 0 has lost the first half since.
struct Expired {
    stage: Stage,
    /// What the group has committed of partition 0.
    committed: i64,
    /// The oldest offset that partition 0 still has.
    low: i64,
    /// One past its newest.
    high: i64,
}

impl Expired {
    async fn new() -> Self {
        let stage = Stage::new(PublishMode::Core, 2).await;
        let mut before = stage.start("before", &stage.config()).await;
        stage.traffic.send(ROUND).await.unwrap();
        stage.wait_committed().await;
        assert!(before.terminate(SOON).await.unwrap().success());
        let committed = stage.kafka.end_offsets(&stage.topic).await.unwrap()[0];
        stage.traffic.send(ROUND).await.unwrap();
        let high = stage.kafka.end_offsets(&stage.topic).await.unwrap()[0];
        let low = committed.midpoint(high);
        stage.kafka.delete_records(&stage.topic, 0, low).await.unwrap();
        assert!(committed < low && low < high, "{committed}, {low}, {high}");
        Self {
            stage,
            committed,
            low,
            high,
        }
    }

    async fn start(&self, policy: MissingOffset) -> Forwarder {
        let mut config = self.stage.config();
        config.source.missing_offset = policy;
        let forwarder = self.stage.start("after", &config).await;
        // Once, and for the partition that it happened to.
        forwarder
            .wait_metric("asset_forwarder_missing_offsets_total", 1.0, SOON)
            .await
            .unwrap();
        self.check_counted(&forwarder).await;
        forwarder
    }

    async fn check_counted(&self, forwarder: &Forwarder) {
        let metrics = forwarder.metrics().await.unwrap();
        for partition in 0..PARTITIONS {
            let labels = [
                ("topic", self.stage.topic.as_str()),
                ("partition", &partition.to_string()),
            ];
            let counted = metrics.sum("asset_forwarder_missing_offsets_total", &labels);
            assert_eq!(counted, f64::from(u8::from(partition == 0)), "partition {partition}");
        }
    }

    /// Sends a third round and judges all; returns how many records are missing.
    async fn lost_in_the_end(&self, forwarder: &Forwarder) -> u64 {
        self.stage.traffic.send(ROUND).await.unwrap();
        let verdict = self.stage.verdict().await;
        self.check_counted(forwarder).await;
        assert_eq!((verdict.out_of_order, verdict.repeated), (0, 0), "{verdict}");
        verdict.lost
    }
}

#[tokio::test]
async fn the_earliest_policy_goes_on_at_the_oldest_record_and_counts_the_fault() {
    let expired = Expired::new().await;
    let forwarder = expired.start(MissingOffset::Earliest).await;
    let lost = expired.lost_in_the_end(&forwarder).await;
    assert_eq!(
        lost,
        (expired.low - expired.committed).unsigned_abs(),
        "only what the broker has no more"
    );
}

#[tokio::test]
async fn the_latest_policy_goes_on_at_the_end_and_counts_the_fault() {
    let expired = Expired::new().await;
    let forwarder = expired.start(MissingOffset::Latest).await;
    let lost = expired.lost_in_the_end(&forwarder).await;
    assert_eq!(
        lost,
        (expired.high - expired.committed).unsigned_abs(),
        "of one partition what it had then"
    );
}

/// The one partition waits for a person, visibly; the others go on. The person's decision is an offset.
#[tokio::test]
async fn the_stop_policy_leaves_the_partition_to_a_person_while_the_others_go_on() {
    let expired = Expired::new().await;
    let stage = &expired.stage;
    let mut forwarder = expired.start(MissingOffset::Stop).await;
    stage.traffic.send(ROUND).await.unwrap();
    wait::eventually(SOON, "all other partitions are committed", || async {
        let ends = stage.kafka.end_offsets(&stage.topic).await?;
        let committed = stage.kafka.committed(&stage.group, &stage.topic).await?;
        let others = ends.iter().zip(&committed).skip(1);
        Ok(others
            .into_iter()
            .all(|(end, committed)| committed.offset == Some(*end)))
    })
    .await
    .unwrap();
    let committed = stage.kafka.committed(&stage.group, &stage.topic).await.unwrap();
    assert_eq!(committed[0].offset, Some(expired.committed), "nobody has decided yet");
    let status = forwarder.status().await.unwrap();
    for partition in 0..PARTITIONS {
        let paused = &status["assignment"][partition.to_string()]["paused"];
        assert_eq!(paused, partition == 0, "{status}");
        let state = &status["assignment"][partition.to_string()]["state"];
        let expected = match partition {
            0 => "stopped: the committed offset is gone",
            _ => "active",
        };
        assert_eq!(state, expected, "{status}");
    }
    assert!(forwarder.terminate(SOON).await.unwrap().success());

    stage
        .kafka
        .commit(&stage.group, &stage.topic, &[(0, expired.low)])
        .await
        .unwrap();
    let mut config = stage.config();
    config.source.missing_offset = MissingOffset::Stop;
    let decided = stage.start("decided", &config).await;
    let verdict = stage.verdict().await;
    assert_eq!((verdict.out_of_order, verdict.repeated), (0, 0), "{verdict}");
    assert_eq!(
        verdict.lost,
        (expired.low - expired.committed).unsigned_abs(),
        "{verdict}"
    );
    let counted = decided
        .metrics()
        .await
        .unwrap()
        .sum("asset_forwarder_missing_offsets_total", &[]);
    assert_eq!(counted, 0.0);
}
