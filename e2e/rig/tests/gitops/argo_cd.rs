//! The health scripts for Argo CD, run by the language that it runs them in.

use std::fs;
use std::path::{Path, PathBuf};

use e2e_rig::transitions::Verdict;
use mlua::{Lua, LuaSerdeExt as _};
use serde_json::Value;

/// The three kinds that have a script.
pub(crate) const KINDS: [&str; 3] = ["AssetForwarder", "KafkaChannel", "NatsCluster"];

/// What Argo CD takes an object for.
pub(crate) fn health(object: &Value) -> Verdict {
    // Before it asks any script.
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Verdict {
            status: "Progressing".to_owned(),
            message: "Pending deletion".to_owned(),
        };
    }
    let lua = Lua::new();
    // As Argo CD does it: a table in which what is not there is nil.
    let options = mlua::serde::SerializeOptions::new()
        .serialize_none_to_null(false)
        .serialize_unit_to_null(false);
    lua.globals()
        .set("obj", lua.to_value_with(object, options).unwrap())
        .unwrap();
    let kind = object["kind"].as_str().unwrap();
    let script = fs::read_to_string(script(kind)).unwrap();
    let answer = lua.load(script).set_name(kind).eval().unwrap();
    lua.from_value(answer).unwrap()
}

pub(crate) fn script(kind: &str) -> PathBuf {
    gitops().join(format!("argocd/health/{kind}.lua"))
}

/// The checkout's files for GitOps.
pub(crate) fn gitops() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/gitops")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, observed: i64, suspend: bool, conditions: &[(&str, &str)]) -> Value {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status)| json!({"type": type_, "status": status, "reason": "Why", "message": "so"}))
            .collect();
        json!({
            "kind": kind,
            "metadata": {"name": "plant", "generation": 2},
            "spec": {"suspend": suspend},
            "status": {"observedGeneration": observed, "conditions": conditions},
        })
    }

    #[test]
    fn each_state_has_its_health() {
        let waiting = [("Ready", "False"), ("Reconciling", "True")];
        let stalled = [("Ready", "False"), ("Stalled", "True")];
        for kind in KINDS {
            let health = |observed, conditions| health(&object(kind, observed, false, conditions)).status;
            assert_eq!(health(2, &[("Ready", "True")]), "Healthy", "{kind}");
            assert_eq!(
                health(1, &[("Ready", "True")]),
                "Progressing",
                "{kind}: about another spec"
            );
            assert_eq!(health(1, &stalled), "Progressing", "{kind}: about another spec");
            assert_eq!(health(2, &waiting), "Progressing", "{kind}");
            assert_eq!(health(2, &stalled), "Degraded", "{kind}");
            assert_eq!(health(2, &[]), "Progressing", "{kind}");
            let mut new = object(kind, -1, false, &[]);
            new["status"] = json!({"observedGeneration": -1});
            assert_eq!(super::health(&new).status, "Progressing", "{kind}");
            new.as_object_mut().unwrap().remove("status");
            assert_eq!(super::health(&new).status, "Progressing", "{kind}");
            let said = super::health(&object(kind, 2, false, &stalled));
            assert_eq!(said.message, "Why: so");
        }
    }

    #[test]
    fn a_suspended_forwarder_is_suspended_once_its_pods_are_gone() {
        let health = |conditions| health(&object("AssetForwarder", 2, true, conditions)).status;
        assert_eq!(health(&[("Ready", "False"), ("Reconciling", "True")]), "Progressing");
        assert_eq!(health(&[("Ready", "True")]), "Suspended");
    }

    #[test]
    fn the_config_map_holds_the_scripts_as_they_are() {
        let path = gitops().join("argocd/argocd-cm.yaml");
        let map: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut expected = serde_json::Map::new();
        for kind in KINDS {
            let key = format!("resource.customizations.health.fanout.openfactory.io_{kind}");
            expected.insert(key, fs::read_to_string(script(kind)).unwrap().into());
        }
        assert_eq!(map["data"], Value::Object(expected), "{}", path.display());
        assert_eq!(map["metadata"]["name"], "argocd-cm");
    }
}
