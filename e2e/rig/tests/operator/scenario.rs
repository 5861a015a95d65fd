//! What the operator is asked to do in these tests, whatever happens meanwhile.

use anyhow::ensure;
use e2e_rig::nats::{Login, Options, User};
use e2e_rig::site::{FORWARDER, PODS, Site, condition, status};
use e2e_rig::wait;
use serde_json::{Value, json};

/// The topic of the channel that the operator makes and deletes.
pub(crate) fn managed_topic(site: &Site) -> String {
    format!("{}-managed", site.stage.topic)
}

/// A channel whose topic comes and goes with it.
pub(crate) fn managed(site: &Site) -> Value {
    let mut channel = site.channel();
    channel["metadata"]["name"] = json!("managed");
    channel["spec"]["topic"] =
        json!({"name": managed_topic(site), "managed": true, "partitions": 2, "deletionPolicy": "Delete"});
    channel
}

/// Clusters join, drain and are deleted, a topic is made, the forwarder is suspended: no pod runs.
pub(crate) async fn without_pods(site: &Site) {
    let first = [
        site.cluster(0),
        site.cluster(1),
        site.channel(),
        managed(site),
        site.forwarder(0),
    ];
    site.apply(&first).await;
    let epoch = ring(site, &["C1", "C2"], 0).await;
    site.apply(&[site.cluster(2)]).await;
    let epoch = ring(site, &["C1", "C2", "C3"], epoch).await;
    site.apply(&[drained(site.cluster(0))]).await;
    let epoch = ring(site, &["C2", "C3"], epoch).await;
    site.delete_cluster(1).await;
    ring(site, &["C3"], epoch).await;
    wait_gone(site, "c2").await;
    site.apply(&[suspended(site.forwarder(0))]).await;
    wait_suspended(site).await;
}

/// Servers for [`with_pods`]: they ask for a password.
pub(crate) fn servers() -> Options {
    let user = User {
        name: "plant".to_owned(),
        password: "of-the-plant".to_owned(),
        ..User::default()
    };
    Options {
        login: Login::Users(vec![user]),
        ..Options::default()
    }
}

/// A Secret comes late, clusters join, drain and are deleted, pods are scaled, rolled, suspended and started again, while records flow.
pub(crate) async fn with_pods(site: &Site) {
    let first = [
        with_auth(site.cluster(0)),
        with_auth(site.cluster(1)),
        site.channel(),
        managed(site),
        site.forwarder(1),
    ];
    site.apply(&first).await;
    site.wait_reason("SecretMissing").await;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "nats-login"},
        "stringData": {"username": "plant", "password": "of-the-plant"},
    });
    site.apply(&[secret]).await;
    let epoch = ring(site, &["C1", "C2"], 0).await;
    let flow = site.stage.flow(300);

    site.apply(&[with_auth(site.cluster(2))]).await;
    let epoch = ring(site, &["C1", "C2", "C3"], epoch).await;
    let mut rolled = site.forwarder(2);
    rolled["spec"]["podTemplate"]["annotations"] = json!({"example.com/rolled": "yes"});
    site.apply(&[rolled.clone()]).await;
    site.wait("two pods of the new template are ready", |forwarder| {
        let is_ready = condition(forwarder, "Ready").is_some_and(|ready| ready.status == "True");
        is_ready && status(forwarder).ready_replicas == 2
    })
    .await;
    site.apply(&[drained(with_auth(site.cluster(0)))]).await;
    let epoch = ring(site, &["C2", "C3"], epoch).await;
    site.delete_cluster(1).await;
    ring(site, &["C3"], epoch).await;
    wait_gone(site, "c2").await;
    site.apply(&[suspended(rolled.clone())]).await;
    wait_suspended(site).await;
    site.apply(&[rolled]).await;
    site.wait("two pods are ready again", |forwarder| {
        status(forwarder).ready_replicas == 2
    })
    .await;
    site.wait_ready().await;
    flow.stop().await.unwrap();
    site.stage.verdict().await.check().unwrap();
}

/// Deletes everything, and waits until nothing of it is left, the topic that the operator has made neither.
pub(crate) async fn delete_all(site: &Site) {
    site.namespace
        .kubectl(&["delete", "assetforwarder", FORWARDER, "--timeout=120s"])
        .await
        .unwrap();
    site.namespace
        .kubectl(&["delete", "natsclusters,kafkachannels", "--all", "--timeout=120s"])
        .await
        .unwrap();
    wait::eventually(PODS, "nothing is left", || async {
        let mut left = site.state().await;
        left.remove("Secret nats-login");
        ensure!(left.is_empty(), "{:?}", left.keys());
        let partitions = site.stage.kafka.partitions(&managed_topic(site)).await?;
        ensure!(partitions == 0, "the managed topic is there");
        Ok(true)
    })
    .await
    .unwrap();
}

/// The epoch of the ring of these, once all use it.
async fn ring(site: &Site, names: &[&str], epoch: i64) -> i64 {
    let forwarder = site.wait_ring(names, epoch).await;
    status(&forwarder).ring.unwrap().epoch
}

fn with_auth(mut cluster: Value) -> Value {
    cluster["spec"]["auth"] = json!({"type": "UserPassword", "secretRef": {"name": "nats-login"}});
    cluster
}

fn drained(mut cluster: Value) -> Value {
    cluster["spec"]["drain"] = json!(true);
    cluster
}

fn suspended(mut forwarder: Value) -> Value {
    forwarder["spec"]["suspend"] = json!(true);
    forwarder
}

async fn wait_suspended(site: &Site) {
    site.wait("it is suspended", |forwarder| {
        condition(forwarder, "Ready").is_some_and(|ready| ready.reason == "Suspended")
    })
    .await;
}

async fn wait_gone(site: &Site, cluster: &str) {
    wait::eventually(PODS, "the cluster is gone", || async {
        let gone = site.namespace.api::<crds::NatsCluster>().get_opt(cluster).await?;
        ensure!(gone.is_none(), "{:?}", gone.and_then(|cluster| cluster.status));
        Ok(true)
    })
    .await
    .unwrap();
}
