//! Servers of a cluster that stand in for each other: which of them get records, and which never.

use std::time::Duration;

use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::Kafka;
use e2e_rig::nats::{Cluster, Nats, Options};
use e2e_rig::observer::Observer;
use e2e_rig::proxy::Proxy;
use e2e_rig::wait;
use forwarder_core::document::{Config, PublishMode};

use crate::stage::{PUBLISHED, SOON, STREAM, Stage};

const RATE: u32 = 2_000;

/// Failing over takes a fraction of a second. The bound is for a machine that is busy, and below any single pause or timeout that
/// would have to be waited for twice.
const FAILOVER: Duration = Duration::from_secs(10);

#[tokio::test]
async fn core_records_go_on_through_announced_servers_when_the_only_configured_one_is_killed() {
    let mut nats = Cluster::start("plant", 3, &core()).await.unwrap();
    let (stage, config) = seen_from_the_last(&mut nats, PublishMode::Core).await;
    let observer = observe(&stage).await;
    let forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    nats.servers[0].kill9().unwrap();
    goes_on(&forwarder).await;
    flow.stop().await.unwrap();
    stage.wait_committed().await;
    let verdict = observer.settle(Duration::from_secs(1)).await.unwrap();
    assert_eq!(verdict.out_of_order, 0, "{verdict}");
    // What the dying server had accepted and not passed on is outside of any proof: a quarter of a second's traffic at most.
    assert!(verdict.lost <= u64::from(RATE) / 4, "{verdict}");
}

/// The killed server is the one that leads the stream, so that the others have to choose a leader first.
#[tokio::test]
async fn jetstream_records_go_on_through_announced_servers_when_the_only_configured_one_is_killed() {
    let mut nats = Cluster::start("plant", 3, &Options::default()).await.unwrap();
    let (stage, mut config) = seen_from_the_last(&mut nats, PublishMode::JetStream).await;
    config.publish.stream.as_mut().unwrap().replicas = 3;
    let forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(1_000).await.unwrap();
    stage.wait_committed().await;
    Cluster::lead(&stage.clusters[0].1, STREAM, 0).await.unwrap();
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    nats.servers[0].kill9().unwrap();
    stage.wait_published(&forwarder, 4_000.0).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
}

/// Addresses outlive servers: behind one that a cluster announces there may be another cluster by now.
#[tokio::test]
async fn a_server_of_another_cluster_behind_an_announced_address_gets_no_record() {
    let foreign = Cluster::start("other", 1, &core()).await.unwrap();
    let misleading = Options {
        config: format!("client_advertise: \"{}\"\n", foreign.servers[0].address()),
        ..core()
    };
    let mut nats = Cluster::start_with("plant", vec![core(), misleading]).await.unwrap();
    let (stage, config) = seen_from_the_last(&mut nats, PublishMode::Core).await;
    let mut forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    nats.servers[0].kill9().unwrap();
    wait::eventually(SOON, "the forwarder has come by at the announced address", || async {
        Ok(foreign.servers[0].monitor("/varz").await?["total_connections"] != 0)
    })
    .await
    .unwrap();
    nats.servers[0].start_again().await.unwrap();
    stage.wait_published(&forwarder, 2_000.0).await;
    flow.stop().await.unwrap();
    let varz = foreign.servers[0].monitor("/varz").await.unwrap();
    assert_eq!(varz["in_msgs"], 0, "{varz}");
    let said = log_says(&mut forwarder, "belongs to the cluster").await;
    for part in ["\"other\"", "\"plant\"", foreign.servers[0].address().as_str()] {
        assert!(said.contains(part), "{said} does not name {part}");
    }
}

#[tokio::test]
async fn announced_servers_are_left_alone_where_discovering_them_is_switched_off() {
    let mut nats = Cluster::start("plant", 2, &core()).await.unwrap();
    let (stage, mut config) = seen_from_the_last(&mut nats, PublishMode::Core).await;
    config.ring.clusters[0].discover_servers = Some(false);
    let forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    nats.servers[0].kill9().unwrap();
    stage.wait_last_error(&forwarder, "C1", "failed to reach").await;
    nats.servers[0].start_again().await.unwrap();
    stage.wait_published(&forwarder, 2_000.0).await;
    flow.stop().await.unwrap();
    let other = stage.clusters[0].1.monitor("/varz").await.unwrap();
    assert_eq!(other["total_connections"], 0, "{other}");
}

/// Its fences are slow, so that there is always something out that would be sent again if it were not awaited.
#[tokio::test]
async fn a_server_that_is_going_to_shut_down_is_left_without_repeating_anything() {
    let mut nats = Cluster::start("plant", 2, &core()).await.unwrap();
    let (stage, mut config) = seen_from_the_last(&mut nats, PublishMode::Core).await;
    let proxy = Proxy::start(&nats.servers[0].address()).await.unwrap();
    proxy.slow(Duration::from_millis(100)).await.unwrap();
    config.ring.clusters[0].servers = vec![proxy.nats_url()];
    let observer = observe(&stage).await;
    let mut forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    nats.servers[0].lame_duck().unwrap();
    log_says(&mut forwarder, "asks its clients to leave").await;
    goes_on(&forwarder).await;
    flow.stop().await.unwrap();
    stage.wait_committed().await;
    let verdict = observer.settle(Duration::from_secs(1)).await.unwrap();
    verdict.check_exactly_once().unwrap();
    let metrics = forwarder.metrics().await.unwrap();
    assert_eq!(metrics.sum("asset_forwarder_repeats_possible_total", &[]), 0.0);
}

/// Servers without JetStream: there is nobody to be elected.
fn core() -> Options {
    Options {
        jetstream: false,
        ..Options::default()
    }
}

/// A stage that sees the cluster through its last server, and a configuration that names the first one alone.
async fn seen_from_the_last(nats: &mut Cluster, mode: PublishMode) -> (Stage, Config) {
    let last = nats.servers.pop().unwrap();
    let stage = Stage::unrecorded(Kafka::shared().await.unwrap(), mode, vec![last]).await;
    let mut config = stage.config();
    config.ring.clusters[0].servers = vec![nats.servers[0].url()];
    (stage, config)
}

async fn observe(stage: &Stage) -> Observer {
    let clusters: Vec<(&str, &Nats)> = stage
        .clusters
        .iter()
        .map(|(name, nats)| (name.as_str(), nats))
        .collect();
    Observer::live(&clusters, stage.traffic.ledger()).await.unwrap()
}

/// Two seconds' traffic is confirmed, within the bound.
async fn goes_on(forwarder: &Forwarder) {
    let before = forwarder.metrics().await.unwrap().sum(PUBLISHED, &[]);
    let wanted = before + f64::from(RATE) * 2.0;
    forwarder.wait_metric(PUBLISHED, wanted, FAILOVER).await.unwrap();
}

/// Waits until a line of the forwarder's log says this, and yields it.
async fn log_says(forwarder: &mut Forwarder, part: &str) -> String {
    let process = forwarder.process();
    wait::value(SOON, &format!("the log says {part:?}"), || {
        let log = process.log();
        async move {
            let log = log?;
            let line = log.lines().find(|line| line.contains(part));
            Ok(line.map(str::to_owned))
        }
    })
    .await
    .unwrap()
}
