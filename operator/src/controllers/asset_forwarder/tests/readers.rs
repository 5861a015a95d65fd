//! Fields of the ring's document that older pods refuse.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::super::members::PODS_TOO_OLD;
use super::*;
use crate::reconcile::conditions::Words;

/// The image of the first release, whose pods do not tell a version, and today's.
const OLD: &str = "forwarder:1";
const NEW: &str = "forwarder:2";

/// Two clusters and two pods of the old image under today's operator.
fn old() -> World {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    world.step();
    world.default_image = NEW;
    pods(&mut world, [OLD, OLD]);
    world.step();
    world
}

/// The pods run the ring that is written, and are of these images. An image that is not [`OLD`] or [`NEW`] does not answer yet.
fn pods<const N: usize>(world: &mut World, images: [&str; N]) {
    let ring = world.ring();
    let pods = images.iter().enumerate().map(|(number, image)| {
        let mut pod = pod(&format!("p{number}"), &ring);
        (*image).clone_into(&mut pod.image);
        match *image {
            NEW => {}
            OLD => report(&mut pod).document_version = None,
            _ => pod.report = None,
        }
        pod
    });
    world.existing.pods = pods.collect();
}

fn declare(world: &mut World) {
    world.clusters[0].spec.discover_servers = Some(false);
    world.clusters[1].spec.jet_stream_api = Some(yaml("{domain: leaf}"));
}

/// Fields of the written ring that the first release does not know.
fn newer(world: &World) -> Vec<&'static str> {
    let ring = world.ring();
    let fields = ring.clusters.iter().flat_map(|cluster| cluster.newer_than(1));
    fields.collect()
}

fn told(world: &World) -> (Verdict, Vec<(&'static str, Words)>) {
    let validated = world.validate().unwrap();
    let deployment = world.existing.deployment.as_ref();
    let (_, verdict) = status::status(&world.status(), &validated, deployment, &world.existing);
    (verdict, status::further(&validated, &world.existing))
}

/// The reason of the verdict, and whether the condition is there.
fn brief(world: &World) -> (&'static str, bool) {
    let (verdict, further) = told(world);
    let is_said = further.iter().any(|(type_, _)| *type_ == PODS_TOO_OLD);
    (verdict.words().reason.as_str(), is_said)
}

/// A new template of this image, rolled out.
fn roll(world: &mut World, image: &str) {
    let generation = world.forwarder.metadata.generation.unwrap();
    world.forwarder.metadata.generation = Some(generation + 1);
    world.forwarder.spec.image = Some(image.to_owned());
    world.step();
}

#[test]
fn what_only_newer_pods_read_is_withheld_until_all_of_them_do() {
    let mut world = old();
    let before = world.existing.ring.clone();
    declare(&mut world);
    world.step();
    assert_eq!((newer(&world), world.ring().epoch), (vec![], 1));
    let data = |map: &Option<ConfigMap>| map.as_ref().unwrap().data.clone();
    assert_eq!(
        data(&world.existing.ring),
        data(&before),
        "nobody has anything to take up"
    );
    let (verdict, further) = told(&world);
    let message = "2 of 2 pods are too old for the declared fields; the ring goes on without spec.discoverServers of NatsCluster \
                   plant/c1, spec.jetStreamApi of NatsCluster plant/c2; roll the pods: change spec.podTemplate.annotations, or \
                   set upgradePolicy: Automatic";
    assert_eq!(verdict, Verdict::reconciling(Reason::PodsTooOld, message));
    assert_eq!(further, [(PODS_TOO_OLD, verdict.words().clone())]);

    roll(&mut world, NEW);
    pods(&mut world, [NEW, OLD]);
    world.step();
    assert_eq!((newer(&world), world.ring().epoch), (vec![], 1));
    assert_eq!(brief(&world), (PODS_TOO_OLD, true));
    let said = told(&world).0.words().message.clone();
    assert!(
        said.starts_with("1 of 2 pods are too old") && said.ends_with("newer pods are rolling out"),
        "{said}"
    );

    pods(&mut world, [NEW, NEW]);
    world.step();
    assert_eq!(
        (newer(&world), world.ring().epoch),
        (vec!["discoverServers", "jetStream"], 2)
    );
    assert_eq!(brief(&world), ("RingConverging", false));
    pods(&mut world, [NEW, NEW]);
    world.step();
    assert_eq!(brief(&world), ("Forwarding", false));
    assert_eq!(world.ring().epoch, 2);
}

#[test]
fn where_nobody_declares_it_nothing_is_noted_of_old_pods() {
    let mut world = old();
    let before = world.existing.ring.clone();
    pods(&mut world, [OLD, NEW]);
    world.step();
    assert_eq!(world.existing.ring, before);
    assert_eq!(brief(&world), ("Forwarding", false));
    declare(&mut world);
    world.step();
    let annotated = |world: &World| {
        world
            .existing
            .ring
            .as_ref()
            .unwrap()
            .annotations()
            .get(names::READERS)
            .cloned()
    };
    let noted = format!(r#"{{"forwarder:1":1,"forwarder:2":{RING_DOCUMENT_VERSION}}}"#);
    assert_eq!(annotated(&world), Some(noted));
    world.clusters[0].spec.discover_servers = None;
    world.clusters[1].spec.jet_stream_api = None;
    world.step();
    assert_eq!(annotated(&world), None, "whoever takes it back leaves no trace");
    assert_eq!(world.ring().epoch, 1);
}

#[test]
fn a_forwarder_without_pods_begins_with_all_that_is_declared() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    declare(&mut world);
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (2, 1));
    pods(&mut world, ["starts", "starts"]);
    world.step();
    assert_eq!(
        (newer(&world).len(), world.ring().epoch),
        (2, 1),
        "starting is no reason to go back"
    );
    pods(&mut world, [NEW, NEW]);
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (2, 1));
    // The pods of an image that was pinned long ago refuse it, and get what they read.
    pods(&mut world, [OLD, "starts"]);
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (0, 2));
}

#[test]
fn a_pod_that_does_not_answer_yet_changes_nothing() {
    let mut world = old();
    declare(&mut world);
    pods(&mut world, ["starts", NEW]);
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (0, 1));
    let (verdict, further) = told(&world);
    assert_eq!(
        verdict.words().reason,
        "RingConverging",
        "one pod has not said what it runs"
    );
    assert_eq!(further, [], "nobody knows that it is too old");
    let validated = world.validate().unwrap();
    let words = validated.readers.words(&validated.members).unwrap();
    assert_eq!(words.reason, Reason::PodsNotAsked);
    assert!(
        words.message.starts_with("1 of 2 pods have not reported yet"),
        "{words:?}"
    );

    pods(&mut world, [NEW, NEW]);
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (2, 2));
    for silent in [["starts", NEW], ["starts", "starts"], [NEW, "starts"]] {
        pods(&mut world, silent);
        world.step();
        assert_eq!((newer(&world).len(), world.ring().epoch), (2, 2), "{silent:?}");
    }
    // One that is on its way out and has ended reads nothing any more.
    pods(&mut world, [OLD, NEW]);
    world.existing.pods[0].terminating = true;
    world.existing.pods[0].process = Process::Absent;
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (2, 2));
}

#[test]
fn an_older_pod_that_answers_has_the_ring_go_back_and_forth_only_with_it() {
    let mut world = old();
    roll(&mut world, NEW);
    pods(&mut world, [NEW, NEW]);
    declare(&mut world);
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (2, 2));
    // A rollback: the first old pod refuses the ring, so it is not ready, and says which version it reads.
    roll(&mut world, OLD);
    assert_eq!(world.ring().epoch, 2, "nothing is known of that image yet");
    pods(&mut world, [OLD, NEW]);
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (0, 3));
    for still in [["starts", NEW], [OLD, "starts"], [OLD, OLD]] {
        pods(&mut world, still);
        world.step();
        assert_eq!((newer(&world).len(), world.ring().epoch), (0, 3), "{still:?}");
    }
    let said = told(&world).0.words().message.clone();
    assert!(said.ends_with("set spec.image to a newer forwarder"), "{said}");
    // All of them are gone for a moment: those that follow are of the same image.
    world.existing.pods.clear();
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (0, 3));
    roll(&mut world, NEW);
    pods(&mut world, [NEW, NEW]);
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (2, 4));
}

#[test]
fn an_image_that_is_known_to_be_old_finds_a_ring_that_it_reads() {
    let mut world = old();
    declare(&mut world);
    world.step();
    let kept: ReplicaSet = yaml(&format!(
        "{{metadata: {{name: assets-1}}, spec: {{replicas: 0, selector: {{}}, template: {{spec: {{containers: [{{name: forwarder, \
         image: '{OLD}'}}]}}}}}}}}"
    ));
    world.existing.replica_sets.push(kept);
    roll(&mut world, NEW);
    pods(&mut world, [NEW, NEW]);
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (2, 2));
    // Back to the old image: ring and template are written in one pass, the ring first.
    roll(&mut world, OLD);
    assert_eq!((newer(&world).len(), world.ring().epoch), (0, 3));
}

#[test]
fn a_default_image_that_is_too_old_itself_is_told_apart() {
    let mut world = old();
    world.default_image = OLD;
    declare(&mut world);
    world.step();
    let said = told(&world).0.words().message.clone();
    assert!(
        said.contains("the operator's default image is too old as well"),
        "{said}"
    );
}

#[test]
fn a_newcomer_waits_for_pods_that_read_all_of_it() {
    let mut world = old();
    world.clusters.push(cluster("c3", 3));
    world.clusters[2].spec.inbox_prefix = Some("_INBOX_plant".to_owned());
    world.step();
    assert_eq!(world.brief(), (1, vec!["c1".to_owned(), "c2".to_owned()]));
    assert_eq!(world.excluded(), [("c3".to_owned(), PODS_TOO_OLD.to_owned())]);
    let said = told(&world).0.words().message.clone();
    let expected = "2 of 2 pods are too old for the declared fields; clusters join when all pods read spec.inboxPrefix of \
                    NatsCluster plant/c3; ";
    assert!(said.starts_with(expected), "{said}");
    roll(&mut world, NEW);
    pods(&mut world, [NEW, NEW]);
    world.step();
    assert_eq!(newer(&world), ["inboxPrefix"]);
    assert_eq!(world.brief().1, ["c1", "c2", "c3"]);
}

#[test]
fn a_member_stays_one_where_its_ring_is_gone_and_its_pods_are_old() {
    let mut world = old();
    declare(&mut world);
    world.step();
    world.existing.ring = None;
    world.step();
    assert_eq!(
        world.brief(),
        (2, vec!["c1".to_owned(), "c2".to_owned()]),
        "no asset moves"
    );
    assert_eq!(newer(&world), [""; 0]);
}

#[test]
fn who_cannot_be_asked_is_taken_for_old_only_where_nobody_answers_and_nothing_works() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    declare(&mut world);
    world.step();
    pods(&mut world, ["late", "late"]);
    world.step();
    for pod in &mut world.existing.pods {
        pod.overdue = true;
    }
    let all = world.existing.pods.clone();
    pods(&mut world, [NEW, "late"]);
    world.existing.pods[1].overdue = true;
    world.step();
    assert_eq!(
        (newer(&world).len(), world.ring().epoch),
        (2, 1),
        "the other one works with it"
    );
    world.existing.pods = all;
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (0, 2));
    assert!(brief(&world).1);
}

#[test]
fn a_pod_is_overdue_that_has_an_address_and_answers_nothing_for_longer_than_a_start() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let seen = |state: &str, ready: &str| {
        let pod: Pod = yaml(&format!(
            "
metadata: {{name: a, annotations: {{fanout.openfactory.io/ring-epoch: '3'}}}}
spec: {{containers: [{{name: other, image: x}}, {{name: forwarder, image: 'registry/forwarder:1'}}]}}
status:
  phase: Running
  conditions: [{{type: Ready, status: '{ready}', lastTransitionTime: '1970-01-01T00:01:00Z'}}]
  containerStatuses: [{{name: forwarder, image: i, imageID: '', ready: false, restartCount: 0, state: {{{state}}}}}]
"
        ));
        Observed::of(&pod).unwrap()
    };
    let (runs, waits) = ("running: {}", "waiting: {reason: ImagePullBackOff}");
    let pod = seen(runs, "False");
    assert_eq!((pod.image.as_str(), pod.watches_ring), ("registry/forwarder:1", false));
    assert!(!pod.clone().heard(None, at(110)).overdue);
    assert!(pod.clone().heard(None, at(130)).overdue);
    assert!(!pod.heard(Some(Status::default()), at(130)).overdue);
    assert!(!seen(runs, "True").heard(None, at(130)).overdue);
    assert!(!seen(waits, "False").heard(None, at(130)).overdue, "nothing of it runs");
}

#[test]
fn with_roll_the_ring_comes_with_the_image_that_reads_it() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    world.forwarder.spec.ring.update = crds::asset_forwarder::RingUpdate::Roll;
    world.step();
    let in_configurations = |world: &mut World| {
        for pod in &mut world.existing.pods {
            pod.watches_ring = false;
        }
    };
    world.default_image = NEW;
    pods(&mut world, [OLD, OLD]);
    in_configurations(&mut world);
    declare(&mut world);
    let pass = world.step();
    assert_eq!(
        (newer(&world).len(), world.ring().epoch),
        (2, 2),
        "the old pods have theirs and never read this one"
    );
    assert!(pass.validated.config.unwrap().text.contains("discoverServers"));
    assert_eq!(world.status().image.as_deref(), Some(NEW));
    assert!(!brief(&world).1);

    // The image that is pinned cannot read it: its pods end at their start, and the old ones go on.
    world.forwarder.spec.image = Some("pinned".to_owned());
    world.step();
    pods(&mut world, ["pinned", OLD]);
    in_configurations(&mut world);
    world.existing.pods[0].overdue = true;
    let pass = world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (0, 3));
    assert!(!pass.validated.config.unwrap().text.contains("discoverServers"));
}

#[test]
fn the_operator_of_before_and_back_again() {
    let mut world = old();
    roll(&mut world, NEW);
    pods(&mut world, [NEW, NEW]);
    declare(&mut world);
    world.step();
    pods(&mut world, [NEW, NEW]);
    let epoch = world.ring().epoch;

    // An operator that does not know a field cannot read the ring that has it: as this one with a ring of the next version.
    let mut before = world.existing.ring.clone();
    let data = before.as_mut().unwrap().data.as_mut().unwrap();
    let text = data[names::RING_FILE].replace("discoverServers", "ofTheNextVersion");
    data.insert(names::RING_FILE.to_owned(), text);
    world.existing.ring = before;
    world.clusters[0].spec.discover_servers = None;
    world.clusters[1].spec.jet_stream_api = None;
    let pass = world.step();
    assert_eq!(
        world.brief(),
        (epoch + 1, vec!["c1".to_owned(), "c2".to_owned()]),
        "no asset moves"
    );
    assert_eq!(newer(&world), [""; 0], "it writes what it knows");
    assert_eq!(pass.validated.ring.unwrap().leaving.len(), 0);

    // The newer one again: what is declared has stayed in the resources.
    pods(&mut world, [NEW, NEW]);
    declare(&mut world);
    world.step();
    assert_eq!((newer(&world).len(), world.ring().epoch), (2, epoch + 2));
}
