//! The CustomResourceDefinitions, as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;
use serde_json::json;

use crate::{AssetForwarder, KafkaChannel, NatsCluster};

/// All three, ready to be applied.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        installed(NatsCluster::crd()),
        installed(KafkaChannel::crd()),
        installed(AssetForwarder::crd()),
    ]
}

/// What is derived from the types, made fit for the API server and for those who compare what they applied with what is there.
fn installed(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        plain(root);
        if let Some(status) = property(root, "status") {
            // A new object's status has a generation that is not its own: who judges health by it (kstatus does) would
            // otherwise call an object current that nobody has looked at.
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
        // The one default of a spec: `kubectl scale` and autoscalers read the field itself.
        if let Some(replicas) = property(root, "spec").and_then(|spec| property(spec, "replicas")) {
            replicas.default = Some(JSON(json!(1)));
        }
    }
    definition
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

/// Takes away what the types' serialization says and an API should not.
fn plain(schema: &mut JSONSchemaProps) {
    if let Some(description) = schema.description.as_mut() {
        *description = flowing(description);
    }
    // A written default shows up as a difference for who compares (Argo CD), and freezes in objects what a later version
    // might do better. Defaults are in the code; fields say them.
    schema.default = None;
    // `null` then means that the field is not there, and the API server drops it.
    schema.nullable = None;
    // Those of Rust are not known to Kubernetes, and kubectl would warn of them. The bounds stand in `minimum` and `maximum`.
    match schema.format.as_deref() {
        Some("uint32" | "uint64" | "uint") => schema.format = Some("int64".to_owned()),
        Some("int8" | "int16" | "uint8" | "uint16") => schema.format = Some("int32".to_owned()),
        _ => {}
    }
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
    {
        plain(property);
    }
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(item)) => plain(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(plain),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = schema.additional_properties.as_mut() {
        plain(value);
    }
}

/// Joins the lines of a paragraph: `kubectl explain` breaks them anew. Lists keep theirs.
fn flowing(description: &str) -> String {
    let mut flowing = String::new();
    for line in description.lines() {
        if line.is_empty() || line.starts_with([' ', '-', '*']) || flowing.is_empty() || flowing.ends_with('\n') {
            if !flowing.is_empty() {
                flowing.push('\n');
            }
        } else {
            flowing.push(' ');
        }
        flowing.push_str(line);
    }
    flowing
}
