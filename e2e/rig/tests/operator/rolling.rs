//! What cannot change in a running pod rolls, and loses nothing.

use e2e_rig::site::{FORWARDER, Site, status};
use forwarder_core::document::PublishMode;
use serde_json::json;

use crate::judge;

/// Another image, then another setting of the source, while records flow.
async fn rolls(site: Site) {
    site.start(2).await;
    let flow = site.stage.flow(500);
    let before = judge::pods(&site).await;

    let image = site.namespace.kubernetes.cluster.forwarder_image_2.clone();
    let mut manifest = site.forwarder(2);
    manifest["spec"]["image"] = json!(image);
    site.apply(&[manifest.clone()]).await;
    let forwarder = site.wait_ready().await;
    assert_eq!(status(&forwarder).image.as_deref(), Some(image.as_str()));
    let middle = judge::pods(&site).await;
    assert!(before.is_disjoint(&middle), "{before:?} {middle:?}");

    let hash = status(&forwarder).config_hash;
    manifest["spec"]["sources"][0]["clientConfig"] = json!({"fetch.min.bytes": "2"});
    site.apply(&[manifest]).await;
    let forwarder = site.wait_ready().await;
    assert_ne!(status(&forwarder).config_hash, hash);
    assert!(middle.is_disjoint(&judge::pods(&site).await));

    flow.stop().await.unwrap();
    judge::exactly_once(&site).await;
}

#[tokio::test]
async fn an_image_and_a_source_roll_without_loss() {
    rolls(Site::new(PublishMode::Core, 2).await).await;
}

#[tokio::test]
async fn rolls_while_the_operator_is_killed() {
    let mut site = Site::new(PublishMode::Core, 2).await;
    site.unrest();
    rolls(site).await;
}

#[tokio::test]
async fn a_deleted_pod_loses_nothing() {
    let site = Site::new(PublishMode::JetStream, 2).await;
    let mut manifest = site.forwarder(2);
    // The least that the broker allows: a killed member's partitions move on soon.
    manifest["spec"]["sources"][0]["clientConfig"] =
        json!({"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"});
    site.apply(&[site.cluster(0), site.cluster(1), site.channel(), manifest])
        .await;
    site.wait_ready().await;
    let flow = site.stage.flow(500);
    let before = judge::pods(&site).await;
    let victim = before.first().unwrap();
    site.namespace
        .kubectl(&["delete", "pod", victim, "--grace-period=1", "--wait=false"])
        .await
        .unwrap();
    e2e_rig::wait::eventually(e2e_rig::site::PODS, "another pod has its place", || async {
        let pods = judge::pods(&site).await;
        Ok(pods.len() == 2 && !pods.contains(victim))
    })
    .await
    .unwrap();
    site.wait_ready().await;
    flow.stop().await.unwrap();
    judge::exactly_once(&site).await;
}

#[tokio::test]
async fn an_image_that_is_not_there_is_told_and_stops_the_roll_at_one_pod() {
    let site = Site::new(PublishMode::Core, 1).await;
    site.start(2).await;
    let flow = site.stage.flow(200);
    let mut manifest = site.forwarder(2);
    manifest["spec"]["image"] = json!("fanout-forwarder:nowhere");
    site.apply(&[manifest]).await;
    let forwarder = site
        .wait("the status tells of the image", |forwarder| {
            let ready = e2e_rig::site::condition(forwarder, "Ready");
            ready.is_some_and(|ready| ready.status == "False" && ready.message.contains("fanout-forwarder:nowhere"))
        })
        .await;
    assert_eq!(status(&forwarder).ready_replicas, 1, "the other one goes on");
    site.apply(&[site.forwarder(2)]).await;
    site.wait_ready().await;
    flow.stop().await.unwrap();
    judge::exactly_once(&site).await;
    site.namespace
        .kubectl(&["get", "assetforwarder", FORWARDER])
        .await
        .unwrap();
}
