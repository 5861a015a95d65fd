//! Credentials: missing at first, and changed while pods run.

mod kafka;

use e2e_rig::nats::{self, Login, User};
use e2e_rig::site::{FORWARDER, Site, condition, status};
use e2e_rig::stage::SOON;
use forwarder_core::document::PublishMode;
use serde_json::{Value, json};

use crate::judge;

/// What is pending in a second of a test's traffic: more is never out when a pod ends or a connection does.
const PENDING: u64 = 500;

const OLD: &str = "the-old-one";
const NEW: &str = "the-new-one";

async fn site() -> Site {
    let user = User {
        name: "plant".to_owned(),
        password: OLD.to_owned(),
        ..User::default()
    };
    let options = nats::Options {
        login: Login::Users(vec![user]),
        ..nats::Options::default()
    };
    Site::with_servers(PublishMode::Core, 2, options).await
}

fn with_auth(mut cluster: Value) -> Value {
    cluster["spec"]["auth"] = json!({"type": "UserPassword", "secretRef": {"name": "nats-login"}});
    cluster
}

fn secret(password: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "nats-login"},
        "stringData": {"username": "plant", "password": password},
    })
}

#[tokio::test]
async fn a_secret_that_comes_later_is_waited_for() {
    let site = site().await;
    let manifests = [
        with_auth(site.cluster(0)),
        with_auth(site.cluster(1)),
        site.channel(),
        site.forwarder(1),
    ];
    site.apply(&manifests).await;
    let message = site.wait_reason("SecretMissing").await;
    assert!(message.contains("nats-login"), "{message}");
    let forwarder = site.get().await;
    assert!(condition(&forwarder, "Reconciling").is_some() && condition(&forwarder, "Stalled").is_none());
    site.apply(&[secret(OLD)]).await;
    site.wait_ring(&["C1", "C2"], 0).await;
    site.stage.traffic.send(1_000).await.unwrap();
    judge::repeated_at_most(&site, PENDING).await;
}

#[tokio::test]
async fn a_new_password_reaches_running_pods() {
    let mut site = site().await;
    let manifests = [
        secret(OLD),
        with_auth(site.cluster(0)),
        with_auth(site.cluster(1)),
        site.channel(),
        site.forwarder(1),
    ];
    site.apply(&manifests).await;
    let forwarder = site.wait_ring(&["C1", "C2"], 0).await;
    let epoch = status(&forwarder).ring.unwrap().epoch;
    let pods = judge::pods(&site).await;
    let flow = site.stage.flow(200);

    site.apply(&[secret(NEW)]).await;
    let version = judge::credentials_version(&site).await;
    e2e_rig::wait::eventually(e2e_rig::site::PODS, "the pod has read the new credentials", || async {
        let seen = judge::pod_statuses(&site).await?;
        anyhow::ensure!(
            seen.iter().all(|pod| pod["credentialsVersion"] == json!(version)),
            "{seen:?}, not {version}"
        );
        Ok(true)
    })
    .await
    .unwrap();
    // The server now takes the new one alone, and ends the connections of the old one.
    for (_, nats) in &mut site.stage.clusters {
        nats.reconfigure(OLD, NEW).unwrap();
    }
    flow.stop().await.unwrap();
    judge::repeated_at_most(&site, PENDING).await;
    assert_eq!(judge::pods(&site).await, pods, "no pod was replaced");
    assert_eq!(status(&site.get().await).ring.unwrap().epoch, epoch);
    site.namespace
        .wait::<crds::NatsCluster>("c1", SOON, "the operator's own look uses the new one", |cluster| {
            condition(cluster, "Ready").is_some_and(|ready| ready.status == "True")
        })
        .await
        .unwrap();
    site.namespace
        .kubectl(&["get", "assetforwarder", FORWARDER])
        .await
        .unwrap();
}
