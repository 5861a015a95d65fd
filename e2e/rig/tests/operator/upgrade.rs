//! A new operator in the place of the old one.

mod alone;
mod older_pods;

use std::collections::BTreeMap;

use e2e_rig::site::{FORWARDER, Site, status};
use e2e_rig::stage::SOON;
use forwarder_core::document::PublishMode;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use serde_json::{Value, json};

const TEMPLATE: &str = "fanout.openfactory.io/pod-template";

/// What an operator of another version would have made of the pods: a variable more, and a probe that is asked less often.
async fn by_another_version(site: &Site) {
    let live: Deployment = site.namespace.get(FORWARDER).await.unwrap();
    let mut deployment = serde_json::to_value(&live).unwrap();
    deployment["apiVersion"] = json!("apps/v1");
    deployment["kind"] = json!("Deployment");
    deployment.as_object_mut().unwrap().remove("status");
    let noted = deployment["metadata"]["annotations"][TEMPLATE].as_str().unwrap();
    let mut template: Value = serde_json::from_str(noted).unwrap();
    let container = &mut template["spec"]["containers"][0];
    container["env"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "OF_ANOTHER_VERSION", "value": "yes"}));
    container["livenessProbe"]["periodSeconds"] = json!(20);
    deployment["metadata"]["annotations"][TEMPLATE] = json!(template.to_string());
    deployment["spec"]["template"] = template;
    site.namespace.apply_as_operator(deployment).await.unwrap();
    let rollout = ["rollout", "status", "deployment", FORWARDER, "--timeout=120s"];
    site.namespace.kubectl(&rollout).await.unwrap();
}

/// The pods by name, with how often their containers were started again.
async fn pods(site: &Site) -> BTreeMap<String, i32> {
    let pods = site.namespace.pods(FORWARDER).await.unwrap();
    let restarts = pods.iter().map(|pod| {
        let statuses = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        (pod.name_any(), statuses.map(|status| status.restart_count).sum())
    });
    restarts.collect()
}

#[tokio::test]
async fn a_new_operator_restarts_no_pod_until_they_roll_for_a_reason_of_their_own() {
    let site = Site::new(PublishMode::JetStream, 1).await;
    site.start(2).await;
    let flow = site.stage.flow(200);
    site.stop_operator().await;
    by_another_version(&site).await;
    let before = pods(&site).await;
    let old_image = site.namespace.kubernetes.cluster.forwarder_image.clone();
    let new_image = site.namespace.kubernetes.cluster.forwarder_image_2.clone();

    // Another default image too.
    site.start_operator(&new_image).await;
    site.wait_reconciled().await;
    let forwarder = site.wait_ready().await;
    assert_eq!(status(&forwarder).image.as_deref(), Some(old_image.as_str()));
    // It scales as ever, and puts back what a person changes, to what the pods run.
    let scale = ["scale", "assetforwarder", FORWARDER, "--replicas=3"];
    site.namespace.kubectl(&scale).await.unwrap();
    site.wait_ready().await;
    let after = pods(&site).await;
    assert!(
        before.iter().all(|pod| after.get(pod.0) == Some(pod.1)),
        "{before:?} {after:?}"
    );
    let set = ["set", "image", "deployment", FORWARDER, "forwarder=a-persons:1"];
    site.namespace.kubectl(&set).await.unwrap();
    let is_back = |deployment: &Deployment| deployment.spec.as_ref().is_some_and(|spec| has(spec, &old_image, true));
    let back = site
        .namespace
        .wait::<Deployment>(FORWARDER, SOON, "the image is put back", is_back);
    back.await.unwrap();
    site.wait_ready().await;

    let mut manifest = site.forwarder(2);
    manifest["spec"]["logging"] = json!({"level": "Debug"});
    site.apply(&[manifest]).await;
    let forwarder = site.wait_ready().await;
    assert_eq!(status(&forwarder).image.as_deref(), Some(new_image.as_str()));
    let deployment: Deployment = site.namespace.get(FORWARDER).await.unwrap();
    assert!(
        has(&deployment.spec.unwrap(), &new_image, false),
        "all of it is the new one's"
    );
    flow.stop().await.unwrap();
    site.stage.verdict().await.check_exactly_once().unwrap();
}

/// Whether the pods run this image, and are those of the other version.
fn has(spec: &k8s_openapi::api::apps::v1::DeploymentSpec, image: &str, of_another_version: bool) -> bool {
    let container = &spec.template.spec.as_ref().unwrap().containers[0];
    let mut variables = container.env.iter().flatten();
    container.image.as_deref() == Some(image)
        && variables.any(|variable| variable.name == "OF_ANOTHER_VERSION") == of_another_version
}
