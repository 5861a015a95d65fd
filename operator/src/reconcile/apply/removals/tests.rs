use std::sync::{Arc, Mutex};

use hyper::Method;
use hyper::http::request::Parts;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::json;

use super::super::Applier;
use super::super::declared::stamped;
use super::super::surplus::tests::patched;
use super::*;
use crate::fake_api;
use crate::metrics::Metrics;
use crate::reconcile::events::Events;

/// An API server with one child, which takes JSON patches.
#[derive(Default)]
struct Server {
    child: Value,
    /// The reasons and notes of events.
    told: Vec<(String, String)>,
    /// JSON patches that came.
    patches: usize,
    /// How many others write the child first.
    rivals: usize,
    /// What admission does to each write.
    admission: Option<fn(&mut Value)>,
    /// With what admission refuses each write.
    refusal: Option<u16>,
}

impl Server {
    fn write(&mut self, child: Value) {
        let version: u64 = self.child["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        self.child = child;
        self.child["metadata"]["resourceVersion"] = (version + 1).to_string().into();
    }

    fn answer(&mut self, request: &Parts, body: &[u8]) -> Result<Value, u16> {
        if request.uri.path().contains("/events") {
            let event: Value = serde_json::from_slice(body).unwrap();
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            assert_eq!(event["regarding"]["kind"], "AssetForwarder");
            self.told.push((text("reason"), text("note")));
            return Ok(event);
        }
        if request.method == Method::GET {
            return Ok(self.child.clone());
        }
        assert_eq!(request.headers["content-type"], "application/json-patch+json");
        self.patches += 1;
        if self.rivals > 0 {
            self.rivals -= 1;
            self.write(self.child.clone());
        }
        let patch = serde_json::from_slice(body).unwrap();
        let mut child = patched(self.child.clone(), &patch).ok_or(409_u16)?;
        if let Some(code) = self.refusal {
            return Err(code);
        }
        if let Some(admission) = self.admission {
            admission(&mut child);
        }
        // A write that changes nothing makes no version.
        child["metadata"]["resourceVersion"] = self.child["metadata"]["resourceVersion"].clone();
        if child != self.child {
            self.write(child);
        }
        Ok(self.child.clone())
    }
}

/// The server, and who writes to it.
fn start<K: Resource<DynamicType = ()> + Serialize>(declared: &K) -> (Arc<Mutex<Server>>, Applier) {
    let (mut child, _) = stamped(declared).unwrap();
    child["metadata"]["uid"] = "c1".into();
    child["metadata"]["resourceVersion"] = "7".into();
    let server = Arc::new(Mutex::new(Server {
        child,
        ..Server::default()
    }));
    let shared = Arc::clone(&server);
    let client = fake_api::client(move |request, body| {
        let answer = shared.lock().unwrap().answer(request, body);
        match answer {
            Ok(answer) => (200, answer.to_string()),
            Err(code) => {
                let status = json!({"kind": "Status", "status": "Failure", "code": code, "message": "by a policy"});
                (code, status.to_string())
            }
        }
    });
    let events = Arc::new(Events::new(client.clone(), "operator-0".to_owned()));
    let metrics = Arc::new(Metrics::new().unwrap());
    (server, Applier::new(client, metrics, Arc::default(), events))
}

fn metadata() -> Value {
    let owner =
        json!({"apiVersion": "a/v1", "kind": "AssetForwarder", "name": "plant", "uid": "u", "controller": true});
    json!({"name": "plant", "namespace": "n", "ownerReferences": [owner]})
}

fn binding() -> RoleBinding {
    let subject = json!({"kind": "ServiceAccount", "name": "plant", "namespace": "n"});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "plant"});
    serde_json::from_value(json!({"metadata": metadata(), "roleRef": role, "subjects": [subject]})).unwrap()
}

fn deployment() -> Deployment {
    let template = json!({"spec": {"containers": [{"name": "forwarder", "image": "i"}]}});
    serde_json::from_value(json!({"metadata": metadata(), "spec": {"selector": {}, "template": template}})).unwrap()
}

fn add_container(child: &mut Value) {
    let containers = child["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
    if containers.len() == 1 {
        containers.push(json!({"name": "miner", "image": "m"}));
    }
}

const MINER: &str = "miner in spec.template.spec.containers";

#[tokio::test]
async fn what_another_hand_adds_goes_and_is_told_once_for_each_time() {
    let (server, applier) = start(&binding());
    for times in 1..=2 {
        let mut child = server.lock().unwrap().child.clone();
        child["metadata"]["labels"] = json!({"theirs": "stays"});
        child["subjects"] = json!([child["subjects"][0], {"kind": "User", "name": "eve"}]);
        server.lock().unwrap().write(child);
        let applied = applier.apply(binding()).await.unwrap();
        assert!(applied.written);
        assert!(!applier.apply(binding()).await.unwrap().written);
        let server = server.lock().unwrap();
        assert_eq!(server.child["subjects"].as_array().unwrap().len(), 1);
        assert_eq!(server.child["metadata"]["labels"], json!({"theirs": "stays"}));
        assert_eq!((server.patches, server.told.len()), (times, times));
        let (reason, note) = &server.told[0];
        assert_eq!(reason, REMOVED.as_str());
        assert!(
            note.contains("RoleBinding plant") && note.ends_with("{\"kind\":\"User\",\"name\":\"eve\"} in subjects"),
            "{note}"
        );
    }
}

#[tokio::test]
async fn what_is_as_declared_is_not_written() {
    let (server, applier) = start(&deployment());
    let mut child = server.lock().unwrap().child.clone();
    child["spec"]["template"]["spec"]["schedulerName"] = "a-default".into();
    server.lock().unwrap().write(child);
    assert!(!applier.apply(deployment()).await.unwrap().written);
    assert_eq!(server.lock().unwrap().patches, 0);
}

#[tokio::test]
async fn others_who_write_at_the_same_time_do_not_keep_it_there() {
    let (server, applier) = start(&deployment());
    add_container(&mut server.lock().unwrap().child);
    server.lock().unwrap().rivals = TRIES - 1;
    assert!(applier.apply(deployment()).await.unwrap().written);
    {
        let mut server = server.lock().unwrap();
        assert_eq!((server.patches, server.told.len()), (TRIES, 1));
        add_container(&mut server.child);
        server.rivals = TRIES;
    }
    let error = applier.apply(deployment()).await.unwrap_err();
    assert!(matches!(error, ApplyError::Changed { .. }), "{error}");

    // What was decided upon one version is not written over another one.
    let read: Deployment = serde_json::from_value(server.lock().unwrap().child.clone()).unwrap();
    server.lock().unwrap().rivals = 1;
    let error = applier.apply_over(deployment(), Some(&read)).await.unwrap_err();
    assert!(matches!(error, ApplyError::Changed { .. }), "{error}");
    assert_eq!(server.lock().unwrap().told.len(), 1);
}

#[tokio::test]
async fn nobody_fights_with_admission_that_adds_it_to_each_write_or_refuses_that_it_goes() {
    for refusal in [None, Some(403)] {
        let (server, applier) = start(&deployment());
        {
            let mut server = server.lock().unwrap();
            add_container(&mut server.child);
            server.admission = Some(add_container);
            server.refusal = refusal;
        }
        for _ in 0..3 {
            applier.apply(deployment()).await.unwrap();
        }
        assert_eq!(server.lock().unwrap().patches, 1, "it is settled with it");
        // Another change is a reason to try, and none to tell it again.
        let mut child = server.lock().unwrap().child.clone();
        child["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "2".into();
        server.lock().unwrap().write(child);
        applier.apply(deployment()).await.unwrap();
        let mut server = server.lock().unwrap();
        assert_eq!((server.patches, server.told.len()), (2, 1));
        let (reason, note) = server.told.pop().unwrap();
        assert_eq!(reason, LEFT.as_str());
        let why = refusal.map_or("something adds them again", |_| "by a policy");
        assert!(note.contains(MINER) && note.contains(why), "{note}");
    }
}
