//! What a client does and tells while an asset moves.

use super::*;

#[test]
fn a_move_is_followed_in_its_steps_and_told() {
    let asset = mover();
    let mut world = World::new(one());
    let (queue, mut begun) = world.subscribe(&[&asset]);
    assert!(begun.try_recv().unwrap().is_ok());
    world.write("C1", &asset, "t", 1);
    world.declare(7, announced());
    assert!(world.is_connected("C2"));
    world.write("C1", &asset, "t", 2);
    world.declare(7, used());
    world.write("C2", &asset, "t", 3);
    world.settle();
    world.declare(8, vec![view(8, Phase::InUse, &TWO)]);
    assert!(!world.is_connected("C1"), "nothing is read there any more");
    assert_eq!(read(&queue), [1, 2, 3]);
    let told: Vec<String> = world
        .told()
        .into_iter()
        .map(|event| match event {
            Event::Ring { epoch, state } => format!("{epoch} {state:?}"),
            Event::Ready { ring } => format!("{ring} ready"),
            event => panic!("{event:?}"),
        })
        .collect();
    let expected = [
        "7 Announced",
        "7 InUse",
        "7 ready",
        "8 Announced",
        "8 ready",
        "8 InUse",
        "7 Left",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_ring_in_use_before_its_proof_is_a_gap() {
    let asset = mover();
    let mut world = World::new(one());
    let (_queue, _begun) = world.subscribe(&[&asset]);
    world.silent = vec!["p-0".to_owned()];
    world.declare(7, announced());
    assert_eq!(world.gaps(), []);
    world.declare(7, used());
    let gaps = world.gaps();
    assert_eq!(reasons(&gaps), [(GapReason::NotReady, Some("C2"))]);
    assert_eq!(gaps[0].asset.as_deref(), Some(&*asset));
}

#[test]
fn the_new_side_is_held_for_a_dead_old_side_for_a_bounded_time() {
    let asset = mover();
    let mut world = World::new(announced());
    let (queue, _begun) = world.subscribe(&[&asset]);
    world.declare(7, used());
    // It hangs: nothing that is sent to it is answered.
    world.write("C2", &asset, "t", 3);
    world.read_only("C2");
    assert!(read(&queue).is_empty());
    world.hang("C1");
    world.wait(5_000);
    assert_eq!(read(&queue), [3]);
    assert!(reasons(&world.gaps()).contains(&(GapReason::NotDrained, Some("C1"))));

    // And without a connection there is nothing to wait for.
    let mut world = World::new(announced());
    let (queue, _begun) = world.subscribe(&[&asset]);
    world.cut("C1", true);
    world.write("C2", &asset, "t", 3);
    world.settle();
    assert_eq!(read(&queue), [3]);
    let gaps = world.gaps();
    let expected = [
        (GapReason::Disconnected, Some("C1")),
        (GapReason::NotDrained, Some("C1")),
    ];
    assert_eq!(reasons(&gaps), expected);
}

#[test]
fn a_cluster_that_left_while_it_was_away_is_a_gap() {
    let mut world = World::new(announced());
    let (_queue, _begun) = world.subscribe(&["a"]);
    let only_two = || vec![view(9, Phase::InUse, &["C2"])];
    let mut rings = used();
    rings.extend(only_two());
    world.declare(7, rings);
    world.cut("C1", true);
    world.told();
    world.declare(9, only_two());
    assert_eq!(reasons(&world.gaps()), [(GapReason::Left, Some("C1"))]);
}

#[test]
fn a_partition_that_begins_late_waits_for_an_old_side_that_has_left() {
    let asset = mover();
    let mut world = World::new(announced());
    let (queue, _begun) = world.subscribe(&[&asset]);
    world.write("C1", &asset, "t", 1);
    world.left = 8;
    world.rings = vec![view(8, Phase::InUse, &TWO)];
    world.digest();
    // The new side comes first, with the digest and with all that follows from it.
    world.read_only("C2");
    world.write("C2", &asset, "t", 2);
    world.read_only("C2");
    world.settle();
    assert_eq!(read(&queue), [1, 2]);
    assert_eq!(world.gaps(), []);
}

#[test]
fn servers_of_one_cluster_have_their_time_to_settle() {
    let asset = mover();
    let mut world = World::new(announced());
    world.has_several = true;
    let (queue, _begun) = world.subscribe(&[&asset]);
    // The first connection is older than the cluster is large.
    world.cut("C1", false);
    world.write("C2", &asset, "t", 3);
    world.settle();
    assert!(
        read(&queue).is_empty(),
        "the echo is back, and the old side may still have something"
    );
    world.write("C1", &asset, "t", 2);
    world.settle();
    world.wait(250);
    assert_eq!(read(&queue), [2, 3]);
}

#[test]
fn rings_that_came_and_went_unheard_are_a_gap() {
    let mut world = World::new(one());
    let (_queue, _begun) = world.subscribe(&["a"]);
    world.told();
    world.declare(9, vec![view(9, Phase::InUse, &["C1"])]);
    assert_eq!(reasons(&world.gaps()), [(GapReason::RingSkipped, None)]);
}

#[test]
fn copies_for_others_are_passed_over() {
    let asset = mover();
    let mut world = World::new(announced());
    let (queue, _begun) = world.subscribe(&[&asset]);
    world.declare(7, used());
    // The copy of 1 was dropped on its way, and 2 has come on the old side before 1 has on the new one.
    world.write_copy("C1", &asset, "t", 2);
    world.read_only("C1");
    world.write("C2", &asset, "t", 1);
    world.write("C2", &asset, "t", 2);
    world.settle();
    assert_eq!(read(&queue), [1, 2]);
}

#[test]
fn a_client_that_is_behind_waits_longer_and_not_for_ever() {
    let asset = mover();
    let mut world = World::new(announced());
    let (queue, _begun) = world.subscribe(&[&asset]);
    world.declare(7, used());
    world.write("C2", &asset, "t", 10);
    world.read_only("C2");
    // The echo never comes back, and records do.
    world.hang("C1");
    for offset in 0..5 {
        world.write("C1", &asset, "t", offset);
        world.settle();
        world.wait(5_000);
        assert_eq!(read(&queue), [offset]);
    }
    assert!(world.gaps().is_empty());
    world.write("C1", &asset, "t", 5);
    world.settle();
    world.wait(5_000);
    assert_eq!(read(&queue), [5, 10]);
    assert_eq!(reasons(&world.gaps()), [(GapReason::NotDrained, Some("C1"))]);
}
