//! A server that holds still: its connections stay open, it takes what the kernel takes for it, and answers nothing.

use std::time::Duration;

use e2e_rig::stage::{PUBLISHED, SOON, Stage};
use forwarder_core::document::PublishMode;

/// How long the server holds still. The fault itself, not a wait for luck.
const STILL: Duration = Duration::from_secs(10);

/// What waits for one cluster in that time stays below its cap, so that the other one is not held up by the caps.
const RATE: u32 = 2_000;

#[tokio::test]
async fn a_core_server_that_holds_still_for_ten_seconds_loses_and_swaps_nothing() {
    server_holds_still(PublishMode::Core).await;
}

#[tokio::test]
async fn a_jetstream_server_that_holds_still_for_ten_seconds_loses_swaps_and_repeats_nothing() {
    server_holds_still(PublishMode::JetStream).await;
}

async fn server_holds_still(mode: PublishMode) {
    let mut stage = Stage::new(mode, 2).await;
    let forwarder = stage.start("forwarder", &stage.config()).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, 2_000.0).await;
    let published = async |cluster| {
        let metrics = forwarder.metrics().await.unwrap();
        metrics.sum(PUBLISHED, &[("cluster", cluster)])
    };
    stage.clusters[0].1.pause().unwrap();
    let (still, other) = (published("C1").await, published("C2").await);
    tokio::time::sleep(STILL).await;
    // An answer that was on its way when it was stopped may still have come in.
    let (still, other) = (published("C1").await - still, published("C2").await - other);
    stage.clusters[0].1.resume().unwrap();
    assert!(
        still < f64::from(RATE) / 2.0,
        "C1 was to hold still, and confirmed {still} records"
    );
    assert!(
        other > f64::from(RATE) * 2.0,
        "C2 has nothing to do with it, and confirmed only {other} records"
    );
    // The silence outlasts the confirmation's timeout: what was sent into it is sent again on another connection.
    forwarder
        .wait_metric("asset_forwarder_reconnects_total", 1.0, SOON)
        .await
        .unwrap();
    stage.wait_published(&forwarder, 4_000.0).await;
    flow.stop().await.unwrap();
    let verdict = stage.verdict().await;
    verdict.check().unwrap();
    if mode == PublishMode::JetStream {
        verdict.check_exactly_once().unwrap();
    }
}
