//! What is written over what, against an API server with one child.

use std::collections::HashMap;

use hyper::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::watcher::Event;

use super::delete::is_to_go;
use super::settled::MOST_SETTLED;
use super::*;
use crate::fake_api;
use crate::index::WATCHED;

#[derive(Default)]
struct Server {
    child: Option<Value>,
    /// How often the child's status is written before our own write.
    statuses: usize,
    /// The methods that wrote.
    writes: Vec<&'static str>,
}

impl Server {
    fn version(&mut self) {
        if let Some(child) = &mut self.child {
            let version: u64 = child["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            child["metadata"]["resourceVersion"] = (version + 1).to_string().into();
        }
    }

    fn change(&mut self, pointer: &str, value: Value) {
        *self.child.as_mut().unwrap().pointer_mut(pointer).unwrap() = value;
        self.version();
    }

    fn answer(&mut self, method: &Method, body: &[u8]) -> Result<Value, (u16, &'static str)> {
        if method == Method::GET {
            return self.child.clone().ok_or((404, "NotFound"));
        }
        let body: Value = serde_json::from_slice(body).unwrap();
        if method == Method::POST {
            if self.child.is_some() {
                return Err((409, "AlreadyExists"));
            }
            self.writes.push("create");
            return Ok(self.child.insert(made(body)).clone());
        }
        if self.statuses > 0 {
            self.statuses -= 1;
            self.version();
        }
        let wanted = &body["metadata"]["resourceVersion"];
        let child = self.child.as_ref().ok_or((404, "NotFound"))?;
        if !wanted.is_null() && *wanted != child["metadata"]["resourceVersion"] {
            return Err((409, "Conflict"));
        }
        self.writes.push(if wanted.is_null() {
            "patch"
        } else {
            "patch of a version"
        });
        merge(self.child.as_mut().unwrap(), body);
        self.version();
        self.child.clone().ok_or((404, "NotFound"))
    }
}

fn made(mut child: Value) -> Value {
    child["metadata"]["uid"] = "c1".into();
    child["metadata"]["resourceVersion"] = "7".into();
    child["metadata"]["generation"] = 1.into();
    child
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}

/// The server, and who writes to it: a watch has told that there is no ConfigMap.
fn start(child: Option<Value>) -> (Arc<Mutex<Server>>, Applier) {
    let server = Arc::new(Mutex::new(Server {
        child: child.map(made),
        ..Server::default()
    }));
    let shared = Arc::clone(&server);
    let client = fake_api::client(move |request, body| {
        let answer = shared.lock().unwrap().answer(&request.method, body);
        match answer {
            Ok(answer) => (200, answer.to_string()),
            Err((code, reason)) => {
                let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason});
                (code, status.to_string())
            }
        }
    });
    let events = Arc::new(Events::new(client.clone(), "operator-0".to_owned()));
    let children = Arc::new(Children::default());
    children.hear::<ConfigMap>(&Ok(Event::InitDone));
    let metrics = Arc::new(Metrics::new().unwrap());
    (server, Applier::new(client, metrics, children, events))
}

fn metadata(owner: &str, uid: &str) -> Value {
    let owner = json!({"apiVersion": "a/v1", "kind": "AssetForwarder", "name": owner, "uid": uid, "controller": true});
    let labels: HashMap<_, _> = WATCHED.into();
    json!({"name": "child", "namespace": "n", "labels": labels, "ownerReferences": [owner]})
}

fn map(epoch: u32) -> ConfigMap {
    let data = json!({"epoch": epoch.to_string()});
    serde_json::from_value(json!({"metadata": metadata("plant", "u"), "data": data})).unwrap()
}

/// The map as it is there.
fn there(epoch: u32) -> Value {
    stamped(&map(epoch)).unwrap().0
}

const SOURCE: &str = "fanout.openfactory.io/source";

fn deployment(source: &str, replicas: i32) -> Deployment {
    let mut metadata = metadata("plant", "u");
    metadata["annotations"] = json!({SOURCE: source});
    let template = json!({"spec": {"containers": [{"name": "forwarder", "image": source}]}});
    let spec = json!({"selector": {}, "replicas": replicas, "template": template});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn writes(server: &Mutex<Server>) -> Vec<&'static str> {
    std::mem::take(&mut server.lock().unwrap().writes)
}

#[tokio::test]
async fn what_was_decided_upon_nothing_is_created_or_not_written() {
    let (server, applier) = start(None);
    let (object, is_written) = applier.apply_over(map(1), None).await.unwrap();
    assert!(is_written && object.data == map(1).data);
    assert_eq!(writes(&server), ["create"]);

    // Somebody else has made it meanwhile.
    let (server, applier) = start(Some(there(2)));
    let error = applier.apply_over(map(1), None).await.unwrap_err();
    assert!(matches!(error, ApplyError::Changed { .. }), "{error}");
    assert!(
        writes(&server).is_empty(),
        "what a late leader has decided takes nothing back"
    );
}

#[tokio::test]
async fn what_belongs_to_another_one_is_told_and_left_alone() {
    // Whoever copies a UID is not its owner.
    for (name, uid) in [("plant", "another"), ("forged", "u")] {
        let mut child = there(2);
        child["metadata"] = metadata(name, uid);
        let (server, applier) = start(Some(child));
        let error = applier.apply_over(map(1), None).await.unwrap_err();
        assert!(matches!(error, ApplyError::NotOurs { .. }), "{error}");
        assert!(writes(&server).is_empty());
    }
}

#[tokio::test]
async fn a_child_that_its_watch_does_not_show_is_read_at_the_next_look() {
    let mut child = there(1);
    // Another hand took our labels while nobody led.
    child["metadata"]["labels"] = json!({});
    for over in [false, true] {
        let (server, applier) = start(Some(child.clone()));
        assert!(applier.children.is_absent("ConfigMap", "n", "child"));
        let error = if over {
            applier.apply_over(map(2), None).await.map(drop).unwrap_err()
        } else {
            applier.apply(map(2)).await.map(drop).unwrap_err()
        };
        assert!(matches!(error, ApplyError::Changed { .. }), "{error}");
        assert!(writes(&server).is_empty(), "it was decided without it");
        assert!(!applier.children.is_absent("ConfigMap", "n", "child"));
        let read = serde_json::from_value(server.lock().unwrap().child.clone().unwrap()).unwrap();
        applier.apply_over(map(2), Some(&read)).await.unwrap();
        assert_eq!(writes(&server), ["patch of a version"]);
    }
}

#[tokio::test]
async fn another_status_holds_no_write_up() {
    for statuses in [0, TRIES - 1] {
        let (server, applier) = start(Some(stamped(&deployment("a", 0)).unwrap().0));
        let read: Deployment = serde_json::from_value(server.lock().unwrap().child.clone().unwrap()).unwrap();
        server.lock().unwrap().version();
        server.lock().unwrap().statuses = statuses;
        let (written, is_written) = applier.apply_over_spec(deployment("b", 2), Some(&read)).await.unwrap();
        assert!(is_written);
        assert_eq!(writes(&server), ["patch of a version"]);
        server.lock().unwrap().statuses = statuses;
        applier.scale(&written, 3).await.unwrap();
        assert_eq!(writes(&server), ["patch of a version"]);
        assert_eq!(server.lock().unwrap().child.as_ref().unwrap()["spec"]["replicas"], 3);
    }
    let (server, applier) = start(None);
    let (_, is_written) = applier.apply_over_spec(deployment("a", 1), None).await.unwrap();
    assert!(is_written);
    assert_eq!(writes(&server), ["create"]);
}

#[tokio::test]
async fn what_says_something_else_by_now_is_not_written() {
    let source = format!("/metadata/annotations/{}", SOURCE.replace('/', "~1"));
    for (pointer, value) in [
        (source.as_str(), json!("c")),
        ("/metadata/generation", json!(2)),
        ("/metadata/uid", json!("c2")),
    ] {
        let (server, applier) = start(Some(stamped(&deployment("a", 0)).unwrap().0));
        let read: Deployment = serde_json::from_value(server.lock().unwrap().child.clone().unwrap()).unwrap();
        server.lock().unwrap().change(pointer, value);
        let applied = applier.apply_over_spec(deployment("b", 2), Some(&read)).await;
        let error = applied.map(drop).unwrap_err();
        assert!(matches!(error, ApplyError::Changed { .. }), "{pointer}: {error}");
        let error = applier.scale(&read, 2).await.unwrap_err();
        assert!(matches!(error, ApplyError::Changed { .. }), "{pointer}: {error}");
        assert!(writes(&server).is_empty(), "{pointer}");
    }
}

#[tokio::test]
async fn of_what_is_settled_with_an_addition_so_much_is_kept_as_has_room() {
    let (_, applier) = start(None);
    let (declared, hash) = stamped(&map(1)).unwrap();
    for number in 0..=MOST_SETTLED {
        let mut live = map(2);
        live.metadata.uid = Some(number.to_string());
        applier.settle(&declared, hash.clone(), &live);
    }
    let settled = applier.settled.lock().unwrap();
    assert_eq!(settled.len(), MOST_SETTLED);
    assert!(settled.get("0").is_none() && settled.get("1").is_some());
}

#[test]
fn only_what_is_ours_is_deleted() {
    let budget = |metadata: Value| -> PodDisruptionBudget {
        let mut object = json!({"metadata": {"name": "assets", "namespace": "plant"}});
        merge(&mut object["metadata"], metadata);
        serde_json::from_value(object).unwrap()
    };
    let owned_by = |uid: &str, controller: bool| {
        let kind = "AssetForwarder";
        json!([{"apiVersion": "v1", "kind": kind, "name": "assets", "uid": uid, "controller": controller}])
    };
    let ours = budget(json!({"ownerReferences": owned_by("u1", true)}));
    assert!(is_to_go(&ours, "u1"));
    for others in [
        json!({}),
        json!({"ownerReferences": owned_by("u2", true)}),
        json!({"ownerReferences": owned_by("u1", false)}),
        json!({"ownerReferences": owned_by("u1", true), "deletionTimestamp": "1970-01-01T00:00:01Z"}),
    ] {
        assert!(!is_to_go(&budget(others.clone()), "u1"), "{others}");
    }
}

#[test]
fn of_who_has_written_what_only_that_is_kept_which_is_asked_for() {
    let entry = |manager: &str, fields: Value| json!({"manager": manager, "operation": "Apply", "fieldsV1": fields});
    let mut deployment: Deployment = serde_json::from_value(json!({"metadata": {"managedFields": [
        entry(MANAGER, json!({
            "f:metadata": {"f:annotations": {"f:a": {}}, "f:labels": {"f:b": {}}},
            "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {}}},
        })),
        entry("another", json!({"f:spec": {"f:replicas": {}}})),
        entry(MANAGER, json!({"f:status": {}})),
    ]}}))
    .unwrap();
    let annotation = ["f:metadata", "f:annotations", "f:a"];
    let (replicas, label) = (["f:spec", "f:replicas"], ["f:metadata", "f:labels", "f:b"]);
    let owned =
        |deployment: &Deployment| [&annotation[..], &replicas, &label].map(|path| owns(deployment, MANAGER, path));
    assert_eq!(owned(&deployment), [true; 3]);
    keep_ownership(&mut deployment, MANAGER, &[&replicas, &annotation[..2]]);
    assert_eq!(owned(&deployment), [true, true, false]);
    assert!(!owns(&deployment, "another", &replicas));
    let kept = serde_json::to_value(deployment.managed_fields()).unwrap();
    let fields = json!({"f:metadata": {"f:annotations": {"f:a": {}}}, "f:spec": {"f:replicas": {}}});
    assert_eq!((&kept[0]["fieldsV1"], kept.as_array().unwrap().len()), (&fields, 2));
}
