//! What our statuses must be, by the conventions alone: nothing here knows the operator.

use serde_json::Value;

use super::Version;

/// What a tool that waits may take an object for; kstatus' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is as declared.
    Current,
    /// It is on its way.
    InProgress,
    /// It will not come right by itself.
    Failed,
    /// It is being deleted.
    Terminating,
}

impl Health {
    /// As kstatus has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Current => "Current",
            Self::InProgress => "InProgress",
            Self::Failed => "Failed",
            Self::Terminating => "Terminating",
        }
    }
}

/// What an object of ours is to be taken for.
#[must_use]
pub fn expected(object: &Value) -> Health {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Health::Terminating;
    }
    if observed(object) != generation(object) {
        // What it says is about another spec.
        return Health::InProgress;
    }
    let is = |type_: &str| condition(object, type_).map(|condition| condition["status"] == "True");
    if is("Stalled") == Some(true) {
        Health::Failed
    } else if is("Reconciling") == Some(true) || is("Ready") != Some(true) {
        Health::InProgress
    } else {
        Health::Current
    }
}

/// What is wrong with the statuses of one object, in the order of its versions.
#[must_use]
pub fn faults(history: &[Version]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut before: Option<&Value> = None;
    for version in history.iter().filter(|version| !version.gone) {
        let object = &version.object;
        let mut fault = |text: String| {
            let (kind, name) = version.key();
            faults.push(format!(
                "{kind} {name} at {}: {text}: {}",
                version.revision(),
                object["status"]
            ));
        };
        if is_untouched(object) {
            before = Some(object);
            continue;
        }
        for text in within(object) {
            fault(text);
        }
        if let Some(before) = before {
            for text in between(before, object) {
                fault(text);
            }
        }
        before = Some(object);
    }
    faults
}

/// Whether nobody has written a status yet: the one that the definition gives stands there.
fn is_untouched(object: &Value) -> bool {
    let status = object["status"].as_object();
    observed(object) == Some(-1) && status.is_some_and(|status| status.len() == 1)
}

fn within(object: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let is = |type_: &str| condition(object, type_).is_some_and(|condition| condition["status"] == "True");
    match condition(object, "Ready") {
        None => faults.push("there is no Ready".to_owned()),
        Some(ready) if ready["status"] == "True" && (is("Reconciling") || is("Stalled")) => {
            faults.push("Ready is True beside Reconciling or Stalled".to_owned());
        }
        Some(ready) if ready["status"] == "False" && !is("Reconciling") && !is("Stalled") => {
            faults.push("Ready is False, and neither Reconciling nor Stalled says which way it goes".to_owned());
        }
        Some(_) => {}
    }
    if is("Reconciling") && is("Stalled") {
        faults.push("Reconciling and Stalled".to_owned());
    }
    for condition in conditions(object) {
        let type_ = condition["type"].as_str().unwrap_or_default();
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        if type_ != "Ready" && text("status") != "True" {
            faults.push(format!("{type_} is there although it is {}", text("status")));
        }
        if text("reason").is_empty() || text("message").is_empty() {
            faults.push(format!("{type_} gives no reason or no message"));
        }
        if condition["observedGeneration"] != object["status"]["observedGeneration"] {
            faults.push(format!("{type_} is about another generation than the status"));
        }
    }
    match (observed(object), generation(object)) {
        (Some(observed), Some(generation)) if observed <= generation => {}
        other => faults.push(format!("observed and present generation are {other:?}")),
    }
    faults
}

fn between(before: &Value, object: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    if observed(object) < observed(before) {
        faults.push("the observed generation went back".to_owned());
    }
    for condition in conditions(object) {
        let type_ = condition["type"].as_str().unwrap_or_default();
        let Some(old) = self::condition(before, type_) else {
            continue;
        };
        let moved = old["lastTransitionTime"] != condition["lastTransitionTime"];
        // A time has seconds: two changes within one look like none.
        if moved && old["status"] == condition["status"] {
            faults.push(format!("{type_} has a new time, and its old status"));
        }
    }
    faults
}

fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    object["status"]["conditions"].as_array().into_iter().flatten()
}

fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    conditions(object).find(|condition| condition["type"] == type_)
}

fn observed(object: &Value) -> Option<i64> {
    object["status"]["observedGeneration"].as_i64()
}

fn generation(object: &Value) -> Option<i64> {
    object["metadata"]["generation"].as_i64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(revision: u64, status: Value) -> Version {
        let metadata = json!({"name": "plant", "generation": 2, "resourceVersion": revision.to_string()});
        Version {
            object: json!({"kind": "AssetForwarder", "metadata": metadata, "status": status}),
            gone: false,
        }
    }

    fn status(conditions: &[(&str, &str, &str)]) -> Value {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status, time)| {
                json!({"type": type_, "status": status, "reason": "Why", "message": "so", "observedGeneration": 2, "lastTransitionTime": time})
            })
            .collect();
        json!({"observedGeneration": 2, "conditions": conditions})
    }

    #[test]
    fn each_break_of_the_conventions_is_a_fault() {
        let fine = [
            version(1, json!({"observedGeneration": -1})),
            version(2, status(&[("Ready", "False", "1"), ("Reconciling", "True", "1")])),
            version(3, status(&[("Ready", "True", "2")])),
        ];
        assert_eq!(faults(&fine), Vec::<String>::new());
        let count = |status: Value| faults(&[fine[2].clone(), version(4, status)]).len();
        assert_eq!(count(json!({"observedGeneration": 2})), 1, "no Ready");
        assert_eq!(count(status(&[("Ready", "False", "3")])), 1, "which way?");
        assert_eq!(count(status(&[("Ready", "True", "2"), ("Stalled", "True", "3")])), 1);
        assert_eq!(count(status(&[("Ready", "True", "2"), ("Stalled", "False", "3")])), 1);
        assert_eq!(count(status(&[("Ready", "True", "3")])), 1, "a time moved");
        let mut mixed = status(&[("Ready", "True", "2")]);
        mixed["observedGeneration"] = 1.into();
        assert_eq!(count(mixed), 2, "two generations, and it went back");
        let mut silent = status(&[("Ready", "True", "2")]);
        silent["conditions"][0]["reason"] = "".into();
        assert_eq!(count(silent), 1);
    }

    #[test]
    fn what_is_about_another_spec_is_in_progress() {
        let mut object = version(1, status(&[("Ready", "True", "1")])).object;
        assert_eq!(expected(&object), Health::Current);
        object["metadata"]["generation"] = 3.into();
        assert_eq!(expected(&object), Health::InProgress);
        object["metadata"]["deletionTimestamp"] = "now".into();
        assert_eq!(expected(&object), Health::Terminating);
    }
}
