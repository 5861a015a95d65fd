//! What the client libraries can do alone: the plainest program that reads, and the plainest that publishes. Subjects and the value are made once
//! beforehand, so that nothing but the library is measured.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use async_nats::jetstream::{self, stream};
use async_nats::{HeaderMap, Subject, header};
use bytes::Bytes;
use e2e_rig::kafka;
use e2e_rig::process::cpu_seconds;
use e2e_rig::traffic::write_value;
use forwarder_core::document::Storage;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::forward::{self, STREAM, SUBJECTS};
use crate::{ASSETS, Limit, PARTITIONS};

/// Publishes that wait for their acknowledgement at a time: fewer than the 5,000 that the client library allows itself, whose
/// publish would otherwise wait for a place that only this same task can free.
const PENDING: usize = 4_096;

pub(crate) async fn run(limit: &Limit, records: u64) -> Result<()> {
    let seconds = match limit {
        Limit::Consume { bootstrap, topic } => consume(bootstrap, topic, records)?,
        Limit::PublishCore { servers } => publish_core(servers, records).await?,
        Limit::PublishJetstream { servers } => publish_jetstream(servers, records).await?,
        Limit::SubscribePlain(_) | Limit::SubscribeFanout(_) => bail!("a subscriber is no limit of the forwarder"),
    };
    let own = std::process::id();
    let figures = serde_json::json!({"seconds": seconds, "cpu": cpu_seconds(own)?});
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
    let messages = Messages::new("");
    let started = Instant::now();
    for record in 0..records {
        let (at, subject) = messages.of(record, clients.len());
        let client = clients.get(at).ok_or_else(|| anyhow!("no server was named"))?;
        client
            .publish(subject, messages.value.clone())
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

/// The same stream and the same header as the forwarder's: a message ID of each record's own.
async fn publish_jetstream(servers: &[String], records: u64) -> Result<f64> {
    let mut contexts = Vec::new();
    for server in servers {
        let client = async_nats::connect(server)
            .await
            .with_context(|| format!("failed to connect to {server}"))?;
        let context = jetstream::new(client);
        context
            .create_stream(stream()?)
            .await
            .context("failed to create the stream")?;
        contexts.push(context);
    }
    let messages = Messages::new("assets.");
    let mut id = String::new();
    let mut pending = FuturesUnordered::new();
    let started = Instant::now();
    for record in 0..records {
        let (at, subject) = messages.of(record, contexts.len());
        let context = contexts.get(at).ok_or_else(|| anyhow!("no server was named"))?;
        id.clear();
        write!(id, "bench.{}.{record}.1767225600000", record % 12)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, id.as_str());
        let acknowledgement = context
            .publish_with_headers(subject, headers, messages.value.clone())
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

/// The stream that the forwarder makes of what is declared to it.
fn stream() -> Result<stream::Config> {
    let declared = forward::stream()?;
    Ok(stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECTS.to_owned()],
        num_replicas: declared.replicas,
        storage: match declared.storage {
            Storage::File => stream::StorageType::File,
            Storage::Memory => stream::StorageType::Memory,
        },
        duplicate_window: Duration::from_secs(declared.duplicate_window_seconds),
        max_bytes: -1,
        ..stream::Config::default()
    })
}

/// A subject for each asset and one value: clones share their bytes.
struct Messages {
    subjects: Vec<Subject>,
    value: Bytes,
}

impl Messages {
    fn new(prefix: &str) -> Self {
        let mut value = String::new();
        write_value(&mut value, "WTVB01-0000", 0, 300);
        Self {
            subjects: (0..ASSETS)
                .map(|asset| Subject::from(format!("{prefix}WTVB01-{asset:04}.Temperature")))
                .collect(),
            value: value.into(),
        }
    }

    /// The place of a record's server, and its subject.
    fn of(&self, record: u64, servers: usize) -> (usize, Subject) {
        let asset = usize::try_from(record).unwrap_or(0) % self.subjects.len();
        (asset % servers.max(1), self.subjects[asset].clone())
    }
}
