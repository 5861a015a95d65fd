//! Copies for subscribers that stay at the previous owner of their assets.

use forwarder_core::document::{MirrorConfig, PreviousRing};

use super::*;
use crate::reconcile::conditions::Verdict;
use crate::reconcile::reason::Reason;

/// The version of the ring's document before the one with copies.
const BEFORE: u32 = 3;

/// Two clusters and two pods that run their ring.
fn settled() -> World {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    world.step();
    world.pods_follow();
    world.step();
    world
}

fn declare(world: &mut World, publish: &str) {
    world.forwarder.spec.publish = yaml(publish);
    let generation = world.forwarder.metadata.generation.as_mut().unwrap();
    *generation += 1;
}

fn mirror(world: &World) -> Option<(u64, Vec<String>)> {
    let MirrorConfig { moved_ms, previous } = world.ring().mirror?;
    let clusters = previous.into_iter().flat_map(|PreviousRing { clusters, .. }| clusters);
    Some((moved_ms, clusters.map(|cluster| cluster.name).collect()))
}

#[test]
fn they_come_into_the_ring_with_the_ring_before_it_and_roll_nothing() {
    let mut world = settled();
    let template = |world: &World| world.existing.deployment.clone().unwrap().spec.unwrap().template;
    let before = template(&world);
    declare(&mut world, "{mirrorMovedSeconds: 600}");
    world.step();
    assert_eq!(world.ring().epoch, 2);
    assert_eq!(mirror(&world), Some((600_000, vec![])), "nothing has moved yet");
    world.step();
    assert_eq!(world.ring().epoch, 2, "the same input writes nothing");

    world.pods_follow();
    world.clusters.push(cluster("c3", 3));
    world.step();
    assert_eq!(mirror(&world).unwrap().1, ["c1", "c2"]);
    // Where no owner changes, the ring before stays what it was.
    world.pods_follow();
    world.clusters[0].spec.client_servers = vec!["nats://c1.example.com:4222".to_owned()];
    world.step();
    assert_eq!((world.ring().epoch, mirror(&world).unwrap().1.len()), (4, 2));
    assert_eq!(template(&world), before, "no pod rolls");

    declare(&mut world, "{}");
    world.step();
    assert_eq!((world.ring().epoch, mirror(&world)), (5, None));
}

#[test]
fn older_pods_get_a_ring_without_them_and_the_status_says_so() {
    let mut world = settled();
    let pods_read = |world: &mut World, version: u32| {
        world.pods_follow();
        for pod in &mut world.existing.pods {
            report(pod).document_version = Some(version);
        }
    };
    pods_read(&mut world, BEFORE);
    declare(&mut world, "{mirrorMovedSeconds: 600}");
    world.step();
    assert_eq!((world.ring().epoch, mirror(&world)), (1, None));
    let validated = world.validate().unwrap();
    let deployment = world.existing.deployment.as_ref();
    let (_, verdict) = status::status(&world.status(), &validated, deployment, &world.existing);
    let words = verdict.words();
    assert_eq!(words.reason, Reason::PodsTooOld);
    assert!(
        words
            .message
            .contains("the ring goes on without spec.publish.mirrorMovedSeconds"),
        "{}",
        words.message
    );
    pods_read(&mut world, RING_DOCUMENT_VERSION);
    world.step();
    assert_eq!((world.ring().epoch, mirror(&world).is_some()), (2, true));
}

#[test]
fn in_mode_jetstream_they_are_refused_in_words() {
    let mut world = settled();
    declare(
        &mut world,
        "{mode: JetStream, subject: 'a.{key}.{id}', stream: {name: s}, mirrorMovedSeconds: 600}",
    );
    let verdict = world.validate().unwrap_err();
    assert!(matches!(verdict, Verdict::Stalled(_)), "{verdict:?}");
    let said = &verdict.words().message;
    assert!(
        said.starts_with("spec.publish.mirrorMovedSeconds: is not used in mode: JetStream"),
        "{said}"
    );
}
