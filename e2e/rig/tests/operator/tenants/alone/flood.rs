//! A flood of events from another namespace, which grants nothing, holds nobody up.

use std::time::Instant;

use e2e_rig::kubernetes::Namespace;
use e2e_rig::site::{FORWARDER, Site, status};
use forwarder_core::document::PublishMode;
use serde_json::json;

use crate::figures::tell;
use crate::flood::Flood;

/// A cluster joins, pods are scaled and the forwarder is suspended, each while so many events a second go on.
async fn beside_a_flood_of(per_second: u32) {
    let site = Site::of_cluster(PublishMode::Core, 3).await;
    let mut forwarder = site.forwarder(1);
    // So each event there is one of a cluster that might be a member.
    forwarder["spec"]["clusters"]["namespaceSelector"] = json!({"matchLabels": {"flood": "yes"}});
    site.apply(&[site.cluster(0), site.cluster(1), site.channel(), forwarder])
        .await;
    let epoch = status(&site.wait_ready().await).ring.unwrap().epoch;
    let hostile = Namespace::with_labels(&site.namespace.kubernetes, &[("flood", "yes")]).unwrap();
    let begun = Instant::now();
    let flood = Flood::of_ungranted_clusters(&hostile, per_second).await;

    let before = flood.written();
    site.apply(&[site.cluster(2)]).await;
    site.wait_ring(&["C1", "C2", "C3"], epoch).await;
    flood.check_goes_on().await;
    let joined = flood.written();
    let scale = ["scale", "assetforwarder", FORWARDER, "--replicas=2"];
    site.namespace.kubectl(&scale).await.unwrap();
    site.wait("two pods are ready", |forwarder| status(forwarder).ready_replicas == 2)
        .await;
    flood.check_goes_on().await;
    let scaled = flood.written();
    let ring = status(&site.get().await).ring.unwrap();
    assert_eq!(ring.names, ["C1", "C2", "C3"], "who grants nothing is no member");
    assert!(ring.excluded.is_empty(), "and is told of nowhere: {:?}", ring.excluded);
    let suspend = [
        "patch",
        "assetforwarder",
        FORWARDER,
        "--type=merge",
        "-p",
        "{\"spec\":{\"suspend\":true}}",
    ];
    site.namespace.kubectl(&suspend).await.unwrap();
    site.wait_reason("Suspended").await;
    flood.check_goes_on().await;

    let seconds = begun.elapsed().as_secs_f64();
    let written = flood.end().await;
    tell(&format!(
        "a flood of {per_second} events/s: {written} in {seconds:.0} s, {} until a member had joined, {} until pods were scaled, {} until they \
         were suspended",
        joined - before,
        scaled - joined,
        written - scaled
    ));
}

#[tokio::test]
async fn a_flood_of_200_events_a_second_from_elsewhere_delays_no_work() {
    beside_a_flood_of(200).await;
}

#[tokio::test]
async fn long_a_flood_of_50_events_a_second_from_elsewhere_delays_no_work() {
    beside_a_flood_of(50).await;
}

#[tokio::test]
async fn long_a_flood_of_10_events_a_second_from_elsewhere_delays_no_work() {
    beside_a_flood_of(10).await;
}
