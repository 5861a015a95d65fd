//! Clusters join and leave, while records flow.

use std::collections::BTreeSet;

use e2e_rig::site::{FORWARDER, PODS, Site, condition, status};
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use serde_json::{Value, json};

use crate::judge;

/// What is pending in a second of a test's traffic: more is never out when a pod ends or a connection does.
const PENDING: u64 = 500;

fn with_update(mut forwarder: Value, update: &str) -> Value {
    forwarder["spec"]["ring"] = json!({"update": update, "handoverTimeoutSeconds": 30});
    forwarder
}

/// Two clusters, then three, then one drains, then one is deleted.
async fn changes(site: Site, update: &str) {
    let first = [
        site.cluster(0),
        site.cluster(1),
        site.channel(),
        with_update(site.forwarder(2), update),
    ];
    site.apply(&first).await;
    let forwarder = site.wait_ring(&["C1", "C2"], 0).await;
    let epoch = status(&forwarder).ring.unwrap().epoch;
    let pods = judge::pods(&site).await;
    let flow = site.stage.flow(500);

    site.apply(&[site.cluster(2)]).await;
    let forwarder = site.wait_ring(&["C1", "C2", "C3"], epoch).await;
    let ring = status(&forwarder).ring.unwrap();
    let moved: f64 = ring.moved_percent.clone().unwrap().parse().unwrap();
    assert!((15.0..60.0).contains(&moved), "a third, more or less: {moved}");

    let mut drained = site.cluster(0);
    drained["spec"]["drain"] = json!(true);
    site.apply(&[drained]).await;
    let forwarder = site.wait_ring(&["C2", "C3"], ring.epoch).await;
    let ring = status(&forwarder).ring.unwrap();

    site.delete_cluster(1).await;
    let forwarder = site.wait_ring(&["C3"], ring.epoch).await;
    wait::eventually(PODS, "the object goes once every ring has let it go", || async {
        let gone = site.namespace.api::<crds::NatsCluster>().get_opt("c2").await?;
        anyhow::ensure!(gone.is_none(), "{:?}", gone.and_then(|cluster| cluster.status));
        Ok(true)
    })
    .await
    .unwrap();
    assert!(status(&forwarder).ring.unwrap().leaving.is_empty());

    let now = judge::pods(&site).await;
    match update {
        "Live" => assert_eq!(pods, now, "no pod was replaced"),
        _ => assert!(pods.is_disjoint(&now)),
    }
    flow.stop().await.unwrap();
    judge::repeated_at_most(&site, PENDING).await;
}

#[tokio::test]
async fn changes_live() {
    changes(Site::new(PublishMode::Core, 3).await, "Live").await;
}

#[tokio::test]
async fn changes_by_rolling() {
    changes(Site::new(PublishMode::Core, 3).await, "Roll").await;
}

#[tokio::test]
async fn changes_live_while_the_operator_is_killed() {
    let mut site = Site::new(PublishMode::Core, 3).await;
    site.unrest();
    changes(site, "Live").await;
}

#[tokio::test]
async fn without_a_member_nothing_is_consumed_and_nothing_is_lost() {
    let site = Site::new(PublishMode::Core, 1).await;
    site.apply(&[site.channel(), site.forwarder(1)]).await;
    let message = site.wait_reason("NoClusters").await;
    assert!(message.contains("spec.clusters.selector"), "{message}");
    let flow = site.stage.flow(200);

    site.apply(&[site.cluster(0)]).await;
    site.wait_ring(&["C1"], 0).await;
    // The only one leaves: what is out is delivered, then nothing more is consumed.
    site.delete_cluster(0).await;
    site.wait_reason("NoClusters").await;
    wait::eventually(PODS, "no pod is left, and the cluster is gone", || async {
        let cluster = site.namespace.api::<crds::NatsCluster>().get_opt("c1").await?;
        Ok(judge::pods(&site).await.is_empty() && cluster.is_none())
    })
    .await
    .unwrap();
    site.apply(&[site.cluster(0)]).await;
    site.wait_ring(&["C1"], 0).await;
    flow.stop().await.unwrap();
    judge::repeated_at_most(&site, PENDING).await;
}

#[tokio::test]
async fn of_two_clusters_of_one_name_the_first_stays() {
    let site = Site::new(PublishMode::Core, 2).await;
    let mut second = site.cluster(1);
    second["metadata"]["name"] = json!("z-second");
    second["spec"]["ringName"] = json!("C1");
    site.apply(&[site.cluster(0), site.channel(), site.forwarder(1)]).await;
    let forwarder = site.wait_ready().await;
    let epoch = status(&forwarder).ring.unwrap().epoch;
    site.apply(&[second]).await;
    let forwarder = site
        .wait("the status says why the second is no member", |forwarder| {
            let excluded = status(forwarder).ring.unwrap_or_default().excluded;
            excluded.iter().any(|excluded| excluded.reason != "NotObserved")
        })
        .await;
    let ring = status(&forwarder).ring.unwrap();
    assert_eq!(
        (ring.excluded[0].name.as_str(), ring.excluded[0].reason.as_str()),
        ("z-second", "DuplicateRingName")
    );
    assert_eq!(
        (ring.epoch, ring.names),
        (epoch, vec!["C1".to_owned()]),
        "the ring has not changed"
    );
}

#[tokio::test]
async fn a_resource_made_anew_goes_on_where_the_group_stands() {
    let site = Site::new(PublishMode::Core, 3).await;
    site.start(1).await;
    let flow = site.stage.flow(200);
    // Epochs grow, and Kafka remembers them with the group.
    site.delete_cluster(2).await;
    site.wait_ring(&["C1", "C2"], 0).await;
    site.namespace
        .kubectl(&["delete", "assetforwarder", FORWARDER])
        .await
        .unwrap();
    wait::eventually(PODS, "the pods are gone", || async {
        Ok(judge::pods(&site).await.is_empty())
    })
    .await
    .unwrap();
    site.apply(&[site.forwarder(1)]).await;
    site.wait_ring(&["C1", "C2"], 0).await;
    flow.stop().await.unwrap();
    judge::repeated_at_most(&site, PENDING).await;
    let forwarder = site.get().await;
    assert_eq!(condition(&forwarder, "Ready").unwrap().status, "True");
    let names: BTreeSet<String> = status(&forwarder).ring.unwrap().names.into_iter().collect();
    assert_eq!(names.len(), 2);
}
