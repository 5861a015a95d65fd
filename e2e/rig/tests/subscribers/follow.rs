//! The client in Rust follows its assets over changes of the ring, on real servers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use e2e_rig::forwarder::{BEACON, Forwarder};
use e2e_rig::kafka::Kafka;
use e2e_rig::nats::{self, Nats};
use e2e_rig::proxy::Proxy;
use e2e_rig::stage::{SOON, Stage};
use e2e_rig::traffic::{Plan, Traffic, read_value};
use e2e_rig::verdict::{Delivery, Ledger, Tally};
use e2e_rig::wait;
use fanout_client::{Client, Event, Gap, Options, Pin, Subscription};
use forwarder_beacon::Announcement;
use forwarder_core::document::{Config, PublishMode};
use tokio::task::JoinSet;

use crate::site::{RING, Site, declare};

/// How long an announced ring is not used: longer than the group takes to go on after the death of a member. So records flow at a move,
/// and those who have to prove that they see the client are alive.
const GRACE: Duration = Duration::from_secs(9);

/// The ring that a forwarder uses.
const EPOCH: &str = "asset_forwarder_ring_epoch";

/// Every asset has so many further records in each phase that lasts until it is ended.
const ROUNDS: u32 = 5;

/// The clusters that the client reaches through a proxy: one that loses assets when the ring grows, and one that does when it shrinks.
const PROXIED: [usize; 2] = [0, 3];

/// How much there is to follow.
struct Load {
    assets: u32,
    /// Records per second.
    rate: u32,
    grace: Duration,
    /// Each way to a cluster while it loses assets. Longer than an asset's records are apart, it has whoever does not wait for the old
    /// side read them in another order. A proxy that delays has a bound for what is under way, so it is none for much traffic.
    delay: Duration,
    /// How long a phase, and the last record of all, may take.
    within: Duration,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_three_becomes_four_and_three_again_under_killed_forwarders_and_no_record_is_missed() {
    let load = Load {
        assets: 200,
        rate: 1_000,
        grace: GRACE,
        delay: Duration::from_millis(700),
        within: SOON,
    };
    grows_and_shrinks(&load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_ten_thousand_subscriptions_follow_their_assets_at_five_thousand_records_a_second() {
    let load = Load {
        assets: 10_000,
        rate: 5_000,
        grace: Duration::from_secs(20),
        delay: Duration::ZERO,
        within: Duration::from_secs(300),
    };
    grows_and_shrinks(&load).await;
}

async fn grows_and_shrinks(load: &Load) {
    let (site, proxies) = site(load).await;
    let config = |epoch, clusters| config(&site, &proxies, load, epoch, clusters);
    let mut forwarders = Vec::new();
    for name in ["first", "second"] {
        forwarders.push(site.stage.start(name, &config(3, 3)).await);
    }
    let asker = site.client(0).await;
    wait_phase(&site, load, &asker, "both speak, and are beyond older rings", |told| {
        told.left == 3 && told.pods == ["first", "second"]
    })
    .await;
    let judge = Judge::begin(client(&site).await, site.stage.traffic.ledger()).await;
    let flow = site.stage.flow(load.rate);
    wait_rounds(&site, load).await;

    for (epoch, clusters, old_side) in [(4, 4, &proxies[0]), (5, 3, &proxies[1])] {
        old_side.slow(load.delay).await.unwrap();
        let declared = Instant::now();
        declare(&forwarders.iter().collect::<Vec<_>>(), &config(epoch, clusters).ring);
        // It is announced, and the client reads on the new side too.
        judge.wait_ready(epoch, load.within).await;
        judge.note(format!("ready for the ring {epoch} after {:?}", declared.elapsed()));
        kill_and_start(&mut forwarders[1]).await;
        forwarders[0]
            .wait_metric(EPOCH, epoch as f64, load.within)
            .await
            .unwrap();
        kill_and_start(&mut forwarders[0]).await;
        for forwarder in &mut forwarders {
            forwarder.wait_ready().await.unwrap();
        }
        wait_phase(&site, load, &asker, "the old ring is left", |told| told.left == epoch).await;
        old_side.heal().await.unwrap();
        judge.note(format!("the ring {epoch} was alone after {:?}", declared.elapsed()));
        wait_rounds(&site, load).await;
    }
    flow.stop().await.unwrap();
    judge.wait_all(load.within).await;
    let moved = judge.moved();
    judge.check_exactly_once_without_a_gap();
    assert!(moved >= load.assets / 10, "only {moved} assets were read on C4");
}

/// Four clusters of a server each, whose first three will make the ring.
async fn site(load: &Load) -> (Site, [Proxy; 2]) {
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(Nats::start_with(nats::Options::default()).await.unwrap());
    }
    let kafka = Kafka::shared().await.unwrap();
    let mut stage = Stage::unrecorded(kafka, PublishMode::Core, servers).await;
    let plan = Plan {
        assets: load.assets,
        ..Plan::default()
    };
    stage.traffic = Traffic::new(stage.kafka.bootstrap(), &stage.topic, plan).unwrap();
    let [first, last] = PROXIED.map(|place| stage.clusters[place].1.address());
    let proxies = [Proxy::start(&first).await.unwrap(), Proxy::start(&last).await.unwrap()];
    (Site::on(stage), proxies)
}

fn config(site: &Site, proxies: &[Proxy; 2], load: &Load, epoch: u64, clusters: usize) -> Config {
    let mut config = site.config(epoch, clusters, load.grace);
    for (place, proxy) in PROXIED.into_iter().zip(proxies) {
        if let Some(cluster) = config.ring.clusters.get_mut(place) {
            cluster.client_servers = vec![proxy.nats_url()];
        }
    }
    config.publish.headers.origin = true;
    config
}

async fn client(site: &Site) -> Client {
    let pin = Pin::new(site.signer.public_key(), RING, BEACON);
    Options::new(pin).connect([site.nats(1).url()]).await.unwrap()
}

async fn wait_phase(
    site: &Site,
    load: &Load,
    asker: &async_nats::Client,
    what: &str,
    is_it: impl Fn(&Announcement) -> bool,
) {
    wait::eventually(load.within, what, || async {
        let told = site.ask(asker, "n").await;
        let is_so = told.as_ref().is_some_and(&is_it);
        anyhow::ensure!(is_so, "it says {told:?}");
        Ok(true)
    })
    .await
    .unwrap();
}

/// What it had out is sent again by others, or by itself.
async fn kill_and_start(forwarder: &mut Forwarder) {
    forwarder.kill9().unwrap();
    forwarder.wait_exit(SOON).await.unwrap();
    forwarder.start_again().unwrap();
}

/// Every asset has sent [`ROUNDS`] more records.
async fn wait_rounds(site: &Site, load: &Load) {
    let ledger = site.stage.traffic.ledger();
    let goal = ledger.given(load.assets - 1) + ROUNDS;
    wait::eventually(load.within, "every asset has sent again", || async {
        Ok(ledger.given(load.assets - 1) >= goal)
    })
    .await
    .unwrap();
}

/// Reads every asset by a subscription of its own, and judges what was read against what was sent.
///
/// A record is missed without a gap if it is lost and the client has told no gap at all. So a test in which gaps are promised needs
/// a look at [`Read::gaps`] besides.
struct Judge {
    client: Client,
    ledger: Arc<Ledger>,
    read: Arc<Mutex<Read>>,
    tasks: JoinSet<()>,
}

/// What was read, and what was told.
struct Read {
    tally: Tally,
    /// Each delivery is later than the one before.
    clock: u64,
    gaps: Vec<Gap>,
    late: u64,
    /// The newest ring that the client is ready for.
    ready: u64,
    /// What else speaks against the client.
    faults: Vec<String>,
    notes: Vec<String>,
}

impl Judge {
    /// Subscribes to all assets of a ledger, at once.
    async fn begin(client: Client, ledger: Arc<Ledger>) -> Self {
        let read = Arc::new(Mutex::new(Read {
            tally: Tally::new(0),
            clock: 0,
            gaps: Vec::new(),
            late: 0,
            ready: 0,
            faults: Vec::new(),
            notes: Vec::new(),
        }));
        let mut tasks = JoinSet::new();
        let (mut events, of_events) = (client.events(), Arc::clone(&read));
        tasks.spawn(async move {
            while let Some(event) = events.next().await {
                lock(&of_events).hear(event);
            }
        });
        let begun = Instant::now();
        let subscribing = (0..ledger.assets()).map(|asset| {
            let (client, key) = (client.clone(), ledger.key(asset));
            async move { (asset, client.subscribe(&key).await.unwrap()) }
        });
        for (asset, subscription) in futures::future::join_all(subscribing).await {
            tasks.spawn(follow(asset, subscription, Arc::clone(&ledger), Arc::clone(&read)));
        }
        lock(&read)
            .notes
            .push(format!("all have subscribed after {:?}", begun.elapsed()));
        Self {
            client,
            ledger,
            read,
            tasks,
        }
    }

    /// Something to say where the test fails.
    fn note(&self, note: String) {
        lock(&self.read).notes.push(note);
    }

    /// Waits until the client is ready for this ring.
    async fn wait_ready(&self, epoch: u64, within: Duration) {
        let is_ready = || async { Ok(lock(&self.read).ready == epoch) };
        wait::eventually(within, "the client is ready for the ring", is_ready)
            .await
            .unwrap();
    }

    /// Waits until as many records were read as Kafka has acknowledged; then, or in vain, the judgement follows.
    async fn wait_all(&self, within: Duration) {
        let all = || async { Ok(lock(&self.read).tally.distinct() >= self.ledger.acknowledged()) };
        // What is missing is told in the judgement.
        drop(wait::eventually(within, "all records are read", all).await);
    }

    /// How many assets were read on the fourth cluster.
    fn moved(&self) -> u32 {
        u32::try_from(lock(&self.read).tally.assets_of(3)).unwrap()
    }

    /// Nothing missed, nothing twice, everything in order, and nothing that the client has to excuse.
    fn check_exactly_once_without_a_gap(mut self) {
        self.tasks.abort_all();
        let read = lock(&self.read);
        let verdict = read.tally.verdict(&self.ledger);
        let said = format!(
            "{verdict}, gaps {:?}, late {}, faults {:?}, {:?}\n{}",
            read.gaps,
            read.late,
            read.faults,
            self.client.counters(),
            read.notes.join("\n")
        );
        verdict
            .check_exactly_once()
            .map_err(|error| error.context(said.clone()))
            .unwrap();
        assert!(
            read.gaps.is_empty() && read.late == 0 && read.faults.is_empty(),
            "{said}"
        );
        assert!(
            self.client.counters().repeats > 0,
            "no forwarder has sent anything again: {said}"
        );
    }
}

impl Read {
    fn hear(&mut self, event: Event) {
        match event {
            Event::Gap(gap) => self.gaps.push(gap),
            Event::Late(_) => self.late += 1,
            Event::Ready { ring } => self.ready = ring,
            Event::Ring { .. } => self.notes.push(format!("{event:?}")),
            event => self.faults.push(format!("{event:?}")),
        }
    }

    fn take(&mut self, asset: u32, ledger: &Ledger, message: &fanout_client::Message) {
        let read = read_value(&message.payload).filter(|(key, ..)| ledger.asset(key) == Some(asset));
        let Some((_, n, _)) = read else {
            return self.tally.unreadable(&format!("{} for asset {asset}", message.subject));
        };
        let cluster: u8 = message.cluster.strip_prefix('C').unwrap().parse().unwrap();
        self.clock += 1;
        self.tally.observe(Delivery {
            asset,
            n,
            cluster: cluster - 1,
            at_us: self.clock,
            latency_us: None,
            at_home: true,
        });
    }
}

async fn follow(asset: u32, mut subscription: Subscription, ledger: Arc<Ledger>, read: Arc<Mutex<Read>>) {
    while let Some(message) = subscription.next().await {
        lock(&read).take(asset, &ledger, &message);
    }
}

fn lock(read: &Mutex<Read>) -> std::sync::MutexGuard<'_, Read> {
    read.lock().unwrap_or_else(PoisonError::into_inner)
}
