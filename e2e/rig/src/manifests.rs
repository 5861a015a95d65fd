//! Manifests of our resources, in the least form that works.

use serde_json::{Value, json};

/// The group and version of all three.
const API_VERSION: &str = "fanout.openfactory.io/v1alpha1";

/// A cluster that is open to all, with the label `ring: main`.
pub fn nats_cluster(name: &str, ring_name: &str, url: &str) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "NatsCluster",
        "metadata": {"name": name, "labels": {"ring": "main"}},
        "spec": {"ringName": ring_name, "external": {"servers": [url]}},
    })
}

/// The channel of a topic that is there.
pub fn kafka_channel(name: &str, bootstrap: &str, topic: &str) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "KafkaChannel",
        "metadata": {"name": name},
        "spec": {"connection": {"bootstrapServers": [bootstrap]}, "topic": {"name": topic}},
    })
}

/// A forwarder in core mode of so many pods, from the channel `assets` to all clusters that have the label `ring: main`.
pub fn asset_forwarder(name: &str, group: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "AssetForwarder",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "sources": [{
                "channelRef": {"name": "assets"},
                "group": group,
                "startFrom": {"type": "Earliest"},
            }],
            "clusters": {"selector": {"matchLabels": {"ring": "main"}}},
            "publish": {"mode": "Core"},
            // Three pods on a node of two cores, beside all servers.
            "podTemplate": {"resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}}},
        },
    })
}
