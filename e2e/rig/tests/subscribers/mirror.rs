//! Subscribers that cannot follow the ring: what they get at the previous owner of their asset.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Message;
use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::Kafka;
use e2e_rig::nats::Nats;
use e2e_rig::stage::{ASSETS, SOON, Stage};
use e2e_rig::traffic::{Raw, read_value};
use e2e_rig::wait;
use forwarder_core::document::{Config, MirrorConfig, PreviousRing, PublishMode};
use forwarder_core::fanout::ring::Ring;
use futures::StreamExt as _;
use futures::stream::select_all;
use tokio::task::JoinHandle;

/// Each asset has a record every 200 ms.
const RATE: u32 = 1_000;

/// For how long copies are made after the change that is watched to its end.
const MOVED: Duration = Duration::from_secs(8);

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3_600);

const MIRRORED: &str = "asset_forwarder_mirrored_total";
const DROPPED: &str = "asset_forwarder_mirror_dropped_total";
const HEADER: &str = "Fanout-Mirrored";

/// Clusters that record nothing, because copies are no repeats of the forwarder's.
async fn stage(clusters: usize) -> Stage {
    let mut servers = Vec::new();
    for _ in 0..clusters {
        servers.push(Nats::start().await.unwrap());
    }
    Stage::unrecorded(Kafka::shared().await.unwrap(), PublishMode::Core, servers).await
}

/// A ring of these clusters, with copies for so long.
fn config(stage: &Stage, epoch: u64, clusters: &[&str], moved: Duration) -> Config {
    let mut config = stage.config();
    config.ring.epoch = epoch;
    config
        .ring
        .clusters
        .retain(|cluster| clusters.contains(&cluster.name.as_str()));
    config.ring.mirror = Some(MirrorConfig {
        moved_ms: u64::try_from(moved.as_millis()).unwrap(),
        previous: None,
    });
    config
}

/// The place of the cluster that owns each asset by the ring of a configuration.
fn owners(stage: &Stage, config: &Config) -> Vec<usize> {
    let clusters = config.ring.clusters.iter();
    let members = clusters.map(|cluster| (cluster.name.clone(), cluster.weight));
    let ring = Ring::new(members, config.ring.replicas).unwrap();
    let place = |asset| {
        let name = ring.name(ring.owner(stage.traffic.ledger().key(asset).as_bytes()));
        stage.clusters.iter().position(|(known, _)| known == name).unwrap()
    };
    (0..ASSETS).map(place).collect()
}

/// By asset, the numbers of its records in the order in which they came, each with whether it is a copy.
type Numbers = BTreeMap<u32, Vec<(u32, bool)>>;

/// What subscribers have got.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Numbers>>);

impl Heard {
    fn take(&self, stage_ledger: &e2e_rig::verdict::Ledger, message: &Message) {
        // Records outside the count have no number.
        let Some((key, n, _)) = read_value(&message.payload) else {
            return;
        };
        let copies = message.headers.as_ref().and_then(|headers| headers.get(HEADER));
        let asset = stage_ledger.asset(key).unwrap();
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard
            .entry(asset)
            .or_default()
            .push((n, copies.map(|value| value.as_str()) == Some("1")));
    }

    fn all(&self) -> Numbers {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The numbers that came as records, and those that came as copies.
    fn of(&self, asset: u32) -> (Vec<u32>, Vec<u32>) {
        let all = self.all().remove(&asset).unwrap_or_default();
        let (copies, records): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, is_copy)| *is_copy);
        let numbers = |heard: Vec<(u32, bool)>| heard.into_iter().map(|(n, _)| n).collect();
        (numbers(records), numbers(copies))
    }

    fn count(&self) -> usize {
        self.all().values().map(Vec::len).sum()
    }
}

/// As the original's class does: connects once, subscribes to each asset, and stays.
async fn subscribe(nats: &Nats, stage: &Stage, subjects: Vec<String>) -> (Heard, JoinHandle<()>) {
    let client = nats.client().await.unwrap();
    let mut subscriptions = Vec::new();
    for subject in subjects {
        subscriptions.push(client.subscribe(subject).await.unwrap());
    }
    // What comes back was sent behind the subscriptions.
    let mut probe = client.subscribe("probe").await.unwrap();
    client.publish("probe", "".into()).await.unwrap();
    tokio::time::timeout(SOON, probe.next()).await.unwrap().unwrap();
    let heard = Heard::default();
    let (ledger, hears) = (stage.traffic.ledger(), heard.clone());
    let task = tokio::spawn(async move {
        let _stays = client;
        let mut messages = select_all(subscriptions);
        while let Some(message) = messages.next().await {
            hears.take(&ledger, &message);
        }
    });
    (heard, task)
}

/// Subscribers of these assets.
async fn stay(stage: &Stage, cluster: usize, owners: &[usize]) -> (Heard, JoinHandle<()>) {
    let ledger = stage.traffic.ledger();
    let assets = (0..ASSETS).zip(owners).filter(|(_, owner)| **owner == cluster);
    let subjects = assets.map(|(asset, _)| format!("{}.*", ledger.key(asset))).collect();
    subscribe(&stage.clusters[cluster].1, stage, subjects).await
}

async fn sum(forwarder: &Forwarder, metric: &str) -> f64 {
    forwarder.metrics().await.unwrap().sum(metric, &[])
}

/// Every asset has had a record since, and it is confirmed.
async fn a_round(stage: &Stage, forwarder: &Forwarder) {
    stage.wait_published(forwarder, f64::from(2 * ASSETS)).await;
}

fn check_without_gap(numbers: &[u32], what: &str) {
    let first = numbers.first().copied().unwrap_or_default();
    let expected: Vec<u32> = (first..).take(numbers.len()).collect();
    assert_eq!(numbers, expected, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stays_at_the_old_cluster_misses_nothing_for_the_declared_time() {
    let stage = stage(4).await;
    let three = config(&stage, 1, &["C1", "C2", "C3"], MOVED);
    let four = config(&stage, 2, &["C1", "C2", "C3", "C4"], MOVED);
    let (old, new) = (owners(&stage, &three), owners(&stage, &four));
    let moved: Vec<u32> = (0..ASSETS)
        .filter(|asset| old[*asset as usize] != new[*asset as usize])
        .collect();
    assert!(moved.len() > 10, "{moved:?}");
    let mut staying = Vec::new();
    for cluster in 0..3 {
        staying.push(stay(&stage, cluster, &old).await);
    }
    let (newcomer, _task) = subscribe(&stage.clusters[3].1, &stage, vec!["*.*".to_owned()]).await;
    let forwarder = stage.start("first", &three).await;
    let flow = stage.flow(RATE);
    a_round(&stage, &forwarder).await;
    assert_eq!(sum(&forwarder, MIRRORED).await, 0.0, "nothing has moved yet");

    let declared = Instant::now();
    forwarder.declare_ring(&four.ring).unwrap();
    let some = 2.0 * moved.len() as f64;
    forwarder.wait_metric(MIRRORED, some, SOON).await.unwrap();
    let given: Vec<u32> = (0..ASSETS).map(|asset| stage.traffic.ledger().given(asset)).collect();
    assert!(declared.elapsed() < MOVED, "too slow to tell anything");

    let copied = wait::value(SOON, "no more copies come", || async {
        let before = sum(&forwarder, MIRRORED).await;
        a_round(&stage, &forwarder).await;
        let after = sum(&forwarder, MIRRORED).await;
        anyhow::ensure!(before == after, "{} came", after - before);
        Ok(Some(after))
    })
    .await
    .unwrap();
    assert!(declared.elapsed() >= MOVED, "they ended after {:?}", declared.elapsed());
    flow.stop().await.unwrap();
    stage.wait_committed().await;
    assert_eq!(sum(&forwarder, MIRRORED).await, copied, "they have ended for good");
    assert_eq!(sum(&forwarder, DROPPED).await, 0.0);

    let mut copies_heard = 0;
    for asset in 0..ASSETS {
        let (heard, _) = &staying[old[asset as usize]];
        let (records, copies) = heard.of(asset);
        let all: Vec<u32> = heard.all()[&asset].iter().map(|(n, _)| *n).collect();
        check_without_gap(&all, "who stays misses nothing, and hears all in order");
        if !moved.contains(&asset) {
            assert_eq!(
                (copies.len(), records.len() as u32),
                (0, stage.traffic.ledger().given(asset))
            );
            continue;
        }
        copies_heard += copies.len();
        assert!(
            all.len() as u32 >= given[asset as usize],
            "{asset}: {} of {given:?}",
            all.len()
        );
        // At its owner it goes on behind the last record at the old one, and no copy comes there.
        let (at_new, no_copies) = newcomer.of(asset);
        assert_eq!(
            (at_new.first(), no_copies.len()),
            (Some(&(records.len() as u32)), 0),
            "{asset}"
        );
        check_without_gap(&at_new, "in order at its owner");
        assert_eq!(
            records.len() + at_new.len(),
            stage.traffic.ledger().given(asset) as usize
        );
    }
    assert_eq!(copies_heard as f64, copied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_leaves_gets_nothing_more_and_no_record_passes_for_a_copy() {
    let stage = stage(3).await;
    let all = config(&stage, 1, &["C1", "C2", "C3"], LONG);
    let fewer = config(&stage, 2, &["C2", "C3"], LONG);
    let (leaving, _task) = subscribe(&stage.clusters[0].1, &stage, vec!["*.*".to_owned()]).await;
    let forwarder = stage.start("first", &all).await;

    // A Kafka header of the name of ours is another one in NATS.
    let key = stage.traffic.ledger().key(0);
    let owner = owners(&stage, &all)[0];
    let client = stage.clusters[owner].1.client().await.unwrap();
    let mut forged = client.subscribe(format!("{key}.forged")).await.unwrap();
    client.flush().await.unwrap();
    let record = Raw {
        key: Some(key.into_bytes()),
        value: Some(br#"{"id": "forged", "value": 1}"#.to_vec()),
        headers: vec![("fanout-mirrored".to_owned(), Some(b"1".to_vec()))],
        ..Raw::default()
    };
    stage.traffic.send_record(record).await.unwrap();
    let message = tokio::time::timeout(SOON, forged.next()).await.unwrap().unwrap();
    let headers = message.headers.unwrap();
    let names: Vec<_> = headers.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["Kafka-Encoded-fanout-mirrored"]);

    let flow = stage.flow(RATE);
    a_round(&stage, &forwarder).await;
    forwarder.declare_ring(&fewer.ring).unwrap();
    forwarder
        .wait_metric("asset_forwarder_ring_epoch", 2.0, SOON)
        .await
        .unwrap();
    wait::eventually(SOON, "its publisher ends", || async {
        let metrics = forwarder.metrics().await?;
        Ok(metrics.get("asset_forwarder_connected", &[("cluster", "C1")]).is_none())
    })
    .await
    .unwrap();
    let heard = leaving.count();
    assert!(heard > 0);
    a_round(&stage, &forwarder).await;
    flow.stop().await.unwrap();
    stage.wait_committed().await;
    assert_eq!(leaving.count(), heard, "a cluster that has left gets nothing more");
    assert_eq!(sum(&forwarder, MIRRORED).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_starts_knows_the_ring_before_from_its_document() {
    let stage = stage(4).await;
    let three = config(&stage, 1, &["C1", "C2", "C3"], LONG);
    let mut four = config(&stage, 2, &["C1", "C2", "C3", "C4"], LONG);
    let old = owners(&stage, &three);
    let new = owners(&stage, &four);
    let asset = (0..ASSETS)
        .find(|asset| old[*asset as usize] != new[*asset as usize])
        .unwrap();
    let (heard, _task) = stay(&stage, old[asset as usize], &old).await;
    if let Some(mirror) = &mut four.ring.mirror {
        mirror.previous = Some(PreviousRing::of(&three.ring));
    }
    let forwarder = stage.start("first", &four).await;
    stage.traffic.send(u64::from(5 * ASSETS)).await.unwrap();
    stage.wait_committed().await;
    let given = stage.traffic.ledger().given(asset);
    wait::eventually(SOON, "a copy of each record comes", || async {
        let (records, copies) = heard.of(asset);
        anyhow::ensure!(records.is_empty(), "{records:?} came as records");
        anyhow::ensure!(copies.len() as u32 == given, "{copies:?} of {given}");
        check_without_gap(&copies, "in order");
        Ok(true)
    })
    .await
    .unwrap();
    assert_eq!(sum(&forwarder, DROPPED).await, 0.0);
}
