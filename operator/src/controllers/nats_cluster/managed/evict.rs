//! Takes a server's pod away as the drain of a node does: by an eviction, which every PodDisruptionBudget that selects the pod may refuse.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::api::PostParams;
use kube::core::Status;
use kube::{Api, Client};

use super::ManagedError;
use super::names::Identity;
use crate::reconcile::conditions::Words;
use crate::reconcile::reason::Reason;

/// What came of an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Evicted {
    /// The pod ends, or is gone already.
    Gone,
    /// It stays for now, in the API server's words.
    Refused(String),
}

/// Evicts just this pod: one that has its name by now is left alone.
///
/// The client must not repeat what is refused: what was decided may be wrong by then, and the status would say nothing for minutes.
pub(super) async fn evict(
    unretried: &Client,
    identity: &Identity,
    name: &str,
    uid: &str,
) -> Result<Evicted, ManagedError> {
    // Not by `Api::evict`: kube writes `delete_options`, which the API server ignores, and the UID with it.
    let eviction = Eviction {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(identity.namespace.clone()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteOptions::default()
        }),
    };
    let api = Api::<Pod>::namespaced(unretried.clone(), &identity.namespace);
    let params = PostParams::default();
    let answer = api
        .create_subresource::<_, Status>("eviction", name, &params, &eviction)
        .await;
    let error = match answer {
        // An eviction's answer is a Status, which may say no under the HTTP code of a success.
        Ok(said) if said.is_failure() => kube::Error::Api(said.boxed()),
        Ok(_) => return Ok(Evicted::Gone),
        Err(error) => error,
    };
    match error {
        kube::Error::Api(refusal) if matches!(refusal.code, 404 | 409) => Ok(Evicted::Gone),
        kube::Error::Api(refusal) if is_by_budget(&refusal) => Ok(Evicted::Refused(told(&refusal))),
        error => Err(ManagedError::Evict {
            name: name.to_owned(),
            source: Box::new(error),
        }),
    }
}

/// A budget that allows none answers 429, and names a budget as the cause: an API server that is busy answers 429 as well. Two budgets of one
/// pod answer 500, whatever they allow, and only the words tell that from a fault.
fn is_by_budget(refusal: &Status) -> bool {
    match refusal.code {
        429 => {
            let mut causes = refusal.details.iter().flat_map(|details| &details.causes);
            causes.any(|cause| cause.reason == "DisruptionBudget") || refusal.message.contains("disruption budget")
        }
        500 => refusal.message.contains("PodDisruptionBudget"),
        _ => false,
    }
}

/// The causes name the budget and count its pods; the message alone does not.
fn told(refusal: &Status) -> String {
    let causes = refusal.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<&str> = causes
        .map(|cause| cause.message.as_str())
        .filter(|message| !message.is_empty())
        .collect();
    if causes.is_empty() {
        refusal.message.clone()
    } else {
        causes.join("; ")
    }
}

/// What people read while a server that is to restart may not be evicted. `why` says what is to be done.
pub(super) fn refused(why: &Words, identity: &Identity, said: &str) -> Words {
    let said = said.trim_end_matches('.');
    Words::new(
        Reason::EvictionRefused,
        format!(
            "{}, as soon as it may be evicted. The API server refuses that for now: {said}. The operator tries again by itself. \
             If this lasts, change or delete the PodDisruptionBudget in the way: only {} may select these pods",
            why.message,
            identity.servers()
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use crds::NatsCluster;
    use serde_json::{Value, json};

    use super::*;
    use crate::fake_api;

    fn identity() -> Identity {
        let cluster: NatsCluster = serde_json::from_value(json!({
            "metadata": {"name": "c1", "namespace": "plant", "uid": "u"},
            "spec": {"managed": {"replicas": 1, "version": "2.12.1"}},
        }))
        .unwrap();
        Identity::of(&cluster)
    }

    /// What comes of an answer of the API server, and what it was asked.
    async fn answered(
        code: u16,
        message: &str,
        causes: Value,
    ) -> (Result<Evicted, ManagedError>, Vec<(String, Value)>) {
        answered_as(code, code, message, causes).await
    }

    /// As [`answered`], under another HTTP code than the Status has.
    async fn answered_as(
        http: u16,
        code: u16,
        message: &str,
        causes: Value,
    ) -> (Result<Evicted, ManagedError>, Vec<(String, Value)>) {
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": if code < 300 { "Success" } else { "Failure" },
            "message": message,
            "details": {"causes": causes},
            "code": code,
        });
        let asked = Arc::new(Mutex::new(Vec::new()));
        let client = fake_api::client({
            let asked = Arc::clone(&asked);
            move |request, body| {
                let what = format!("{} {}", request.method, request.uri.path());
                asked
                    .lock()
                    .unwrap()
                    .push((what, serde_json::from_slice(body).unwrap()));
                (http, status.to_string())
            }
        });
        let evicted = evict(&client, &identity(), "c1-nats-0", "uid-0").await;
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        (evicted, asked)
    }

    #[tokio::test]
    async fn the_pod_of_this_uid_is_evicted_and_no_other_one() {
        let (evicted, asked) = answered(201, "", json!([])).await;
        assert_eq!(evicted.unwrap(), Evicted::Gone);
        let [(what, body)] = &asked[..] else {
            panic!("{asked:?}");
        };
        assert_eq!(what, "POST /api/v1/namespaces/plant/pods/c1-nats-0/eviction");
        assert_eq!(
            (&body["apiVersion"], &body["kind"]),
            (&json!("policy/v1"), &json!("Eviction"))
        );
        assert_eq!(body["deleteOptions"]["preconditions"]["uid"], "uid-0");
        for code in [404, 409] {
            assert_eq!(answered(code, "no", json!([])).await.0.unwrap(), Evicted::Gone);
        }
    }

    #[tokio::test]
    async fn what_a_budget_refuses_is_asked_once_and_told() {
        let budget = "The disruption budget theirs needs 1 healthy pods and has 1 currently";
        let causes = json!([{"reason": "DisruptionBudget", "message": budget}]);
        let (evicted, asked) = answered(429, "Cannot evict pod.", causes).await;
        assert_eq!(evicted.unwrap(), Evicted::Refused(budget.to_owned()));
        assert_eq!(asked.len(), 1);

        let two = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        for http in [500, 201] {
            let (evicted, _) = answered_as(http, 500, two, json!([])).await;
            assert_eq!(evicted.unwrap(), Evicted::Refused(two.to_owned()));
        }
        let why = Words::new(Reason::RollingOut, "c1-nats-0 restarts as declared");
        let words = refused(&why, &identity(), two);
        for part in [
            "c1-nats-0 restarts",
            "more than one PodDisruptionBudget",
            "only c1-nats may select these pods",
        ] {
            assert!(words.message.contains(part), "{words:?}");
        }
        assert!(!words.message.contains(".."), "{words:?}");
    }

    #[tokio::test]
    async fn other_refusals_are_errors() {
        // A busy API server answers 429 as well.
        for code in [403, 429, 500, 504] {
            let error = answered(code, "the store is away", json!([])).await.0.unwrap_err();
            assert!(matches!(error, ManagedError::Evict { .. }), "{error:?}");
        }
    }
}
