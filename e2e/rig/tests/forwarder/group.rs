//! Forwarders that come, go and die while records flow.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e_rig::forwarder::Forwarder;
use e2e_rig::traffic::read_value;
use e2e_rig::wait;
use forwarder_core::document::{Config, GroupProtocol, PublishMode, StartFrom};
use futures::future::try_join_all;
use tokio::time::sleep;

use crate::stage::{ASSETS, PARTITIONS, SOON, Stage};

const RATE: u32 = 2_000;

/// Times that members stop together: what of a rebalance they meet is up to chance.
const ROUNDS: usize = 5;

#[tokio::test]
async fn nothing_is_lost_when_a_forwarder_is_killed() {
    let stage = Stage::new(PublishMode::Core, 2).await;
    let config = stage.config();
    let mut first = stage.start("first", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&first, 3_000.0).await;
    first.kill9().unwrap();
    let second = stage.start("second", &config).await;
    stage.wait_published(&second, 3_000.0).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check().unwrap();
}

/// What was taken from Kafka and not confirmed when it died is for the next one.
#[tokio::test]
async fn what_a_killed_forwarder_had_out_is_delivered_by_the_next() {
    let stage = Stage::new(PublishMode::Core, 2).await;
    let (config, proxy) = stage.proxied().await;
    let mut first = stage.start("first", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&first, 1_000.0).await;
    proxy.stall();
    first
        .wait_metric("asset_forwarder_pending_records", 1_000.0, SOON)
        .await
        .unwrap();
    first.kill9().unwrap();
    flow.stop().await.unwrap();
    // What was still on the way when the process died goes with its connection.
    proxy.reset().await.unwrap();
    let _second = stage.start("second", &stage.config()).await;
    stage.verdict().await.check().unwrap();
}

#[tokio::test]
async fn nothing_is_lost_or_repeated_when_a_core_forwarder_stops_in_good_order() {
    stops_in_good_order(PublishMode::Core).await;
}

#[tokio::test]
async fn nothing_is_lost_or_repeated_when_a_jetstream_forwarder_stops_in_good_order() {
    stops_in_good_order(PublishMode::JetStream).await;
}

async fn stops_in_good_order(mode: PublishMode) {
    let stage = Stage::new(mode, 2).await;
    let config = stage.config();
    let mut first = stage.start("first", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&first, 3_000.0).await;
    let status = first.terminate(SOON).await.unwrap();
    assert!(status.success(), "{status}");
    let second = stage.start("second", &config).await;
    stage.wait_published(&second, 3_000.0).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
}

#[tokio::test]
async fn members_that_stop_together_repeat_nothing() {
    members_stop_together(GroupProtocol::Classic).await;
}

#[tokio::test]
async fn members_that_stop_together_repeat_nothing_under_the_consumer_protocol() {
    members_stop_together(GroupProtocol::Consumer).await;
}

/// Each end is a rebalance for those that are still at it, in whose midst the group takes no commit. Who has come last has no partitions yet,
/// and the others wait for it.
async fn members_stop_together(protocol: GroupProtocol) {
    let stage = Stage::new(PublishMode::Core, 2).await;
    let config = under(protocol, stage.config());
    let flow = stage.flow(RATE);
    for _ in 0..ROUNDS {
        let mut members = Vec::new();
        for name in ["first", "second", "third"] {
            members.push(stage.start(name, &config).await);
        }
        stage.wait_published(&members[0], 100.0).await;
        let ends = members.iter_mut().map(|member| member.terminate(SOON));
        for status in try_join_all(ends).await.unwrap() {
            assert!(status.success(), "{status}");
        }
    }
    let _last = stage.start("last", &config).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
}

#[tokio::test]
async fn members_join_leave_and_die() {
    members_come_and_go(GroupProtocol::Classic).await;
}

/// The same with KIP-848, where the broker assigns.
#[tokio::test]
async fn members_join_leave_and_die_under_the_consumer_protocol() {
    members_come_and_go(GroupProtocol::Consumer).await;
}

async fn members_come_and_go(protocol: GroupProtocol) {
    let stage = Stage::new(PublishMode::Core, 2).await;
    let config = under(protocol, stage.config());
    let first = stage.start("first", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&first, 2_000.0).await;
    let mut second = stage.start("second", &config).await;
    stage.wait_published(&second, 500.0).await;
    let mut third = stage.start("third", &config).await;
    stage.wait_published(&third, 500.0).await;
    second.kill9().unwrap();
    stage.wait_published(&third, 500.0).await;
    assert!(third.terminate(SOON).await.unwrap().success());
    wait::eventually(SOON, "the first owns every partition", || async {
        let status = first.status().await?;
        let owned = status["assignment"].as_object().map_or(0, serde_json::Map::len);
        anyhow::ensure!(i32::try_from(owned)? == PARTITIONS, "{owned} of {PARTITIONS}");
        Ok(true)
    })
    .await
    .unwrap();
    stage.wait_published(&first, 2_000.0).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check().unwrap();
}

fn under(protocol: GroupProtocol, mut config: Config) -> Config {
    config.source.protocol = protocol;
    if protocol == GroupProtocol::Consumer {
        // The broker sets these.
        config.source.connection.properties.clear();
    }
    config
}

/// More pods than partitions is a spare, not a fault; and the group does not wait for one that has gone.
#[tokio::test]
async fn a_member_without_partitions_is_ready_and_leaves_the_group_when_it_stops() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    let mut config = stage.config();
    // Nobody goes because of its silence.
    let properties = &mut config.source.connection.properties;
    properties.insert("session.timeout.ms".to_owned(), "300000".to_owned());
    let mut members = Vec::new();
    for number in 0..=PARTITIONS {
        members.push(stage.start(&format!("member-{number}"), &config).await);
    }
    let spare = wait::value(SOON, "one member is idle and ready", || async {
        let mut idle = Vec::new();
        for (number, member) in members.iter().enumerate() {
            if member.status().await?["phase"] == "idle" && member.page("/readyz").await?.0 == 200 {
                idle.push(number);
            }
        }
        anyhow::ensure!(idle.len() == 1, "{idle:?} are");
        Ok(idle.first().copied())
    })
    .await
    .unwrap();
    assert!(members[spare].terminate(SOON).await.unwrap().success());
    wait_members(&stage, members.len() - 1).await;
}

/// Behind on the ring it takes no record; who looks at its readiness must not take it for one that does.
/// The group waits for a member that says nothing, and for no other one.
/// A stop may come at any moment of a join, also between the group's word and the member's.
#[tokio::test]
async fn a_member_that_stops_while_it_joins_ends_in_good_order() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    for moment in 0..20 {
        let mut member = Forwarder::start_as(&format!("member {moment}"), &stage.config()).unwrap();
        wait::eventually(SOON, "it has subscribed", || {
            std::future::ready(member.process().log().map(|log| log.contains("subscribed")))
        })
        .await
        .unwrap();
        sleep(Duration::from_millis(5) * moment).await;
        let ended = member.terminate(SOON).await.unwrap();
        assert!(ended.success(), "{moment}: {ended}");
    }
}

#[tokio::test]
async fn a_member_that_stops_amid_a_rebalance_leaves_the_group() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    let mut config = stage.config();
    let properties = &mut config.source.connection.properties;
    properties.insert("session.timeout.ms".to_owned(), "300000".to_owned());
    let mut first = stage.start("first", &config).await;
    first.pause().unwrap();
    let mut second = Forwarder::start_as("second", &config).unwrap();
    wait::eventually(SOON, "the second wants to join", || async {
        let state = stage.kafka.group_state(&stage.group).await?;
        anyhow::ensure!(state == "PreparingRebalance", "{state}");
        Ok(true)
    })
    .await
    .unwrap();
    second.process().terminate().unwrap();
    wait::eventually(SOON, "the second is stopping", || {
        let log = second.process().log();
        async move { Ok(log?.contains("stopping: the forwarder reads no more records")) }
    })
    .await
    .unwrap();
    first.resume().unwrap();
    assert!(second.wait_exit(SOON).await.unwrap().success());
    wait_members(&stage, 1).await;
}

#[tokio::test]
async fn a_member_that_takes_none_of_its_partitions_is_not_ready_and_says_why() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    let mut config = stage.config();
    config.ring.epoch = 2;
    let mut newer = stage.start("newer", &config).await;
    stage.traffic.send(500).await.unwrap();
    stage.wait_committed().await;
    assert!(newer.terminate(SOON).await.unwrap().success());

    config.ring.epoch = 1;
    let mut older = Forwarder::start_as("older", &config).unwrap();
    stage.traffic.send(500).await.unwrap();
    wait_waiting(&older, "waits for ring epoch 2").await;
    config.ring.epoch = 2;
    older.declare_ring(&config.ring).unwrap();
    older.wait_ready().await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
}

/// Somebody has changed the ring and not its epoch. Who runs refuses that; who starts with it must not send assets elsewhere.
#[tokio::test]
async fn a_ring_that_differs_from_one_of_the_same_epoch_is_not_used() {
    let stage = Stage::new(PublishMode::Core, 2).await;
    let mut config = stage.config();
    let second = config.ring.clusters.pop().unwrap();
    let mut one = stage.start("one", &config).await;
    stage.traffic.send(500).await.unwrap();
    stage.wait_committed().await;
    assert!(one.terminate(SOON).await.unwrap().success());

    let ledger = stage.traffic.ledger();
    let before: BTreeMap<String, u32> = (0..ASSETS)
        .map(|asset| (ledger.key(asset), ledger.given(asset)))
        .collect();
    config.ring.clusters.push(second);
    let mut other = Forwarder::start_as("other", &config).unwrap();
    stage.traffic.send(500).await.unwrap();
    let waits =
        "waits for a higher ring epoch: another forwarder has delivered under a different ring of the same epoch";
    wait_waiting(&other, waits).await;
    config.ring.epoch += 1;
    other.declare_ring(&config.ring).unwrap();
    other.wait_ready().await.unwrap();
    stage.wait_committed().await;
    // Of what was sent before, nothing is at the other cluster.
    let others = stage.stored(1).await;
    assert!(!others.is_empty());
    for message in others {
        let (key, number, _) = read_value(&message.payload).unwrap();
        assert!(number >= before[key], "record {number} of {key}");
    }
}

/// Waits until the forwarder is not ready, and says this of each of its partitions.
async fn wait_members(stage: &Stage, expected: usize) {
    let what = format!("the group has {expected} members");
    wait::eventually(SOON, &what, || async {
        let members = stage.kafka.members(&stage.group).await?;
        anyhow::ensure!(members == expected, "{members}");
        Ok(true)
    })
    .await
    .unwrap();
}

async fn wait_waiting(forwarder: &Forwarder, reason: &str) {
    wait::eventually(SOON, "it says what it waits for", || async {
        let (code, said) = forwarder.page("/readyz").await?;
        anyhow::ensure!(code == 503 && said.contains(reason), "{code}: {said}");
        Ok(true)
    })
    .await
    .unwrap();
    let status = forwarder.status().await.unwrap();
    assert_eq!(status["phase"], "waiting", "{status}");
    for partition in 0..PARTITIONS {
        let state = &status["assignment"][partition.to_string()]["state"];
        assert_eq!(state, reason, "{status}");
    }
}

/// `Latest` begins at the end, once: what is sent while nobody runs is not skipped, and a partition that appears later
/// is read from its beginning.
#[tokio::test]
async fn latest_is_decided_once_and_loses_nothing_afterwards() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    let mut config = stage.config();
    config.source.start_from = StartFrom::Latest;
    config
        .source
        .connection
        .properties
        .insert("topic.metadata.refresh.interval.ms".to_owned(), "1000".to_owned());
    stage
        .traffic
        .send_raw(b"old", Some(br#"{"id":"before","x":1}"#))
        .await
        .unwrap();
    let mut first = stage.start("first", &config).await;
    wait::eventually(SOON, "the start is committed", || async {
        let committed = stage.kafka.committed(&stage.group, &stage.topic).await?;
        Ok(committed.iter().all(|partition| partition.offset.is_some()))
    })
    .await
    .unwrap();
    assert!(first.terminate(SOON).await.unwrap().success());
    stage.traffic.send(1_000).await.unwrap();
    let second = stage.start("second", &config).await;
    stage.wait_published(&second, 0.0).await;
    stage.kafka.add_partitions(&stage.topic, PARTITIONS + 2).await.unwrap();
    stage.traffic.send(1_000).await.unwrap();
    let verdict = stage.verdict().await;
    assert_eq!((verdict.lost, verdict.repeated), (0, 0), "{verdict}");
    let published = second
        .metrics()
        .await
        .unwrap()
        .sum("asset_forwarder_nats_messages_published_total", &[]);
    assert_eq!(
        published, 2_000.0,
        "the record from before the group's start is not forwarded"
    );
}

/// An offset that the broker no longer has is counted, and the declared policy applied.
#[tokio::test]
async fn an_expired_offset_is_a_counted_fault() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    stage.traffic.send(600).await.unwrap();
    let ends = stage.kafka.end_offsets(&stage.topic).await.unwrap();
    stage.kafka.commit(&stage.group, &stage.topic, &[(0, 1)]).await.unwrap();
    stage.kafka.delete_records(&stage.topic, 0, ends[0] / 2).await.unwrap();
    let forwarder = stage.start("forwarder", &stage.config()).await;
    forwarder
        .wait_metric("asset_forwarder_missing_offsets_total", 1.0, SOON)
        .await
        .unwrap();
    let verdict = stage.verdict().await;
    assert_eq!(
        verdict.lost,
        (ends[0] / 2).unsigned_abs(),
        "all that is still there arrives: {verdict}"
    );
}
