//! Definitions of a newer version under this operator: as after `helm upgrade fanout-crds`, and after a rollback of the operator alone.
//!
//! There is one version of the definitions so far; the newer one is today's with fields on top.

use crds::AssetForwarder;
use e2e_rig::site::{FORWARDER, Site, status};
use e2e_rig::stage::SOON;
use forwarder_core::document::PublishMode;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

/// The field that only the newer definitions have, in spec and in status.
const NEWER: &str = "ofTheNextVersion";

fn newer() -> Vec<CustomResourceDefinition> {
    let definitions = crds::definition::all().into_iter().map(|definition| {
        let mut definition = serde_json::to_value(definition).unwrap();
        let root = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            root[part]["properties"][NEWER] = json!({"type": "string"});
        }
        serde_json::from_value(definition).unwrap()
    });
    definitions.collect()
}

/// The field in spec and in status, as the API server has it.
async fn kept(site: &Site) -> [Value; 2] {
    let object = site
        .namespace
        .kubectl(&["get", "assetforwarder", FORWARDER, "-o", "json"])
        .await
        .unwrap();
    let object: Value = serde_json::from_str(&object).unwrap();
    ["spec", "status"].map(|part| object[part][NEWER].clone())
}

#[tokio::test]
async fn an_operator_works_on_definitions_of_the_next_version_and_again_on_its_own() {
    let site = Site::new(PublishMode::Core, 1).await;
    let kubernetes = site.namespace.kubernetes.clone();
    kubernetes.install(newer()).await.unwrap();
    let mut manifests = [site.cluster(0), site.channel(), site.forwarder(1)];
    for manifest in &mut manifests {
        manifest["spec"][NEWER] = json!("kept");
    }
    site.apply(&manifests).await;
    site.wait_ready().await;
    let patch = json!({"status": {NEWER: "kept"}}).to_string();
    let patch = [
        "patch",
        "assetforwarder",
        FORWARDER,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    site.namespace.kubectl(&patch).await.unwrap();
    let pods = site.namespace.pods(FORWARDER).await.unwrap();
    // The status changes, and what others have said there stays.
    site.namespace
        .kubectl(&["scale", "assetforwarder", FORWARDER, "--replicas=2"])
        .await
        .unwrap();
    let forwarder = site.wait_ready().await;
    assert_eq!(status(&forwarder).ready_replicas, 2);
    assert_eq!(kept(&site).await, ["kept", "kept"]);

    kubernetes.install_definitions().await.unwrap();
    site.namespace
        .kubectl(&["scale", "assetforwarder", FORWARDER, "--replicas=1"])
        .await
        .unwrap();
    let is_one = |forwarder: &AssetForwarder| status(forwarder).ready_replicas == 1;
    site.namespace
        .wait(FORWARDER, SOON, "it scales as ever", is_one)
        .await
        .unwrap();
    site.wait_ready().await;
    assert_eq!(kept(&site).await, [Value::Null, Value::Null]);
    let left = site.namespace.pods(FORWARDER).await.unwrap();
    assert!(
        left.iter()
            .all(|pod| pods.iter().any(|before| before.metadata.uid == pod.metadata.uid))
    );
    site.stage.traffic.send(500).await.unwrap();
    site.stage.verdict().await.check_exactly_once().unwrap();
}
