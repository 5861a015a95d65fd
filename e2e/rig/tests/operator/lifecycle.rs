//! A forwarder from its first apply to its end.

use crds::AssetForwarder;
use e2e_rig::site::{FORWARDER, Site, condition, status};
use e2e_rig::stage::SOON;
use e2e_rig::wait::eventually;
use forwarder_core::document::PublishMode;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{Resource, ResourceExt as _};
use serde_json::{Value, json};

use crate::judge;

/// Created, scaled to nothing and back, suspended, and on: while records flow.
async fn scales(site: Site) {
    let forwarder = site.start(3).await;
    assert_eq!(status(&forwarder).ready_replicas, 3);
    let ring = status(&forwarder).ring.unwrap();
    assert_eq!(
        (ring.names, ring.converged),
        (vec!["C1".to_owned(), "C2".to_owned()], Some("3/3".to_owned()))
    );
    let flow = site.stage.flow(500);

    // As `kubectl scale` and an autoscaler do it: by the subresource.
    site.namespace
        .kubectl(&["scale", "assetforwarder", FORWARDER, "--replicas=0"])
        .await
        .unwrap();
    let forwarder = site.wait_ready().await;
    assert_eq!(status(&forwarder).replicas, 0);
    assert_eq!(condition(&forwarder, "Ready").unwrap().reason, "ScaledToZero");

    site.namespace
        .kubectl(&["scale", "assetforwarder", FORWARDER, "--replicas=1"])
        .await
        .unwrap();
    let forwarder = site.wait_ready().await;
    assert_eq!((status(&forwarder).replicas, status(&forwarder).ready_replicas), (1, 1));

    let mut suspended = site.forwarder(1);
    suspended["spec"]["suspend"] = json!(true);
    site.apply(&[suspended]).await;
    let forwarder = site.wait_ready().await;
    assert_eq!(condition(&forwarder, "Ready").unwrap().reason, "Suspended");
    assert!(site.namespace.pods(FORWARDER).await.unwrap().is_empty());

    site.apply(&[site.forwarder(1)]).await;
    site.wait_ready().await;
    flow.stop().await.unwrap();
    judge::exactly_once(&site).await;
}

#[tokio::test]
async fn scales_to_nothing_and_back() {
    scales(Site::new(PublishMode::Core, 2).await).await;
}

#[tokio::test]
async fn scales_while_the_operator_is_killed() {
    let mut site = Site::new(PublishMode::Core, 2).await;
    site.unrest();
    scales(site).await;
}

#[tokio::test]
async fn applying_the_same_twice_writes_nothing() {
    let site = Site::new(PublishMode::Core, 2).await;
    site.start(1).await;
    site.wait_quiet().await;
    let before = site.versions().await;
    let writes = site.operator_writes().await;
    let manifests = [site.cluster(0), site.cluster(1), site.channel(), site.forwarder(1)];
    site.apply(&manifests).await;
    // A restart looks at everything anew.
    site.restart_operator().await;
    site.wait_reconciled().await;
    assert_eq!(site.versions().await, before);
    // Events and Leases are no part of it.
    assert_eq!(
        site.operator_writes().await,
        0.0,
        "the new process has written; the old one had {writes}"
    );
}

#[tokio::test]
async fn what_a_person_changes_on_a_child_is_put_back() {
    let site = Site::new(PublishMode::Core, 1).await;
    site.start(1).await;
    site.namespace
        .kubectl(&["scale", "deployment", FORWARDER, "--replicas=0"])
        .await
        .unwrap();
    site.namespace
        .wait::<Deployment>(FORWARDER, e2e_rig::stage::SOON, "the scale is put back", |deployment| {
            deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(1)
        })
        .await
        .unwrap();
    site.namespace
        .kubectl(&["delete", "service,serviceaccount,networkpolicy", "--all"])
        .await
        .unwrap();
    site.namespace
        .kubectl(&["delete", "configmap", &format!("{FORWARDER}-ring")])
        .await
        .unwrap();
    let epoch = status(&site.get().await).ring.unwrap().epoch;
    site.namespace
        .wait::<k8s_openapi::api::core::v1::ConfigMap>(
            &format!("{FORWARDER}-ring"),
            e2e_rig::stage::SOON,
            "the ring is there again",
            |_| true,
        )
        .await
        .unwrap();
    let forwarder = site.wait_ready().await;
    assert!(
        status(&forwarder).ring.unwrap().epoch >= epoch,
        "an epoch never goes back"
    );
    site.namespace
        .kubectl(&["get", "service,serviceaccount,networkpolicy", FORWARDER])
        .await
        .unwrap();
}

/// The lists that say what runs, what listens and who is let in are ours as a whole; labels and annotations are anybody's.
#[tokio::test]
async fn what_another_hand_adds_to_a_list_of_ours_is_taken_out() {
    let site = Site::new(PublishMode::Core, 1).await;
    site.start(1).await;
    let subject = json!({"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"});
    let container = json!({"name": "extra", "image": "extra:none", "imagePullPolicy": "Never"});
    for (kind, list, item) in [
        ("rolebinding", "/subjects/-", subject),
        ("service", "/spec/ports/-", json!({"name": "extra", "port": 4001})),
        ("deployment", "/spec/template/spec/containers/-", container),
    ] {
        add(&site, kind, list, item).await;
    }
    let children = &site.namespace;
    let binding = children.wait::<RoleBinding>(FORWARDER, SOON, "the subject is gone", |binding| {
        binding.subjects.as_ref().is_some_and(|subjects| subjects.len() == 1)
    });
    keeps_what_is_theirs(&binding.await.unwrap());
    let service = children.wait::<Service>(FORWARDER, SOON, "the port is gone", |service| {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        ports.is_some_and(|ports| ports.len() == 1)
    });
    keeps_what_is_theirs(&service.await.unwrap());
    let deployment = children.wait::<Deployment>(FORWARDER, SOON, "the container is gone", |deployment| {
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        let pod = template.and_then(|template| template.spec.as_ref());
        pod.is_some_and(|pod| pod.containers.len() == 1)
    });
    keeps_what_is_theirs(&deployment.await.unwrap());

    let get = [
        "get",
        "events.events.k8s.io",
        "-o",
        "jsonpath={range .items[?(@.reason==\"ForeignItemsRemoved\")]}{.type} {.regarding.kind} {.note}{\"\\n\"}{end}",
    ];
    eventually(SOON, "each is told to the owner", || async {
        let told = site.namespace.kubectl(&get).await?;
        for (child, item) in [
            ("RoleBinding", "\"name\":\"eve\"} in subjects"),
            ("Service", "4001/TCP in spec.ports"),
            ("Deployment", "extra in spec.template.spec.containers"),
        ] {
            let is_it = |note: &str| {
                note.starts_with(&format!("Warning AssetForwarder removed from {child} {FORWARDER}"))
                    && note.ends_with(item)
            };
            anyhow::ensure!(told.lines().any(is_it), "{child} is not told:\n{told}");
        }
        Ok(true)
    })
    .await
    .unwrap();
    site.wait_ready().await;
    // Others' labels and annotations are no reason to write.
    site.wait_quiet().await;
    let before = site.versions().await;
    site.restart_operator().await;
    site.wait_reconciled().await;
    assert_eq!(site.versions().await, before);
}

/// Adds an item to a list of a child, and a label and an annotation beside ours.
async fn add(site: &Site, kind: &str, list: &str, item: Value) {
    let patch = json!([
        {"op": "add", "path": list, "value": item},
        {"op": "add", "path": "/metadata/labels/theirs", "value": "stays"},
        {"op": "add", "path": "/metadata/annotations/theirs", "value": "stays"},
    ]);
    let patch = ["patch", kind, FORWARDER, "--type=json", "-p", &patch.to_string()];
    site.namespace.kubectl(&patch).await.unwrap();
}

fn keeps_what_is_theirs(child: &impl Resource) {
    for kept in [child.labels(), child.annotations()] {
        assert_eq!(kept.get("theirs").map(String::as_str), Some("stays"), "{kept:?}");
    }
}

#[tokio::test]
async fn a_deleted_forwarder_takes_its_children_with_it() {
    let site = Site::new(PublishMode::Core, 1).await;
    site.start(1).await;
    site.namespace
        .kubectl(&["delete", "assetforwarder", FORWARDER, "--timeout=60s"])
        .await
        .unwrap();
    e2e_rig::wait::eventually(e2e_rig::site::PODS, "nothing is left", || async {
        let left = site
            .namespace
            .kubectl(&[
                "get",
                "all,configmaps,secrets,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies",
                "-l",
                &format!("app.kubernetes.io/instance={FORWARDER}"),
                "-o",
                "name",
            ])
            .await?;
        anyhow::ensure!(left.trim().is_empty(), "{left}");
        Ok(true)
    })
    .await
    .unwrap();
    let gone: Option<AssetForwarder> = site.namespace.api().get_opt(FORWARDER).await.unwrap();
    assert!(gone.is_none());
}
