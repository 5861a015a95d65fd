//! Epochs: they stay while nothing changes, grow with every change, and never go back.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::super::ring;
use super::*;
use crate::index::in_turn;

#[test]
fn the_same_world_gives_the_same_ring() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    world.step();
    assert_eq!(world.brief(), (1, vec!["c1".to_owned(), "c2".to_owned()]));
    world.pods_follow();
    world.clusters.reverse();
    let before = world.existing.ring.clone();
    let again = world.step();
    assert_eq!(world.existing.ring, before, "the order of the listing does not matter");
    assert_eq!(again.validated.ring, Some(again.validated.recorded));
}

#[test]
fn a_change_grows_the_epoch_and_says_what_moves() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2), cluster("c3", 3)]);
    world.step();
    assert_eq!(
        world.status().ring.unwrap().moved_percent,
        None,
        "the first one moves nothing"
    );
    world.clusters.push(cluster("c4", 4));
    world.step();
    assert_eq!(world.brief().0, 2);
    let moved = world.status().ring.unwrap().moved_percent;
    let share: f64 = moved.as_deref().unwrap().parse().unwrap();
    assert!((20.0..30.0).contains(&share), "{share}");
    world.step();
    assert_eq!(
        world.status().ring.unwrap().moved_percent,
        moved,
        "it is about the last change"
    );
    world.forwarder.spec.ring.handover_timeout_seconds = 5;
    world.step();
    assert_eq!(world.brief().0, 3, "the timeout is part of the document");
    assert_eq!(world.status().ring.unwrap().moved_percent.as_deref(), Some("0.0"));
}

#[test]
fn that_a_ring_changes_is_seen_without_making_it() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    world.step();
    world.clusters.push(cluster("c3", 3));
    let mut validated = validate(&world.dereferenced(), &world.settings()).unwrap();
    let ring = validated.ring.as_mut().unwrap();
    assert_ne!(*ring, validated.recorded);
    assert_eq!(ring.moved_percent, None);
    ring::measure(&validated.recorded, ring).unwrap();
    assert!(ring.moved_percent.is_some());
    let measured = ring.clone();
    ring::measure(&validated.recorded, ring).unwrap();
    assert_eq!(*ring, measured);
}

#[test]
fn an_epoch_that_pods_ask_for_makes_no_ring() {
    let mut world = heavy(512);
    world.step();
    world.pods_follow();
    // Somebody else makes rings meanwhile.
    let (held, is_held) = channel();
    let (free, is_free) = channel::<()>();
    let other = std::thread::spawn(move || {
        in_turn(|| {
            held.send(()).unwrap();
            is_free.recv_timeout(Duration::from_secs(20))
        })
    });
    is_held.recv().unwrap();
    let epoch = world.brief().0 + 1;
    report(&mut world.existing.pods[0]).ring.epoch = epoch;
    let ring = world.validate().unwrap().ring.unwrap();
    drop(free);
    assert_eq!((ring.epoch(), ring.moved_percent.as_deref()), (epoch + 1, Some("0.0")));
    let freed = other.join().unwrap();
    assert_eq!(freed, Err(RecvTimeoutError::Disconnected), "it waited for its turn");
}

#[test]
fn an_epoch_survives_what_people_delete() {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    world.clusters.push(cluster("c2", 2));
    world.step();
    assert_eq!(world.brief().0, 2);

    world.existing.ring = None;
    world.step();
    assert_eq!(
        world.brief().0,
        3,
        "what epoch 2 was like is not known, only that it was"
    );

    world.forwarder.status = None;
    world.step();
    assert_eq!(world.brief().0, 3);

    world.pods_follow();
    world.forwarder.status = None;
    world.existing.ring = None;
    world.step();
    assert_eq!(world.brief().0, 4, "the pods know it");
}

#[test]
fn an_epoch_that_was_set_back_by_hand_is_not_believed() {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    world.clusters.push(cluster("c2", 2));
    world.step();
    let data = world.existing.ring.as_mut().unwrap().data.as_mut().unwrap();
    let text = data[names::RING_FILE].replace("epoch: 2", "epoch: 1");
    data.insert(names::RING_FILE.to_owned(), text);
    world.step();
    assert_eq!(world.brief().0, 3);
}

#[test]
fn a_group_that_was_served_under_a_higher_epoch_gets_one() {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    world.pods_follow();
    report(&mut world.existing.pods[1]).ring.awaits = Some(17);
    world.step();
    assert_eq!(world.brief().0, 17);
    world.step();
    assert_eq!(world.brief().0, 17, "the pods have not said anything else yet");
    world.pods_follow();
    report(&mut world.existing.pods[0]).ring.awaits = Some(18);
    world.step();
    assert_eq!(world.brief().0, 18, "of epoch 17 there was another ring");
}

#[test]
fn a_ring_of_too_many_nodes_is_refused_and_the_old_one_stays() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    world.step();
    world.forwarder.spec.ring.replicas = 4_096;
    for cluster in &mut world.clusters {
        cluster.spec.weight = 1_000;
    }
    let verdict = world.validate().unwrap_err();
    assert_eq!(verdict.words().reason, "InvalidSpec");
    assert!(verdict.words().message.contains("virtual nodes"), "{verdict:?}");
    assert!(matches!(verdict, Verdict::Stalled(_)));
}

/// The same shape as `weight` × 1,024 virtual nodes.
fn heavy(weight: u32) -> World {
    let mut world = World::new([cluster("c1", 1)]);
    world.forwarder.spec.ring.replicas = 1_024;
    world.clusters[0].spec.weight = weight;
    world
}

#[test]
fn a_ring_is_bounded_and_the_refusal_says_what_to_lower() {
    assert!(heavy(512).validate().is_ok(), "524,288 is what it may have");
    let verdict = heavy(513).validate().unwrap_err();
    let expected = "the ring would have 525312 virtual nodes, but the limit is 524288. Lower spec.ring.replicas (1024), or \
                    spec.weight of its NatsClusters (together 513). The pods keep the ring that they have";
    assert_eq!(verdict, Verdict::stalled(Reason::InvalidSpec, expected));
}

#[test]
fn a_larger_ring_that_is_recorded_goes_on_and_may_shrink() {
    let mut world = heavy(512);
    world.step();
    // As an operator without this bound has written it.
    let data = world.existing.ring.as_mut().unwrap().data.as_mut().unwrap();
    let text = data[names::RING_FILE].replace("weight: 512", "weight: 1000");
    data.insert(names::RING_FILE.to_owned(), text);
    world.clusters[0].spec.weight = 1_000;
    let before = world.existing.ring.clone();
    world.step();
    assert_eq!(world.existing.ring, before, "an upgrade changes nothing");
    world.forwarder.spec.ring.handover_timeout_seconds = 7;
    world.step();
    assert_eq!(world.brief().0, 2);
    world.forwarder.spec.ring.replicas = 1_025;
    let verdict = world.validate().unwrap_err();
    assert!(verdict.words().message.contains("1025000 virtual nodes"), "{verdict:?}");
    world.forwarder.spec.ring.replicas = 1_000;
    world.step();
    assert_eq!(world.brief().0, 3, "1,000,000 is less than it had");
}

#[test]
fn with_roll_the_ring_is_part_of_the_configuration() {
    let mut world = World::new([cluster("c1", 1)]);
    world.forwarder.spec.ring.update = crds::asset_forwarder::RingUpdate::Roll;
    let first = world.step().validated.config.unwrap();
    assert_eq!(first.ring_epoch, Some(1));
    world.clusters.push(cluster("c2", 2));
    let second = world.step().validated.config.unwrap();
    assert_ne!(first.hash, second.hash);
    world.forwarder.spec.ring.update = crds::asset_forwarder::RingUpdate::Live;
    let live = world.step().validated.config.unwrap();
    world.remove("c1");
    assert_eq!(world.step().validated.config.unwrap(), live);
}
