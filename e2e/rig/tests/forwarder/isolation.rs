//! One of three clusters is away for long: the others do not notice, memory does not, and what was meant for it waits in Kafka.

use std::time::{Duration, Instant};

use e2e_rig::forwarder::{Forwarder, Metrics};
use e2e_rig::process::rss_bytes;
use e2e_rig::proxy::Proxy;
use e2e_rig::stage::{PUBLISHED, SOON, Stage};
use e2e_rig::wait;
use forwarder_core::document::{Config, PublishMode};

use crate::homes;

/// Records that may wait for a cluster: what it misses in a quarter of a second or less.
const CAP: usize = 2_000;

/// The share of what is sent to the healthy clusters that they confirm within a [`WINDOW`], in the median of all windows.
const KEPT: f64 = 0.95;

/// The same share in the worst window: a busy machine may halt the whole process for a while, an absent cluster may not.
const KEPT_AT_WORST: f64 = 0.5;

const WINDOW: Duration = Duration::from_secs(5);

const MIB: u64 = 1 << 20;

/// How long a cluster is away, and how much flows meanwhile.
#[derive(Clone, Copy)]
struct Outage {
    lasting: Duration,
    rate: u32,
}

const SHORT: Outage = Outage {
    lasting: Duration::from_secs(20),
    rate: 8_000,
};

const LONG: Outage = Outage {
    lasting: Duration::from_secs(60),
    rate: 16_000,
};

#[tokio::test]
async fn the_others_keep_their_rate_while_a_cluster_is_away() {
    others_keep_their_rate(SHORT).await;
}

#[tokio::test]
async fn long_the_others_keep_their_rate_while_a_cluster_is_away() {
    others_keep_their_rate(LONG).await;
}

#[tokio::test]
async fn a_restart_while_a_cluster_is_away_repeats_little() {
    restart_repeats_little(SHORT).await;
}

#[tokio::test]
async fn long_a_restart_while_a_cluster_is_away_repeats_little() {
    restart_repeats_little(LONG).await;
}

/// How far the healthy clusters C2 and C3 were at a time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// Records of their assets that were given to Kafka.
    sent: f64,
    confirmed: f64,
    rss: u64,
}

impl Sample {
    async fn of(stage: &Stage, forwarder: &mut Forwarder) -> Self {
        let metrics = forwarder.metrics().await.unwrap();
        Self {
            at: Instant::now(),
            sent: sent_to_healthy(stage),
            confirmed: confirmed_by_healthy(&metrics),
            rss: rss_bytes(forwarder.process().pid()).unwrap(),
        }
    }

    /// The confirmed share of what was sent since an earlier one. The clock is not asked: if the traffic itself halts for a moment, so does what
    /// the clusters must keep up with.
    fn kept_since(&self, earlier: &Self) -> f64 {
        (self.confirmed - earlier.confirmed) / (self.sent - earlier.sent)
    }
}

fn healthy(of: impl Fn(&str) -> f64) -> f64 {
    of("C2") + of("C3")
}

fn confirmed_by(metrics: &Metrics, cluster: &str) -> f64 {
    metrics.sum(PUBLISHED, &[("cluster", cluster)])
}

fn confirmed_by_healthy(metrics: &Metrics) -> f64 {
    healthy(|cluster| confirmed_by(metrics, cluster))
}

fn sent_to(stage: &Stage, cluster: &str) -> f64 {
    let (ring, ledger) = (homes::ring(&["C1", "C2", "C3"]), stage.traffic.ledger());
    (0..ledger.assets())
        .filter(|asset| ring.name(ring.owner(ledger.key(*asset).as_bytes())) == cluster)
        .map(|asset| f64::from(ledger.given(asset)))
        .sum()
}

fn sent_to_healthy(stage: &Stage) -> f64 {
    healthy(|cluster| sent_to(stage, cluster))
}

/// Samples of each second of a time.
async fn watch(stage: &Stage, forwarder: &mut Forwarder, lasting: Duration) -> Vec<Sample> {
    let until = Instant::now() + lasting;
    let mut samples = vec![Sample::of(stage, forwarder).await];
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(1)).await;
        samples.push(Sample::of(stage, forwarder).await);
    }
    samples
}

/// The shares that were kept in every window of a time, the least first.
fn kept_in_windows(samples: &[Sample]) -> Vec<f64> {
    let mut kept: Vec<f64> = samples
        .iter()
        .enumerate()
        .filter_map(|(place, first)| {
            let last = samples[place..].iter().find(|last| last.at - first.at >= WINDOW)?;
            Some(last.kept_since(first))
        })
        .collect();
    kept.sort_by(f64::total_cmp);
    kept
}

async fn stage() -> (Stage, Config, Proxy) {
    let stage = Stage::new(PublishMode::Core, 3).await;
    let (mut config, proxy) = stage.proxied().await;
    config.engine.max_pending_records_per_cluster = CAP;
    (stage, config, proxy)
}

async fn others_keep_their_rate(outage: Outage) {
    let (stage, config, proxy) = stage().await;
    let mut forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(outage.rate);
    stage.wait_published(&forwarder, f64::from(outage.rate)).await;
    proxy.cut().await.unwrap();
    let during = watch(&stage, &mut forwarder, outage.lasting).await;
    // While C1 is still away, all that was sent to each of the others by now arrives. What comes later for one says nothing of the other.
    let sent = ["C2", "C3"].map(|cluster| (cluster, sent_to(&stage, cluster)));
    wait::eventually(SOON, "C2 and C3 have caught up", || async {
        let metrics = forwarder.metrics().await?;
        for (cluster, sent) in sent {
            let confirmed = confirmed_by(&metrics, cluster);
            anyhow::ensure!(confirmed >= sent, "{cluster}: {confirmed} of {sent} records");
        }
        Ok(true)
    })
    .await
    .unwrap();
    proxy.heal().await.unwrap();
    let kept = kept_in_windows(&during);
    let (worst, median) = (kept[0], kept[kept.len() / 2]);
    assert!(
        median >= KEPT && worst >= KEPT_AT_WORST,
        "the healthy clusters kept a median of {median:.3} and at worst {worst:.3} of what was sent: {during:?}"
    );
    // Once the caps are reached and the rest is only remembered, nothing grows any more.
    let settled = during
        .iter()
        .filter(|sample| sample.at - during[0].at <= WINDOW)
        .map(|sample| sample.rss)
        .max();
    let (settled, most) = (settled.unwrap(), during.iter().map(|sample| sample.rss).max().unwrap());
    assert!(
        most <= settled + settled / 10 + 4 * MIB,
        "{} MiB, then {} MiB",
        settled / MIB,
        most / MIB
    );
    flow.stop().await.unwrap();
    let verdict = stage.verdict().await;
    verdict.check().unwrap();
    // Only what was on its way to C1 when it was cut off.
    assert!(verdict.repeated <= CAP as u64, "{verdict}");
}

async fn restart_repeats_little(outage: Outage) {
    let (stage, config, proxy) = stage().await;
    let mut first = stage.start("first", &config).await;
    let flow = stage.flow(outage.rate);
    stage.wait_published(&first, f64::from(outage.rate)).await;
    proxy.cut().await.unwrap();
    let away = Instant::now();
    tokio::time::sleep(outage.lasting / 2).await;
    let metrics = first.metrics().await.unwrap();
    let pending = healthy(|cluster| metrics.sum("asset_forwarder_pending_records", &[("cluster", cluster)]));
    first.kill9().unwrap();
    let second = stage.start("second", &config).await;
    // It catches up with what came while nobody ran, though C1 is still away.
    stage.wait_published(&second, f64::from(outage.rate)).await;
    tokio::time::sleep(outage.lasting.saturating_sub(away.elapsed())).await;
    proxy.heal().await.unwrap();
    flow.stop().await.unwrap();
    second.wait_metric(PUBLISHED, 1.0, SOON).await.unwrap();
    let verdict = stage.verdict().await;
    verdict.check().unwrap();
    // What was in flight, and what was confirmed since the last commit that the broker has taken: half a second of two of three clusters. What
    // was on the way to C1 when it was cut off comes on top.
    let uncommitted = f64::from(outage.rate) * 2.0 / 3.0 * 0.5;
    let bound = pending + uncommitted + CAP as f64;
    assert!(verdict.repeated as f64 <= bound, "more than {bound:.0}: {verdict}");
}
