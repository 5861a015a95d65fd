//! What a neighbour writes under our labels, by mistake or on purpose, stops nobody.

use anyhow::ensure;
use crds::AssetForwarder;
use e2e_rig::kubernetes::Namespace;
use e2e_rig::site::{FORWARDER, PODS, Site, condition, status};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use serde_json::{Value, json};

use crate::figures::tell;

/// Below the limit of the chart, 256 MiB. A process of its own has no limit: this is what it may take.
const MOST_BYTES: u64 = 200 << 20;

/// The stand-in for an older forwarder: it says the epoch of whatever ring it is given.
const STAND_IN: &str = "fanout-e2e-first-forwarder:dev";

/// How many heavy rings there are: each has 1,024,000 virtual nodes.
pub(crate) const HEAVY: usize = 5;

fn ring(epoch: u64, weight: u32) -> String {
    format!(
        "epoch: {epoch}\nreplicas: 1024\nhandoverTimeoutMs: 60000\nclusters:\n- name: C1\n  servers: ['nats://nobody:4222']\n  weight: {weight}\n"
    )
}

fn config_map(name: &str, forwarder: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {
            "fanout.openfactory.io/forwarder": forwarder,
            "fanout.openfactory.io/component": "ring",
        }},
        "data": data,
    })
}

/// ConfigMaps with the labels of rings: heavy ones, and an empty one. One says that it belongs to a forwarder which lives, of this UID.
pub(crate) fn forged_rings(uid: &str) -> Vec<Value> {
    let heavy = (0..HEAVY).map(|number| {
        let forwarder = format!("forged-{number}");
        config_map(
            &format!("{forwarder}-ring"),
            &forwarder,
            &json!({"ring.yaml": ring(7, 1_000)}),
        )
    });
    let mut forged: Vec<Value> = heavy.collect();
    forged.push(config_map("empty-ring", "empty", &json!({})));
    let mut stolen = config_map("stolen-ring", "stolen", &json!({"ring.yaml": ring(9, 1)}));
    stolen["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "fanout.openfactory.io/v1alpha1", "kind": "AssetForwarder", "name": "stolen", "uid": uid, "controller": true,
    }]);
    forged.push(stolen);
    forged
}

/// A cluster of weight 1,000 and forwarders of it whose rings are too large.
pub(crate) fn heavy(site: &Site) -> Vec<Value> {
    let mut cluster = site.cluster(0);
    cluster["metadata"] = json!({"name": "heavy", "labels": {"ring": "heavy"}});
    cluster["spec"]["ringName"] = json!("HEAVY");
    cluster["spec"]["weight"] = json!(1_000);
    let mut heavy = vec![cluster];
    for number in 0..HEAVY {
        let mut forwarder = site.forwarder(0);
        forwarder["metadata"]["name"] = json!(format!("heavy-{number}"));
        forwarder["spec"]["sources"][0]["group"] = json!(format!("heavy-{number}"));
        forwarder["spec"]["clusters"]["selector"] = json!({"matchLabels": {"ring": "heavy"}});
        forwarder["spec"]["ring"] = json!({"replicas": 1_024});
        heavy.push(forwarder);
    }
    heavy
}

/// Waits until all forwarders of [`heavy`] say what is to be lowered.
pub(crate) async fn wait_stalled(namespace: &Namespace) {
    for number in 0..HEAVY {
        let name = format!("heavy-{number}");
        namespace
            .wait::<AssetForwarder>(&name, PODS, "it is too heavy", |forwarder| {
                let stalled = condition(forwarder, "Stalled");
                stalled.is_some_and(|stalled| {
                    let needed = ["1024000 virtual nodes", "524288", "spec.ring.replicas", "spec.weight"];
                    stalled.reason == "InvalidSpec" && needed.iter().all(|word| stalled.message.contains(word))
                })
            })
            .await
            .unwrap();
    }
}

/// What the router lists, as `namespace/name`.
pub(crate) async fn listed(site: &Site) -> Vec<String> {
    let (code, body) = site.route("/forwarders").await;
    assert_eq!(code, 200, "{body}");
    let said: Value = serde_json::from_str(&body).unwrap();
    let forwarders = said["forwarders"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    forwarders
        .map(|forwarder| format!("{}/{}", text(&forwarder["namespace"]), text(&forwarder["name"])))
        .collect()
}

/// Waits until the router has heard of the last one of what was applied before: a ring of a forwarder that lives.
pub(crate) async fn wait_answered(site: &Site, path: &str) -> Value {
    let body = wait::value(SOON, "the router answers", || async {
        let (code, body) = site.route(path).await;
        ensure!(code == 200, "{code}: {body}");
        Ok(Some(body))
    })
    .await
    .unwrap();
    serde_json::from_str(&body).unwrap()
}

/// The operator has not ended, and is as small as always.
pub(crate) async fn check_operator(site: &Site) {
    assert_eq!(site.operator_exit().await, None, "{}", site.log_tail().await);
    let (now, peak, _) = site.operator_usage().await;
    tell(&format!(
        "beside neighbours: {} MiB, {} MiB at its peak",
        now >> 20,
        peak >> 20
    ));
    assert!(peak < MOST_BYTES, "{} MiB", peak >> 20);
}

#[tokio::test]
async fn forged_and_heavy_rings_stop_nobody_in_a_namespace() {
    let site = Site::new(PublishMode::Core, 1).await;
    site.start(0).await;
    let answer = wait_answered(&site, "/asset/a").await;
    let own = format!("{}/{FORWARDER}", site.namespace.name);
    let uid = site.get().await.metadata.uid.unwrap();
    site.apply(&forged_rings(&uid)).await;
    // The forwarder's next ring is heard of after all that.
    let mut forwarder = site.forwarder(0);
    forwarder["spec"]["ring"] = json!({"handoverTimeoutSeconds": 7});
    site.apply(&[forwarder]).await;
    wait::eventually(SOON, "the router has heard of all", || async {
        let said: Value = serde_json::from_str(&site.route("/asset/a").await.1)?;
        ensure!(said["ring_epoch"] == 2, "{said}");
        Ok(true)
    })
    .await
    .unwrap();
    assert_eq!(
        wait_answered(&site, "/asset/a").await["cluster_name"],
        answer["cluster_name"]
    );
    assert_eq!(listed(&site).await, [own.as_str()]);
    for forged in ["forged-0", "empty", "stolen"] {
        let path = format!("/forwarders/{}/{forged}/asset/a", site.namespace.name);
        assert_eq!(site.route(&path).await.0, 404, "{forged}");
    }

    site.apply(&heavy(&site)).await;
    wait_stalled(&site.namespace).await;
    assert_eq!(listed(&site).await.len(), HEAVY + 1);
    let path = format!("/forwarders/{}/heavy-0/asset/a", site.namespace.name);
    assert_eq!(site.route(&path).await.0, 503, "it has no ring");
    wait_answered(&site, &format!("/asset/a?forwarder={own}")).await;
    check_operator(&site).await;
}

/// A pod under the labels of the site's forwarder, with all that it needs. It says that it runs the ring of `epoch`.
fn forged_pod(site: &Site, epoch: u64) -> Vec<Value> {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "forged"}});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "forged"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "forged"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "forged"},
        "subjects": [{"kind": "ServiceAccount", "name": "forged"}],
    });
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": format!("{FORWARDER}-config-forged")},
        "data": {"ring.yaml": ring(epoch, 1), "forwarder.yaml": ""},
    });
    let ring = format!("{}/{FORWARDER}-config-forged", site.namespace.name);
    let config = "/etc/fanout/config/forwarder.yaml";
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "forged", "labels": {
            "app.kubernetes.io/name": "asset-forwarder",
            "app.kubernetes.io/instance": FORWARDER,
            "app.kubernetes.io/managed-by": "fanout-operator",
            "fanout.openfactory.io/forwarder": FORWARDER,
        }},
        "spec": {
            "serviceAccountName": "forged",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65_532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "forwarder",
                "image": STAND_IN,
                "imagePullPolicy": "IfNotPresent",
                "args": ["run", "--config", config, "--ring-file", "/none", "--ring-config-map", ring],
                // The operator looks when the pod is ready.
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": 4_000}, "periodSeconds": 1},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/fanout/config"}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": format!("{FORWARDER}-config-forged")}}],
        },
    });
    vec![account, role, binding, map, pod]
}

#[tokio::test]
async fn a_pod_that_claims_nearly_the_last_epoch_ends_no_ring() {
    const CLAIM: &str = "EpochClaimIgnored";
    let site = Site::new(PublishMode::Core, 2).await;
    site.apply(&[site.cluster(0), site.channel(), site.forwarder(1)]).await;
    site.wait_ring(&["C1"], 0).await;
    site.apply(&forged_pod(&site, 9_223_372_036_854_775_806)).await;
    let told = site
        .wait("the claim is ignored", |forwarder| {
            condition(forwarder, CLAIM).is_some()
        })
        .await;
    let message = &condition(&told, CLAIM).unwrap().message;
    assert!(message.contains(": forged."), "{message}");
    let events = [
        "get",
        "events",
        "--field-selector",
        "reason=EpochClaimIgnored",
        "-o",
        "jsonpath={.items[*].note}{.items[*].message}",
    ];
    let said = site.namespace.kubectl(&events).await.unwrap();
    assert!(said.contains("9223372036854775806"), "{said}");

    site.apply(&[site.cluster(1)]).await;
    let forwarder = site.wait_ring(&["C1", "C2"], 1).await;
    assert_eq!(status(&forwarder).ring.unwrap().epoch, 2);
    site.namespace.kubectl(&["delete", "pod", "forged"]).await.unwrap();
    site.wait("nothing is ignored any more", |forwarder| {
        condition(forwarder, CLAIM).is_none()
    })
    .await;
}
