//! Two forwarders of one topic and one group.

use k8s_openapi::jiff::Timestamp;

use super::super::dereference::{Claim, Claimed};
use super::super::rivals::{channels, goes_before, may_have_begun};
use super::*;

/// A forwarder as old as it says, with that many pods.
fn forwarder(name: &str, made: u32, pods: i32) -> AssetForwarder {
    let mut forwarder: AssetForwarder = yaml(FORWARDER);
    forwarder.metadata.name = Some(name.to_owned());
    forwarder.metadata.uid = Some(name.to_owned());
    forwarder.metadata.creation_timestamp = Some(yaml(&format!("'1970-01-01T00:00:{made:02}Z'")));
    forwarder.status = Some(AssetForwarderStatus {
        observed_generation: Some(1),
        replicas: pods,
        ..AssetForwarderStatus::default()
    });
    forwarder
}

fn waiting(mut forwarder: AssetForwarder) -> AssetForwarder {
    forwarder.status.as_mut().unwrap().conditions = vec![yaml(&format!(
        "{{type: Ready, status: 'False', reason: {}, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}}",
        Reason::SourceTaken
    ))];
    forwarder
}

#[test]
fn the_older_one_goes_first_and_one_that_reads_before_one_that_does_not() {
    let (old, young) = (forwarder("old", 1, 0), forwarder("young", 2, 0));
    assert!(goes_before(&old, &young, false) && !goes_before(&young, &old, false));
    let twin = forwarder("a", 1, 0);
    assert!(
        goes_before(&twin, &old, false) && !goes_before(&old, &twin, false),
        "by name"
    );

    let young = forwarder("young", 2, 1);
    assert!(
        goes_before(&young, &old, false),
        "who reads is not stopped by who does not"
    );
    assert!(!goes_before(&old, &young, true));
    assert!(
        !goes_before(&waiting(young), &old, false),
        "its pods are of another source"
    );
}

#[test]
fn who_is_scaled_by_lag_wants_pods_whatever_replicas_says() {
    let (mut old, young) = (forwarder("old", 1, 0), forwarder("young", 2, 0));
    old.spec.replicas = 0;
    assert!(!goes_before(&old, &young, false));
    old.spec.autoscaling = Some(yaml(
        "{minReplicas: 1, maxReplicas: 2, lagPerReplica: 100, scaleDownDelaySeconds: 60}",
    ));
    assert!(goes_before(&old, &young, false));
    old.spec.suspend = true;
    assert!(!goes_before(&old, &young, false));
}

#[test]
fn of_two_made_together_the_older_one_waits_for_the_words_of_the_younger() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let (a, b) = (forwarder("a", 10, 0), forwarder("b", 10, 0));
    assert!(
        may_have_begun(&b, &a, at(11)),
        "it came first, and did not know of the other one"
    );
    assert!(
        !may_have_begun(&a, &b, at(11)) && goes_before(&a, &b, false),
        "one of them goes on"
    );
    assert!(!may_have_begun(&waiting(b.clone()), &a, at(11)), "it waits for us");
    let begun = forwarder("b", 10, 1);
    assert!(
        !may_have_begun(&begun, &a, at(11)) && goes_before(&begun, &a, false),
        "it has begun"
    );
    assert!(!may_have_begun(&b, &a, at(60)), "it does not begin for another reason");
    let mut suspended = b.clone();
    suspended.spec.suspend = true;
    assert!(!may_have_begun(&suspended, &a, at(11)));
    assert!(may_have_begun(&forwarder("b", 12, 0), &a, at(13)), "clocks differ");
    assert!(!may_have_begun(&forwarder("b", 13, 0), &a, at(13)), "it knew of us");
}

#[test]
fn of_two_that_read_the_younger_one_says_so_and_the_older_one_does_not() {
    let (old, young) = (forwarder("old", 1, 2), forwarder("young", 2, 2));
    assert!(goes_before(&old, &young, true) && !goes_before(&waiting(young.clone()), &old, true));
    let mut changed = old.clone();
    changed.metadata.generation = Some(2);
    assert!(
        !goes_before(&changed, &young, true),
        "its pods may still be of another source"
    );
    assert!(!goes_before(&waiting(old), &young, true));
}

#[test]
fn who_is_suspended_is_in_nobodys_way_once_its_pods_are_gone() {
    let young = forwarder("young", 2, 0);
    for stop in [(|old| old.spec.suspend = true) as fn(&mut AssetForwarder), |old| {
        old.spec.replicas = 0
    }] {
        let mut old = forwarder("old", 1, 1);
        stop(&mut old);
        assert!(goes_before(&old, &young, false), "its pods are ending");
        let mut old = forwarder("old", 1, 0);
        stop(&mut old);
        assert!(!goes_before(&old, &young, false));
    }
}

#[test]
fn who_comes_second_begins_no_pods_and_names_the_first() {
    let mut world = World::new([cluster("c1", 1)]);
    let other = forwarder("first", 1, 1);
    world.rival = Some(Rival::new(&world.forwarder, &other, false, "assets"));
    let pass = world.step();
    assert!(matches!(pass.resources.workload, Workload::Scaled(0)));
    let words = pass.validated.config.unwrap_err();
    assert!(matches!(words, Verdict::Stalled(_)));
    assert_eq!(words.words().reason, Reason::SourceTaken);
    assert!(words.words().message.contains("plant/first") && words.words().message.contains("\"fanout\""));
    world.rival = None;
    assert!(matches!(world.step().resources.workload, Workload::Configured { .. }));

    // A Deployment that was scaled to nothing, as by `suspend`, stays so.
    world
        .existing
        .deployment
        .as_mut()
        .unwrap()
        .spec
        .as_mut()
        .unwrap()
        .replicas = Some(0);
    world.rival = Some(Rival::new(&world.forwarder, &other, false, "assets"));
    assert!(matches!(world.look().resources.workload, Workload::Scaled(0)));
}

#[test]
fn pods_that_run_go_on_and_the_status_says_what_is_wrong() {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    world.pods_follow();
    world.step();
    let before = world.existing.deployment.clone();
    let mut other = forwarder("first", 0, 1);
    other.metadata.namespace = Some("elsewhere".to_owned());
    world.rival = Some(Rival::new(&world.forwarder, &other, true, "assets"));
    let pass = world.step();
    assert_eq!(
        world.existing.deployment, before,
        "nothing is stopped and nothing rolls"
    );
    let (_, verdict) = status::status(&world.status(), &pass.validated, before.as_ref(), &world.existing);
    assert_eq!(verdict.words().reason, Reason::SourceTaken);
    let message = &verdict.words().message;
    assert!(
        !message.contains("elsewhere"),
        "another namespace is not named: {message}"
    );
    assert!(message.contains("the pods of both go on"), "{message}");
}

/// A world whose forwarder names a second channel, with what there is of a forwarder that read the first one alone.
fn with_a_second_source() -> World {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    world.pods_follow();
    world.step();
    sources::add(&mut world, "second");
    world
}

#[test]
fn a_source_that_pods_do_not_read_yet_is_claimed_as_by_one_without_pods() {
    let world = with_a_second_source();
    let found = world.dereferenced();
    let claim = Claim::of(&found).unwrap();
    let references = |claimed: &[Claimed<'_>]| claimed.iter().map(|of| of.reference.to_owned()).collect::<Vec<_>>();
    assert_eq!(references(&claim.read), ["plant/assets"]);
    assert_eq!(references(&claim.wanted), ["plant/second"]);
    // It is younger than ours, and reads: ours may go on with what it reads, and may not begin with what that one has.
    let reads = forwarder("reads", 59, 1);
    assert!(claim.goes_before(&reads, false) && !claim.goes_before(&reads, true) && claim.is_rival(&reads));

    let mut world = world;
    world.step();
    let found = world.dereferenced();
    let claim = Claim::of(&found).unwrap();
    assert_eq!(references(&claim.read), ["plant/assets", "plant/second"]);
    assert!(claim.wanted.is_empty() && !claim.is_rival(&reads), "ours has it now");

    let mut others = world.forwarder.clone();
    others.spec.sources[1].channel_ref.namespace = Some("elsewhere".to_owned());
    assert_eq!(
        channels(&others).collect::<Vec<_>>(),
        ["plant/assets", "elsewhere/second"]
    );
}

#[test]
fn a_source_of_another_forwarder_is_not_taken_up_and_pods_go_on_with_those_that_they_have() {
    let mut world = with_a_second_source();
    let before = world.existing.deployment.clone();
    let other = forwarder("first", 0, 1);
    world.rival = Some(Rival::new(&world.forwarder, &other, false, "second"));
    let pass = world.step();
    assert!(
        matches!(pass.resources.workload, Workload::Scaled(2)),
        "as many as before"
    );
    assert_eq!(world.existing.deployment, before);
    let words = pass.validated.config.unwrap_err().words().clone();
    assert_eq!(words.reason, Reason::SourceTaken);
    assert_eq!(
        words.message,
        "the AssetForwarder plant/first also has the topic \"second\" and the consumer group \"fanout\"; this one does not start \
         to read it, and its pods go on with the topics that they read. Delete or suspend one of the two, remove the source from \
         one, or set another group in all spec.sources of one"
    );
}

#[test]
fn pods_of_one_that_waits_with_several_sources_may_read_ours() {
    let ours = forwarder("ours", 1, 0);
    let mut other = waiting(forwarder("other", 2, 1));
    assert!(!goes_before(&other, &ours, false), "its pods are of another source");
    let second = other.spec.sources[0].clone();
    other.spec.sources.push(second);
    assert!(goes_before(&other, &ours, false));
    other.status.as_mut().unwrap().replicas = 0;
    assert!(!goes_before(&other, &ours, false), "it has none");
}
