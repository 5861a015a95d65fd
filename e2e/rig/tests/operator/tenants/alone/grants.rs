//! What is in another namespace is used only where it says so.

use e2e_rig::kubernetes::Namespace;
use e2e_rig::site::{Site, status};
use forwarder_core::document::PublishMode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

use crate::judge;

#[tokio::test]
async fn another_namespace_must_grant() {
    let site = Site::of_cluster(PublishMode::Core, 1).await;
    let kubernetes = site.namespace.kubernetes.clone();
    let other = Namespace::with_labels(&kubernetes, &[("halls", "yes")]).unwrap();
    let mut channel = site.channel();
    let mut cluster = site.cluster(0);
    let mut forwarder = site.forwarder(1);
    forwarder["spec"]["sources"][0]["channelRef"]["namespace"] = json!(other.name);
    forwarder["spec"]["clusters"]["namespaceSelector"] = json!({"matchLabels": {"halls": "yes"}});
    site.apply(&[forwarder.clone()]).await;
    let missing = site.wait_reason("NotGranted").await;
    other.apply(&format!("{channel}\n---\n{cluster}")).await.unwrap();
    // Its new generation is looked at when the channel is there.
    forwarder["spec"]["ring"] = json!({"handoverTimeoutSeconds": 59});
    site.apply(&[forwarder]).await;
    let message = site.wait_reason("NotGranted").await;
    assert_eq!(message, missing, "whether it exists is not told");
    assert!(
        message.contains(&other.name) && message.contains("allowedNamespaces"),
        "{message}"
    );

    // The channel is granted, the cluster is not.
    channel["spec"]["allowedNamespaces"] = json!({"from": "All"});
    other.apply(&channel.to_string()).await.unwrap();
    site.wait_reason("NoClusters").await;
    let forwarder = site.get().await;
    assert!(
        status(&forwarder).ring.unwrap().excluded.is_empty(),
        "of a cluster that lets nobody in nothing is told"
    );
    let conditions = status(&forwarder).conditions;
    let told = |condition: &Condition| condition.message.contains(&format!("{}/c1", other.name));
    assert!(!conditions.iter().any(told), "{conditions:?}");
    let get = ["get", "events.events.k8s.io", "-o", "jsonpath={.items[*].note}"];
    let events = site.namespace.kubectl(&get).await.unwrap();
    assert!(!events.contains(&format!("{}/c1", other.name)), "{events}");

    let labels = json!({"matchLabels": {"kubernetes.io/metadata.name": site.namespace.name}});
    cluster["spec"]["allowedNamespaces"] = json!({"from": "Selector", "selector": labels});
    other.apply(&cluster.to_string()).await.unwrap();
    site.wait_ring(&["C1"], 0).await;
    site.stage.traffic.send(1_000).await.unwrap();
    judge::exactly_once(&site).await;

    // What was granted may be taken back: the ring lets it go in order.
    cluster["spec"]["allowedNamespaces"] = json!({"from": "Same"});
    other.apply(&cluster.to_string()).await.unwrap();
    site.wait_reason("NoClusters").await;
}
