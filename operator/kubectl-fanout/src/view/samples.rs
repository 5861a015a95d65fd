//! Samples for the tests of the views.

use std::collections::BTreeMap;

use crds::{AssetForwarder, NatsCluster};
use forwarder_core::status::Status;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::declared::Declared;
use super::pods::{Heard, PodSeen};

/// The forwarder `plant/assets`, which is ready.
pub(crate) fn forwarder() -> AssetForwarder {
    serde_json::from_value(json!({
        "apiVersion": "fanout.openfactory.io/v1alpha1",
        "kind": "AssetForwarder",
        "metadata": {"name": "assets", "namespace": "plant", "uid": "a-uid", "generation": 3},
        "spec": {
            "sources": [{"channelRef": {"name": "assets"}, "group": "g"}],
            "clusters": {"selector": {}},
        },
        "status": {
            "observedGeneration": 3,
            "replicas": 2,
            "readyReplicas": 2,
            "desiredReplicas": 2,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Forwarding", "message": "all is well",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "ring": {
                "epoch": 7, "members": 2, "names": ["C1", "C2"], "converged": "2/2", "movedPercent": "12.5",
                "excluded": [{"namespace": "plant", "name": "c9", "reason": "Draining", "message": "drained"}],
            },
        },
    }))
    .unwrap()
}

/// The ring of [`forwarder`] with these members of weight 1.
pub(crate) fn ring_map(epoch: u64, names: &[&str]) -> ConfigMap {
    let clusters = names
        .iter()
        .map(|name| json!({"name": name, "servers": [format!("nats://{name}:4222")]}));
    let ring = json!({"epoch": epoch, "replicas": 128, "clusters": clusters.collect::<Vec<_>>()});
    let members: BTreeMap<_, _> = names
        .iter()
        .map(|name| (*name, format!("plant/{}", name.to_lowercase())))
        .collect();
    serde_json::from_value(json!({
        "metadata": {
            "name": "assets-ring",
            "namespace": "plant",
            "annotations": {
                "fanout.openfactory.io/members": json!(members).to_string(),
                "fanout.openfactory.io/leaving": "{}",
                "fanout.openfactory.io/moved-percent": "12.5",
            },
            "ownerReferences": [{
                "apiVersion": "fanout.openfactory.io/v1alpha1",
                "kind": "AssetForwarder",
                "name": "assets",
                "uid": "a-uid",
                "controller": true,
            }],
        },
        // JSON is YAML.
        "data": {"ring.yaml": ring.to_string()},
    }))
    .unwrap()
}

/// The same, read.
pub(crate) fn declared(epoch: u64, names: &[&str]) -> Declared {
    Declared::read(Some(&ring_map(epoch, names)), &forwarder()).unwrap()
}

/// A cluster of the namespace `plant`.
pub(crate) fn cluster(name: &str, ring_name: Option<&str>, weight: u32) -> NatsCluster {
    serde_json::from_value(json!({
        "apiVersion": "fanout.openfactory.io/v1alpha1",
        "kind": "NatsCluster",
        "metadata": {"name": name, "namespace": "plant"},
        "spec": {"ringName": ring_name, "weight": weight, "external": {"servers": ["nats://n:4222"]}},
    }))
    .unwrap()
}

/// A pod that consumes with clusters C1 and C2, and has `waiting` assets that wait.
pub(crate) fn pod(name: &str, epoch: u64, waiting: usize) -> PodSeen {
    let cluster = json!({"connected": true, "pendingRecords": 5, "parkedRecords": 2, "heldAssets": 1});
    let status = json!({
        "phase": "consuming",
        "ring": {"epoch": epoch, "waitingAssets": waiting},
        "assignment": {"0": {"state": "active", "lag": 100}},
        "clusters": {"C1": cluster, "C2": cluster},
    });
    PodSeen {
        name: name.to_owned(),
        ending: false,
        heard: Heard::Status(Box::new(serde_json::from_value::<Status>(status).unwrap())),
        published: None,
    }
}

/// A pod that does not answer.
pub(crate) fn silent(name: &str) -> PodSeen {
    PodSeen {
        name: name.to_owned(),
        ending: false,
        heard: Heard::Silent("no answer within 3 s".to_owned()),
        published: None,
    }
}
