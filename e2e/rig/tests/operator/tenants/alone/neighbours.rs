//! A hostile namespace beside ours, under an operator of all namespaces. Who writes there has the rights that tenants have.

use anyhow::ensure;
use e2e_rig::kubernetes::{Kubernetes, Namespace};
use e2e_rig::site::{FORWARDER, Site};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use serde_json::{Value, json};

use crate::tenants::neighbours::{HEAVY, check_operator, forged_rings, heavy, listed, wait_answered, wait_stalled};

/// Who writes in the hostile namespace.
const TENANT: &str = "tenant";

/// The cluster's role `edit`, and what the chart adds to it.
fn rights() -> String {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "fanout-edit"},
        "rules": [{
            "apiGroups": ["fanout.openfactory.io"],
            "resources": ["natsclusters", "kafkachannels", "assetforwarders"],
            "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
        }],
    });
    let binding = |name: &str, kind: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": TENANT}],
        })
    };
    let all = [role, binding("fanout-edit", "Role"), binding("edit", "ClusterRole")];
    all.map(|object| object.to_string()).join("\n---\n")
}

/// Applied by the tenant.
async fn apply(namespace: &Namespace, manifests: &[Value]) {
    let text: Vec<String> = manifests.iter().map(Value::to_string).collect();
    let by_tenant = ["apply", "--as", TENANT, "-f", "-"];
    namespace.kubectl_with(&by_tenant, &text.join("\n---\n")).await.unwrap();
}

#[tokio::test]
async fn a_hostile_namespace_stops_nobody() {
    let site = Site::of_cluster(PublishMode::Core, 1).await;
    site.start(0).await;
    let own = format!("{}/{FORWARDER}", site.namespace.name);
    wait::eventually(SOON, "forwarders of tests before are gone", || async {
        let listed = listed(&site).await;
        ensure!(listed == [own.clone()], "{listed:?}");
        Ok(true)
    })
    .await
    .unwrap();
    let answer = wait_answered(&site, "/asset/a").await;

    let hostile = Namespace::new(&Kubernetes::of_run().await.unwrap()).unwrap();
    hostile.apply(&rights()).await.unwrap();
    let uid = site.get().await.metadata.uid.unwrap();
    apply(&hostile, &forged_rings(&uid)).await;
    // A forwarder of its own is heard of after what was forged; its ring would be the second one.
    let mut last = site.forwarder(0);
    last["metadata"]["name"] = json!("last");
    apply(&hostile, &[site.channel(), last]).await;
    wait::eventually(SOON, "the router has heard of the last forwarder", || async {
        let listed = listed(&site).await;
        ensure!(listed.contains(&format!("{}/last", hostile.name)), "{listed:?}");
        ensure!(listed.len() == 2, "{listed:?}");
        Ok(true)
    })
    .await
    .unwrap();
    hostile
        .kubectl(&["delete", "assetforwarder", "last", "--as", TENANT])
        .await
        .unwrap();
    wait::eventually(SOON, "there is one forwarder", || async {
        let said = site.route("/asset/a").await;
        ensure!(said.0 == 200, "{said:?}");
        Ok(true)
    })
    .await
    .unwrap();
    assert_eq!(wait_answered(&site, "/asset/a").await, answer);
    assert_eq!(listed(&site).await, [own.as_str()]);

    apply(&hostile, &heavy(&site)).await;
    wait_stalled(&hostile).await;
    assert_eq!(listed(&site).await.len(), HEAVY + 1);
    assert_eq!(wait_answered(&site, &format!("/asset/a?forwarder={own}")).await, answer);
    check_operator(&site).await;
}
