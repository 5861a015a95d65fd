//! How fast the forwarder is, beside how fast the client libraries alone are on the same machine. Each is a process of its own, so that its
//! processor time and memory can be told.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use e2e_rig::forwarder::{self, Forwarder};
use e2e_rig::kafka::{Kafka, unique};
use e2e_rig::nats::Nats;
use e2e_rig::process::{Process, Spec};
use e2e_rig::traffic::{Plan, Traffic};
use forwarder_core::config::{PublishMode, Stream};
use serde_json::{Value, json};

mod limits;
mod pure;

const PARTITIONS: i32 = 12;
const ASSETS: u32 = 10_000;
const PUBLISHED: &str = "asset_forwarder_nats_messages_published_total";

/// No measurement is worth more.
const PATIENCE: Duration = Duration::from_secs(600);

/// How fast, against how fast the client libraries alone are.
#[derive(Debug, Parser)]
struct Cli {
    /// One line of JSON for each figure.
    #[arg(long)]
    json: bool,
    /// Records per measurement.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    #[command(subcommand)]
    limit: Option<Limit>,
}

/// The yardsticks, each run by the benchmark as a process of its own.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
enum Limit {
    Consume { bootstrap: String, topic: String },
    PublishCore { servers: Vec<String> },
    PublishJetstream { servers: Vec<String> },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.limit {
        None => measure(&cli).await,
        Some(limit) => limits::run(limit, cli.records).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

struct Report {
    json: bool,
}

impl Report {
    fn figure(&self, name: &str, value: f64, unit: &str) -> Result<()> {
        let mut out = io::stdout();
        if self.json {
            writeln!(out, "{}", json!({"name": name, "value": value, "unit": unit}))?;
        } else {
            writeln!(out, "{name:32} {value:>14.2} {unit}")?;
        }
        Ok(())
    }

    fn measured(&self, name: &str, records: u64, seconds: f64, cpu: f64) -> Result<()> {
        let records = records as f64;
        self.figure(name, records / seconds, "records/s")?;
        self.figure(&format!("{name}_cpu"), cpu / records * 1e6, "CPU s/1M records")
    }
}

async fn measure(cli: &Cli) -> Result<()> {
    let report = Report { json: cli.json };
    report.figure("edit_ns", pure::edit()?, "ns")?;
    report.figure("ring_ns", pure::ring()?, "ns")?;
    let kafka = Kafka::start_with(e2e_rig::kafka::Options {
        heap_mb: 1024,
        ..Default::default()
    })
    .await?;
    let topic = kafka.topic("bench", PARTITIONS).await?;
    let traffic = Traffic::new(
        kafka.bootstrap(),
        &topic,
        Plan {
            assets: ASSETS,
            ..Plan::default()
        },
    )?;
    traffic.send(cli.records).await.context("failed to preload the topic")?;
    drop(traffic);

    let consume = ["consume".to_owned(), kafka.bootstrap().to_owned(), topic.clone()];
    limit(&report, "limit_consume", cli.records, &consume).await?;
    for (name, task) in [
        ("limit_publish_core", "publish-core"),
        ("limit_publish_jetstream", "publish-jetstream"),
    ] {
        let (one, two) = (Nats::start().await?, Nats::start().await?);
        limit(&report, name, cli.records, &[task.to_owned(), one.url(), two.url()]).await?;
    }
    let mut rss = 0;
    for (name, mode) in [
        ("forward_core", PublishMode::Core),
        ("forward_jetstream", PublishMode::JetStream),
    ] {
        rss = rss.max(forward(&report, name, mode, &kafka, &topic, cli.records).await?);
    }
    // Of the forwarder; the larger of its two runs.
    report.figure("rss_peak_mb", rss as f64 / 1e6, "MB")
}

/// Runs a yardstick and passes its figures on.
async fn limit(report: &Report, name: &str, records: u64, args: &[String]) -> Result<()> {
    let dir = tempfile::tempdir().context("failed to make a directory")?;
    let own = std::env::current_exe().context("failed to ask for this executable's path")?;
    let spec = Spec::new(name, own, dir.path().join("log"))
        .args(["--records", &records.to_string()])
        .args(args);
    let mut process = Process::start(spec)?;
    let status = process.wait_exit(PATIENCE)?;
    if !status.success() {
        bail!("{name} failed ({status})\n{}", process.log_tail());
    }
    let log = process.log()?;
    let line: Value = serde_json::from_str(log.lines().last().unwrap_or_default())
        .with_context(|| format!("{name} did not end with its figures: {log}"))?;
    let figure = |of: &str| {
        line.get(of)
            .and_then(Value::as_f64)
            .with_context(|| format!("{name} said no {of}: {line}"))
    };
    report.measured(name, records, figure("seconds")?, figure("cpu")?)
}

/// From the first to the last confirmation, as the forwarder itself counts them. Returns the forwarder's peak memory in bytes.
async fn forward(
    report: &Report,
    name: &str,
    mode: PublishMode,
    kafka: &Kafka,
    topic: &str,
    records: u64,
) -> Result<u64> {
    let (one, two) = (Nats::start().await?, Nats::start().await?);
    let mut config = forwarder::config(kafka, topic, &unique(name), &[("c1", &one), ("c2", &two)]);
    config.publish.mode = mode;
    if mode == PublishMode::JetStream {
        config.publish.subject = "assets.{key}.{id}".to_owned();
        // What is left out has its default: the type's own, not one of the benchmark.
        let stream: Stream = serde_json::from_value(json!({"name": "assets", "manage": true}))?;
        config.publish.stream = Some(stream);
    }
    let mut forwarder = Forwarder::start(&config)?;
    let mut first: Option<(Instant, f64)> = None;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = forwarder.process().try_exit()? {
            bail!("the forwarder ended ({status})\n{}", forwarder.process().log_tail());
        }
        if Instant::now() > deadline {
            bail!(
                "the forwarder did not confirm {records} records within {PATIENCE:?}\n{}",
                forwarder.process().log_tail()
            );
        }
        // Not up yet: no answer.
        let confirmed = forwarder.metrics().await.map_or(0.0, |page| page.sum(PUBLISHED, &[]));
        if confirmed > 0.0 && first.is_none() {
            first = Some((Instant::now(), confirmed));
        }
        if let Some((since, already)) = first
            && confirmed >= records as f64
        {
            let share = (records as f64 - already).max(1.0);
            let seconds = since.elapsed().as_secs_f64() * records as f64 / share;
            let cpu = forwarder.process().cpu_seconds()?;
            report.measured(name, records, seconds, cpu)?;
            return forwarder.process().peak_rss_bytes();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
