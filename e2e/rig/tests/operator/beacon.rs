//! The ring, as the operator has it announced to subscribers.

use anyhow::{Context as _, Result};
use async_nats::Client;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crds::AssetForwarder;
use crds::asset_forwarder::BeaconStatus;
use e2e_rig::manifests;
use e2e_rig::site::{FORWARDER, PODS, Site, condition, status};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::document::{PublishMode, RingConfig};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::judge;

fn announcing(site: &Site, replicas: i32) -> Value {
    let mut forwarder = site.forwarder(replicas);
    forwarder["spec"]["ring"] = json!({"beacon": {"enabled": true}});
    forwarder
}

async fn ring(site: &Site) -> RingConfig {
    let map: ConfigMap = site.namespace.get(&format!("{FORWARDER}-ring")).await.unwrap();
    RingConfig::from_yaml(&map.data.unwrap()["ring.yaml"]).unwrap()
}

fn is_ready(forwarder: &AssetForwarder) -> bool {
    condition(forwarder, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Waits until all pods run the ring with the beacon, and yields what subscribers are given.
async fn wait_beacon(site: &Site) -> BeaconStatus {
    let announces = |forwarder: &AssetForwarder| is_ready(forwarder) && status(forwarder).beacon.is_some();
    let forwarder = site
        .wait("the ring has a beacon that all pods have taken up", announces)
        .await;
    status(&forwarder).beacon.unwrap()
}

/// What the key has signed, as the contract says it: see `forwarder/beacon/src/signed.rs`.
fn opened(public_key: &str, signed: &[u8]) -> Result<Value> {
    let end = signed.iter().position(|byte| *byte == b'\n').context("no signature")?;
    let (signature, json) = (URL_SAFE_NO_PAD.decode(&signed[..end])?, &signed[end + 1..]);
    let key = KeyPair::from_public_key(public_key)?;
    key.verify(&[b"fanout-beacon-1\n", json].concat(), &signature)?;
    Ok(serde_json::from_slice(json)?)
}

/// Asks as any subscriber does, and yields the announcement once one comes that the key has signed.
async fn announcement(client: &Client, beacon: &BeaconStatus) -> Value {
    let what = format!(
        "a pod answers on {}.get with the key {}",
        beacon.subject, beacon.public_key
    );
    wait::value(PODS, &what, || async {
        let subject = format!("{}.get", beacon.subject);
        let request = json!({"nonce": "of-the-test"}).to_string();
        let answer = client.request(subject, request.into()).await?;
        Ok(Some(opened(&beacon.public_key, &answer.payload)?))
    })
    .await
    .unwrap()
}

fn names(announcement: &Value) -> Vec<&str> {
    let newest = announcement["rings"].as_array().unwrap().last().unwrap();
    let clusters = newest["clusters"].as_array().unwrap().iter();
    clusters.map(|cluster| cluster["name"].as_str().unwrap()).collect()
}

/// Waits for the event that another key signs, and yields its words.
async fn note_of_another_key(site: &Site) -> String {
    wait::value(SOON, "an event tells of another key", || async {
        let events = site.namespace.api::<Event>().list(&ListParams::default()).await?;
        let mut events = events.items.into_iter();
        let told = events.find(|event| event.reason.as_deref() == Some("BeaconKeyChanged"));
        Ok(told.and_then(|event| event.message))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn one_that_is_declared_reaches_subscribers_without_a_roll_and_a_lost_key_is_told() {
    let site = Site::new(PublishMode::Core, 2).await;
    let forwarder = site.start(2).await;
    let (uid, before) = (forwarder.uid().unwrap(), ring(&site).await);
    let pods = judge::pods(&site).await;
    let flow = site.stage.flow(200);

    let mut cluster = site.cluster(0);
    cluster["spec"]["clientServers"] = json!(["wss://c1.example.com:443"]);
    site.apply(&[cluster, announcing(&site, 2)]).await;
    let beacon = wait_beacon(&site).await;
    let declared = ring(&site).await;
    assert!(declared.epoch > before.epoch, "{declared:?}");
    assert_eq!(declared.beacon.as_ref().unwrap().ring, uid);
    assert_eq!(declared.clusters[0].client_servers, ["wss://c1.example.com:443"]);
    assert_eq!(
        (&beacon.ring, &beacon.subject),
        (&uid, &declared.beacon.unwrap().subject)
    );
    assert_eq!(beacon.subject, format!("_FANOUT.{}.{FORWARDER}", site.namespace.name));

    for (name, nats) in &site.stage.clusters {
        let client = nats.client().await.unwrap();
        let said = announcement(&client, &beacon).await;
        assert_eq!(
            (&said["kind"], &said["ring"]),
            (&json!("announcement"), &json!(uid)),
            "{name}: {said}"
        );
        assert_eq!(said["nonce"], "of-the-test", "{name}: {said}");
        assert_eq!(names(&said), ["C1", "C2"], "{name}: {said}");
    }

    // Without the Secret nobody knows the key any more.
    let secrets = site.namespace.api::<Secret>();
    let name = format!("{FORWARDER}-beacon");
    secrets.delete(&name, &DeleteParams::default()).await.unwrap();
    let has_another = |forwarder: &AssetForwarder| {
        let shown = status(forwarder).beacon;
        is_ready(forwarder) && shown.is_some_and(|shown| shown.public_key != beacon.public_key)
    };
    let forwarder = site
        .wait("another key is made, and all pods have it", has_another)
        .await;
    let another = status(&forwarder).beacon.unwrap();
    let note = note_of_another_key(&site).await;
    assert!(
        note.contains(&beacon.public_key) && note.contains(&another.public_key),
        "{note}"
    );
    let kept = secrets.get(&name).await.unwrap().data.unwrap().remove("seed").unwrap();
    let kept = KeyPair::from_seed(std::str::from_utf8(&kept.0).unwrap()).unwrap();
    assert_eq!(kept.public_key(), another.public_key);
    let client = site.stage.clusters[0].1.client().await.unwrap();
    let said = announcement(&client, &another).await;
    assert_eq!(said["ring"], json!(uid), "{said}");

    flow.stop().await.unwrap();
    judge::exactly_once(&site).await;
    assert_eq!(judge::pods(&site).await, pods, "no pod was replaced");
}

#[tokio::test]
async fn forwarders_of_one_name_in_two_namespaces_announce_on_subjects_of_their_own() {
    let (one, other) = tokio::join!(Site::new(PublishMode::Core, 1), Site::new(PublishMode::Core, 1));
    // Both publish to the same servers, by resources of their own.
    let (_, nats) = &one.stage.clusters[0];
    let mut told = Vec::new();
    for site in [&one, &other] {
        let cluster = manifests::nats_cluster("c1", "C1", &nats.url());
        site.apply(&[cluster, site.channel(), announcing(site, 1)]).await;
    }
    for site in [&one, &other] {
        let beacon = wait_beacon(site).await;
        let client = nats.client().await.unwrap();
        let said = announcement(&client, &beacon).await;
        assert_eq!(said["ring"], json!(site.get().await.uid()), "{said}");
        told.push(beacon);
    }
    let [one, other] = [&told[0], &told[1]];
    assert_ne!(one.subject, other.subject);
    assert_ne!(one.ring, other.ring);
    assert_ne!(one.public_key, other.public_key);
}
