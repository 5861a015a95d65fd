//! Seeded random faults: a few seconds of traffic each, then nothing may be missing or out of order.

mod plan;

use std::collections::BTreeSet;
use std::thread;
use std::time::Instant;

use anyhow::ensure;
use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::Kafka;
use e2e_rig::proxy::Proxy;
use e2e_rig::stage::{SOON, Stage};
use e2e_rig::traffic::{Amount, read_value};
use forwarder_core::document::{Config, GroupProtocol, PublishMode};

use self::plan::{Act, Plan, Step};
use crate::homes;

/// Seeds of the run that everybody waits for.
const SHORT: u64 = 40;

/// Replays one seed: the block that is run then runs this one alone.
const SEED: &str = "FANOUT_E2E_SEED";

/// Blocks of seeds: several run at a time, and each is done within a test's time.
macro_rules! blocks {
    ($($name:ident: $seeds:expr,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                run_all($seeds).await;
            }
        )*
    };
}

blocks! {
    seeds_from_0: 0..5,
    seeds_from_5: 5..10,
    seeds_from_10: 10..15,
    seeds_from_15: 15..20,
    seeds_from_20: 20..25,
    seeds_from_25: 25..30,
    seeds_from_30: 30..35,
    seeds_from_35: 35..SHORT,
}

blocks! {
    long_seeds_from_40: SHORT..80,
    long_seeds_from_80: 80..120,
    long_seeds_from_120: 120..160,
    long_seeds_from_160: 160..200,
    long_seeds_from_200: 200..240,
    long_seeds_from_240: 240..280,
    long_seeds_from_280: 280..320,
    long_seeds_from_320: 320..360,
    long_seeds_from_360: 360..400,
    long_seeds_from_400: 400..440,
    long_seeds_from_440: 440..480,
    long_seeds_from_480: 480..520,
    long_seeds_from_520: 520..560,
    long_seeds_from_560: 560..600,
    long_seeds_from_600: 600..640,
    long_seeds_from_640: 640..680,
    long_seeds_from_680: 680..720,
    long_seeds_from_720: 720..760,
    long_seeds_from_760: 760..800,
    long_seeds_from_800: 800..840,
    long_seeds_from_840: 840..880,
    long_seeds_from_880: 880..920,
    long_seeds_from_920: 920..960,
    long_seeds_from_960: 960..1000,
}

/// Says how to come back to a run that failed.
struct Replay<'a>(&'a Plan);

impl Drop for Replay<'_> {
    #[expect(clippy::print_stderr, reason = "a failed test's output is all that is left of it")]
    fn drop(&mut self) {
        if thread::panicking() {
            let Self(plan) = self;
            eprintln!(
                "\n{plan}replay it: {SEED}={} cargo e2e test forwarder -- random::seeds_from_0\n",
                plan.seed
            );
        }
    }
}

async fn run_all(seeds: std::ops::Range<u64>) {
    let seeds = match std::env::var(SEED) {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => seeds,
    };
    for seed in seeds {
        let plan = Plan::new(seed);
        let _replay = Replay(&plan);
        Run::start(&plan).await.go().await;
    }
}

/// All that a plan needs, running.
struct Run<'a> {
    plan: &'a Plan,
    stage: Stage,
    proxies: Vec<Proxy>,
    forwarders: Vec<Forwarder>,
    /// What a forwarder that joins is started with.
    config: Config,
}

impl<'a> Run<'a> {
    async fn start(plan: &'a Plan) -> Self {
        let kafka = if plan.restarts_kafka() {
            Kafka::start().await
        } else {
            Kafka::shared().await
        };
        let stage = Stage::with(kafka.unwrap(), plan.mode, plan.clusters).await;
        let mut proxies = Vec::new();
        for (_, nats) in &stage.clusters {
            proxies.push(Proxy::start(&nats.address()).await.unwrap());
        }
        let config = config(plan, &stage, &proxies);
        let mut forwarders = Vec::new();
        for place in 0..plan.forwarders {
            forwarders.push(Forwarder::start_as(&format!("forwarder {place}"), &config).unwrap());
        }
        for forwarder in &mut forwarders {
            forwarder.wait_ready().await.unwrap();
        }
        Self {
            plan,
            stage,
            proxies,
            forwarders,
            config,
        }
    }

    async fn go(mut self) {
        let amount = Amount {
            rate: Some(self.plan.rate),
            lasting: Some(self.plan.traffic),
            ..Amount::default()
        };
        let flow = self.stage.traffic.start(amount).unwrap();
        let started = Instant::now();
        for Step { at, act } in &self.plan.steps {
            tokio::time::sleep(at.saturating_sub(started.elapsed())).await;
            self.perform(*act).await.unwrap();
        }
        flow.finish().await.unwrap();
        self.stage.wait_committed().await;
        let rings: Vec<Vec<&str>> = self
            .plan
            .rings
            .iter()
            .map(|ring| {
                ring.iter()
                    .map(|place| self.stage.clusters[*place].0.as_str())
                    .collect()
            })
            .collect();
        let tally = self.stage.tally_at(homes::of(&rings)).await;
        let verdict = tally.verdict(&self.stage.traffic.ledger());
        match self.plan.mode {
            PublishMode::Core => verdict.check().unwrap(),
            // Whatever is sent again, the stream knows: but not the stream of another cluster, where an asset that moves goes on.
            PublishMode::JetStream if rings.len() > 1 => {
                verdict.check().unwrap();
                self.check_streams().await;
            }
            PublishMode::JetStream => verdict.check_exactly_once().unwrap(),
        }
        for forwarder in &mut self.forwarders {
            let ended = forwarder.process().try_exit().unwrap();
            assert_eq!(ended, None, "a forwarder ended by itself");
        }
    }

    /// No stream has a record twice.
    async fn check_streams(&self) {
        for cluster in 0..self.stage.clusters.len() {
            let mut seen = BTreeSet::new();
            for message in self.stage.stored(cluster).await {
                let (key, number, _) = read_value(&message.payload).unwrap();
                let first = seen.insert((key.to_owned(), number));
                assert!(first, "cluster {cluster} has record {number} of {key} twice");
            }
        }
    }

    async fn perform(&mut self, act: Act) -> anyhow::Result<()> {
        let Self {
            plan,
            stage,
            proxies,
            forwarders,
            config,
        } = self;
        match act {
            Act::Cut(place) => proxies[place].cut().await,
            Act::Reset(place) => proxies[place].reset().await,
            Act::Heal(place) => proxies[place].heal().await,
            Act::Stall(place) => {
                proxies[place].stall();
                Ok(())
            }
            Act::StallAnswers(place) => {
                proxies[place].stall_answers();
                Ok(())
            }
            Act::PauseServer(place) => stage.clusters[place].1.pause(),
            Act::ResumeServer(place) => stage.clusters[place].1.resume(),
            Act::KillServer(place) => stage.clusters[place].1.kill9(),
            Act::StartServer(place) => stage.clusters[place].1.start_again().await,
            Act::KillForwarder(place) => forwarders[place].kill9(),
            Act::StopForwarder(place) => forwarders[place].process().terminate(),
            Act::StartForwarder(place) => {
                // Told to end, it may still be at it.
                let ended = forwarders[place].wait_exit(SOON).await?;
                ensure!(ended.code().is_none_or(|code| code == 0), "{ended}");
                forwarders[place].start_again()
            }
            Act::Join => {
                let name = format!("forwarder {}", forwarders.len());
                forwarders.push(Forwarder::start_as(&name, config)?);
                Ok(())
            }
            Act::PauseForwarder(place) => forwarders[place].pause(),
            Act::ResumeForwarder(place) => forwarders[place].resume(),
            Act::ChangeRing(ring) => {
                let whole = self::config(plan, stage, proxies).ring.clusters;
                config.ring.epoch = ring as u64 + 1;
                config.ring.clusters = plan.rings[ring].iter().map(|place| whole[*place].clone()).collect();
                forwarders
                    .iter()
                    .try_for_each(|forwarder| forwarder.declare_ring(&config.ring))
            }
            Act::RestartKafka => stage.kafka.restart().await,
        }
    }
}

/// The first ring, each cluster behind its proxy, and timeouts that fit into a few seconds.
fn config(plan: &Plan, stage: &Stage, proxies: &[Proxy]) -> Config {
    let mut config = stage.config();
    for (cluster, proxy) in config.ring.clusters.iter_mut().zip(proxies) {
        cluster.servers = vec![proxy.nats_url()];
    }
    config.source.protocol = plan.protocol;
    let properties = &mut config.source.connection.properties;
    if plan.protocol == GroupProtocol::Consumer {
        // The broker sets session and heartbeat.
        properties.clear();
    }
    properties.insert("reconnect.backoff.max.ms".to_owned(), "500".to_owned());
    config.publish.retry.confirm_timeout_ms = 1_000;
    config.publish.retry.max_backoff_ms = 500;
    config.engine.max_pending_records_per_cluster = plan.cap;
    config.engine.drain_timeout_ms = 2_000;
    config
}
