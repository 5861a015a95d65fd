//! What the client libraries can do alone: the plainest program that reads, and the plainest that publishes.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use async_nats::jetstream;
use e2e_rig::kafka;
use e2e_rig::process::{cpu_seconds, peak_rss_bytes};
use e2e_rig::traffic::write_value;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::{ASSETS, Limit, PARTITIONS};

/// Publishes that wait for their acknowledgement at a time: fewer than the 5,000 that the client library allows itself, whose
/// publish would otherwise wait for a place that only this same task can free.
const PENDING: usize = 4_096;

pub(crate) async fn run(limit: &Limit, records: u64) -> Result<()> {
    let seconds = match limit {
        Limit::Consume { bootstrap, topic } => consume(bootstrap, topic, records)?,
        Limit::PublishCore { servers } => publish_core(servers, records).await?,
        Limit::PublishJetstream { servers } => publish_jetstream(servers, records).await?,
    };
    let own = std::process::id();
    let figures = serde_json::json!({"seconds": seconds, "cpu": cpu_seconds(own)?, "rss": peak_rss_bytes(own)?});
    writeln!(io::stdout(), "{figures}").context("failed to write the figures")
}

fn consume(bootstrap: &str, topic: &str, records: u64) -> Result<f64> {
    let mut config = kafka::client(bootstrap);
    // The default of a second's pause whenever the queue is full would halve the rate.
    config
        .set("group.id", "limit")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "5");
    let consumer: BaseConsumer = config.create().context("failed to make a consumer")?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all).context("failed to assign the partitions")?;
    let mut first = None;
    let mut read = 0;
    while read < records {
        match consumer.poll(Duration::from_secs(30)) {
            Some(message) => {
                message.context("failed to read")?;
                first.get_or_insert_with(Instant::now);
                read += 1;
            }
            None => bail!("no record for 30 s, after {read} of {records}"),
        }
    }
    Ok(first.map_or(0.0, |first| first.elapsed().as_secs_f64()))
}

async fn publish_core(servers: &[String], records: u64) -> Result<f64> {
    let mut clients = Vec::new();
    for server in servers {
        clients.push(
            async_nats::connect(server)
                .await
                .with_context(|| format!("failed to connect to {server}"))?,
        );
    }
    let mut value = String::new();
    let started = Instant::now();
    for record in 0..records {
        let (at, subject) = next(&mut value, record, clients.len(), "");
        let client = clients.get(at).ok_or_else(|| anyhow!("no server was named"))?;
        client
            .publish(subject, value.clone().into())
            .await
            .context("failed to publish")?;
    }
    for client in &clients {
        // An echo on the same connection: the server has read everything before it.
        let inbox = client.new_inbox();
        let mut echo = client.subscribe(inbox.clone()).await.context("failed to subscribe")?;
        client.publish(inbox, "".into()).await.context("failed to publish")?;
        echo.next().await.context("no echo")?;
    }
    Ok(started.elapsed().as_secs_f64())
}

async fn publish_jetstream(servers: &[String], records: u64) -> Result<f64> {
    let mut contexts = Vec::new();
    for server in servers {
        let client = async_nats::connect(server)
            .await
            .with_context(|| format!("failed to connect to {server}"))?;
        let context = jetstream::new(client);
        let config = jetstream::stream::Config {
            name: "assets".to_owned(),
            subjects: vec!["assets.>".to_owned()],
            ..jetstream::stream::Config::default()
        };
        context
            .create_stream(config)
            .await
            .context("failed to create the stream")?;
        contexts.push(context);
    }
    let mut value = String::new();
    let mut pending = FuturesUnordered::new();
    let started = Instant::now();
    for record in 0..records {
        let (at, subject) = next(&mut value, record, contexts.len(), "assets.");
        let context = contexts.get(at).ok_or_else(|| anyhow!("no server was named"))?;
        let acknowledgement = context
            .publish(subject, value.clone().into())
            .await
            .context("failed to publish")?;
        pending.push(acknowledgement.into_future());
        if pending.len() >= PENDING {
            pending
                .next()
                .await
                .transpose()
                .context("a publish was not acknowledged")?;
        }
    }
    while let Some(acknowledged) = pending.next().await {
        acknowledged.context("a publish was not acknowledged")?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Writes the next record and yields the place of its server and its subject.
fn next(value: &mut String, record: u64, servers: usize, prefix: &str) -> (usize, String) {
    let asset = record % u64::from(ASSETS);
    let key = format!("WTVB01-{asset:04}");
    write_value(
        value,
        &key,
        u32::try_from(record / u64::from(ASSETS)).unwrap_or(u32::MAX),
        300,
    );
    let place = usize::try_from(asset).unwrap_or(0) % servers.max(1);
    (place, format!("{prefix}{key}.Temperature"))
}
