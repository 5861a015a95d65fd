//! Whether a live object holds what is declared.

use serde_json::Value;

/// What identifies an item of a list that merges by key, in the order in which we look for it. Ports come with several keys of
/// the API's own; their names are enough, and ours have names.
const KEYS: [&str; 6] = ["name", "mountPath", "type", "uid", "topologyKey", "containerPort"];

/// Whether `live` has every field of `declared`, with its value. What is declared as null, an empty object or an empty list may be
/// missing: the API server does not keep it.
pub(super) fn holds(live: &Value, declared: &Value) -> bool {
    match declared {
        Value::Null => true,
        Value::Object(fields) => fields.iter().all(|(name, declared)| match live.get(name) {
            Some(live) => holds(live, declared),
            None => is_empty(declared),
        }),
        Value::Array(items) => {
            let Value::Array(live) = live else {
                return false;
            };
            match key(items) {
                Some(key) => items.iter().all(|item| {
                    let same = |live: &&Value| live.get(key) == item.get(key);
                    live.iter().find(same).is_some_and(|live| holds(live, item))
                }),
                None => live.len() == items.len() && live.iter().zip(items).all(|(live, item)| holds(live, item)),
            }
        }
        scalar => live == scalar,
    }
}

/// An object without the fields that change by themselves.
pub(super) fn lasting(mut object: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(field);
        }
    }
    object
}

/// The field that tells the items apart, if all have it and no two the same.
fn key(items: &[Value]) -> Option<&'static str> {
    KEYS.into_iter().find(|key| {
        let mut seen: Vec<&Value> = items.iter().filter_map(|item| item.get(key)).collect();
        let all = seen.len() == items.len() && !items.is_empty();
        seen.sort_by_key(|value| value.to_string());
        seen.dedup();
        all && seen.len() == items.len()
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_adds_is_no_difference() {
        let declared = json!({
            "metadata": {"name": "a", "creationTimestamp": null},
            "spec": {"replicas": 2, "template": {"containers": [{"name": "f", "env": [{"name": "A", "value": "1"}]}]}, "strategy": {}},
        });
        let live = json!({
            "metadata": {"name": "a", "uid": "u"},
            "spec": {"replicas": 2, "paused": false, "template": {"containers": [
                {"name": "sidecar"},
                {"name": "f", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "imagePullPolicy": "Always"},
            ]}},
            "status": {"replicas": 1},
        });
        assert!(holds(&live, &declared));
    }

    #[test]
    fn what_a_person_changes_is_one() {
        let declared = json!({"spec": {"replicas": 2, "args": ["a", "b"], "env": [{"name": "A", "value": "1"}]}});
        for live in [
            json!({"spec": {"replicas": 3, "args": ["a", "b"], "env": [{"name": "A", "value": "1"}]}}),
            json!({"spec": {"args": ["a", "b"], "env": [{"name": "A", "value": "1"}]}}),
            json!({"spec": {"replicas": 2, "args": ["b", "a"], "env": [{"name": "A", "value": "1"}]}}),
            json!({"spec": {"replicas": 2, "args": ["a", "b", "c"], "env": [{"name": "A", "value": "1"}]}}),
            json!({"spec": {"replicas": 2, "args": ["a", "b"], "env": [{"name": "A", "value": "2"}]}}),
            json!({"spec": {"replicas": 2, "args": ["a", "b"], "env": [{"name": "B", "value": "1"}]}}),
        ] {
            assert!(!holds(&live, &declared), "{live}");
        }
    }

    #[test]
    fn items_without_a_key_of_their_own_are_compared_by_place() {
        let declared = json!([{"port": 1, "name": "x"}, {"port": 2, "name": "x"}]);
        assert!(holds(&declared, &declared));
        assert!(!holds(
            &json!([{"port": 2, "name": "x"}, {"port": 1, "name": "x"}]),
            &declared
        ));
    }

    #[test]
    fn status_and_bookkeeping_do_not_last() {
        let object = json!({"metadata": {"name": "a", "resourceVersion": "1", "generation": 2, "managedFields": []}, "spec": 1, "status": 2});
        assert_eq!(lasting(object), json!({"metadata": {"name": "a"}, "spec": 1}));
    }
}
