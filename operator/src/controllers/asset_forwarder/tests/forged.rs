//! Labels are not identity.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;

use super::*;
use crate::controllers::asset_forwarder::names::Identity;
use crate::controllers::asset_forwarder::pods::{may_forward, may_make_pods};

fn owned(owner: &str) -> String {
    match owner {
        "" => String::new(),
        owner => format!(", ownerReferences: [{{controller: true, uid: u, {owner}}}]"),
    }
}

const OF_OURS: &str = "apiVersion: apps/v1, kind: ReplicaSet, name: assets-6f5";

#[test]
fn a_pod_counts_that_could_be_the_forwarders() {
    let ours = ("forwarder", "assets-config-1a2b");
    for (owner, (container, config), counts) in [
        (OF_OURS, ours, true),
        // An orphan goes on.
        ("", ours, true),
        ("apiVersion: apps/v1, kind: ReplicaSet, name: other-6f5", ours, false),
        ("apiVersion: apps/v1, kind: StatefulSet, name: assets-6f5", ours, false),
        ("apiVersion: batch/v1, kind: Job, name: assets-6f5", ours, false),
        (
            "apiVersion: example.com/v1, kind: ReplicaSet, name: assets-6f5",
            ours,
            false,
        ),
        ("", ("busybox", "assets-config-1a2b"), false),
        ("", ("forwarder", "other"), false),
        (OF_OURS, ("forwarder", "other"), false),
    ] {
        let text = format!(
            "{{metadata: {{name: a{}}}, spec: {{containers: [{{name: {container}}}], volumes: [{{name: c, configMap: {{name: {config}}}}}]}}}}",
            owned(owner)
        );
        assert_eq!(may_forward(&yaml::<Pod>(&text), "assets"), counts, "{text}");
    }
    assert!(!may_forward(&yaml("{metadata: {name: a}}"), "assets"));
}

#[test]
fn the_pods_that_are_made_count() {
    for update in [
        crds::asset_forwarder::RingUpdate::Live,
        crds::asset_forwarder::RingUpdate::Roll,
    ] {
        let mut world = World::new([cluster("c1", 1)]);
        world.forwarder.spec.ring.update = update;
        world.step();
        let template = world.existing.deployment.unwrap().spec.unwrap().template;
        let mut pod = Pod {
            metadata: template.metadata.unwrap(),
            spec: template.spec,
            ..Pod::default()
        };
        pod.metadata.owner_references = Some(vec![yaml(&format!("{{controller: true, uid: u, {OF_OURS}}}"))]);
        assert!(may_forward(&pod, "assets"));
    }
}

#[test]
fn a_replica_set_counts_that_could_be_the_forwarders() {
    for (owner, counts) in [
        ("apiVersion: apps/v1, kind: Deployment, name: assets", true),
        ("", true),
        ("apiVersion: apps/v1, kind: Deployment, name: other", false),
        ("apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: assets", false),
    ] {
        let text = format!("{{metadata: {{name: a{}}}, spec: {{selector: {{}}}}}}", owned(owner));
        assert_eq!(may_make_pods(&yaml::<ReplicaSet>(&text), "assets"), counts, "{text}");
    }
}

#[test]
fn a_child_is_ours_by_kind_name_and_uid() {
    let identity = Identity::of(&yaml(FORWARDER));
    let of = |version: &str, kind: &str, name: &str, uid: &str, controller: bool| {
        let owner = format!("apiVersion: {version}, kind: {kind}, name: {name}, uid: {uid}, controller: {controller}");
        identity.owns(&yaml::<ConfigMap>(&format!(
            "{{metadata: {{name: a, ownerReferences: [{{{owner}}}]}}}}"
        )))
    };
    let version = "fanout.openfactory.io/v1alpha1";
    assert!(of(version, "AssetForwarder", "assets", "u1", true));
    assert!(of("fanout.openfactory.io/v1", "AssetForwarder", "assets", "u1", true));
    assert!(!of("v1", "AssetForwarder", "assets", "u1", true));
    assert!(!of("example.com/v1", "AssetForwarder", "assets", "u1", true));
    assert!(!of(version, "NatsCluster", "assets", "u1", true));
    assert!(!of(version, "AssetForwarder", "other", "u1", true));
    assert!(!of(version, "AssetForwarder", "assets", "u2", true));
    assert!(!of(version, "AssetForwarder", "assets", "u1", false));
    let built = World::new([cluster("c1", 1)]).look().resources;
    assert!(identity.owns(&built.ring.unwrap()) && identity.owns(&built.credentials));
}
