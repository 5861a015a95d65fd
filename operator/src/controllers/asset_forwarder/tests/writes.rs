//! How children are written where the API server refuses some of them, or knows of a Role only later.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use hyper::Method;
use kube::Client;
use serde_json::{Value, json};

use super::super::apply::apply;
use super::*;
use crate::fake_api;
use crate::reconcile::apply::ApplyError;

/// An API server that has nothing yet.
#[derive(Default)]
struct Server {
    /// The kinds that were created.
    made: BTreeSet<String>,
    /// How often a RoleBinding is refused after its Role was made.
    unknown: usize,
    /// How often one was tried.
    bindings: usize,
    /// A kind that nobody may create.
    refused: Option<&'static str>,
}

impl Server {
    fn create(&mut self, mut child: Value) -> (u16, String) {
        let kind = child["kind"].as_str().unwrap().to_owned();
        if self.refused == Some(kind.as_str()) {
            return failure(403, "Forbidden");
        }
        if kind == "RoleBinding" {
            self.bindings += 1;
            if !self.made.contains("Role") {
                return failure(404, "NotFound");
            }
            if self.unknown > 0 {
                self.unknown -= 1;
                return failure(404, "NotFound");
            }
        }
        child["metadata"]["uid"] = kind.as_str().into();
        child["metadata"]["resourceVersion"] = "7".into();
        self.made.insert(kind);
        (201, child.to_string())
    }
}

fn failure(code: u16, reason: &str) -> (u16, String) {
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason});
    (code, status.to_string())
}

fn client(server: &Arc<Mutex<Server>>) -> Client {
    let server = Arc::clone(server);
    fake_api::client(move |request, body| {
        if request.method == Method::GET {
            return failure(404, "NotFound");
        }
        server.lock().unwrap().create(serde_json::from_slice(body).unwrap())
    })
}

/// Writes all children of a new forwarder.
async fn write(server: &Arc<Mutex<Server>>) -> Result<(), ApplyError> {
    let world = World::new([cluster("c1", 1)]);
    let Pass { validated, resources } = world.look();
    let context = fake_api::context(client(server));
    let outcome = apply(&context, &validated.identity, resources, &Existing::default()).await;
    assert!(outcome.ring.is_some(), "what was written first is told");
    outcome.failure.map_or(Ok(()), Err)
}

#[tokio::test(start_paused = true)]
async fn a_role_binding_waits_until_the_api_server_knows_its_role() {
    let server = Arc::new(Mutex::new(Server {
        unknown: 3,
        ..Server::default()
    }));
    write(&server).await.unwrap();
    let made = &server.lock().unwrap().made;
    assert!(made.contains("RoleBinding") && made.contains("Deployment"), "{made:?}");
}

#[tokio::test(start_paused = true)]
async fn a_role_that_stays_unknown_is_told() {
    let server = Arc::new(Mutex::new(Server {
        unknown: usize::MAX,
        ..Server::default()
    }));
    let error = write(&server).await.unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("RoleBinding"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_is_refused_takes_no_other_one_along() {
    let server = Arc::new(Mutex::new(Server {
        unknown: 3,
        refused: Some("Service"),
        ..Server::default()
    }));
    let error = write(&server).await.unwrap_err();
    assert!(error.to_string().contains("Service"), "{error}");
    let made = &server.lock().unwrap().made;
    assert!(
        made.contains("RoleBinding") && made.contains("NetworkPolicy"),
        "{made:?}"
    );
    assert!(!made.contains("Deployment"), "no pods without it");
}
