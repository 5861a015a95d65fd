//! Labels, annotations and selectors. In resources of their own kind the API server checks them; within a custom resource nobody
//! would before the operator uses them.

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::{list, map, rule, text};

/// A label's or an annotation's key: a name, perhaps behind a domain and a slash.
const KEY: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";

/// Labels by key.
pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    map(64, &label_value(), &[keys()])
}

/// Annotations by key.
pub(crate) fn annotations(_: &mut SchemaGenerator) -> Schema {
    map(64, &json_schema!({"type": "string", "maxLength": 16_384}), &[keys()])
}

/// A selector of labels, replaced as a whole.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    let requirement = json_schema!({
        "description": "A requirement on one label.",
        "type": "object",
        "required": ["key", "operator"],
        "properties": {
            "key": text(317, &[rule(
                format!("self.matches(r'{KEY}')"),
                "is not a valid label key: write a name, such as plant, or a domain and a name, such as example.com/plant",
            )]),
            "operator": {
                "description": "`In` and `NotIn`: the label's value is (not) one of `values`; `Exists` and `DoesNotExist`: the label is (not) there.",
                "type": "string",
                "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
            },
            "values": described(
                list(0, 64, &label_value(), &[]),
                "With `In` and `NotIn`: the values.",
            ),
        },
        "x-kubernetes-validations": [
            rule(
                "self.operator in ['Exists', 'DoesNotExist'] || (has(self.values) && size(self.values) > 0)",
                "operators In and NotIn need values: add some, or write Exists or DoesNotExist",
            ),
            rule(
                "self.operator in ['In', 'NotIn'] || !has(self.values) || size(self.values) == 0",
                "operators Exists and DoesNotExist take no values: remove them, or write In or NotIn",
            ),
        ],
    });
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": described(
                map(64, &label_value(), &[keys()]),
                "Labels that must all be there with these values.",
            ),
            "matchExpressions": described(
                list(0, 32, &requirement, &[]),
                "Requirements that must all be met.",
            ),
        },
        "x-kubernetes-map-type": "atomic",
    })
}

fn described(mut schema: Schema, description: &str) -> Schema {
    schema.insert("description".to_owned(), description.into());
    schema
}

fn keys() -> Rule {
    rule(
        format!("self.all(key, key.matches(r'{KEY}'))"),
        "holds a key that Kubernetes rejects: write a name, such as plant, or a domain and a name, such as example.com/plant",
    )
}

fn label_value() -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 63,
        "x-kubernetes-validations": [rule(
            "self.matches(r'^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",
            "is not a valid label value: write letters, digits, dashes, underscores and dots, with a letter or a digit at both ends",
        )],
    })
}
