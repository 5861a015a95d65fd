//! How subscribers learn of the ring.

use std::sync::{Arc, Mutex};

use forwarder_beacon::Signer;
use forwarder_core::document::Beacon;
use hyper::Method;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::super::apply::apply;
use super::super::beacon;
use super::super::events::of_concerns;
use super::super::members::PODS_TOO_OLD;
use super::super::pods::BeaconFault;
use super::*;
use crate::fake_api;
use crate::reconcile::conditions::Words;
use crate::reconcile::events::Notice;

/// The version of the ring's document before the one with a beacon.
const BEFORE: u32 = 2;

/// Two clusters and two pods that run their ring.
fn settled() -> World {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    world.step();
    world.pods_follow();
    world.step();
    world
}

fn declare(world: &mut World, ring: &str) {
    world.forwarder.spec.ring = yaml(ring);
    let generation = world.forwarder.metadata.generation.as_mut().unwrap();
    *generation += 1;
}

/// With a beacon in the ring that all pods run.
fn announced() -> World {
    let mut world = settled();
    declare(&mut world, "{beacon: {enabled: true}}");
    world.step();
    world.pods_follow();
    world.step();
    world
}

/// The pods run the ring that is written, and read documents of this version.
fn pods_read(world: &mut World, version: u32) {
    world.pods_follow();
    for pod in &mut world.existing.pods {
        report(pod).document_version = Some(version);
    }
}

fn seed(secret: Option<&Secret>, key: &str) -> String {
    let data = secret.unwrap().data.as_ref().unwrap();
    String::from_utf8(data[key].0.clone()).unwrap()
}

fn public(world: &World) -> String {
    world.status().beacon.unwrap().public_key
}

fn verdict(world: &World) -> Verdict {
    let validated = world.validate().unwrap();
    let deployment = world.existing.deployment.as_ref();
    status::status(&world.status(), &validated, deployment, &world.existing).1
}

/// What people are told before the status is written.
fn concerns(world: &World) -> Vec<Notice> {
    let found = world.dereferenced();
    let validated = validate(&found, &world.settings()).unwrap();
    of_concerns(&found, &validated)
}

#[test]
fn one_that_is_declared_comes_into_the_ring_with_its_key_and_rolls_nothing() {
    let mut world = settled();
    world.default_image = "forwarder:2";
    let template = |world: &World| world.existing.deployment.clone().unwrap().spec.unwrap().template;
    let before = template(&world);
    declare(
        &mut world,
        "{handoverTimeoutSeconds: 60, beacon: {enabled: true}, subscriberGraceSeconds: 10}",
    );
    let pass = world.step();

    let ring = world.ring();
    let expected = Beacon {
        subject: "_FANOUT.plant.assets".to_owned(),
        ring: "u1".to_owned(),
        key_file: "/etc/fanout/credentials/beacon.seed".into(),
        grace_ms: 10_000,
    };
    assert_eq!((ring.epoch, ring.beacon.clone()), (2, Some(expected)));
    assert_eq!(
        ring.files().len(),
        0,
        "a ring never waits for the key of what only announces it"
    );
    assert_eq!(pass.validated.ring.unwrap().moved_percent.as_deref(), Some("0.0"));
    assert_eq!(template(&world), before, "no pod rolls");

    let kept = seed(world.existing.beacon.as_ref(), "seed");
    assert_eq!(seed(world.existing.credentials.as_ref(), "beacon.seed"), kept);
    let shown = world.status().beacon.unwrap();
    assert_eq!(shown.public_key, Signer::from_seed(&kept).unwrap().public_key());
    assert_eq!(
        (shown.ring.as_str(), shown.subject.as_str()),
        ("u1", "_FANOUT.plant.assets")
    );
    let secret = world.existing.beacon.clone().unwrap();
    assert_eq!(secret.metadata.name.as_deref(), Some("assets-beacon"));
    assert_eq!(secret.owner_references()[0].uid, "u1", "it goes with the forwarder");

    world.pods_follow();
    world.step();
    assert_eq!(verdict(&world).words().reason, "Forwarding");
    assert_eq!((world.ring().epoch, public(&world)), (2, shown.public_key));
    assert_eq!(seed(world.existing.beacon.as_ref(), "seed"), kept);
}

#[test]
fn the_key_stays_while_the_beacon_is_switched_off() {
    let mut world = announced();
    let before = public(&world);
    declare(&mut world, "{beacon: {enabled: false}}");
    let pass = world.step();
    assert_eq!((world.ring().epoch, world.ring().beacon), (3, None));
    assert_eq!(world.status().beacon, None);
    assert!(pass.resources.beacon.is_none(), "the Secret is left alone");
    assert_eq!(world.files(), ["beacon.seed"], "pods may still sign with it");
    world.pods_follow();
    world.step();
    assert_eq!(world.files(), [""; 0]);

    declare(&mut world, "{beacon: {enabled: true}}");
    world.step();
    assert_eq!(public(&world), before);
}

#[test]
fn a_key_that_is_gone_is_made_anew_and_people_are_told() {
    let mut world = announced();
    assert_eq!(concerns(&world), []);
    let broken = |mut secret: Secret| {
        let data = secret.data.as_mut().unwrap();
        data.insert("seed".to_owned(), ByteString(b"SUnonsense".to_vec()));
        secret
    };
    let secret = world.existing.beacon.take().unwrap();
    for found in [None, Some(broken(secret))] {
        let before = public(&world);
        world.existing.beacon = found;
        let told = world.status();
        let epoch = world.ring().epoch;
        world.step();
        let after = public(&world);
        assert_ne!(before, after);
        assert_eq!(world.ring().epoch, epoch, "the ring names the file, not the key");
        let kept = seed(world.existing.beacon.as_ref(), "seed");
        assert_eq!(Signer::from_seed(&kept).unwrap().public_key(), after);
        assert_eq!(seed(world.existing.credentials.as_ref(), "beacon.seed"), kept);

        world.forwarder.status = Some(told);
        let note = format!(
            "the Secret assets-beacon was missing or has changed, so pods sign with another key: give subscribers the public key \
             {after} in place of {before}"
        );
        assert_eq!(concerns(&world), [Notice::warning(Reason::BeaconKeyChanged, note)]);
        world.step();
        assert_eq!(concerns(&world), [], "the status says it now");
    }
}

#[test]
fn a_seed_that_a_person_has_written_is_taken() {
    let mut world = announced();
    let own = beacon::Key::make().unwrap();
    let data = world.existing.beacon.as_mut().unwrap().data.as_mut().unwrap();
    data.insert("seed".to_owned(), ByteString(format!("{}\n", own.seed()).into_bytes()));
    assert_eq!(concerns(&world).len(), 1, "subscribers pin the one of before");
    let written = world.step().resources.beacon.unwrap();
    assert_eq!(public(&world), own.public());
    assert_eq!(seed(Some(&written), "seed").trim(), own.seed());
}

#[test]
fn older_pods_get_a_ring_without_it_and_the_status_says_so() {
    let mut world = settled();
    pods_read(&mut world, BEFORE);
    declare(&mut world, "{beacon: {enabled: true}}");
    world.clusters[0].spec.client_servers = vec!["wss://c1.example.com:443".to_owned()];
    let told_servers = |world: &World| world.ring().clusters[0].client_servers.len();
    world.step();
    assert_eq!(
        (world.ring().epoch, world.ring().beacon, told_servers(&world)),
        (1, None, 0)
    );
    assert_eq!(world.files(), ["beacon.seed"], "credentials come first");
    let message = "2 of 2 pods are too old for the declared fields; the ring goes on without spec.ring.beacon, spec.clientServers of \
                   NatsCluster plant/c1; roll the pods: change spec.podTemplate.annotations, or set upgradePolicy: Automatic";
    world.default_image = "forwarder:2";
    assert_eq!(verdict(&world), Verdict::reconciling(Reason::PodsTooOld, message));
    let further = status::further(&world.validate().unwrap(), &world.existing);
    assert_eq!(further[0].0, PODS_TOO_OLD);

    pods_read(&mut world, RING_DOCUMENT_VERSION);
    world.step();
    let ring = world.ring();
    assert_eq!((ring.epoch, ring.beacon.is_some(), told_servers(&world)), (2, true, 1));

    // A rollback of the image: older pods answer, and the ring goes back to what they read.
    pods_read(&mut world, BEFORE);
    world.step();
    assert_eq!(
        (world.ring().epoch, world.ring().beacon, told_servers(&world)),
        (3, None, 0)
    );
}

#[test]
fn what_only_subscribers_need_keeps_no_cluster_out_of_the_ring() {
    let mut world = settled();
    pods_read(&mut world, BEFORE);
    let mut newcomer = cluster("c3", 3);
    newcomer.spec.client_servers = vec!["nats://c3.example.com:4222".to_owned()];
    world.clusters.push(newcomer.clone());
    world.step();
    assert_eq!(world.brief().1, ["c1", "c2", "c3"], "records go there the same way");
    // A field that says where its records go makes it wait all the same.
    newcomer.metadata.name = Some("c4".to_owned());
    newcomer.spec.discover_servers = Some(false);
    world.clusters.push(newcomer);
    pods_read(&mut world, 1);
    world.step();
    assert_eq!(world.brief().1, ["c1", "c2", "c3"]);
}

#[test]
fn each_forwarder_has_a_subject_of_its_own() {
    let subject = |namespace: &str, ring: &str| {
        let mut world = World::new([cluster("c1", 1)]);
        world.forwarder.metadata.namespace = Some(namespace.to_owned());
        declare(&mut world, ring);
        world.validate().unwrap().beacon.unwrap().document.subject
    };
    assert_eq!(subject("plant", "{beacon: {enabled: true}}"), "_FANOUT.plant.assets");
    assert_eq!(subject("other", "{beacon: {enabled: true}}"), "_FANOUT.other.assets");
    assert_eq!(subject("plant", "{beacon: {enabled: true, subject: mine}}"), "mine");
}

#[test]
fn what_cannot_be_is_told_by_the_field_that_a_person_wrote() {
    let mut world = settled();
    declare(
        &mut world,
        &format!("{{beacon: {{enabled: true, subject: {}}}}}", "é".repeat(600)),
    );
    let verdict = world.validate().unwrap_err();
    assert!(matches!(verdict, Verdict::Stalled(_)), "{verdict:?}");
    let said = &verdict.words().message;
    assert!(
        said.contains("spec.ring.beacon.subject: is longer than 1024 bytes"),
        "{said}"
    );
}

#[test]
fn a_cluster_without_announcements_is_told_and_the_forwarder_stays_ready() {
    let mut world = announced();
    let further = |world: &World| status::further(&world.validate().unwrap(), &world.existing);
    assert_eq!(further(&world), []);
    let refused = "no permission to publish to _FANOUT.plant.assets.digest";
    let faulty = |world: &mut World, cluster: Option<&str>| {
        for pod in &mut world.existing.pods {
            pod.beacon_faults.insert(BeaconFault {
                cluster: cluster.map(str::to_owned),
                fault: refused.to_owned(),
            });
        }
    };
    faulty(&mut world, Some("c1"));
    let message = format!("pods cannot announce the ring to subscribers, while records go on: c1: {refused} (a, b)");
    let told = [("BeaconFailing", Words::new(Reason::BeaconFailing, message))];
    assert_eq!(further(&world), told);
    assert_eq!(verdict(&world).words().reason, "Forwarding");
    for cluster in ["c2", "c3", "c4", "c5"] {
        faulty(&mut world, Some(cluster));
    }
    let said = further(&world).remove(0).1.message;
    assert!(said.ends_with("(a, b); and 2 more faults"), "{said}");

    world.existing.pods[0].terminating = true;
    let said = further(&world).remove(0).1.message;
    assert!(said.contains(" (b); ") && !said.contains("(a, b)"), "{said}");
    declare(&mut world, "{}");
    assert_eq!(further(&world), [], "what they say of before does not matter");

    let mut world = announced();
    faulty(&mut world, None);
    let said = further(&world).remove(0).1.message;
    assert!(said.ends_with(&format!(": all clusters: {refused} (a, b)")), "{said}");
}

#[test]
fn the_seed_is_never_shown() {
    let key = beacon::Key::make().unwrap();
    let shown = format!("{key:?}");
    assert!(shown.contains(key.public()) && !shown.contains(key.seed()), "{shown}");
}

/// An API server that has a Secret of the beacon's name, which belongs to somebody else.
#[tokio::test]
async fn a_secret_of_that_name_that_is_not_ours_stops_all_that_would_need_the_key() {
    let made = Arc::new(Mutex::new(Vec::new()));
    let client = fake_api::client({
        let made = Arc::clone(&made);
        move |request, body| {
            let conflict = json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "AlreadyExists"});
            if request.method == Method::GET {
                let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "assets-beacon", "namespace": "plant"}});
                return (200, secret.to_string());
            }
            let child: serde_json::Value = serde_json::from_slice(body).unwrap();
            made.lock()
                .unwrap()
                .push(child["metadata"]["name"].as_str().unwrap().to_owned());
            (409, conflict.to_string())
        }
    });
    let mut world = World::new([cluster("c1", 1)]);
    declare(&mut world, "{beacon: {enabled: true}}");
    let Pass { validated, resources } = world.look();
    let context = fake_api::context(client);
    let outcome = apply(&context, &validated.identity, resources, &Existing::default()).await;
    let verdict = outcome.failure.unwrap().verdict();
    let said = &verdict.words().message;
    assert!(matches!(verdict, Verdict::Stalled(_)), "{verdict:?}");
    assert_eq!(verdict.words().reason, "NameTaken");
    assert!(said.contains("Secret plant/assets-beacon exists"), "{said}");
    assert_eq!(*made.lock().unwrap(), ["assets-beacon"], "nothing else was tried");
}
