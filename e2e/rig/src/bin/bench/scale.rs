//! How figures grow with the number of clusters, of virtual clusters and with the size of records. One run each.

use anyhow::{Context as _, Result};
use e2e_rig::kafka::{Kafka, unique};
use e2e_rig::traffic::{Plan, Traffic};
use forwarder_core::document::PublishMode;

use crate::figures::{Figures, say};
use crate::{ASSETS, PARTITIONS, forward, pure};

const CLUSTERS: [usize; 4] = [1, 2, 4, 8];
const VALUES: [(&str, usize); 4] = [("100", 100), ("1k", 1_000), ("10k", 10_000), ("100k", 100_000)];

/// Bytes that are sent for each size of value, at most: a topic that the machine's memory holds beside all else.
const BYTES: u64 = 1 << 30;

/// `topic` holds `records` records of the usual size.
pub(crate) async fn measure(figures: &mut Figures, kafka: &Kafka, topic: &str, records: u64) -> Result<()> {
    if figures.wants(&["scale_ring_ns"]) {
        figures.add("scale_ring_ns", pure::large_ring()?, "ns");
    }
    for clusters in CLUSTERS {
        let name = format!("scale_clusters_{clusters}");
        if figures.wants_run(&name) {
            say(&name);
            let run = forward::drain(PublishMode::Core, kafka, topic, clusters, records).await?;
            figures.add_run(&name, records, &run);
        }
    }
    for (text, value_bytes) in VALUES {
        let name = format!("scale_value_{text}");
        let volume = format!("{name}_mb");
        if !figures.wants(&[&name, &volume]) && !figures.wants_run(&name) {
            continue;
        }
        say(&name);
        let records = records.min(BYTES / value_bytes as u64);
        let topic = kafka.topic(&unique("scale"), PARTITIONS).await?;
        let plan = Plan {
            assets: ASSETS,
            value_bytes,
            ..Plan::default()
        };
        let sent = Traffic::new(kafka.bootstrap(), &topic, plan)?.send(records).await;
        sent.context("failed to preload the topic")?;
        let run = forward::drain(PublishMode::Core, kafka, &topic, 2, records).await?;
        figures.add_run(&name, records, &run);
        figures.add(&volume, records as f64 * value_bytes as f64 / 1e6 / run.seconds, "MB/s");
    }
    figures.print()
}
