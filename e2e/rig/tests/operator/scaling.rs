//! Pods by lag.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Context as _;
use e2e_rig::proxy::Proxy;
use e2e_rig::site::{FORWARDER, PODS, Site, status};
use forwarder_core::document::PublishMode;
use serde_json::json;

#[tokio::test]
async fn pods_come_with_lag_and_go_one_by_one_without_it() {
    let site = Site::new(PublishMode::JetStream, 1).await;
    // A tenth of a second to and fro, and forty records under way: a pod delivers four hundred a second, three pods twice what is sent.
    let nats = Proxy::start_at(Site::host().await, &site.stage.clusters[0].1.address())
        .await
        .unwrap();
    nats.slow(Duration::from_millis(50)).await.unwrap();
    let mut cluster = site.cluster(0);
    cluster["spec"]["external"]["servers"] = json!([nats.nats_url()]);
    let mut manifest = site.forwarder(1);
    manifest["spec"]["limits"] = json!({"maxPendingRecords": 80, "maxPendingRecordsPerCluster": 40});
    // Of the topic's six partitions.
    manifest["spec"]["autoscaling"] =
        json!({"minReplicas": 1, "maxReplicas": 3, "lagPerReplica": 200, "scaleDownDelaySeconds": 3});
    site.apply(&[cluster, site.channel(), manifest]).await;
    site.wait_ready().await;
    let flow = site.stage.flow(600);
    let grown = |forwarder: &crds::AssetForwarder| status(forwarder).desired_replicas == Some(3);
    site.wait("three pods for the lag", grown).await;
    // A hand that scales the resource meanwhile changes nothing: lag does.
    let scale = ["scale", "assetforwarder", FORWARDER, "--replicas=5"];
    site.namespace.kubectl(&scale).await.unwrap();
    flow.stop().await.unwrap();

    let seen = RefCell::new(vec![3]);
    e2e_rig::wait::eventually(PODS, "one pod is enough", || async {
        let desired = status(&site.get().await).desired_replicas.context("it is not told")?;
        let mut seen = seen.borrow_mut();
        if seen.last() != Some(&desired) {
            seen.push(desired);
        }
        Ok(desired == 1)
    })
    .await
    .unwrap();
    let seen = seen.into_inner();
    assert!(
        seen.windows(2).all(|pair| pair[0] - pair[1] == 1),
        "one at a time: {seen:?}"
    );
    site.wait_ready().await;
    site.stage.verdict().await.check_exactly_once().unwrap();
}
