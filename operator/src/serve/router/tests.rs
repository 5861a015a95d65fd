mod many;
mod open_api;
mod orders;
mod tables;
mod v1;
mod watch;

use std::collections::{BTreeMap, BTreeSet};

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use forwarder_service::shutdown;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::Event;
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::index::ring_map::{FORWARDER, IDLE};
use crate::index::rings::watch::{Heard, document_changed};
use crate::index::rings::{Document, Progress};

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
    own(&mut map, "AssetForwarder", forwarder, &uid(forwarder));
    map
}

/// The UID of the forwarder of this name.
fn uid(forwarder: &str) -> String {
    format!("uid-of-{forwarder}")
}

fn own(map: &mut ConfigMap, kind: &str, name: &str, uid: &str) {
    let owner = json!({
        "apiVersion": "fanout.openfactory.io/v1alpha1", "kind": kind, "name": name, "uid": uid, "controller": true,
    });
    map.metadata.owner_references = Some(vec![serde_json::from_value(owner).unwrap()]);
}

fn hear(rings: &Rings, event: Event<ConfigMap>) {
    document_changed(rings, &mut BTreeSet::new(), Heard::of(event));
}

fn see(rings: &Rings, map: &ConfigMap) {
    hear(rings, Event::Apply(map.clone()));
}

/// What a list of the forwarders says.
fn list(rings: &Rings, forwarders: &[&str]) {
    for forwarder in forwarders {
        rings.forwarder_seen(key(forwarder), uid(forwarder), Progress::Unsaid);
    }
    rings.forwarders_listed(&forwarders.iter().map(|forwarder| key(forwarder)).collect());
}

/// Rings after a first list, with these forwarders' rings in it.
fn rings(forwarders: &[&str]) -> Arc<Rings> {
    let rings = Arc::new(Rings::default());
    list(&rings, forwarders);
    for forwarder in forwarders {
        see(&rings, &map(forwarder, RING));
    }
    rings.rings_listed(&forwarders.iter().map(|forwarder| key(forwarder)).collect());
    rings
}

/// The routes. Their server is stopping, which only watches notice.
fn routed(rings: &Arc<Rings>) -> Router {
    let (_, stop) = shutdown::channel();
    routes(Arc::clone(rings), stop)
}

/// An answer as a whole.
struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// What is said to be wrong.
    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

/// Asks, and checks that the answer is one that the document of the API tells of.
async fn ask(routes: &Router, request: Request<Body>) -> Answered {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (head, body) = routes.clone().oneshot(request).await.unwrap().into_parts();
    open_api::assert_told(&method, &path, &head);
    Answered {
        status: head.status.as_u16(),
        headers: head.headers,
        body: to_bytes(body, 64 << 20).await.unwrap(),
    }
}

async fn get_json(rings: &Arc<Rings>, path: &str) -> (u16, Value) {
    let answered = ask(&routed(rings), Request::get(path).body(Body::empty()).unwrap()).await;
    (answered.status, answered.json())
}

/// The ring of a forwarder is written: with this epoch, and clusters of these names.
fn write(rings: &Rings, forwarder: &str, epoch: u64, clusters: &[&str]) {
    let clusters: Vec<String> = clusters
        .iter()
        .map(|name| format!("- name: {name}\n  servers: [nats://{name}:4222]\n"))
        .collect();
    see(
        rings,
        &map(forwarder, &format!("epoch: {epoch}\nclusters:\n{}", clusters.concat())),
    );
}

/// The status of a forwarder says this of its pods.
fn say(rings: &Rings, forwarder: &str, progress: Progress) {
    rings.forwarder_seen(key(forwarder), uid(forwarder), progress);
}

/// A forwarder `a` whose pods use a ring of three clusters, while one of four is written.
fn moving() -> Arc<Rings> {
    let rings = rings(&["a"]);
    write(&rings, "a", 8, &["C1", "C2", "C3"]);
    say(&rings, "a", Progress::All(8));
    write(&rings, "a", 9, &["C1", "C2", "C3", "C4"]);
    rings
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
    assert_eq!(
        get_json(&rings, "/asset/x").await.0,
        503,
        "nobody has told of forwarders"
    );
    list(&rings, &[]);
    assert_eq!(get_json(&rings, "/asset/x").await.0, 404);
    list(&rings, &["a"]);
    let (status, body) = get_json(&rings, "/asset/x").await;
    assert_eq!(status, 503, "a forwarder without a ring");
    assert!(body["error"].as_str().unwrap().contains("no ring yet"), "{body}");
}

#[tokio::test]
async fn a_broken_or_deleted_document_leaves_the_last_good_one() {
    let rings = rings(&["a"]);
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
    rings.rings_listed(&[key("a")].into());
    assert_eq!(
        get_json(&rings, "/forwarders/plant/b/asset/x").await.0,
        200,
        "its forwarder is still there"
    );
    list(&rings, &["a"]);
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

#[tokio::test]
async fn labels_alone_make_no_ring() {
    let one = rings(&["a"]);
    let mut forged = map("b", RING);
    forged.metadata.owner_references = None;
    see(&one, &forged);
    let mut empty = forged.clone();
    empty.metadata.name = Some("anything".to_owned());
    empty.data = None;
    see(&one, &empty);
    // The name, kind and UID of a forwarder, each from another one.
    for (kind, name, uid) in [
        ("AssetForwarder", "b", uid("b")),
        ("AssetForwarder", "a", uid("a")),
        ("NatsCluster", "b", uid("a")),
        ("AssetForwarder", "b", uid("a")),
        ("AssetForwarder", "b", String::new()),
    ] {
        own(&mut forged, kind, name, &uid);
        see(&one, &forged);
        assert_eq!(get_json(&one, "/asset/x").await.0, 200, "{kind} {name} {uid}");
        let listed = get_json(&one, "/forwarders").await.1;
        assert_eq!(listed["forwarders"].as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(get_json(&one, "/forwarders/plant/b/asset/x").await.0, 404);
    }
}

#[tokio::test]
async fn what_is_written_over_a_ring_by_somebody_else_is_not_its_ring() {
    let other = "epoch: 9\nclusters:\n- name: EVIL\n  servers: [nats://evil:4222]\n";
    let forged: [fn(&mut ConfigMap); 5] = [
        |map| map.metadata.owner_references = None,
        |map| own(map, "NatsCluster", "a", &uid("a")),
        |map| own(map, "AssetForwarder", "b", &uid("a")),
        |map| own(map, "AssetForwarder", "a", "another"),
        |map| map.metadata.owner_references.as_mut().unwrap()[0].controller = None,
    ];
    for (case, forge) in forged.into_iter().enumerate() {
        let rings = rings(&["a"]);
        let mut map = map("a", other);
        forge(&mut map);
        see(&rings, &map);
        let (status, body) = get_json(&rings, "/asset/x").await;
        assert_eq!(
            (status, &body["cluster_name"]),
            (200, &json!("C1")),
            "case {case}: {}",
            map.name_any()
        );
    }
}

#[tokio::test]
async fn a_forwarder_made_anew_does_not_inherit_a_ring() {
    let rings = rings(&["a"]);
    rings.forwarder_seen(key("a"), "another".to_owned(), Progress::Unsaid);
    assert_eq!(get_json(&rings, "/asset/x").await.0, 503);
    let mut anew = map("a", RING);
    own(&mut anew, "AssetForwarder", "a", "another");
    see(&rings, &anew);
    assert_eq!(get_json(&rings, "/asset/x").await.0, 200);
}

#[test]
fn a_document_of_another_name_is_nobody_s() {
    let mut other = map("a", RING);
    other.metadata.name = Some("b-ring".to_owned());
    assert!(matches!(Heard::of(Event::Apply(other)), Heard::Nothing));
    assert!(matches!(Heard::of(Event::Apply(ConfigMap::default())), Heard::Nothing));
    let mut empty = map("a", RING);
    empty.data = None;
    let heard = Heard::of(Event::Apply(empty));
    let is_broken = matches!(
        heard,
        Heard::Seen {
            document: Document::Broken,
            uid: Some(_),
            ..
        }
    );
    assert!(is_broken);
}
