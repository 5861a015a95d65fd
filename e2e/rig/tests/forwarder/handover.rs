//! The ring changes while records flow: what moves is handed over in order, what does not move does not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e_rig::forwarder::{self, Forwarder};
use e2e_rig::proxy::Proxy;
use e2e_rig::stage::{SOON, Stage};
use e2e_rig::traffic::{Plan, Traffic, read_value};
use e2e_rig::verdict::Latency;
use forwarder_core::document::{Config, PublishMode};

use crate::homes;

/// Each sends a record per second.
const ASSETS: u32 = 2_000;

const RATE: u32 = 2_000;

const THREE: [&str; 3] = ["C1", "C2", "C3"];
const FOUR: [&str; 4] = ["C1", "C2", "C3", "C4"];

const EPOCH: &str = "asset_forwarder_ring_epoch";

/// Each way to a cluster that assets move away from, while they do: longer than an asset's records are apart, so that whoever does
/// not wait for the old owner is seen.
const DELAY: Duration = Duration::from_millis(1_500);

/// The clusters that are reached through a proxy: the one that loses assets when the ring grows, and the one that does when it shrinks.
const PROXIED: [usize; 2] = [0, 3];

/// Four clusters, of which the first three make the ring.
async fn stage(mode: PublishMode) -> (Stage, [Proxy; 2]) {
    let mut stage = Stage::new(mode, 4).await;
    let plan = Plan {
        assets: ASSETS,
        ..Plan::default()
    };
    stage.traffic = Traffic::new(stage.kafka.bootstrap(), &stage.topic, plan).unwrap();
    let [first, last] = PROXIED.map(|place| stage.clusters[place].1.address());
    let proxies = [Proxy::start(&first).await.unwrap(), Proxy::start(&last).await.unwrap()];
    (stage, proxies)
}

/// The configuration whose ring is these clusters.
fn of(stage: &Stage, proxies: &[Proxy; 2], epoch: u64, clusters: &[&str]) -> Config {
    let mut config = stage.config();
    for (place, proxy) in PROXIED.into_iter().zip(proxies) {
        config.ring.clusters[place].servers = vec![proxy.nats_url()];
    }
    config.ring.epoch = epoch;
    config
        .ring
        .clusters
        .retain(|cluster| clusters.contains(&cluster.name.as_str()));
    config
}

async fn wait_epoch(forwarder: &Forwarder, epoch: u64) {
    forwarder.wait_metric(EPOCH, epoch as f64, SOON).await.unwrap();
}

/// Every asset has sent that many records or more since.
async fn wait_rounds(stage: &Stage, forwarders: &[&Forwarder], rounds: u32) {
    let goal = stage.traffic.ledger().given(ASSETS - 1) + rounds;
    e2e_rig::wait::eventually(SOON, "every asset has sent again", || async {
        Ok(stage.traffic.ledger().given(ASSETS - 1) >= goal)
    })
    .await
    .unwrap();
    // And some of it has been confirmed since.
    stage.wait_published(forwarders[0], 1.0).await;
}

#[tokio::test]
async fn a_core_ring_of_three_becomes_four_and_three_again_while_forwarders_come_and_go() {
    grows_and_shrinks(PublishMode::Core).await;
}

#[tokio::test]
async fn a_jetstream_ring_of_three_becomes_four_and_three_again_while_forwarders_come_and_go() {
    grows_and_shrinks(PublishMode::JetStream).await;
}

async fn grows_and_shrinks(mode: PublishMode) {
    let (stage, proxies) = stage(mode).await;
    let config = of(&stage, &proxies, 1, &THREE);
    let first = stage.start("first", &config).await;
    let mut second = stage.start("second", &config).await;
    let flow = stage.flow(RATE);
    wait_rounds(&stage, &[&first], 2).await;

    // The one takes the change up, the other one finds it when it comes back.
    let four = of(&stage, &proxies, 2, &FOUR);
    proxies[0].slow(DELAY).await.unwrap();
    first.declare_ring(&four.ring).unwrap();
    second.declare_ring(&four.ring).unwrap();
    assert!(second.terminate(SOON).await.unwrap().success());
    second.start_again().unwrap();
    second.wait_ready().await.unwrap();
    wait_epoch(&first, 2).await;
    wait_epoch(&second, 2).await;
    proxies[0].heal().await.unwrap();
    wait_rounds(&stage, &[&first], 4).await;

    // A rebalance in the midst of the change back: the third one knows the new ring before the second one does.
    let three = of(&stage, &proxies, 3, &THREE);
    proxies[1].slow(DELAY).await.unwrap();
    first.declare_ring(&three.ring).unwrap();
    let third = stage.start("third", &three).await;
    second.declare_ring(&three.ring).unwrap();
    for forwarder in [&first, &second, &third] {
        wait_epoch(forwarder, 3).await;
    }
    proxies[1].heal().await.unwrap();
    wait_rounds(&stage, &[&first], 4).await;
    flow.stop().await.unwrap();
    stage.wait_committed().await;

    let rings = [THREE.to_vec(), FOUR.to_vec()];
    let tally = stage.tally_at(homes::of(&rings)).await;
    tally.verdict(&stage.traffic.ledger()).check().unwrap();
    check_moved(&stage).await;
}

/// What was seen to move is what `ring diff` said would, and it came back.
async fn check_moved(stage: &Stage) {
    let ledger = stage.traffic.ledger();
    let keys: String = (0..ASSETS).map(|asset| format!("{}\n", ledger.key(asset))).collect();
    let expected: BTreeSet<String> = diff(&["--keys", "-"], &keys)
        .lines()
        .map(|line| line.split('\t').next().unwrap().to_owned())
        .collect();
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<String, (u32, usize)> = BTreeMap::new();
    for cluster in 0..stage.clusters.len() {
        for message in stage.stored(cluster).await {
            let (key, n, _) = read_value(&message.payload).unwrap();
            if cluster == 3 {
                seen.insert(key.to_owned());
            }
            let last = last.entry(key.to_owned()).or_insert((n, cluster));
            *last = (*last).max((n, cluster));
        }
    }
    assert_eq!(seen, expected, "the assets that C4 had");
    assert!(
        last.values().all(|(_, cluster)| *cluster < 3),
        "all came back: {last:?}"
    );
    let told = diff(&[], "");
    let share = told
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("total\t")?.strip_suffix('%'));
    let share: f64 = share.unwrap().parse().unwrap();
    let moved = seen.len() as f64 * 100.0 / f64::from(ASSETS);
    // Four standard deviations of a share near 30 % among so many assets.
    let tolerance = 400.0 * (0.3 * 0.7 / f64::from(ASSETS)).sqrt();
    assert!(
        (moved - share).abs() <= tolerance,
        "{moved} % of the assets moved, {share} % of the space"
    );
}

/// What the binary says of the change from three to four.
fn diff(further: &[&str], input: &str) -> String {
    let mut command = Command::new(forwarder::binary().unwrap());
    command
        .args(["ring", "diff", "--from", &THREE.join(","), "--to", &FOUR.join(",")])
        .args(further);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // On a thread of its own: who writes all before reading anything may wait for ever. What reads nothing may have ended before.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What is sent this long after a change may feel it.
const AROUND: Duration = Duration::from_secs(3);

/// The unmoved assets' p99 around a change may be this many times that of before, and [`SLACK_MS`] more: the machine is shared, with tests that
/// run at the same time too. A pause of all for a hand-over would be longer than that.
const FACTOR: f64 = 4.0;
const SLACK_MS: f64 = 50.0;

#[tokio::test]
async fn assets_that_do_not_move_do_not_notice_a_change_of_the_ring() {
    let (stage, proxies) = stage(PublishMode::JetStream).await;
    let config = of(&stage, &proxies, 1, &THREE);
    let first = stage.start("first", &config).await;
    let second = stage.start("second", &config).await;
    let flow = stage.flow(RATE);
    // Both have partitions, and nothing of their start is measured.
    stage.wait_published(&second, 1_000.0).await;
    wait_rounds(&stage, &[&first], 1).await;
    let begun = now_us();
    wait_rounds(&stage, &[&first], 4).await;
    let mut changes = Vec::new();
    for (epoch, clusters) in [(2, &FOUR[..]), (3, &THREE[..])] {
        changes.push(now_us());
        let config = of(&stage, &proxies, epoch, clusters);
        for forwarder in [&first, &second] {
            forwarder.declare_ring(&config.ring).unwrap();
        }
        for forwarder in [&first, &second] {
            wait_epoch(forwarder, epoch).await;
        }
        wait_rounds(&stage, &[&first], 4).await;
    }
    flow.stop().await.unwrap();
    stage.wait_committed().await;

    let (three, four) = (homes::ring(&THREE), homes::ring(&FOUR));
    let stays = |key: &str| three.name(three.owner(key.as_bytes())) == four.name(four.owner(key.as_bytes()));
    let around = u64::try_from(AROUND.as_micros()).unwrap();
    let (mut before, mut during) = (Latency::default(), Latency::default());
    for cluster in 0..stage.clusters.len() {
        for message in stage.stored(cluster).await {
            let (key, _, sent_us) = read_value(&message.payload).unwrap();
            if !stays(key) {
                continue;
            }
            let took = u64::try_from(message.at_ns / 1_000).unwrap().saturating_sub(sent_us);
            if (begun..changes[0]).contains(&sent_us) {
                before.add(took);
            } else if changes
                .iter()
                .any(|change| (*change..change + around).contains(&sent_us))
            {
                during.add(took);
            }
        }
    }
    let (before, during) = (before.quantile_ms(0.99), during.quantile_ms(0.99));
    assert!(
        before > 0.0 && during > 0.0,
        "nothing was measured: {before} ms, {during} ms"
    );
    assert!(
        during <= before * FACTOR + SLACK_MS,
        "p99 was {before} ms, and {during} ms around the changes"
    );
    let tally = stage.tally_at(homes::of(&[THREE.to_vec(), FOUR.to_vec()])).await;
    tally.verdict(&stage.traffic.ledger()).check_exactly_once().unwrap();
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

/// How long the new owner waits for the old one.
const HANDOVER: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_core_owner_that_is_cut_off_while_it_is_removed_is_waited_for_and_no_longer() {
    dead_owner_is_removed(PublishMode::Core).await;
}

#[tokio::test]
async fn a_jetstream_owner_that_is_dead_while_it_is_removed_is_waited_for_and_no_longer() {
    dead_owner_is_removed(PublishMode::JetStream).await;
}

async fn dead_owner_is_removed(mode: PublishMode) {
    let mut stage = Stage::new(mode, 3).await;
    let (mut config, proxy) = stage.proxied().await;
    config.ring.handover_timeout_ms = u64::try_from(HANDOVER.as_millis()).unwrap();
    let forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    // Some of it is on the way when the owner goes.
    proxy.stall();
    let pending = "asset_forwarder_pending_records";
    forwarder.wait_metric(pending, 500.0, SOON).await.unwrap();
    match mode {
        PublishMode::Core => proxy.cut().await.unwrap(),
        PublishMode::JetStream => stage.clusters[0].1.kill9().unwrap(),
    }
    config.ring.epoch = 2;
    let gone = config.ring.clusters.remove(0);
    assert_eq!(gone.name, "C1");
    forwarder.declare_ring(&config.ring).unwrap();
    wait_epoch(&forwarder, 2).await;
    stage.wait_published(&forwarder, 4_000.0).await;
    flow.stop().await.unwrap();
    // Without the old owner: all that it did not confirm is the new ones' now.
    stage.wait_committed().await;
    if mode == PublishMode::JetStream {
        stage.clusters[0].1.start_again().await.unwrap();
    }
    let rings = [THREE.to_vec(), vec!["C2", "C3"]];
    let tally = stage.tally_at(homes::of(&rings)).await;
    tally.verdict(&stage.traffic.ledger()).check().unwrap();
}
