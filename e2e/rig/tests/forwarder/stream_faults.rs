//! Streams that stop confirming while somebody else listens to their subjects, and JetStream that is elsewhere: each is told, and is
//! over as soon as it is mended.

use std::fs;

use async_nats::jetstream::stream::Config as StreamConfig;
use e2e::port::Port;
use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::Kafka;
use e2e_rig::nats::{Login, Nats, Options, User};
use e2e_rig::wait;
use forwarder_core::document::{Config, JetStreamApi, NatsAuth, PublishMode};

use crate::stage::{PUBLISHED, SOON, STREAM, Stage};
use crate::stream::{context, given, holds_all_since, stream, unmanaged};

const FAULTS: &str = "asset_forwarder_stream_faults_total";

/// Records of one go: six of each asset.
const RECORDS: u32 = 1_200;

/// A subscriber takes the records, so the server never says that nobody does.
#[tokio::test]
async fn a_managed_stream_that_is_deleted_under_a_subscriber_is_made_anew() {
    let stage = Stage::new(PublishMode::JetStream, 1).await;
    let mut forwarder = stage.start("forwarder", &impatient(stage.config())).await;
    let given = deleted_under_a_subscriber(&stage, &forwarder).await;
    stage.traffic.send(RECORDS.into()).await.unwrap();
    holds_all_since(&stage, &given).await;
    assert_eq!(faults(&forwarder, "missing").await, 1.0);
    let log = forwarder.process().log().unwrap();
    assert!(
        log.contains("acks were missing, because the stream was not as declared"),
        "{log}"
    );
}

#[tokio::test]
async fn a_stream_of_others_that_is_deleted_under_a_subscriber_is_named_and_waited_for() {
    let stage = Stage::new(PublishMode::JetStream, 1).await;
    context(&stage).await.create_stream(stream()).await.unwrap();
    let mut forwarder = stage.start("forwarder", &impatient(unmanaged(&stage))).await;
    let given = deleted_under_a_subscriber(&stage, &forwarder).await;
    stage.traffic.send(RECORDS.into()).await.unwrap();
    stage.wait_last_error(&forwarder, "C1", "does not exist").await;
    let log = forwarder.process().log().unwrap();
    assert!(
        log.contains("acks are missing because of a fault of the stream"),
        "{log}"
    );
    assert!(faults(&forwarder, "missing").await >= 1.0);
    assert_eq!(
        forwarder.metrics().await.unwrap().sum(PUBLISHED, &[]),
        f64::from(RECORDS)
    );
    context(&stage).await.create_stream(stream()).await.unwrap();
    holds_all_since(&stage, &given).await;
}

/// What the stream takes all the same goes on, so the connection stays.
#[tokio::test]
async fn a_stream_that_takes_fewer_subjects_is_named_until_it_takes_all() {
    let stage = Stage::new(PublishMode::JetStream, 1).await;
    context(&stage).await.create_stream(stream()).await.unwrap();
    let mut forwarder = stage.start("forwarder", &impatient(unmanaged(&stage))).await;
    stage.traffic.send(RECORDS.into()).await.unwrap();
    forwarder.wait_metric(PUBLISHED, RECORDS.into(), SOON).await.unwrap();
    subscribe(&stage).await;
    let narrow = StreamConfig {
        subjects: vec!["assets.none.>".to_owned()],
        ..stream()
    };
    context(&stage).await.update_stream(&narrow).await.unwrap();
    stage.traffic.send(RECORDS.into()).await.unwrap();
    let error = stage.wait_last_error(&forwarder, "C1", "do not cover").await;
    assert!(error.contains("assets.none.>") && error.contains("assets.>"), "{error}");
    assert!(faults(&forwarder, "not_covered").await >= 1.0);
    assert_eq!(status(&forwarder).await["connected"], true);
    let log = forwarder.process().log().unwrap();
    assert!(
        log.contains("acks are missing because of a fault of the stream"),
        "{log}"
    );
    context(&stage).await.update_stream(&stream()).await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
    wait::eventually(SOON, "the status says nothing more of it", || async {
        let status = status(&forwarder).await;
        let error = status["lastError"].as_str().unwrap_or_default();
        anyhow::ensure!(!error.contains("do not cover"), "{status}");
        Ok(true)
    })
    .await
    .unwrap();
}

/// Off is told by the server; silence is told by nobody.
#[tokio::test]
async fn a_jetstream_that_is_off_is_told_apart_from_one_that_is_silent() {
    let off = Nats::start_with(Options {
        jetstream: false,
        ..Options::default()
    })
    .await
    .unwrap();
    let stage = Stage::of(Kafka::shared().await.unwrap(), PublishMode::JetStream, vec![off]).await;
    let forwarder = stage.start("forwarder", &stage.config()).await;
    let error = stage
        .wait_last_error(&forwarder, "C1", "JetStream is not enabled")
        .await;
    assert!(error.contains("`$JS.API`"), "{error}");
    // Somebody listens where JetStream should be, and says nothing.
    let client = stage.clusters[0].1.client().await.unwrap();
    let _silent = client.subscribe("$JS.API.>").await.unwrap();
    client.flush().await.unwrap();
    let error = stage.wait_last_error(&forwarder, "C1", "did not answer").await;
    assert!(
        error.contains("publish to `$JS.API.STREAM.INFO.all`") && error.contains("subscribe to `_INBOX.>`"),
        "{error}"
    );
    assert!(faults(&forwarder, "not_enabled").await >= 1.0 && faults(&forwarder, "silent").await >= 1.0);
}

/// JetStream is in a hub, the forwarder at a leaf node, as a user who may use that domain's API and an inbox prefix of its own, and
/// nothing else.
#[tokio::test]
async fn records_reach_the_jetstream_of_a_hub_by_its_domain_and_an_inbox_of_ones_own() {
    let port = Port::reserve().unwrap();
    let hub = Nats::start_with(Options {
        domain: Some("hub".to_owned()),
        config: format!("leafnodes {{listen: \"{}\"}}\n", port.address()),
        ..Options::default()
    })
    .await
    .unwrap();
    let permissions =
        "publish: {allow: [\"$JS.hub.API.STREAM.>\", \"assets.>\"]}, subscribe: {allow: [\"_INBOX_f.>\"]}";
    let leaf = Nats::start_with(Options {
        jetstream: false,
        login: Login::Users(vec![User {
            name: "forwarder".to_owned(),
            password: "forwards".to_owned(),
            permissions: permissions.to_owned(),
            ..User::default()
        }]),
        config: format!("leafnodes {{remotes: [{{url: \"nats-leaf://{}\"}}]}}\n", port.address()),
        ..Options::default()
    })
    .await
    .unwrap();
    let password_file = leaf.dir().join("password");
    fs::write(&password_file, "forwards").unwrap();
    let stage = Stage::of(Kafka::shared().await.unwrap(), PublishMode::JetStream, vec![hub]).await;
    let mut config = stage.config();
    let cluster = &mut config.ring.clusters[0];
    cluster.servers = vec![leaf.url()];
    cluster.auth = Some(NatsAuth::UserPassword {
        username: "forwarder".to_owned(),
        password_file,
    });
    stage.traffic.send(RECORDS.into()).await.unwrap();

    // Each setting that is missing is told by what the server denies.
    denied(&stage, &config, "subscribe to \"_INBOX.", "subscribe to `_INBOX.>`").await;
    config.ring.clusters[0].inbox_prefix = Some("_INBOX_f".to_owned());
    denied(
        &stage,
        &config,
        "publish to \"$JS.API.STREAM.INFO.all\"",
        "subscribe to `_INBOX_f.>`",
    )
    .await;
    config.ring.clusters[0].jet_stream = Some(JetStreamApi {
        domain: Some("hub".to_owned()),
        api_prefix: None,
    });
    let _forwarder = stage.start("forwarder", &config).await;
    stage.verdict().await.check_exactly_once().unwrap();
}

async fn denied(stage: &Stage, config: &Config, said: &str, needed: &str) {
    let mut forwarder = stage.start("denied", config).await;
    let error = stage.wait_last_error(&forwarder, "C1", said).await;
    for part in [needed, "denies requests to JetStream", "jetStream and inboxPrefix"] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert!(faults(&forwarder, "permission").await >= 1.0);
    assert!(forwarder.terminate(SOON).await.unwrap().success());
}

/// Sends a first go, then deletes the stream under a subscriber. Yields what was sent so far.
async fn deleted_under_a_subscriber(stage: &Stage, forwarder: &Forwarder) -> Vec<u32> {
    stage.traffic.send(RECORDS.into()).await.unwrap();
    forwarder.wait_metric(PUBLISHED, RECORDS.into(), SOON).await.unwrap();
    stage.wait_committed().await;
    subscribe(stage).await;
    context(stage).await.delete_stream(STREAM).await.unwrap();
    given(stage)
}

/// Somebody who listens to the records for as long as the test lasts.
async fn subscribe(stage: &Stage) {
    let client = stage.clusters[0].1.client().await.unwrap();
    let mut records = client.subscribe("assets.>").await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move { while futures::StreamExt::next(&mut records).await.is_some() {} });
}

/// Acks are overdue after two seconds, so that the test need not wait for five. With less, a server on a busy machine is given up.
fn impatient(mut config: Config) -> Config {
    config.publish.retry.confirm_timeout_ms = 2_000;
    config
}

async fn faults(forwarder: &Forwarder, reason: &str) -> f64 {
    forwarder.metrics().await.unwrap().sum(FAULTS, &[("reason", reason)])
}

async fn status(forwarder: &Forwarder) -> serde_json::Value {
    forwarder.status().await.unwrap()["clusters"]["C1"].clone()
}
