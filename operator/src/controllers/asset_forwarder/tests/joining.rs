//! A cluster joins: how much is asked of the API server, and what is not written when something else has changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hyper::Method;
use hyper::http::request::Parts;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Resource;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Lookup};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::super::dereference::Lists;
use super::super::joining::joins;
use super::super::reconcile::reconcile;
use super::super::steps::{Known, ReconcileError};
use super::super::stores::Stores;
use super::super::turns::Turns;
use super::*;
use crate::context::Context;
use crate::fake_api;

/// An API server: objects by their paths, and what was asked.
#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Method and plural, such as `PATCH assetforwarders/status`.
    asked: Vec<String>,
}

impl Server {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, request: &Parts, body: &[u8]) -> Result<Value, (u16, &'static str)> {
        let path = request.uri.path().trim_start_matches("/api/v1").to_owned();
        let (object, status) = match path.strip_suffix("/status") {
            Some(object) => (object.to_owned(), "/status"),
            None => (path.clone(), ""),
        };
        let steps: Vec<&str> = object.rsplit('/').collect();
        // A collection ends in a plural, which is lower case and follows the namespace.
        let is_collection = steps.get(2) == Some(&"namespaces");
        let plural = if is_collection { steps[0] } else { steps[1] };
        let verb = if is_collection && request.method == Method::GET {
            "LIST"
        } else {
            request.method.as_str()
        };
        self.asked.push(format!("{verb} {plural}{status}"));
        match verb {
            "LIST" => {
                let of_it = self
                    .objects
                    .iter()
                    .filter(|(path, _)| path.starts_with(&format!("{object}/")));
                let items: Vec<&Value> = of_it.map(|(_, object)| object).collect();
                Ok(json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}))
            }
            "GET" => self.objects.get(&object).cloned().ok_or((404, "NotFound")),
            "POST" => {
                let mut made: Value = serde_json::from_slice(body).unwrap();
                let path = format!("{object}/{}", made["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) {
                    return Err((409, "AlreadyExists"));
                }
                made["metadata"]["uid"] = path.as_str().into();
                made["metadata"]["generation"] = 1.into();
                Ok(self.put(&path, made))
            }
            _ => {
                let patch: Value = serde_json::from_slice(body).unwrap();
                let mut live = self.objects.get(&object).cloned().ok_or((404, "NotFound"))?;
                let over = &patch["metadata"]["resourceVersion"];
                if !over.is_null() && *over != live["metadata"]["resourceVersion"] {
                    return Err((409, "Conflict"));
                }
                for (field, value) in patch.as_object().unwrap() {
                    if field != "metadata" {
                        live[field] = value.clone();
                    } else if let Some(annotations) = value.get("annotations") {
                        live["metadata"]["annotations"] = annotations.clone();
                    }
                }
                Ok(self.put(&object, live))
            }
        }
    }
}

/// What the watches fill.
struct Watches {
    forwarders: Writer<AssetForwarder>,
    clusters: Writer<NatsCluster>,
    channels: Writer<KafkaChannel>,
    deployments: Writer<Deployment>,
    pods: Writer<Pod>,
    config_maps: Writer<PartialObjectMeta<ConfigMap>>,
}

/// An operator with its API server.
struct Rig {
    server: Arc<Mutex<Server>>,
    context: Arc<Context>,
    known: Known,
    watches: Watches,
}

const OURS: &str = "/apis/fanout.openfactory.io/v1alpha1/namespaces/plant";
const RING: &str = "/namespaces/plant/configmaps/assets-ring";
const BEACON: &str = "/namespaces/plant/secrets/assets-beacon";
const CREDENTIALS: &str = "/namespaces/plant/secrets/assets-credentials";

impl Rig {
    /// With a forwarder whose ring of `a` and `b` is settled.
    async fn settled() -> Self {
        Self::settled_with("{}").await
    }

    /// The same with this `spec.ring`.
    async fn settled_with(ring: &str) -> Self {
        let server = Arc::new(Mutex::new(Server::default()));
        let shared = Arc::clone(&server);
        let client = fake_api::client(
            move |request, body| match shared.lock().unwrap().answer(request, body) {
                Ok(answer) => (200, answer.to_string()),
                Err((code, reason)) => {
                    let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason});
                    (code, status.to_string())
                }
            },
        );
        let (forwarders, forwarder_writer) = reflector::store();
        let (clusters, cluster_writer) = reflector::store();
        let (channels, channel_writer) = reflector::store();
        let (deployments, deployment_writer) = reflector::store();
        let (pods, pod_writer) = reflector::store();
        let (config_maps, map_writer) = reflector::store();
        let known = Known {
            stores: Stores {
                forwarders,
                clusters,
                channels,
                namespaces: None,
                deployments,
                pods,
                config_maps,
            },
            memory: Arc::default(),
            histories: Arc::default(),
            turns: Turns::default(),
            lists: Lists::default(),
        };
        let watches = Watches {
            forwarders: forwarder_writer,
            clusters: cluster_writer,
            channels: channel_writer,
            deployments: deployment_writer,
            pods: pod_writer,
            config_maps: map_writer,
        };
        let context = fake_api::context(client);
        let mut rig = Self {
            server,
            context,
            known,
            watches,
        };
        let mut forwarder: AssetForwarder = yaml(FORWARDER);
        forwarder.spec.replicas = 0;
        forwarder.spec.ring = yaml(ring);
        rig.put(&format!("{OURS}/assetforwarders/assets"), &forwarder);
        let mut channel: KafkaChannel = yaml(CHANNEL);
        channel.metadata.uid = Some("k".to_owned());
        rig.put(&format!("{OURS}/kafkachannels/assets"), &channel);
        rig.add(&cluster("a", 1));
        rig.add(&cluster("b", 2));
        for _ in 0..2 {
            rig.tell();
            rig.reconcile().await.unwrap();
        }
        rig.tell();
        assert_eq!(rig.members(), ["a", "b"]);
        rig.asked();
        rig.reconcile().await.unwrap();
        assert!(rig.asked().is_empty(), "it is settled");
        rig
    }

    fn put(&self, path: &str, object: &impl serde::Serialize) {
        let object = serde_json::to_value(object).unwrap();
        self.server.lock().unwrap().put(path, object);
    }

    fn add(&self, cluster: &NatsCluster) {
        let mut cluster = cluster.clone();
        cluster.metadata.uid = Some(cluster.name_any());
        self.put(&format!("{OURS}/natsclusters/{}", cluster.name_any()), &cluster);
    }

    /// Changes an annotation, as another hand.
    fn touch(&self, path: &str) {
        let mut server = self.server.lock().unwrap();
        let mut object = server.objects[path].clone();
        object["metadata"]["annotations"]["touched"] = "by another hand".into();
        server.put(path, object);
    }

    /// The watches catch up.
    fn tell(&mut self) {
        let server = self.server.lock().unwrap();
        let Watches {
            forwarders,
            clusters,
            channels,
            deployments,
            pods,
            config_maps,
        } = &mut self.watches;
        fill(forwarders, all(&server, "assetforwarders"));
        fill(clusters, all(&server, "natsclusters"));
        fill(channels, all(&server, "kafkachannels"));
        fill(deployments, all(&server, "deployments"));
        fill(pods, all(&server, "pods"));
        fill(config_maps, all(&server, "configmaps"));
        self.hear::<Deployment>(&server, "deployments");
        self.hear::<ConfigMap>(&server, "configmaps");
        self.hear::<Secret>(&server, "secrets");
        self.hear::<Service>(&server, "services");
        self.hear::<ServiceAccount>(&server, "serviceaccounts");
        self.hear::<Role>(&server, "roles");
        self.hear::<RoleBinding>(&server, "rolebindings");
        self.hear::<PodDisruptionBudget>(&server, "poddisruptionbudgets");
        self.hear::<NetworkPolicy>(&server, "networkpolicies");
        let secrets: Vec<PartialObjectMeta<Secret>> = all(&server, "secrets");
        for event in events(secrets) {
            self.context.secrets.hear(&Ok(event));
        }
    }

    fn hear<K>(&self, server: &Server, plural: &str)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        for event in events(all::<K>(server, plural)) {
            self.context.children.hear(&Ok(event));
        }
    }

    async fn reconcile(&self) -> Result<(), ReconcileError> {
        let forwarders = &self.known.stores.forwarders;
        let forwarder = forwarders.state().pop().unwrap();
        let reconciled = Box::pin(reconcile(forwarder, Arc::clone(&self.context), &self.known));
        reconciled.await.map(drop)
    }

    /// What was asked since the last look.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.server.lock().unwrap().asked)
    }

    /// The members of the ring that is written.
    fn members(&self) -> Vec<String> {
        let ring = self.server.lock().unwrap().objects[RING].clone();
        let ring = ring_in(&serde_json::from_value(ring).unwrap());
        ring.clusters.into_iter().map(|cluster| cluster.name).collect()
    }
}

fn all<K: DeserializeOwned>(server: &Server, plural: &str) -> Vec<K> {
    let of_it = |path: &str| path.rsplit('/').nth(1) == Some(plural);
    let all = server.objects.iter().filter(|(path, _)| of_it(path));
    all.map(|(_, object)| serde_json::from_value(object.clone()).unwrap())
        .collect()
}

fn events<K>(objects: Vec<K>) -> Vec<Event<K>> {
    let objects = objects.into_iter().map(Event::InitApply);
    [Event::Init]
        .into_iter()
        .chain(objects)
        .chain([Event::InitDone])
        .collect()
}

fn fill<K>(writer: &mut Writer<K>, objects: Vec<K>)
where
    K: Lookup<DynamicType = ()> + Clone + 'static,
{
    for event in events(objects) {
        writer.apply_watcher_event(&event);
    }
}

#[tokio::test]
async fn a_join_lists_the_clusters_and_writes_the_ring_between_two_statuses() {
    let mut rig = Rig::settled().await;
    rig.add(&cluster("c", 3));
    rig.tell();
    rig.reconcile().await.unwrap();
    assert_eq!(rig.members(), ["a", "b", "c"]);
    let wanted = [
        "LIST natsclusters",
        "PATCH assetforwarders/status",
        "LIST natsclusters",
        "PATCH configmaps",
        "POST events",
        "PATCH assetforwarders/status",
    ];
    assert_eq!(rig.asked(), wanted);
    rig.tell();
    rig.reconcile().await.unwrap();
    assert_eq!(rig.asked(), [""; 0], "it has settled");
}

#[tokio::test]
async fn credentials_of_one_that_joins_are_written_over_what_is_read_and_before_the_ring() {
    let mut rig = Rig::settled().await;
    let data = json!({"token": "dG9rZW4="});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c-token", "namespace": "plant"}, "data": data});
    rig.put("/namespaces/plant/secrets/c-token", &secret);
    rig.add(&cluster_with_token("c", 3));
    rig.tell();
    // Credentials that nobody has read in memory are read on the long way, which this one goes first.
    rig.reconcile().await.unwrap();
    assert_eq!(rig.members(), ["a", "b", "c"]);
    rig.add(&cluster_with_token("d", 4));
    rig.put(
        "/namespaces/plant/secrets/d-token",
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "d-token", "namespace": "plant"}, "data": data}),
    );
    rig.tell();
    let names = ["d-token".to_owned()].into();
    let read = rig.context.secrets.read(&rig.context, "plant", names, Some("d")).await;
    read.unwrap();
    rig.asked();
    rig.reconcile().await.unwrap();
    assert_eq!(rig.members(), ["a", "b", "c", "d"]);
    let asked = rig.asked();
    let place = |what: &str| asked.iter().position(|asked| asked == what);
    assert!(place("GET secrets") < place("PATCH secrets"), "{asked:?}");
    assert!(place("PATCH secrets") < place("PATCH configmaps"), "{asked:?}");
    assert_eq!(place("GET assetforwarders"), None, "{asked:?}");
    let projected = rig.server.lock().unwrap().objects[CREDENTIALS].clone();
    let files: Secret = serde_json::from_value(projected).unwrap();
    assert_eq!(files.data.unwrap().len(), 3, "two tokens and their version");
}

#[tokio::test]
async fn a_forwarder_that_has_changed_unseen_is_read_before_its_ring_changes() {
    let mut rig = Rig::settled().await;
    rig.add(&cluster("c", 3));
    rig.tell();
    rig.touch(&format!("{OURS}/assetforwarders/assets"));
    rig.reconcile().await.unwrap();
    assert_eq!(rig.members(), ["a", "b", "c"]);
    let asked = rig.asked();
    let place = |what: &str| asked.iter().position(|asked| asked == what);
    let (read, written) = (place("GET assetforwarders"), place("PATCH configmaps"));
    assert!(read.is_some() && read < written, "{asked:?}");
}

#[tokio::test]
async fn a_ring_that_has_changed_unseen_is_not_written_over() {
    let mut rig = Rig::settled().await;
    rig.add(&cluster("c", 3));
    rig.tell();
    rig.touch(RING);
    let failed = rig.reconcile().await.unwrap_err();
    assert!(matches!(failed, ReconcileError::Apply(_)), "{failed}");
    assert_eq!(rig.members(), ["a", "b"]);
    // The next look reads it, also where the watch of ConfigMaps is still behind.
    let forwarders = all(&rig.server.lock().unwrap(), "assetforwarders");
    fill(&mut rig.watches.forwarders, forwarders);
    rig.reconcile().await.unwrap();
    assert_eq!(rig.members(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_cluster_that_only_the_watch_has_joins_no_ring() {
    let mut rig = Rig::settled().await;
    rig.add(&cluster("c", 3));
    rig.tell();
    let path = format!("{OURS}/natsclusters/c");
    rig.server.lock().unwrap().objects.remove(&path);
    rig.reconcile().await.unwrap();
    assert_eq!(rig.members(), ["a", "b"]);
    assert!(!rig.asked().iter().any(|asked| asked.starts_with("PATCH configmaps")));
}

#[tokio::test]
async fn a_key_that_is_not_as_declared_is_read_before_it_is_written() {
    let mut rig = Rig::settled_with(ANNOUNCED).await;
    rig.add(&cluster("c", 3));
    {
        let mut server = rig.server.lock().unwrap();
        let mut secret = server.objects[BEACON].clone();
        // What was declared is told by an annotation.
        secret["metadata"]["annotations"] = json!({});
        let secret = serde_json::from_value(server.put(BEACON, secret)).unwrap();
        // As after a reconcile that has read it and could not write it.
        let forwarder = rig.known.stores.forwarders.state().pop().unwrap();
        rig.known.memory.beacon_seen(&forwarder, Some(&secret));
    }
    rig.tell();
    rig.reconcile().await.unwrap();
    assert_eq!(rig.members(), ["a", "b", "c"]);
    let asked = rig.asked();
    let place = |what: &str| asked.iter().position(|asked| asked == what);
    let (read, written) = (place("GET secrets"), place("PATCH secrets"));
    assert!(read.is_some() && read < written, "{asked:?}");
    assert!(written < place("PATCH configmaps"), "{asked:?}");
}

#[tokio::test]
async fn a_key_that_is_as_declared_is_not_asked_for() {
    let mut rig = Rig::settled_with(ANNOUNCED).await;
    rig.add(&cluster("c", 3));
    rig.tell();
    rig.reconcile().await.unwrap();
    assert_eq!(rig.members(), ["a", "b", "c"]);
    let asked = rig.asked();
    assert!(!asked.iter().any(|asked| asked.ends_with(" secrets")), "{asked:?}");
    assert!(!asked.contains(&"GET assetforwarders".to_owned()), "{asked:?}");
}

/// A beacon is declared.
const ANNOUNCED: &str = "{beacon: {enabled: true}}";

/// Whether it is a join alone, after this change of a settled world.
fn is_a_join(change: impl FnOnce(&mut World)) -> bool {
    is_a_join_with("{}", change)
}

/// The same with this `spec.ring` before.
fn is_a_join_with(ring: &str, change: impl FnOnce(&mut World)) -> bool {
    let mut world = World::new([cluster("a", 1), cluster("b", 2)]);
    world.forwarder.spec.ring = yaml(ring);
    world.step();
    world.pods_follow();
    world.step();
    world.clusters.push(cluster("c", 3));
    change(&mut world);
    joins(&world.dereferenced(), &world.validate().unwrap())
}

#[test]
fn only_a_join_is_a_join() {
    assert!(is_a_join(|_| {}));
    type Change = fn(&mut World);
    let others: [(&str, Change); 10] = [
        ("nobody joins", |world| world.remove("c")),
        ("one leaves too", |world| world.remove("a")),
        ("one drains too", |world| world.clusters[0].spec.drain = true),
        ("one cannot be used", |world| world.clusters[0].spec.weight = 0),
        ("another one is still leaving", |world| {
            world.remove("c");
            world.clusters.push(cluster("z", 4));
            world.step();
            world.pods_follow();
            world.remove("z");
            world.step();
            assert_eq!(world.leaving(), ["plant/z"]);
            world.clusters.push(cluster("c", 3));
        }),
        ("credentials of yet another one are missing", |world| {
            world.clusters.push(cluster_with_token("d", 4));
        }),
        ("pods have the ring in their configuration", |world| {
            world.forwarder.spec.ring.update = crds::asset_forwarder::RingUpdate::Roll;
        }),
        ("the document has a newer field", |world| {
            world.clusters[2].spec.inbox_prefix = Some("_INBOX.plant".to_owned());
        }),
        ("it is in the status already", |world| {
            let ring = world.forwarder.status.as_mut().unwrap().ring.as_mut().unwrap();
            ring.member_refs.push("plant/c".to_owned());
        }),
        ("a pod claims an epoch that is not believed", |world| {
            report(&mut world.existing.pods[0]).ring.epoch = u64::MAX;
        }),
    ];
    for (what, change) in others {
        assert!(!is_a_join(change), "{what}");
    }
}

#[test]
fn a_join_leaves_the_beacon_as_subscribers_know_it() {
    assert!(is_a_join_with(ANNOUNCED, |_| {}));
    type Change = fn(&mut World);
    let others: [(&str, Change); 4] = [
        ("its key is another one", |world| world.existing.beacon = None),
        ("it has another subject", |world| {
            world.forwarder.spec.ring = yaml("{beacon: {enabled: true, subject: mine}}");
        }),
        ("it waits longer for subscribers", |world| {
            world.forwarder.spec.ring = yaml("{beacon: {enabled: true}, subscriberGraceSeconds: 10}");
        }),
        ("it is switched off", |world| world.forwarder.spec.ring = yaml("{}")),
    ];
    for (what, change) in others {
        assert!(!is_a_join_with(ANNOUNCED, change), "{what}");
    }
}
