//! The forwarder under load, as a process of its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use e2e_rig::forwarder::{self, Forwarder};
use e2e_rig::kafka::{Kafka, unique};
use e2e_rig::nats::Nats;
use e2e_rig::traffic::{Amount, Plan, Traffic};
use forwarder_core::document::{Config, PublishMode, Stream};
use serde_json::json;

use crate::figures::Run;
use crate::{ASSETS, PARTITIONS, PATIENCE};

const PUBLISHED: &str = "asset_forwarder_nats_messages_published_total";
const CONFIRMED: &str = "asset_forwarder_confirmed_latency_seconds";

/// The stream of JetStream mode, and its subjects.
pub(crate) const STREAM: &str = "assets";
pub(crate) const SUBJECTS: &str = "assets.>";

/// What latency is measured at, in records per second.
const OFFERED: u32 = 20_000;
/// Joining the group, connecting and the first record of each subject, which its lane waits for, are no part of the latency.
const WARM_UP: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(10);

/// The stream as it is declared to the forwarder. What is left out has its default: the type's own, not one of the benchmark.
pub(crate) fn stream() -> Result<Stream> {
    Ok(serde_json::from_value(json!({"name": STREAM, "manage": true}))?)
}

/// Forwards a topic that holds so many records. The time is from the first to the last confirmation, as the forwarder itself counts them.
pub(crate) async fn drain(mode: PublishMode, kafka: &Kafka, topic: &str, clusters: usize, records: u64) -> Result<Run> {
    let servers = Servers::start(clusters).await?;
    let mut forwarder = Forwarder::start(&servers.config(mode, kafka, topic)?)?;
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
            return Ok(Run {
                seconds: since.elapsed().as_secs_f64() * records as f64 / share,
                cpu: forwarder.process().cpu_seconds()?,
                peak_rss: forwarder.process().peak_rss_bytes()?,
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The 99th percentile of the time from taking a record from Kafka to its confirmation, in milliseconds, at 20,000 records per second offered.
///
/// It is the forwarder's own histogram that is read, interpolated within its bucket: between 5 and 30 ms its bounds are at most 5 ms apart. What
/// an observer sees would add the producer's batching, which is not the forwarder's doing, and the observer's own place on the processor.
pub(crate) async fn latency(mode: PublishMode, kafka: &Kafka) -> Result<f64> {
    let topic = kafka.topic(&unique("latency"), PARTITIONS).await?;
    let servers = Servers::start(2).await?;
    let mut forwarder = Forwarder::start(&servers.config(mode, kafka, &topic)?)?;
    forwarder.wait_ready().await?;
    let plan = Plan {
        assets: ASSETS,
        ..Plan::default()
    };
    let flow = Traffic::new(kafka.bootstrap(), &topic, plan)?.start(Amount {
        rate: Some(OFFERED),
        ..Amount::default()
    })?;
    tokio::time::sleep(WARM_UP).await;
    let before = forwarder.metrics().await?;
    let started = Instant::now();
    tokio::time::sleep(MEASURED).await;
    let after = forwarder.metrics().await?.since(&before);
    let rate = after.sum(PUBLISHED, &[]) / started.elapsed().as_secs_f64();
    flow.stop().await?;
    if rate < 0.9 * f64::from(OFFERED) {
        bail!("only {rate:.0} records per second were forwarded: {OFFERED} were meant to be offered");
    }
    let quantile = after.quantile(CONFIRMED, 0.99).context("no latency was measured")?;
    Ok(quantile * 1e3)
}

/// The NATS servers of one measurement.
struct Servers(Vec<(String, Nats)>);

impl Servers {
    async fn start(clusters: usize) -> Result<Self> {
        let mut servers = Vec::new();
        for number in 1..=clusters {
            servers.push((format!("c{number}"), Nats::start().await?));
        }
        Ok(Self(servers))
    }

    fn config(&self, mode: PublishMode, kafka: &Kafka, topic: &str) -> Result<Config> {
        let clusters: Vec<_> = self.0.iter().map(|(name, nats)| (name.as_str(), nats)).collect();
        let mut config = forwarder::config(kafka, topic, &unique("bench"), &clusters);
        config.publish.mode = mode;
        if mode == PublishMode::JetStream {
            config.publish.subject = "assets.{key}.{id}".to_owned();
            config.publish.stream = Some(stream()?);
        }
        Ok(config)
    }
}
