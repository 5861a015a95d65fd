//! Records that a server refuses, and what they cost all others: nothing.

mod random;

use std::fs;
use std::time::Duration;

use async_nats::jetstream;
use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::Kafka;
use e2e_rig::nats::{Login, Nats, Options, User};
use e2e_rig::observer::{self, Stored};
use e2e_rig::traffic::{Plan, Raw, Traffic};
use e2e_rig::wait;
use forwarder_core::document::{Config, DeadLetter, NatsAuth, PublishMode, Stream};

use crate::stage::{PUBLISHED, SOON, STREAM, Stage};

/// More than the cluster may have in memory, below.
const POISON: u64 = 6_000;

/// Of other assets.
const GOOD: u64 = 2_000;

const HELD: &str = "asset_forwarder_held_assets";
const REFUSED: &str = "asset_forwarder_retries_total";
const INVALID: &str = "asset_forwarder_invalid_total";

#[tokio::test]
async fn an_asset_that_is_denied_costs_the_others_nothing_in_core_mode() {
    costs_the_others_nothing(PublishMode::Core).await;
}

#[tokio::test]
async fn an_asset_that_is_denied_costs_the_others_nothing_in_jetstream_mode() {
    costs_the_others_nothing(PublishMode::JetStream).await;
}

async fn costs_the_others_nothing(mode: PublishMode) {
    let prefix = if mode == PublishMode::Core { "" } else { "assets." };
    let denied = format!("{prefix}BAD-0000.>");
    let (mut stage, mut config) = denying(mode, &denied, "").await;
    config.engine.queue_size = 1_000;
    config.engine.max_pending_records_per_cluster = 2_000;
    let bad = poison(&stage);
    bad.send(POISON).await.unwrap();
    // Every server denies this subject to every client. (In JetStream mode it is below the stage's own prefix, and an asset as any.)
    stage.traffic.send_raw(b"_GR_", Some(br#"{"id":"x"}"#)).await.unwrap();
    stage.traffic.send(GOOD).await.unwrap();
    let strays = if mode == PublishMode::Core { 0.0 } else { 1.0 };
    let mut forwarder = stage.start("forwarder", &config).await;
    forwarder
        .wait_metric(PUBLISHED, GOOD as f64 + strays, SOON)
        .await
        .unwrap();
    // What comes later passes by as well.
    stage.traffic.send(GOOD).await.unwrap();
    let expected = 2.0 * GOOD as f64 + strays;
    forwarder.wait_metric(PUBLISHED, expected, SOON).await.unwrap();
    let metrics = forwarder.metrics().await.unwrap();
    assert_eq!(metrics.sum(PUBLISHED, &[]), expected, "none of the denied asset");
    assert_eq!(metrics.sum(INVALID, &[("reason", "bad_subject")]), 1.0 - strays);
    wait_metric_is(&forwarder, HELD, 1.0).await;
    let tally = stage.tally().await;
    assert!(tally.verdict(&stage.traffic.ledger()).lost == 0);
    stage.wait_last_error(&forwarder, "C1", "BAD-0000").await;

    // A successor knows what waits, by its lane.
    wait_lanes_are_told(&stage).await;
    assert!(forwarder.terminate(Duration::from_secs(20)).await.unwrap().success());
    let successor = stage.start("successor", &config).await;
    stage.traffic.send(GOOD).await.unwrap();
    successor.wait_metric(PUBLISHED, GOOD as f64, SOON).await.unwrap();
    wait_metric_is(&successor, HELD, 1.0).await;
    let metrics = successor.metrics().await.unwrap();
    assert_eq!(
        metrics.sum(PUBLISHED, &[]),
        GOOD as f64,
        "nothing of the others is delivered again"
    );

    stage.clusters[0].1.reconfigure(&denied, "other.subject").unwrap();
    stage.wait_committed().await;
    let verdict = stage.tally().await.verdict(&stage.traffic.ledger());
    assert_eq!((verdict.lost, verdict.out_of_order), (0, 0), "{verdict}");
    let streams = [Stored {
        cluster: "C1",
        nats: &stage.clusters[0].1,
        stream: STREAM,
    }];
    let verdict = observer::read_streams(&streams, &bad.ledger(), None).await.unwrap();
    assert_eq!(
        (verdict.lost, verdict.out_of_order, verdict.repeated),
        (0, 0, 0),
        "the whole asset in its order: {verdict}"
    );
    wait_metric_is(&successor, HELD, 0.0).await;
}

#[tokio::test]
async fn a_denial_of_a_subject_that_the_server_has_mapped_holds_up_its_own_asset_alone() {
    let config = "mappings: {\"*.*\": \"plant.$1.$2\"}\n";
    let (mut stage, config) = denying(PublishMode::Core, "plant.BAD-0000.>", config).await;
    let mapped = "mapped";
    observer::record(&stage.clusters[0].1, mapped, &["plant.*.*"])
        .await
        .unwrap();
    let bad = poison(&stage);
    let forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(1_000).await.unwrap();
    bad.send(1).await.unwrap();
    stage.traffic.send(1_000).await.unwrap();
    forwarder.wait_metric(PUBLISHED, 2_000.0, SOON).await.unwrap();
    wait_metric_is(&forwarder, HELD, 1.0).await;
    // It is tried again and again, and what flows meanwhile is not disturbed.
    let reconnects = forwarder
        .metrics()
        .await
        .unwrap()
        .sum("asset_forwarder_reconnects_total", &[]);
    let refusals = forwarder
        .metrics()
        .await
        .unwrap()
        .sum(REFUSED, &[("reason", "refused")]);
    forwarder.wait_metric(REFUSED, refusals + 3.0, SOON).await.unwrap();
    stage.traffic.send(1_000).await.unwrap();
    forwarder.wait_metric(PUBLISHED, 3_000.0, SOON).await.unwrap();
    let metrics = forwarder.metrics().await.unwrap();
    assert_eq!(
        metrics.sum("asset_forwarder_reconnects_total", &[]),
        reconnects,
        "the connection stays"
    );

    stage.clusters[0]
        .1
        .reconfigure("plant.BAD-0000.>", "other.subject")
        .unwrap();
    stage.wait_committed().await;
    let streams = [Stored {
        cluster: "C1",
        nats: &stage.clusters[0].1,
        stream: mapped,
    }];
    for ledger in [stage.traffic.ledger(), bad.ledger()] {
        let verdict = observer::read_streams(&streams, &ledger, None).await.unwrap();
        assert_eq!((verdict.lost, verdict.out_of_order), (0, 0), "{verdict}");
    }
}

#[tokio::test]
async fn a_full_stream_sends_nothing_to_the_dead_letter() {
    let stage = Stage::new(PublishMode::JetStream, 1).await;
    let context = jetstream::new(stage.clusters[0].1.client().await.unwrap());
    let full = |messages: i64| jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["assets.>".to_owned()],
        max_messages: messages,
        discard: jetstream::stream::DiscardPolicy::New,
        ..jetstream::stream::Config::default()
    };
    context.create_stream(full(100)).await.unwrap();
    let (mut config, letters) = lettered(&stage);
    config.publish.stream = Some(unmanaged());
    config.publish.retry.max_attempts = Some(2);
    config.publish.retry.initial_backoff_ms = 20;
    config.publish.retry.max_backoff_ms = 100;
    let forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(1_000).await.unwrap();
    // Many more refusals than attempts are allowed to each asset.
    forwarder.wait_metric(REFUSED, 2_000.0, SOON).await.unwrap();
    stage
        .wait_last_error(&forwarder, "C1", "maximum messages exceeded")
        .await;
    assert!(!letters.join("letters").exists() || fs::read(letters.join("letters")).unwrap().is_empty());
    wait_metric_is(&forwarder, HELD, 0.0).await;
    context.update_stream(full(-1)).await.unwrap();
    let verdict = stage.verdict().await;
    verdict.check_exactly_once().unwrap();
    drop(letters);
}

#[tokio::test]
async fn what_no_server_can_take_is_stepped_over_at_once() {
    let stage = Stage::new(PublishMode::JetStream, 1).await;
    let (config, letters) = lettered(&stage);
    let forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(200).await.unwrap();
    // JetStream stores no headers of more than 64 KiB, however it is configured.
    let heavy = Raw {
        key: Some(b"WTVB01-0003".to_vec()),
        value: Some(br#"{"id":"x"}"#.to_vec()),
        headers: vec![("h".to_owned(), Some(vec![b'x'; 70_000]))],
        ..Raw::default()
    };
    stage.traffic.send_record(heavy).await.unwrap();
    stage.traffic.send(200).await.unwrap();
    let verdict = stage.verdict().await;
    assert_eq!(
        (verdict.lost, verdict.out_of_order, verdict.repeated),
        (0, 0, 0),
        "{verdict}"
    );
    let text = fs::read_to_string(letters.join("letters")).unwrap();
    let reasons: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["reason"].clone())
        .collect();
    assert_eq!(reasons, ["impossible"], "{text}");
    let metrics = forwarder.metrics().await.unwrap();
    assert_eq!(metrics.sum(INVALID, &[("reason", "impossible")]), 1.0);
}

#[tokio::test]
async fn a_larger_record_than_the_stream_takes_waits_until_the_limit_is_raised() {
    let stage = Stage::new(PublishMode::JetStream, 1).await;
    let context = jetstream::new(stage.clusters[0].1.client().await.unwrap());
    let limited = |bytes: i32| jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["assets.>".to_owned()],
        max_message_size: bytes,
        ..jetstream::stream::Config::default()
    };
    context.create_stream(limited(2_000)).await.unwrap();
    let mut config = stage.config();
    config.publish.stream = Some(unmanaged());
    config.publish.retry.max_backoff_ms = 200;
    let large = Plan {
        assets: 1,
        prefix: "BAD".to_owned(),
        value_bytes: 4_000,
        ..Plan::default()
    };
    let large = Traffic::new(stage.kafka.bootstrap(), &stage.topic, large).unwrap();
    large.send(50).await.unwrap();
    stage.traffic.send(1_000).await.unwrap();
    let forwarder = stage.start("forwarder", &config).await;
    forwarder.wait_metric(PUBLISHED, 1_000.0, SOON).await.unwrap();
    stage
        .wait_last_error(&forwarder, "C1", "message size exceeds maximum allowed")
        .await;
    wait_metric_is(&forwarder, HELD, 1.0).await;
    context.update_stream(limited(-1)).await.unwrap();
    stage.wait_committed().await;
    let streams = [Stored {
        cluster: "C1",
        nats: &stage.clusters[0].1,
        stream: STREAM,
    }];
    for ledger in [stage.traffic.ledger(), large.ledger()] {
        let verdict = observer::read_streams(&streams, &ledger, None).await.unwrap();
        assert_eq!(
            (verdict.lost, verdict.out_of_order, verdict.repeated),
            (0, 0, 0),
            "{verdict}"
        );
    }
}

#[tokio::test]
async fn a_stop_while_a_cluster_is_away_repeats_nothing_of_the_others_however_few_records_there_are() {
    let mut stage = Stage::new(PublishMode::Core, 2).await;
    let config = stage.config();
    let mut forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(200).await.unwrap();
    forwarder.wait_metric(PUBLISHED, 200.0, SOON).await.unwrap();
    stage.wait_committed().await;
    stage.clusters[1].1.pause().unwrap();
    stage.traffic.send(600).await.unwrap();
    let published = |cluster: &'static str| [("cluster", cluster)];
    let before = forwarder.metrics().await.unwrap().sum(PUBLISHED, &published("C2"));
    // Each asset has had one record, so this is what the three others bring to the cluster that answers.
    let others = (200.0 - before) * 4.0;
    wait::eventually(SOON, "the other cluster has all of its records", || async {
        let sum = forwarder.metrics().await?.sum(PUBLISHED, &published("C1"));
        anyhow::ensure!(sum >= others, "{sum} of {others}");
        Ok(true)
    })
    .await
    .unwrap();
    assert!(forwarder.terminate(Duration::from_secs(20)).await.unwrap().success());
    let successor = stage.start("successor", &config).await;
    stage.clusters[1].1.resume().unwrap();
    stage.wait_committed().await;
    let metrics = successor.metrics().await.unwrap();
    assert_eq!(
        metrics.sum(PUBLISHED, &published("C1")),
        0.0,
        "all of them were confirmed before the stop"
    );
    assert_eq!(metrics.sum(PUBLISHED, &published("C2")), 3.0 * before);
    let verdict = stage.tally().await.verdict(&stage.traffic.ledger());
    assert_eq!((verdict.lost, verdict.out_of_order), (0, 0), "{verdict}");
}

/// One asset of which every record is denied.
fn poison(stage: &Stage) -> Traffic {
    let plan = Plan {
        assets: 1,
        prefix: "BAD".to_owned(),
        ..Plan::default()
    };
    Traffic::new(stage.kafka.bootstrap(), &stage.topic, plan).unwrap()
}

/// A cluster that denies a subject to the forwarder's user, and a configuration with that user.
pub(crate) async fn denying(mode: PublishMode, denied: &str, more: &str) -> (Stage, Config) {
    let user = User {
        name: "forwarder".to_owned(),
        password: "forwards".to_owned(),
        permissions: format!("publish: {{deny: [\"{denied}\"]}}"),
        ..User::default()
    };
    let options = Options {
        login: Login::Users(vec![user]),
        config: more.to_owned(),
        ..Options::default()
    };
    let nats = Nats::start_with(options).await.unwrap();
    let password_file = nats.dir().join("password");
    fs::write(&password_file, "forwards").unwrap();
    let stage = Stage::of(Kafka::shared().await.unwrap(), mode, vec![nats]).await;
    let mut config = stage.config();
    config.ring.clusters[0].auth = Some(NatsAuth::UserPassword {
        username: "forwarder".to_owned(),
        password_file,
    });
    config.publish.retry.initial_backoff_ms = 20;
    config.publish.retry.max_backoff_ms = 200;
    (stage, config)
}

/// The stream of the test, which the forwarder only looks at.
fn unmanaged() -> Stream {
    serde_json::from_value(serde_json::json!({ "name": STREAM })).unwrap()
}

/// A configuration with a dead letter in a file `letters`, and its folder.
fn lettered(stage: &Stage) -> (Config, std::path::PathBuf) {
    let folder = stage.clusters[0].1.dir().to_owned();
    let mut config = stage.config();
    config.dead_letter = Some(DeadLetter::File {
        path: folder.join("letters"),
    });
    (config, folder)
}

async fn wait_metric_is(forwarder: &Forwarder, name: &str, expected: f64) {
    wait::eventually(SOON, "a gauge shows what is so", || async {
        let value = forwarder.metrics().await?.sum(name, &[]);
        anyhow::ensure!(value == expected, "{name} is {value}, not {expected}");
        Ok(true)
    })
    .await
    .unwrap();
}

/// Everything is committed but what is behind the refused record, which the commit's metadata names.
async fn wait_lanes_are_told(stage: &Stage) {
    wait::eventually(SOON, "the metadata of a commit names the lane", || async {
        let committed = stage.kafka.committed(&stage.group, &stage.topic).await?;
        let ends = stage.kafka.end_offsets(&stage.topic).await?;
        let told = committed.iter().zip(&ends).filter(|(commit, end)| {
            let end = format!(" beyond={end} ");
            commit.metadata.contains(&end) && commit.metadata.contains(" lanes=C1:")
        });
        anyhow::ensure!(told.count() == 1, "{committed:?}");
        Ok(true)
    })
    .await
    .unwrap();
}
