mod walk;
mod world;

use std::sync::Arc;

use forwarder_beacon::{Announcement, Body, Phase, Ready, RingView, Signer};
use forwarder_core::fanout::ring::LeanRing;
use world::{RING, World, view};

use crate::error::SubscribeError;
use crate::event::{Event, Gap, GapReason};
use crate::limits::{Limits, Repeats};
use crate::login::Login;
use crate::queue::Queue;

const TWO: [&str; 2] = ["C1", "C2"];

fn owner(asset: &str, clusters: &[&str]) -> String {
    let members = clusters.iter().map(|name| ((*name).to_owned(), 1));
    clusters[LeanRing::new(members, 64).unwrap().owner(asset.as_bytes())].to_owned()
}

/// An asset that goes from C1 to C2 when C2 comes.
fn mover() -> String {
    (0..)
        .map(|n| format!("a{n}"))
        .find(|asset| owner(asset, &TWO) == "C2")
        .unwrap()
}

fn one() -> Vec<RingView> {
    vec![view(7, Phase::InUse, &["C1"])]
}

fn announced() -> Vec<RingView> {
    vec![view(7, Phase::InUse, &["C1"]), view(8, Phase::Announced, &TWO)]
}

fn used() -> Vec<RingView> {
    vec![view(7, Phase::Leaving, &["C1"]), view(8, Phase::InUse, &TWO)]
}

fn read(queue: &Queue) -> Vec<i64> {
    let records = std::iter::from_fn(|| queue.take());
    records.map(|record| record.origin.unwrap().offset).collect()
}

fn reasons(gaps: &[Gap]) -> Vec<(GapReason, Option<&str>)> {
    gaps.iter().map(|gap| (gap.reason, gap.cluster.as_deref())).collect()
}

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
fn a_lost_connection_is_a_gap_that_ends_when_all_pods_have_proved_again() {
    let mut world = World::new(one());
    let (queue, _begun) = world.subscribe(&["a"]);
    world.write("C1", "a", "t", 1);
    world.settle();
    world.silent = vec!["p-1".to_owned()];
    world.told();
    world.cut("C1", false);
    assert_eq!(reasons(&world.gaps()), [(GapReason::Disconnected, Some("C1"))]);
    world.silent.clear();
    // The question for proofs is given up, and then asked again.
    world.wait(2_000);
    world.wait(200);
    assert!(matches!(&world.told()[..], [Event::Resumed { cluster }] if **cluster == *"C1"));
    world.write("C1", "a", "t", 3);
    world.settle();
    assert_eq!(read(&queue), [1, 3]);
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
fn records_after_later_ones_are_events_and_repeats_are_as_declared() {
    for (repeats, expected) in [(Repeats::Drop, vec![1, 3]), (Repeats::Deliver, vec![1, 3, 1, 3])] {
        let mut world = World::with(one(), Limits::default(), repeats, Arc::new(|_| None));
        let (queue, _begun) = world.subscribe(&["a"]);
        for offset in [1, 3, 2, 1, 3] {
            world.write("C1", "a", "t", offset);
        }
        world.settle();
        assert_eq!(read(&queue), expected);
        let is_late =
            |event: &Event| matches!(event, Event::Late(record) if record.origin.as_ref().unwrap().offset == 2);
        assert_eq!(world.told().iter().filter(|event| is_late(event)).count(), 1);
    }
}

#[test]
fn a_slow_reader_is_told_what_it_misses_once_a_second() {
    let mut world = World::new(one());
    let queue = Arc::new(Queue::new(2, 1 << 20));
    let _begun = world.subscribe_to(&["a"], &queue);
    for offset in 0..10 {
        world.write("C1", "a", "t", offset);
    }
    world.settle();
    world.wait(1_000);
    let gaps = world.gaps();
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert!(gaps.iter().all(|gap| gap.reason == GapReason::SlowReader));
    assert_eq!(gaps.iter().map(|gap| gap.count).sum::<u64>(), 8);
    assert_eq!(gaps[0].asset.as_deref(), Some("a"));
    assert_eq!(read(&queue), [0, 1]);
}

#[test]
fn what_others_send_changes_nothing_and_is_told() {
    let mut world = World::new(one());
    let (_queue, _begun) = world.subscribe(&["a"]);
    world.told();
    let (token, nonce) = world.ask("C1");
    let ring = Announcement {
        rings: vec![view(99, Phase::InUse, &["evil"])],
        left: 99,
        ..world.announcement("another nonce")
    };
    let old = Body::Announcement(ring.clone().sealed());
    let elsewhere = Body::Announcement(Announcement {
        ring: "x".to_owned(),
        ..ring
    });
    let other = Signer::from_seed(&nkeys::KeyPair::new_user().seed().unwrap()).unwrap();
    for (signer, body, why) in [
        (&world::signer(), &old, "nonce"),
        (&world::signer(), &elsewhere, "of the ring"),
        (&other, &old, "signature"),
    ] {
        let signed = signer.sign(body).unwrap();
        world.send_alone("C1", &format!("g{token}"), signed);
        let told = world.told();
        let is_told = |event: &Event| matches!(event, Event::Unbelieved { reason, .. } if reason.contains(why));
        assert!(told.iter().any(is_told), "{why}: {told:?}");
    }
    assert_eq!(world.state.roles("a")[0].epoch, 7);
    let sound = Body::Announcement(world.announcement(&nonce));
    let sound = world.signer.sign(&sound).unwrap();
    world.send_alone("C1", &format!("g{token}"), sound);
    assert!(
        world.told().is_empty(),
        "the answer itself is still awaited, and believed"
    );
}

#[test]
fn proofs_of_another_cluster_or_question_prove_nothing() {
    let mut world = World::new(one());
    world.silent = world.pods.clone();
    let (_queue, mut begun) = world.subscribe(&["a"]);
    let (token, nonce) = world.round("C1");
    let proof = |pod: &str, nonce: &str, cluster: &str| {
        Body::Ready(Ready {
            ring: RING.to_owned(),
            nonce: nonce.to_owned(),
            pod: pod.to_owned(),
            cluster: cluster.to_owned(),
        })
    };
    for body in [
        proof("p-0", "old", "C1"),
        proof("p-0", &nonce, "C2"),
        proof("p-1", &nonce, "C1"),
    ] {
        let signed = world.signer.sign(&body).unwrap();
        world.send("C1", &format!("r{token}"), signed);
    }
    assert!(begun.try_recv().is_err());
    let signed = world.signer.sign(&proof("p-0", &nonce, "C1")).unwrap();
    world.send("C1", &format!("r{token}"), signed);
    assert!(begun.try_recv().unwrap().is_ok());
    assert_eq!(world.gaps(), []);
}

#[test]
fn without_proofs_a_subscription_begins_with_a_gap() {
    let mut world = World::new(one());
    world.silent = vec!["p-1".to_owned()];
    let (_queue, mut begun) = world.subscribe(&["a", "b"]);
    for _ in 0..5 {
        assert!(begun.try_recv().is_err());
        world.wait(1_000);
    }
    assert!(begun.try_recv().unwrap().is_ok());
    let gaps = world.gaps();
    assert_eq!(reasons(&gaps), [(GapReason::NotReady, Some("C1"))]);
    assert_eq!((gaps[0].count, gaps[0].asset.as_deref()), (2, None));
}

#[test]
fn after_three_missed_digests_others_are_asked() {
    let mut world = World::new(one());
    world.digest();
    world.settle();
    assert_eq!(world.probes, 0);
    world.wait(2_900);
    assert_eq!(world.probes, 0);
    world.wait(200);
    assert_eq!(world.probes, 1);
    // They are asked again as long as digests are missed, and not all the time.
    world.wait(100);
    assert_eq!(world.probes, 1);
    world.wait(5_000);
    assert_eq!(world.probes, 2);
}

#[test]
fn an_announcement_never_makes_a_client_log_in_elsewhere() {
    let login_of = |_: &str| Some(Login::user("u", "p"));
    let mut world = World::with(one(), Limits::default(), Repeats::Drop, Arc::new(login_of));
    let (_queue, mut begun) = world.subscribe(&["a"]);
    let refused = begun.try_recv().unwrap();
    assert!(
        matches!(&refused, Err(SubscribeError::HostRefused { cluster, .. }) if cluster == "C1"),
        "{refused:?}"
    );
    let told = world.told();
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Refused { server, .. } if server == "nats://C1"))
    );
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Gap(gap) if gap.reason == GapReason::HostRefused))
    );
}

#[test]
fn a_stream_is_refused_and_its_beginning_is_a_gap() {
    let mut world = World::new(one());
    world.stream = Some("assets".to_owned());
    world.declare(7, one());
    assert_eq!(reasons(&world.gaps()), [(GapReason::JetStream, None)]);
    let (_queue, mut begun) = world.subscribe(&["a"]);
    assert!(matches!(begun.try_recv().unwrap(), Err(SubscribeError::JetStream(_))));
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
fn a_stream_that_is_dropped_leaves_nothing_behind() {
    let mut world = World::new(announced());
    let assets: Vec<String> = (0..50).map(|n| format!("a{n}")).collect();
    let assets: Vec<&str> = assets.iter().map(String::as_str).collect();
    let (_queue, _begun) = world.subscribe(&assets);
    assert!(world.is_connected("C1") && world.is_connected("C2"));
    let stream = *world.state.streams.keys().next().unwrap();
    world.state.close(stream);
    world.settle();
    let state = &world.state;
    assert_eq!((state.feeds.len(), state.taps.len(), state.streams.len()), (0, 0, 0));
    assert_eq!(state.links.len(), 1, "one connection stays, for the beacon");
}

#[test]
fn without_streams_another_member_is_tried_where_one_is_away() {
    let mut world = World::new(vec![view(7, Phase::InUse, &TWO)]);
    let first = if world.is_connected("C1") { "C1" } else { "C2" };
    let other = if first == "C1" { "C2" } else { "C1" };
    world.cut(first, true);
    world.fail(first);
    assert!(!world.is_connected(other), "the first one has its time to come back");
    world.wait(5_000);
    assert!(world.is_connected(other));
    assert!(world.gaps().is_empty(), "nothing was read");
}

#[test]
fn what_a_server_denies_is_a_gap_once_a_second() {
    let mut world = World::new(one());
    let (_queue, _begun) = world.subscribe(&["a"]);
    world.told();
    for _ in 0..100 {
        world.deny("C1", r#"Permissions Violation for Subscription to "a.*""#);
    }
    world.wait(1_000);
    let told = world.told();
    assert_eq!(told.len(), 4, "{told:?}");
    let is_gap = |event: &&Event| matches!(event, Event::Gap(gap) if gap.reason == GapReason::Denied);
    assert_eq!(told.iter().filter(is_gap).count(), 2);
}
