use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::rings::Document;
use super::watch::{document, forwarder_of};
use super::*;
use crate::asset_forwarder::names::{FORWARDER, IDLE};

const RING: &str = "epoch: 7\nclusters:\n- name: C1\n  servers: [nats://c1:4222, nats://c1b:4222]\n";

fn key(name: &str) -> Key {
    Key {
        namespace: "plant".to_owned(),
        name: name.to_owned(),
    }
}

fn map(forwarder: &str, text: &str) -> ConfigMap {
    let mut map = ConfigMap {
        data: Some(BTreeMap::from([("ring.yaml".to_owned(), text.to_owned())])),
        ..ConfigMap::default()
    };
    map.metadata.name = Some(format!("{forwarder}-ring"));
    map.metadata.namespace = Some("plant".to_owned());
    map.metadata.labels = Some(BTreeMap::from([(FORWARDER.to_owned(), forwarder.to_owned())]));
    map
}

fn see(rings: &Rings, map: &ConfigMap) {
    let key = forwarder_of(map).unwrap();
    let document = document(map, &key);
    rings.ring_seen(key, document);
}

/// Rings after a first list, with these forwarders' rings in it.
fn rings(forwarders: &[&str]) -> Arc<Rings> {
    let rings = Arc::new(Rings::default());
    for forwarder in forwarders {
        see(&rings, &map(forwarder, RING));
    }
    rings.rings_listed(&forwarders.iter().map(|forwarder| key(forwarder)).collect());
    rings
}

async fn get_json(rings: &Arc<Rings>, path: &str) -> (u16, Value) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = routes(Arc::clone(rings)).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn an_asset_is_answered_as_by_the_original_router() {
    let one = rings(&["a"]);
    let answer = json!({
        "asset_id": "W 1", "cluster_name": "C1", "nats_url": "nats://c1:4222",
        "nats_urls": ["nats://c1:4222", "nats://c1b:4222"], "ring_epoch": 7,
    });
    for path in [
        "/asset/W%201",
        "/asset/W%201?forwarder=plant/a",
        "/forwarders/plant/a/asset/W%201",
    ] {
        assert_eq!(get_json(&one, path).await, (200, answer.clone()), "{path}");
    }
}

#[tokio::test]
async fn with_several_forwarders_one_must_be_named() {
    let two = rings(&["a", "b"]);
    let (status, body) = get_json(&two, "/asset/x").await;
    assert_eq!((status, &body["forwarders"]), (409, &json!(["plant/a", "plant/b"])));
    assert_eq!(get_json(&two, "/asset/x?forwarder=plant/b").await.0, 200);
    assert_eq!(get_json(&two, "/asset/x?forwarder=b").await.0, 400);
    let (status, body) = get_json(&two, "/forwarders/plant/c/asset/x").await;
    assert_eq!(status, 404);
    assert!(body["error"].as_str().unwrap().contains("plant/c"), "{body}");
    let listed = json!({"forwarders": [
        {"namespace": "plant", "name": "a", "ring_epoch": 7},
        {"namespace": "plant", "name": "b", "ring_epoch": 7},
    ]});
    assert_eq!(get_json(&two, "/forwarders").await, (200, listed));
    assert_eq!(get_json(&two, "/nowhere").await.0, 404);
}

#[tokio::test]
async fn what_is_not_known_yet_is_not_called_unknown() {
    let rings = Arc::new(Rings::default());
    for path in ["/asset/x", "/forwarders", "/forwarders/plant/a/asset/x"] {
        assert_eq!(get_json(&rings, path).await.0, 503, "{path}");
    }
    rings.rings_listed(&[].into());
    assert_eq!(get_json(&rings, "/asset/x").await.0, 404);
    rings.forwarder_seen(key("a"));
    let (status, body) = get_json(&rings, "/asset/x").await;
    assert_eq!(status, 503, "a forwarder without a ring");
    assert!(body["error"].as_str().unwrap().contains("no ring yet"), "{body}");
}

#[tokio::test]
async fn a_broken_or_deleted_document_leaves_the_last_good_one() {
    let rings = rings(&["a"]);
    rings.forwarder_seen(key("a"));
    see(&rings, &map("a", "epoch: 8\nclusters: []\n"));
    assert_eq!(get_json(&rings, "/asset/x").await.1["ring_epoch"], 7);
    rings.ring_gone(&key("a"));
    assert_eq!(get_json(&rings, "/asset/x").await.0, 200);
    rings.forwarder_gone(&key("a"));
    assert_eq!(
        get_json(&rings, "/forwarders/plant/a/asset/x").await.0,
        404,
        "with the forwarder it is forgotten"
    );
}

#[tokio::test]
async fn what_a_new_list_lacks_is_gone() {
    let rings = rings(&["a", "b"]);
    rings.forwarders_listed([key("a"), key("b")].into());
    rings.rings_listed(&[key("a")].into());
    assert_eq!(
        get_json(&rings, "/forwarders/plant/b/asset/x").await.0,
        200,
        "its forwarder is still there"
    );
    rings.forwarders_listed([key("a")].into());
    assert_eq!(get_json(&rings, "/forwarders/plant/b/asset/x").await.0, 404);
}

#[tokio::test]
async fn nobody_owns_an_asset_while_there_are_no_clusters() {
    let rings = rings(&["a"]);
    let mut idle = map("a", RING);
    idle.metadata.annotations = Some(BTreeMap::from([(IDLE.to_owned(), "true".to_owned())]));
    see(&rings, &idle);
    assert_eq!(get_json(&rings, "/asset/x").await.0, 503);
    see(&rings, &map("a", RING));
    assert_eq!(get_json(&rings, "/asset/x").await.0, 200);
}

#[test]
fn a_document_of_another_name_is_nobody_s() {
    let mut other = map("a", RING);
    other.metadata.name = Some("b-ring".to_owned());
    assert!(forwarder_of(&other).is_none());
    assert!(matches!(document(&ConfigMap::default(), &key("a")), Document::Broken));
}
