//! What the operator does for those who share it: it says when it is ready, and uses only the Secrets that are meant for it.

mod alone;
mod neighbours;
mod roles;

use crds::NatsCluster;
use e2e_rig::http;
use e2e_rig::kubernetes::Verb::{self, Get, List, Watch};
use e2e_rig::kubernetes::{Fault, Kubernetes, Namespace, Operator, Rule};
use e2e_rig::site::condition;
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use serde_json::json;

const READS: &[Verb] = &[Get, List, Watch];

/// Leases pass: a replica leads although it can read nothing.
const NOTHING_IS_READ: Rule = Rule {
    verbs: READS,
    resource: None,
    every: 1,
    fault: Fault::Refuse(503),
};

#[tokio::test]
async fn a_replica_is_ready_once_it_has_read_what_it_answers_from() {
    let kubernetes = Kubernetes::of_run().await.unwrap();
    kubernetes.install_definitions().await.unwrap();
    let namespace = Namespace::new(&kubernetes).unwrap();
    let proxy = kubernetes.api_proxy().await.unwrap();
    proxy.set(&[NOTHING_IS_READ]);
    let mut operator = Operator::behind(&proxy, &kubernetes, &namespace.name, "operator").unwrap();
    let address = operator.metrics_address();
    wait::eventually(SOON, "it is not ready, and says why", || async {
        let (code, said) = http::get(&address, "/readyz").await?;
        anyhow::ensure!(code == 503 && said.contains("rings of the router"), "{code}: {said}");
        Ok(true)
    })
    .await
    .unwrap();
    operator.wait_leads().await.unwrap();
    wait::eventually(SOON, "the leader's controllers are waited for as well", || async {
        let (code, said) = http::get(&address, "/readyz").await?;
        anyhow::ensure!(code == 503 && said.contains("KafkaChannels"), "{code}: {said}");
        Ok(true)
    })
    .await
    .unwrap();
    assert_eq!(http::get(&address, "/healthz").await.unwrap().0, 200);
    assert!(operator.process().try_exit().unwrap().is_none(), "it goes on trying");

    proxy.set(&[]);
    wait::eventually(SOON, "it is ready", || async {
        Ok(http::get(&address, "/readyz").await?.0 == 200)
    })
    .await
    .unwrap();
    // It answers from memory.
    proxy.set(&[NOTHING_IS_READ]);
    proxy.end_watches();
    assert_eq!(http::get(&address, "/readyz").await.unwrap().0, 200);
}

#[tokio::test]
async fn where_secrets_must_opt_in_one_that_does_not_is_sent_nowhere() {
    let kubernetes = Kubernetes::of_run().await.unwrap();
    kubernetes.install_definitions().await.unwrap();
    let namespace = Namespace::new(&kubernetes).unwrap();
    let flags = ["--watch-namespace", &namespace.name, "--require-secret-opt-in"];
    let _operator = Operator::with_flags(&kubernetes, &namespace.name, "operator", &flags).unwrap();
    let secret = |labels| {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "login", "labels": labels},
            "stringData": {"token": "t0ken"},
        })
    };
    let cluster = json!({
        "apiVersion": "fanout.openfactory.io/v1alpha1",
        "kind": "NatsCluster",
        "metadata": {"name": "c1"},
        "spec": {
            "external": {"servers": ["nats://127.0.0.1:1"]},
            "auth": {"type": "Token", "secretRef": {"name": "login"}},
        },
    });
    namespace.apply(&secret(json!({})).to_string()).await.unwrap();
    namespace.apply(&cluster.to_string()).await.unwrap();
    let reason = async |reason: &str| {
        namespace
            .wait::<NatsCluster>("c1", SOON, reason, |cluster| {
                condition(cluster, "Ready").is_some_and(|ready| ready.reason == reason)
            })
            .await
            .unwrap()
    };
    let refused = reason("SecretNotOptedIn").await;
    let message = &condition(&refused, "Ready").unwrap().message;
    assert!(message.contains("fanout.openfactory.io/allow-use"), "{message}");

    let allowed = secret(json!({"fanout.openfactory.io/allow-use": "true"}));
    namespace.apply(&allowed.to_string()).await.unwrap();
    // Nobody listens there, and that is asked only with credentials.
    reason("Unreachable").await;
}
