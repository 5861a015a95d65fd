mod moves;
mod pipes;
mod trust;
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
    world.wait(500);
    assert!(matches!(&world.told()[..], [Event::Resumed { cluster }] if **cluster == *"C1"));
    world.write("C1", "a", "t", 3);
    world.settle();
    assert_eq!(read(&queue), [1, 3]);
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
fn pods_that_answer_one_after_the_other_prove_it_together() {
    let mut world = World::new(one());
    world.silent = vec!["p-1".to_owned()];
    let (_queue, mut begun) = world.subscribe(&["a"]);
    assert!(begun.try_recv().is_err());
    // It is asked again, and its answer of before counts.
    world.silent = vec!["p-0".to_owned()];
    world.wait(500);
    assert!(begun.try_recv().unwrap().is_ok());
    assert_eq!(world.gaps(), []);
}

#[test]
fn what_a_dead_pod_has_not_proved_is_proved_when_nobody_counts_on_it_any_more() {
    let asset = mover();
    for alive in [vec!["p-0".to_owned()], Vec::new()] {
        let mut world = World::new(one());
        let (_queue, _begun) = world.subscribe(&[&asset]);
        world.silent = vec!["p-1".to_owned()];
        world.declare(7, announced());
        world.wait(500);
        // It is told with the use of the ring.
        world.pods = alive;
        world.declare(7, used());
        assert_eq!(world.gaps(), []);
    }
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
fn pods_that_are_back_are_learned_though_their_announcement_was_known() {
    let mut world = World::new(one());
    let both = std::mem::replace(&mut world.pods, vec!["p-0".to_owned()]);
    world.declare(7, one());
    assert_eq!(world.state.known().pods(), ["p-0"]);
    world.pods.clone_from(&both);
    // Pods may know different things at one moment, so it is not asked at once.
    for _ in 0..29 {
        world.wait(1_000);
        world.declare(7, one());
    }
    assert_eq!(world.state.known().pods(), ["p-0"]);
    world.wait(1_000);
    world.declare(7, one());
    assert_eq!(world.state.known().pods(), both);
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
fn a_stream_is_refused_and_its_beginning_is_a_gap() {
    let mut world = World::new(one());
    world.stream = Some("assets".to_owned());
    world.declare(7, one());
    assert_eq!(reasons(&world.gaps()), [(GapReason::JetStream, None)]);
    let (_queue, mut begun) = world.subscribe(&["a"]);
    assert!(matches!(begun.try_recv().unwrap(), Err(SubscribeError::JetStream(_))));
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
