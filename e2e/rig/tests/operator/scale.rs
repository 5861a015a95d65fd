//! What a forwarder costs the API server: counted in requests, not in time.

mod alone;

use anyhow::ensure;
use e2e_rig::crowd::{counted, has_ring, wait_all};
use e2e_rig::manifests::asset_forwarder;
use e2e_rig::nats;
use e2e_rig::site::{FORWARDER, PODS, Site};
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::figures::tell;
use crate::flood::Flood;

/// Forwarders without pods.
const FORWARDERS: usize = 100;

/// Most requests for each: to be made and Ready.
const MOST: usize = 20;

/// Most requests for each to take a cluster in that joins. There are two statuses, the ring, an event, and two lists that others may share.
/// The seventh is for what the cluster itself has written.
const MOST_OF_A_JOIN: usize = 7;

fn name(number: usize) -> String {
    format!("line-{number:03}")
}

fn forwarder(site: &Site, number: usize) -> Value {
    // One group per topic, or they would be in each other's way.
    asset_forwarder(&name(number), &format!("{}-{number}", site.stage.group), 0)
}

/// Waits until all are Ready with so many members in their rings.
async fn wait_rings(site: &Site, members: i32) {
    let what = format!("all are Ready with {members} members");
    let forwarders = site.namespace.api::<crds::AssetForwarder>();
    wait_all(&forwarders, FORWARDERS, PODS, &what, |forwarder| {
        has_ring(forwarder, members)
    })
    .await
    .unwrap();
}

async fn looks(site: &Site) -> f64 {
    let metrics = site.operator_metrics().await;
    let name = "fanout_operator_reconciles_total";
    metrics.sum(name, &[("controller", "AssetForwarder"), ("result", "success")])
}

#[tokio::test]
async fn a_hundred_forwarders_cost_few_requests_each_and_none_once_they_are_settled() {
    let site = Site::behind_proxy(PublishMode::Core, 3, nats::Options::default()).await;
    site.apply(&[site.cluster(0), site.cluster(1), site.channel()]).await;
    for object in ["natscluster/c1", "natscluster/c2", "kafkachannel/assets"] {
        let args = ["wait", object, "--for=condition=Ready", "--timeout=60s"];
        site.namespace.kubectl(&args).await.unwrap();
    }
    site.api().take_requests();

    let forwarders: Vec<Value> = (0..FORWARDERS).map(|number| forwarder(&site, number)).collect();
    site.apply(&forwarders).await;
    wait_rings(&site, 2).await;
    site.wait_quiet().await;
    let made = counted(&site.api().take_requests());
    let requests: usize = made.values().sum();
    tell(&format!(
        "{FORWARDERS} forwarders were made Ready by {requests} requests: {made:?}"
    ));
    assert!(requests <= FORWARDERS * MOST, "{requests} requests: {made:?}");

    // A change of the channel that changes nothing for them: each is looked at.
    let before = looks(&site).await;
    let patch = json!({"metadata": {"labels": {"looked": "at"}}});
    let channels = site.namespace.api::<crds::KafkaChannel>();
    channels
        .patch("assets", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    wait::eventually(PODS, "each was looked at", || async {
        let looked = looks(&site).await - before;
        ensure!(looked >= FORWARDERS as f64, "{looked} looks");
        Ok(true)
    })
    .await
    .unwrap();
    let settled = counted(&site.api().take_requests());
    // The channel itself may write its status.
    let of_forwarders: usize = settled
        .iter()
        .filter(|(what, _)| !what.contains("kafkachannels"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(of_forwarders, 0, "{settled:?}");

    site.apply(&[site.cluster(2)]).await;
    wait_rings(&site, 3).await;
    site.wait_quiet().await;
    let joined = counted(&site.api().take_requests());
    let requests: usize = joined.values().sum();
    tell(&format!(
        "a member joined {FORWARDERS} rings by {requests} requests: {joined:?}"
    ));
    assert!(
        requests <= FORWARDERS * MOST_OF_A_JOIN,
        "{requests} requests: {joined:?}"
    );

    // It is in all rings, and its status names the first of them.
    let cluster: crds::NatsCluster = site.namespace.get("c3").await.unwrap();
    let status = cluster.status.unwrap_or_default();
    assert!(status.member_of.len() <= 32, "{} names", status.member_of.len());
}

#[tokio::test]
async fn a_flood_of_events_delays_neither_a_join_nor_scaling() {
    let site = Site::new(PublishMode::Core, 3).await;
    site.apply(&[site.cluster(0), site.cluster(1), site.channel(), site.forwarder(1)])
        .await;
    let epoch = site.wait_ready().await.status.unwrap().ring.unwrap().epoch;
    let pods = site.namespace.api::<Pod>();
    let pod = pods.list(&ListParams::default()).await.unwrap().items[0].name_any();
    let clusters = || site.namespace.api::<crds::NatsCluster>();
    // Until the end of this test: what any tenant may write as often as it likes.
    let mut flood = Flood::default();
    for _ in 0..4 {
        // Labels may make a cluster a member, so each of these is looked at.
        flood.touch(clusters(), "c1", "labels", None);
        flood.touch(clusters(), "c2", "annotations", None);
        let forwarders = site.namespace.api::<crds::AssetForwarder>();
        flood.touch(forwarders, FORWARDER, "labels", None);
        flood.touch(pods.clone(), &pod, "annotations", None);
    }
    site.apply(&[site.cluster(2)]).await;
    site.wait_ring(&["C1", "C2", "C3"], epoch).await;
    let args = ["scale", "assetforwarder", FORWARDER, "--replicas=2"];
    site.namespace.kubectl(&args).await.unwrap();
    site.wait("two pods are ready", |forwarder| {
        forwarder
            .status
            .as_ref()
            .is_some_and(|status| status.ready_replicas == 2)
    })
    .await;
    let written = flood.end().await;
    assert!(written > 100, "no flood: {written} writes");
}
