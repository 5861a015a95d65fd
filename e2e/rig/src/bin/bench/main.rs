//! How fast the forwarder is, beside how fast the client libraries alone are on the same machine. Each is a process of its own, so that its
//! processor time and memory can be told. Measurements take turns, so that what else the machine does hits all of them alike.
//! With `--operator` it is the operator that is measured: see `operator.rs`. With `--subscribers` it is their client: see `subscribers.rs`.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use e2e_rig::kafka::Kafka;
use e2e_rig::nats::Nats;
use e2e_rig::process::{Process, Spec};
use e2e_rig::traffic::{Plan, Traffic};
use forwarder_core::document::PublishMode;
use serde_json::Value;

use self::figures::{Figures, Run, say};

mod figures;
mod forward;
mod limits;
mod operator;
mod pure;
mod scale;
mod subscribers;

const PARTITIONS: i32 = 12;
const ASSETS: u32 = 10_000;

/// No measurement is worth more.
const PATIENCE: Duration = Duration::from_secs(600);

/// How fast, against how fast the client libraries alone are: 1M records of 300 bytes, 12 partitions, 10,000 assets, two clusters.
#[derive(Debug, Parser)]
#[command(after_help = "\
Figures, each the median of its runs:
  edit_ns, ring_ns           one payload edit, one look-up in the ring
  limit_consume              librdkafka alone: the plainest program that reads the topic
  limit_publish_core         async-nats alone: the plainest program that publishes, no headers
  limit_publish_jetstream    the same with acks, 4,096 in flight; same stream and header as the forwarder's
  forward_core, forward_jetstream
                             the forwarder, from its first to its last confirmation
  …_cpu                      processor time of that process, in seconds for 1M records
  rss_peak_mb                the forwarder's largest resident memory in any run
  latency_core_p99_ms, latency_jetstream_p99_ms
                             from Kafka to the confirmation, by the forwarder's own histogram, at 20,000 records/s offered
With --scale, one run each:
  scale_ring_ns              a look-up in a ring of 1,000 clusters, 1M keys
  scale_clusters_{1,2,4,8}   records/s in core mode
  scale_value_{100,1k,10k,100k}
                             records/s by size of the value in bytes; …_mb: MB/s
With --subscribers, of the client in Rust in place of all that, 10,000 assets:
  subscriber_plain_cpu, subscriber_fanout_cpu, subscriber_cpu_ratio
                             plain async-nats and the client read the same records at the same time, a subscription per asset
  subscriber_plain_bytes, subscriber_fanout_bytes
                             resident memory that a subscription takes
  subscriber_move_s          from the declaration of a ring until all subscriptions are proved on their new side
With --operator, of the operator in place of all that, one run, forwarders without pods:
  operator_loop_s            a plain loop applies (server-side, 32 at a time) what the operator makes for all forwarders
  operator_made_s, operator_made_ratio
                             from the first forwarder's creation until all are Ready; beside the loop
  operator_requests          requests for each of them, watches and the Lease aside
  operator_settled_writes, operator_settled_reads
                             requests in 60 s of rest, watches and the Lease aside
  operator_join_s            from the creation of a cluster until the last forwarder has it in its ring
  operator_ring_rss_mb, …_peak_mb
                             memory of an operator of all namespaces, with rings of 30 clusters
  operator_crowd_rss_mb, …_peak_mb
                             the same with all objects (--objects) and foreign Secrets (--secrets)")]
struct Cli {
    /// One line of JSON for each figure.
    #[arg(long)]
    json: bool,
    /// Records per measurement.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// How often limits, forwarder and latency are measured, in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Only figures whose name begins so; may be given several times.
    #[arg(long, value_name = "PREFIX")]
    only: Vec<String>,
    /// The figures that say how it scales as well.
    #[arg(long)]
    scale: bool,
    /// The operator instead, on a cluster of its own.
    #[arg(long, conflicts_with_all = ["records", "runs", "scale"])]
    operator: bool,
    /// The clients for subscribers instead.
    #[arg(long, conflicts_with_all = ["operator", "scale"])]
    subscribers: bool,
    #[command(flatten)]
    counts: operator::Counts,
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
    SubscribePlain(subscribers::Reader),
    SubscribeFanout(subscribers::Reader),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.limit {
        None if cli.operator => operator::run(cli.counts, &mut Figures::new(cli.json, cli.only.clone())).await,
        None if cli.subscribers => {
            let mut figures = Figures::new(cli.json, cli.only.clone());
            let measured = subscribers::measure(&mut figures, cli.records, cli.runs).await;
            measured.map(|()| ExitCode::SUCCESS)
        }
        None => measure(&cli).await.map(|()| ExitCode::SUCCESS),
        Some(limit @ (Limit::SubscribePlain(_) | Limit::SubscribeFanout(_))) => {
            let done = subscribers::run(limit, cli.records).await;
            done.map(|()| ExitCode::SUCCESS)
        }
        Some(limit) => limits::run(limit, cli.records).await.map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

const LIMITS: [&str; 3] = ["limit_consume", "limit_publish_core", "limit_publish_jetstream"];
const FORWARDS: [(&str, PublishMode); 2] = [
    ("forward_core", PublishMode::Core),
    ("forward_jetstream", PublishMode::JetStream),
];
const LATENCIES: [(&str, PublishMode); 2] = [
    ("latency_core_p99_ms", PublishMode::Core),
    ("latency_jetstream_p99_ms", PublishMode::JetStream),
];

async fn measure(cli: &Cli) -> Result<()> {
    let mut figures = Figures::new(cli.json, cli.only.clone());
    if figures.wants(&["edit_ns"]) {
        figures.add("edit_ns", pure::edit()?, "ns");
    }
    if figures.wants(&["ring_ns"]) {
        figures.add("ring_ns", pure::ring()?, "ns");
    }
    figures.print()?;
    // What needs no server starts none.
    let mut runs = LIMITS.into_iter().chain(FORWARDS.map(|(name, _)| name));
    let mut others = LATENCIES.map(|(name, _)| name).into_iter().chain(["rss_peak_mb"]);
    if !(cli.scale || runs.any(|name| figures.wants_run(name)) || others.any(|name| figures.wants(&[name]))) {
        return Ok(());
    }
    let kafka = Kafka::start_with(e2e_rig::kafka::Options {
        heap_mb: 1024,
        ..Default::default()
    })
    .await?;
    let topic = kafka.topic("bench", PARTITIONS).await?;
    let plan = Plan {
        assets: ASSETS,
        ..Plan::default()
    };
    say("filling the topic");
    let sent = Traffic::new(kafka.bootstrap(), &topic, plan)?.send(cli.records).await;
    sent.context("failed to preload the topic")?;

    let mut rss = 0;
    for run in 1..=cli.runs {
        for (number, (name, mode)) in FORWARDS.into_iter().enumerate() {
            say(&format!("run {run} of {}: {name} and its limits", cli.runs));
            if number == 0 {
                let args = ["consume".to_owned(), kafka.bootstrap().to_owned(), topic.clone()];
                limit(&mut figures, "limit_consume", cli.records, &args).await?;
            }
            let (limit_name, task) = match mode {
                PublishMode::Core => ("limit_publish_core", "publish-core"),
                PublishMode::JetStream => ("limit_publish_jetstream", "publish-jetstream"),
            };
            if figures.wants_run(limit_name) {
                let (one, two) = (Nats::start().await?, Nats::start().await?);
                let args = [task.to_owned(), one.url(), two.url()];
                limit(&mut figures, limit_name, cli.records, &args).await?;
            }
            if figures.wants_run(name) || figures.wants(&["rss_peak_mb"]) {
                let run = forward::drain(mode, &kafka, &topic, 2, cli.records).await?;
                figures.add_run(name, cli.records, &run);
                rss = rss.max(run.peak_rss);
            }
        }
        for (name, mode) in LATENCIES {
            if figures.wants(&[name]) {
                say(&format!("run {run} of {}: {name}", cli.runs));
                figures.add(name, forward::latency(mode, &kafka).await?, "ms");
            }
        }
    }
    if rss > 0 {
        figures.add("rss_peak_mb", rss as f64 / 1e6, "MB");
    }
    figures.print()?;
    if cli.scale {
        scale::measure(&mut figures, &kafka, &topic, cli.records).await?;
    }
    Ok(())
}

/// Runs a yardstick, if it is asked for.
async fn limit(figures: &mut Figures, name: &str, records: u64, args: &[String]) -> Result<()> {
    if !figures.wants_run(name) {
        return Ok(());
    }
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
    let run = Run {
        seconds: figure("seconds")?,
        cpu: figure("cpu")?,
        peak_rss: 0,
    };
    figures.add_run(name, records, &run);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_counts_are_those_of_the_operators_benchmark() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["bench"]).is_ok());
        assert!(Cli::try_parse_from(["bench", "--operator", "--forwarders", "50", "--objects", "500"]).is_ok());
        assert!(Cli::try_parse_from(["bench", "--forwarders", "50"]).is_err());
        assert!(Cli::try_parse_from(["bench", "--operator", "--scale"]).is_err());
    }
}
