//! One of three clusters is away for long: the others do not notice, memory does not, and what was meant for it waits in Kafka.

use std::time::{Duration, Instant};

use e2e_rig::forwarder::Forwarder;
use e2e_rig::process::rss_bytes;
use e2e_rig::proxy::Proxy;
use e2e_rig::stage::{PUBLISHED, SOON, Stage};
use forwarder_core::config::{Config, PublishMode};

/// Records that may wait for a cluster: what it misses in a quarter of a second or less.
const CAP: usize = 2_000;

/// The share of their rate that the healthy clusters keep, over every [`WINDOW`].
const KEPT: f64 = 0.95;

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

/// What the healthy clusters C2 and C3 had confirmed at a time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    confirmed: f64,
    rss: u64,
}

impl Sample {
    async fn of(forwarder: &mut Forwarder) -> Self {
        let metrics = forwarder.metrics().await.unwrap();
        Self {
            at: Instant::now(),
            confirmed: healthy(|cluster| metrics.sum(PUBLISHED, &[("cluster", cluster)])),
            rss: rss_bytes(forwarder.process().pid()).unwrap(),
        }
    }

    /// Records per second since an earlier one.
    fn rate_since(&self, earlier: &Self) -> f64 {
        (self.confirmed - earlier.confirmed) / (self.at - earlier.at).as_secs_f64()
    }
}

fn healthy(of: impl Fn(&str) -> f64) -> f64 {
    of("C2") + of("C3")
}

/// Samples of each second of a time.
async fn watch(forwarder: &mut Forwarder, lasting: Duration) -> Vec<Sample> {
    let until = Instant::now() + lasting;
    let mut samples = vec![Sample::of(forwarder).await];
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(1)).await;
        samples.push(Sample::of(forwarder).await);
    }
    samples
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
    let before = watch(&mut forwarder, WINDOW).await;
    let rate = before.last().unwrap().rate_since(&before[0]);
    proxy.cut().await.unwrap();
    let during = watch(&mut forwarder, outage.lasting).await;
    proxy.heal().await.unwrap();
    for (place, first) in during.iter().enumerate() {
        let Some(last) = during[place..].iter().find(|last| last.at - first.at >= WINDOW) else {
            break;
        };
        let kept = last.rate_since(first) / rate;
        assert!(
            kept >= KEPT,
            "from second {place} on only {:.1} % of {rate:.0}/s: {during:?}",
            kept * 100.0
        );
    }
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
