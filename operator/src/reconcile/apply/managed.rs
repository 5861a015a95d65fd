//! Who has set which field, and by what kind of write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::Value;

use super::MANAGER;

const APPLY: &str = "Apply";
const UPDATE: &str = "Update";

/// The entries with all that we have set otherwise than by an apply counted as applied; none: there is no such field.
pub(super) fn as_applied(entries: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let is_ours = |entry: &ManagedFieldsEntry, operation: &str| {
        entry.manager.as_deref() == Some(MANAGER)
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
            && entry.operation.as_deref() == Some(operation)
    };
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
