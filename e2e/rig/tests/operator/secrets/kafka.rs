//! A password of Kafka that changes. (That of NATS: see the module above.)

use std::collections::BTreeSet;

use e2e_rig::kafka::{Door, Kafka, Mechanism, Options};
use e2e_rig::site::{FORWARDER, Site, condition};
use e2e_rig::stage::SOON;
use forwarder_core::document::PublishMode;
use kube::ResourceExt;
use serde_json::{Value, json};

async fn pods(site: &Site) -> BTreeSet<String> {
    let pods = site.namespace.pods(FORWARDER).await.unwrap();
    pods.iter().map(ResourceExt::name_any).collect()
}

fn secret(user: &str, password: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "kafka-login"},
        "stringData": {"username": user, "password": password},
    })
}

#[tokio::test]
async fn a_new_password_of_kafka_rolls_the_pods_and_loses_nothing() {
    let options = Options {
        door: Some(Door {
            tls: false,
            sasl: Some(Mechanism::ScramSha512),
        }),
        host: Some(Site::host().await),
        ..Options::default()
    };
    let site = Site::on_kafka(Kafka::start_with(options).await.unwrap(), PublishMode::JetStream, 1).await;
    let secured = site.stage.kafka.secured().unwrap();
    let old = std::fs::read_to_string(&secured.password_file).unwrap();
    let mut channel = site.channel();
    channel["spec"]["connection"] = json!({
        "bootstrapServers": [secured.bootstrap],
        "sasl": {"mechanism": "SCRAM-SHA-512", "secretRef": {"name": "kafka-login"}},
    });
    site.apply(&[
        secret(&secured.username, &old),
        site.cluster(0),
        channel,
        site.forwarder(2),
    ])
    .await;
    site.wait_ready().await;
    let before = pods(&site).await;
    let flow = site.stage.flow(200);

    // The broker no longer knows the old one; who is connected stays.
    site.stage.kafka.set_password("another-one").await.unwrap();
    site.apply(&[secret(&secured.username, "another-one")]).await;
    e2e_rig::wait::eventually(e2e_rig::site::PODS, "all pods are new ones", || async {
        let now = pods(&site).await;
        Ok(now.len() == 2 && now.is_disjoint(&before))
    })
    .await
    .unwrap();
    site.wait_ready().await;
    flow.stop().await.unwrap();
    site.stage.verdict().await.check_exactly_once().unwrap();
    site.namespace
        .wait::<crds::KafkaChannel>("assets", SOON, "the operator's own look uses the new one", |channel| {
            condition(channel, "Ready").is_some_and(|ready| ready.status == "True")
        })
        .await
        .unwrap();
}
