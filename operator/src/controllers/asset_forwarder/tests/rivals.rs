//! Two forwarders of one topic and one group.

use k8s_openapi::jiff::Timestamp;

use super::super::dereference::{Claim, Claimed, Read};
use super::super::rivals::{Use, channels, goes_before};
use super::super::sources::Sources;
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

/// A world whose forwarder has two pods.
fn running() -> World {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    world.pods_follow();
    world
}

/// Whether `other`, which declares the source of `us` too, goes before that, which does not read it yet.
fn declarer_goes_before(other: &AssetForwarder, us: &AssetForwarder) -> bool {
    goes_before(other, us, Use::Declares, false, at(1_000))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn the_older_one_goes_first_and_one_that_reads_before_one_that_does_not() {
    let (old, young) = (forwarder("old", 1, 0), forwarder("young", 2, 0));
    assert!(declarer_goes_before(&old, &young) && !declarer_goes_before(&young, &old));
    let twin = forwarder("a", 1, 0);
    assert!(
        declarer_goes_before(&twin, &old) && !declarer_goes_before(&old, &twin),
        "by name"
    );

    let young = forwarder("young", 2, 1);
    let reader_goes_before = |other, us, we_read| goes_before(other, us, Use::Reads, we_read, at(1_000));
    assert!(
        reader_goes_before(&young, &old, false),
        "who reads is not stopped by who does not"
    );
    assert!(!goes_before(&old, &young, Use::Declares, true, at(1_000)));
    assert!(!declarer_goes_before(&young, &old), "its pods are of another source");
    assert!(reader_goes_before(&old, &young, true) && !reader_goes_before(&young, &old, true));
}

#[test]
fn who_is_scaled_by_lag_wants_pods_whatever_replicas_says() {
    let (mut old, young) = (forwarder("old", 1, 0), forwarder("young", 2, 0));
    old.spec.replicas = 0;
    assert!(!declarer_goes_before(&old, &young));
    old.spec.autoscaling = Some(yaml(
        "{minReplicas: 1, maxReplicas: 2, lagPerReplica: 100, scaleDownDelaySeconds: 60}",
    ));
    assert!(declarer_goes_before(&old, &young));
    old.spec.suspend = true;
    assert!(!declarer_goes_before(&old, &young));
}

#[test]
fn the_older_one_waits_for_the_words_of_a_younger_one_that_may_have_begun() {
    let goes_before =
        |other: &AssetForwarder, us: &AssetForwarder, second| goes_before(other, us, Use::Declares, false, at(second));
    let (a, b) = (forwarder("a", 10, 0), forwarder("b", 10, 0));
    assert!(
        goes_before(&b, &a, 11),
        "it came first, and did not know of the other one"
    );
    assert!(goes_before(&a, &b, 11));
    assert!(!goes_before(&waiting(b.clone()), &a, 11), "it waits for us");
    assert!(!goes_before(&b, &a, 60), "it does not begin for another reason");
    let mut suspended = b.clone();
    suspended.spec.suspend = true;
    assert!(!goes_before(&suspended, &a, 11));
    assert!(goes_before(&forwarder("b", 12, 0), &a, 13), "clocks differ");
    assert!(!goes_before(&forwarder("b", 13, 0), &a, 13), "it knew of us");

    // Ours is old, and declares the source since a moment ago: nobody who was made since knew of that.
    let mut edited = a.clone();
    edited.metadata.generation = Some(2);
    assert!(goes_before(&forwarder("b", 50, 0), &edited, 51));
    assert!(!goes_before(&waiting(forwarder("b", 50, 0)), &edited, 51));
    assert!(
        !goes_before(&forwarder("b", 34, 0), &edited, 51),
        "it would have shown it"
    );

    // The younger one declares it since a moment ago, and reads others.
    let mut reads = forwarder("b", 50, 1);
    assert!(!goes_before(&reads, &edited, 51), "it has shown what it reads");
    reads.metadata.generation = Some(2);
    assert!(
        goes_before(&reads, &edited, 500),
        "it has not looked at its present spec"
    );
    reads.status.as_mut().unwrap().observed_generation = Some(2);
    assert!(!goes_before(&reads, &edited, 500));
}

fn deployment_of(world: &World) -> Deployment {
    world.existing.deployment.clone().unwrap()
}

#[test]
fn what_pods_of_another_one_may_read_says_its_deployment() {
    let mut world = running();
    world.forwarder.status = None;
    let (other, deployment) = (&world.forwarder, deployment_of(&world));
    let assets = Sources::new([("plant/assets", "assets")], "fanout");
    assert_eq!(Read::by(other, Some(&deployment), false), Read::Sources(assets.clone()));

    let mut edited = other.clone();
    edited.spec.sources[0].channel_ref.name = "second".to_owned();
    let read = Read::by(&edited, Some(&deployment), false);
    assert_eq!(read, Read::Sources(assets), "its pods have not followed its spec");

    let mut foreign = deployment.clone();
    foreign.metadata.owner_references = None;
    assert_eq!(Read::by(other, Some(&foreign), false), Read::Nothing);
    let mut counted = other.clone();
    counted.status.get_or_insert_default().replicas = 1;
    assert_eq!(Read::by(&counted, Some(&foreign), false), Read::Unknown);
    assert_eq!(Read::by(&counted, None, false), Read::Unknown);

    let mut ended = deployment;
    ended.spec.as_mut().unwrap().replicas = Some(0);
    ended.status.get_or_insert_default().replicas = Some(1);
    assert!(
        matches!(Read::by(other, Some(&ended), false), Read::Sources(_)),
        "one is ending"
    );
    ended.status.as_mut().unwrap().replicas = Some(0);
    assert_eq!(Read::by(other, Some(&ended), false), Read::Nothing);
}

#[test]
fn of_two_that_read_the_younger_one_says_so_and_the_older_one_does_not() {
    let world = running();
    let found = world.dereferenced();
    let claim = Claim::of(&found).unwrap();
    let shared = |topics: &[(&'static str, &'static str)], group| {
        let read = Read::Sources(Sources::new(topics.iter().copied(), group));
        claim.read_by_both(&world.forwarder, &read).is_some()
    };
    assert!(shared(
        &[("plant/first", "first"), ("plant/assets", "assets")],
        "fanout"
    ));
    assert!(!shared(&[("plant/first", "first")], "fanout"), "its spec may name ours");
    assert!(!shared(&[("plant/assets", "assets")], "another"));
    assert!(claim.read_by_both(&world.forwarder, &Read::Unknown).is_some());
    assert!(claim.read_by_both(&world.forwarder, &Read::Nothing).is_none());
}

#[test]
fn who_is_suspended_is_in_nobodys_way_once_its_pods_are_gone() {
    let world = running();
    let found = world.dereferenced();
    let claim = Claim::of(&found).unwrap();
    for stop in [(|old| old.spec.suspend = true) as fn(&mut AssetForwarder), |old| {
        old.spec.replicas = 0
    }] {
        let mut old = forwarder("old", 1, 1);
        stop(&mut old);
        assert!(claim.concerns(&old, || Read::Nothing), "its pods are ending");
        let mut old = forwarder("old", 1, 0);
        stop(&mut old);
        assert!(!claim.concerns(&old, || Read::Nothing));
    }
}

#[test]
fn pods_that_have_not_followed_another_group_count_in_the_old_one() {
    let world = running();
    let found = world.dereferenced();
    let claim = Claim::of(&found).unwrap();
    let read = |group| move || Read::Sources(Sources::new([("plant/assets", "assets")], group));
    let mut other = forwarder("other", 1, 0);
    other.spec.sources[0].group = "another".to_owned();
    other.spec.suspend = true;
    assert!(
        claim.concerns(&other, read("fanout")),
        "whatever its spec and its status say"
    );
    assert!(!claim.concerns(&other, read("another")));
    assert!(!claim.concerns(&other, || Read::Nothing));
}

#[test]
fn pods_that_are_ending_are_read_by_for_others_and_not_for_themselves() {
    let mut world = running();
    let deployment = world.existing.deployment.as_mut().unwrap();
    deployment.spec.as_mut().unwrap().replicas = Some(0);
    deployment.status.as_mut().unwrap().replicas = Some(0);
    world.forwarder.status = None;
    let other = world.forwarder.clone();
    let deployment = deployment_of(&world);
    assert!(matches!(Read::by(&other, Some(&deployment), true), Read::Sources(_)));
    assert_eq!(Read::by(&other, Some(&deployment), false), Read::Nothing);
    let wants = |world: &World| Claim::of(&world.dereferenced()).unwrap().wanted.len();
    assert_eq!(wants(&world), 0);
    for pod in &mut world.existing.pods {
        pod.terminating = true;
    }
    assert_eq!(wants(&world), 1, "another one may wait for their end");
}

#[test]
fn an_older_one_that_may_wait_for_our_pods_does_not_keep_us_waiting() {
    let mut world = with_a_second_source();
    world.forwarder.metadata.creation_timestamp = Some(yaml("'1970-01-01T00:00:10Z'"));
    let found = world.dereferenced();
    let claim = Claim::of(&found).unwrap();
    let old = forwarder("old", 1, 0);
    assert!(claim.declarer_goes_before(&old));
    assert!(!claim.declarer_goes_before(&waiting(old)), "nobody would begin");
}

#[test]
fn two_that_change_places_end_their_pods_for_each_other() {
    let mut world = running();
    world.channel.metadata.name = Some("second".to_owned());
    world.forwarder.spec.sources[0].channel_ref.name = "second".to_owned();
    let other = forwarder("other", 1, 1);
    let reason = |world: &World| {
        let pass = world.look();
        (
            pass.validated.config.unwrap_err().words().reason,
            pass.validated.replicas,
        )
    };
    let taken = Rival::new(&world.forwarder, &other, false, "assets");
    world.rival = Some(taken.clone());
    assert_eq!(
        reason(&world),
        (Reason::SourceTaken, 2),
        "its pods go on with what they read"
    );
    world.rival = Some(Rival { lets_go: true, ..taken });
    assert_eq!(reason(&world), (Reason::SourceChanging, 0));
    world.existing.pods.clear();
    world
        .existing
        .deployment
        .as_mut()
        .unwrap()
        .spec
        .as_mut()
        .unwrap()
        .replicas = Some(0);
    assert_eq!(
        reason(&world),
        (Reason::SourceTaken, 0),
        "until the other one's pods have ended"
    );
}

#[test]
fn no_pod_begins_with_the_configuration_of_before() {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    let deployment = world.existing.deployment.as_mut().unwrap();
    deployment.spec.as_mut().unwrap().replicas = Some(0);
    let replicas = |world: &World| {
        let mut found = world.dereferenced();
        found.sources[0].found = Found::Missing;
        validate(&found, &world.settings()).unwrap().replicas
    };
    assert_eq!(replicas(&world), 0);
    let deployment = world.existing.deployment.as_mut().unwrap();
    deployment.spec.as_mut().unwrap().replicas = Some(1);
    assert_eq!(replicas(&world), 2, "pods that there are go on, and are scaled");
}

#[test]
fn two_that_want_one_source_more_do_not_wait_for_each_other() {
    // Both have pods of a source of their own, and both declare one source more.
    let edited = |name: &str, made| {
        let mut forwarder = forwarder(name, made, 1);
        forwarder.metadata.generation = Some(2);
        forwarder.status.as_mut().unwrap().observed_generation = Some(2);
        forwarder
    };
    let (old, young) = (edited("old", 1), waiting(edited("young", 2)));
    assert!(declarer_goes_before(&old, &young));
    assert!(!declarer_goes_before(&young, &old), "one of them goes on");
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
    let mut world = running();
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
    let mut world = running();
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
    assert!(claim.concerns(&reads, || panic!("its spec says it")));
    assert!(claim.reader_goes_before(&reads, false) && !claim.reader_goes_before(&reads, true));

    let mut world = world;
    world.step();
    let found = world.dereferenced();
    let claim = Claim::of(&found).unwrap();
    assert_eq!(references(&claim.read), ["plant/assets", "plant/second"]);
    assert!(claim.wanted.is_empty(), "ours has it now");

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
    world.forwarder.spec.replicas = 3;
    assert!(
        matches!(world.look().resources.workload, Workload::Scaled(3)),
        "they are scaled as ever"
    );
    let mut down = world.existing.deployment.clone().unwrap();
    down.spec.as_mut().unwrap().replicas = Some(0);
    world.existing.deployment = Some(down);
    assert!(
        matches!(world.look().resources.workload, Workload::Scaled(0)),
        "what they would read may be another's by now"
    );
    let words = pass.validated.config.unwrap_err().words().clone();
    assert_eq!(words.reason, Reason::SourceTaken);
    assert_eq!(
        words.message,
        "the AssetForwarder plant/first also has the topic \"second\" and the consumer group \"fanout\"; this one does not start \
         to read it, and its pods go on with the topics that they read. Delete or suspend one of the two, remove the source from \
         one, or set another group in all spec.sources of one"
    );
}
