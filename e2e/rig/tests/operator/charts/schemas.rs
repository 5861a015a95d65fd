//! kubeconform, by the schemas that the API server itself publishes: those of the network are not to be had everywhere, and not of its version.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use e2e_rig::cluster::Cluster;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{objects, text};

/// Checks manifests: every field is known, and every value is of its type. Kinds in `unknown` are nobody's here.
pub(super) fn check(cluster: &Cluster, manifests: &[String], unknown: &[&str]) {
    let mut kinds = BTreeMap::<String, BTreeSet<String>>::new();
    for object in manifests.iter().flat_map(|manifest| objects(manifest)) {
        let text = |field: &str| object[field].as_str().unwrap().to_owned();
        if !unknown.contains(&text("kind").as_str()) {
            kinds.entry(text("apiVersion")).or_default().insert(text("kind"));
        }
    }
    assert!(!kinds.is_empty(), "nothing to check");
    let dir = tempfile::tempdir().unwrap();
    for (version, kinds) in &kinds {
        fetch(cluster, version, kinds, &dir);
    }
    let file = dir.path().join("manifests.yaml");
    fs::write(&file, manifests.join("\n---\n")).unwrap();
    let mut kubeconform = cluster.program("kubeconform");
    kubeconform.args(["-strict", "-summary", "-skip", &unknown.join(","), "-schema-location"]);
    kubeconform.arg(dir.path().join("{{.ResourceKind}}{{.KindSuffix}}.json"));
    let output = kubeconform.arg(&file).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// Writes a file for each of a version's kinds, by the names that kubeconform looks for.
fn fetch(cluster: &Cluster, version: &str, kinds: &BTreeSet<String>, dir: &TempDir) {
    let path = if version.contains('/') { "apis" } else { "api" };
    let published = cluster
        .kubectl(&["get", "--raw", &format!("/openapi/v3/{path}/{version}")])
        .unwrap();
    let published: Value = serde_json::from_str(&published).unwrap();
    let mut schemas = published["components"]["schemas"].clone();
    forbid_unknown(&mut schemas);
    // kubeconform's suffix has the first word of the group.
    let suffix = match version.split_once('/') {
        Some((group, version)) => format!("-{}-{version}", group.split('.').next().unwrap()),
        None => format!("-{version}"),
    };
    for kind in kinds {
        let is_it = |schema: &Value| {
            let names = schema["x-kubernetes-group-version-kind"].as_array();
            names.is_some_and(|names| names.iter().any(|name| name["kind"] == kind.as_str()))
        };
        let schema = schemas.as_object().unwrap().iter().find(|(_, schema)| is_it(schema));
        let (name, _) = schema.unwrap_or_else(|| unreachable!("the API server does not publish {version} {kind}"));
        let whole = json!({
            "$ref": format!("#/components/schemas/{name}"),
            "components": {"schemas": schemas},
        });
        let file = format!("{}{suffix}.json", kind.to_lowercase());
        fs::write(dir.path().join(file), whole.to_string()).unwrap();
    }
}

/// OpenAPI does not say of an object that it has no other fields; the API server holds it so.
fn forbid_unknown(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties")
                && !members.contains_key("additionalProperties")
                && !members.contains_key("x-kubernetes-preserve-unknown-fields")
            {
                members.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            members.values_mut().for_each(forbid_unknown);
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_unknown),
        _ => {}
    }
}
