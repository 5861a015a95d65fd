//! Subjects that a server denies to the forwarder's user, among others that it allows.

use std::fs;

use e2e_rig::forwarder::Forwarder;
use e2e_rig::wait;
use forwarder_core::document::{Config, DeadLetter, PublishMode};

use crate::stage::{PUBLISHED, SOON, Stage};

/// The asset whose every sixth record, from its third on, has a denied subject.
const ASSET: u32 = 3;
const SUBJECT: &str = "WTVB01-0003.SpindleSpeed";

#[tokio::test]
async fn a_denied_core_record_holds_up_its_own_asset_alone_until_it_is_allowed() {
    holds_up_its_own_asset_alone(PublishMode::Core).await;
}

#[tokio::test]
async fn a_denied_jetstream_record_holds_up_its_own_asset_alone_until_it_is_allowed() {
    holds_up_its_own_asset_alone(PublishMode::JetStream).await;
}

async fn holds_up_its_own_asset_alone(mode: PublishMode) {
    let (mut stage, config) = denying(mode).await;
    let mut forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(2_400).await.unwrap();
    // All but the denied record and the nine of its asset behind it, six of which have subjects that are allowed.
    forwarder.wait_metric(PUBLISHED, 2_390.0, SOON).await.unwrap();
    wait_refusals(&forwarder, 3.0).await;
    // What comes later passes by as well.
    stage.traffic.send(1_200).await.unwrap();
    forwarder.wait_metric(PUBLISHED, 3_584.0, SOON).await.unwrap();
    wait_one_partition_waits(&stage).await;
    let tally = stage.tally().await;
    assert_eq!(tally.of_asset(ASSET), 2, "nothing overtakes the denied record");
    let verdict = tally.verdict(&stage.traffic.ledger());
    assert_eq!((verdict.lost, verdict.out_of_order), (16, 0), "{verdict}");
    let metrics = forwarder.metrics().await.unwrap();
    assert_eq!(metrics.sum(PUBLISHED, &[]), 3_584.0);
    assert!(metrics.sum("asset_forwarder_nats_publish_failures_total", &[]) >= 3.0);
    let log = forwarder.process().log().unwrap();
    assert!(
        log.contains("denies a subject") && log.contains(SUBJECT),
        "the log names the subject:\n{log}"
    );

    stage.clusters[0].1.reconfigure(SUBJECT, "other.subject").unwrap();
    let verdict = stage.verdict().await;
    verdict.check().unwrap();
    if mode == PublishMode::JetStream {
        verdict.check_exactly_once().unwrap();
    }
}

#[tokio::test]
async fn a_denied_core_record_is_dead_lettered_after_the_declared_attempts_and_others_follow() {
    is_dead_lettered(PublishMode::Core).await;
}

#[tokio::test]
async fn a_denied_jetstream_record_is_dead_lettered_after_the_declared_attempts_and_others_follow() {
    is_dead_lettered(PublishMode::JetStream).await;
}

async fn is_dead_lettered(mode: PublishMode) {
    let (stage, mut config) = denying(mode).await;
    let dir = tempfile::tempdir().unwrap();
    let letters = dir.path().join("letters.jsonl");
    config.dead_letter = Some(DeadLetter::File { path: letters.clone() });
    config.publish.retry.max_attempts = Some(3);
    let forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(2_400).await.unwrap();
    let verdict = stage.verdict().await;
    assert_eq!(
        (verdict.lost, verdict.out_of_order, verdict.repeated),
        (2, 0, 0),
        "all but the two denied records: {verdict}"
    );
    let text = fs::read_to_string(&letters).unwrap();
    let letters: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(letters.len(), 2, "{text}");
    assert!(letters.iter().all(|letter| letter["reason"] == "refused"), "{text}");
    let metrics = forwarder.metrics().await.unwrap();
    let refused = [("reason", "refused")];
    assert_eq!(metrics.sum("asset_forwarder_dead_letters_total", &refused), 2.0);
    assert_eq!(
        metrics.sum("asset_forwarder_retries_total", &refused),
        6.0,
        "three attempts each"
    );
}

/// A cluster that denies [`SUBJECT`] to the forwarder's user, and a configuration with that user.
async fn denying(mode: PublishMode) -> (Stage, Config) {
    let prefix = match mode {
        PublishMode::Core => "",
        PublishMode::JetStream => "assets.",
    };
    crate::poison::denying(mode, &format!("{prefix}{SUBJECT}"), "").await
}

async fn wait_refusals(forwarder: &Forwarder, at_least: f64) {
    wait::eventually(SOON, "the denied record is tried again and again", || async {
        let refused = forwarder
            .metrics()
            .await?
            .sum("asset_forwarder_retries_total", &[("reason", "refused")]);
        anyhow::ensure!(refused >= at_least, "{refused} refusals");
        Ok(true)
    })
    .await
    .unwrap();
}

/// Every partition is committed to its end, but for the denied asset's, which is committed up to the denied record.
async fn wait_one_partition_waits(stage: &Stage) {
    wait::eventually(SOON, "all partitions but one are committed", || async {
        let ends = stage.kafka.end_offsets(&stage.topic).await?;
        let committed = stage.kafka.committed(&stage.group, &stage.topic).await?;
        let behind = ends
            .iter()
            .zip(&committed)
            .filter(|(end, committed)| committed.offset.unwrap_or(0) < **end);
        let behind = behind.count();
        anyhow::ensure!(behind == 1, "{behind} partitions are behind");
        Ok(true)
    })
    .await
    .unwrap();
}
