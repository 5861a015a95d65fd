//! What a person must see: what keeps a forwarder from its work, and who waits for whom.

use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use e2e_rig::site::{FORWARDER, PODS, Site, condition, status};
use e2e_rig::stage::SOON;
use forwarder_core::document::PublishMode;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::json;

#[tokio::test]
async fn pods_that_a_quota_refuses_are_told_in_the_words_of_kubernetes() {
    let site = Site::new(PublishMode::Core, 1).await;
    let quota = json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    });
    site.apply(&[quota]).await;
    let manifests = [site.cluster(0), site.channel(), site.forwarder(1)];
    site.apply(&manifests).await;
    let message = site.wait_reason("PodsNotCreated").await;
    assert!(message.contains("quota: none"), "{message}");

    site.namespace
        .kubectl(&["delete", "resourcequota", "none"])
        .await
        .unwrap();
    site.wait_ready().await;
}

#[tokio::test]
async fn each_change_of_a_ring_is_told_in_its_own_words() {
    let site = Site::new(PublishMode::Core, 2).await;
    let manifests = [site.cluster(0), site.channel(), site.forwarder(1)];
    site.apply(&manifests).await;
    let epoch = |forwarder: &AssetForwarder| status(forwarder).ring.unwrap().epoch;
    let alone = epoch(&site.wait_ring(&["C1"], 0).await);
    site.apply(&[site.cluster(1)]).await;
    let joined = epoch(&site.wait_ring(&["C1", "C2"], alone).await);
    let mut drained = site.cluster(1);
    drained["spec"]["drain"] = json!(true);
    site.apply(&[drained]).await;
    let left = epoch(&site.wait_ring(&["C1"], joined).await);

    let get = [
        "get",
        "events.events.k8s.io",
        "-o",
        "jsonpath={range .items[?(@.reason==\"RingChanged\")]}{.note}{\"\\n\"}{end}",
    ];
    let notes = site.namespace.kubectl(&get).await.unwrap();
    let c2 = format!("{}/c2", site.namespace.name);
    for (epoch, part) in [
        (alone, "left: none".to_owned()),
        (joined, format!("joined: {c2}")),
        (left, format!("left: {c2}")),
    ] {
        let of_epoch = format!("epoch {epoch}: ");
        let told = notes
            .lines()
            .any(|note| note.starts_with(&of_epoch) && note.contains(&part));
        assert!(told, "{of_epoch}{part} is not told:\n{notes}");
    }
}

#[tokio::test]
async fn of_two_forwarders_of_one_topic_and_group_the_younger_one_waits() {
    const SECOND: &str = "a-second";
    let site = Site::new(PublishMode::Core, 1).await;
    site.start(1).await;
    // Another channel of the same topic changes nothing.
    let mut channel = site.channel();
    channel["metadata"]["name"] = json!("same");
    let mut second = site.forwarder(1);
    second["metadata"]["name"] = json!(SECOND);
    second["spec"]["sources"][0]["channelRef"]["name"] = json!("same");
    site.apply(&[channel]).await;
    site.namespace
        .wait::<KafkaChannel>("same", SOON, "the other channel is ready", |channel| {
            let conditions = channel.status.iter().flat_map(|status| &status.conditions);
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
        .await
        .unwrap();
    site.apply(&[second]).await;
    let waits = site
        .namespace
        .wait::<AssetForwarder>(SECOND, SOON, "the second one waits", |second| {
            condition(second, "Stalled").is_some_and(|stalled| stalled.reason == "SourceTaken")
        })
        .await
        .unwrap();
    let message = &condition(&waits, "Stalled").unwrap().message;
    assert!(
        message.contains(&format!("{}/{FORWARDER}", site.namespace.name)),
        "{message}"
    );
    assert!(site.namespace.pods(SECOND).await.unwrap().is_empty());
    let first = site.get().await;
    assert_eq!(
        condition(&first, "Ready").unwrap().status,
        "True",
        "the first one goes on"
    );

    site.namespace
        .kubectl(&["delete", "assetforwarder", FORWARDER])
        .await
        .unwrap();
    site.namespace
        .wait::<AssetForwarder>(SECOND, PODS, "the second one goes on by itself", |second| {
            condition(second, "Ready").is_some_and(|ready| ready.status == "True")
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_deleted_cluster_says_for_whom_it_waits_and_until_when() {
    let mut site = Site::new(PublishMode::Core, 2).await;
    let mut forwarder = site.forwarder(1);
    forwarder["spec"]["ring"] = json!({"handoverTimeoutSeconds": 20});
    let manifests = [site.cluster(0), site.cluster(1), site.channel(), forwarder];
    site.apply(&manifests).await;
    site.wait_ring(&["C1", "C2"], 0).await;
    // It is not reached any more, and has records to confirm.
    site.stage.clusters[1].1.pause().unwrap();
    let flow = site.stage.flow(200);
    site.delete_cluster(1).await;

    let cluster = site
        .namespace
        .wait::<NatsCluster>("c2", SOON, "the cluster says for whom it waits", |cluster| {
            condition(cluster, "Ready").is_some_and(|ready| ready.reason == "Draining")
        })
        .await
        .unwrap();
    let message = &condition(&cluster, "Ready").unwrap().message;
    for part in [&format!("{}/{FORWARDER}", site.namespace.name), "until ", "at most"] {
        assert!(message.contains(part), "{message}");
    }
    let left = format!("{}/c2", site.namespace.name);
    let forwarder = site
        .wait("the forwarder names the cluster and what its pod holds", |forwarder| {
            condition(forwarder, "Ready")
                .is_some_and(|ready| ready.message.contains(&left) && ready.message.contains(": pod "))
        })
        .await;
    assert_eq!(condition(&forwarder, "Ready").unwrap().reason, "RingConverging");

    site.stage.clusters[1].1.resume().unwrap();
    site.wait_ring(&["C1"], 0).await;
    flow.stop().await.unwrap();
}

#[tokio::test]
async fn a_budget_of_somebody_else_is_no_matter_where_none_is_wanted() {
    let site = Site::new(PublishMode::Core, 1).await;
    let budget = json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": FORWARDER},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "of-somebody-else"}}},
    });
    site.apply(&[budget]).await;
    let before: PodDisruptionBudget = site.namespace.get(FORWARDER).await.unwrap();
    site.start(1).await;
    let after: PodDisruptionBudget = site.namespace.get(FORWARDER).await.unwrap();
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert!(after.metadata.deletion_timestamp.is_none());

    // Where one is wanted, its name is taken.
    site.apply(&[site.forwarder(2)]).await;
    let message = site.wait_reason("NameTaken").await;
    assert!(message.contains("PodDisruptionBudget"), "{message}");
}
