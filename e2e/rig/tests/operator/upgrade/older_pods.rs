//! Pods of an image that does not know all fields of the ring: they are older than the operator.
//!
//! The older image is a stand-in (`e2e/rig/src/bin/first-forwarder`): it reads rings as the first release does, and forwards nothing.

use anyhow::ensure;
use e2e_rig::http;
use e2e_rig::site::{FORWARDER, PODS, Site, condition, status};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::document::{PublishMode, RING_DOCUMENT_VERSION, RingConfig};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

const FIRST_RELEASE: &str = "fanout-e2e-first-forwarder:dev";
const TOO_OLD: &str = "PodsTooOld";

fn with_newer_fields(site: &Site) -> Value {
    let mut cluster = site.cluster(0);
    cluster["spec"]["discoverServers"] = json!(false);
    cluster["spec"]["inboxPrefix"] = json!("_INBOX_plant");
    cluster
}

fn with_image(site: &Site, image: &str) -> Value {
    let mut forwarder = site.forwarder(2);
    forwarder["spec"]["image"] = json!(image);
    forwarder
}

fn text_of(map: &ConfigMap) -> String {
    map.data.as_ref().unwrap()["ring.yaml"].clone()
}

async fn ring(site: &Site) -> RingConfig {
    let map: ConfigMap = site.namespace.get(&format!("{FORWARDER}-ring")).await.unwrap();
    RingConfig::from_yaml(&text_of(&map)).unwrap()
}

/// The fields in the ring that only newer pods read.
fn newer(ring: &RingConfig) -> Vec<&'static str> {
    ring.clusters.iter().flat_map(|cluster| cluster.newer_than(1)).collect()
}

/// How often each pod of the older image has refused a ring.
async fn refusals(site: &Site) -> Vec<u64> {
    let mut all = Vec::new();
    for pod in site.namespace.pods(FORWARDER).await.unwrap() {
        let address = pod.status.and_then(|status| status.pod_ip).unwrap();
        let said = http::get_ok(&format!("{address}:4000"), "/status").await.unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        all.push(said["refusals"].as_u64().unwrap());
    }
    all
}

/// What an operator of the first release makes of the ring: it cannot read it, and writes what it knows under a higher epoch.
async fn by_the_operator_of_before(site: &Site) {
    let mut ring = ring(site).await.as_read_by(1);
    ring.epoch += 1;
    let name = format!("{FORWARDER}-ring");
    let live: ConfigMap = site.namespace.get(&name).await.unwrap();
    let mut map = serde_json::to_value(&live).unwrap();
    map["apiVersion"] = json!("v1");
    map["kind"] = json!("ConfigMap");
    let annotations = map["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.retain(|name, _| name != "fanout.openfactory.io/readers");
    map["data"]["ring.yaml"] = json!(ring.to_yaml().unwrap());
    site.namespace.apply_as_operator(map).await.unwrap();
}

#[tokio::test]
async fn what_older_pods_do_not_read_comes_into_the_ring_when_all_are_new_and_goes_before_older_ones_come() {
    let site = Site::new(PublishMode::JetStream, 2).await;
    let manifests = [
        site.cluster(0),
        site.cluster(1),
        site.channel(),
        with_image(&site, FIRST_RELEASE),
    ];
    site.apply(&manifests).await;
    site.wait_ready().await;
    let before = ring(&site).await;

    site.apply(&[with_newer_fields(&site)]).await;
    let said = site.wait_reason(TOO_OLD).await;
    for part in [
        "2 of 2 pods are too old",
        "spec.discoverServers and spec.inboxPrefix of NatsCluster ",
        "set spec.image to a newer forwarder",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(condition(&site.get().await, TOO_OLD).is_some());
    assert_eq!(ring(&site).await, before);
    assert_eq!(refusals(&site).await, [0, 0]);

    // Newer pods, one by one.
    let new = site.namespace.kubernetes.cluster.forwarder_image.clone();
    site.apply(&[with_image(&site, &new)]).await;
    let forwarder = site.wait_ready().await;
    assert_eq!(condition(&forwarder, TOO_OLD), None);
    let after = ring(&site).await;
    assert_eq!(newer(&after), ["discoverServers", "inboxPrefix"]);
    assert_eq!(after.epoch, before.epoch + 1);

    // Back to the older image: it is known, so that the ring changes before its first pod comes.
    site.apply(&[with_image(&site, FIRST_RELEASE)]).await;
    wait::eventually(
        PODS,
        "two pods of the older image are there, and nothing newer is in the ring",
        || async {
            let forwarder = site.get().await;
            let reason = condition(&forwarder, "Ready").map(|ready| ready.reason.clone());
            ensure!(reason.as_deref() == Some(TOO_OLD), "{reason:?}");
            Ok(true)
        },
    )
    .await
    .unwrap();
    let older = ring(&site).await;
    assert_eq!((newer(&older), older.epoch), (vec![], before.epoch + 2));
    assert_eq!(refusals(&site).await, [0, 0], "none has seen what it cannot read");

    // And to the newer one once more.
    site.apply(&[with_image(&site, &new)]).await;
    site.wait_ready().await;
    let after = ring(&site).await;
    assert_eq!(newer(&after), ["discoverServers", "inboxPrefix"]);
    assert_eq!(after.epoch, before.epoch + 3);
    let flow = site.stage.flow(200);

    // The operator of before, and this one again: no record is lost or comes twice.
    site.stop_operator().await;
    by_the_operator_of_before(&site).await;
    wait::eventually(SOON, "the pods use the ring of the operator of before", || async {
        for pod in site.namespace.pods(FORWARDER).await? {
            let address = pod.status.and_then(|status| status.pod_ip).unwrap_or_default();
            let said = http::get_ok(&format!("{address}:4000"), "/status").await?;
            let said: Value = serde_json::from_str(&said)?;
            ensure!(said["ring"]["epoch"] == json!(after.epoch + 1), "{said}");
            ensure!(said["documentVersion"] == json!(RING_DOCUMENT_VERSION), "{said}");
        }
        Ok(true)
    })
    .await
    .unwrap();
    site.start_operator_again().await;
    let back = |forwarder: &crds::AssetForwarder| {
        let ring = status(forwarder).ring.unwrap_or_default();
        condition(forwarder, "Ready").is_some_and(|ready| ready.status == "True")
            && u64::try_from(ring.epoch).is_ok_and(|epoch| epoch == after.epoch + 2)
    };
    site.wait("what is declared is in the ring again", back).await;
    assert_eq!(newer(&ring(&site).await), ["discoverServers", "inboxPrefix"]);
    flow.stop().await.unwrap();
    site.stage.verdict().await.check_exactly_once().unwrap();
}
