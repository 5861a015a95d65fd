//! The demo without Kubernetes: Kafka, NATS clusters, two forwarders and live traffic. On the way a fourth cluster joins the ring, a forwarder is killed,
//! and a cluster leaves the ring; the last line says what that did to the records.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use e2e_rig::forwarder::{self, BEACON, Forwarder, Metrics};
use e2e_rig::interrupts::Interrupts;
use e2e_rig::kafka::{Kafka, unique};
use e2e_rig::nats::Nats;
use e2e_rig::observer::Observer;
use e2e_rig::traffic::{Amount, Flow, Plan, Traffic};
use fanout_client::Pin;
use nkeys::KeyPair;
use tempfile::TempDir;

use crate::rings::Rings;
use crate::subscribers::{self, Subscribers};
use crate::view::View;
use crate::{Cli, QUIET};

/// The last one joins on the way.
const CLUSTERS: [&str; 4] = ["hall-a", "hall-b", "hall-c", "hall-d"];
/// It leaves on the way.
const LEAVES: &str = "hall-b";
const PARTITIONS: i32 = 12;
/// What tells this ring from others.
const RING: &str = "the-ring-of-the-demo";
/// How long subscribers have to learn of a ring.
const GRACE: Duration = Duration::from_secs(3);

pub(crate) async fn run(cli: &Cli) -> Result<ExitCode> {
    let mut interrupts = Interrupts::new()?;
    let view = View::new(&CLUSTERS);
    let plant = tokio::select! {
        plant = Plant::start(cli, &view) => plant?,
        // What had started is dropped, and ends.
        () = interrupts.next() => return Ok(ExitCode::from(130)),
    };
    plant.work(cli, view, interrupts).await
}

struct Plant {
    // In the order in which they end: first those who use the others.
    flow: Flow,
    traffic: Traffic,
    forwarders: Vec<Forwarder>,
    rings: Rings,
    observer: Observer,
    subscribers: Subscribers,
    _nats: Vec<Nats>,
    kafka: Kafka,
    /// Holds the key of the beacon.
    _dir: TempDir,
}

impl Plant {
    async fn start(cli: &Cli, view: &View) -> Result<Self> {
        view.say("starting Kafka and four NATS clusters, of which three are in the ring");
        let kafka = Kafka::start().await?;
        let mut nats = Vec::new();
        for _ in CLUSTERS {
            nats.push(Nats::start().await?);
        }
        let named: Vec<(&str, &Nats)> = CLUSTERS.into_iter().zip(&nats).collect();
        let topic = kafka.topic("ofa_assets", PARTITIONS).await?;
        let traffic = Traffic::new(
            kafka.bootstrap(),
            &topic,
            Plan {
                assets: cli.assets,
                ..Plan::default()
            },
        )?;
        let observer = Observer::live(&named, traffic.ledger()).await?;

        view.say("starting two forwarders");
        let mut config = forwarder::config(&kafka, &topic, &unique("demo"), &named);
        let dir = tempfile::tempdir().context("failed to make a directory")?;
        let (key, key_file) = (KeyPair::new_user(), dir.path().join("beacon"));
        fs::write(&key_file, key.seed()?).context("failed to write the key of the beacon")?;
        config.ring.beacon = Some(forwarder::beacon(&key_file, RING, GRACE));
        config.publish.headers.origin = true;
        let rings = Rings::new(config, traffic.ledger(), cli.assets, &CLUSTERS[..3])?;
        let config = rings.config();
        let mut forwarders = vec![
            Forwarder::start_as("forwarder-1", config)?,
            Forwarder::start_as("forwarder-2", config)?,
        ];
        for forwarder in &mut forwarders {
            forwarder.wait_ready().await?;
        }
        view.say(&format!(
            "{} subscribers begin, each to follow one asset",
            cli.subscribers
        ));
        let servers: Vec<String> = nats.iter().take(3).map(Nats::url).collect();
        let pin = Pin::new(key.public_key(), RING, BEACON);
        let subscribers = Subscribers::begin(pin, &servers, traffic.ledger(), cli.subscribers, &CLUSTERS).await?;
        let amount = Amount {
            rate: Some(cli.rate),
            lasting: Some(cli.lasting()),
            records: None,
        };
        view.say(&format!(
            "sending {} records/s of {} assets for {:?}",
            cli.rate,
            cli.assets,
            cli.lasting()
        ));
        let flow = traffic.start(amount)?;
        Ok(Self {
            flow,
            traffic,
            forwarders,
            rings,
            observer,
            subscribers,
            _nats: nats,
            kafka,
            _dir: dir,
        })
    }

    async fn work(mut self, cli: &Cli, mut view: View, mut interrupts: Interrupts) -> Result<ExitCode> {
        let started = Instant::now();
        let ledger = self.traffic.ledger();
        let mut tick = tokio::time::interval(view.period());
        let mut steps = Step::ALL.into_iter().peekable();
        let mut interrupted = false;
        while started.elapsed() < cli.lasting() && !interrupted {
            tokio::select! {
                _ = tick.tick() => view.draw(&self.observer, &ledger, &pages(&self.forwarders).await, &self.subscribers),
                () = interrupts.next() => interrupted = true,
            }
            if let Some(step) = steps.next_if(|step| started.elapsed() >= cli.lasting() * step.at() / 10) {
                self.take(step, &view).await?;
            }
        }
        if !interrupted {
            self.rings.report(&self.observer, &view);
        }
        view.say(if interrupted {
            "interrupted: sending stops, what is on the way arrives"
        } else {
            "sending is over; what is on the way arrives"
        });
        let stopped = if interrupted {
            self.flow.stop().await
        } else {
            self.flow.finish().await
        };
        stopped.with_context(|| format!("the traffic to {} failed", self.kafka.bootstrap()))?;
        let drain = async {
            loop {
                tick.tick().await;
                view.draw(
                    &self.observer,
                    &ledger,
                    &pages(&self.forwarders).await,
                    &self.subscribers,
                );
            }
        };
        let verdict = tokio::select! {
            verdict = self.observer.settle(QUIET) => verdict?,
            () = drain => return Err(anyhow!("the drain ended by itself")),
            // Whoever asks twice does not want to wait: the verdict so far.
            () = interrupts.next() => self.observer.verdict()?,
        };
        let followed = self.subscribers.settle().await;
        view.close(&verdict, followed.as_ref());
        Ok(
            if verdict.check().is_ok() && subscribers::check(followed.as_ref()).is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            },
        )
    }
}

/// What happens on the way.
#[derive(Clone, Copy)]
enum Step {
    Join,
    Kill,
    Leave,
}

impl Step {
    const ALL: [Self; 3] = [Self::Join, Self::Kill, Self::Leave];

    /// After how many tenths of the time.
    fn at(self) -> u32 {
        match self {
            Self::Join => 2,
            Self::Kill => 4,
            Self::Leave => 7,
        }
    }
}

impl Plant {
    async fn take(&mut self, step: Step, view: &View) -> Result<()> {
        match step {
            Step::Join => {
                self.rings
                    .change(&CLUSTERS, &self.forwarders, &self.observer, view)
                    .await
            }
            Step::Leave => {
                // What the join has moved must be told before more moves.
                self.rings.report(&self.observer, view);
                let stay: Vec<&str> = CLUSTERS.into_iter().filter(|name| *name != LEAVES).collect();
                self.rings.change(&stay, &self.forwarders, &self.observer, view).await
            }
            Step::Kill => self.kill(view),
        }
    }

    fn kill(&mut self, view: &View) -> Result<()> {
        let victim = self
            .forwarders
            .first_mut()
            .ok_or_else(|| anyhow!("there is no forwarder to kill"))?;
        let pid = victim.process().pid();
        victim.kill9()?;
        let again = Forwarder::start_as("forwarder-3", self.rings.config())?;
        view.say(&format!(
            "killed forwarder-1 (process {pid}) with SIGKILL; forwarder-3 takes its place"
        ));
        drop(std::mem::replace(victim, again));
        Ok(())
    }
}

/// What the forwarders that run now have counted.
async fn pages(forwarders: &[Forwarder]) -> Vec<Metrics> {
    let mut pages = Vec::new();
    for forwarder in forwarders {
        // One that has just been started does not answer yet.
        pages.extend(forwarder.metrics().await.ok());
    }
    pages
}
