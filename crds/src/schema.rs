//! Forms that fields of several resources have: their bounds and rules as the API server knows them.
//!
//! A rule's message says what is wrong and what to write instead: it is all that somebody sees who applies a manifest. Every
//! text, list and map has an upper bound, since the API server takes a rule only if it can tell what it costs at most.

mod labels;

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};

pub(crate) use self::labels::{annotations, label_selector, labels};

use crate::reference::SECRET_KEYS;

/// A pattern of the numbers from 1 to 65535.
pub(crate) const PORT: &str = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";

/// A rule and what it says when it is broken.
pub(crate) fn rule(expression: impl Into<String>, message: &str) -> Rule {
    Rule::new(expression).message(message)
}

/// A text of 1 to `most` characters.
pub(crate) fn text(most: u32, rules: &[Rule]) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": most,
        "x-kubernetes-validations": rules,
    })
}

/// A list without repetitions, in which who applies an item owns that one.
pub(crate) fn set(least: u32, most: u32, item: &Schema, rules: &[Rule]) -> Schema {
    let mut list = list(least, most, item, rules);
    list.insert("x-kubernetes-list-type".to_owned(), "set".into());
    list
}

/// A list that is replaced as a whole.
pub(crate) fn list(least: u32, most: u32, item: &Schema, rules: &[Rule]) -> Schema {
    let mut list = json_schema!({
        "type": "array",
        "maxItems": most,
        "items": item,
    });
    if least > 0 {
        list.insert("minItems".to_owned(), least.into());
    }
    if !rules.is_empty() {
        list.insert("x-kubernetes-validations".to_owned(), serde_json::json!(rules));
    }
    list
}

/// Texts by name.
pub(crate) fn map(most: u32, value: &Schema, rules: &[Rule]) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": most,
        "additionalProperties": value,
        "x-kubernetes-validations": rules,
    })
}

/// The name of an object of Kubernetes.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    text(
        253,
        &[rule(
            r"self.matches(r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
            "is not a valid object name: write lower case letters, digits, dashes and dots, with a letter or a digit at both ends",
        )],
    )
}

/// The name of a namespace.
pub(crate) fn namespace_name(_: &mut SchemaGenerator) -> Schema {
    text(
        63,
        &[rule(
            "self.matches(r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "is not a valid namespace name: write lower case letters, digits and dashes, with a letter or a digit at both ends",
        )],
    )
}

/// A key of a Secret's data.
pub(crate) fn secret_key(_: &mut SchemaGenerator) -> Schema {
    text(
        253,
        &[rule(
            "self.matches(r'^[-._a-zA-Z0-9]+$') && !self.startsWith('..') && self != '.'",
            "is not a valid Secret key: write letters, digits, dashes, underscores and dots",
        )],
    )
}

/// The key of a user's name is not one that holds what must stay secret: the name stands in a ConfigMap.
pub(crate) fn username_key_rule() -> Rule {
    let secret = SECRET_KEYS.map(|key| format!("'{key}'")).join(", ");
    rule(
        format!(
            "!has(self.usernameKey) || (!(self.usernameKey in [{secret}]) && (!has(self.key) || self.usernameKey != self.key))"
        ),
        "is a key of secret data, and a user's name is stored in a ConfigMap: write the key of the user's name",
    )
    .field_path(".usernameKey")
}

/// Settings of a Kafka client or topic, by their names.
pub(crate) fn kafka_settings(_: &mut SchemaGenerator) -> Schema {
    map(
        64,
        &json_schema!({"type": "string", "maxLength": 1024}),
        &[rule(
            "self.all(name, name.matches(r'^[a-z][a-z0-9._-]*$'))",
            "holds an invalid setting name: write lower case letters, digits and dots, such as max.message.bytes",
        )],
    )
}
