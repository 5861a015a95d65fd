//! Epochs: they stay while nothing changes, grow with every change, and never go back.

use super::*;

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
