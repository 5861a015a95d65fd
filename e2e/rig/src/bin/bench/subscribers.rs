//! What a subscriber costs: the client in Rust beside plain async-nats, each a process of its own that reads the same records at the same time.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use e2e_rig::forwarder::{self, BEACON, Forwarder};
use e2e_rig::kafka::{Kafka, unique};
use e2e_rig::nats::Nats;
use e2e_rig::process::{Process, Spec, cpu_seconds, rss_bytes};
use e2e_rig::traffic::{Plan, Traffic};
use e2e_rig::verdict::Ledger;
use e2e_rig::wait;
use fanout_client::{Event, Options, Pin};
use forwarder_core::document::Config;
use futures::StreamExt as _;
use nkeys::KeyPair;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::figures::{Figures, say};
use crate::{ASSETS, Limit, PARTITIONS, PATIENCE};

/// What tells this ring from others.
const RING: &str = "the-ring-of-the-benchmark";

/// How long subscribers have to learn of a ring.
const GRACE: Duration = Duration::from_secs(20);

/// How a yardstick finds the ring.
#[derive(Clone, Debug, Args)]
pub(crate) struct Reader {
    server: String,
    key: String,
}

/// A ring of several clusters with a beacon, and its forwarder.
struct Plant {
    forwarder: Forwarder,
    config: Config,
    /// All clusters; the last one is not in the ring yet.
    all: Vec<forwarder_core::document::Cluster>,
    traffic: Traffic,
    key: KeyPair,
    servers: Vec<Nats>,
    _dir: TempDir,
}

impl Plant {
    async fn start(kafka: &Kafka, clusters: usize) -> Result<Self> {
        let mut servers = Vec::new();
        for _ in 0..=clusters {
            servers.push(Nats::start().await?);
        }
        let names: Vec<String> = (1..=servers.len()).map(|number| format!("C{number}")).collect();
        let named: Vec<(&str, &Nats)> = names.iter().map(String::as_str).zip(&servers).collect();
        let topic = kafka.topic(&unique("subscribers"), PARTITIONS).await?;
        let dir = tempfile::tempdir().context("failed to make a directory")?;
        let (key, key_file) = (KeyPair::new_user(), dir.path().join("beacon"));
        fs::write(&key_file, key.seed()?).context("failed to write the key of the beacon")?;
        let mut config = forwarder::config(kafka, &topic, &unique("bench"), &named);
        config.ring.beacon = Some(forwarder::beacon(&key_file, RING, GRACE));
        config.publish.headers.origin = true;
        let all = config.ring.clusters.clone();
        config.ring.clusters.truncate(clusters);
        let mut forwarder = Forwarder::start(&config)?;
        forwarder.wait_ready().await?;
        let plan = Plan {
            assets: ASSETS,
            ..Plan::default()
        };
        Ok(Self {
            forwarder,
            config,
            all,
            traffic: Traffic::new(kafka.bootstrap(), &topic, plan)?,
            key,
            servers,
            _dir: dir,
        })
    }

    fn reader(&self) -> Reader {
        let first = self.servers.first().map(Nats::url);
        Reader {
            server: first.unwrap_or_default(),
            key: self.key.public_key(),
        }
    }
}

/// Measures as often as is asked for.
pub(crate) async fn measure(figures: &mut Figures, records: u64, runs: u32) -> Result<()> {
    let kafka = Kafka::start().await?;
    for run in 1..=runs {
        say(&format!(
            "run {run} of {runs}: two subscribers of {ASSETS} assets, each read {records} records"
        ));
        beside_plain(figures, &kafka, records).await?;
        say(&format!(
            "run {run} of {runs}: {ASSETS} subscriptions follow a ring of 3 clusters that becomes one of 4"
        ));
        figures.add("subscriber_move_s", follows(&kafka).await?, "s");
    }
    figures.print()
}

async fn beside_plain(figures: &mut Figures, kafka: &Kafka, records: u64) -> Result<()> {
    let plant = Plant::start(kafka, 1).await?;
    let reader = plant.reader();
    let dir = tempfile::tempdir().context("failed to make a directory")?;
    let (mut plain, mut fanout) = (
        subscriber("subscribe-plain", &reader, records, dir.path())?,
        subscriber("subscribe-fanout", &reader, records, dir.path())?,
    );
    for process in [&plain, &fanout] {
        wait::eventually(PATIENCE, "the subscriber is ready", || async {
            Ok(process.log()?.contains("\"ready\""))
        })
        .await?;
    }
    plant.traffic.send(records).await.context("failed to send")?;
    let (plain, fanout) = (end(&mut plain)?, end(&mut fanout)?);
    for (name, told) in [("subscriber_plain", &plain), ("subscriber_fanout", &fanout)] {
        figures.add(
            &format!("{name}_cpu"),
            of(told, "cpu")? / records as f64 * 1e6,
            "CPU s/1M records",
        );
        figures.add(
            &format!("{name}_bytes"),
            of(told, "bytes")? / f64::from(ASSETS),
            "B/subscription",
        );
    }
    let ratio = of(&fanout, "cpu")? / of(&plain, "cpu")?;
    figures.add("subscriber_cpu_ratio", ratio, "");
    Ok(())
}

/// The time from the declaration of a ring until its 10,000 subscriptions are proved on their new side.
async fn follows(kafka: &Kafka) -> Result<f64> {
    let mut plant = Plant::start(kafka, 3).await?;
    let pin = Pin::new(plant.key.public_key(), RING, BEACON);
    let client = Options::new(pin).connect([plant.reader().server]).await?;
    let mut events = client.events();
    let ledger = plant.traffic.ledger();
    let keys = (0..ASSETS).map(|asset| ledger.key(asset));
    let mut records = client.subscribe_many(keys).await?;
    tokio::spawn(async move { while records.next().await.is_some() {} });
    plant.config.ring.epoch += 1;
    plant.config.ring.clusters = std::mem::take(&mut plant.all);
    let declared = Instant::now();
    plant.forwarder.declare_ring(&plant.config.ring)?;
    let epoch = plant.config.ring.epoch;
    let ready = async {
        while let Some(event) = events.next().await {
            match event {
                Event::Ready { ring } if ring == epoch => return Ok(()),
                Event::Gap(gap) => bail!("a gap at a move without a fault: {gap:?}"),
                _ => {}
            }
        }
        bail!("the client has ended")
    };
    tokio::time::timeout(PATIENCE, ready).await??;
    Ok(declared.elapsed().as_secs_f64())
}

fn subscriber(task: &str, reader: &Reader, records: u64, dir: &Path) -> Result<Process> {
    let own = std::env::current_exe().context("failed to ask for this executable's path")?;
    let spec = Spec::new(task, own, dir.join(task))
        .args(["--records", &records.to_string()])
        .args([task, &reader.server, &reader.key]);
    Process::start(spec)
}

/// What it has told last.
fn end(process: &mut Process) -> Result<Value> {
    let status = process.wait_exit(PATIENCE)?;
    if !status.success() {
        bail!("a subscriber failed ({status})\n{}", process.log_tail());
    }
    let log = process.log()?;
    serde_json::from_str(log.lines().last().unwrap_or_default())
        .with_context(|| format!("it did not end with its figures: {log}"))
}

fn of(told: &Value, figure: &str) -> Result<f64> {
    let value = told.get(figure).and_then(Value::as_f64);
    value.with_context(|| format!("a subscriber said no {figure}: {told}"))
}

/// Runs a yardstick: subscribes to each asset, and reads so many records.
pub(crate) async fn run(limit: &Limit, records: u64) -> Result<()> {
    let own = std::process::id();
    let ledger = Ledger::new(&Plan::default().prefix, ASSETS);
    let before = rss_bytes(own)?;
    let (counter, mut count) = mpsc::unbounded_channel::<()>();
    match limit {
        Limit::SubscribePlain(reader) => plain(reader, &ledger, &counter).await?,
        Limit::SubscribeFanout(reader) => fanout(reader, &ledger, &counter).await?,
        _ => bail!("this is no subscriber"),
    }
    let bytes = rss_bytes(own)?.saturating_sub(before);
    tell(&serde_json::json!({"ready": true}))?;
    let cpu = cpu_seconds(own)?;
    for _ in 0..records {
        count.recv().await.context("the subscriptions have ended")?;
    }
    tell(&serde_json::json!({"cpu": cpu_seconds(own)? - cpu, "bytes": bytes}))
}

async fn plain(reader: &Reader, ledger: &Ledger, counter: &mpsc::UnboundedSender<()>) -> Result<()> {
    let client = async_nats::connect(&reader.server).await.context("failed to connect")?;
    for asset in 0..ledger.assets() {
        let mut subscription = client.subscribe(format!("{}.*", ledger.key(asset))).await?;
        let counter = counter.clone();
        tokio::spawn(async move {
            // Nobody counts any more where that fails.
            while subscription.next().await.is_some() && counter.send(()).is_ok() {}
        });
    }
    client.flush().await.context("failed to flush")
}

async fn fanout(reader: &Reader, ledger: &Ledger, counter: &mpsc::UnboundedSender<()>) -> Result<()> {
    let pin = Pin::new(reader.key.clone(), RING, BEACON);
    let client = Options::new(pin).connect([&reader.server]).await?;
    let subscribing = (0..ledger.assets()).map(|asset| {
        let (client, key) = (client.clone(), ledger.key(asset));
        async move { client.subscribe(&key).await }
    });
    for subscribed in futures::future::join_all(subscribing).await {
        let (mut subscription, counter) = (subscribed?, counter.clone());
        tokio::spawn(async move {
            // Nobody counts any more where that fails.
            while subscription.next().await.is_some() && counter.send(()).is_ok() {}
        });
    }
    Ok(())
}

fn tell(figures: &Value) -> Result<()> {
    writeln!(io::stdout(), "{figures}").context("failed to write the figures")
}
