//! The client in Rust follows its assets over changes of the ring, on real servers.

use std::time::{Duration, Instant};

use e2e_rig::followers::Followers;
use e2e_rig::forwarder::{BEACON, Forwarder};
use e2e_rig::kafka::Kafka;
use e2e_rig::nats::{self, Nats};
use e2e_rig::proxy::Proxy;
use e2e_rig::stage::{SOON, Stage};
use e2e_rig::traffic::{Plan, Traffic};
use e2e_rig::wait;
use fanout_client::{Client, Options, Pin};
use forwarder_beacon::Announcement;
use forwarder_core::document::{Config, PublishMode};

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
    let clusters = ["C1", "C2", "C3", "C4"];
    let judge = Followers::begin(client(&site).await, site.stage.traffic.ledger(), load.assets, &clusters);
    let judge = judge.await.unwrap();
    let flow = site.stage.flow(load.rate);
    wait_rounds(&site, load).await;

    for (epoch, clusters, old_side) in [(4, 4, &proxies[0]), (5, 3, &proxies[1])] {
        old_side.slow(load.delay).await.unwrap();
        let declared = Instant::now();
        declare(&forwarders.iter().collect::<Vec<_>>(), &config(epoch, clusters).ring);
        // It is announced, and the client reads on the new side too.
        judge.wait_ready(epoch, load.within).await.unwrap();
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
    let followed = judge.judge();
    followed.check_exactly_once_without_a_gap().unwrap();
    let detail = followed.detail();
    assert!(
        followed.counters.repeats > 0,
        "no forwarder has sent anything again: {detail}"
    );
    let moved = judge.assets_of(3);
    assert!(
        moved >= load.assets as usize / 10,
        "only {moved} assets were read on C4: {detail}"
    );
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
