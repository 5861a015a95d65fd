//! A group that is far behind: it catches up at full speed, and its memory does not know how far behind it was.

use std::time::Duration;

use e2e_rig::process::rss_bytes;
use e2e_rig::stage::{PARTITIONS, PUBLISHED, SOON, Stage};
use e2e_rig::traffic::{Plan, Traffic};
use forwarder_core::document::{Config, PublishMode};

/// By then every buffer is as full as it gets.
const SETTLED: u64 = 200_000;

const MIB: u64 = 1 << 20;

/// What librdkafka may read ahead, in KiB. The least that keeps it busy, so that a leak does not hide behind it.
const READ_AHEAD_KIB: u64 = 8 << 10;

/// As for [`READ_AHEAD_KIB`].
const PENDING_BYTES: usize = 8 << 20;

#[tokio::test]
async fn half_a_million_records_are_caught_up_with_in_flat_memory() {
    catch_up(500_000).await;
}

#[tokio::test]
async fn long_two_million_records_are_caught_up_with_in_flat_memory() {
    catch_up(2_000_000).await;
}

async fn catch_up(records: u64) {
    let mut stage = Stage::new(PublishMode::Core, 2).await;
    let plan = Plan {
        assets: 10_000,
        value_bytes: 250,
        ..Plan::default()
    };
    stage.traffic = Traffic::new(stage.kafka.bootstrap(), &stage.topic, plan).unwrap();
    let config = config(&stage);
    let mut forwarder = stage.start("forwarder", &config).await;
    let idle = rss_bytes(forwarder.process().pid()).unwrap();
    assert!(forwarder.terminate(SOON).await.unwrap().success());
    stage.traffic.send(records).await.unwrap();

    forwarder.start_again().unwrap();
    let pid = forwarder.process().pid();
    let (mut published, mut before, mut after) = (0, 0, 0);
    while published < records {
        assert_eq!(forwarder.process().try_exit().unwrap(), None);
        // It takes a moment until it serves its metrics.
        if let Ok(metrics) = forwarder.metrics().await {
            published = metrics.sum(PUBLISHED, &[]) as u64;
        }
        let most = if published < SETTLED { &mut before } else { &mut after };
        *most = rss_bytes(pid).unwrap().max(*most);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Each byte that waits is there once as a parcel and once in a write; what is read ahead has librdkafka's own records around it, and goes over
    // its bound by one answer of the broker, a megabyte for each partition. The rest is what two allocators keep back.
    let answer = u64::from(PARTITIONS.unsigned_abs()) * MIB;
    let bound = idle + 2 * PENDING_BYTES as u64 + 2 * (READ_AHEAD_KIB << 10) + answer + 24 * MIB;
    let told = format!(
        "idle {} MiB, until {SETTLED} records {} MiB, after {} MiB, bound {} MiB",
        idle / MIB,
        before / MIB,
        after / MIB,
        bound / MIB
    );
    assert!(before > 0 && after > 0, "nothing was measured: {told}");
    assert!(before.max(after) <= bound, "{told}");
    assert!(
        after <= before + before / 10 + 4 * MIB,
        "it grows with what it has read: {told}"
    );
    stage.verdict().await.check().unwrap();
}

fn config(stage: &Stage) -> Config {
    let mut config = stage.config();
    config.engine.max_pending_bytes = PENDING_BYTES;
    config.engine.max_pending_bytes_per_cluster = PENDING_BYTES;
    let properties = &mut config.source.connection.properties;
    properties.insert("queued.max.messages.kbytes".to_owned(), READ_AHEAD_KIB.to_string());
    config
}
