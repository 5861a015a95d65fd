//! What there is in a namespace, in a form in which two sites that did the same are equal.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{FORWARDER, Site};

/// By kind and name what each object is.
pub type State = BTreeMap<String, Value>;

/// What belongs to an object of its own life, not to what it is: `generation` too, since a person's and an operator's way to the same
/// spec may have more or fewer steps.
const OF_A_LIFE: [&str; 8] = [
    "uid",
    "topicId",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "generation",
    "observedGeneration",
    "lastTransitionTime",
];

/// Hashes of what differs between two sites by its names (topic, group, servers, namespace). What they are hashes of is compared.
const HASHES: [&str; 3] = [
    "fanout.openfactory.io/applied",
    "fanout.openfactory.io/spec",
    "kubectl.kubernetes.io/last-applied-configuration",
];

impl Site {
    /// The resources and everything that the operator writes here.
    pub async fn state(&self) -> State {
        let kinds = "natsclusters,kafkachannels,assetforwarders,deployments,configmaps,secrets,services,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies";
        let text = self.namespace.kubectl(&["get", kinds, "-o", "json"]).await.unwrap();
        let mut names = Vec::new();
        for (own, name) in [
            (self.namespace.name.as_str(), "NAMESPACE"),
            (&self.stage.topic, "TOPIC"),
            (&self.stage.group, "GROUP"),
            (self.stage.kafka.bootstrap(), "KAFKA"),
        ] {
            names.push((own.to_owned(), name.to_owned()));
        }
        for (name, nats) in &self.stage.clusters {
            names.push((nats.address(), format!("SERVER-{name}")));
        }
        let status = self
            .namespace
            .api::<crds::AssetForwarder>()
            .get_opt(FORWARDER)
            .await
            .unwrap();
        if let Some(hash) = status
            .and_then(|forwarder| forwarder.status)
            .and_then(|status| status.config_hash)
        {
            names.push((hash, "HASH".to_owned()));
        }
        // Annotations tell of which object they are.
        let list: Value = serde_json::from_str(&text).unwrap();
        for item in list["items"].as_array().into_iter().flatten() {
            let uid = text_of(&item["metadata"]["uid"]).to_owned();
            names.push((uid, format!("UID-{}", text_of(&item["metadata"]["name"]))));
        }
        let text = names.iter().fold(text, |text, (own, name)| text.replace(own, name));
        let list: Value = serde_json::from_str(&text).unwrap();
        let mut state = State::new();
        for item in list["items"].as_array().into_iter().flatten() {
            let key = format!("{} {}", text_of(&item["kind"]), text_of(&item["metadata"]["name"]));
            // Kubernetes' own, in every namespace.
            if matches!(key.as_str(), "ConfigMap kube-root-ca.crt" | "ServiceAccount default") {
                continue;
            }
            let mut item = lasting(item);
            // That of others' kinds is theirs.
            if !text_of(&item["apiVersion"]).starts_with("fanout.") {
                item["status"].take();
            }
            // A hash over the names of the files as well, which hold the namespace's. The files themselves are compared.
            if key == format!("Secret {FORWARDER}-credentials") {
                item["data"]["version"].take();
            }
            state.insert(key, item);
        }
        state
    }
}

/// What differs, a line for each value; empty if nothing does.
pub fn differences(one: &State, other: &State) -> String {
    let mut lines = String::new();
    let of = |state: &State| json!(state);
    compare("", &of(one), &of(other), &mut lines);
    lines
}

fn compare(path: &str, one: &Value, other: &Value, lines: &mut String) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                let value = |of: &Map<String, Value>| of.get(name).cloned().unwrap_or_default();
                compare(&format!("{path}/{name}"), &value(one), &value(other), lines);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (at, (one, other)) in one.iter().zip(other).enumerate() {
                compare(&format!("{path}/{at}"), one, other, lines);
            }
        }
        _ if one == other => {}
        _ => lines.push_str(&format!("{path}: {one} | {other}\n")),
    }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Without what belongs to a life, at any depth.
fn lasting(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields
                .iter()
                .filter(|(name, _)| !OF_A_LIFE.contains(&name.as_str()) && !HASHES.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), lasting(value)));
            Value::Object(kept.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(lasting).collect()),
        other => other.clone(),
    }
}
