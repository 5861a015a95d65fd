//! Who has set which field, and by what kind of write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::Value;

use super::MANAGER;

const APPLY: &str = "Apply";
const UPDATE: &str = "Update";

/// The entries with all that we have set otherwise than by an apply counted as applied; none: nothing that we have set so is missing in
/// `declared`, and so an apply has nothing of it to take away.
pub(super) fn as_applied_without(entries: &[ManagedFieldsEntry], declared: &Value) -> Option<Vec<ManagedFieldsEntry>> {
    let mut updated = entries.iter().filter(|entry| is_ours(entry, UPDATE));
    let goes = updated.any(|entry| {
        let fields = entry.fields_v1.as_ref();
        !fields.is_some_and(|FieldsV1(fields)| has_all(declared, fields))
    });
    if goes { as_applied(entries) } else { None }
}

fn is_ours(entry: &ManagedFieldsEntry, operation: &str) -> bool {
    entry.manager.as_deref() == Some(MANAGER)
        && entry.subresource.as_deref().unwrap_or_default().is_empty()
        && entry.operation.as_deref() == Some(operation)
}

/// Whether a value has each field of a set. What the set says in a way that is not known here counts as missing.
fn has_all(value: &Value, fields: &Value) -> bool {
    let Some(fields) = fields.as_object() else {
        return false;
    };
    fields.iter().all(|(step, below)| match step.split_once(':') {
        Some(("f", name)) => value.get(name).is_some_and(|field| has_all(field, below)),
        // An item of a list, by the fields that tell it from the others. The API server adds some of them: such an item is not found.
        Some(("k", key)) => {
            let Ok(Value::Object(key)) = serde_json::from_str(key) else {
                return false;
            };
            let is_it = |item: &&Value| key.iter().all(|(name, value)| item.get(name) == Some(value));
            let mut items = value.as_array().into_iter().flatten();
            items.find(is_it).is_some_and(|item| has_all(item, below))
        }
        Some(_) => false,
        None => step == ".",
    })
}

/// The entries with all that we have set otherwise than by an apply counted as applied; none: there is no such field.
fn as_applied(entries: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let (updated, mut rest): (Vec<_>, Vec<_>) = entries.iter().cloned().partition(|entry| is_ours(entry, UPDATE));
    let mut updated = updated.into_iter();
    let first = updated.next()?;
    let mut ours = match rest.iter().position(|entry| is_ours(entry, APPLY)) {
        Some(place) => {
            let applied = rest.remove(place);
            union(first, applied)
        }
        None => first,
    };
    for further in updated {
        ours = union(ours, further);
    }
    ours.operation = Some(APPLY.to_owned());
    rest.push(ours);
    Some(rest)
}

fn union(mut a: ManagedFieldsEntry, b: ManagedFieldsEntry) -> ManagedFieldsEntry {
    let fields = match (a.fields_v1.take(), b.fields_v1) {
        (Some(FieldsV1(a)), Some(FieldsV1(b))) => Some(FieldsV1(merged(a, b))),
        (fields, None) | (None, fields) => fields,
    };
    ManagedFieldsEntry {
        fields_v1: fields,
        // The later one: no entry may be of a time before what it holds.
        time: a.time.max(b.time),
        ..a
    }
}

/// A set of fields is a tree of objects, whose leaves are empty ones.
fn merged(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Object(mut a), Value::Object(b)) => {
            for (name, field) in b {
                let field = match a.remove(&name) {
                    Some(known) => merged(known, field),
                    None => field,
                };
                a.insert(name, field);
            }
            Value::Object(a)
        }
        (a, _) => a,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, subresource: Option<&str>, fields: Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            operation: Some(operation.to_owned()),
            subresource: subresource.map(str::to_owned),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        }
    }

    #[test]
    fn what_we_have_created_counts_as_applied() {
        let others = [
            entry("kubectl", UPDATE, None, json!({"f:data": {"f:a": {}}})),
            entry(MANAGER, UPDATE, Some("status"), json!({"f:status": {}})),
        ];
        let mut entries = others.to_vec();
        assert_eq!(as_applied(&entries), None);
        entries.push(entry(MANAGER, UPDATE, None, json!({"f:data": {"f:b": {}}})));
        let mut wanted = others.to_vec();
        wanted.push(entry(MANAGER, APPLY, None, json!({"f:data": {"f:b": {}}})));
        assert_eq!(as_applied(&entries), Some(wanted));
    }

    #[test]
    fn what_we_have_created_is_taken_over_only_where_some_of_it_goes() {
        let declared = json!({
            "metadata": {"annotations": {"a": "1"}, "ownerReferences": [{"uid": "u", "kind": "AssetForwarder"}]},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        });
        let owners = json!({".": {}, r#"k:{"uid":"u"}"#: {}});
        let metadata = json!({"f:annotations": {".": {}, "f:a": {}}, "f:ownerReferences": owners});
        let is_taken_over = |fields: Value| {
            let created = entry(MANAGER, UPDATE, None, fields);
            let applied = entry(MANAGER, APPLY, None, json!({"f:data": {}}));
            let another = entry("kubectl", UPDATE, None, json!({"f:data": {}}));
            as_applied_without(&[created, applied, another], &declared).is_some()
        };
        assert!(!is_taken_over(json!({"f:metadata": metadata})));
        for goes in [
            json!({"f:metadata": metadata, "f:data": {".": {}}}),
            json!({"f:metadata": {"f:annotations": {"f:a": {}, "f:b": {}}}}),
            json!({"f:metadata": {"f:ownerReferences": {r#"k:{"uid":"v"}"#: {}}}}),
            // The API server has added the protocol to the key.
            json!({"f:spec": {"f:ports": {r#"k:{"port":80,"protocol":"TCP"}"#: {"f:port": {}}}}}),
            json!({"f:metadata": {"f:finalizers": {r#"v:"f""#: {}}}}),
            json!({"another": "form"}),
            json!("no set"),
        ] {
            assert!(is_taken_over(goes.clone()), "{goes}");
        }
        let (updated, applied) = (
            entry(MANAGER, UPDATE, None, metadata),
            entry("kubectl", APPLY, None, json!({})),
        );
        assert_eq!(
            as_applied_without(&[applied], &declared),
            None,
            "we have created nothing"
        );
        let not_said = ManagedFieldsEntry {
            fields_v1: None,
            ..updated
        };
        assert!(as_applied_without(&[not_said], &declared).is_some());
    }

    #[test]
    fn what_was_applied_before_stays_ours() {
        let entries = [
            entry(
                MANAGER,
                APPLY,
                None,
                json!({"f:data": {"f:a": {}, "f:b": {".": {}}}, "f:spec": {}}),
            ),
            entry(
                MANAGER,
                UPDATE,
                None,
                json!({"f:data": {"f:b": {"f:c": {}}, "f:d": {}}}),
            ),
        ];
        let wanted = json!({"f:data": {"f:a": {}, "f:b": {".": {}, "f:c": {}}, "f:d": {}}, "f:spec": {}});
        assert_eq!(as_applied(&entries), Some(vec![entry(MANAGER, APPLY, None, wanted)]));
    }
}
